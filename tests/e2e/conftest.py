"""The lab that the end-to-end tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from kit_help import Kit, lab_kit

from kitlib.lab import verbs
from kitlib.stages import observe


@pytest.fixture(scope="session")
def shared_kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with lab_kit(tmp_path_factory.mktemp("lab")) as kit:
        yield kit


@pytest.fixture
def kit(shared_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    """One lab for all; its hosts are as the test before left them, without its faults.

    In this process a plugin is watched for half a second only.
    """
    monkeypatch.setattr(observe, "STEADY_SECONDS", 0.5)
    yield shared_kit
    verbs.heal(shared_kit.state_dir)
