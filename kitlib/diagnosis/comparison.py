"""Plugins beside each other, over any set of runs: latency, what it costs, time to Ready.

Pure: runs in, tables out. A run counts when it passed, whoever began it; those of `kit compare`
know their round, others are counted in the order in which each plugin's were made. What a run
measured pod to pod is always set against what the same hosts measured a second later without the
plugin, so that a machine that was slow just then is no plugin's fault.

Runs in a lab and runs on real hosts are never set beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kitlib.diagnosis import readiness
from kitlib.diagnosis.intervals import (
    SEED,
    Clusters,
    Contrast,
    Interval,
    clustered,
    contrasts,
    pooled_quantile,
    weighted_mean,
)
from kitlib.errors import PreconditionError
from kitlib.model import Verdict
from kitlib.plugins import Plugin
from kitlib.runs import Provenance, Run
from kitlib.samples import SAMPLE_COLUMNS, read_samples

__all__ = [
    "CELL_COLUMNS",
    "DIFFERENCE_COLUMNS",
    "LATENCY_COLUMNS",
    "RUN_COLUMNS",
    "Compared",
    "cells",
    "differences",
    "gather",
    "latency",
]

RUN_COLUMNS = (
    "subject", "plugin", "kubernetes_version", "block", "run_id", "path", "cluster", "verdict",
    "reason", "counts", "stands_in",
)  # fmt: skip
"""`Compared.runs`: one row a run. subject is what is compared: the plugin's name, with the version
behind it where one plugin was built on several; block is the round (with the comparison's or the
cluster's name, where there are several); counts is whether the run passed and was measured;
stands_in is what stands in for what in a lab's datapath."""

CELL_COLUMNS = ("subject", "block", "src", "dst", "pod_p50_ms", "host_p50_ms")
"""`cells`: one row for each ordered pair in each build, the medians of both paths."""

LATENCY_COLUMNS = (
    "subject", "rounds", "pairs", "n", "lost", "loss_pct", "host_p50_ms",
    "p50_ms", "p50_low_ms", "p50_high_ms", "p99_ms", "p99_low_ms", "p99_high_ms",
    "cost_ms", "cost_low_ms", "cost_high_ms", "ratio", "ratio_low", "ratio_high",
)  # fmt: skip
"""`latency`: one row a subject, the cheapest first. Percentiles are of all packets that came back
between pods, all pairs and rounds together; host_p50_ms is that of the hosts; cost_ms is the mean
over pairs and rounds of the pods' median less the hosts' median of the same pair in the same round;
ratio is the geometric mean of the one over the other. All bounds: 95 % confidence, `clustered`."""

DIFFERENCE_COLUMNS = ("first", "second", "percent", "low", "high", "judged", "differs")
"""`differences`: one row for each two subjects: by how many percent a packet between the first
one's pods takes longer than between the second one's, on equally fast hosts; the bounds hold for
all rows at once with 95 % confidence."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a set of runs holds, side by side.

    Attributes:
        provenance: Where the numbers come from, of the first run that says it.
        time_factors: Those of a lab's runs; more than one is said in the captions.
        runs: RUN_COLUMNS.
        samples: `read_samples` of the runs that count, warm-up left out, with `subject` and
            `block`.
        moments: `readiness.node_phases` of the runs that count, with `subject` and `block`.
        plugins: The plugins as the runs knew them, users' own ones too.
    """

    provenance: Provenance
    time_factors: tuple[float, ...]
    runs: pd.DataFrame
    samples: pd.DataFrame
    moments: pd.DataFrame
    plugins: Mapping[str, Plugin]

    @property
    def subjects(self) -> list[str]:
        """What is compared, by name."""
        return sorted(dict.fromkeys(self.runs["subject"]))


def gather(runs: Sequence[Run]) -> Compared:
    """Return what the runs hold, side by side.

    Raises:
        PreconditionError: There is none, or some are a lab's and some are not.
    """
    if not runs:
        raise PreconditionError("no runs to compare", remedy="name run directories, or comparisons")
    known = [run for run in runs if run.provenance.kind]
    kinds = {run.provenance.kind for run in known}
    if len(kinds) > 1:
        one_of = {kind: next(r for r in known if r.provenance.kind == kind) for kind in kinds}
        raise PreconditionError(
            f"runs in a lab and runs on real hosts are not compared: {one_of['lab'].path} is a "
            f"lab's, {one_of['hosts'].path} is not",
            remedy="compare them apart: what they measured has nothing in common",
        )
    told = _runs(runs)
    samples, moments = [], []
    for run, row in zip(runs, told.to_dict("records"), strict=True):
        if not row["counts"]:
            continue
        own = {"subject": row["subject"], "block": row["block"]}
        measured = read_samples(run)
        samples.append(measured[~measured["warmup"]].assign(**own))
        moments.append(readiness.node_phases(run).assign(**own))
    factors = {run.provenance.time_factor for run in known if run.provenance.time_factor}
    blank = pd.DataFrame(columns=[*SAMPLE_COLUMNS, "subject", "block"])
    none = pd.DataFrame(columns=[*readiness.COLUMNS, "subject", "block"])
    return Compared(
        provenance=known[0].provenance if known else Provenance(),
        time_factors=tuple(sorted(factor for factor in factors if factor)),
        runs=told,
        samples=pd.concat(samples, ignore_index=True) if samples else blank,
        moments=pd.concat(moments, ignore_index=True) if moments else none,
        plugins={run.plugin: plugin for run in runs if (plugin := run.wanted_plugin)},
    )


def cells(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the medians of each ordered pair in each build; columns: CELL_COLUMNS."""
    answered = samples[~samples["lost"].astype(bool) & ~samples["duplicate"].astype(bool)]
    keys = ["subject", "block", "src", "dst", "path"]
    if answered.empty:
        return pd.DataFrame(columns=list(CELL_COLUMNS))
    medians = answered.groupby(keys, observed=True, sort=True)["rtt_ms"].median().unstack("path")
    for path in ("pod", "host"):
        if path not in medians:
            medians[path] = np.nan
    named = medians.rename(columns={"pod": "pod_p50_ms", "host": "host_p50_ms"}).reset_index()
    return named[list(CELL_COLUMNS)].astype({"src": "str", "dst": "str"})


def latency(compared: Compared, *, seed: int = SEED) -> pd.DataFrame:
    """Return each subject's latency with its intervals; columns: LATENCY_COLUMNS.

    Args:
        compared: What was gathered.
        seed: What the resamples are drawn with.
    """
    medians = cells(compared.samples)
    rows = [
        _latency_of(str(subject), own, medians[medians["subject"] == subject], seed)
        for subject, own in compared.samples.groupby("subject", sort=True)
    ]
    found = pd.DataFrame(rows, columns=list(LATENCY_COLUMNS))
    return found.sort_values(["cost_ms", "subject"], ignore_index=True)


def differences(compared: Compared) -> pd.DataFrame:
    """Return how each two subjects differ; columns: DIFFERENCE_COLUMNS.

    What is compared is a build's mean, over its pairs, of log(pods' median / hosts' median): a
    machine that is twice as slow for a minute slows both, and leaves their ratio.
    """
    medians = cells(compared.samples)
    logs = np.log(medians["pod_p50_ms"].to_numpy(float) / medians["host_p50_ms"].to_numpy(float))
    keys = ["subject", "block"]
    builds = medians.assign(log=logs).groupby(keys, sort=True)["log"].mean().reset_index()
    values: dict[tuple[str, Hashable], float] = {
        (str(subject), str(block)): float(value)
        for subject, block, value in builds.itertuples(index=False)
    }
    rows = [_difference(each) for each in contrasts(values)]
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def _runs(runs: Sequence[Run]) -> pd.DataFrame:
    versions: dict[str, set[str]] = {}
    for run in runs:
        versions.setdefault(run.plugin, set()).add(str(run.meta.get("kubernetes_version") or ""))
    several = len({(run.cluster, _comparison(run).get("id")) for run in runs}) > 1
    made: dict[tuple[str, str], int] = {}
    rows: dict[int, dict[str, Any]] = {}
    for place in sorted(range(len(runs)), key=lambda number: runs[number].started or 0.0):
        run = runs[place]
        version = str(run.meta.get("kubernetes_version") or "")
        name = run.plugin or "unknown"
        subject = f"{name} {version}" if len(versions[run.plugin]) > 1 else name
        stated = _comparison(run)
        counts = run.verdict == Verdict.PASS and any((run.path / "samples/ping").glob("*.parquet"))
        number = int(stated.get("round") or 0)
        if not number:
            made[subject, run.cluster] = number = made.get((subject, run.cluster), 0) + counts
        block = f"{stated.get('id') or run.cluster}, {number}" if several else str(number)
        values = (
            subject, run.plugin, version, block, run.run_id, str(run.path), run.cluster,
            run.verdict, run.reason, counts, run.meta.get("provenance", {}).get("stands_in", ""),
        )  # fmt: skip
        rows[place] = dict(zip(RUN_COLUMNS, values, strict=True))
    ordered = pd.DataFrame([rows[place] for place in range(len(runs))], columns=list(RUN_COLUMNS))
    # Of a build that was made again in its round, the last one counts.
    counted = ordered[ordered["counts"]]
    again = counted.duplicated(["subject", "block"], keep="last")
    ordered.loc[again[again].index, "counts"] = False
    return ordered


def _comparison(run: Run) -> dict[str, Any]:
    return dict(run.meta.get("comparison") or {})


def _latency_of(
    subject: str, samples: pd.DataFrame, medians: pd.DataFrame, seed: int
) -> dict[str, Any]:
    sent = samples[(samples["path"] == "pod") & ~samples["duplicate"].astype(bool)]
    came = sent[~sent["lost"].astype(bool)]
    hosts = samples[(samples["path"] == "host") & ~samples["lost"].astype(bool)]
    keys = ["block", "src", "dst"]
    drawn = Clusters(list(medians["block"]), seed=seed)
    place = {key: at for at, key in enumerate(zip(*(medians[k] for k in keys), strict=True))}
    cell_of = np.array(
        [place[key] for key in zip(*(came[k].astype(str) for k in keys), strict=True)],
        dtype=np.int64,
    )
    values = came["rtt_ms"].to_numpy(float)
    pods, baseline = (medians[f"{path}_p50_ms"].to_numpy(float) for path in ("pod", "host"))
    p50, p99 = (
        clustered(drawn, pooled_quantile(values, cell_of, q), positive=True) for q in (0.5, 0.99)
    )
    cost = clustered(drawn, weighted_mean(pods - baseline))
    log = clustered(drawn, weighted_mean(np.log(pods / baseline)))
    ratio = Interval(*(math.exp(bound) for bound in (log.value, log.low, log.high)))
    lost = int(sent["lost"].sum())
    return {
        "subject": subject,
        "rounds": drawn.rounds,
        "pairs": len(medians.drop_duplicates(["src", "dst"])),
        "n": len(sent),
        "lost": lost,
        "loss_pct": 100.0 * lost / len(sent) if len(sent) else math.nan,
        "host_p50_ms": float(hosts["rtt_ms"].median()),
        **_bounds("p50", p50, "_ms"),
        **_bounds("p99", p99, "_ms"),
        **_bounds("cost", cost, "_ms"),
        **_bounds("ratio", ratio, ""),
    }


def _bounds(name: str, found: Interval, unit: str) -> dict[str, float]:
    return {
        f"{name}{unit}": found.value,
        f"{name}_low{unit}": found.low,
        f"{name}_high{unit}": found.high,
    }


def _difference(found: Contrast) -> dict[str, Any]:
    percent = [100 * math.expm1(each) for each in (found.difference, found.low, found.high)]
    values = (found.first, found.second, *percent, found.judged, found.differs)
    return dict(zip(DIFFERENCE_COLUMNS, values, strict=True))
