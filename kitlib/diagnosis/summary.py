"""What the diagnostic notebooks and the report show of a run: figures, tables, judgements."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from kitlib import charts, frames
from kitlib.charts import Picture
from kitlib.diagnosis import latency, pooled, readiness
from kitlib.diagnosis.captions import caption
from kitlib.diagnosis.connected import explained
from kitlib.model import Check
from kitlib.runs import Run
from kitlib.samples import read_samples, stamp

__all__ = [
    "latency_checks",
    "latency_distribution",
    "latency_extent",
    "latency_figure",
    "latency_nodes",
    "latency_pooled",
    "latency_shares",
    "latency_table",
    "measured_nodes",
    "node_phases",
    "readiness_checks",
    "readiness_figure",
    "readiness_table",
    "readiness_words",
    "ready_before",
    "stage_figure",
]


_USED = ("round", "src", "dst", "path", "rtt_ms", "lost", "duplicate", "reordered", "warmup")
"""The columns of the samples that all this is made of."""

MANY, SLOWEST = 40, 12
"""Above so many nodes a waterfall has the slowest ones only, below the distribution of all."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is computed of a run's samples; nobody changes these tables.

    `judged` has the checks of the last that were asked for, with what was asked.
    """

    names: tuple[str, ...]
    distribution: pd.DataFrame
    summary: pd.DataFrame
    nodes: pd.DataFrame
    pooled: pd.DataFrame
    judged: list[tuple[tuple[Any, ...], list[Check]]] = field(default_factory=list)


def _measured(run: Run) -> _Measured:
    """Return what was measured, read and computed once as long as the files stay the same."""
    return _read(run.path.resolve(), stamp(run, "ping"))


@lru_cache(maxsize=1)
def _read(path: Path, _: object) -> _Measured:
    samples = read_samples(Run(path), only=_USED)
    costs = frames.latency_costs(samples)
    seen = {str(name) for end in ("src", "dst") for name in samples[end].unique()}
    return _Measured(
        tuple(sorted(seen)),
        frames.latency_distribution(samples),
        frames.latency_summary(samples, costs),
        frames.latency_nodes(samples),
        pooled.pooled(samples, costs),
    )


def node_phases(run: Run) -> pd.DataFrame:
    """Return `readiness.node_phases` of the run, computed once for it."""
    return _phases(run).copy()


_last: list[tuple[Run, pd.DataFrame]] = []


def _phases(run: Run) -> pd.DataFrame:
    """Return the phases, computed once as long as it is the same run; nobody changes this table."""
    # A Run is what was read at one moment, so its identity says enough.
    known = next((phases for of, phases in _last if of is run), None)
    if known is None:
        known = readiness.node_phases(run)
        _last[:] = [(run, known)]
    return known


def stage_figure(run: Run) -> Picture | None:
    """Return the stages along the run's time; None when no stage was started."""
    stages, hosts = frames.stages(run), frames.hosts(run)
    if stages.empty:
        return None
    lengths = zip(stages["stage"], stages["seconds"], strict=True)
    lasted = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in lengths)
    picture = Picture(
        8.6, 1.1 + 0.46 * len(stages), caption=caption(run, timing=True),
        alt=f"Timeline of the stages: {lasted}.",
    )  # fmt: skip
    charts.stage_timeline(picture.add_subplot(), stages, hosts)
    return picture


def readiness_figure(run: Run) -> Picture | None:
    """Return each node's way to Ready as a waterfall; None when no node ever registered."""
    phases = _phases(run)
    if not phases.loc[phases["phase"] == "registered", "t"].notna().any():
        return None
    if ready_before(run):  # pods that came later say nothing of how these nodes became Ready
        phases = phases[phases["t"].isna() | (phases["t"] < _began(run))]
    nodes = phases["node"].nunique()
    ready = phases[phases["phase"] == "ready"].dropna(subset=["offset_s"])
    when = ", ".join(
        f"{node} at {at:.1f} s" for node, at in zip(ready["node"], ready["offset_s"], strict=True)
    )
    many = nodes > MANY
    shown = _slowest(phases, SLOWEST) if many else phases
    rows = SLOWEST if many else nodes
    row = 0.5 if rows <= 6 else 0.34 if rows <= 16 else 0.22
    waterfall = max(2.9, 1.3 + row * rows)
    spread = 1.0 + 0.34 * (phases["phase"].nunique() - 1) if many else 0.0
    alt = f"Waterfall of node readiness. Ready: {when or 'no node'}."
    if many:
        alt = f"What {nodes} nodes waited for. {' '.join(readiness_words(run))}"
    picture = Picture(
        9.2, waterfall + spread, caption=caption(run, timing=True), alt=alt
    )  # fmt: skip
    inside = phases[phases["offset_s"] >= 0].sort_values("offset_s")
    first = inside.iloc[0] if len(inside) else None
    origin = "the first recorded moment"
    if first is not None:
        at = datetime.fromtimestamp(first["t"].timestamp(), UTC)
        what = f"{first['label']} ({first['node']})"
        if first["phase"] == "kubeadm_started":
            what = f"kubeadm was started on {first['node']}"
        origin = f"{what}, {at:%H:%M:%S} UTC"
    if not many:
        charts.readiness_waterfall(picture.add_subplot(), phases, origin=origin)
        return picture
    above, below = picture.subplots(2, 1, height_ratios=[spread, waterfall])
    charts.wait_distribution(above, phases)
    charts.readiness_waterfall(below, shown, origin=origin)
    below.set_title(
        f"The {SLOWEST} nodes that were Ready last (triangle: Ready)", loc="left", fontsize=11
    )
    return picture


