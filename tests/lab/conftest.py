"""Fixtures of labs that run: `stub_lab` for the hosts alone, `lab` with the whole emulation."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_help import STUB, Lab, Someone, python_for, running_lab

from kitlib.lab import verbs


@pytest.fixture(scope="session")
def shared_stub_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("stub-lab")
    with running_lab(directory, node="lab_node_stub", python_path=[STUB]) as lab:
        yield lab


@pytest.fixture
def stub_lab(shared_stub_lab: Lab) -> Iterator[Lab]:
    """One lab for all tests of the hosts alone; its connections and faults end with each test."""
    yield shared_stub_lab
    shared_stub_lab.close()
    verbs.heal(shared_stub_lab.state_dir)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A fresh lab with the whole emulation, for this test alone."""
    with running_lab(tmp_path / "lab") as running:
        yield running


@pytest.fixture(params=["same-user", "ordinary-user"])
def someone(request: pytest.FixtureRequest) -> Iterator[Someone]:
    """This user, and when that is root an ordinary user as well; the directory is theirs."""
    prefix: tuple[str, ...] = ()
    python: str | None = sys.executable
    if request.param == "ordinary-user":
        if os.getuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("this user is an ordinary one already, or setpriv is not there")
        prefix = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
        python = python_for(prefix)
        if python is None:
            pytest.skip("no Python with the lab's libraries that an ordinary user may run")
    assert python is not None
    with tempfile.TemporaryDirectory(prefix="kit-lab-") as name:
        directory = Path(name, "state")
        directory.mkdir(mode=0o700)
        Path(name).chmod(0o755)
        if prefix:
            os.chown(directory, 65534, 65534)
        user = Someone(prefix, python, directory)
        try:
            yield user
        finally:
            user.down()
