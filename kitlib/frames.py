"""A run directory as tables: what happened, with one documented column for each fact.

pandas and pyarrow are imported when the first table is made: most notebooks act and never make one.
Times are UTC; durations are seconds unless the column's name says `_ms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kitlib.cells import Cells, coded, quantile, rising
from kitlib.runs import Run, load_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "as_csv",
    "as_parquet",
    "checks",
    "commands",
    "hosts",
    "latency_costs",
    "latency_distribution",
    "latency_nodes",
    "latency_summary",
    "load_run",
    "stages",
]

STAGE_COLUMNS = ("stage", "verdict", "started", "offset_s", "seconds", "changes", "reason")
"""`stages`: offset_s counts from the run's start; a stage without an end has verdict UNFINISHED
and lasts until the journal's last line; changes is how many were made (or planned)."""

HOST_COLUMNS = ("stage", "host", "ok", "started", "offset_s", "seconds")
"""`hosts`: one row for each host's part in a stage; ok is None while it has no end."""

COMMAND_COLUMNS = ("stage", "host", "started", "seconds", "exit_status", "command", "raw")
"""`commands`: the masked command; raw is the record's path below the run directory."""

CHECK_COLUMNS = ("stage", "target", "id", "status", "summary", "got", "expected", "remedy", "t")
"""`checks`: every check in the order of the journal; the last of an id and target holds."""

SUMMARY_COLUMNS = (
    "src", "dst", "path", "n", "lost", "loss_pct", "duplicates", "reordered",
    "min_ms", "p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms", "max_ms",
    "difference_ms", "ratio",
)  # fmt: skip
"""`latency_summary`: n counts packets sent after warm-up, lost those without a reply, duplicates
further replies, reordered those that came after the reply to a later packet; percentiles are of all
replies of the pair over all rounds (linear interpolation between neighbours, so below 100 replies
p99 lies between the two slowest); p50_low and p50_high bound the true median with 95 % confidence
(order statistics, no assumption about the distribution), NaN below 6 replies.
difference_ms and ratio are what the pod path costs over the host path of the same pair in the same
round (`latency_costs`), of several rounds the middle one; NaN for host rows and without a baseline.
"""

COST_COLUMNS = ("round", "src", "dst", "pod_p50_ms", "host_p50_ms", "difference_ms", "ratio")
"""`latency_costs`: one row for each ordered pair in each round in which both paths answered."""

NODE_COLUMNS = (
    "node", "path", "n", "lost", "p5_ms", "p25_ms", "p50_ms", "p75_ms", "p95_ms", "p99_ms",
)  # fmt: skip
"""`latency_nodes`: percentiles of all replies to packets that a node sent or was sent; n and lost
count those packets, so each counts for two nodes."""

DISTRIBUTION_COLUMNS = ("path", "n", "rtt_ms", "share_pct")
"""`latency_distribution`: of a path's n packets, share_pct were back within rtt_ms; lost ones never
are. One row for each reply, of more than 2,000 for so many evenly spaced ones, and for the median.
"""

_POINTS = 2000
"""A distribution has so many points: more than a page has dots."""

