"""How each node became Ready: the moments of its way, from the record of a run.

| phase | what it is | where it is read |
| --- | --- | --- |
| kubeadm_started | `kubeadm init` or `join` was started on the host | journal |
| registered | the Node object appeared | node watch |
| plugin_scheduled | the plugin's pod was given to the node | pod watch |
| image_pulled | every image of that pod was there (its last first `Pulled` event) | event watch |
| plugin_running | every container of that pod runs | pod watch |
| cni_present | the CNI configuration was written | its file time on the host; else the first Node
  status that no longer says NetworkPluginNotReady, which may come seconds later |
| ready | the first Node status with Ready=True | node watch |
| workload_running | the first pod with an address of the pod network runs | pod watch |

A time from a watch is the moment of arrival here (1 ms). What was there before the watch began has
its object's own time stamp (1 s, the cluster's clock). `source` says which, value by value. The
order is not a law: on a real cluster a node can be Ready before its plugin's pod runs, since the
configuration is written by an init container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from kitlib.errors import ParamsError
from kitlib.model import Check, Status
from kitlib.runs import Run, WatchLine, parse_time

__all__ = [
    "BUILDING",
    "COLUMNS",
    "NOT_THE_NODES",
    "PHASES",
    "PodSelector",
    "checks",
    "node_phases",
    "plugin_pods",
]

PHASES = {
    "kubeadm_started": "kubeadm started",
    "registered": "node registered",
    "plugin_scheduled": "plugin pod scheduled",
    "image_pulled": "images pulled",
    "plugin_running": "plugin running",
    "cni_present": "CNI configuration",
    "ready": "Ready",
    "workload_scheduled": "first workload pod scheduled",
    "workload_running": "first workload pod running",
}
"""Phase -> its name on charts, in the usual order."""

NOT_THE_NODES = "workload_scheduled"
"""Until somebody wants a pod on it, a node waits for nothing: no wait is counted up to here."""

BUILDING = ("kubeadm_started", "registered", "ready")
"""The phases that tell whether a node was built in a run, or was there before it."""

COLUMNS = (
    "node", "role", "phase", "label", "t", "offset_s", "waited_s", "resolution_s", "source",
)  # fmt: skip
"""`node_phases`: one row for each node and phase, also for those that never came (t is NaT).
offset_s counts from the first phase of any node in this run and is negative for what was there
before the run (where all nodes were there before it, from the first phase of all); waited_s is the
time since the node's previous phase, in order of time; NaN for NOT_THE_NODES."""

MILLISECOND, SECOND = 0.001, 1.0
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
class _Moment:
    t: float
    resolution: float
    source: str


@dataclass(slots=True)
class _Node:
    """One Node object (a node that was deleted and came back is another one)."""

    uid: str
    control_plane: bool = False
    network_missing: bool = False
    moments: dict[str, _Moment] = field(default_factory=dict)


def plugin_pods(run: Run) -> tuple[PodSelector, ...]:
    """Return the pods that the run's plugin has on every node, as the catalogue knows them."""
    try:
        workloads = run.catalogue.wanted(run.plugin, run.plugin_delegate).workloads
    except ParamsError:  # a plugin of another release of the kit: the other phases still hold
        return ()
    return tuple(
        PodSelector(each.namespace, each.selector) for each in workloads if each.kind == "DaemonSet"
    )


def node_phases(run: Run, plugin: Sequence[PodSelector] | None = None) -> pd.DataFrame:
    """Return one row for each node and phase; columns: COLUMNS.

    Args:
        run: The run.
        plugin: The plugin's own pods on each node; None takes the catalogue's.
    """
    selectors = plugin_pods(run) if plugin is None else tuple(plugin)
    nodes = _nodes(run.watch("nodes"))
    pods = _pods(run.watch("pods"))
    _add_pods(nodes, pods, selectors, run.watch("events"))
    roles = {host.name: host.role for host in run.hosts}
    names = list(roles) + sorted(name for name in nodes if name not in roles)
    table = {name: dict(nodes[name].moments) if name in nodes else {} for name in names}
    _add_journal(run, table)
    rows = [row for name in names for row in _rows(name, table[name])]
    for row in rows:
        known = nodes.get(row["node"])
        role = "control_plane" if known and known.control_plane else "worker"
        row["role"] = roles.get(row["node"], role)
    return _frame(rows, begins=run.started)


