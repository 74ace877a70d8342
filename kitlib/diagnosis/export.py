"""Every chart of a run as files, its picture as PNG and SVG and its table as CSV and Parquet.

They go into `charts/` of the run directory, with `columns.csv`, which says what each column means.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd

from kitlib import charts, frames
from kitlib.charts import Picture
from kitlib.diagnosis import connected, summary
from kitlib.runs import Run
from kitlib.samples import write_whole

__all__ = ["COLUMNS", "EXPORTS", "export"]

EXPORTS: dict[str, tuple[Callable[[Run], Picture | None], Callable[[Run], pd.DataFrame]]] = {
    "stages": (summary.stage_figure, frames.stages),
    "readiness": (summary.readiness_figure, summary.node_phases),
    "latency": (summary.latency_figure, summary.latency_table),
    "latency_distribution": (summary.latency_distribution, summary.latency_shares),
    "latency_nodes": (lambda _: None, summary.latency_nodes),
    "latency_all": (lambda _: None, summary.latency_pooled),
    "connectivity": (connected.connectivity_figure, connected.connectivity_table),
    "probes": (connected.probe_figure, connected.probe_table),
    "mtu": (connected.mtu_figure, connected.mtu_table),
    "throughput": (lambda _: None, connected.throughput_table),
}
"""Name of the files -> the picture (none for a table alone) and the table."""

_LOW, _HIGH = "lower bound of its 95 % confidence", "upper bound of its 95 % confidence"

COLUMNS = {
    "stage": "the stage's name",
    "verdict": "PASS, FAIL, PLANNED, INTERRUPTED; UNFINISHED without an end",
    "started": "when it began, UTC",
    "offset_s": "seconds since the run's (readiness: the build's) first moment",
    "seconds": "how long it took; of a transfer, how long was measured",
    "changes": "how many changes were made or planned",
    "reason": "why: of a stage, its verdict; of pairs, what does not work or what was said",
    "kind": "pair: of two nodes; end: a node and what it asks",
    "state": "works, fails, or unknown where it was not probed",
    "probe": "what was measured; docs/records.md says how",
    "interface_mtu": "what the sending interface claims to take, bytes",
    "passes_bytes": "the largest packet that was answered, bytes",
    "fails_bytes": "the smallest that was not, bytes; 0 for none",
    "round": "number of the measuring round",
    "bits_per_second": "what the receiver got",
    "retransmits": "TCP segments that were sent again",
    "node": "the node's name",
    "role": "control_plane or worker",
    "phase": "the phase's short name",
    "label": "the phase in words",
    "t": "when it was reached, UTC; empty for never",
    "resolution_s": "how exactly that is known, seconds",
    "source": "what it was read from",
    "waited_s": "seconds since the node's phase before it",
    "src": "the node that sends",
    "dst": "the node that answers",
    "path": "pod: between pods; host: between the hosts themselves, the baseline",
    "pairs": "ordered pairs of nodes",
    "rounds": "how often they were measured",
    "n": "packets sent after warm-up",
    "lost": "of these, without a reply",
    "loss_pct": "lost in percent of n",
    "duplicates": "replies that came twice",
    "reordered": "replies that came after that to a packet sent later",
    "rtt_ms": "a round-trip time, milliseconds",
    "share_pct": "of the path's n packets, percent that were back within it",
    "min_ms": "the fastest reply, milliseconds",
    "p5_ms": "5 % of all replies took no longer, milliseconds",
    "p25_ms": "25 % of all replies took no longer, milliseconds",
    "p50_ms": "the median of all replies, milliseconds",
    "p75_ms": "75 % of all replies took no longer, milliseconds",
    "p90_ms": "90 % of all replies took no longer, milliseconds",
    "p95_ms": "95 % of all replies took no longer, milliseconds",
    "p99_ms": "99 % of all replies took no longer, milliseconds",
    "max_ms": "the slowest reply, milliseconds",
    "difference_ms": "pods' median less the hosts' of the same pair and round, milliseconds",
    "ratio": "pods' median over the hosts' of the same pair and round",
    **{f"{name}_low_ms": _LOW for name in ("p50", "p90", "p99", "difference")},
    **{f"{name}_high_ms": _HIGH for name in ("p50", "p90", "p99", "difference")},
    "ratio_low": _LOW,
    "ratio_high": _HIGH,
}
"""What each column of an exported table means."""


def export(run: Run) -> list[Path]:
    """Return the files written to `charts/`: of every chart that the run has data for.

    What an earlier export left of a chart that there is no data for any more is removed.

    Raises:
        RecordError: They cannot be written.
    """
    target = run.path / "charts"
    made: list[Path] = []
    listed: list[dict[str, str]] = []
    for name, (figure, tabled) in EXPORTS.items():
        picture, table = figure(run), tabled(run)
        files: dict[str, bytes] = {}
        if picture is not None:
            drawing = charts.svg(picture, name)
            opening, rest = drawing.split(">", 1)
            drawing = f"{opening}><title>{escape(picture.alt)}</title>{rest}"
            head = '<?xml version="1.0" encoding="utf-8"?>\n'
            files |= {"png": picture.png(), "svg": (head + drawing).encode()}
        if len(table):
            files |= {"csv": frames.as_csv(table), "parquet": frames.as_parquet(table)}
            listed += [
                {"file": name, "column": column, "meaning": COLUMNS[column]}
                for column in map(str, table.columns)
            ]
        for ending in ("png", "svg", "csv", "parquet"):
            path = target / f"{name}.{ending}"
            if ending in files:
                made.append(write_whole(path, files[ending]))
            else:
                path.unlink(missing_ok=True)
    if made:
        made.append(write_whole(target / "columns.csv", frames.as_csv(pd.DataFrame(listed))))
    return made
