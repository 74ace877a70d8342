"""Traps that keep a plugin's pods from ever starting, found in any manifest and patched in it.

Nodes that are not Ready carry node.kubernetes.io/not-ready:NoSchedule, and the DaemonSet controller
tolerates only its NoExecute twin; and kubeadm calls its control planes `control-plane` alone now.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kitlib.manifests.changes import Patch
from kitlib.manifests.objects import Obj, pod_spec, title
from kitlib.plugins.entry import minor
from kitlib.plugins.schema import Plugin

__all__ = ["control_plane_words", "not_ready_tolerations", "on_control_planes", "tolerates"]

NOT_READY = "node.kubernetes.io/not-ready"
MASTER = "node-role.kubernetes.io/master"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
TAINTED_SINCE = (1, 12)
RENAMED_SINCE = (1, 24)
"""kubeadm 1.24 no longer sets the label `master`, and taints with `control-plane` as well."""
_RUNS_ONCE = ("Job", "CronJob")


def tolerates(spec: Obj, key: str, effect: str = "NoSchedule") -> bool:
    """Return whether a pod specification tolerates a taint without a value."""
    for each in spec.get("tolerations") or []:
        exists = each.get("operator") == "Exists"
        fits = each.get("key") == key or (exists and not each.get("key"))
        if fits and (exists or not each.get("value")) and each.get("effect") in (None, "", effect):
            return True
    return False


def not_ready_tolerations(
    objects: list[Obj], plugin: Plugin, kubernetes_version: str
) -> list[Patch]:
    """Let the workloads start that make nodes Ready, in the objects themselves.

    They are those that the catalogue says start on nodes that are not Ready, and those that it does
    not name but that use the host's own network, as the parts of a plugin do.

    Returns:
        What was changed.
    """
    if minor(kubernetes_version) < TAINTED_SINCE:
        return []
    known = {(each.kind, each.name): each for each in plugin.workloads}
    patches = []
    for item in objects:
        spec = pod_spec(item)
        if spec is None or item["kind"] in _RUNS_ONCE or tolerates(spec, NOT_READY):
            continue
        workload = known.get((item["kind"], item["metadata"].get("name", "")))
        if workload.starts_on_not_ready if workload else spec.get("hostNetwork"):
            added = {"key": NOT_READY, "operator": "Exists", "effect": "NoSchedule"}
            spec["tolerations"] = [*(spec.get("tolerations") or []), added]
            why = "without it its pods never start on nodes that are not Ready yet"
            patches.append(Patch(title(item), "tolerations", "", f"{NOT_READY}:NoSchedule", why))
    return patches


def control_plane_words(objects: list[Obj], kubernetes_version: str) -> list[Patch]:
    """Call control planes as kubeadm of that version does, in the objects themselves.

    A selector that asks for the label `master` asks for `control-plane`; a toleration of the taint
    `master` gets one of `control-plane` beside it.

    Returns:
        What was changed.
    """
    if minor(kubernetes_version) < RENAMED_SINCE:
        return []
    patches = []
    for item in objects:
        spec = pod_spec(item)
        if spec is None:
            continue
        who = title(item)
        selector = spec.get("nodeSelector") or {}
        why = "kubeadm no longer sets that label"
        if MASTER in selector:
            spec["nodeSelector"] = {
                CONTROL_PLANE if key == MASTER else key: value for key, value in selector.items()
            }
            patches.append(Patch(who, "nodeSelector", MASTER, CONTROL_PLANE, why))
        for term in _expressions(spec.get("affinity")):
            if term.get("key") == MASTER:
                term["key"] = CONTROL_PLANE
                patches.append(Patch(who, "node affinity", MASTER, CONTROL_PLANE, why))
        olds = [each for each in spec.get("tolerations") or [] if each.get("key") == MASTER]
        if olds and not tolerates(spec, CONTROL_PLANE):
            spec["tolerations"] = [
                *spec["tolerations"],
                *({**o, "key": CONTROL_PLANE} for o in olds),
            ]
            why = "kubeadm taints its control planes so"
            patches.append(Patch(who, "tolerations", "", f"{CONTROL_PLANE}:NoSchedule", why))
    return patches


def on_control_planes(objects: list[Obj], plugin: Plugin, kubernetes_version: str) -> list[Patch]:
    """Let DaemonSets that belong on every node run on control planes, in the objects themselves.

    Returns:
        What was changed.
    """
    old = minor(kubernetes_version) < RENAMED_SINCE
    everywhere = {
        each.name for each in plugin.workloads if each.kind == "DaemonSet" and each.nodes == "all"
    }
    patches = []
    for item in objects:
        spec = pod_spec(item) if item["kind"] == "DaemonSet" else None
        if spec is None or item["metadata"].get("name") not in everywhere:
            continue
        taint = MASTER if old else CONTROL_PLANE
        if not tolerates(spec, taint):
            added = {"key": taint, "operator": "Exists", "effect": "NoSchedule"}
            spec["tolerations"] = [*(spec.get("tolerations") or []), added]
            why = "it belongs on every node, control planes too"
            patches.append(Patch(title(item), "tolerations", "", f"{taint}:NoSchedule", why))
    return patches


def _expressions(affinity: Any) -> Iterator[Obj]:
    """Yield the label expressions of a node affinity, required and preferred ones."""
    node = (affinity or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = list(required.get("nodeSelectorTerms") or [])
    for each in node.get("preferredDuringSchedulingIgnoredDuringExecution") or []:
        terms.append(each.get("preference") or {})
    for term in terms:
        yield from term.get("matchExpressions") or []
