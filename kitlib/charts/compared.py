"""Charts of several plugins beside each other; names stand at the data, there is no legend of them.

Up to a dozen plugins fit: one line each where there is one number, a small panel each where there
is a distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from kitlib.charts.drawing import (
    CIVIDIS,
    FAINT,
    INK,
    QUIET,
    in_figures,
    in_seconds,
    plain,
    plain_log,
)

__all__ = ["cost_chart", "difference_matrix", "ecdf_panel", "readiness_bars"]

POD, HOST = "#00336f", "#7d7d7d"
_HATCHES = ("", "////", "", "....", "", "\\\\\\\\", "", "xxxx")

Floats = NDArray[np.float64]


def cost_chart(
    ax: Axes,
    table: pd.DataFrame,
    *,
    value: str,
    factor: float,
    unit: str,
    title: str,
    baseline: str = "",
    names: bool = True,
) -> Axes:
    """Return `ax` with one line a plugin: the number as a dot, its interval as a bar.

    Args:
        ax: Where to draw.
        table: `comparison.latency`, in the order of the lines.
        value: `cost`, `p50` or `p99`.
        factor: From milliseconds to the unit.
        unit: The unit, for the axis.
        title: Heading.
        baseline: A column that is drawn as an open square beside it; empty for none.
        names: Whether the plugins' names stand on the left.
    """
    end = 0.0
    for row, (_, each) in enumerate(table.iterrows()):
        middle, low, high = (
            float(each[f"{value}{part}_ms"]) * factor for part in ("", "_low", "_high")
        )
        if baseline:
            at = float(each[baseline]) * factor
            ax.plot([at], [row], marker="s", ms=5.5, mfc="white", mec=HOST, ls="", zorder=3)
            end = max(end, at)
        if not math.isnan(low):
            ax.plot([low, high], [row, row], color=POD, lw=2.4, solid_capstyle="butt")
            for edge in (low, high):
                ax.plot([edge, edge], [row - 0.14, row + 0.14], color=POD, lw=1.2)
        ax.plot([middle], [row], marker="o", ms=6.5, color=POD, ls="", zorder=4)
        furthest = middle if math.isnan(high) else high
        end = max(end, furthest)
        ax.annotate(
            in_figures(middle), (furthest, row), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    rows = list(range(len(table)))
    ax.set_yticks(rows, [str(name) for name in table["subject"]] if names else [""] * len(rows))
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlim(min(0.0, ax.get_xlim()[0]), end * 1.14)
    ax.set_xlabel(unit)
    ax.set_title(title, loc="left", fontsize=10.5, color=INK)
    plain(ax, grid="x")
    ax.tick_params(axis="y", length=0, labelsize=9.5)
    return ax


def difference_matrix(
    ax: Axes, differences: pd.DataFrame, order: Sequence[str], *, title: str = ""
) -> Axes:
    """Return `ax` with a square for each two plugins: by how many percent the row is slower.

    Where the interval holds 0 there is an equals sign and no colour: no difference. A question mark
    is for two that were not measured together often enough.

    Args:
        ax: Where to draw.
        differences: `comparison.differences`.
        order: Rows and columns, the fastest first.
        title: Heading.
    """
    place = {name: index for index, name in enumerate(order)}
    seen: dict[tuple[int, int], tuple[float, bool, bool]] = {}
    for each in differences.to_dict("records"):
        one, other = place[each["first"]], place[each["second"]]
        percent = float(each["percent"])
        back = 100 * (100 / (100 + percent) - 1)
        seen[one, other] = (percent, each["judged"], each["differs"])
        seen[other, one] = (back, each["judged"], each["differs"])
    most = max([10.0, *(abs(value) for value, _, differs in seen.values() if differs)])
    size = 10 if len(order) <= 6 else 8
    for (row, column), (value, judged, differs) in seen.items():
        shade = CIVIDIS(0.5 + 0.5 * max(-1.0, min(1.0, value / most))) if differs else "white"
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=shade, ec="#c9c9c9", lw=0.8))
        words = f"{value:+.0f}" if differs else "=" if judged else "?"
        light = differs and value / most < -0.1
        ax.text(
            column, row, words, ha="center", va="center", fontsize=size,
            color="white" if light else INK if differs else QUIET,
        )  # fmt: skip
    for index in range(len(order)):
        ax.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fc="#ececec", ec="none"))
    ax.set_xlim(-0.5, len(order) - 0.5)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ticks = list(range(len(order)))
    ax.set_xticks(ticks, list(order), fontsize=9, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(ticks, list(order), fontsize=9)
    ax.tick_params(length=0, colors=INK)
    ax.set_aspect("equal")
    ax.set_frame_on(False)
    ax.set_ylabel("this one's packets take", fontsize=9)
    ax.set_xlabel(
        "so many percent longer than this one's  (=: no difference, ?: not judged)", fontsize=9
    )
    ax.set_title(title, loc="left", fontsize=10.5, color=INK)
    return ax


def ecdf_panel(
    ax: Axes,
    own: Floats,
    hosts: Floats,
    others: Sequence[Floats],
    *,
    sent: int,
    title: str,
    limits: tuple[float, float],
) -> Axes:
    """Return `ax` with one plugin's distribution in front of all the others.

    Args:
        ax: Where to draw.
        own: Round trips between this plugin's pods, in the unit of the axis.
        hosts: Those between the hosts in the same builds.
        others: Those of every other plugin.
        sent: Packets between the pods: a lost one is never back, and the line ends below 100 %.
        title: The plugin.
        limits: The ends of the axis, the same for every panel.
    """
    for each in others:
        _steps(ax, each, len(each), color=FAINT, lw=0.9)
    _steps(ax, hosts, len(hosts), color=HOST, lw=1.4, ls="--")
    _steps(ax, own, sent, color=POD, lw=2.0)
    ax.set_xscale("log")
    plain_log(ax.xaxis)
    ax.set_xlim(*limits)
    ax.set_ylim(0, 102)
    if len(own):
        middle = float(np.median(own))
        ax.plot([middle], [50], marker="o", ms=4.5, color=POD)
        ax.annotate(
            in_figures(middle), (middle, 50), xytext=(6, -4), textcoords="offset points",
            fontsize=8, color=POD,
        )  # fmt: skip
    ax.set_title(title, loc="left", fontsize=9.5, color=INK, pad=3)
    plain(ax, grid="both")
    ax.tick_params(labelsize=7.5)
    return ax


def readiness_bars(
    ax: Axes, ready: pd.DataFrame, ways: pd.DataFrame, *, ordered: Mapping[str, str] | Sequence[str]
) -> Axes:
    """Return `ax` with one bar a subject: the mean waits from kubeadm join to Ready, end to end.

    A mark below the bar is one worker's whole way.

    Args:
        ax: Where to draw.
        ready: `ways.mean_waits`.
        ways: `ways.ways`.
        ordered: The subjects from the top; a mapping has their names.
    """
    names = list(ordered.values()) if isinstance(ordered, Mapping) else list(ordered)
    waits = ready[ready["phase"] != "total"]
    phases: Mapping[str, str] = dict(zip(waits["phase"], waits["label"], strict=True))
    shades = {
        name: CIVIDIS(0.05 + 0.9 * at / max(len(phases) - 1, 1)) for at, name in enumerate(phases)
    }
    hatches = {name: _HATCHES[at % len(_HATCHES)] for at, name in enumerate(phases)}
    longest = float(waits.groupby("subject")["seconds"].sum().max()) if len(waits) else 1.0
    for row, subject in enumerate(ordered):
        left = 0.0
        own = waits[waits["subject"] == subject]
        for phase, width in zip(own["phase"], own["seconds"], strict=True):
            ax.barh(
                row, width, left=left, height=0.6, color=shades[phase], hatch=hatches[phase],
                edgecolor="white", linewidth=0.5,
            )  # fmt: skip
            left += float(width)
        each = ways.loc[ways["subject"] == subject, "total"]
        ax.plot(each, [row + 0.38] * len(each), marker="|", ms=5, mew=1.1, ls="", color=INK)
        words = in_seconds(left) if len(own) else "not measured"
        ax.annotate(
            words, (left, row), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=INK,
        )  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, max(longest * 1.12, float(ways["total"].max()) * 1.03 if len(ways) else 0.0))
    ax.set_xlabel(
        "Seconds since kubeadm join was started on the worker (bar: mean; marks: each worker)"
    )
    keys = [Patch(fc=shades[p], hatch=hatches[p], ec="white", label=phases[p]) for p in phases]
    if keys:
        ax.legend(
            handles=keys, title="waiting for", fontsize=8, title_fontsize=8, frameon=False,
            loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left", handlelength=1.6,
        )  # fmt: skip
    ax.set_title("What a worker waited for until it was Ready", loc="left", fontsize=11, color=INK)
    plain(ax, grid="x")
    ax.tick_params(axis="y", length=0, labelsize=9.5)
    return ax


def _steps(ax: Axes, values: Floats, whole: int, **look: object) -> None:
    if len(values):
        share = 100.0 * np.arange(1, len(values) + 1) / max(whole, len(values))
        ax.step(np.sort(values), share, where="post", **look)  # type: ignore[arg-type]
