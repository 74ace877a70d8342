"""Nodes: their pod CIDR, their taints, and what happens when a kubelet falls silent."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.controllers import placement
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.registry import NODES, PODS, Registry
from kitlib.lab.api.state import condition, terminating
from kitlib.lab.api.store import Event, Obj

LEASES = "coordination.k8s.io/leases"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_BY_CONDITION = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_POSTED = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
# Recorded delays, in seconds.
GRACE, MONITOR, EVICTION_PERIOD, ORPHANED = 40.0, 5.0, 10.0, 20.0
SHORTEST_GRACE = 3.0
"""Seconds, however short the lab's time is: a busy machine must not look like a dead node."""
_NODE_MASK = 24


class NodeCidrs(Controller):
    """Gives every node the next free part of the pod CIDR."""

    name = "cidrAllocator"
    kinds = (NODES,)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._next = 0

    def sync(self, key: Any) -> float | None:
        """Give one node its pod CIDR and the ttl annotation."""
        node = self.store.get(NODES, *key)
        if node is None:
            return None
        cidr = self.registry.settings.pod_cidr
        if cidr is not None and not (node.get("spec") or {}).get("podCIDR"):
            self._allocate(node, cidr)

        def annotate(obj: Obj) -> None:
            annotations = obj["metadata"].setdefault("annotations", {})
            annotations.setdefault("node.alpha.kubernetes.io/ttl", "0")

        self.registry.patch(NODES, "", key[1], annotate)
        return None

    def _allocate(self, node: Obj, cidr: ipaddress.IPv4Network) -> None:
        used = {(other.get("spec") or {}).get("podCIDR") for other in self.store.all(NODES)}
        parts = list(cidr.subnets(new_prefix=_NODE_MASK)) if cidr.prefixlen <= _NODE_MASK else []
        order = parts[self._next :] + parts[: self._next]
        free = next((part for part in order if str(part) not in used), None)
        name = node["metadata"]["name"]
        if free is None:
            text = f"Node {name} status is now: CIDRNotAvailable"
            self.record(node, "Normal", "CIDRNotAvailable", text)
            return
        self._next = (parts.index(free) + 1) % len(parts)

        def change(obj: Obj) -> None:
            obj.setdefault("spec", {}).update({"podCIDR": str(free), "podCIDRs": [str(free)]})

        self.registry.patch(NODES, "", name, change)


