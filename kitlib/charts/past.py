"""One number of a cluster over its runs: what is usual, what was too much, and what changed."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kitlib.charts.drawing import INK, QUIET, in_figures, plain

__all__ = ["over_runs", "over_runs_key"]

USUAL, TOO_MUCH = "#d5dde3", "#b3361e"


def over_runs(
    ax: Axes, values: pd.DataFrame, runs: pd.DataFrame, *, names: bool = True, notes: bool = True
) -> Axes:
    """Return `ax` with a dot for each run, oldest at the left, one run beside the other.

    Args:
        ax: Where to draw.
        values: `history.gather(...).values` of one series and one metric.
        runs: `history.gather(...).runs` of that series: they are the places on the x axis.
        names: Whether the runs' dates are written below.
        notes: Whether what changed is written beside its line.
    """
    place = {run: at for at, run in enumerate(runs["run_id"])}
    at = [place[run] for run in values["run_id"]]
    factor, unit = 1.0, str(values["unit"].iloc[0])
    if unit == "ms" and values["value"].median() < 1:
        factor, unit = 1000.0, "µs"
    numbers = (values["value"] * factor).tolist()
    limits = (values["limit"] * factor).tolist()
    for x, limit, centre in zip(at, limits, values["centre"] * factor, strict=True):
        if not math.isnan(limit):
            ax.bar(x, limit, width=1.0, color=USUAL, lw=0, zorder=0)
            ax.plot([x - 0.5, x + 0.5], [centre, centre], color=QUIET, lw=0.9, ls=":", zorder=1)
    ax.plot(at, numbers, color=INK, lw=0.8, alpha=0.6, zorder=2)
    known = values["low"].notna().to_numpy()
    low, high = (values["low"] * factor).to_numpy(), (values["high"] * factor).to_numpy()
    for x, below, above, there in zip(at, low, high, known, strict=True):
        if there:
            ax.plot([x, x], [below, above], color=INK, lw=1.3, zorder=3)
    worse = values["regressed"].to_numpy(bool)
    before = -9
    for x, number, bad in zip(at, numbers, worse, strict=True):
        if bad:
            ax.plot([x], [number], marker="X", ms=9, color=TOO_MUCH, mec="white", zorder=5)
            first = before < x - 2
            before = x
            if not first:
                continue  # its label would lie on its neighbour's
            ax.annotate(
                f"{in_figures(number)} {unit}", (x, number), xytext=(0, 8),
                textcoords="offset points", ha="center", fontsize=8, color=TOO_MUCH,
            )  # fmt: skip
        else:
            ax.plot([x], [number], marker="o", ms=4.5, color=INK, zorder=4)
    tops = [*numbers, *(each for each in high if each == each), *(v for v in limits if v == v)]
    room = 1.4 if notes and any(runs["changed"]) else 1.25
    top = max(tops, default=1.0) * room
    ax.set_ylim(0, top)
    ax.set_xlim(-0.6, len(runs) - 0.4)
    for x, changed in enumerate(runs["changed"]):
        if changed:
            ax.axvline(x - 0.5, color=QUIET, lw=1, ls="--", zorder=1)
            if not notes:
                continue
            late = x > len(runs) * 0.7
            ax.annotate(
                str(changed), (x - 0.5, top), xytext=(-4 if late else 4, -2),
                textcoords="offset points", ha="right" if late else "left", va="top",
                fontsize=7.5, color=QUIET,
            )  # fmt: skip
    every = max(1, math.ceil(len(runs) / 12))
    ticks = list(range(0, len(runs), every))
    dates = [runs["t"].iloc[x].strftime("%m-%d\n%H:%M") for x in ticks] if names else []
    ax.set_xticks(ticks, dates if names else [""] * len(ticks))
    ax.set_ylabel(unit)
    ax.set_title(str(values["label"].iloc[0]), loc="left", fontsize=10.5, color=INK)
    return plain(ax, grid="y")


def over_runs_key(ax: Axes, values: pd.DataFrame) -> None:
    """Put the meaning of the marks beside the first chart; only of those that are there."""
    keys: list[Line2D | Patch] = [Line2D([], [], marker="o", color=INK, lw=0.8, label="a run")]
    if values["low"].notna().any():
        keys.append(Line2D([], [], color=INK, lw=1.3, label="95 % confidence"))
    if values["judged"].any():
        keys.append(Patch(color=USUAL, label="usual, by the runs before"))
        keys.append(Line2D([], [], color=QUIET, lw=0.9, ls=":", label="their median"))
    if values["regressed"].any():
        keys.append(Line2D([], [], marker="X", color=TOO_MUCH, lw=0, label="worse than usual"))
    ax.legend(
        handles=keys, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0),
    )  # fmt: skip
