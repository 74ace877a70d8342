"""Keeps each PodDisruptionBudget's status: how many of its pods are well, and may be disrupted."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.controllers.workloads import portion
from kitlib.lab.api.disruption import BUDGETS, budgets_of, condition_of, selects
from kitlib.lab.api.registry import PODS
from kitlib.lab.api.state import controller_of, healthy, terminating
from kitlib.lab.api.store import Event, Obj

_SCALED = {
    "ReplicaSet": "apps/replicasets",
    "StatefulSet": "apps/statefulsets",
    "ReplicationController": "/replicationcontrollers",
}
_FORGET = 120.0
"""Seconds after which an eviction whose pod is still there is no longer counted."""


class Disruptions(Controller):
    """The status of every PodDisruptionBudget."""

    name = "controllermanager"
    kinds = (BUDGETS, PODS)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the budgets that a change is about."""
        meta = event.obj["metadata"]
        if event.kind == BUDGETS:
            return [(meta["namespace"], meta["name"])]
        found = {
            (budget["metadata"]["namespace"], budget["metadata"]["name"])
            for pod in (event.old, event.obj)
            if pod is not None
            for budget in budgets_of(self.registry, pod)
        }
        return sorted(found)

    def sync(self, key: Any) -> float | None:
        """Count the pods of one budget, and write what it allows."""
        budget = self.store.get(BUDGETS, *key)
        if budget is None or terminating(budget):
            return None
        before = budget.get("status") or {}
        pods = [pod for pod in self.store.items(PODS, key[0]) if selects(budget, pod)]
        pods = [p for p in pods if p["status"].get("phase") not in ("Succeeded", "Failed")]
        disrupted = _under_way(before.get("disruptedPods") or {}, pods)
        expected, desired = self._wanted(budget["spec"], pods)
        well = sum(healthy(pod) and pod["metadata"]["name"] not in disrupted for pod in pods)
        allowed = max(0, well - desired) if expected else 0
        generation = budget["metadata"].get("generation", 0)
        status: Obj = {
            "observedGeneration": generation,
            "disruptionsAllowed": allowed,
            "currentHealthy": well,
            "desiredHealthy": desired,
            "expectedPods": expected,
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        if self.registry.minor >= 21:
            status["conditions"] = [condition_of(allowed, generation, before)]

        def write(obj: Obj) -> None:
            obj["status"] = status

        self.registry.patch(BUDGETS, key[0], key[1], write)
        return _FORGET if disrupted else None

    def _wanted(self, spec: Obj, pods: list[Obj]) -> tuple[int, int]:
        """Return how many pods there shall be, and how many of them have to be well."""
        least = spec.get("minAvailable")
        if isinstance(least, int):
            return len(pods), least
        expected = self._scale(pods)
        if least is not None:
            return expected, portion(least, expected, up=True)
        most = portion(spec.get("maxUnavailable", 0), expected, up=True)
        return expected, max(0, expected - most)

    def _scale(self, pods: list[Obj]) -> int:
        """Return how many pods their controllers want in all; one without counts as itself."""
        counts: dict[str, int] = {}
        for pod in pods:
            reference = controller_of(pod)
            kind = _SCALED.get(reference["kind"], "") if reference else ""
            parent = None
            if reference and kind:
                parent = self.store.get(kind, pod["metadata"]["namespace"], reference["name"])
            if reference and parent:
                counts[reference["uid"]] = parent["spec"].get("replicas", 1)
            else:
                counts[pod["metadata"]["uid"]] = 1
        return sum(counts.values())


def _under_way(disrupted: dict[str, str], pods: list[Obj]) -> dict[str, str]:
    """Return the evictions whose pods are not seen to go yet, and that are not too old."""
    there = {pod["metadata"]["name"] for pod in pods if not terminating(pod)}
    return {
        name: when
        for name, when in disrupted.items()
        if name in there and clock.age(when) < _FORGET
    }
