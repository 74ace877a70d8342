"""One cluster's runs over time: how long nodes took, what packets took, and what got worse.

Pure: runs in, tables out. A run is set against the earlier runs of its own series: the same
cluster, plugin, kind of hosts (a lab with its time factor, or real ones) and number of hosts.
What is judged is a build, so its packets say how sure its own number is, and only other builds say
how much builds differ. The spread is the earlier runs' median absolute deviation, which one bad
build does not move, with a factor that allows for how little few runs know of it: five runs need a
large step, twenty a small one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from kitlib.diagnosis import readiness
from kitlib.diagnosis.intervals import SEED, Counts, Floats, Interval, pooled_quantile
from kitlib.diagnosis.ways import WAY_COLUMNS, ways
from kitlib.model import Check, Status, Verdict
from kitlib.runs import Run
from kitlib.samples import read_samples

__all__ = [
    "COLUMNS",
    "HEADLINES",
    "NEEDED",
    "RUN_COLUMNS",
    "Headline",
    "History",
    "checks",
    "gather",
    "judge",
]

RUN_COLUMNS = (
    "series", "run_id", "path", "t", "cluster", "plugin", "kubernetes_version", "plugin_source",
    "kind", "hosts", "changed",
)  # fmt: skip
"""`History.runs`: one row a run that passed, oldest first. series is what it may be compared with,
in words; changed says what is different since the run before it in its series."""

COLUMNS = (
    "series", "run_id", "t", "metric", "label", "unit", "value", "low", "high",
    "earlier", "centre", "limit", "judged", "regressed",
)  # fmt: skip
"""`History.values`: one row for each run and number that it has. low and high: 95 % confidence by
a bootstrap over pairs of nodes (latency only); earlier: how many runs it is set against; centre:
their median; limit: from where on it counts as worse; judged: whether there were enough of them."""

NEEDED = 5
"""Earlier runs without which nothing is judged."""
WINDOW = 20
"""So many earlier runs at most: a cluster of a year ago says little."""
_CHANCE = 0.001
_DRAWS = 200_000
_RESAMPLES = 200
PHASE = "wait:"
"""How the metric of one phase begins; phases explain, and are not judged by themselves."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A number that is judged: worse is more, by a share and by an amount that matter.

    Attributes:
        label: Its name.
        unit: s or ms.
        share: No smaller step than this share of the earlier median counts.
        amount: Nor any smaller than this, in its unit.
    """

    label: str
    unit: str
    share: float
    amount: float


HEADLINES = {
    "ready": Headline("all nodes Ready", "s", 0.1, 1.0),
    "p50": Headline("pod to pod, p50", "ms", 0.1, 0.005),
    "p99": Headline("pod to pod, p99", "ms", 0.2, 0.02),
}


@dataclass(frozen=True, slots=True)
class History:
    """A cluster's runs over time: RUN_COLUMNS, COLUMNS, and `ways.ways` with run_id as subject."""

    runs: pd.DataFrame
    values: pd.DataFrame
    ways: pd.DataFrame

    @property
    def series(self) -> list[str]:
        """What is told apart, the one with the newest run last."""
        return list(dict.fromkeys(self.runs["series"][::-1]))[::-1]


def gather(runs: Sequence[Run]) -> History:
    """Return the history of the runs that passed, in the order of time."""
    passed = [run for run in runs if run.verdict == Verdict.PASS and run.started is not None]
    passed.sort(key=lambda run: (run.started or 0.0, run.run_id))
    told, values = [], []
    went = [pd.DataFrame(columns=list(WAY_COLUMNS))]
    for run in passed:
        row = _about(run)
        told.append(row)
        phases = readiness.node_phases(run)
        built = phases[phases["offset_s"] >= 0]
        went.append(ways(built.assign(subject=run.run_id, block=0)))
        for metric, label, unit, found in _numbers(run, phases):
            cells = (row["series"], run.run_id, row["t"], metric, label, unit)
            values.append((*cells, found.value, found.low, found.high))
    about = pd.DataFrame(told, columns=list(RUN_COLUMNS))
    about["changed"] = _changes(about)
    frame = pd.DataFrame(values, columns=list(COLUMNS[:9]))
    return History(about, _judged(frame), pd.concat(went[1:] or went, ignore_index=True))