def checks(phases: pd.DataFrame) -> list[Check]:
    """Return what the moments say: nodes that never turned Ready, or did for the wrong reason."""
    found: list[Check] = []
    for name, group in phases.groupby("node", sort=False):
        node = str(name)
        times = group.set_index("phase")["t"].dropna()
        slack = pd.Timedelta(seconds=float(group["resolution_s"].fillna(0).max()))
        if "registered" not in times:
            continue
        if "ready" not in times:
            have = [label for phase, label in PHASES.items() if phase in times]
            found.append(
                Check(
                    "readiness.ready",
                    node,
                    Status.FAIL,
                    "the node turned Ready",
                    got=f"not Ready; the last that came: {have[-1]}",
                    expected="Ready=True",
                    remedy=f"kubectl describe node {node}; then the plugin pod's log on that node",
                )
            )
            continue
        if "plugin_scheduled" in times and times["ready"] + slack < times["plugin_scheduled"]:
            early = (times["plugin_scheduled"] - times["ready"]).total_seconds()
            found.append(
                Check(
                    "readiness.ready-by-plugin",
                    node,
                    Status.FAIL,
                    "the node turned Ready through this plugin",
                    got=f"Ready {early:.1f} s before the plugin's pod was scheduled there",
                    expected="the plugin's pod first",
                    remedy="a CNI configuration was there already: look in /etc/cni/net.d",
                )
            )
            continue
        took = (times["ready"] - times["registered"]).total_seconds()
        found.append(
            Check(
                "readiness.ready",
                node,
                Status.PASS,
                "the node turned Ready",
                got=f"{took:.1f} s after it registered",
            )
        )
    return found


def _nodes(lines: Iterable[WatchLine]) -> dict[str, _Node]:
    nodes: dict[str, _Node] = {}
    for line in lines:
        meta = line.object.get("metadata", {})
        name, uid = str(meta.get("name", "")), str(meta.get("uid", ""))
        if line.type == "DELETED":
            nodes.pop(name, None)
            continue
        created = parse_time(meta.get("creationTimestamp"))
        node = nodes.get(name)
        if node is None or node.uid != uid:
            node = nodes[name] = _Node(uid)
            node.moments["registered"] = _moment(line, created, "node watch")
        labels = meta.get("labels") or {}
        node.control_plane = node.control_plane or any(
            f"node-role.kubernetes.io/{word}" in labels for word in ("control-plane", "master")
        )
        status = line.object.get("status") or {}
        ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
        if ready is None:
            continue
        changed = parse_time(ready.get("lastTransitionTime"))
        if any(words in str(ready.get("message", "")) for words in _NETWORK_MISSING):
            node.network_missing = True
            node.moments.pop("cni_present", None)
        elif node.network_missing or ready.get("status") == "True":
            node.moments.setdefault("cni_present", _bound(_moment(line, changed, "node watch")))
        if ready.get("status") == "True":
            node.moments.setdefault("ready", _moment(line, changed, "node watch"))
    return nodes


def _pods(lines: Iterable[WatchLine]) -> dict[str, list[WatchLine]]:
    """Return uid -> the lines of one pod."""
    pods: dict[str, list[WatchLine]] = {}
    for line in lines:
        if line.type != "DELETED":
            pods.setdefault(str(line.object.get("metadata", {}).get("uid", "")), []).append(line)
    return pods


