"""What the engine did to a manifest, line by line: a person reads it before anything is applied."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kitlib.command import MASK

__all__ = ["Patch", "shown"]

_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Patch:
    """One field of one object that is applied otherwise than the manifest has it.

    Attributes:
        target: The object: `DaemonSet kube-system/calico-node`.
        field: The field in it, as a person would say it.
        before: Its value in the manifest; empty for none.
        after: Its value as it is applied; empty for none.
        why: The parameter that wants it so, or the trap that it avoids.
    """

    target: str
    field: str
    before: str
    after: str
    why: str

    def __str__(self) -> str:
        """Return one line in the manner of a unified difference."""
        old = f" -{self.before}" if self.before else ""
        new = f" +{self.after}" if self.after else ""
        return f"{self.target}: {self.field}:{old}{new} ({self.why})"


def shown(value: Any, *, secret: bool = False) -> str:
    """Return a value for one line: short, and masked where it is a secret."""
    if value is None:
        return ""
    if secret:
        return MASK
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()) or '""'
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
