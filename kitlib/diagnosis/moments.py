"""The moments of each node's way to Ready, read from the API's record: watches, or plain lists.

What each moment is and where it is read stands in `readiness`; this file holds how.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kitlib.diagnosis import stamps
from kitlib.runs import WatchLine, parse_time

__all__ = [
    "AT_THE_LATEST",
    "KINDS",
    "MILLISECOND",
    "OBJECT",
    "SECOND",
    "Moment",
    "NodeStory",
    "PodSelector",
    "story",
]

MILLISECOND, SECOND = 0.001, 1.0
KINDS = ("nodes", "pods", "events", "csrs")
"""What the moments are read from: the watches of a run, or the lists of a living cluster."""

OBJECT = "object time stamp"
_SOON = 10.0
"""Seconds after Ready in which the controller lifts the taint; what it wrote later is other."""

AT_THE_LATEST = "at the latest"
"""How the source of a time ends that is only an upper bound."""
_NETWORK_MISSING = ("NetworkPluginNotReady", "network plugin is not ready")


@dataclass(frozen=True, slots=True)
class PodSelector:
    """Which pods are meant: a namespace and labels that they all carry."""

    namespace: str
    labels: Mapping[str, str]

    def matches(self, pod: Mapping[str, Any]) -> bool:
        """Return whether this pod object is one of them."""
        meta = pod.get("metadata", {})
        carried = meta.get("labels") or {}
        return meta.get("namespace") == self.namespace and all(
            carried.get(key) == value for key, value in self.labels.items()
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened: Unix time, how fine it is known (seconds), and where it is read."""

    t: float
    resolution: float
    source: str


@dataclass(slots=True)
class NodeStory:
    """One Node object (a node that was deleted and came back is another one)."""

    uid: str
    control_plane: bool = False
    network_missing: bool = False
    tainted: bool = False
    moments: dict[str, Moment] = field(default_factory=dict)


def story(
    lines: Mapping[str, Sequence[WatchLine]], selectors: Sequence[PodSelector]
) -> dict[str, NodeStory]:
    """Return node -> its moments, of what the API told.

    Args:
        lines: KINDS -> what was seen of each.
        selectors: The plugin's own pods on each node.
    """
    nodes = _nodes(lines["nodes"])
    _add_certificates(nodes, lines["csrs"])
    _add_pods(nodes, _pods(lines["pods"]), selectors, lines["events"])
    _add_node_events(nodes, lines["events"])
    return nodes


def _nodes(lines: Iterable[WatchLine]) -> dict[str, NodeStory]:
    nodes: dict[str, NodeStory] = {}
    for line in lines:
        meta = line.object.get("metadata", {})
        name, uid = str(meta.get("name", "")), str(meta.get("uid", ""))
        if line.type == "DELETED":
            nodes.pop(name, None)
            continue
        node = nodes.get(name)
        if node is None or node.uid != uid:
            node = nodes[name] = NodeStory(uid)
            born = stamps.created(line.object)
            node.moments["registered"] = _moment(line, born, "node watch", "creationTimestamp")
        labels = meta.get("labels") or {}
        node.control_plane = node.control_plane or any(
            f"node-role.kubernetes.io/{word}" in labels for word in ("control-plane", "master")
        )
        if "pod_cidr" not in node.moments and (line.object.get("spec") or {}).get("podCIDR"):
            _add_written(node, "pod_cidr", line, stamps.managed(line.object, "f:spec", "f:podCIDR"))
        node.tainted = node.tainted or stamps.tainted(line.object)
        _add_ready(node, line)
    return nodes


def _add_ready(node: NodeStory, line: WatchLine) -> None:
    conditions = (line.object.get("status") or {}).get("conditions") or ()
    ready = next((each for each in conditions if each.get("type") == "Ready"), None)
    if ready is None:
        return
    changed = stamps.changed(line.object, "Ready")
    moment = _moment(line, changed, "node watch", "last change of condition Ready")
    if any(words in str(ready.get("message", "")) for words in _NETWORK_MISSING):
        node.network_missing = True
        node.moments.pop("cni_present", None)
    elif node.network_missing or ready.get("status") == "True":
        node.moments.setdefault("cni_present", _bound(moment))
    if ready.get("status") != "True":
        return
    node.moments.setdefault("ready", moment)
    if "taint_lifted" in node.moments or stamps.tainted(line.object):
        return
    if not line.listed:
        if node.tainted:
            node.moments["taint_lifted"] = Moment(line.t, MILLISECOND, "node watch")
        return
    # The controller that assigns the pod CIDR lifts the taint too; its fields have one time, that
    # of its last change, and it says nothing where that is older than Ready.
    written = stamps.managed(line.object, "f:spec", "f:podCIDR")
    lifted = node.moments["ready"].t
    if written is not None and lifted - SECOND <= written <= lifted + _SOON:
        _add_written(node, "taint_lifted", line, written)


def _add_written(node: NodeStory, phase: str, line: WatchLine, written: float | None) -> None:
    """Add what managedFields tell of a list's object: no later than that; nothing without them."""
    if not line.listed:
        node.moments[phase] = Moment(line.t, MILLISECOND, "node watch")
    elif written is not None:
        node.moments[phase] = _bound(_moment(line, written, "node watch", "managedFields"))


