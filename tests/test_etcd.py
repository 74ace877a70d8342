"""Which etcd member may go: counted before anything is taken away."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from kitlib.command import Cmd
from kitlib.errors import ApiError, CommandError, PreconditionError
from kitlib.inventory import Host, Role
from kitlib.model import CommandResult
from kitlib.stages import reset
from kitlib.stages.etcd import Member, check_removal, loss, members, quorum, remove_member
from kitlib.stages.situation import Situation


def made(*well: bool) -> list[Member]:
    return [
        Member(f"{number:x}", f"cp-{number}", f"https://10.0.0.{number}:2379", healthy)
        for number, healthy in enumerate(well, start=1)
    ]


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_more_than_half_must_answer(count: int, needed: int) -> None:
    assert quorum(count) == needed


@pytest.mark.parametrize(
    ("found", "name", "why"),
    [
        (made(True, True, True), "cp-1", ""),
        (made(True, True), "cp-2", ""),
        (made(True), "cp-1", "the last member"),
        (made(False, True, True), "cp-1", ""),
        (made(False, True, True), "cp-2", "1 of 2 etcd members would answer, 2 are needed (cp-1"),
        (made(True, False), "cp-1", "0 of 1 etcd members would answer"),
        (made(True, True, True, False, False), "cp-1", "2 of 4 etcd members would answer, 3 are"),
        (made(True, True, True, False, False), "cp-5", ""),
    ],
)
def test_a_member_is_spared_only_where_the_majority_stays(
    found: list[Member], name: str, why: str
) -> None:
    assert why in loss(found, name)
    assert bool(loss(found, name)) == bool(why)


class FakeKube:
    """etcd pods in which etcdctl answers; those in `dead` cannot be asked."""

    def __init__(self, well: dict[str, bool], dead: tuple[str, ...] = ()) -> None:
        self.well = well
        self.dead = dead
        self.ran: list[tuple[str, str]] = []

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        assert path == "/api/v1/namespaces/kube-system/pods"
        assert query == {"labelSelector": "component=etcd"}
        return [
            {"metadata": {"name": f"etcd-{name}"}, "spec": {"nodeName": name}} for name in self.well
        ]

    def exec(self, namespace: str, pod: str, cmd: Cmd, *, timeout: float) -> CommandResult:
        name = pod.removeprefix("etcd-")
        if name in self.dead:
            raise ApiError(f"exec in {namespace}/{pod}: no route to host")
        words = [word for word in map(str, cmd.argv) if not word.startswith("--")]
        self.ran.append((pod, " ".join(words)))
        out, err, status = "", "", 0
        if words[1:3] == ["member", "list"]:
            rows = [
                {"ID": 0xA0 + at, "name": each, "clientURLs": [f"https://{each}:2379"]}
                for at, each in enumerate(self.well)
            ]
            out = json.dumps({"members": rows})
        elif words[1:3] == ["endpoint", "health"]:
            for each, well in self.well.items():
                line = f"https://{each}:2379 is {'' if well else 'un'}healthy: so it is\n"
                out, err = (out + line, err) if well else (out, err + line)
            status = 0 if all(self.well.values()) else 1
        return CommandResult(pod, str(cmd), out, err, status)


def test_members_are_told_from_a_pod_that_answers_with_the_ill_ones_among_them() -> None:
    kube = FakeKube({"cp-1": False, "cp-2": True}, dead=("cp-1",))
    found = members(kube)  # type: ignore[arg-type]
    assert [(m.id, m.name, m.healthy) for m in found] == [
        ("a0", "cp-1", False),
        ("a1", "cp-2", True),
    ]
    assert {pod for pod, _ in kube.ran} == {"etcd-cp-2"}


def test_a_removal_that_loses_the_majority_is_refused_with_the_count() -> None:
    kube = FakeKube({"cp-1": False, "cp-2": True, "cp-3": True}, dead=("cp-1",))
    check_removal(kube, "cp-1")  # type: ignore[arg-type]
    with pytest.raises(PreconditionError, match="cp-2: not removed: without it 1 of 2") as caught:
        check_removal(kube, "cp-2")  # type: ignore[arg-type]
    assert caught.value.remedy
    check_removal(kube, "worker-1")  # type: ignore[arg-type]


def test_a_member_is_removed_by_its_number_and_not_from_its_own_pod() -> None:
    kube = FakeKube({"cp-1": True, "cp-2": True})
    remove_member(kube, "cp-1")  # type: ignore[arg-type]
    assert kube.ran[-1] == ("etcd-cp-2", "etcdctl member remove a0")
    before = len(kube.ran)
    remove_member(kube, "gone")  # type: ignore[arg-type]
    assert len(kube.ran) == before + 2, "it only looked"


def test_no_pod_to_ask_is_an_error() -> None:
    with pytest.raises(ApiError, match="no etcd pod"):
        members(FakeKube({}))  # type: ignore[arg-type]
    with pytest.raises((ApiError, CommandError)):
        members(FakeKube({"cp-1": True}, dead=("cp-1",)))  # type: ignore[arg-type]


def context(kube: FakeKube) -> Any:
    planes = [Host(name, name, role=Role.CONTROL_PLANE) for name in kube.well]
    return SimpleNamespace(control_planes=planes, kube=lambda: kube)


def test_reset_refuses_a_control_plane_that_a_kept_cluster_cannot_spare() -> None:
    why = {"cp-2": "its Node was deleted"}
    ctx = context(FakeKube({"cp-1": True, "cp-2": True, "cp-3": False}))
    with pytest.raises(PreconditionError, match=r"cp-2: not reset \(its Node was deleted\)"):
        reset._keep_quorum(ctx, Situation({}, True, why))
    reset._keep_quorum(ctx, Situation({}, False, why))
    well = context(FakeKube({"cp-1": True, "cp-2": True, "cp-3": True}))
    reset._keep_quorum(well, Situation({}, True, why))
    reset._keep_quorum(well, Situation({}, True, {**why, "cp-3": "a join that did not end"}))


def test_control_planes_are_reset_one_after_another_the_last_first() -> None:
    planes = [Host(name, name, role=Role.CONTROL_PLANE) for name in ("cp-1", "cp-2", "cp-3")]
    ctx: Any = SimpleNamespace(control_planes=planes)
    turns = reset.Reset().turns(ctx, ("cp-1", "w-1", "cp-3", "w-2"))
    assert turns == [["w-1", "w-2"], ["cp-3"], ["cp-1"]]
