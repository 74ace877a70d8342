"""The server's wall clock and names: timestamps as the API writes them, random suffixes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
import uuid
from typing import Any

from kitlib.lab import hostclock

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def now() -> dt.datetime:
    """Return the current time in UTC, as the control plane's host has it."""
    return hostclock.utc()


def stamp(when: dt.datetime | None = None) -> str:
    """Return a metav1.Time (whole seconds), of now by default."""
    return (when or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> dt.datetime | None:
    """Return the time that a metav1.Time or MicroTime names, or None."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def age(text: str | None) -> float:
    """Return the seconds since a timestamp; 0 when there is none."""
    when = parse(text) if text else None
    return (now() - when).total_seconds() if when else 0.0


def suffix(length: int = 5) -> str:
    """Return a random suffix from the letters that Kubernetes uses for generated names."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def digest(template: dict[str, Any], length: int = 10) -> str:
    """Return a stable suffix for a pod template: the same for the same pods."""
    meta = template.get("metadata") or {}
    parts = [meta.get("labels"), meta.get("annotations"), template.get("spec")]
    text = json.dumps(parts, sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    letters = []
    for _ in range(length):
        number, at = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[at])
    return "".join(letters)


def uid() -> str:
    """Return a new object UID."""
    return str(uuid.uuid4())
