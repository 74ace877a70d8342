"""Charts: functions that draw on an `ax` that they are given, and the figure that they draw in."""

from __future__ import annotations

from kitlib.charts.compared import (
    cost_chart,
    difference_matrix,
    ecdf_panel,
    readiness_bars,
)
from kitlib.charts.connectivity import LOOKS, connectivity_matrix, mtu_bars, probe_chart
from kitlib.charts.drawing import Picture, in_figures, svg, unit_of
from kitlib.charts.latency import (
    ALL_NAMED,
    LABELLED,
    latency_bands,
    latency_bar,
    latency_ecdf,
    latency_heatmap,
    latency_scale,
    seriated,
)
from kitlib.charts.over_nodes import wait_distribution
from kitlib.charts.past import over_runs, over_runs_key
from kitlib.charts.run import readiness_waterfall, stage_timeline

__all__ = [
    "ALL_NAMED",
    "LABELLED",
    "LOOKS",
    "Picture",
    "connectivity_matrix",
    "cost_chart",
    "difference_matrix",
    "ecdf_panel",
    "in_figures",
    "latency_bands",
    "latency_bar",
    "latency_ecdf",
    "latency_heatmap",
    "latency_scale",
    "mtu_bars",
    "over_runs",
    "over_runs_key",
    "probe_chart",
    "readiness_bars",
    "readiness_waterfall",
    "seriated",
    "stage_timeline",
    "svg",
    "unit_of",
    "wait_distribution",
]
