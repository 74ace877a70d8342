"""Charts of one run's stages and nodes: each function draws on the `ax` given and returns it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from kitlib.charts.drawing import (
    CIVIDIS,
    INK,
    QUIET,
    in_seconds,
    plain,
)

__all__ = [
    "readiness_waterfall",
    "stage_timeline",
]

VERDICT = {"PASS": "#33658a", "PLANNED": "#9db4c0", "FAIL": "#c8553d"}
_NAMED = 6
"""Up to so many hosts keep their order in the stage chart; more are shown as a profile."""


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
            y = row + height / 2 + 0.05 + step * np.arange(len(own))
            good = own["ok"].map(lambda ok: ok is None or bool(ok)).to_numpy(bool)
            begins, ends = own["offset_s"].to_numpy(), (own["offset_s"] + own["seconds"]).to_numpy()
            thick = 1.2 if len(own) <= _NAMED else 0.6
            for which, colour, dashes in (
                (good, QUIET, "solid"),
                (~good, VERDICT["FAIL"], "dotted"),
            ):
                ax.hlines(
                    y[which], begins[which], ends[which], color=colour, lw=thick, ls=dashes,
                )  # fmt: skip
    ax.set_yticks(range(len(stages)), [str(name) for name in stages["stage"]])
    ax.set_ylim(len(stages) - 0.35, -0.5)
    ax.set_xlim(0, end * 1.13)
    ax.set_xlabel("Seconds since the run started")
    thin = " (grey below: each host's part)" if hosts is not None and len(hosts) else ""
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
    # Shades for those only that somebody waited for: fewer of them differ more.
    waited_for = set(phases.loc[(phases["offset_s"] >= 0) & (phases["waited_s"] != 0), "phase"])
    order = [phase for phase in labels if phase in waited_for] or list(labels)
    nodes = list(dict.fromkeys(phases["node"]))
    shades = {
        name: CIVIDIS(0.05 + 0.9 * i / max(len(order) - 1, 1)) for i, name in enumerate(order)
    }
    present = phases.dropna(subset=["offset_s"])
    inside = present[present["offset_s"] >= 0]
    end = max(float(inside["offset_s"].max()), 1.0) if len(inside) else 1.0
    few = len(nodes) <= 16
    bars: dict[str, list[list[tuple[float, float]]]] = {}
    triangles: list[tuple[float, float]] = []
    by_node = dict(list(present.groupby("node", sort=False)))
    for row, node in enumerate(nodes):
        own = by_node.get(node, present.iloc[:0])
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
                bars.setdefault(phase, []).append(_box(left, row - 0.31, width, 0.62))
                if few and width > end * 0.06:
                    dark = order.index(phase) < len(order) / 2
                    ax.text(
                        left + width / 2, row, in_seconds(width), ha="center", va="center",
                        fontsize=7.5, color="white" if dark else INK,
                    )  # fmt: skip
            left = float(at)
        ready = late[late["phase"] == "ready"]["offset_s"]
        if len(ready):
            at = float(ready.iloc[0])
            triangles.append((at, row - 0.36))
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
    for phase, boxes in bars.items():  # one collection a phase: 200 nodes have a thousand bars
        ax.add_collection(
            PolyCollection(
                boxes, facecolor=shades[phase], edgecolor="white", linewidth=0.5 if few else 0
            )
        )
    if triangles:
        at, up = zip(*triangles, strict=True)
        ax.plot(at, up, marker="v", ms=6 if few else 3, color=INK, ls="", clip_on=False)
    _name_rows(ax, nodes)
    ax.set_xlim(0, end * (1.27 if few else 1.08))
    ax.set_xlabel(f"Seconds since {origin}")
    keys: list[Any] = [
        Patch(color=shades[phase], label=labels[phase]) for phase in order if phase in bars
    ]
    if keys:
        ax.legend(
            handles=keys, title="waiting for", fontsize=8, title_fontsize=8, frameon=False,
            loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left", handlelength=1.2,
        )  # fmt: skip
    ax.set_title("What each node waited for (triangle: Ready)", loc="left", fontsize=11, color=INK)
    return plain(ax, grid="x")


def _box(left: float, low: float, width: float, height: float) -> list[tuple[float, float]]:
    right, high = left + width, low + height
    return [(left, low), (right, low), (right, high), (left, high)]


def _name_rows(ax: Axes, nodes: Sequence[str]) -> None:
    every = max(1, math.ceil(len(nodes) / 60))
    ticks = list(range(0, len(nodes), every))
    ax.set_yticks(ticks, [nodes[index] for index in ticks])
    ax.set_ylim(len(nodes) - 0.4, -0.6)
