"""How each node became Ready: the moments of its way, from the record of a run.

| phase | what it is | where it is read |
| --- | --- | --- |
| kubeadm_started | `kubeadm init` or `join` was started on the host | journal |
| tls_bootstrap | the kubelet's client certificate was issued for its bootstrap token (a first
  control plane has none: kubeadm writes its certificate) | CertificateSigningRequest watch |
| registered | the Node object appeared | node watch |
| pod_cidr | the Node has its part of the pod CIDR (some plugins never ask for one) | node watch |
| plugin_scheduled | the plugin's pod was given to the node | pod watch |
| image_pulled | every image of that pod was there (its last first `Pulled` event) | event watch |
| plugin_running | every container of that pod runs | pod watch |
| cni_present | the CNI configuration was written | its file time on the host; else the first Node
  status that no longer says NetworkPluginNotReady, which may come seconds later |
| ready | the first Node status with Ready=True | node watch |
| taint_lifted | the not-ready taint is gone, other pods may come | node watch |
| workload_running | the first pod with an address of the pod network runs | pod watch |

A time from a watch is the moment of arrival here (1 ms). What was there before the watch began has
the time that is written in an object (1 s, the cluster's clock); what is written there again when
something else changes is an upper bound only. `source` says which, value by value; `living` makes
the same table from the objects of any cluster, also one that the kit did not build. The
order is not a law: on a real cluster a node can be Ready before its plugin's pod runs, since the
configuration is written by an init container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from kitlib.diagnosis.moments import (
    AT_THE_LATEST,
    KINDS,
    MILLISECOND,
    Moment,
    NodeStory,
    PodSelector,
    story,
)
from kitlib.errors import ParamsError
from kitlib.model import Check, Status
from kitlib.plugins import Plugin, catalogue
from kitlib.runs import Run, WatchLine, parse_time

__all__ = [
    "BUILDING",
    "COLUMNS",
    "NOT_THE_NODES",
    "PHASES",
    "PodSelector",
    "checks",
    "living",
    "node_phases",
    "plugin_pods",
]

PHASES = {
    "kubeadm_started": "kubeadm started",
    "tls_bootstrap": "TLS bootstrap",
    "registered": "node registered",
    "pod_cidr": "pod CIDR assigned",
    "plugin_scheduled": "plugin pod scheduled",
    "image_pulled": "images pulled",
    "plugin_running": "plugin running",
    "cni_present": "CNI configuration",
    "ready": "Ready",
    "taint_lifted": "taint lifted",
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


def plugin_pods(run: Run) -> tuple[PodSelector, ...]:
    """Return the pods that the run's plugin has on every node, as the catalogue knows them.

    Of a run that names no plugin (a cluster that the kit did not build): `every_plugin`.
    """
    if not run.plugin:
        return every_plugin()
    try:
        return _selectors([run.catalogue.wanted(run.plugin, run.plugin_delegate)])
    except ParamsError:  # a plugin of another release of the kit: the other phases still hold
        return ()


def every_plugin() -> tuple[PodSelector, ...]:
    """Return the pods that any plugin of the catalogue has on every node."""
    return _selectors(catalogue().values())


def _selectors(plugins: Iterable[Plugin]) -> tuple[PodSelector, ...]:
    return tuple(
        PodSelector(each.namespace, each.selector)
        for plugin in plugins
        for each in plugin.workloads
        if each.kind == "DaemonSet"
    )


def node_phases(run: Run, plugin: Sequence[PodSelector] | None = None) -> pd.DataFrame:
    """Return one row for each node and phase; columns: COLUMNS.

    Args:
        run: The run.
        plugin: The plugin's own pods on each node; None takes the catalogue's.
    """
    selectors = plugin_pods(run) if plugin is None else tuple(plugin)
    nodes = story({kind: run.watch(kind) for kind in KINDS}, selectors)
    roles = {host.name: host.role for host in run.hosts}
    names = list(roles) + sorted(name for name in nodes if name not in roles)
    table = {name: dict(nodes[name].moments) if name in nodes else {} for name in names}
    _add_journal(run, table)
    return _table(table, nodes, roles, begins=run.started)


def living(
    objects: Mapping[str, Sequence[Mapping[str, Any]]],
    now: float,
    plugin: Sequence[PodSelector] | None = None,
) -> pd.DataFrame:
    """Return what a cluster's objects tell by themselves; columns: COLUMNS.

    Args:
        objects: KINDS -> the items of their lists, with managedFields; what is missing is unknown.
        now: Unix time at which they were read.
        plugin: The plugin's own pods; None looks for those of every plugin in the catalogue.
    """
    lists = {
        kind: [WatchLine(now, "ADDED", item, listed=True) for item in objects.get(kind, ())]
        for kind in KINDS
    }
    nodes = story(lists, every_plugin() if plugin is None else tuple(plugin))
    table = {name: dict(nodes[name].moments) for name in sorted(nodes)}
    return _table(table, nodes, {}, begins=None)


def _table(
    table: Mapping[str, Mapping[str, Moment]],
    nodes: Mapping[str, NodeStory],
    roles: Mapping[str, str],
    *,
    begins: float | None,
) -> pd.DataFrame:
    rows = [row for name, moments in table.items() for row in _rows(name, moments)]
    for row in rows:
        known = nodes.get(row["node"])
        role = "control_plane" if known and known.control_plane else "worker"
        row["role"] = roles.get(row["node"], role)
    return _frame(rows, begins=begins)


def checks(phases: pd.DataFrame) -> list[Check]:
    """Return what the moments say: nodes that never turned Ready, or did for the wrong reason."""
    found: list[Check] = []
    known = phases.dropna(subset=["t"])
    coarsest = known.groupby("node", sort=False)["resolution_s"].max()
    by_node: dict[str, dict[str, pd.Timestamp]] = {}
    for name, phase, t in zip(known["node"], known["phase"], known["t"], strict=True):
        by_node.setdefault(str(name), {})[str(phase)] = t
    for node, times in by_node.items():
        slack = pd.Timedelta(seconds=float(coarsest[node]))
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


def _add_journal(run: Run, table: Mapping[str, dict[str, Moment]]) -> None:
    """Add what the journal knows: when kubeadm was started, when the configuration was written."""
    for entry in run.entries:
        moments = table.get(entry.host)
        if moments is None:
            continue
        if entry.kind == "command.started":
            words = str(entry.data.get("command", "")).replace("'", " ").split()
            if "kubeadm" in words and ({"init", "join"} & set(words)):
                moments["kubeadm_started"] = Moment(entry.t, MILLISECOND, "journal")
        elif entry.kind == "snapshot" and "cni_configuration" in entry.data:
            written = parse_time((entry.data["cni_configuration"] or {}).get("modified"))
            if written is not None:
                source = "file time on the host"
                moments["cni_present"] = Moment(written, MILLISECOND, source)


def _rows(name: str, known: Mapping[str, Moment]) -> list[dict[str, Any]]:
    moments = dict(known)
    if NOT_THE_NODES in moments and (
        "ready" not in moments or moments[NOT_THE_NODES].t < moments["ready"].t
    ):
        del moments[NOT_THE_NODES]  # a pod was waiting already: all the time was the node's
    cidr, ready = moments.get("pod_cidr"), moments.get("ready")
    if cidr and ready and cidr.source.endswith(AT_THE_LATEST) and cidr.t > ready.t:
        del moments["pod_cidr"]  # a bound that far away says nothing
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