def _add_certificates(nodes: Mapping[str, NodeStory], lines: Iterable[WatchLine]) -> None:
    """Add when each node's own request was granted: the last one before it registered."""
    seen: set[str] = set()
    for line in lines:
        uid = str(line.object.get("metadata", {}).get("uid", ""))
        node = nodes.get(stamps.requested_by(line.object))
        issued = (line.object.get("status") or {}).get("certificate")
        if line.type == "DELETED" or node is None or not issued or uid in seen:
            continue
        seen.add(uid)
        stamp = stamps.changed(line.object, "Approved")
        moment = _moment(line, stamp, "CSR watch", "approval of the CSR")
        known = node.moments.get("tls_bootstrap")
        in_time = moment.t <= node.moments["registered"].t + moment.resolution
        if in_time and (known is None or moment.t > known.t):
            node.moments["tls_bootstrap"] = moment


def _add_node_events(nodes: Mapping[str, NodeStory], lines: Iterable[WatchLine]) -> None:
    """Let a NodeReady event correct a condition that has changed again since."""
    for line in lines:
        about = line.object.get("involvedObject") or line.object.get("regarding") or {}
        node = nodes.get(str(about.get("name", "")))
        if line.object.get("reason") != "NodeReady" or about.get("kind") != "Node" or node is None:
            continue
        first = _first(line.object)
        ready = node.moments.get("ready")
        if first is None or ready is None or ready.resolution < SECOND:
            continue
        if node.moments["registered"].t <= first < ready.t:
            node.moments["ready"] = Moment(first, SECOND, f"{OBJECT} (event NodeReady)")


def _pods(lines: Iterable[WatchLine]) -> dict[str, list[WatchLine]]:
    """Return uid -> the lines of one pod."""
    pods: dict[str, list[WatchLine]] = {}
    for line in lines:
        if line.type != "DELETED":
            pods.setdefault(str(line.object.get("metadata", {}).get("uid", "")), []).append(line)
    return pods


def _add_pods(
    nodes: Mapping[str, NodeStory],
    pods: Mapping[str, list[WatchLine]],
    selectors: Sequence[PodSelector],
    events: Iterable[WatchLine],
) -> None:
    pulls = _pulls(events)
    for uid, lines in pods.items():
        last = lines[-1].object
        spec = last.get("spec", {})
        node = nodes.get(str(spec.get("nodeName") or ""))
        if node is None:
            continue
        placed = next(line for line in lines if line.object.get("spec", {}).get("nodeName"))
        given = stamps.changed(placed.object, "PodScheduled")
        words = "condition PodScheduled"
        if given is None:
            given, words = stamps.created(placed.object), "creationTimestamp"
        scheduled = _moment(placed, given, "pod watch", words)
        if scheduled.t < node.moments["registered"].t - SECOND:
            continue  # it ran on an earlier node of the same name
        first = next((line for line in lines if stamps.runs(line.object)), None)
        running = _running(first) if first else None
        if any(selector.matches(last) for selector in selectors):
            _earliest(node, "plugin_scheduled", scheduled)
            if uid in pulls:
                _earliest(node, "image_pulled", pulls[uid])
            if running:
                _earliest(node, "plugin_running", running)
        elif running and not spec.get("hostNetwork"):
            known = node.moments.get("workload_running")
            if known is None or running.t < known.t:
                node.moments["workload_running"] = running
                node.moments["workload_scheduled"] = scheduled


def _pulls(events: Iterable[WatchLine]) -> dict[str, Moment]:
    """Return pod uid -> when the last of its images had come for the first time."""
    firsts: dict[tuple[str, str], Moment] = {}
    for line in events:
        if line.object.get("reason") != "Pulled" or line.type == "DELETED":
            continue
        about = line.object.get("involvedObject") or line.object.get("regarding") or {}
        key = (str(about.get("uid", "")), str(about.get("fieldPath", "")))
        stamp = _first(line.object)
        firsts.setdefault(key, _moment(line, stamp, "event watch", "event Pulled"))
    found: dict[str, Moment] = {}
    for (uid, _), moment in firsts.items():
        if uid not in found or moment.t > found[uid].t:
            found[uid] = moment
    return found


def _first(event: Mapping[str, Any]) -> float | None:
    return parse_time(event.get("firstTimestamp") or event.get("eventTime"))


def _running(line: WatchLine) -> Moment:
    """Return since when a pod runs; of one that was restarted only the last start is known."""
    moment = _moment(line, stamps.since(line.object), "pod watch", "startedAt")
    statuses = line.object["status"]["containerStatuses"]
    again = any(each.get("restartCount") for each in statuses)
    return _bound(moment) if again and moment.resolution == SECOND else moment


def _earliest(node: NodeStory, phase: str, moment: Moment) -> None:
    known = node.moments.get(phase)
    if known is None or moment.t < known.t:
        node.moments[phase] = moment


def _moment(line: WatchLine, stamp: float | None, source: str, written: str) -> Moment:
    """Return the time of arrival; for what a list brought, the one that is written in it."""
    if line.listed and stamp is not None and line.t - stamp > SECOND:
        return Moment(stamp, SECOND, f"{OBJECT} ({written})")
    return Moment(line.t, MILLISECOND, source)


def _bound(moment: Moment) -> Moment:
    return Moment(moment.t, moment.resolution, f"{moment.source}, {AT_THE_LATEST}")