class NodeLifecycle(Controller):
    """Taints nodes by their conditions; declares silent ones unreachable."""

    name = "node-controller"
    kinds = (NODES, LEASES)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._heard: dict[str, float] = {}
        self._known: set[str] = set()
        self._last_eviction = float("-inf")

    def seed(self) -> None:
        """Start the periodic monitor too."""
        super().seed()
        self.enqueue("monitor", self.scaled(MONITOR))

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Note heartbeats; return the node of a change that may need a taint."""
        meta = event.obj["metadata"]
        if event.kind == LEASES:
            if meta.get("namespace") == "kube-node-lease":
                self._heard[meta["name"]] = _time()
            return []
        if event.old is None or _beats(event.old) != _beats(event.obj):
            self._heard[meta["name"]] = _time()
        return [meta["name"]]

    def sync(self, key: Any) -> float | None:
        """Look at one node, or at all of them for silence and for NoExecute taints."""
        if key == "monitor":
            self._monitor()
            return self.scaled(MONITOR)
        node = self.store.get(NODES, "", key)
        if node is None:
            self._forget(key)
            return None
        if key not in self._known:
            self._known.add(key)
            text = f"Node {key} event: Registered Node {key} in Controller"
            self.record(node, "Normal", "RegisteredNode", text)
        self._taint(node)
        ready = condition(node, "Ready")
        if ready and ready["status"] != "True":
            self._pods_not_ready(node)
        return None

    def _forget(self, name: str) -> None:
        if name in self._known:
            self._known.discard(name)
            self._heard.pop(name, None)
            gone = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}
            text = f"Node {name} event: Removing Node {name} from Controller"
            self.record(gone, "Normal", "RemovingNode", text)

    def _taint(self, node: Obj) -> None:
        """Set the NoSchedule taints that follow from the conditions, and only those."""
        ready = condition(node, "Ready")
        status = ready["status"] if ready else "Unknown"
        wanted = [
            key
            for type_, key in _BY_CONDITION.items()
            if (entry := condition(node, type_)) and entry["status"] == "True"
        ]
        if status == "False" or ready is None:
            wanted.append(NOT_READY)
        elif status == "Unknown":
            wanted.append(UNREACHABLE)
        if (node.get("spec") or {}).get("unschedulable"):
            wanted.append("node.kubernetes.io/unschedulable")
        ours = {*_BY_CONDITION.values(), NOT_READY, UNREACHABLE, "node.kubernetes.io/unschedulable"}
        self._set_taints(node, wanted, ours, "NoSchedule")

    def _set_taints(self, node: Obj, wanted: list[str], ours: set[str], effect: str) -> None:
        def change(obj: Obj) -> None:
            spec = obj.setdefault("spec", {})
            taints = spec.get("taints") or []
            kept = [
                taint
                for taint in taints
                if taint["effect"] != effect or taint["key"] not in ours or taint["key"] in wanted
            ]
            have = {taint["key"] for taint in kept if taint["effect"] == effect}
            for key in wanted:
                if key not in have:
                    taint = {"key": key, "effect": effect}
                    kept.append({**taint, "timeAdded": clock.stamp()})
            if kept:
                spec["taints"] = kept
            else:
                spec.pop("taints", None)

        self.registry.patch(NODES, "", node["metadata"]["name"], change)

    def _monitor(self) -> None:
        nodes = self.store.items(NODES)
        for node in nodes:
            name = node["metadata"]["name"]
            silent = _time() - self._heard.setdefault(name, _time())
            if silent > max(self.scaled(GRACE), SHORTEST_GRACE):
                self._silence(node)
        nodes = self.store.items(NODES)
        some_ready = any(_ready_word(node) == "True" for node in nodes)
        for node in nodes:
            self._no_execute(node, some_ready)

    def _silence(self, node: Obj) -> None:
        """Say of a node that its kubelet no longer posts."""
        name, when = node["metadata"]["name"], clock.stamp()
        if _ready_word(node) == "Unknown" and condition(node, "Ready"):
            return

        def change(obj: Obj) -> None:
            conditions = obj.setdefault("status", {}).setdefault("conditions", [])
            for type_ in _POSTED:
                entry = next((c for c in conditions if c["type"] == type_), None)
                if entry is None:
                    entry = {"type": type_, "lastHeartbeatTime": None}
                    conditions.append(entry)
                    reason, text = "NodeStatusNeverUpdated", "Kubelet never posted node status."
                else:
                    reason, text = "NodeStatusUnknown", "Kubelet stopped posting node status."
                entry.update({"status": "Unknown", "reason": reason, "message": text})
                entry["lastTransitionTime"] = when

        self.registry.patch(NODES, "", name, change)
        text = f"Node {name} status is now: NodeNotReady"
        self.record(node, "Normal", "NodeNotReady", text)

    def _no_execute(self, node: Obj, some_ready: bool) -> None:
        """Add or take away the NoExecute taint; none is added while no node at all is ready."""
        word = _ready_word(node)
        wanted = {"True": "", "False": NOT_READY}.get(word, UNREACHABLE)
        taints = (node.get("spec") or {}).get("taints") or []
        have = {taint["key"] for taint in taints if taint["effect"] == "NoExecute"}
        have &= {NOT_READY, UNREACHABLE}
        if have == ({wanted} if wanted else set()):
            return
        if wanted and not have:
            due = self._last_eviction + self.scaled(EVICTION_PERIOD)
            if not some_ready or _time() < due:
                return
            self._last_eviction = _time()
        self._set_taints(node, [wanted] if wanted else [], {NOT_READY, UNREACHABLE}, "NoExecute")

    def _pods_not_ready(self, node: Obj) -> None:
        """Take the pods of a node that is not ready out of service."""
        if condition(node, "Ready") is None or _ready_word(node) == "False":
            return
        name = node["metadata"]["name"]
        for pod in self.store.all(PODS):
            entry = condition(pod, "Ready")
            if pod["spec"].get("nodeName") != name or not entry or entry["status"] != "True":
                continue

            def change(obj: Obj) -> None:
                for found in obj["status"]["conditions"]:
                    if found["type"] == "Ready":
                        found.update({"status": "False", "lastTransitionTime": clock.stamp()})

            meta = pod["metadata"]
            self.registry.patch(PODS, meta["namespace"], meta["name"], change)
            self.record(pod, "Warning", "NodeNotReady", "Node is not ready")


class Evictions(Controller):
    """Deletes pods that do not tolerate a NoExecute taint, and pods whose node is gone."""

    name = "taint-manager"
    kinds = (NODES, PODS)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._seen: dict[tuple[str, ...], float] = {}

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the pods that a change may concern."""
        if event.kind == PODS:
            meta = event.obj["metadata"]
            return [(meta["namespace"], meta["name"])] if event.obj["spec"].get("nodeName") else []
        if event.type == "MODIFIED" and event.old and _taints(event.old) == _taints(event.obj):
            return []
        name = event.obj["metadata"]["name"]
        found = (pod for pod in self.store.all(PODS) if pod["spec"].get("nodeName") == name)
        return [(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in found]

    def sync(self, key: Any) -> float | None:
        """Delete one pod when it must go; return when to look again."""
        pod = self.store.get(PODS, *key)
        if pod is None or not pod["spec"].get("nodeName"):
            return None
        node = self.store.get(NODES, "", pod["spec"]["nodeName"])
        if node is None:
            return self._orphan(key, pod)
        if terminating(pod):
            return None
        stays: float | None = None
        for taint in (node.get("spec") or {}).get("taints") or []:
            if taint["effect"] != "NoExecute":
                continue
            left = self._left(pod, taint)
            if left is None:
                continue
            if left <= 0:
                self.record(
                    pod, "Normal", "TaintManagerEviction",
                    f"Marking for deletion Pod {key[0]}/{key[1]}",
                )  # fmt: skip
                self.registry.remove(PODS, *key)
                return None
            stays = left if stays is None else min(stays, left)
        return stays

    def _left(self, pod: Obj, taint: Obj) -> float | None:
        """Return how long a pod may stay with a taint, in the lab's seconds; None: for ever."""
        mine = [
            entry
            for entry in pod["spec"].get("tolerations") or []
            if placement.tolerates([entry], taint)
        ]
        if not mine:
            return 0.0
        limits = [
            entry["tolerationSeconds"]
            for entry in mine
            if entry.get("tolerationSeconds") is not None
        ]
        if not limits:
            return None
        return self.scaled(float(min(limits))) - clock.age(taint.get("timeAdded"))

    def _orphan(self, key: tuple[str, str], pod: Obj) -> float | None:
        """Delete, after a while, a pod whose node does not exist."""
        marker = (*key, pod["metadata"]["uid"])
        first = self._seen.setdefault(marker, _time())
        left = first + self.scaled(ORPHANED) - _time()
        if left > 0:
            return left
        del self._seen[marker]
        self.registry.remove(PODS, *key, {"gracePeriodSeconds": 0})
        return None


def _taints(node: Obj) -> list[Obj]:
    return (node.get("spec") or {}).get("taints") or []


def _time() -> float:
    return asyncio.get_running_loop().time()


def _ready_word(node: Obj) -> str:
    ready = condition(node, "Ready")
    return str(ready["status"]) if ready else "Unknown"


def _beats(node: Obj) -> list[Any]:
    """Return what a kubelet's status post changes."""
    return [
        (entry["type"], entry["status"], entry.get("lastHeartbeatTime"))
        for entry in (node.get("status") or {}).get("conditions") or []
        if entry["type"] in _POSTED and entry.get("reason") != "NodeStatusUnknown"
    ]
