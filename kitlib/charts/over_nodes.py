"""Readiness of many nodes at once: each phase's waits as a distribution, not a row a node."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from kitlib.charts.drawing import CIVIDIS, INK, in_seconds, plain

__all__ = ["wait_distribution"]


def wait_distribution(ax: Axes, phases: pd.DataFrame) -> Axes:
    """Return `ax` with one row for each phase: how long the nodes waited for it.

    Line: all nodes; bar: the middle half; white tick: the median; beside it the slowest node.

    Args:
        ax: Where to draw.
        phases: `readiness.node_phases`.
    """
    kept = phases[(phases["offset_s"] >= 0) & phases["waited_s"].notna()]
    labels = dict(zip(phases["phase"], phases["label"], strict=True))
    order = [phase for phase in labels if (kept["phase"] == phase).any()]
    end = max(float(kept["waited_s"].max()), 0.1) if len(kept) else 1.0
    for row, phase in enumerate(order):
        own = kept[kept["phase"] == phase]
        waits = own["waited_s"]
        low, first, middle, third, high = waits.quantile([0, 0.25, 0.5, 0.75, 1])
        ax.plot([low, high], [row, row], color=INK, lw=1, solid_capstyle="butt")
        width = max(third - first, end * 0.003)
        ax.barh(row, width, left=first, height=0.56, color=CIVIDIS(0.15), lw=0)
        ax.plot([middle, middle], [row - 0.28, row + 0.28], color="white", lw=2.2)
        ax.plot([middle, middle], [row - 0.28, row + 0.28], color=INK, lw=0.9)
        words = f"median {in_seconds(middle)}"
        if high > middle + 0.05:
            words += f", most {in_seconds(high)} ({own.sort_values('waited_s')['node'].iloc[-1]})"
        ax.annotate(
            words, (max(high, first + width), row), xytext=(7, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    ax.set_yticks(range(len(order)), [labels[phase] for phase in order])
    ax.set_ylim(len(order) - 0.5, -0.6)
    ax.set_xlim(0, end * 1.55)
    ax.set_xlabel("Seconds that a node waited")
    many = kept["node"].nunique()
    ax.set_title(
        f"What {many} nodes waited for (bar: the middle half, line: all)",
        loc="left", fontsize=11, color=INK,
    )  # fmt: skip
    return plain(ax, grid="x")
