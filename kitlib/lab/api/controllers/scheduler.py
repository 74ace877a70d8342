"""The scheduler: a node for every pending pod, or the reason why there is none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.controllers import placement
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.registry import NODES, PODS, Registry
from kitlib.lab.api.special import assign
from kitlib.lab.api.state import controller_of, terminating
from kitlib.lab.api.store import Event, Obj

_HARD = ("NoSchedule", "NoExecute")
_ENDED = ("Succeeded", "Failed")


_HELPLESS = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_AFFINITY = "pod affinity/anti-affinity"


@dataclass(slots=True)
class Load:
    """What the pods of one node take of it."""

    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    ports: set[tuple[str, str, int]] = field(default_factory=set)
    pods: list[Obj] = field(default_factory=list)

    def take(self, pod: Obj) -> None:
        """Add a pod."""
        for name, amount in placement.requests(pod["spec"]).items():
            self.used[name] += amount
        self.ports |= placement.host_ports(pod["spec"])
        self.pods.append(pod)

    def kin(self, family: str) -> int:
        """Return how many pods are of one controller."""
        return sum((controller_of(pod) or {}).get("uid", "") == family for pod in self.pods)


class Scheduler(Controller):
    """Binds pods; pods that fit nowhere wait for the nodes to change."""

    name = "default-scheduler"
    kinds = (PODS, NODES)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._era = 0
        self._tried: dict[str, int] = {}

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the one key when the change can matter to a pending pod."""
        if event.kind == NODES:
            if event.type == "MODIFIED" and event.old and _shape(event.old) == _shape(event.obj):
                return []
            self._era += 1
            return ["all"]
        if event.type == "DELETED" or event.obj["status"].get("phase") in _ENDED:
            self._tried.pop(event.obj["metadata"]["uid"], None)
            self._era += 1
            return ["all"]
        return [] if event.obj["spec"].get("nodeName") else ["all"]

    def sync(self, key: Any) -> float | None:  # noqa: ARG002
        """Try every pending pod that was not tried on the present nodes."""
        pods = self.store.all(PODS)
        waiting = [pod for pod in pods if self._pending(pod)]
        if not waiting:
            return None
        waiting.sort(key=lambda pod: (-pod["spec"].get("priority", 0), int(_rv(pod))))
        nodes = self.store.items(NODES)
        loads: dict[str, Load] = defaultdict(Load)
        for pod in pods:
            if pod["spec"].get("nodeName") and pod["status"].get("phase") not in _ENDED:
                loads[pod["spec"]["nodeName"]].take(pod)
        for pod in waiting:
            self._schedule(pod, nodes, loads)
        return None

    def _pending(self, pod: Obj) -> bool:
        if pod["spec"].get("nodeName") or terminating(pod):
            return False
        if pod["spec"].get("schedulerName", self.name) != self.name:
            return False
        return self._tried.get(pod["metadata"]["uid"]) != self._era

    def _schedule(self, pod: Obj, nodes: list[Obj], loads: dict[str, Load]) -> None:
        meta = pod["metadata"]
        reasons: Counter[str] = Counter()
        fitting, full = [], 0
        for node in nodes:
            name = node["metadata"]["name"]
            unfit = self._unfit(pod["spec"], node)
            why = unfit or self._no_room(pod, node, loads[name])
            full += bool(why) and not unfit
            reasons.update(why)
            if not why:
                fitting.append(name)
        if not fitting:
            self._tried[meta["uid"]] = self._era
            self._fail(pod, len(nodes), full, reasons)
            return
        family = (controller_of(pod) or {}).get("uid", "")
        best = min(fitting, key=lambda name: (loads[name].kin(family), len(loads[name].pods), name))
        assign(self.registry, meta["namespace"], meta["name"], best)
        loads[best].take(pod)
        place = f"{meta['namespace']}/{meta['name']}"
        self.record(pod, "Normal", "Scheduled", f"Successfully assigned {place} to {best}")

    def _no_room(self, pod: Obj, node: Obj, load: Load) -> list[str]:
        """Return what of a node that fits is taken by other pods."""
        if placement.collide(placement.host_ports(pod["spec"]), load.ports):
            return ["node(s) didn't have free ports for the requested pod ports"]
        if lacking := placement.full(placement.requests(pod["spec"]), load.used, node):
            return lacking
        if placement.repelled(pod, load.pods):
            rules = "pod anti-affinity rules" if self.registry.minor >= 20 else _AFFINITY
            return [f"node(s) didn't match {rules}"]
        return []

    def _unfit(self, spec: Obj, node: Obj) -> list[str]:
        """Return why a pod does not fit a node, by the first filter that refuses it."""
        minor = self.registry.minor
        if (node.get("spec") or {}).get("unschedulable") and not placement.tolerates(
            spec.get("tolerations") or [],
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        ):
            return ["node(s) were unschedulable"]
        if taint := placement.untolerated(spec, node, _HARD):
            shown = f"{{{taint['key']}: {taint.get('value', '')}}}"
            if minor >= 24:
                return [f"node(s) had untolerated taint {shown}"]
            if minor >= 18:
                return [f"node(s) had taint {shown}, that the pod didn't tolerate"]
            return ["node(s) had taints that the pod didn't tolerate"]
        if not placement.selected(spec, node):
            affinity = "Pod's node affinity/selector" if minor >= 22 else "node selector"
            return [f"node(s) didn't match {affinity}"]
        return []

    def _fail(self, pod: Obj, count: int, full: int, reasons: Counter[str]) -> None:
        if count:
            shown = ", ".join(sorted(f"{number} {text}" for text, number in reasons.items()))
            message = f"0/{count} nodes are available: {shown}."
            if self.registry.minor >= 24:
                told = [(full, _NO_VICTIMS), (count - full, _HELPLESS)]
                parts = [f"{number} {text}" for number, text in told if number]
                message += f" preemption: 0/{count} nodes are available: {', '.join(parts)}."
        else:
            message = "no nodes available to schedule pods"
        self.record(pod, "Warning", "FailedScheduling", message)
        meta = pod["metadata"]

        def unschedulable(obj: Obj) -> None:
            found = obj["status"].setdefault("conditions", [])
            entry = next((c for c in found if c["type"] == "PodScheduled"), None)
            if entry is None:
                entry = {"type": "PodScheduled", "lastProbeTime": None}
                entry["lastTransitionTime"] = clock.stamp()
                found.append(entry)
            entry.update({"status": "False", "reason": "Unschedulable", "message": message})

        self.registry.patch(PODS, meta["namespace"], meta["name"], unschedulable)


def _rv(pod: Obj) -> str:
    return str(pod["metadata"]["resourceVersion"])


def _shape(node: Obj) -> tuple[Any, ...]:
    """Return what of a node matters to placement."""
    spec = node.get("spec") or {}
    room = (node.get("status") or {}).get("allocatable")
    return (node["metadata"].get("labels"), spec.get("taints"), spec.get("unschedulable"), room)
