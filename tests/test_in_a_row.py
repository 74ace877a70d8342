"""A run behind a join that failed: who is judged all the same, and that the run has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib.errors import ChecksFailed, CommandError, Interrupted, KitError, RecordError
from kitlib.in_a_row import in_a_row
from kitlib.journal import Journal

NOTEBOOKS = ("05_network", "06_join", "07_ready", "08_verify", "20_node_readiness")
ROLES = {"cp": "control_plane", "w-1": "worker", "w-2": "worker"}


class Run:
    """Steps that fail where the test says so, and what the join of each host came to."""

    def __init__(self, tmp_path: Path, joined: dict[str, bool], **errors: KitError) -> None:
        hosts = [{"name": n, "address": n, "role": role} for n, role in ROLES.items()]
        self.journal = Journal.create(tmp_path, "test", {"hosts": hosts})
        self.joined = joined
        self.errors = errors
        self.done: list[str] = []

    def work(self, step: str) -> None:
        stage = step.partition("_")[2] or step
        self.journal.stage = stage
        self.done.append(stage)
        if stage == "join":
            for host, ok in self.joined.items():
                self.journal.event("host.ended", host=host, ok=ok)
        if stage in self.errors:
            raise self.errors[stage]


def lost() -> CommandError:
    return CommandError("w-1", "kubeadm join", 1, "[ERROR Swap]: running with swap on")


def test_the_hosts_that_joined_are_judged_and_the_run_ends_as_the_join_did(tmp_path: Path) -> None:
    ready = ChecksFailed("ready: 1 check failed\n  FAIL w-1: is a node of the cluster")
    run = Run(tmp_path, {"cluster": True, "w-1": False, "w-2": True}, join=lost(), ready=ready)
    with pytest.raises(CommandError, match="kubeadm join: exit status 1") as caught:
        in_a_row(run.journal, NOTEBOOKS, run.work)
    assert run.done == ["network", "join", "ready", "verify"], "nothing is measured then"
    assert "ready of the hosts that joined, also FAIL: 1 check failed" in str(caught.value)
    assert "going on without w-1" in (run.journal.path / "journal.jsonl").read_text()


def test_no_stage_behind_it_makes_a_pass_of_a_failed_join(tmp_path: Path) -> None:
    run = Run(tmp_path, {"w-1": False, "w-2": True}, join=lost())
    with pytest.raises(CommandError):
        in_a_row(run.journal, ("join", "ready", "verify"), run.work)
    assert run.done == ["join", "ready", "verify"]


@pytest.mark.parametrize(
    "joined",
    [
        {"cp": False, "w-1": True},
        {"cluster": False},
        {"w-1": False, "w-2": False},
        {"w-1": False, "cluster": False},
        {},
    ],
    ids=["control plane", "token", "no worker joined", "worker and token", "nothing was done"],
)
def test_any_other_failure_of_a_join_ends_the_run(tmp_path: Path, joined: dict[str, bool]) -> None:
    run = Run(tmp_path, joined, join=lost())
    with pytest.raises(CommandError):
        in_a_row(run.journal, NOTEBOOKS, run.work)
    assert run.done == ["network", "join"]


@pytest.mark.parametrize("stop", [Interrupted("ready: interrupted"), RecordError("disk full")])
def test_a_person_and_a_full_disk_end_it_at_once(tmp_path: Path, stop: KitError) -> None:
    run = Run(tmp_path, {"w-1": False, "w-2": True}, join=lost(), ready=stop)
    with pytest.raises(type(stop)):
        in_a_row(run.journal, NOTEBOOKS, run.work)
    assert run.done == ["network", "join", "ready"]


def test_another_stage_ends_the_run_as_ever(tmp_path: Path) -> None:
    run = Run(tmp_path, {"w-1": False, "w-2": True}, network=ChecksFailed("network: 1 check"))
    with pytest.raises(ChecksFailed):
        in_a_row(run.journal, NOTEBOOKS, run.work)
    assert run.done == ["network"]