def judge(
    value: float, earlier: Sequence[float], headline: Headline, flagged: Sequence[bool] = ()
) -> tuple[float, float]:
    """Return the earlier runs' median, and from where on this value is worse than they are.

    Both are NaN with fewer than NEEDED earlier runs. What is worse is beyond every earlier run too,
    but for those that were worse themselves: a level that stays bad is told until it is the median.

    Args:
        value: The run's own.
        earlier: Those of the runs before it, oldest first.
        headline: What the number is.
        flagged: Which of the earlier ones were worse than usual in their turn; empty for none.
    """
    marks = flagged or [False] * len(earlier)
    kept = [pair for pair in zip(earlier, marks, strict=True) if not math.isnan(pair[0])][-WINDOW:]
    known = np.array([each for each, _ in kept])
    if len(known) < NEEDED or math.isnan(value):
        return math.nan, math.nan
    centre = float(np.median(known))
    spread = float(np.median(np.abs(known - centre)))
    step = max(_factor(len(known)) * spread, headline.share * centre, headline.amount)
    healthy = [each for each, bad in kept if not bad]
    return centre, max([centre + step, *healthy])


def checks(history: History) -> list[Check]:
    """Return what the newest run of each series says against the runs before it."""
    found: list[Check] = []
    for series in history.series:
        newest = history.runs[history.runs["series"] == series].iloc[-1]
        own = history.values[history.values["run_id"] == newest["run_id"]]
        for metric, headline in HEADLINES.items():
            rows = own[own["metric"] == metric]
            if not rows.empty:
                found.append(_check(history, series, newest, rows.iloc[0], headline))
    return found


def _check(
    history: History, series: str, newest: pd.Series[Any], row: pd.Series[Any], headline: Headline
) -> Check:
    name, unit = f"history.{row['metric']}", headline.unit
    summary = f"{headline.label}, against the runs before"
    said = f"{row['value']:.3g} {unit} in {newest['run_id']}"
    if not row["judged"]:
        few = f"{said}; {row['earlier']} earlier run(s), {NEEDED} are needed to judge"
        return Check(name, series, Status.SKIP, summary, got=few)
    usual = f"up to {row['limit']:.3g} {unit} (median of {row['earlier']}: {row['centre']:.3g})"
    if not row["regressed"]:
        return Check(name, series, Status.PASS, summary, got=said, expected=usual)
    why = [each for each in (str(newest["changed"]), _slower_phase(history, newest)) if each]
    reason = f"; {'; '.join(why)}" if why else ""
    return Check(
        name,
        series,
        Status.WARN,
        summary,
        got=f"{said}{reason}",
        expected=usual,
        remedy=f"kit report {newest['path']}, beside the report of the run before it",
    )


def _slower_phase(history: History, newest: pd.Series[Any]) -> str:
    """Return in words which phase grew most over its own earlier median; empty without any."""
    own = history.values[history.values["series"] == newest["series"]]
    own = own[own["metric"].str.startswith(PHASE)]
    now = own[own["run_id"] == newest["run_id"]]
    before = own[own["run_id"] != newest["run_id"]].groupby("metric")["value"].median()
    grew = now["value"] - now["metric"].map(before)
    if grew.dropna().empty or grew.max() <= 0:
        return ""
    label = now.loc[grew.idxmax(), "label"]
    return f"{label} took {grew.max():.1f} s longer than usual"


def _about(run: Run) -> dict[str, Any]:
    origin, params = run.provenance, run.meta.get("params") or {}
    kind = {"hosts": "real hosts", "lab": "lab"}.get(origin.kind, "unknown hosts")
    if origin.is_lab and origin.time_factor:
        kind = f"lab x{origin.time_factor:g}"
    plugin = run.plugin + (f" over {run.plugin_delegate}" if run.plugin_delegate else "")
    hosts = len(run.hosts)
    return {
        "series": f"{run.cluster}, {plugin or 'unknown plugin'}, {hosts} hosts, {kind}",
        "run_id": run.run_id,
        "path": str(run.path),
        "t": pd.Timestamp(run.started or 0.0, unit="s", tz="UTC"),
        "cluster": run.cluster,
        "plugin": plugin,
        "kubernetes_version": str(run.meta.get("kubernetes_version") or ""),
        "plugin_source": str(params.get("plugin_source") or ""),
        "kind": kind,
        "hosts": hosts,
        "changed": "",
    }


def _changes(runs: pd.DataFrame) -> list[str]:
    before: dict[str, Any] = {}
    last: dict[str, str] = {}
    words = []
    for row in runs.to_dict("records"):
        known, said = before.get(row["series"]), []
        if known is not None:
            old, new = known["kubernetes_version"], row["kubernetes_version"]
            if old != new:
                said.append(f"Kubernetes {old or '?'} to {new or '?'}")
            if known["plugin_source"] != row["plugin_source"]:
                said.append(_versions(known["plugin_source"], row["plugin_source"]))
            between = last[row["cluster"]]
            if between != row["plugin"]:
                said.append(f"{between} in between")
        before[row["series"]], last[row["cluster"]] = row, row["plugin"]
        words.append(", ".join(said))
    return words


