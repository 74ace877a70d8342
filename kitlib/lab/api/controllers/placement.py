"""Which node a pod may run on: selectors, affinity, taints, room (scheduler and daemons)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kitlib.lab.api import selectors
from kitlib.lab.api.store import Obj

_UNITS = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


def quantity(value: object) -> float:
    """Return the number that a resource quantity such as `100m` or `170Mi` means."""
    text = str(value)
    digits = text.rstrip("numkKMGTPi")
    return float(digits or 0) * _UNITS.get(text[len(digits) :], 1.0)


def requests(spec: Obj) -> dict[str, float]:
    """Return what a pod asks for, by resource, with `pods` = 1."""
    total: dict[str, float] = {"pods": 1.0}
    for container in spec.get("containers") or []:
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, 0.0) + quantity(value)
    for container in spec.get("initContainers") or []:
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = max(total.get(name, 0.0), quantity(value))
    return total


def tolerates(tolerations: Iterable[Obj], taint: Obj) -> bool:
    """Return whether one of the tolerations covers a taint."""
    return any(_covers(entry, taint) for entry in tolerations)


def _covers(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    if key and key != taint["key"]:
        return False
    if operator == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")


def untolerated(spec: Obj, node: Obj, effects: Iterable[str]) -> Obj | None:
    """Return the first taint with one of the effects that a pod does not tolerate, or None."""
    tolerations = spec.get("tolerations") or []
    for taint in (node.get("spec") or {}).get("taints") or []:
        if taint["effect"] in effects and not tolerates(tolerations, taint):
            found: Obj = taint
            return found
    return None


def selected(spec: Obj, node: Obj) -> bool:
    """Return whether a pod's node selector and required node affinity fit a node."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    wanted = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    names = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(selectors.expression(e, labels) for e in term.get("matchExpressions") or [])
        and all(selectors.expression(e, names) for e in term.get("matchFields") or [])
        for term in required.get("nodeSelectorTerms") or []
    )


def full(need: Mapping[str, float], used: Mapping[str, float], node: Obj) -> list[str]:
    """Return the resources that a node lacks for a pod, as the scheduler words them."""
    room = (node.get("status") or {}).get("allocatable") or {}
    lacking = []
    for name, amount in need.items():
        if amount and name in room and used.get(name, 0.0) + amount > quantity(room[name]) + 1e-9:
            lacking.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return lacking


def host_ports(spec: Obj) -> set[tuple[str, str, int]]:
    """Return the ports of its node that a pod takes: address, protocol, number."""
    return {
        (port.get("hostIP") or "0.0.0.0", port.get("protocol", "TCP"), port["hostPort"])
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("hostPort")
    }


def collide(wanted: Iterable[tuple[str, str, int]], taken: Iterable[tuple[str, str, int]]) -> bool:
    """Return whether a port is wanted that is taken at the same address, or at every one."""
    return any(
        mine[1:] == theirs[1:] and ("0.0.0.0" in (mine[0], theirs[0]) or mine[0] == theirs[0])
        for mine in wanted
        for theirs in taken
    )


def repelled(pod: Obj, others: Iterable[Obj]) -> bool:
    """Return whether a pod must not be beside one of a node's pods, or one of them beside it.

    Of the required anti-affinities, those that are about one host.
    """
    return any(_repels(pod, other) or _repels(other, pod) for other in others)


def _repels(pod: Obj, other: Obj) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    space = other["metadata"].get("namespace")
    return any(
        term.get("topologyKey") == "kubernetes.io/hostname"
        and space in (term.get("namespaces") or [pod["metadata"].get("namespace")])
        and selectors.label_selector(
            term.get("labelSelector"), other["metadata"].get("labels") or {}
        )
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    )
