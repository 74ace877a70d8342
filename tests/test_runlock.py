"""One run at a time, on a real shell behind a real SSH server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sshkit import Server, known_hosts, ssh_to

from kitlib.errors import PreconditionError
from kitlib.runlock import STALE_SECONDS, Owner, RunLock

HOST = "worker-1"
SINCE = "2026-01-02T03:04:05.000000Z"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def lock(state: Path, tmp_path: Path) -> Iterator[Callable[..., RunLock]]:
    """Makes the locks of runs on one host; `told` has what each of them wrote down."""
    with Server(tmp_path / "server") as server:
        known = known_hosts(tmp_path / "known_hosts", server)
        with ssh_to(server, known) as door:

            def make(run_id: str, *, every: float = 60, **who: object) -> RunLock:
                owner = replace(Owner.here(run_id, "kit stage", SINCE), **who)
                told: list[str] = []
                made = RunLock(
                    door,
                    [HOST],
                    owner,
                    tell=lambda host, text: told.append(f"{host}: {text}"),
                    state=str(state),
                    every=every,
                )
                made.told = told  # type: ignore[attr-defined]
                return made

            yield make


def until(true: Callable[[], object]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true")


def someone_gone() -> Owner:
    """Return the owner that a process of this machine was, which has ended."""
    code = (
        "import json, dataclasses; from kitlib.runlock import Owner\n"
        f"print(json.dumps(dataclasses.asdict(Owner.here('gone', 'kit build', '{SINCE}'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Owner(**json.loads(done.stdout))


def test_the_second_is_told_who_the_first_is(lock, state):
    first = lock("first", user="ann", machine="laptop")
    with first.hold() as free:
        assert free
        with pytest.raises(PreconditionError) as refusal, lock("second").hold():
            pass
    for word in (
        "worker-1",
        "run first",
        "kit stage",
        "ann",
        "laptop",
        f"pid {os.getpid()}",
        SINCE,
    ):
        assert word in str(refusal.value)
    assert not (state / "lock").exists()
    with lock("second").hold() as free:
        assert free


def test_it_is_held_once_and_let_go_at_the_end_of_the_outermost(lock, state):
    mine = lock("run")
    with mine.hold() as outer:
        with mine.hold() as inner:
            assert (outer, inner) == (True, False)
        assert (state / "lock").exists()
    assert not (state / "lock").exists()
    with pytest.raises(RuntimeError), mine.hold():
        raise RuntimeError
    assert not (state / "lock").exists()


def test_the_notebooks_of_a_build_work_under_the_builds_lock(lock, state):
    build = lock("run", what="kit build")
    with build.hold():
        kernel = lock("run", what="notebook", pid=1)
        with kernel.hold() as free:
            assert not free
        assert (state / "lock").exists()
        with pytest.raises(PreconditionError), lock("other", what="notebook", pid=1).hold():
            pass


def test_a_lock_that_a_notebook_of_the_build_took_is_not_lost(lock, state):
    """A host that restarted forgets the lock; whoever of the build comes first takes it."""
    build = lock("run", what="kit build", every=0.05)
    with build.hold():
        (state / "lock").unlink()
        with lock("run", what="notebook", pid=1).hold():
            threading.Event().wait(0.3)
            build.check()
        until(lambda: (state / "lock").exists())


def test_two_notebooks_of_one_run_by_hand_are_two(lock):
    other = lock("run", what="notebook", pid=1)
    with lock("run", what="notebook").hold(), pytest.raises(PreconditionError), other.hold():
        pass


def test_the_lock_of_a_process_that_is_gone_is_taken_over_at_once(lock, state):
    owner = someone_gone()
    assert owner.dead
    with lock("gone", **{f: getattr(owner, f) for f in ("pid", "process", "what")}).hold():
        second = lock("second")
        with second.hold() as free:
            assert free
    [said] = second.told
    assert said.startswith(f"{HOST}: took over the lock of run gone (kit build)")
    assert "its process is gone" in said


def test_a_lock_of_this_process_that_could_not_be_released_is_taken_over(lock, state):
    first = lock("first")
    with first.hold():
        kept = (state / "lock").read_text()
    (state / "lock").write_text(kept)  # as if the host had been out of reach at the end
    second = lock("second")
    with second.hold() as free:
        assert free
    assert "took over the lock of run first" in second.told[0]


def test_another_machines_owner_is_believed_until_its_lease_ends(lock, state):
    far = lock("far", process="another-boot pid:[1] 5")
    assert not far.owner.dead
    with far.hold():
        with pytest.raises(PreconditionError), lock("second").hold():
            pass
        old = (state / "lock").stat().st_mtime - STALE_SECONDS - 5
        os.utime(state / "lock", (old, old))
        second = lock("second")
        with second.hold():
            pass
        assert "no sign of life" in second.told[0]


def test_the_owner_gives_signs_of_life_and_learns_that_it_was_taken_over(lock, state):
    first = lock("first", every=0.05)
    with first.hold():
        os.utime(state / "lock", (0, 0))
        until(lambda: (state / "lock").stat().st_mtime > 0)
        first.check()
        (state / "lock").write_text("other/1/2\n{}\n")
        until(lambda: first._lost)
        with pytest.raises(PreconditionError, match="taken over"):
            first.check()
    assert (state / "lock").exists(), "the other's lock is not this one's to remove"


def test_a_lock_that_is_not_understood_is_named(lock, state):
    with lock("first").hold():
        (state / "lock").write_text("from/the/future\n[1]\n")
        with pytest.raises(PreconditionError, match="not understood"), lock("second").hold():
            pass