def _versions(old: str, new: str) -> str:
    """Return how a plugin's source changed: the versions in it, where it names some."""
    was, now = (re.search(r"v?\d+\.\d+[\w.-]*(?=/|$)|v\d+\.\d+\.\d+", each) for each in (old, new))
    if was and now and was[0] != now[0]:
        return f"plugin {was[0]} to {now[0]}"
    return "plugin from another source"


def _numbers(run: Run, phases: pd.DataFrame) -> list[tuple[str, str, str, Interval]]:
    """Return (metric, label, unit, value) of what a run recorded."""
    found: list[tuple[str, str, str, Interval]] = []
    built = phases[phases["offset_s"] >= 0]
    ready = built.loc[built["phase"] == "ready", "offset_s"]
    if len(ready) == phases["node"].nunique() and len(ready):
        found.append(_headline("ready", Interval(float(ready.max()))))
    waits = built.dropna(subset=["waited_s"]).groupby("phase")["waited_s"].median()
    for phase, label in readiness.PHASES.items():
        if phase in waits:
            found.append((f"{PHASE}{phase}", label, "s", Interval(float(waits[phase]))))
    samples = read_samples(run)
    kept = samples[(samples["path"] == "pod") & ~samples["warmup"].astype(bool)]
    kept = kept[~kept["lost"].astype(bool) & ~kept["duplicate"].astype(bool)]
    if len(kept):
        middle, tail = _quantiles(kept)
        found += [_headline("p50", middle), _headline("p99", tail)]
    return found


def _headline(metric: str, value: Interval) -> tuple[str, str, str, Interval]:
    return metric, HEADLINES[metric].label, HEADLINES[metric].unit, value


def _quantiles(samples: pd.DataFrame) -> tuple[Interval, Interval]:
    """Return p50 and p99; the pairs are drawn with replacement, each with all its packets."""
    numbered = samples.groupby(["src", "dst"], observed=True, sort=False).ngroup()
    pairs: Counts = numbered.to_numpy().astype(np.int64)
    values: Floats = samples["rtt_ms"].to_numpy(float)
    many = int(pairs.max()) + 1
    drawn = np.random.default_rng(SEED).multinomial(many, np.full(many, 1 / many), size=_RESAMPLES)
    found = []
    for share in (0.5, 0.99):
        statistic = pooled_quantile(values, pairs, share)
        value = statistic(np.ones(many, dtype=np.int64))
        if many < 2:
            found.append(Interval(value))
            continue
        low, high = np.quantile([statistic(counts) for counts in drawn], [0.025, 0.975])
        found.append(Interval(value, float(low), float(high)))
    return found[0], found[1]


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    told: dict[Any, tuple[int, float, float]] = {}
    for (_, metric), own in frame.groupby(["series", "metric"], sort=False):
        values = [float(value) for value in own["value"]]
        flagged: list[bool] = []
        for place, (index, value) in enumerate(zip(own.index, values, strict=True)):
            headline = HEADLINES.get(str(metric))
            centre, limit = math.nan, math.nan
            if headline:
                centre, limit = judge(value, values[:place], headline, flagged)
            flagged.append(value > limit)
            told[index] = (min(place, WINDOW), centre, limit)
    columns = ["earlier", "centre", "limit"]
    more = pd.DataFrame.from_dict(told, orient="index", columns=columns).reindex(frame.index)
    whole = pd.concat([frame, more], axis=1)
    whole["judged"] = whole["limit"].notna()
    whole["regressed"] = whole["judged"] & (whole["value"] > whole["limit"])
    return whole[list(COLUMNS)]


@lru_cache(maxsize=32)
def _factor(earlier: int) -> float:
    """Return how many median absolute deviations a healthy next run exceeds by chance only.

    Drawn from normal numbers with the same seed every time: the (1 - _CHANCE) quantile of the
    distance of one more run from the median of so many, over their median absolute deviation.
    """
    draw: Any = np.random.default_rng(SEED)
    known = draw.standard_normal((_DRAWS, earlier))
    centre = np.median(known, axis=1)
    spread = np.median(np.abs(known - centre[:, None]), axis=1)
    return float(np.quantile((draw.standard_normal(_DRAWS) - centre) / spread, 1 - _CHANCE))
