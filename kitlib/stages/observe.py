"""Watching a cluster become ready, and saying at every moment what it is waiting for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kitlib import checks
from kitlib.checks.nodes import ready_condition
from kitlib.checks.workloads import available
from kitlib.errors import ApiError
from kitlib.facts import HostFacts, links, routes
from kitlib.facts.sections import command
from kitlib.fanout import fan_out
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER, Check
from kitlib.plugins import Plugin
from kitlib.plugins.schema import Workload
from kitlib.retry import Deadline
from kitlib.stages.base import Context, expect

__all__ = [
    "STEADY_SECONDS",
    "Steady",
    "in_the_cluster",
    "network_now",
    "plugin_pods",
    "wait_for_nodes",
    "wait_for_workloads",
    "workload_objects",
]

EVERY = 0.5
"""Seconds between two looks."""
STEADY_SECONDS = 10.0
"""The plugin's containers must not restart for that long: a crash loop shows 1/1 in between."""
_NETWORK = command(links.SCRIPT, routes.SCRIPT, label="read the host's devices and routes")
DOOMED_RESTARTS = 4
"""A plugin container that was restarted so often will not come up by waiting."""


def in_the_cluster(ctx: Context) -> list[str]:
    """Return the hosts that are in the cluster of the administrator, in the inventory's order.

    Where no host can be looked into they are all: the inventory was made of the cluster's Nodes.
    """
    if not ctx.sees_hosts:
        return list(ctx.inventory.names)
    facts = ctx.facts()
    home = facts[ctx.administrator.name].kubeadm.ca_hash
    return [
        name for name, here in facts.items() if here.kubeadm.joined and here.kubeadm.ca_hash == home
    ]


def network_now(ctx: Context, facts: Mapping[str, HostFacts]) -> dict[str, HostFacts]:
    """Return the hosts' facts with their devices and routes, which probe pods change, read anew."""

    def look(name: str) -> HostFacts:
        text = expect(ctx.read(name, _NETWORK)).stdout
        return replace(facts[name], links=links.parse(text), routes=routes.parse(text))

    return fan_out(look, facts).raise_first()


def wait_for_nodes(ctx: Context, names: Sequence[str], seconds: float) -> list[Obj]:
    """Return the cluster's nodes when all of `names` are Ready, else as they are at the end.

    The caller's checks judge them: a node that is not Ready then is a failure.
    """
    deadline = Deadline(seconds, "nodes Ready")
    while True:
        nodes = _patiently(ctx, deadline, lambda kube: kube.items("/api/v1/nodes"))
        by_name = {node["metadata"]["name"]: node for node in nodes}
        waiting = {name: _why_not_ready(by_name.get(name)) for name in names}
        waiting = {name: why for name, why in waiting.items() if why}
        if not waiting or deadline.left < EVERY:
            return nodes
        for name, why in waiting.items():
            ctx.waiting(name, f"NotReady: {why}, {seconds - deadline.left:.0f} s")
        deadline.sleep(EVERY)


def wait_for_workloads(ctx: Context, loads: Sequence[Workload], *, seconds: float) -> list[Obj]:
    """Return the plugin's workloads when all are available, else as they are at the end.

    A pod of the plugin that crash-loops ends the wait early: waiting does not cure it.
    """
    deadline = Deadline(seconds, "the plugin's workloads")
    while True:
        objects = _patiently(ctx, deadline, lambda kube: workload_objects(kube, loads))
        found = {(o["kind"], o["metadata"]["name"]): o for o in objects}
        missing = [load for load in loads if not _available(load, found)]
        if not missing or deadline.left < EVERY:
            return objects
        pods = _patiently(ctx, deadline, lambda kube: plugin_pods(kube, ctx.plugin))
        for load in missing:
            why = _why_waiting(pods, load) or "no pod yet"
            text = f"{load.kind} {load.name}: {why}, {seconds - deadline.left:.0f} s"
            ctx.waiting(CLUSTER, text)
        if any(_doomed(pod) for pod in pods):
            return objects
        deadline.sleep(EVERY)


def counted(ctx: Context, nodes: Sequence[Obj]) -> dict[str, int]:
    """Return how many nodes there are, and how many of them are control planes."""
    planes = {host.name for host in ctx.control_planes}
    names = [node["metadata"]["name"] for node in nodes]
    return {"nodes": len(names), "planes": sum(name in planes for name in names)}


