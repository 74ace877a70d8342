"""What is refused, and what is done, when hosts leave: before, and behind, the confirmation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_etcd import FakeKube as EtcdKube
from test_membership import CA, OTHER, PARAMS, FakeSession, a_cluster, facts

from kitlib import removal as leaving_hosts
from kitlib.checks import FoundCluster
from kitlib.confirming import confirm
from kitlib.errors import (
    ConnectError,
    GuardError,
    HostLoginError,
    Interrupted,
    KitError,
    PreconditionError,
)
from kitlib.inventory import Role
from kitlib.journal import Journal
from kitlib.params import load
from kitlib.removal import Removal
from kitlib.session import Session
from kitlib.stages import remove
from kitlib.stages.remove import Remove

CLUSTER = FoundCluster(CA, "lab", "https://10.77.0.11:6443", ("cp-1",), orphaned=False)
PLANES = ("cp-1", "cp-2", "cp-3")


def removal(**more: Any) -> Removal:
    return Removal(("w-1",), CLUSTER, lost=("w-1: its Node; evicted: default/web-1",), **more)


def test_a_removal_needs_a_word_that_names_the_cluster() -> None:
    asked: list[str] = []
    with pytest.raises(GuardError, match="default/web-1") as caught:
        confirm(removal(), None)
    assert f'--confirm "{CA}"' in caught.value.remedy
    assert CA in caught.value.message
    with pytest.raises(Interrupted, match="nothing was changed"):
        confirm(removal(), lambda what: bool(asked.append(what)))
    assert "cluster 'lab'" in asked[0]
    confirm(removal(), lambda what: True)
    confirm(removal(confirmed=True), None)
    confirm(replace(removal(), lost=()), None)


def test_a_named_host_may_be_down_by_force_and_another_may_not() -> None:
    session = a_cluster(facts("w-1"), facts("w-2"))
    session.errors["w-1"] = ConnectError("w-1 (root@x): cannot connect")
    with pytest.raises(ConnectError, match="cannot be reset; nothing was changed") as caught:
        leaving_hosts._out_of_reach(session, ["w-1"], force=False)
    assert "--force" in caught.value.remedy
    assert list(leaving_hosts._out_of_reach(session, ["w-1"], force=True)) == ["w-1"]
    with pytest.raises(ConnectError, match=r"cannot connect$"):
        leaving_hosts._out_of_reach(session, ["w-2"], force=True)
    session.errors["w-1"] = HostLoginError("w-1: the login was refused")
    with pytest.raises(HostLoginError):  # it lives, and its kubelet with it
        leaving_hosts._out_of_reach(session, ["w-1"], force=True)


def test_the_last_control_plane_stays() -> None:
    session = a_cluster(facts("w-1"))
    with pytest.raises(PreconditionError, match="cp-1: not removed: it is the last control plane"):
        leaving_hosts.plan_removal(session, ["cp-1", "w-1"], force=True)
    planes = dict.fromkeys(("cp-1", "cp-2"), Role.CONTROL_PLANE)
    two = FakeSession(facts("cp-1", admin=True), facts("cp-2", joined=False), roles=planes)
    with pytest.raises(PreconditionError, match="cp-1: not removed: it is the last control plane"):
        remove.home(two.context, ["cp-1"])


def test_what_is_said_last_names_the_file(tmp_path: Path) -> None:
    told = removal(down={}).result(Path("params/mine.yaml"))
    assert told == [
        "w-1: out of the cluster, and clean",
        "take w-1 out of params/mine.yaml, or the next build joins it again",
    ]
    down = removal(down={"w-1": ConnectError("w-1: down")}).result(Path("x"))
    assert "NOT reset" in down[0]


class Cluster(EtcdKube):
    """An API with Nodes and etcd members, for control planes that leave."""

    def __init__(self, well: dict[str, bool], nodes: list[str]) -> None:
        super().__init__(well)
        self.nodes = nodes

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        if path == "/api/v1/nodes":
            return [{"metadata": {"name": name}} for name in self.nodes]
        return super().items(path, **query)

    def exec(self, namespace: str, pod: str, cmd: Any, *, timeout: float) -> Any:
        result = super().exec(namespace, pod, cmd, timeout=timeout)
        if "remove" in map(str, cmd.argv):
            self.well.pop(f"cp-{int(str(cmd.argv[-1]), 16) - 0x9F}")
        return result

    def delete(self, path: str) -> None:
        self.nodes.remove(path.rpartition("/")[2])


def leaving(well: dict[str, bool], names: list[str], *, down: tuple[str, ...] = ()) -> Any:
    """Return the context and the plan of control planes that leave."""
    roles = dict.fromkeys(PLANES, Role.CONTROL_PLANE)
    session = FakeSession(*(facts(n, admin=True) for n in PLANES), roles=roles)
    ctx = session.context
    for name in down:
        del session.found[name]
    ctx.control_planes = [h for h in ctx.control_planes if h.name not in down]
    ctx.kube = lambda: kube
    kube = Cluster(well, [*PLANES])
    return ctx, kube, Remove(names, down=down).plan(ctx)


def test_a_control_plane_is_reset_then_out_of_etcd_then_forgotten() -> None:
    ctx, kube, plan = leaving(dict.fromkeys(PLANES, True), ["cp-2"])
    assert [action.what.partition(":")[0] for action in plan.actions] == [
        "reset kubeadm",
        "take its member out of etcd, where it is still in it",
        "delete its Node",
    ]
    ran: list[str] = []
    hands = SimpleNamespace(kube=lambda: kube, run=lambda host, cmd: ran.append(f"{host}: {cmd}"))
    for action in plan.actions:
        action.do(hands)
    assert ran == ["cp-2: kubeadm reset -f"]
    assert list(kube.well) == kube.nodes == ["cp-1", "cp-3"]
    stage = Remove(["cp-2", "cp-3", "w-1"])
    assert stage.turns(ctx, ("cp-2", "cp-3", "w-1")) == [["w-1"], ["cp-2"], ["cp-3"]]


def test_etcds_majority_is_counted_for_all_that_leave_and_again_before_each() -> None:
    with pytest.raises(PreconditionError, match="cp-2: not removed: without it 1 of 2"):
        leaving({"cp-1": False, "cp-2": True, "cp-3": True}, ["cp-2"])
    ill = {"cp-1": True, "cp-2": True, "cp-3": False}
    with pytest.raises(PreconditionError, match="cp-1: not removed: without it 1 of 2"):
        leaving(ill, ["cp-1", "cp-3"])
    # One that is down goes first: then the majority is that of those that answer.
    ctx, _, plan = leaving(ill, ["cp-1", "cp-3"], down=("cp-3",))
    assert [action.target for action in plan.actions][:2] == ["cp-1", "cp-1"]
    assert Remove(["cp-1", "cp-3"], down=("cp-3",)).turns(ctx, ("cp-1", "cp-3")) == [
        [],
        ["cp-3"],
        ["cp-1"],
    ]
    _, kube, plan = leaving(dict.fromkeys(PLANES, True), ["cp-2"])
    kube.well["cp-1"] = False
    hands = SimpleNamespace(kube=lambda: kube, run=lambda host, cmd: pytest.fail("reset"))
    with pytest.raises(PreconditionError, match="cp-2: not removed"):
        plan.actions[0].do(hands)


def test_a_control_plane_that_is_down_is_forgotten_and_not_reset() -> None:
    well = {"cp-1": False, "cp-2": True, "cp-3": True}
    _, kube, plan = leaving(well, ["cp-1"], down=("cp-1",))
    assert [action.what.partition(" ")[0] for action in plan.actions] == ["take", "delete"]
    assert "cannot be reached, and is not reset" in plan.actions[-1].what
    for action in plan.actions:
        action.do(SimpleNamespace(kube=lambda: kube))
    assert list(kube.well) == kube.nodes == ["cp-2", "cp-3"]


def test_a_host_of_another_cluster_is_not_reset() -> None:
    session = a_cluster(facts("w-1", ca=OTHER))
    session.context.kube = lambda: Cluster({}, ["cp-1"])
    with pytest.raises(GuardError, match=f"w-1: not removed: it is in another cluster, {OTHER}"):
        Remove(["w-1"]).plan(session.context)


def test_a_host_that_has_left_gives_an_empty_plan() -> None:
    session = a_cluster(facts("w-1", joined=False))
    session.context.kube = lambda: Cluster({}, ["cp-1"])
    plan = Remove(["w-1"]).plan(session.context)
    assert plan.actions == ()
    assert "nothing to do" in plan.reason


def test_hosts_are_left_out_before_the_lock_is_taken_and_not_after(tmp_path: Path) -> None:
    params = load(PARAMS)
    with Session(params, Journal.create(tmp_path, params.cluster, {})) as session:
        session.leave_out(["worker-2"])
        assert [host.name for host in session.context.hosts] == ["control-plane-1", "worker-1"]
        session.doors._lock = object()  # type: ignore[assignment, union-attr]
        with pytest.raises(KitError, match="before the lock"):
            session.leave_out(["worker-1"])
        session.doors._lock = None  # type: ignore[union-attr]
