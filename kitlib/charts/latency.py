"""Charts of one run's latency, legible from 2 to 200 nodes.

Few nodes are all named and each pair bears its number. Of many, nodes with alike rows stand beside
each other, so that zones are blocks and a sick node is a line; axes are thinned, what stands out
is said in words, and marks are one raster, so that 40,000 pairs are no 40,000 paths.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kitlib.charts.drawing import CIVIDIS, INK, in_figures, plain, plain_log, unit_of

__all__ = [
    "ALL_NAMED",
    "LABELLED",
    "latency_bands",
    "latency_bar",
    "latency_ecdf",
    "latency_heatmap",
    "latency_scale",
    "seriated",
]

LABELLED = 16
"""Up to so many nodes a heat map's cells carry their numbers, in the order of the parameters."""
ALL_NAMED = 30
"""Up to so many nodes are all named on an axis; of more, about so many."""
_SLOWEST = 8
"""So many of the slowest nodes are named in a chart of more than are all named."""
_BANDS = ("p5", "p25", "p50", "p75", "p95")
_LIGHT = 0.47
"""From this part of the colour scale on dark words are easier to read than white ones."""
POD, HOST = "#00336f", "#7d7d7d"


def seriated(summary: pd.DataFrame, nodes: Sequence[str], column: str = "p50_ms") -> list[str]:
    """Return the nodes with alike rows and columns beside each other; the same for the same table.

    The first is the node with the fastest pairs; each next one is, of those left, the one whose
    latencies to all others differ least from the one before, so what resembles none comes last.

    Args:
        summary: `frames.latency_summary`; the pod path counts.
        nodes: All nodes.
        column: Which latency.
    """
    pods = summary[summary["path"] == "pod"]
    place = {name: index for index, name in enumerate(nodes)}
    own = pods[pods["src"].isin(place) & pods["dst"].isin(place) & (pods[column] > 0)]
    if own.empty:
        return list(nodes)
    logs = np.full((len(nodes), len(nodes)), np.nan)
    logs[own["src"].map(place), own["dst"].map(place)] = np.log(own[column])
    both = np.hstack([logs, logs.T])
    known = ~np.isnan(both)
    filled = np.where(known, both, 0.0)
    far = float(np.nanmax(logs) - np.nanmin(logs)) + 1.0
    typical = np.where(
        known.any(axis=1), filled.sum(axis=1) / np.maximum(known.sum(axis=1), 1), np.inf
    )
    order = [int(np.argmin(typical))]
    left = np.ones(len(nodes), dtype=bool)
    left[order[0]] = False
    while left.any():
        now = order[-1]
        shared = known & known[now]
        count = shared.sum(axis=1)
        apart = np.abs(np.where(shared, filled - filled[now], 0.0)).sum(axis=1)
        mean = np.where(count > 0, apart / np.maximum(count, 1), far)
        order.append(int(np.argmin(np.where(left, mean, np.inf))))
        left[order[-1]] = False
    return [nodes[index] for index in order]


def latency_scale(summary: pd.DataFrame, column: str = "p50_ms") -> Normalize:
    """Return one colour scale for all panels, so that the same colour is the same latency."""
    factor, _ = unit_of(summary[column])
    values = (summary[column].dropna() * factor).to_numpy()
    if not len(values):
        return Normalize(0, 1)
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 10:
        return LogNorm(low, high)
    return Normalize(0, high)


