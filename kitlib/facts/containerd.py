"""containerd as it is installed and configured on a host."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kitlib.facts.sections import ABSENT, command, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "Containerd", "parse", "parse_config"]

SCRIPT = "".join(
    (
        section("containerd.version", needs("containerd", "containerd --version")),
        # What a host prints is kept in the record: no registry's password belongs there. Warnings
        # go to the other channel; only the document is wanted.
        section(
            "containerd.config",
            needs(
                "containerd",
                "d=$(containerd config dump 2>/dev/null) && printf '%s\\n' \"$d\" | sed -E"
                " 's/^( *(auth|password|identitytoken|identity_token) *= *).+/\\1\"***\"/'",
            ),
        ),
    )
)
COMMAND = command(SCRIPT)

_VERSION = re.compile(r"v?(\d+\.\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Containerd:
    """What is installed, whether it runs or not.

    Attributes:
        version: Its version, `1.6.20`; empty where it is not installed.
        config: Its effective configuration; None where there is none or it cannot be read.
    """

    version: str
    config: Mapping[str, Any] | None

    @property
    def installed(self) -> bool:
        """Whether there is a containerd."""
        return bool(self.version)


def parse(text: str) -> Containerd:
    """Return what is installed, from what `COMMAND` printed."""
    sections = split(text)
    told = sections.get("containerd.version", ABSENT)
    found = None if told.status else _VERSION.search(told.text)
    dump = sections.get("containerd.config", ABSENT)
    return Containerd(
        version=found[1] if found else "",
        config=None if dump.status else parse_config(dump.text),
    )


def parse_config(text: str) -> Mapping[str, Any] | None:
    """Return a configuration; None where the text is none."""
    try:
        return tomllib.loads(text) or None
    except tomllib.TOMLDecodeError:
        return None
