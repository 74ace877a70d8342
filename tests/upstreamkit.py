"""The plugins' own manifests: other people's files, read where they lie beside the project.

A test of them is left out elsewhere; where everything is required that is no failure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MANIFESTS = Path(__file__).resolve().parents[2] / "shared/plugins/manifests"

MARKS = [
    pytest.mark.upstream,
    pytest.mark.skipif(not MANIFESTS.is_dir(), reason="upstream's manifests are not beside us"),
]
"""For a module's `pytestmark`."""


def upstream(test: Callable[..., None]) -> Callable[..., None]:
    """Mark one test."""
    for mark in MARKS:
        test = mark(test)
    return test