def latency_bar(picture: Figure, panels: Sequence[Axes], label: str) -> None:
    """Put one colour bar beside heat maps that share a scale."""
    image = panels[0].images[0]
    bar = picture.colorbar(image, ax=list(panels), shrink=0.8, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if isinstance(image.norm, LogNorm):
        plain_log(bar.ax.yaxis)


def latency_heatmap(
    ax: Axes,
    summary: pd.DataFrame,
    nodes: Sequence[str],
    *,
    path: str = "pod",
    column: str = "p50_ms",
    scale: Normalize | None = None,
    title: str = "",
    marked: Collection[str] = (),
) -> Axes:
    """Return `ax` with a square for each ordered pair: row sends, column answers.

    A pair without any reply is hatched, one that was not measured is empty, and a pair that lost
    packets says how many. Where there is no room for words, a cross is a pair without reply and a
    dot is one that lost packets.

    Args:
        ax: Where to draw; its first image is the one for a colour bar.
        summary: `frames.latency_summary`.
        nodes: The order of rows and columns.
        path: `pod` or `host`.
        column: Which latency.
        scale: The colour scale, to share it between panels.
        title: Heading of the panel.
        marked: Nodes that are named on axes that have no room for all names, in bold.
    """
    factor, unit = unit_of(summary[column])
    norm = scale or latency_scale(summary, column)
    place = {name: index for index, name in enumerate(nodes)}
    own = summary[summary["path"] == path]
    own = own[own["src"].isin(place) & own["dst"].isin(place)]
    rows, columns = own["src"].map(place).to_numpy(int), own["dst"].map(place).to_numpy(int)
    values, silent = own[column].to_numpy(float) * factor, (own["lost"] == own["n"]).to_numpy()
    grid = np.full((len(nodes), len(nodes)), math.nan)
    grid[rows, columns] = np.where(silent, math.nan, values)
    ax.imshow(grid, cmap=CIVIDIS, norm=norm, interpolation="nearest", aspect="equal")
    same = np.where(np.eye(len(nodes)) > 0, 0.92, math.nan)
    ax.imshow(same, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    few = len(nodes) <= LABELLED
    lost = own["lost"].to_numpy(int)
    if few:
        size = 10.5 if len(nodes) <= 4 else 8.5 if len(nodes) <= 8 else 7 if len(nodes) < 13 else 6
        for y, x, value, gone, none in zip(rows, columns, values, lost, silent, strict=True):
            _label(ax, int(y), int(x), float(value), int(gone), bool(none), norm, size)
    else:
        _mark(ax, rows, columns, values, lost, silent, norm)
    every = 1 if len(nodes) <= ALL_NAMED else math.ceil(len(nodes) / (ALL_NAMED - 5))
    ticks = _ticks([place[name] for name in marked if name in place], len(nodes), every)
    names = [nodes[index] for index in ticks]
    small = 9 if len(nodes) <= 12 else 7.5 if few else 6.5
    turn = len(nodes) > 4 or max((len(name) for name in nodes), default=0) > 10
    upright = len(nodes) > 12
    ax.set_xticks(ticks, names, fontsize=small)
    ax.tick_params(axis="x", labelrotation=90 if upright else 30 if turn else 0)
    if turn and not upright:
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(ticks, names, fontsize=small)
    if few:
        ax.set_xticks(np.arange(-0.5, len(nodes)), minor=True)
        ax.set_yticks(np.arange(-0.5, len(nodes)), minor=True)
        ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    thinned = "" if every == 1 else f" (one of about {every} is named, {len(nodes)} in all)"
    if every > 1 and marked:
        thinned = f"{thinned[:-1]}; bold: see above)"
        for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            label.set_fontweight("bold" if label.get_text() in marked else "normal")
    ax.set_xlabel(f"to{thinned}", fontsize=9)
    ax.set_ylabel(f"from{thinned}", fontsize=9)
    ax.set_title(title or f"{path} to {path}, {column[:3]} in {unit}", loc="left", fontsize=10.5)
    ax.set_frame_on(not few)  # the slowest node is the last: in grey its pairs are nearly white
    for spine in ax.spines.values():
        spine.set(color="#888888", linewidth=0.6)
    return ax


def _ticks(marked: Sequence[int], count: int, every: int) -> list[int]:
    """Return which of the rows are named: the marked ones, and of the others one of so many."""
    if every == 1:
        return list(range(count))
    apart = math.ceil(count / 40)  # names that are nearer would lie on each other
    found: list[int] = []
    for row in (*marked, *range(0, count, every)):
        if all(abs(row - other) >= apart for other in found):
            found.append(row)
    return sorted(found)


def _label(
    ax: Axes, y: int, x: int, value: float, lost: int, silent: bool, norm: Normalize, size: float
) -> None:
    """Write into a pair's square what it took, and what was lost."""
    # Words inside of a square need no room of their own: the layout need not measure each.
    centred: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
    if silent:
        ax.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fc="white", ec="#777777", hatch="/////", lw=0)
        )
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        ax.text(x, y, "no\nreply", fontsize=size, color=INK, bbox=box, linespacing=0.9, **centred)
        return
    ink = INK if norm(value) > _LIGHT else "white"
    up = 0.14 if lost else 0.0
    ax.text(x, y - up, in_figures(value), fontsize=size, color=ink, **centred)
    if lost:
        ax.text(x, y + 0.24, f"{lost} lost", fontsize=max(size - 2, 4.8), color=ink, **centred)


def _mark(
    ax: Axes, rows: Any, columns: Any, values: Any, lost: Any, silent: Any, norm: Normalize
) -> None:
    """Mark what lost packets with a dot, what never answered with a cross; one raster each."""
    cell = 330 / max(ax.get_xlim()[1] + 0.5, 1)  # points, on a panel of about that width
    some = (lost > 0) & ~silent
    inks = np.where(np.asarray(norm(values[some])) > _LIGHT, INK, "white")
    ax.scatter(
        columns[some], rows[some], s=max(0.4, (0.32 * cell) ** 2), c=list(inks), marker="o",
        linewidths=0, rasterized=True,
    )  # fmt: skip
    ax.scatter(
        columns[silent], rows[silent], s=max(9.0, (0.7 * cell) ** 2), c=INK, marker="x",
        linewidths=1.1, rasterized=True,
    )  # fmt: skip


