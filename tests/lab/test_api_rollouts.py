"""What keeps a daemon from a node, and how a changed one is rolled out: as real controllers do."""

from __future__ import annotations

from typing import Any

import pytest
from controlkit import Cluster, cluster, workload

from kitlib.lab.api.controllers import placement
from kitlib.lab.api.controllers.revisions import REVISIONS
from kitlib.lab.api.registry import NODES, PODS
from kitlib.lab.api.store import Obj, copy

DAEMON_SETS = "apps/daemonsets"
NOT_READY = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}
MASTER = "node-role.kubernetes.io/master"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def taint(c: Cluster, name: str, *keys: str) -> None:
    """Give a node the taints and labels of a control plane."""

    def change(node: Obj) -> None:
        node["metadata"]["labels"] |= dict.fromkeys(keys, "")
        wanted = [{"key": key, "effect": "NoSchedule"} for key in keys]
        node["spec"]["taints"] = [*(node["spec"].get("taints") or []), *wanted]

    c.registry.patch(NODES, "", name, change)


def desired(c: Cluster, name: str = "net") -> int:
    status = c.get(DAEMON_SETS, name).get("status") or {}
    return int(status.get("desiredNumberScheduled", -1))


async def test_a_daemon_that_does_not_tolerate_not_ready_nodes_never_starts() -> None:
    async with cluster(15) as c:
        c.add_node("w1", ready=False)
        c.add(DAEMON_SETS, "net", spec=workload(hostNetwork=True))
        c.add(DAEMON_SETS, "patched", spec=workload(hostNetwork=True, tolerations=[NOT_READY]))
        await c.until(lambda: c.on() == ["w1"], "the pod of the one that tolerates it")
        await c.settle()
        assert (desired(c), desired(c, "patched")) == (0, 1)
        (pod,) = c.pods()
        assert pod["metadata"]["name"].startswith("patched-")
        c.set_ready("w1", "True")
        await c.until(lambda: desired(c) == 1, "the other one, on a node that is ready")


@pytest.mark.parametrize(
    ("taints", "tolerated", "wanted"),
    [
        ([MASTER], [MASTER], ["m1", "w1"]),
        ([CONTROL_PLANE], [MASTER], ["w1"]),
        ([MASTER, CONTROL_PLANE], [MASTER], ["w1"]),
        ([CONTROL_PLANE], [MASTER, CONTROL_PLANE], ["m1", "w1"]),
    ],
)
async def test_the_old_masters_toleration_does_not_cover_the_taint_of_newer_control_planes(
    taints: list[str], tolerated: list[str], wanted: list[str]
) -> None:
    async with cluster(24) as c:
        c.add_node("m1")
        taint(c, "m1", *taints)
        c.add_node("w1")
        tolerations = [{"key": key, "effect": "NoSchedule"} for key in tolerated]
        c.add(DAEMON_SETS, "net", spec=workload(tolerations=[*tolerations, NOT_READY]))
        await c.until(lambda: c.on() == wanted, "pods where the taints are tolerated")
        await c.settle()
        assert (desired(c), c.on()) == (len(wanted), wanted)


def _affinity(*terms: Obj) -> Obj:
    required = {"nodeSelectorTerms": [{"matchExpressions": list(terms)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"nodeSelector": {MASTER: ""}}, False),
        ({"nodeSelector": {CONTROL_PLANE: ""}}, True),
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, True),
        ({"affinity": _affinity({"key": CONTROL_PLANE, "operator": "Exists"})}, True),
        ({"affinity": _affinity({"key": MASTER, "operator": "Exists"})}, False),
        ({"affinity": _affinity({"key": MASTER, "operator": "DoesNotExist"})}, True),
        ({"affinity": _affinity({"key": "kubernetes.io/os", "operator": "In",
                                 "values": ["linux"]})}, True),
        ({"affinity": _affinity({"key": "kubernetes.io/os", "operator": "NotIn",
                                 "values": ["linux"]})}, False),
        ({"affinity": _affinity({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                                {"key": "size", "operator": "Gt", "values": ["3"]})}, True),
        ({"affinity": _affinity({"key": "size", "operator": "Lt", "values": ["3"]})}, False),
    ],
)  # fmt: skip
def test_selectors_and_required_affinity_choose_nodes(spec: Obj, fits: bool) -> None:
    labels = {CONTROL_PLANE: "", "kubernetes.io/os": "linux", "size": "4"}
    assert placement.selected(spec, {"metadata": {"name": "n", "labels": labels}}) is fits


