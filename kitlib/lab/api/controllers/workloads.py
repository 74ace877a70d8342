"""Deployments and ReplicaSets."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.registry import PODS
from kitlib.lab.api.state import condition, controller_of, is_true, owner, terminating
from kitlib.lab.api.store import Event, Obj, copy

DEPLOYMENTS, REPLICA_SETS = "apps/deployments", "apps/replicasets"
_REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
# What of a Deployment's annotations its ReplicaSets do not get.
_OWN_ANNOTATIONS = {
    _REVISION, "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas",
    "deployment.kubernetes.io/revision-history",
}  # fmt: skip


def own_or_controller(event: Event, kind: str, kind_name: str) -> Iterable[Hashable]:
    """Return the key of the changed object, or of its controller when that is a `kind_name`."""
    meta = event.obj["metadata"]
    if event.kind == kind:
        return [(meta["namespace"], meta["name"])]
    reference = controller_of(event.obj)
    if reference and reference["kind"] == kind_name:
        return [(meta["namespace"], reference["name"])]
    return []


def active_pods(controller: Controller, parent: Obj) -> list[Obj]:
    """Return the pods that a workload controls and that are neither ended nor being deleted."""
    meta = parent["metadata"]
    return [
        pod
        for pod in controller.store.items(PODS, meta["namespace"])
        if (controller_of(pod) or {}).get("uid") == meta["uid"]
        and not terminating(pod)
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]


class ReplicaSets(Controller):
    """As many pods as a ReplicaSet wants."""

    name = "replicaset-controller"
    kinds = (REPLICA_SETS, PODS)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the ReplicaSet that a change is about."""
        return own_or_controller(event, REPLICA_SETS, "ReplicaSet")

    def sync(self, key: Any) -> float | None:
        """Create or delete pods, then write the counts."""
        obj = self.store.get(REPLICA_SETS, *key)
        if obj is None:
            return None
        pods = active_pods(self, obj)
        wanted = obj["spec"].get("replicas", 1)
        if not terminating(obj):
            for _ in range(wanted - len(pods)):
                pods.append(self._create(obj))
            for pod in sorted(pods, key=_expendable)[: max(0, len(pods) - wanted)]:
                pods.remove(pod)
                meta = pod["metadata"]
                self.registry.remove(PODS, meta["namespace"], meta["name"])
                self.record(obj, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")
        self._status(obj, pods)
        return None

    def _create(self, obj: Obj) -> Obj:
        meta = obj["metadata"]
        try:
            pod = self.registry.make(PODS, pod_from(obj, obj["spec"]["template"]))
        except Exception as failure:
            self.record(obj, "Warning", "FailedCreate", f"Error creating: {failure}")
            raise
        name = pod["metadata"]["name"]
        self.record({**obj, "metadata": meta}, "Normal", "SuccessfulCreate", f"Created pod: {name}")
        return pod

    def _status(self, obj: Obj, pods: list[Obj]) -> None:
        ready = sum(1 for pod in pods if is_true(pod, "Ready"))
        status = {
            "replicas": len(pods),
            "fullyLabeledReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": obj["metadata"]["generation"],
        }
        shown = {name: value for name, value in status.items() if value or name == "replicas"}

        def change(new: Obj) -> None:
            new["status"] = shown

        self.registry.patch(
            REPLICA_SETS, obj["metadata"]["namespace"], obj["metadata"]["name"], change
        )


def pod_from(parent: Obj, template: Obj) -> Obj:
    """Return a new pod of a workload's template, named after the workload and owned by it."""
    meta = parent["metadata"]
    from_template = copy(template.get("metadata") or {})
    return {
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": from_template.get("labels") or {},
            **({"annotations": a} if (a := from_template.get("annotations")) else {}),
            "ownerReferences": [owner(parent)],
        },
        "spec": copy(template["spec"]),
    }


def _expendable(pod: Obj) -> tuple[Any, ...]:
    """Sort first what is deleted first: unassigned, not ready, newest."""
    created = clock.age(pod["metadata"]["creationTimestamp"])
    return (bool(pod["spec"].get("nodeName")), is_true(pod, "Ready"), created)


