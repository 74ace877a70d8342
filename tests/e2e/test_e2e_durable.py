"""A runner that is killed leaves its commands running: the next one waits for them, alone."""

from __future__ import annotations

import os
import signal

import pytest
from kit_help import Kit, Running, lines, told
from lab_help import HOSTS, until

from kitlib.model import Verdict

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL_PLANE, WORKER_1, WORKER_2 = HOSTS
STATE = "/run/cluster-network-kit"


def kill(running: Running) -> None:
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.communicate()


def nothing_left(kit: Kit) -> None:
    for host in HOSTS:
        left = kit.on(host, f"ls {STATE}/lock {STATE}/jobs/* 2>/dev/null || true")
        assert left == "", f"{host}: {left}"


def test_a_killed_runners_joins_run_on_and_are_waited_for(kit: Kit) -> None:
    """The next run takes the lock over, says so, waits, and has nothing left to join."""
    kit.stand("reset", rebuild=True)
    kit.stand("network", first="packages")
    running = kit.start("stage", "join", "{params}")
    jobs = f"cat {STATE}/jobs/*/about 2>/dev/null || true"
    until(lambda: "kubeadm join" in kit.on(WORKER_1, jobs), 60)
    kill(running)
    done = kit.stage("join").passed()
    said = [line["data"]["text"] for line in lines(done.run_dir) if line["kind"] == "lock"]
    assert any("took over the lock" in text and "its process is gone" in text for text in said)
    ended = [text for text in said if "kubeadm join" in text]
    assert ended
    assert all(text.endswith("exit status 0") for text in ended), said
    assert (WORKER_1, "join") not in [(w, what[:4]) for w, what in told(done.run_dir, "change")]
    nothing_left(kit)


def test_the_second_run_names_the_first_and_changes_nothing(kit: Kit) -> None:
    kit.stand("network")
    with kit.session() as first, first.exclusive():
        first.journal.stage = "test"
        done = kit.stage("join").failed(
            3, CONTROL_PLANE, first.journal.path.name, f"pid {os.getpid()}", "since"
        )
        assert told(done.run_dir, "change") == []
        done = kit.build().failed(3, first.journal.path.name).kept()
        assert (done.run_dir / "report.html").is_file()
        # What changes nothing is not kept away.
        kit.stage("preflight").passed()
        kit.stage("join", "--dry-run").passed()
        first.finish(Verdict.PASS)
    nothing_left(kit)