async def test_a_changed_daemon_rolls_node_by_node_and_its_history_can_be_gone_back_in() -> None:
    async with cluster() as c:
        for name in ("w1", "w2", "w3"):
            c.add_node(name)
        c.add(DAEMON_SETS, "net", spec=workload())
        await c.until(lambda: c.on() == ["w1", "w2", "w3"], "three pods")
        for pod in c.pods():
            c.run(pod)
        await c.settle()

        def image(text: str) -> None:
            def change(obj: Obj) -> None:
                obj["spec"]["template"]["spec"]["containers"][0]["image"] = text

            c.registry.patch(DAEMON_SETS, "default", "net", change)

        def going() -> list[Obj]:
            return [pod for pod in c.pods() if pod["metadata"].get("deletionTimestamp")]

        def on(node: str) -> list[Obj]:
            return [pod for pod in c.pods() if pod["spec"].get("nodeName") == node]

        def status() -> Obj:
            found: Obj = c.get(DAEMON_SETS, "net")["status"]
            return found

        image("x:2")
        for replaced in range(3):
            (old,) = await c.until(going, "one old pod at a time goes")
            await c.settle()
            assert len(going()) == 1
            assert status().get("updatedNumberScheduled", 0) == replaced
            assert (
                status()["observedGeneration"]
                == c.get(DAEMON_SETS, "net")["metadata"]["generation"]
            )
            c.kill(old)
            new = await c.until(lambda: on(old["spec"]["nodeName"]), "its successor")  # noqa: B023
            c.run(new[0])
        await c.settle()
        assert (status()["updatedNumberScheduled"], status()["numberAvailable"]) == (3, 3)

        def history() -> dict[int, str]:
            return {
                each["revision"]: each["data"]["spec"]["template"]["spec"]["containers"][0]["image"]
                for each in c.store.items(REVISIONS)
            }

        assert history() == {1: "x:1", 2: "x:2"}
        image("x:1")
        await c.until(lambda: history() == {2: "x:2", 3: "x:1"}, "an old template is the newest")


async def test_a_daemon_that_is_rolled_on_delete_keeps_its_old_pods() -> None:
    async with cluster(15) as c:
        c.add_node("w1")
        c.add(DAEMON_SETS, "net", spec={**workload(), "updateStrategy": {"type": "OnDelete"}})
        await c.until(lambda: c.on() == ["w1"], "its pod")
        (before,) = c.pods()
        c.run(before)

        def change(obj: Obj) -> None:
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2"

        c.registry.patch(DAEMON_SETS, "default", "net", change)
        await c.settle()
        (pod,) = c.pods()
        assert "deletionTimestamp" not in pod["metadata"]
        c.kill(pod)
        await c.until(
            lambda: [p for p in c.pods() if p["spec"]["containers"][0]["image"] == "x:2"], "the new"
        )


async def test_a_port_of_a_node_and_a_node_kept_to_oneself_are_for_one_pod() -> None:
    async with cluster(30) as c:
        c.add_node("w1")
        port = {"name": "c", "image": "x:1", "ports": [{"containerPort": 80, "hostPort": 8080}]}
        rule = {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "op"}},
        }
        alone = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
        plain = {"name": "c", "image": "x:1"}

        def pod(name: str, containers: list[Obj], **spec: Any) -> None:
            meta = {"name": name, "namespace": "default", "labels": {"app": name.partition("-")[0]}}
            c.registry.make(
                PODS, {"metadata": meta, "spec": {"containers": copy(containers), **spec}}
            )

        pod("web-1", [port])
        pod("op-1", [plain], affinity=alone)
        await c.until(lambda: c.on() == ["w1", "w1"], "the first of each")
        pod("web-2", [port])
        pod("op-2", [plain], affinity=alone)
        await c.until(lambda: len(c.events("FailedScheduling")) == 2, "the second of each waits")
        end = (
            ". preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        )
        assert sorted(c.events("FailedScheduling")) == [
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod "
            f"ports{end}",
            f"0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules{end}",
        ]


@pytest.mark.parametrize(
    ("first", "second", "collides"),
    [
        (("0.0.0.0", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
        (("10.0.0.1", "TCP", 80), ("10.0.0.2", "TCP", 80), False),
        (("0.0.0.0", "TCP", 80), ("0.0.0.0", "UDP", 80), False),
        (("0.0.0.0", "TCP", 80), ("0.0.0.0", "TCP", 81), False),
    ],
)
def test_ports_of_a_node_collide_by_address_protocol_and_number(
    first: tuple[str, str, int], second: tuple[str, str, int], collides: bool
) -> None:
    assert placement.collide([first], [second]) is collides


@pytest.mark.parametrize(("minor", "allowed"), [(16, False), (17, True)])
async def test_system_priorities_are_kept_to_kube_system_until_1_17(
    minor: int, allowed: bool
) -> None:
    async with cluster(minor) as c:
        c.add_node("w1")
        c.add(DAEMON_SETS, "net", spec=workload(priorityClassName="system-node-critical"))
        c.add(DAEMON_SETS, "none", spec=workload(priorityClassName="nosuch"))
        if allowed:
            await c.until(lambda: c.on() == ["w1"], "its pod")
            assert c.pods()[0]["spec"]["priority"] == 2000001000
        await c.until(lambda: len(c.events("FailedCreate")) == 2 - allowed, "refusals")
        assert any("no PriorityClass with name nosuch was found" in e
                   for e in c.events("FailedCreate"))  # fmt: skip