PERCENTILES = {"min_ms": 0.0, "p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}


def stages(run: Run) -> pd.DataFrame:
    """Return one row for each stage that was started, in order; columns: STAGE_COLUMNS."""
    rows: list[dict[str, Any]] = []
    last = run.entries[-1].t if run.entries else 0.0
    for entry in run.entries:
        if entry.kind == "stage.started":
            rows.append(
                {
                    "stage": entry.stage,
                    "verdict": "UNFINISHED",
                    "started": entry.t,
                    "seconds": max(last - entry.t, 0.0),
                    "changes": 0,
                    "reason": "",
                }
            )
        elif not rows or rows[-1]["stage"] != entry.stage:
            continue
        elif entry.kind == "change":
            rows[-1]["changes"] += 1
        elif entry.kind == "stage.ended":
            seconds = entry.data.get("seconds")
            rows[-1] |= {
                "verdict": str(entry.data.get("verdict") or ""),
                "seconds": entry.t - rows[-1]["started"] if seconds is None else float(seconds),
                "reason": str(entry.data.get("reason") or ""),
            }
    return _timed(run, rows, STAGE_COLUMNS)


def hosts(run: Run) -> pd.DataFrame:
    """Return one row for each host's part in each stage; columns: HOST_COLUMNS."""
    rows: list[dict[str, Any]] = []
    current: dict[tuple[str, str], dict[str, Any]] = {}
    last = run.entries[-1].t if run.entries else 0.0
    for entry in run.entries:
        key = (entry.stage, entry.host)
        if entry.kind == "host.started":
            opened = {"stage": entry.stage, "host": entry.host, "ok": None, "started": entry.t}
            current[key] = opened | {"seconds": max(last - entry.t, 0.0)}
            rows.append(current[key])
        elif entry.kind == "host.ended" and key in current:
            seconds = entry.data.get("seconds")
            row = current.pop(key)
            row["ok"] = bool(entry.data.get("ok"))
            row["seconds"] = entry.t - row["started"] if seconds is None else float(seconds)
    return _timed(run, rows, HOST_COLUMNS)


def commands(run: Run) -> pd.DataFrame:
    """Return one row for each command that ended, in order; columns: COMMAND_COLUMNS."""
    rows = []
    for entry in run.entries:
        if entry.kind == "command":
            seconds = float(entry.data.get("seconds") or 0.0)
            rows.append(
                {
                    "stage": entry.stage,
                    "host": entry.host,
                    "started": entry.t - seconds,
                    "seconds": seconds,
                    "exit_status": entry.data.get("exit_status"),
                    "command": str(entry.data.get("command") or ""),
                    "raw": str(entry.data.get("raw") or ""),
                }
            )
    return _timed(run, rows, COMMAND_COLUMNS)


def checks(run: Run) -> pd.DataFrame:
    """Return one row for each check, in order; columns: CHECK_COLUMNS."""
    words = ("id", "status", "summary", "got", "expected", "remedy")
    rows = [
        {"stage": entry.stage, "target": entry.host, "t": entry.t}
        | {word: str(entry.data.get(word) or "") for word in words}
        for entry in run.entries
        if entry.kind == "check"
    ]
    frame = _frame(rows, CHECK_COLUMNS)
    frame["t"] = _times(frame["t"])
    return frame


def as_csv(frame: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8: times as ISO 8601, nothing for what is not known."""
    shown = frame.copy()
    for name in shown.columns:
        if shown[name].dtype.kind == "M":
            shown[name] = shown[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text: str = shown.to_csv(index=False, lineterminator="\n")
    return text.encode()


def as_parquet(frame: pd.DataFrame) -> bytes:
    """Return a table as a Parquet file."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def latency_summary(samples: pd.DataFrame, costs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row for each ordered pair and path; columns: SUMMARY_COLUMNS.

    Warm-up packets and duplicates are left out; a pair that never answered has NaN latencies.

    Args:
        samples: The samples.
        costs: Their `latency_costs`, where these are at hand.
    """
    import numpy as np

    keys = ["src", "dst", "path"]
    if samples.empty:
        return _frame([], SUMMARY_COLUMNS)
    cells = Cells.of(samples, keys)
    rtt, lost, again, later = _columns(samples)
    there = np.flatnonzero(cells.counts(later))
    table = cells.named(there)
    table["n"] = cells.counts(later & ~again)[there]
    table["lost"] = cells.counts(later & lost)[there]
    table["duplicates"] = cells.counts(later & again)[there]
    late = samples["reordered"].to_numpy(bool)
    table["reordered"] = cells.counts(later & late & ~again)[there]
    table["loss_pct"] = 100.0 * table["lost"] / table["n"]
    values, counts, starts = cells.ordered(rising(later & ~again & ~lost, rtt), rtt)
    counts, starts = counts[there], starts[there]
    for name, share in PERCENTILES.items():
        table[name] = quantile(values, counts, starts, share)
    ranks = np.array([_median_rank(size) for size in range(counts.max(initial=0) + 1)])[counts]
    known = ranks > 0
    table["p50_low_ms"], table["p50_high_ms"] = np.nan, np.nan
    table.loc[known, "p50_low_ms"] = values[(starts + ranks - 1)[known]]
    table.loc[known, "p50_high_ms"] = values[(starts + counts - ranks)[known]]
    costs = latency_costs(samples) if costs is None else costs
    pairs = costs.groupby(["src", "dst"], observed=True)
    middle = pairs[["difference_ms", "ratio"]].median().reset_index().assign(path="pod")
    table = table.merge(middle.astype(dict.fromkeys(keys, "str")), on=keys, how="left")
    return table[list(SUMMARY_COLUMNS)]


def latency_costs(samples: pd.DataFrame) -> pd.DataFrame:
    """Return what each pair's pod path costs over its host path, round by round.

    Columns: COST_COLUMNS. Warm-up packets and duplicates are left out.
    """
    import numpy as np

    if samples.empty:
        return _frame([], COST_COLUMNS)
    rtt, lost, again, later = _columns(samples)
    answered = rising(later & ~again & ~lost, rtt)
    cells = Cells.of(samples, ["round", "src", "dst"])
    middles, there = {}, np.ones(cells.size, dtype=bool)
    for path in ("pod", "host"):
        own = (samples["path"] == path).to_numpy(bool)
        values, counts, starts = cells.ordered(answered[own[answered]], rtt)
        middles[path] = quantile(values, counts, starts, 0.5)
        there &= counts > 0
    table = cells.named(np.flatnonzero(there))
    for path, middle in middles.items():
        table[f"{path}_p50_ms"] = middle[there]
    table["difference_ms"] = table["pod_p50_ms"] - table["host_p50_ms"]
    table["ratio"] = table["pod_p50_ms"] / table["host_p50_ms"]
    return table[list(COST_COLUMNS)]


def latency_nodes(samples: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each node and path; columns: NODE_COLUMNS.

    Warm-up packets and duplicates are left out.
    """
    import numpy as np
    import pandas as pd

    if samples.empty:
        return _frame([], NODE_COLUMNS)
    rtt, lost, again, later = _columns(samples)
    ends = [coded(samples[end]) for end in ("src", "dst")]
    nodes = pd.Index(sorted({*ends[0][1], *ends[1][1]}))
    path, paths = coded(samples["path"])
    cell = [nodes.get_indexer(names)[node] * len(paths) + path for node, names in ends]
    cells = Cells(["node", "path"], [nodes, paths], np.concatenate(cell))
    twice = np.tile(later & ~again, 2)
    there = np.flatnonzero(cells.counts(twice))
    table = cells.named(there)
    table["n"] = cells.counts(twice)[there]
    table["lost"] = cells.counts(twice & np.tile(lost, 2))[there]
    replies = rising(later & ~again & ~lost, rtt)
    both = np.column_stack([replies, replies + len(rtt)]).ravel()
    values, counts, starts = cells.ordered(both, np.tile(rtt, 2))
    for percent in (5, 25, 50, 75, 95, 99):
        name = f"p{percent}_ms"
        table[name] = quantile(values, counts[there], starts[there], percent / 100)
    return table[list(NODE_COLUMNS)]


def latency_distribution(samples: pd.DataFrame) -> pd.DataFrame:
    """Return how many packets of all pairs were back when; columns: DISTRIBUTION_COLUMNS.

    Warm-up packets and duplicates are left out.
    """
    import numpy as np
    import pandas as pd

    rtt, lost, again, later = _columns(samples)
    found = [_frame([], DISTRIBUTION_COLUMNS)]
    for path in ("pod", "host") if len(samples) else ():
        own = later & ~again & (samples["path"] == path).to_numpy(bool)
        times, sent = np.sort(rtt[own & ~lost]), int(own.sum())
        if not len(times):
            continue
        ranks = np.linspace(0, len(times) - 1, _POINTS).round().astype(int)
        ranks = np.unique(np.append(ranks, min(sent // 2, len(times) - 1)))
        shares = 100.0 * (ranks + 1) / sent
        columns = {"path": path, "n": sent, "rtt_ms": times[ranks], "share_pct": shares}
        found.append(pd.DataFrame(columns))
    return pd.concat(found[1:] or found, ignore_index=True)


def _columns(samples: pd.DataFrame) -> tuple[Any, Any, Any, Any]:
    """Return of each packet the round trip, whether it was lost, a duplicate, after warm-up."""
    rtt = samples["rtt_ms"].to_numpy(float)
    lost, again, warm = (samples[name].to_numpy(bool) for name in ("lost", "duplicate", "warmup"))
    return rtt, lost, again, ~warm


@lru_cache(maxsize=256)
def _median_rank(n: int) -> int:
    """Return the largest rank r with P(Binomial(n, 1/2) < r) <= 2.5 %; 0 when there is none."""
    if n > 1000:
        return max(int(n / 2 - 0.98 * math.sqrt(n)), 0)
    total, rank, limit = 0, 0, 2**n // 40
    while total + math.comb(n, rank) <= limit:
        total += math.comb(n, rank)
        rank += 1
    return rank


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns))


def _times(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    return pd.to_datetime(column.astype("float64"), unit="s", utc=True).dt.round("us")


def _timed(run: Run, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return the frame with `started` as UTC time and, where wanted, the offset from the start."""
    origin = run.started or 0.0
    for row in rows:
        row["offset_s"] = row["started"] - origin
    frame = _frame(rows, columns)
    frame["started"] = _times(frame["started"])
    return frame
