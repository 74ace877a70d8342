"""What every part of a catalogue entry is made of: the strict model, and Kubernetes versions."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictStr

__all__ = ["Break", "Entry", "Minor", "Supported", "minor"]

Minor = Annotated[StrictStr, Field(pattern=r"^1\.\d+$")]
"""A Kubernetes minor version, quoted in YAML: "1.22"."""


def minor(version: str) -> tuple[int, int]:
    """Return (major, minor) of a version such as `1.22.3`, `v1.22` or `1.22`."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if not found:
        raise ValueError(f"not a version: {version!r}")
    return int(found[1]), int(found[2])


class Entry(BaseModel):
    """A part of a catalogue entry: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Break(Entry):
    """A Kubernetes version from which on something of the plugin no longer works."""

    since: Minor
    """The first minor version that it fails on."""
    why: StrictStr
    """What is gone there: API groups, labels, the Docker runtime."""


class Supported(Entry):
    """The Kubernetes versions that a plugin, or one release of it, works on."""

    min: Minor
    """The oldest minor version."""
    max: Minor
    """The newest minor version that was known to work when this entry was written."""
    note: StrictStr = ""
    """What the range rests on."""
    breaks: tuple[Break, ...] = ()
    """Why newer versions do not work, oldest first; empty where none is known not to."""

    def covers(self, version: str) -> bool:
        """Return whether a Kubernetes version lies in the range."""
        return minor(self.min) <= minor(version) <= minor(self.max)

    def distance(self, version: str) -> int:
        """Return how many minor versions a Kubernetes version lies outside of the range."""
        asked = minor(version)[1]
        return max(minor(self.min)[1] - asked, asked - minor(self.max)[1], 0)

    def broken_on(self, version: str) -> tuple[Break, ...]:
        """Return what no longer works on a Kubernetes version."""
        return tuple(each for each in self.breaks if minor(each.since) <= minor(version))