def _available(load: Workload, found: Mapping[tuple[str, str], Obj]) -> bool:
    return available(found.get((load.kind, load.name)), may_be_none=load.nodes == "workers")


def workload_objects(kube: Kube, loads: Sequence[Workload]) -> list[Obj]:
    """Return those of the workloads that exist, each with its `kind`."""
    found = []
    for load in loads:
        path = f"/apis/apps/v1/namespaces/{load.namespace}/{load.kind.lower()}s/{load.name}"
        item = kube.find(path)
        if item is not None:
            found.append({**item, "kind": load.kind})
    return found


def plugin_pods(kube: Kube, plugin: Plugin) -> list[Obj]:
    """Return the pods of the plugin's workloads."""
    pods: dict[str, Obj] = {}
    for load in plugin.workloads:
        selector = ",".join(f"{key}={value}" for key, value in load.selector.items())
        path = f"/api/v1/namespaces/{load.namespace}/pods"
        for pod in kube.items(path, labelSelector=selector):
            pods[pod["metadata"]["uid"]] = pod
    return list(pods.values())


def container_states(pod: Obj) -> Mapping[str, Obj]:
    """Return container name -> its status, init containers first."""
    status = pod.get("status", {})
    parts = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    return {part["name"]: part for part in parts}


class Steady:
    """A watch over the plugin's containers, begun now: they must not restart for a while.

    Args:
        ctx: What the stage works with.
        seconds: For how long; None is what the context says, or else STEADY_SECONDS.
    """

    def __init__(self, ctx: Context, seconds: float | None = None) -> None:
        self._ctx = ctx
        self._seconds = next(
            (each for each in (seconds, ctx.steady) if each is not None), STEADY_SECONDS
        )
        self._counts = self._read()
        self._begun = time.monotonic()

    def end(self) -> list[Check]:
        """Return one check a container, once its time has passed since the beginning."""
        left = self._begun + self._seconds - time.monotonic()
        if left > 0:
            self._ctx.waiting(CLUSTER, f"the plugin's restart counts for {left:.0f} s more")
            time.sleep(left)
        lasted = max(self._seconds, round(time.monotonic() - self._begun))
        return checks.restarts(self._counts, self._read(), lasted)

    def _read(self) -> dict[str, int]:
        pods = plugin_pods(self._ctx.kube(), self._ctx.plugin)
        return checks.restart_counts(pods, self._ctx.plugin)


def _patiently(ctx: Context, deadline: Deadline, ask: Callable[[Kube], list[Obj]]) -> list[Obj]:
    """Return an answer of the API, through a restart of it if need be."""
    while True:
        try:
            return ask(ctx.kube(wait=min(60, max(1, deadline.left))))
        except ApiError as error:
            if not error.retryable or deadline.left < EVERY:
                raise
            ctx.waiting(CLUSTER, f"the API does not answer: {error.message}")
            deadline.sleep(EVERY)


def _why_not_ready(node: Obj | None) -> str:
    if node is None:
        return "no Node object yet"
    condition = ready_condition(node)
    if condition.get("status") == "True":
        return ""
    message = str(condition.get("message") or condition.get("reason") or "no condition yet")
    # The runtime's own words come last: "... message:Network plugin returns error: cni ..."
    return message.rpartition("message:")[2].strip()


def _why_waiting(pods: list[Obj], load: Workload) -> str:
    reasons = []
    for pod in pods:
        if not load.selector.items() <= (pod["metadata"].get("labels") or {}).items():
            continue
        where = pod.get("spec", {}).get("nodeName") or "not scheduled"
        for state in container_states(pod).values():
            waiting = state.get("state", {}).get("waiting", {}).get("reason")
            if waiting:
                reasons.append(f"{waiting} on {where}")
                break
        else:
            if not all(state.get("ready") for state in container_states(pod).values()):
                reasons.append(f"{pod.get('status', {}).get('phase', 'Pending')} on {where}")
    return ", ".join(reasons)


def _doomed(pod: Obj) -> bool:
    return any(
        state.get("restartCount", 0) >= DOOMED_RESTARTS and not state.get("ready")
        for state in container_states(pod).values()
    )