def readiness_words(run: Run) -> list[str]:
    """Return in words which phase and which node took longest; empty when nothing is known."""
    phases = _phases(run)
    nodes = phases["node"].nunique()
    kept = phases[(phases["offset_s"] >= 0) & phases["waited_s"].notna()]
    if kept.empty:
        return []
    medians = kept.groupby("phase", sort=False)["waited_s"].median()
    slowest = str(medians.idxmax())
    of = kept[kept["phase"] == slowest]
    most = of.sort_values("waited_s").iloc[-1]
    words = [
        f"Slowest phase: {readiness.PHASES[slowest]}, {medians.max():.1f} s in the median of "
        f"{len(of)} node(s), at most {most['waited_s']:.1f} s on {most['node']}."
    ]
    ready = phases[(phases["phase"] == "ready") & (phases["offset_s"] >= 0)]
    if len(ready):
        last = ready.sort_values("offset_s").iloc[-1]
        own = kept[kept["node"] == last["node"]]
        own = own[own["offset_s"] <= last["offset_s"]]
        why = ""
        if len(own):
            wait = own.sort_values("waited_s").iloc[-1]
            why = f"; it waited longest for {wait['label']} ({wait['waited_s']:.1f} s)"
        words.append(f"Last to be Ready: {last['node']}, after {last['offset_s']:.1f} s{why}.")
    never = nodes - phases.loc[phases["phase"] == "ready", "t"].notna().sum()
    if never:
        words.append(f"Not Ready: {never} of {nodes} node(s).")
    coarse = sorted(set(phases.loc[phases["resolution_s"] >= 1, "label"]))
    if coarse:
        words.append(f"Known to the second only: {', '.join(coarse)}.")
    return words


def _slowest(phases: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the rows of the nodes that never were Ready, then of those that were it last."""
    ready = phases[phases["phase"] == "ready"].set_index("node")["offset_s"]
    names = list(ready.fillna(float("inf")).sort_values(ascending=False, kind="stable").index)
    kept = phases[phases["node"].isin(names[:count])]
    return kept.sort_values("node", key=lambda nodes: nodes.map(names.index), kind="stable")


def ready_before(run: Run) -> bool:
    """Return whether every registered node was Ready before the run began."""
    phases = _phases(run).dropna(subset=["t"])
    steps = phases[phases["phase"].isin(list(readiness.BUILDING))]
    ready = set(steps.loc[steps["phase"] == "ready", "node"])
    early = bool((steps["t"] < _began(run)).all())
    return bool(ready) and early and ready == set(steps["node"])


def readiness_table(run: Run) -> pd.DataFrame:
    """Return one row for each node: seconds from its first phase to each, and the slowest wait.

    Columns: `node`, `role`, the phases' labels (seconds since the node's own first phase; NaN for
    one that never came), `longest_wait` (the phase that the node waited for longest).
    """
    phases = _phases(run)
    columns = ["node", "role", *readiness.PHASES.values(), "longest_wait"]
    if phases.empty:
        return pd.DataFrame(columns=columns)
    of = phases.groupby("node", sort=False)
    since = phases.assign(since=phases["offset_s"] - of["offset_s"].transform("min"))
    # A phase stands once for each node; unlike pivot, this keeps the nodes' order.
    wide = since.set_index(["node", "label"])["since"].unstack("label")
    known = phases.dropna(subset=["offset_s", "waited_s"]).sort_values("waited_s", kind="stable")
    last = known.drop_duplicates("node", keep="last").set_index("node")
    waits = zip(last["label"], last["waited_s"], strict=True)
    words = [f"{label} ({waited:.1f} s)" for label, waited in waits]
    longest = pd.Series(words, index=last.index, dtype="object")
    table = wide.reindex(list(of.groups)).join(of["role"].first())
    table["longest_wait"] = longest.reindex(table.index).fillna("")
    return table.reset_index().reindex(columns=columns)


def readiness_checks(run: Run) -> list[Check]:
    """Return what the nodes' way to Ready says."""
    return readiness.checks(_phases(run))


def measured_nodes(run: Run) -> list[str]:
    """Return the nodes in the order of the parameters, then any others that were measured."""
    named = [host.name for host in run.hosts]
    return [*named, *(name for name in _measured(run).names if name not in named)]


