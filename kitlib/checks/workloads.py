"""Whether the plugin's own workloads are available, and stay so.

A pod can be 1/1 between two crashes, so availability alone is not enough: the restart counts must
not change while one looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kitlib.model import Check
from kitlib.plugins import Plugin
from kitlib.plugins.schema import Workload

__all__ = ["available", "restart_counts", "restarts", "workloads"]

Key = tuple[str, str]


def workloads(
    objects: Iterable[Mapping[str, Any]],
    plugin: Plugin,
    *,
    nodes: int | None = None,
    planes: int = 0,
) -> list[Check]:
    """Return one check for each workload of the plugin: all of its pods are available.

    Args:
        objects: DaemonSets and Deployments as plain mappings, those of the plugin's namespaces at
            least.
        plugin: The wanted plugin.
        nodes: How many nodes there are, where a DaemonSet must have a pod on each; None to take its
            own word for it.
        planes: How many of these are control planes, where some of its DaemonSets run on them
            alone, or on the others alone.
    """
    counts = {
        "all": nodes,
        "control_plane": planes if nodes is not None else None,
        "workers": nodes - planes if nodes is not None else None,
    }
    found = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
        for each in objects
    }
    return [
        _available(want, found.get((want.kind, want.namespace, want.name)), counts[want.nodes])
        for want in plugin.workloads
    ]


def available(
    found: Mapping[str, Any] | None, nodes: int | None = None, *, may_be_none: bool = False
) -> bool:
    """Return whether every pod of a workload is available, in its present form.

    Args:
        found: The object with its `kind`; None where it does not exist.
        nodes: How many nodes a DaemonSet must have a pod on; None to take its own word for it.
        may_be_none: Whether a DaemonSet may want no pod at all: one that runs on workers alone,
            while there are none yet.
    """
    if found is None:
        return False
    wanted, current, at_hand, seen = _counted(found, nodes)
    some = wanted > 0 or (may_be_none and found["kind"] == "DaemonSet")
    return seen and some and current >= wanted and at_hand >= wanted


def _counted(found: Mapping[str, Any], nodes: int | None) -> tuple[int, int, int, bool]:
    """Return how many pods are wanted, of the present form, available; and if it is up to date."""
    status = found.get("status", {})
    seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    if found["kind"] == "DaemonSet":
        wanted = nodes if nodes is not None else status.get("desiredNumberScheduled", 0)
        current = status.get("updatedNumberScheduled", 0)
        return wanted, current, status.get("numberAvailable", 0), seen
    wanted = found.get("spec", {}).get("replicas", 1)
    # A ReplicaSet has no older form of its pods.
    current = "replicas" if found["kind"] == "ReplicaSet" else "updatedReplicas"
    return wanted, status.get(current, 0), status.get("availableReplicas", 0), seen


def _available(want: Workload, found: Mapping[str, Any] | None, nodes: int | None) -> Check:
    name = f"{want.kind.lower()}/{want.name}"
    where = f"-n {want.namespace}"
    got, expected = "does not exist", "available"
    if found is not None:
        wanted, _, at_hand, seen = _counted(found, nodes)
        got = f"{at_hand} of {wanted} available" + ("" if seen else ", its change not seen yet")
        expected = f"{wanted} available"
    return Check.that(
        available(found, nodes, may_be_none=want.nodes == "workers"),
        "workloads.available",
        name,
        "every pod of it is available",
        got=got,
        expected=expected,
        remedy=f"kubectl {where} describe {name}"
        if found is not None
        else "apply the plugin's manifest; was every document of it accepted?",
    )


def restart_counts(pods: Iterable[Mapping[str, Any]], plugin: Plugin) -> dict[str, int]:
    """Return namespace/pod/container -> restarts, of the plugin's pods.

    Args:
        pods: Pods as plain mappings.
        plugin: The wanted plugin.
    """
    counts = {}
    for pod in pods:
        meta = pod["metadata"]
        labels = meta.get("labels") or {}
        if not any(
            meta.get("namespace") == want.namespace and want.selector.items() <= labels.items()
            for want in plugin.workloads
        ):
            continue
        for part in ("initContainerStatuses", "containerStatuses"):
            for each in pod.get("status", {}).get(part) or ():
                key = f"{meta['namespace']}/{meta['name']}/{each['name']}"
                counts[key] = each.get("restartCount", 0)
    return counts


def restarts(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> list[Check]:
    """Return one check for each container of the plugin's pods: not restarted meanwhile.

    Args:
        before: Restart counts at first.
        after: Restart counts some time later; a container that is gone counts as not steady.
        seconds: The time between.
    """
    return [
        Check.that(
            after.get(name) == count,
            "workloads.steady",
            name,
            f"no restart within {seconds:g} s",
            got=f"{count} restarts, then {after[name]}" if name in after else "the pod is gone",
            expected="the same number",
            remedy="kubectl -n {} logs {} -c {} --previous".format(*name.split("/", 2)),
        )
        for name, count in before.items()
    ]
