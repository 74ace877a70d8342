"""All pairs of a run together: percentiles and what the plugin costs, with 95 % intervals.

Percentiles are of all packets together, never averages of the pairs' percentiles. What is drawn in
the intervals' bootstrap is a sender in a round with all its packets: they share that node's load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from kitlib.diagnosis.intervals import SEED, Clusters, Interval, clustered, clustered_quantiles

__all__ = ["POOLED_COLUMNS", "pooled"]

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

POOLED_COLUMNS = (
    "path", "pairs", "rounds", "n", "lost", "loss_pct",
    "p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p90_low_ms", "p90_high_ms",
    "p99_ms", "p99_low_ms", "p99_high_ms",
    "difference_ms", "difference_low_ms", "difference_high_ms", "ratio", "ratio_low", "ratio_high",
)  # fmt: skip
"""`pooled`: one row a path (`pod`, `host`). n counts packets sent after warm-up; percentiles are of
all replies of all pairs and rounds (the smallest value that so many do not exceed). difference_ms
is the mean over pairs and rounds of the pods' p50 less the hosts' p50 of the same pair in the same
round, ratio the geometric mean of the one over the other; NaN for the host path and without a
baseline. low and high bound each with 95 % confidence, NaN where a single node sent in a single
round."""


def pooled(samples: pd.DataFrame, costs: pd.DataFrame, *, seed: int = SEED) -> pd.DataFrame:
    """Return each path's numbers; columns: POOLED_COLUMNS.

    Args:
        samples: `samples.read_samples`.
        costs: `frames.latency_costs`.
        seed: What the resamples are drawn with.
    """
    columns = ["round", "src", "dst", "path", "rtt_ms", "lost"]
    kept = samples[columns]
    if len(samples):
        kept = samples.loc[~samples["warmup"] & ~samples["duplicate"], columns]
    rows = []
    for path in ("pod", "host"):
        own = kept[kept["path"] == path]
        if len(own):
            rows.append(_row(path, own, costs if path == "pod" else costs.iloc[:0], seed))
    return pd.DataFrame(rows, columns=list(POOLED_COLUMNS))


def _row(path: str, own: pd.DataFrame, costs: pd.DataFrame, seed: int) -> dict[str, Any]:
    sent, lost = len(own), int(own["lost"].sum())
    clusters, cells = _clusters(own, seed)
    back = own["rtt_ms"].notna().to_numpy()
    values = own["rtt_ms"].to_numpy(float)[back]
    found = clustered_quantiles(clusters, values, cells[back], list(SHARES.values()))
    row: dict[str, Any] = {
        "path": path,
        "pairs": own.groupby(["src", "dst"], observed=True, sort=False).ngroups,
        "rounds": own["round"].nunique(),
        "n": sent,
        "lost": lost,
        "loss_pct": 100.0 * lost / sent,
    }
    for name, interval in zip(SHARES, found, strict=True):
        row |= _bounds(name, "_ms", interval)
    both = costs.dropna(subset=["difference_ms", "ratio"])
    drawn, cells = _clusters(both, seed)
    logs = np.log(both["ratio"].to_numpy(float))
    row |= _bounds("difference", "_ms", _mean(drawn, both["difference_ms"].to_numpy(float), cells))
    mean = _mean(drawn, logs, cells)
    row |= _bounds("ratio", "", Interval(*map(math.exp, (mean.value, mean.low, mean.high))))
    return row


def _clusters(rows: pd.DataFrame, seed: int) -> tuple[Clusters, Any]:
    """Return what is drawn, and each row's cell: a sender in a round."""
    sender, senders = pd.factorize(rows["src"])
    number, _ = pd.factorize(rows["round"])
    cells, names = pd.factorize(number * (len(senders) + 1) + sender)
    return Clusters(range(len(names)), seed=seed), cells


def _mean(clusters: Clusters, values: Any, cells: Any) -> Interval:
    """Return the mean of all values, each drawn with its cell."""
    if not len(values):
        return Interval(math.nan)
    size = len(clusters.once)
    sums = np.bincount(cells, weights=values, minlength=size)
    counts = np.bincount(cells, minlength=size).astype(float)
    statistic: Callable[[Any], float] = lambda drawn: float(drawn @ sums / (drawn @ counts))  # noqa: E731
    return clustered(clusters, statistic)


def _bounds(name: str, unit: str, interval: Interval) -> dict[str, float]:
    return {
        f"{name}{unit}": interval.value,
        f"{name}_low{unit}": interval.low,
        f"{name}_high{unit}": interval.high,
    }
