"""The report's section on connectivity: the matrix, what each probe takes, short packets."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from kitlib import charts
from kitlib.diagnosis import connected
from kitlib.report.page import NOTHING, Drawn, Listed, drawn, number, table_of
from kitlib.runs import Run

__all__ = ["connectivity"]

MOST_ROWS = 40


def connectivity(run: Run) -> Mapping[str, Any] | None:
    """Return the figures and tables; None where connectivity was not probed."""
    matrix = connected.connectivity_figure(run)
    if matrix is None:
        return None
    return {
        "words": connected.connectivity_words(run)[:1],
        "matrix": drawn(matrix, "connectivity"),
        "mtu": _drawn(connected.mtu_figure(run), "mtu"),
        "probes": _drawn(connected.probe_figure(run), "probes"),
        "table": _probes(run),
        "throughput": _throughput(run),
    }


def _drawn(figure: charts.Picture | None, name: str) -> Drawn | None:
    return drawn(figure, name) if figure is not None else None


def _probes(run: Run) -> Listed | None:
    table = connected.probe_table(run)
    if table.empty:
        return None
    factor, unit = charts.unit_of(table["p50_ms"])
    digits = 1 if factor > 1 else 3

    def bounded(row: Mapping[Hashable, Any], name: str) -> str:
        value, low, high = (
            number(row[f"{name}{part}_ms"], digits, factor) for part in ("", "_low", "_high")
        )
        return value if low == NOTHING else f"{value} ({low} to {high})"

    rows = [
        (
            connected.PROBE_NAMES[str(row["probe"])],
            str(row["path"]),
            f"{row['n']:,}",
            f"{row['loss_pct']:.2f}",
            *(bounded(row, name) for name in ("p50", "p90", "p99", "difference")),
        )
        for row in table.to_dict("records")
    ]
    values = (f"#{name}, {unit}" for name in ("p50", "p90", "p99", "Difference"))
    return table_of(("Probe", "Path", "#n", "#Failed, %", *values), rows)


def _throughput(run: Run) -> Listed | None:
    table = connected.throughput_table(run)
    if table.empty:
        return None
    rows = [
        (
            str(row["src"]),
            str(row["dst"]),
            str(row["path"]),
            number(row["bits_per_second"], 1, 1e-6),
            number(row["retransmits"], 0),
            str(row["reason"]),
        )
        for row in table.sort_values("bits_per_second").head(MOST_ROWS).to_dict("records")
    ]
    return table_of(("From", "To", "Path", "#Mbit/s", "#Sent again", "Why not"), rows)