class Deployments(Controller):
    """One current ReplicaSet, older ones scaled down as its pods become available."""

    name = "deployment-controller"
    kinds = (DEPLOYMENTS, REPLICA_SETS)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the Deployment that a change is about."""
        return own_or_controller(event, DEPLOYMENTS, "Deployment")

    def sync(self, key: Any) -> float | None:
        """Make, scale and count the ReplicaSets of one Deployment."""
        obj = self.store.get(DEPLOYMENTS, *key)
        if obj is None or terminating(obj):
            return None
        uid = obj["metadata"]["uid"]
        sets = [
            found
            for found in self.store.items(REPLICA_SETS, key[0])
            if (controller_of(found) or {}).get("uid") == uid
        ]
        digest = clock.digest(obj["spec"]["template"])
        current = next((rs for rs in sets if rs["metadata"]["labels"].get(HASH) == digest), None)
        paused = bool(obj["spec"].get("paused"))
        created = False
        if current is None and not paused:
            current = self._new_set(obj, digest, sets)
            created = True
        if current is not None:
            older = [rs for rs in sets if rs["metadata"]["uid"] != current["metadata"]["uid"]]
            self._revise(obj, current, older)
            if not paused:
                current = self._roll(obj, current, older)
            self._status(key, current, created)
            self._trim(obj, older)
        return None

    def _new_set(self, obj: Obj, digest: str, sets: list[Obj]) -> Obj:
        meta, spec = obj["metadata"], obj["spec"]
        template = copy(spec["template"])
        labels = {**(template["metadata"].get("labels") or {}), HASH: digest}
        template["metadata"]["labels"] = labels
        selector = copy(spec["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: digest}
        revision = max((_revision(found) for found in sets), default=0) + 1
        surge, _ = _budget(obj)
        return self.registry.make(
            REPLICA_SETS,
            {
                "metadata": {
                    "name": f"{meta['name']}-{digest}",
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "annotations": {
                        "deployment.kubernetes.io/desired-replicas": str(spec["replicas"]),
                        "deployment.kubernetes.io/max-replicas": str(spec["replicas"] + surge),
                        _REVISION: str(revision),
                    },
                    "ownerReferences": [owner(obj)],
                },
                "spec": {"replicas": 0, "selector": selector, "template": template},
            },
        )

    def _revise(self, obj: Obj, current: Obj, older: list[Obj]) -> None:
        """Number the current set above all older ones, and say so on the Deployment."""
        newest = max((_revision(found) for found in older), default=0)
        revision = max(_revision(current), newest + 1)

        told = {
            key: value
            for key, value in (obj["metadata"].get("annotations") or {}).items()
            if key not in _OWN_ANNOTATIONS
        }

        def change(target: Obj) -> None:
            kept = target["metadata"].setdefault("annotations", {})
            kept |= told if target["kind"] == "ReplicaSet" else {}
            kept[_REVISION] = str(revision)

        for kind, target in ((REPLICA_SETS, current), (DEPLOYMENTS, obj)):
            meta = target["metadata"]
            self.registry.patch(kind, meta["namespace"], meta["name"], change)

    def _roll(self, obj: Obj, current: Obj, older: list[Obj]) -> Obj:
        wanted = obj["spec"]["replicas"]
        surge, unavailable = _budget(obj)
        have = current["spec"]["replicas"]
        total = have + sum(rs["spec"]["replicas"] for rs in older)
        if obj["spec"]["strategy"]["type"] == "Recreate":
            for old in older:
                self._scale(obj, old, 0)
            if all(not (rs.get("status") or {}).get("replicas") for rs in older):
                return self._scale(obj, current, wanted)
            return current
        if have > wanted or not any(rs["spec"]["replicas"] for rs in older):
            target = wanted
        else:
            target = min(wanted, have + max(0, wanted + surge - total))
        current = self._scale(obj, current, target)
        available = sum((rs.get("status") or {}).get("availableReplicas", 0)
                        for rs in [current, *older])  # fmt: skip
        spare = available - (wanted - unavailable)
        for old in older:
            counted = (old.get("status") or {}).get("availableReplicas", 0)
            unready = old["spec"]["replicas"] - counted
            drop = min(old["spec"]["replicas"], unready + max(0, spare))
            if drop > 0:
                self._scale(obj, old, old["spec"]["replicas"] - drop)
                spare -= max(0, drop - unready)
        return current

    def _scale(self, obj: Obj, target: Obj, replicas: int) -> Obj:
        before = target["spec"]["replicas"]
        surge, _ = _budget(obj)
        wanted = obj["spec"]["replicas"]

        def change(new: Obj) -> None:
            new["spec"]["replicas"] = replicas
            annotations = new["metadata"].setdefault("annotations", {})
            annotations["deployment.kubernetes.io/desired-replicas"] = str(wanted)
            annotations["deployment.kubernetes.io/max-replicas"] = str(wanted + surge)

        meta = target["metadata"]
        stored = self.registry.patch(REPLICA_SETS, meta["namespace"], meta["name"], change)
        if replicas != before:
            word = "up" if replicas > before else "down"
            origin = f" from {before}" if self.registry.minor >= 31 else ""
            text = f"Scaled {word} replica set {meta['name']}{origin} to {replicas}"
            self.record(obj, "Normal", "ScalingReplicaSet", text)
        return stored or target

    def _status(self, key: tuple[str, str], current: Obj, created: bool) -> None:
        def change(new: Obj) -> None:
            uid = new["metadata"]["uid"]
            sets = [
                rs.get("status") or {}
                for rs in self.store.items(REPLICA_SETS, key[0])
                if (controller_of(rs) or {}).get("uid") == uid
            ]
            fresh = self.store.get(REPLICA_SETS, key[0], current["metadata"]["name"]) or current
            wanted = new["spec"]["replicas"]
            total = sum(status.get("replicas", 0) for status in sets)
            ready = sum(status.get("readyReplicas", 0) for status in sets)
            updated = (fresh.get("status") or {}).get("replicas", 0)
            counts = {
                "replicas": total,
                "updatedReplicas": updated,
                "readyReplicas": ready,
                "availableReplicas": ready,
                "unavailableReplicas": max(0, max(total, wanted) - ready),
            }
            status = {"observedGeneration": new["metadata"]["generation"]}
            status.update({name: value for name, value in counts.items() if value})
            old = new.get("status") or {}
            status["conditions"] = copy(old.get("conditions") or [])
            new["status"] = status
            _judge(new, fresh, created=created, done=updated == total == ready == wanted)

        self.registry.patch(DEPLOYMENTS, *key, change)

    def _trim(self, obj: Obj, older: list[Obj]) -> None:
        """Delete empty old ReplicaSets beyond the history limit."""
        idle = [rs for rs in older if not rs["spec"]["replicas"]]
        idle = [rs for rs in idle if not (rs.get("status") or {}).get("replicas")]
        surplus = len(idle) - obj["spec"].get("revisionHistoryLimit", 10)
        for found in sorted(idle, key=_revision)[: max(0, surplus)]:
            meta = found["metadata"]
            self.registry.remove(REPLICA_SETS, meta["namespace"], meta["name"])


def _judge(obj: Obj, current: Obj, *, created: bool, done: bool) -> None:
    """Set the conditions Available and Progressing."""
    surge_unavailable = _budget(obj)[1]
    enough = (
        obj["status"].get("availableReplicas", 0) >= obj["spec"]["replicas"] - surge_unavailable
    )
    name = current["metadata"]["name"]
    if enough:
        _set(obj, "Available", "True", "MinimumReplicasAvailable",
             "Deployment has minimum availability.")  # fmt: skip
    else:
        _set(obj, "Available", "False", "MinimumReplicasUnavailable",
             "Deployment does not have minimum availability.")  # fmt: skip
    before = condition(obj, "Progressing")
    if done:
        text = f'ReplicaSet "{name}" has successfully progressed.'
        _set(obj, "Progressing", "True", "NewReplicaSetAvailable", text)
    elif created:
        text = f'Created new replica set "{name}"'
        _set(obj, "Progressing", "True", "NewReplicaSetCreated", text)
    elif (
        before is None
        or before["reason"] != "NewReplicaSetAvailable"
        or name not in str(before["message"])
    ):
        text = f'ReplicaSet "{name}" is progressing.'
        _set(obj, "Progressing", "True", "ReplicaSetUpdated", text)


def _set(obj: Obj, type_: str, status: str, reason: str, message: str) -> None:
    when = clock.stamp()
    entry = condition(obj, type_)
    if entry is None:
        entry = {"type": type_}
        obj["status"]["conditions"].append(entry)
    if (entry.get("status"), entry.get("reason"), entry.get("message")) == (
        status, reason, message,
    ):  # fmt: skip
        return
    if entry.get("status") != status:
        entry["lastTransitionTime"] = when
    entry.update({"status": status, "lastUpdateTime": when, "reason": reason, "message": message})


def _revision(obj: Obj) -> int:
    return int((obj["metadata"].get("annotations") or {}).get(_REVISION, 0))


def _budget(obj: Obj) -> tuple[int, int]:
    """Return how many pods a rollout may have above, and below, the wanted number."""
    rolling = obj["spec"]["strategy"].get("rollingUpdate") or {}
    wanted = obj["spec"]["replicas"]
    surge = portion(rolling.get("maxSurge", 0), wanted, up=True)
    unavailable = portion(rolling.get("maxUnavailable", 0), wanted, up=False)
    if obj["spec"]["strategy"]["type"] != "Recreate" and not surge and not unavailable:
        unavailable = 1
    return surge, unavailable


def portion(value: Any, total: int, *, up: bool) -> int:
    """Return a number that may be given as a percentage of `total`."""
    if not isinstance(value, str):
        return int(value)
    share = total * int(value.rstrip("%")) / 100
    return math.ceil(share) if up else math.floor(share)
