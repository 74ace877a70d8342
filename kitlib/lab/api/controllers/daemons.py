"""DaemonSets: one pod on every node that fits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.controllers import placement
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.controllers.revisions import HASH, keep_history
from kitlib.lab.api.controllers.workloads import active_pods, own_or_controller, pod_from, portion
from kitlib.lab.api.defaults import TEMPLATE_GENERATION
from kitlib.lab.api.registry import NODES, PODS
from kitlib.lab.api.state import is_true, terminating
from kitlib.lab.api.store import Event, Obj

DAEMON_SETS = "apps/daemonsets"

_NO_EXECUTE = ("not-ready", "unreachable")
_NO_SCHEDULE = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")


def daemon_tolerations(spec: Obj) -> list[Obj]:
    """Return a daemon pod's tolerations: its own and those that every daemon gets."""
    wanted = [(name, "NoExecute") for name in _NO_EXECUTE]
    wanted += [(name, "NoSchedule") for name in _NO_SCHEDULE]
    if spec.get("hostNetwork"):
        wanted.append(("network-unavailable", "NoSchedule"))
    added = [
        {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}
        for name, effect in wanted
    ]
    own = list(spec.get("tolerations") or [])
    return own + [entry for entry in added if entry not in own]


class DaemonSets(Controller):
    """Creates and deletes daemon pods as nodes come, go and change."""

    name = "daemonset-controller"
    kinds = (DAEMON_SETS, PODS, NODES)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the DaemonSets that a change is about: all of them for a node."""
        if event.kind != NODES:
            return own_or_controller(event, DAEMON_SETS, "DaemonSet")
        if event.type == "MODIFIED" and event.old and _shape(event.old) == _shape(event.obj):
            return []
        found = (obj["metadata"] for obj in self.store.items(DAEMON_SETS))
        return [(meta["namespace"], meta["name"]) for meta in found]

    def sync(self, key: Any) -> float | None:
        """Place one DaemonSet's pods and write its counts."""
        obj = self.store.get(DAEMON_SETS, *key)
        if obj is None:
            return None
        digest = clock.digest(obj["spec"]["template"])
        self._count_template(obj)
        pods = active_pods(self, obj)
        by_node = {_node_of(pod): pod for pod in pods}
        spec = {**obj["spec"]["template"]["spec"]}
        spec["tolerations"] = daemon_tolerations(spec)
        nodes = self.store.items(NODES)
        wanted = [node["metadata"]["name"] for node in nodes if _should_run(spec, node)]
        if not terminating(obj):
            in_use = {str(pod["metadata"]["labels"].get(HASH)) for pod in pods}
            keep_history(self.registry, obj, digest, in_use)
            leaving = {_node_of(pod) for pod in self._leaving(obj)}
            for node in wanted:
                if node not in by_node and node not in leaving:
                    by_node[node] = self._create(obj, spec, digest, node)
            for node in nodes:
                name = node["metadata"]["name"]
                if name in by_node and not _may_stay(spec, node):
                    self._delete(obj, by_node.pop(name))
            self._roll(obj, by_node, digest, len(wanted))
        self._status(obj, by_node, wanted, digest)
        return None

    def _leaving(self, obj: Obj) -> list[Obj]:
        uid = obj["metadata"]["uid"]
        return [
            pod
            for pod in self.store.items(PODS, obj["metadata"]["namespace"])
            if terminating(pod)
            and any(ref["uid"] == uid for ref in pod["metadata"].get("ownerReferences") or [])
        ]

    def _create(self, obj: Obj, spec: Obj, digest: str, node: str) -> Obj:
        pod = pod_from(obj, {**obj["spec"]["template"], "spec": spec})
        meta = obj["metadata"]
        generation = (meta.get("annotations") or {}).get(TEMPLATE_GENERATION, "1")
        pod["metadata"]["labels"].update({HASH: digest, "pod-template-generation": generation})
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        affinity = pod["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
        try:
            created = self.registry.make(PODS, pod)
        except Exception as failure:
            self.record(obj, "Warning", "FailedCreate", f"Error creating: {failure}")
            raise
        text = f"Created pod: {created['metadata']['name']}"
        self.record(obj, "Normal", "SuccessfulCreate", text)
        return created

    def _delete(self, obj: Obj, pod: Obj) -> None:
        meta = pod["metadata"]
        self.registry.remove(PODS, meta["namespace"], meta["name"])
        self.record(obj, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _roll(self, obj: Obj, by_node: dict[str, Obj], digest: str, wanted: int) -> None:
        """Delete outdated pods, no more at a time than the update strategy allows."""
        strategy = obj["spec"]["updateStrategy"]
        if strategy["type"] != "RollingUpdate":
            return
        allowed = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
        room = max(1, portion(allowed, wanted, up=True))
        room -= wanted - sum(1 for pod in by_node.values() if is_true(pod, "Ready"))
        for node, pod in sorted(by_node.items()):
            if pod["metadata"]["labels"].get(HASH) == digest:
                continue
            ready = is_true(pod, "Ready")
            if ready and room <= 0:
                continue
            room -= int(ready)
            self._delete(obj, by_node.pop(node))

    def _count_template(self, obj: Obj) -> None:
        """Keep the deprecated template generation in step with the specification's."""
        generation = str(obj["metadata"]["generation"])

        def change(new: Obj) -> None:
            new["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = generation

        meta = obj["metadata"]
        self.registry.patch(DAEMON_SETS, meta["namespace"], meta["name"], change)

    def _status(self, obj: Obj, by_node: dict[str, Obj], wanted: list[str], digest: str) -> None:
        placed = [by_node[node] for node in wanted if node in by_node]
        ready = sum(1 for pod in placed if is_true(pod, "Ready"))
        updated = sum(1 for pod in placed if pod["metadata"]["labels"].get(HASH) == digest)
        status = {
            "currentNumberScheduled": len(placed),
            "numberMisscheduled": len(set(by_node) - set(wanted)),
            "desiredNumberScheduled": len(wanted),
            "numberReady": ready,
            "observedGeneration": obj["metadata"]["generation"],
        }
        extra = {
            "updatedNumberScheduled": updated,
            "numberAvailable": ready,
            "numberUnavailable": len(wanted) - ready,
        }
        status.update({name: value for name, value in extra.items() if value})

        def change(new: Obj) -> None:
            new["status"] = status

        meta = obj["metadata"]
        self.registry.patch(DAEMON_SETS, meta["namespace"], meta["name"], change)


def _shape(node: Obj) -> tuple[Any, ...]:
    return (node["metadata"].get("labels"), (node.get("spec") or {}).get("taints"))


def _should_run(spec: Obj, node: Obj) -> bool:
    hard = ("NoSchedule", "NoExecute")
    return placement.selected(spec, node) and not placement.untolerated(spec, node, hard)


def _may_stay(spec: Obj, node: Obj) -> bool:
    return placement.selected(spec, node) and not placement.untolerated(spec, node, ("NoExecute",))


def _node_of(pod: Obj) -> str:
    """Return the node that a daemon pod runs on, or was made for."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity")) or {}
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in terms.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            return str(field["values"][0])
    return ""