def latency_figure(run: Run) -> Picture | None:
    """Return the median round trip of every ordered pair, pod path beside the host baseline.

    None when nothing was measured.
    """
    summary = _measured(run).summary
    if summary.empty:
        return None
    nodes = measured_nodes(run)
    few = len(nodes) <= charts.LABELLED
    factor, unit = charts.unit_of(summary["p50_ms"])
    told = latency.standing_out(summary, _measured(run).nodes, factor, unit)
    order = "" if few else " Nodes with alike latencies stand beside each other."
    alt = (
        f"Heat map of median round-trip times between {len(nodes)} nodes in {unit}.{order} "
        + " ".join([*told, *latency_extent(run)])
    )
    panel = 3.2 if len(nodes) <= 4 else 4.0 if len(nodes) <= 8 else 5.6
    # More than a few need words beside the picture: no one finds one of 40,000 squares.
    beside = "" if few else "\n".join(textwrap.fill(each, 190) for each in told)
    top = 0.0 if few else 0.15 * (beside.count("\n") + 1)
    picture = Picture(
        panel * 2 + 1.6, panel + 0.9 + top, caption=_latency_caption(run), alt=alt, square=True
    )
    if not few:
        nodes = charts.seriated(summary, nodes)
        key = "Dot: lost packets. Cross: no reply. Nodes with alike latencies beside each other."
        picture.suptitle(f"{beside}\n{key}", x=0.01, ha="left", fontsize=8.5)
    scale = charts.latency_scale(summary)
    panels = picture.subplots(1, 2)
    for ax, path, words in zip(
        panels, ("pod", "host"), ("Pod to pod", "Host to host"), strict=True
    ):
        title = f"{words}: p50 in {unit}"
        charts.latency_heatmap(
            ax, summary, nodes, path=path, scale=scale, title=title, marked=_named(told, nodes)
        )
    charts.latency_bar(picture, list(panels), f"median round trip, {unit}")
    return picture


def _named(told: list[str], nodes: list[str]) -> list[str]:
    """Return the nodes that are named in these sentences, the first named first."""
    known = set(nodes)
    words = (word.strip(".,:") for sentence in told for word in sentence.split())
    return list(dict.fromkeys(word for word in words if word in known))


def latency_distribution(run: Run) -> Picture | None:
    """Return the distribution of all round trips, pod and host path; None when not measured."""
    distribution, table = _measured(run).distribution, _measured(run).pooled
    if not _measured(run).names:
        return None
    middles = zip(table["path"], table["p50_ms"], strict=True)
    said = ", ".join(f"{path} path {value:.3f} ms" for path, value in middles)
    nodes = _measured(run).nodes
    pods = nodes[nodes["path"] == "pod"].sort_values("p50_ms", ascending=False)
    slowest = ", ".join(
        f"{node} {value:.3f} ms"
        for node, value in zip(pods["node"].head(3), pods["p50_ms"], strict=False)
    )
    picture = Picture(
        11.4, 3.7 + 0.17 * max(0, min(len(pods), 30) - 12), caption=_latency_caption(run),
        alt=f"Cumulative distribution of round-trip times; medians: {said}. Beside it the spread "
        f"of each node's packets between pods; slowest medians: {slowest or 'none'}.",
    )  # fmt: skip
    left, right = picture.subplots(1, 2, width_ratios=(1.15, 1))
    charts.latency_ecdf(left, distribution)
    charts.latency_bands(right, nodes)
    return picture


def latency_table(run: Run) -> pd.DataFrame:
    """Return `frames.latency_summary` of the run."""
    return _measured(run).summary.copy()


def latency_nodes(run: Run) -> pd.DataFrame:
    """Return `frames.latency_nodes` of the run."""
    return _measured(run).nodes.copy()


def latency_shares(run: Run) -> pd.DataFrame:
    """Return `frames.latency_distribution` of the run."""
    return _measured(run).distribution.copy()


def latency_pooled(run: Run) -> pd.DataFrame:
    """Return `pooled.pooled` of the run: all pairs together, with 95 % intervals."""
    return _measured(run).pooled.copy()


def latency_checks(run: Run) -> list[Check]:
    """Return what the samples say about the network."""
    measured = _measured(run)
    asked = (measured_nodes(run), run.drawn, run.missing.get("latency", ""), explained(run))
    if not measured.judged or measured.judged[0][0] != asked:
        nodes, drawn, missing, known = asked
        found = latency.checks(
            measured.summary, nodes, drawn=drawn, missing=missing, explained=known
        )
        measured.judged[:] = [(asked, found)]
    return list(measured.judged[0][1])


def latency_extent(run: Run) -> list[str]:
    """Return in sentences what part of the cluster was measured, where it is not all of it."""
    missing = run.missing.get("latency")
    return [
        *([f"Measured was {run.drawn}."] if run.drawn else []),
        *([f"Partial: the measurement was broken off; missing are {missing}."] if missing else []),
    ]


def _began(run: Run) -> pd.Timestamp:
    return pd.Timestamp(run.started or 0.0, unit="s", tz="UTC")


def _latency_caption(run: Run) -> str:
    return " ".join([*latency_extent(run), caption(run, timing=False)])