def _add_pods(
    nodes: Mapping[str, _Node],
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
        born = parse_time(last.get("metadata", {}).get("creationTimestamp"))
        placed = next(line for line in lines if line.object.get("spec", {}).get("nodeName"))
        scheduled = _moment(placed, born, "pod watch")
        if scheduled.t < node.moments["registered"].t - SECOND:
            continue  # it ran on an earlier node of the same name
        running = next((line for line in lines if _runs(line.object)), None)
        if any(selector.matches(last) for selector in selectors):
            _earliest(node, "plugin_scheduled", scheduled)
            if uid in pulls:
                _earliest(node, "image_pulled", pulls[uid])
            if running:
                since = _since(running.object)
                _earliest(node, "plugin_running", _moment(running, since, "pod watch"))
        elif running and not spec.get("hostNetwork"):
            moment = _moment(running, _since(running.object), "pod watch")
            known = node.moments.get("workload_running")
            if known is None or moment.t < known.t:
                node.moments["workload_running"] = moment
                node.moments["workload_scheduled"] = scheduled


def _pulls(events: Iterable[WatchLine]) -> dict[str, _Moment]:
    """Return pod uid -> when the last of its images had come for the first time."""
    firsts: dict[tuple[str, str], _Moment] = {}
    for line in events:
        if line.object.get("reason") != "Pulled" or line.type == "DELETED":
            continue
        about = line.object.get("involvedObject") or line.object.get("regarding") or {}
        key = (str(about.get("uid", "")), str(about.get("fieldPath", "")))
        stamp = parse_time(line.object.get("firstTimestamp") or line.object.get("eventTime"))
        firsts.setdefault(key, _moment(line, stamp, "event watch"))
    found: dict[str, _Moment] = {}
    for (uid, _), moment in firsts.items():
        if uid not in found or moment.t > found[uid].t:
            found[uid] = moment
    return found


def _runs(pod: Mapping[str, Any]) -> bool:
    """Return whether every container of a pod runs."""
    status = pod.get("status") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
    wanted = len(pod.get("spec", {}).get("containers") or states)
    running = len(states) >= max(wanted, 1) and all("running" in state for state in states)
    return status.get("phase") == "Running" and running


def _since(pod: Mapping[str, Any]) -> float | None:
    """Return when the last container of a running pod was started, by the object."""
    states = [each["state"]["running"] for each in pod["status"]["containerStatuses"]]
    starts = [parse_time(state.get("startedAt")) for state in states]
    return max((start for start in starts if start is not None), default=None)


def _earliest(node: _Node, phase: str, moment: _Moment) -> None:
    known = node.moments.get(phase)
    if known is None or moment.t < known.t:
        node.moments[phase] = moment


def _moment(line: WatchLine, stamp: float | None, source: str) -> _Moment:
    """Return the time of arrival; for what a list brought, the object's own time."""
    if line.listed and stamp is not None and line.t - stamp > SECOND:
        return _Moment(stamp, SECOND, "object time stamp")
    return _Moment(line.t, MILLISECOND, source)


def _bound(moment: _Moment) -> _Moment:
    return _Moment(moment.t, moment.resolution, f"{moment.source}, {AT_THE_LATEST}")


def _add_journal(run: Run, table: Mapping[str, dict[str, _Moment]]) -> None:
    """Add what the journal knows: when kubeadm was started, when the configuration was written."""
    for entry in run.entries:
        moments = table.get(entry.host)
        if moments is None:
            continue
        if entry.kind == "command.started":
            words = str(entry.data.get("command", "")).replace("'", " ").split()
            if "kubeadm" in words and ({"init", "join"} & set(words)):
                moments["kubeadm_started"] = _Moment(entry.t, MILLISECOND, "journal")
        elif entry.kind == "snapshot" and "cni_configuration" in entry.data:
            written = parse_time((entry.data["cni_configuration"] or {}).get("modified"))
            if written is not None:
                source = "file time on the host"
                moments["cni_present"] = _Moment(written, MILLISECOND, source)


def _rows(name: str, known: Mapping[str, _Moment]) -> list[dict[str, Any]]:
    moments = dict(known)
    if NOT_THE_NODES in moments and (
        "ready" not in moments or moments[NOT_THE_NODES].t < moments["ready"].t
    ):
        del moments[NOT_THE_NODES]  # a pod was waiting already: all the time was the node's
    return [
        {
            "node": name,
            "phase": phase,
            "label": label,
            "t": moments[phase].t if phase in moments else None,
            "resolution_s": moments[phase].resolution if phase in moments else None,
            "source": moments[phase].source if phase in moments else "",
        }
        for phase, label in PHASES.items()
    ]


def _frame(rows: list[dict[str, Any]], *, begins: float | None) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["t"] = frame["t"].astype("float64")
    frame["resolution_s"] = frame["resolution_s"].astype("float64")
    inside = frame if begins is None else frame[frame["t"] >= begins]
    built = inside["phase"].isin(list(BUILDING)).any()
    frame["offset_s"] = frame["t"] - (inside if built else frame)["t"].min()
    # A bound that equals what it bounds explains nothing: the other phase counts as the wait.
    late = frame["source"].str.endswith(AT_THE_LATEST)
    ordered = frame.assign(late=late).sort_values(["t", "late"], kind="stable")
    frame["waited_s"] = ordered.groupby("node")["t"].diff()
    frame.loc[frame["phase"] == NOT_THE_NODES, "waited_s"] = float("nan")
    frame["t"] = pd.to_datetime(frame["t"], unit="s", utc=True).dt.round("us")
    return frame
