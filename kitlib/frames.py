"""A run directory as tables: what happened, with one documented column for each fact.

pandas and pyarrow are imported when the first table is made: most notebooks act and never make one.
Times are UTC; durations are seconds unless the column's name says `_ms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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
    "src", "dst", "path", "n", "lost", "loss_pct", "duplicates",
    "min_ms", "p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms", "max_ms",
    "difference_ms", "ratio",
)  # fmt: skip
"""`latency_summary`: n counts packets sent after warm-up, lost those without a reply; percentiles
are of all replies of the pair over all rounds (linear interpolation between neighbours, so below
100 replies p99 lies between the two slowest); p50_low and p50_high bound the true median with 95 %
confidence (order statistics, no assumption about the distribution), NaN below 6 replies.
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


def latency_summary(samples: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each ordered pair and path; columns: SUMMARY_COLUMNS.

    Warm-up packets and duplicates are left out; a pair that never answered has NaN latencies.
    """
    keys = ["src", "dst", "path"]
    if samples.empty:
        return _frame([], SUMMARY_COLUMNS)
    kept = samples[~samples["warmup"]]
    grouped = kept.assign(sent=~kept["duplicate"]).groupby(keys, observed=True, sort=True)
    counts = grouped.agg(n=("sent", "sum"), lost=("lost", "sum"), duplicates=("duplicate", "sum"))
    counts["loss_pct"] = 100.0 * counts["lost"] / counts["n"]
    answered = kept[~kept["lost"] & ~kept["duplicate"]]
    joined = counts.join(_spread(answered, keys)).reset_index()
    pairs = latency_costs(samples).groupby(["src", "dst"], observed=True)
    middle = pairs[["difference_ms", "ratio"]].median().reset_index().assign(path="pod")
    joined = joined.astype(dict.fromkeys(keys, "str"))
    joined = joined.merge(middle, on=keys, how="left")
    return joined[list(SUMMARY_COLUMNS)].astype(dict.fromkeys(keys, "str"))


def latency_costs(samples: pd.DataFrame) -> pd.DataFrame:
    """Return what each pair's pod path costs over its host path, round by round.

    Columns: COST_COLUMNS. Warm-up packets and duplicates are left out.
    """
    if samples.empty:
        return _frame([], COST_COLUMNS)
    kept = samples[~samples["warmup"] & ~samples["duplicate"] & ~samples["lost"]]
    keys = ["round", "src", "dst", "path"]
    medians = kept.groupby(keys, observed=True, sort=True)["rtt_ms"].median().unstack("path")
    medians.columns = [f"{path}_p50_ms" for path in medians.columns]
    both = medians.reindex(columns=["pod_p50_ms", "host_p50_ms"]).dropna().reset_index()
    both["difference_ms"] = both["pod_p50_ms"] - both["host_p50_ms"]
    both["ratio"] = both["pod_p50_ms"] / both["host_p50_ms"]
    return both[list(COST_COLUMNS)].astype({"src": "str", "dst": "str"})


def latency_nodes(samples: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each node and path; columns: NODE_COLUMNS.

    Warm-up packets and duplicates are left out.
    """
    import pandas as pd

    if samples.empty:
        return _frame([], NODE_COLUMNS)
    kept = samples.loc[~samples["warmup"] & ~samples["duplicate"], ["src", "dst", "path", "lost"]]
    kept["rtt_ms"] = samples["rtt_ms"]
    names = sorted({*map(str, kept["src"].unique()), *map(str, kept["dst"].unique())})
    ends = [
        kept.assign(node=pd.Categorical(kept[end].astype("object"), categories=names))
        for end in ("src", "dst")
    ]
    grouped = pd.concat(ends).groupby(["node", "path"], observed=True, sort=True)
    shares = {0.05: "p5_ms", 0.25: "p25_ms", 0.5: "p50_ms", 0.75: "p75_ms", 0.95: "p95_ms"}
    shares[0.99] = "p99_ms"
    spread = grouped["rtt_ms"].quantile(pd.Index(list(shares))).unstack().rename(columns=shares)
    counts = grouped.agg(n=("lost", "size"), lost=("lost", "sum"))
    joined = counts.join(spread).reset_index()
    return joined[list(NODE_COLUMNS)].astype({"node": "str", "path": "str"})


def _spread(answered: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return each group's percentiles and median bounds, for a million rows in a second or two."""
    import numpy as np
    import pandas as pd

    ordered = answered.sort_values([*keys, "rtt_ms"], kind="stable")
    values = ordered["rtt_ms"].to_numpy()
    sizes = ordered.groupby(keys, observed=True, sort=True).size()
    counts = sizes.to_numpy()
    starts = np.cumsum(counts) - counts
    columns = {}
    for name, share in PERCENTILES.items():
        place = (counts - 1) * share
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, counts - 1)
        low, high = values[starts + below], values[starts + above]
        columns[name] = low + (high - low) * (place - below)
    ranks = np.array([_median_rank(int(size)) for size in counts], dtype=int)
    known = ranks > 0
    first = np.where(known, starts + ranks - 1, starts)
    last = np.where(known, starts + counts - ranks, starts)
    columns["p50_low_ms"] = np.where(known, values[first], np.nan)
    columns["p50_high_ms"] = np.where(known, values[last], np.nan)
    return pd.DataFrame(columns, index=sizes.index)


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