def latency_ecdf(ax: Axes, distribution: pd.DataFrame) -> Axes:
    """Return `ax` with the share of packets that were back within a time, pod and host path.

    Lost packets count as never back: with loss a line ends below 100 %.

    Args:
        ax: Where to draw.
        distribution: `frames.latency_distribution`.
    """
    factor, unit = unit_of(distribution["rtt_ms"])
    looks: dict[str, dict[str, Any]] = {
        "host": {"color": HOST, "ls": "--", "lw": 1.8, "label": "host to host (baseline)"},
        "pod": {"color": POD, "ls": "-", "lw": 2.2, "label": "pod to pod"},
    }
    spread = 1.0
    for path, look in looks.items():
        own = distribution[distribution["path"] == path]
        if own.empty:
            continue
        times, shares = own["rtt_ms"].to_numpy(float) * factor, own["share_pct"].to_numpy(float)
        label = f"{look['label']}, n = {own['n'].iloc[0]:,}"
        ax.step(times, shares, where="post", **{**look, "label": label})
        spread = max(spread, float(times[-1] / max(times[0], 1e-9)))
        middle = int(np.argmax(shares > 50.0))
        if shares[middle] > 50.0:
            ax.plot([times[middle]], [50], marker="o", ms=5, color=look["color"])
            right = path == "pod"
            ax.annotate(
                f"{in_figures(times[middle])} {unit}", (times[middle], 50),
                xytext=(8 if right else -8, -3 if right else 4), textcoords="offset points",
                ha="left" if right else "right", fontsize=8.5, color=look["color"],
            )  # fmt: skip
    if spread > 20:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    ax.set_ylim(0, 102)
    ax.set_ylabel("Share of packets back, %")
    ax.set_xlabel(f"Round-trip time, {unit}" + (" (log scale)" if spread > 20 else ""))
    ax.set_title("Round-trip times of all pairs (dots: median)", loc="left", fontsize=11, color=INK)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8.5, loc="lower right")
    return plain(ax, grid="both")


def latency_bands(ax: Axes, nodes: pd.DataFrame) -> Axes:
    """Return `ax` with each node's spread between pods, the slowest on top.

    The thin line holds the middle 90 % of what came back, the thick one the middle half, the dot is
    the median. Of many nodes only the slowest are named.

    Args:
        ax: Where to draw.
        nodes: `frames.latency_nodes`; the pod path is shown, the host path where there is no other.
    """
    pods = (nodes["path"] == "pod").any()
    own = nodes[nodes["path"] == ("pod" if pods else "host")]
    own = own.dropna(subset=["p50_ms"]).sort_values(["p50_ms", "node"], ascending=[False, True])
    factor, unit = unit_of(own["p50_ms"])
    rows = np.arange(len(own))
    all_named = len(own) <= ALL_NAMED
    value = {name: own[f"{name}_ms"].to_numpy() * factor for name in _BANDS}
    if all_named:
        ax.hlines(rows, value["p5"], value["p95"], color=HOST, lw=1.2)
        ax.hlines(rows, value["p25"], value["p75"], color=POD, lw=4.0)
        ax.plot(
            value["p50"], rows, ls="", marker="o", ms=5, mfc="white", mec=POD, mew=1.3, zorder=4
        )
        ax.set_yticks(rows, list(own["node"]))
    else:
        ax.fill_betweenx(
            rows, value["p5"], value["p95"], color="#d4d4d4", lw=0, step="mid", label="p5 to p95"
        )
        ax.fill_betweenx(
            rows, value["p25"], value["p75"], color="#8fa3bd", lw=0, step="mid", label="p25 to p75"
        )
        ax.plot(value["p50"], rows, color=POD, lw=1.8, label="p50")
        # Names stand at even distances, each with a line to its row: the rows are too thin.
        step = len(own) / 26
        for number, (name, at) in enumerate(
            zip(own["node"].head(_SLOWEST), value["p50"], strict=False)
        ):
            ax.annotate(
                f"{name}  {in_figures(at)} {unit}", (at, number), xytext=(1.03, number * step),
                textcoords=ax.get_yaxis_transform(), va="center", fontsize=7.5, color=INK,
                arrowprops={"arrowstyle": "-", "color": "#9a9a9a", "lw": 0.5},
                annotation_clip=False,
            )  # fmt: skip
        ax.set_ylabel(f"Nodes by p50, slowest = 1 (of {len(own)})")
        marks = [1, *range(25, len(own) + 1, 25)]
        ax.set_yticks([mark - 1 for mark in marks], [str(mark) for mark in marks])
        ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.set_ylim(len(own) - 0.4, -0.6)
    low, high = (float(np.nanmin(value["p5"])), float(np.nanmax(value["p95"]))) if len(own) else (
        0.0, 1.0,
    )  # fmt: skip
    wide = low > 0 and high / low > 20
    if wide:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    else:
        ax.set_xlim(0, high * 1.05)
    ax.set_xlabel(f"Round-trip time, {unit}" + (" (log scale)" if wide else ""))
    key = " (dot p50, thick p25 to p75, thin p5 to p95)" if all_named else ""
    title = f"Between {'pods' if pods else 'hosts'}, by node{key}"
    ax.set_title(title, loc="left", fontsize=9 if key else 11, color=INK)
    return plain(ax, grid="x")
