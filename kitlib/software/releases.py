"""The newest patch release of each Kubernetes minor that was known when this was written.

https://kubernetes.io/releases/ keeps them, with the last of each minor that is no longer supported.
A kit that is older than a patch is no error: whoever needs a newer one writes it into the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kitlib.plugins.entry import minor

__all__ = ["NEWEST_PATCH", "newest_patch"]

NEWEST_PATCH: Mapping[int, int] = MappingProxyType({
    15: 12, 16: 15, 17: 17, 18: 20, 19: 16, 20: 15, 21: 14, 22: 17, 23: 17, 24: 17, 25: 16,
    26: 15, 27: 16, 28: 15, 29: 15, 30: 14, 31: 14, 32: 13, 33: 12, 34: 9, 35: 9, 36: 5,
})  # fmt: skip
"""Kubernetes 1.x -> its last known patch."""


def newest_patch(version: str) -> str:
    """Return the newest known release of a version's minor; empty where none is known.

    Args:
        version: `1.22`, `1.22.3` or `v1.22.3`.
    """
    major, wanted = minor(version)
    known = NEWEST_PATCH.get(wanted) if major == 1 else None
    return "" if known is None else f"1.{wanted}.{known}"
