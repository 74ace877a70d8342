"""Charts of one run: each function draws on an `ax` that it is given and returns it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from kitlib.charts.drawing import (
    CIVIDIS,
    INK,
    QUIET,
    in_figures,
    in_seconds,
    plain,
    plain_log,
    unit_of,
)

__all__ = [
    "latency_bar",
    "latency_ecdf",
    "latency_heatmap",
    "latency_scale",
    "readiness_waterfall",
    "stage_timeline",
]

VERDICT = {"PASS": "#33658a", "PLANNED": "#9db4c0", "FAIL": "#c8553d"}
_NAMED = 6
"""Up to so many hosts keep their order in the stage chart; more are shown as a profile."""
_ANNOTATED = 12
"""Up to so many nodes a heat map's cells carry their numbers."""


def stage_timeline(ax: Axes, stages: pd.DataFrame, hosts: pd.DataFrame | None = None) -> Axes:
    """Return `ax` with one bar for each stage along the run's time.

    Args:
        ax: Where to draw.
        stages: `frames.stages`.
        hosts: `frames.hosts`; each host's part is a thin line below the stage's bar.
    """
    height = 0.46
    end = max([1e-3, *(stages["offset_s"] + stages["seconds"])])
    for row, (_, stage) in enumerate(stages.iterrows()):
        verdict, left, width = str(stage["verdict"]), stage["offset_s"], stage["seconds"]
        colour = VERDICT.get(verdict, "#8a8a8a")
        ax.barh(
            row, max(width, end * 0.002), left=left, height=height, color=colour,
            hatch="" if verdict in ("PASS", "PLANNED") else "////", edgecolor="white", linewidth=0,
        )  # fmt: skip
        words = f"{in_seconds(width)}" + ("" if verdict == "PASS" else f"  {verdict}")
        inside = width > end * 0.8
        ax.annotate(
            words,
            (left + (0 if inside else width), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color="white" if inside else INK,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1} if inside else None,
        )
        if hosts is not None:
            own = hosts[hosts["stage"] == stage["stage"]].sort_values("offset_s")
            own = own[(own["offset_s"] >= left - 0.01) & (own["offset_s"] <= left + width)]
            if len(own) > _NAMED:
                own = own.sort_values("seconds", ascending=False)
            step = min(0.09, 0.36 / max(len(own), 1))
            for index, (start, seconds, ok) in enumerate(
                zip(own["offset_s"], own["seconds"], own["ok"], strict=True)
            ):
                y = row + height / 2 + 0.05 + step * index
                good = ok is None or bool(ok)
                ax.plot(
                    [start, start + seconds], [y, y], color=QUIET if good else VERDICT["FAIL"],
                    lw=1.2 if len(own) <= _NAMED else 0.6, ls="-" if good else ":",
                    solid_capstyle="butt",
                )  # fmt: skip
    ax.set_yticks(range(len(stages)), [str(name) for name in stages["stage"]])
    ax.set_ylim(len(stages) - 0.35, -0.5)
    ax.set_xlim(0, end * 1.13)
    ax.set_xlabel("Seconds since the run started")
    thin = " (thin lines: each host's part)" if hosts is not None and len(hosts) else ""
    ax.set_title(f"How long each stage took{thin}", loc="left", fontsize=11, color=INK)
    return plain(ax, grid="x")


