"""The controllers over a store, without HTTP: who creates, taints, schedules and deletes what."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from controlkit import Cluster, cluster, workload

from kitlib.lab.api import disruption
from kitlib.lab.api.controllers import nodes
from kitlib.lab.api.disruption import BUDGETS
from kitlib.lab.api.errors import ApiError
from kitlib.lab.api.registry import NODES, PODS
from kitlib.lab.api.store import Obj


async def test_a_new_cluster_has_its_namespaces_accounts_and_service() -> None:
    async with cluster() as c:
        await c.settle()
        names = [obj["metadata"]["name"] for obj in c.store.items("/namespaces")]
        assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
        assert c.get("/services", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
        assert c.get("/endpoints", "kubernetes")["subsets"][0]["ports"][0]["port"] == 6443
        assert c.get("/configmaps", "kube-root-ca.crt", "kube-system")["data"]["ca.crt"]
        account = c.get("/serviceaccounts", "default", "kube-system")
        assert account["secrets"][0]["name"].startswith("default-token-")


async def test_nodes_get_their_cidr_and_lose_the_taint_when_ready() -> None:
    async with cluster() as c:
        made = c.add_node("m1", ready=False)
        assert made["spec"]["taints"][0]["key"] == "node.kubernetes.io/not-ready"
        c.add_node("w1", ready=False)
        await c.until(lambda: c.get(NODES, "w1", "")["spec"].get("podCIDR"), "CIDR")
        cidrs = [node["spec"]["podCIDR"] for node in c.store.items(NODES)]
        assert cidrs == ["10.244.0.0/24", "10.244.1.0/24"]
        await c.until(lambda: len(c.events("RegisteredNode")) == 2, "RegisteredNode")
        assert c.events("RegisteredNode")[0] == "Node m1 event: Registered Node m1 in Controller"
        c.set_ready("w1", "True")
        await c.until(lambda: c.taints("w1") == set(), "the taint goes")
        assert c.taints("m1") == {("not-ready", "NoSchedule")}


async def test_pending_pods_say_why_and_are_bound_when_a_node_fits() -> None:
    async with cluster() as c:
        c.add_node("m1", ready=False)
        c.add("apps/deployments", "web", spec=workload(2))
        message = (
            "0/1 nodes are available: 1 node(s) had taint {node.kubernetes.io/not-ready: }, "
            "that the pod didn't tolerate."
        )
        await c.until(lambda: c.events("FailedScheduling"), "FailedScheduling")
        assert set(c.events("FailedScheduling")) == {message}
        condition = c.pods()[0]["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert condition["message"] == message
        c.set_ready("m1", "True")
        await c.until(lambda: c.on() == ["m1", "m1"], "both pods bound")
        name = c.pods()[0]["metadata"]["name"]
        assert f"Successfully assigned default/{name} to m1" in c.events("Scheduled")
        bound = c.pods()[0]["status"]["conditions"]
        assert [(e["type"], e["status"]) for e in bound] == [("PodScheduled", "True")]


async def test_newer_versions_word_the_refusal_differently() -> None:
    async with cluster(30) as c:
        c.add_node("m1", ready=False)
        c.add("apps/deployments", "web", spec=workload(1))
        await c.until(lambda: c.events("FailedScheduling"), "FailedScheduling")
        assert c.events("FailedScheduling") == [
            "0/1 nodes are available: 1 node(s) had untolerated taint "
            "{node.kubernetes.io/not-ready: }. preemption: 0/1 nodes are available: "
            "1 Preemption is not helpful for scheduling."
        ]


async def test_scheduler_spreads_and_counts_resources() -> None:
    async with cluster() as c:
        for name in ("w1", "w2"):
            c.add_node(name)
        await c.until(lambda: not c.taints("w1") and not c.taints("w2"), "no taints")
        big = workload(3)
        big["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1500m"}}
        c.add("apps/deployments", "web", spec=big)
        await c.until(lambda: c.events("FailedScheduling"), "the third does not fit")
        assert c.on() == ["", "w1", "w2"]
        assert c.events("FailedScheduling") == ["0/2 nodes are available: 2 Insufficient cpu."]


async def test_deployment_rolls_scales_and_is_collected() -> None:
    async with cluster() as c:
        c.add_node("w1")
        c.add("apps/deployments", "web", spec=workload(2))
        await c.until(lambda: c.on() == ["w1", "w1"], "pods bound")
        for pod in c.pods():
            c.run(pod)
        await c.until(
            lambda: c.get("apps/deployments", "web")["status"].get("availableReplicas") == 2, "2/2"
        )
        conditions = {
            entry["type"]: entry["reason"]
            for entry in c.get("apps/deployments", "web")["status"]["conditions"]
        }
        assert conditions == {
            "Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable",
        }  # fmt: skip

        def new_image(obj: Obj) -> None:
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2"

        c.registry.patch("apps/deployments", "default", "web", new_image)
        async with asyncio.timeout(20):
            while {pod["spec"]["containers"][0]["image"] for pod in c.pods()} != {"x:2"}:
                for pod in c.pods():
                    if pod["metadata"].get("deletionTimestamp"):
                        c.kill(pod)
                    elif pod["spec"].get("nodeName"):
                        c.run(pod)
                await asyncio.sleep(0.01)
        texts = c.events("ScalingReplicaSet")
        assert any(text.startswith("Scaled down replica set web-") for text in texts)
        c.registry.remove("apps/deployments", "default", "web")
        await c.until(lambda: not c.store.items("apps/replicasets"), "garbage collection")


async def test_daemons_run_on_every_node_and_tolerate_what_daemons_do() -> None:
    async with cluster() as c:
        for name in ("m1", "w1"):
            c.add_node(name, ready=False)
        spec = workload(hostNetwork=True, tolerations=[{"operator": "Exists",
                                                        "effect": "NoSchedule"}])  # fmt: skip
        c.add("apps/daemonsets", "net", spec=spec)
        await c.until(lambda: c.on() == ["m1", "w1"], "a pod on each")
        c.add_node("w2", ready=False)
        await c.until(lambda: c.on() == ["m1", "w1", "w2"], "and on the new one")
        keys = {
            (entry.get("key", ""), entry["effect"]) for entry in c.pods()[0]["spec"]["tolerations"]
        }
        assert keys == {
            ("", "NoSchedule"),
            ("node.kubernetes.io/not-ready", "NoExecute"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
            ("node.kubernetes.io/disk-pressure", "NoSchedule"),
            ("node.kubernetes.io/memory-pressure", "NoSchedule"),
            ("node.kubernetes.io/pid-pressure", "NoSchedule"),
            ("node.kubernetes.io/unschedulable", "NoSchedule"),
            ("node.kubernetes.io/network-unavailable", "NoSchedule"),
        }
        await c.settle()
        status = c.get("apps/daemonsets", "net")["status"]
        assert (status["desiredNumberScheduled"], status["numberReady"]) == (3, 0)
        assert len(c.events("SuccessfulCreate")) == 3


async def test_a_silent_kubelet_makes_its_node_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "GRACE", 100.0)
    async with cluster() as c:
        for name in ("m1", "w1"):
            c.add_node(name)
        await c.until(lambda: not c.taints("w1"), "ready")
        lease = {"metadata": {"name": "m1", "namespace": "kube-node-lease"}, "spec": {}}
        c.registry.make(nodes.LEASES, lease)
        beats = 0

        def unreachable() -> bool:
            nonlocal beats
            beats += 1

            def renew(obj: Obj) -> None:
                obj["spec"]["renewTime"] = str(beats)

            c.registry.patch(nodes.LEASES, "kube-node-lease", "m1", renew)
            return ("unreachable", "NoExecute") in c.taints("w1")

        await c.until(unreachable, "w1 is unreachable")
        ready = [e for e in c.get(NODES, "w1", "")["status"]["conditions"] if e["type"] == "Ready"]
        assert (ready[0]["status"], ready[0]["reason"]) == ("Unknown", "NodeStatusUnknown")
        assert ready[0]["message"] == "Kubelet stopped posting node status."
        assert c.taints("w1") == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
        assert c.taints("m1") == set()
        assert "Node w1 status is now: NodeNotReady" in c.events("NodeNotReady")


async def test_pods_leave_a_node_that_they_do_not_tolerate_or_that_is_gone() -> None:
    async with cluster() as c:
        for name in ("w1", "w2"):
            c.add_node(name)
        await c.until(lambda: not c.taints("w1"), "ready")
        c.add(PODS, "p", spec={"nodeName": "w1", "containers": [{"name": "c", "image": "x:1"}]})
        c.add(PODS, "q", spec={"nodeName": "w2", "containers": [{"name": "c", "image": "x:1"}]})

        def taint(obj: Obj) -> None:
            obj["spec"]["taints"] = [{"key": "k", "effect": "NoExecute"}]

        c.registry.patch(NODES, "", "w1", taint)
        await c.until(lambda: c.get(PODS, "p")["metadata"].get("deletionTimestamp"), "eviction")
        assert c.events("TaintManagerEviction") == ["Marking for deletion Pod default/p"]
        c.registry.remove(NODES, "", "w2")
        await c.until(lambda: not c.store.get(PODS, "default", "q"), "orphan is deleted")
        assert c.events("RemovingNode") == ["Node w2 event: Removing Node w2 from Controller"]


async def test_endpoints_follow_ready_pods() -> None:
    async with cluster() as c:
        c.add_node("w1")
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
        service = c.add("/services", "web", spec=spec)
        assert ipaddress.ip_address(service["spec"]["clusterIP"]) in ipaddress.ip_network(
            "10.96.0.0/12"
        )
        c.add("apps/replicasets", "web", spec=workload(1))
        await c.until(lambda: c.on() == ["w1"], "bound")
        c.run(c.pods()[0], "10.244.0.9")
        subsets = await c.until(lambda: c.get("/endpoints", "web").get("subsets"), "subsets")
        assert [a["ip"] for a in subsets[0]["addresses"]] == ["10.244.0.9"]
        assert subsets[0]["ports"] == [{"port": 80, "protocol": "TCP"}]
        slices = c.store.items("discovery.k8s.io/endpointslices", "default")
        mine = next(s for s in slices if s["metadata"]["name"].startswith("web-"))
        assert mine["endpoints"][0]["addresses"] == ["10.244.0.9"]
        c.registry.remove(PODS, "default", c.pods()[0]["metadata"]["name"])
        await c.until(
            lambda: "10.244.0.9" not in str(c.get("/endpoints", "web").get("subsets")),
            "a terminating pod leaves",
        )


async def test_a_namespace_is_emptied_before_it_goes() -> None:
    async with cluster() as c:
        c.registry.make("/namespaces", {"metadata": {"name": "t"}})
        await c.until(lambda: c.store.get("/serviceaccounts", "t", "default"), "account")
        spec = {"nodeName": "w1", "containers": [{"name": "c", "image": "x:1"}]}
        meta = {"name": "p", "namespace": "t"}
        c.registry.make(PODS, {"metadata": meta, "spec": spec})
        c.registry.remove("/namespaces", "", "t")
        await c.until(lambda: not c.store.items("/configmaps", "t"), "content goes")
        assert c.get("/namespaces", "t", "")["status"]["phase"] == "Terminating"
        assert c.get(PODS, "p", "t")["metadata"]["deletionGracePeriodSeconds"] == 30
        c.registry.remove(PODS, "t", "p", {"gracePeriodSeconds": 0})
        await c.until(lambda: not c.store.get("/namespaces", "", "t"), "namespace goes")


@pytest.mark.parametrize(("policy", "left"), [("Background", 0), ("Foreground", 0), ("Orphan", 1)])
async def test_propagation_policies(policy: str, left: int) -> None:
    async with cluster() as c:
        c.add("apps/deployments", "web", spec=workload(0))
        await c.until(lambda: c.store.items("apps/replicasets"), "replica set")
        c.registry.remove("apps/deployments", "default", "web", {"propagationPolicy": policy})
        await c.until(lambda: not c.store.items("apps/deployments"), "deployment goes")
        await c.settle()
        assert len(c.store.items("apps/replicasets")) == left


def budget(**spec: Any) -> Obj:
    return {"selector": {"matchLabels": {"app": "web"}}, **spec}


def evict(c: Cluster, pod: Obj, *, dry_run: bool = False) -> None:
    disruption.evict(c.registry, "default", pod["metadata"]["name"], {}, dry_run=dry_run)


async def test_a_budget_counts_its_pods_and_refuses_an_eviction_too_many() -> None:
    async with cluster() as c:
        c.add_node("w1")
        c.add("apps/deployments", "web", spec=workload(3))
        c.add(BUDGETS, "web", spec=budget(minAvailable=2))
        pods = await c.until(lambda: len(c.pods()) == 3 and c.pods(), "pods")
        status = lambda: c.get(BUDGETS, "web").get("status") or {}  # noqa: E731
        await c.until(lambda: status().get("expectedPods") == 3, "counted")
        assert (status()["disruptionsAllowed"], status()["currentHealthy"]) == (0, 0)
        assert status()["conditions"][0]["reason"] == "InsufficientPods"
        for pod in pods:
            c.run(pod)
        await c.until(lambda: status()["disruptionsAllowed"] == 1, "one may go")
        assert status()["conditions"][0]["status"] == "True"
        evict(c, pods[0], dry_run=True)
        assert not c.get(PODS, pods[0]["metadata"]["name"])["metadata"].get("deletionTimestamp")
        evict(c, pods[0])
        with pytest.raises(ApiError) as refused:  # before any controller has seen the first one go
            evict(c, pods[1])
        assert refused.value.code == 429
        (cause,) = refused.value.details["causes"]
        assert cause["reason"] == "DisruptionBudget"
        assert cause["message"].startswith("The disruption budget web needs 2 healthy pods and has")
        evict(c, pods[0])  # it is on its way already: that takes nothing
        c.kill(pods[0])
        new = await c.until(
            lambda: [p for p in c.pods() if p["metadata"]["uid"] not in {q["metadata"]["uid"]
                                                                        for q in pods}],
            "another pod in its place",
        )  # fmt: skip
        evict(c, new[0])  # not running yet: no budget is about it
        c.kill(new[0])
        assert status()["disruptionsAllowed"] == 0


@pytest.mark.parametrize(
    ("spec", "desired"),
    [
        ({"minAvailable": "50%"}, 2),
        ({"maxUnavailable": 1}, 2),
        ({"maxUnavailable": "34%"}, 1),
        ({"maxUnavailable": 5}, 0),
        ({}, 3),
    ],
)
async def test_how_many_a_budget_wants_well(spec: Obj, desired: int) -> None:
    async with cluster(30) as c:
        c.add(BUDGETS, "web", spec=budget(**spec))
        c.add("apps/deployments", "web", spec=workload(3))
        await c.until(lambda: len(c.pods()) == 3, "pods")
        wanted = lambda: (c.get(BUDGETS, "web").get("status") or {}).get("desiredHealthy")  # noqa: E731
        await c.until(lambda: wanted() == desired, f"{desired} wanted, not {wanted()}")


async def test_two_budgets_for_a_pod_are_refused_and_one_that_is_new_is_waited_for() -> None:
    async with cluster() as c:
        c.add("apps/deployments", "web", spec=workload(1))
        (pod,) = await c.until(c.pods, "pod")
        c.run(pod)
        c.add(BUDGETS, "one", spec=budget(minAvailable=0))
        with pytest.raises(ApiError, match="would violate") as refused:
            evict(c, pod)
        assert "still being processed" in refused.value.details["causes"][0]["message"]
        c.add(BUDGETS, "two", spec=budget(minAvailable=0))
        with pytest.raises(ApiError, match="more than one PodDisruptionBudget"):
            evict(c, pod)