def readiness_waterfall(
    ax: Axes, phases: pd.DataFrame, *, origin: str = "kubeadm init was started"
) -> Axes:
    """Return `ax` with one row for each node: what it waited for, and when it was Ready.

    Args:
        ax: Where to draw.
        phases: `readiness.node_phases`.
        origin: What happened at zero, for the axis.
    """
    labels = dict(zip(phases["phase"], phases["label"], strict=True))
    order = list(labels)
    nodes = list(dict.fromkeys(phases["node"]))
    shades = {
        name: CIVIDIS(0.05 + 0.9 * i / max(len(order) - 1, 1)) for i, name in enumerate(order)
    }
    present = phases.dropna(subset=["offset_s"])
    inside = present[present["offset_s"] >= 0]
    end = max(float(inside["offset_s"].max()), 1.0) if len(inside) else 1.0
    few = len(nodes) <= 16
    used: set[str] = set()
    for row, node in enumerate(nodes):
        own = present[present["node"] == node]
        bound = own["source"].str.endswith("at the latest")
        own = own.assign(bound=bound).sort_values(["offset_s", "bound"], kind="stable")
        late = own[own["offset_s"] >= 0]
        before = len(late) < len(own)
        left = 0.0 if before else float(late["offset_s"].min()) if len(late) else 0.0
        waits = zip(late["phase"], late["offset_s"], late["waited_s"], strict=True)
        for number, (phase, at, waited) in enumerate(waits):
            width = float(at) - left
            nothing_asked = number > 0 and waited != waited  # NaN: no wait of the node's own
            if width > 0 and not nothing_asked:
                used.add(phase)
                ax.barh(
                    row, width, left=left, height=0.62, color=shades[phase],
                    edgecolor="white", linewidth=0.5 if few else 0,
                )  # fmt: skip
                if few and width > end * 0.05:
                    dark = order.index(phase) < len(order) / 2
                    ax.text(
                        left + width / 2, row, in_seconds(width), ha="center", va="center",
                        fontsize=7.5, color="white" if dark else INK,
                    )  # fmt: skip
            left = float(at)
        ready = late[late["phase"] == "ready"]["offset_s"]
        if len(ready):
            at = float(ready.iloc[0])
            ax.plot([at], [row - 0.36], marker="v", ms=6 if few else 3, color=INK, clip_on=False)
            note = f"Ready at {in_seconds(at)}" if few else ""
        else:
            came = set(own["phase"])
            note = "not Ready" if "registered" in came else "not registered"
            note = "Ready before this run" if "ready" in came else note
        if note:
            ax.annotate(
                note, (left, row), xytext=(8, 0), textcoords="offset points", va="center",
                fontsize=8 if few else 6, color=INK,
            )  # fmt: skip
    _name_rows(ax, nodes)
    ax.set_xlim(0, end * (1.2 if few else 1.08))
    ax.set_xlabel(f"Seconds since {origin}")
    keys: list[Any] = [
        Patch(color=shades[phase], label=labels[phase]) for phase in order if phase in used
    ]
    if keys:
        ax.legend(
            handles=keys, title="waiting for", fontsize=8, title_fontsize=8, frameon=False,
            loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left", handlelength=1.2,
        )  # fmt: skip
    ax.set_title("What each node waited for (triangle: Ready)", loc="left", fontsize=11, color=INK)
    return plain(ax, grid="x")


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
) -> Axes:
    """Return `ax` with a square for each ordered pair: row sends, column answers.

    A pair without any reply is hatched, one that was not measured is empty, and a pair that lost
    packets says how many, or bears a cross where there is no room.

    Args:
        ax: Where to draw; its first image is the one for a colour bar.
        summary: `frames.latency_summary`.
        nodes: The order of rows and columns.
        path: `pod` or `host`.
        column: Which latency.
        scale: The colour scale, to share it between panels.
        title: Heading of the panel.
    """
    factor, unit = unit_of(summary[column])
    norm = scale or latency_scale(summary, column)
    own = summary[summary["path"] == path]
    place = {name: index for index, name in enumerate(nodes)}
    grid = np.full((len(nodes), len(nodes)), math.nan)
    annotated = len(nodes) <= _ANNOTATED
    size = 10.5 if len(nodes) <= 4 else 8.5 if len(nodes) <= 8 else 7
    for src, dst, value, n, lost in zip(
        own["src"], own["dst"], own[column], own["n"], own["lost"], strict=True
    ):
        if src not in place or dst not in place:
            continue
        y, x = place[src], place[dst]
        if lost == n:
            ax.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, fc="white", ec="#777777", hatch="/////", lw=0)
            )
            words = "no\nreply" if annotated else ""
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            if words:
                ax.text(x, y, words, ha="center", va="center", fontsize=size, color=INK, bbox=box)
            continue
        grid[y, x] = value * factor
        if not (annotated or lost):
            continue
        ink = INK if norm(value * factor) > 0.55 else "white"
        if annotated:
            up = 0.14 if lost else 0.0
            ax.text(
                x, y - up, in_figures(value * factor), ha="center", va="center", fontsize=size,
                color=ink,
            )  # fmt: skip
            if lost:
                words = f"{lost} lost"
                ax.text(x, y + 0.24, words, ha="center", va="center", fontsize=size - 2, color=ink)
        else:
            ax.plot([x], [y], marker="x", ms=max(2.0, 90 / len(nodes)), color=ink, mew=0.9)
    ax.imshow(grid, cmap=CIVIDIS, norm=norm, interpolation="nearest", aspect="equal")
    for index in range(len(nodes)):
        ax.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fc="#ececec", ec="none"))
    every = max(1, math.ceil(len(nodes) / 25))
    ticks = list(range(0, len(nodes), every))
    names = [nodes[index] for index in ticks]
    small = 9 if len(nodes) <= _ANNOTATED else 6.5
    turn = len(nodes) > 4 or max((len(name) for name in nodes), default=0) > 10
    upright = len(nodes) > _ANNOTATED
    ax.set_xticks(ticks, names, fontsize=small)
    ax.tick_params(axis="x", labelrotation=90 if upright else 30 if turn else 0)
    if turn and not upright:
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(ticks, names, fontsize=small)
    if annotated:
        ax.set_xticks(np.arange(-0.5, len(nodes)), minor=True)
        ax.set_yticks(np.arange(-0.5, len(nodes)), minor=True)
        ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    ax.set_xlabel("to")
    ax.set_ylabel("from")
    ax.set_title(title or f"{path} to {path}, {column[:3]} in {unit}", loc="left", fontsize=10.5)
    ax.set_frame_on(False)
    return ax


def latency_ecdf(ax: Axes, samples: pd.DataFrame) -> Axes:
    """Return `ax` with the share of packets that were back within a time, pod and host path.

    Lost packets count as never back: with loss a line ends below 100 %.

    Args:
        ax: Where to draw.
        samples: `frames.samples`; warm-up and duplicates are left out.
    """
    kept = samples[~samples["warmup"] & ~samples["duplicate"]]
    factor, unit = unit_of(kept["rtt_ms"])
    looks: dict[str, dict[str, Any]] = {
        "host": {"color": "#7d7d7d", "ls": "--", "lw": 1.8, "label": "host to host (baseline)"},
        "pod": {"color": "#00336f", "ls": "-", "lw": 2.2, "label": "pod to pod"},
    }
    spread = 1.0
    for path, look in looks.items():
        own = kept[kept["path"] == path]
        times = np.sort(own["rtt_ms"].dropna().to_numpy() * factor)
        if not len(times):
            continue
        share = 100.0 * np.arange(1, len(times) + 1) / len(own)
        label = f"{look['label']}, n = {len(own)}"
        ax.step(times, share, where="post", **{**look, "label": label})
        spread = max(spread, float(times[-1] / max(times[0], 1e-9)))
        middle = len(own) // 2
        if middle < len(times):
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


def _name_rows(ax: Axes, nodes: Sequence[str]) -> None:
    every = max(1, math.ceil(len(nodes) / 60))
    ticks = list(range(0, len(nodes), every))
    ax.set_yticks(ticks, [nodes[index] for index in ticks])
    ax.set_ylim(len(nodes) - 0.4, -0.6)
