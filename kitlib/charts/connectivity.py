"""Charts of what fails between nodes, what each probe takes, and where large packets end.

A cell bears the letter of its reason and a hatch: it reads in grey and without a key beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from kitlib.charts.drawing import FAINT, INK, QUIET, in_figures, plain, plain_log, unit_of

__all__ = ["LOOKS", "connectivity_matrix", "mtu_bars", "probe_chart"]

POD, HOST = "#00336f", "#7d7d7d"

LOOKS: Mapping[str, tuple[str, str, str, str]] = {
    "agent": ("A", "", "#e4e4e4", "no agent to probe with"),
    "host": ("H", "xxxx", "#6b6b6b", "the hosts themselves do not reach each other"),
    "route": ("R", "////", "#8c8c8c", "no route"),
    "tunnel": ("T", "\\\\\\\\", "#8c8c8c", "encapsulated packets vanish"),
    "forwarding": ("F", "----", "#a8a8a8", "a host does not forward"),
    "reach": ("?", "++++", "#a8a8a8", "no reply, cause not known"),
    "icmp": ("I", "....", "#e4e4e4", "ICMP dropped, TCP passes"),
    "mtu": ("M", "||||", "#c4c4c4", "large packets vanish"),
    "tcp": ("C", "oo", "#c4c4c4", "no TCP connection"),
    "http": ("W", "OO", "#d4d4d4", "no answer over HTTP"),
    "policy": ("P", "**", "#d4d4d4", "NetworkPolicy not honoured"),
    "service": ("S", "////", "#c4c4c4", "a ClusterIP does not lead to its pods"),
    "dns": ("D", "\\\\\\\\", "#c4c4c4", "names do not resolve"),
}
"""Reason -> letter, hatch, grey, what it means."""
_GOOD, _UNKNOWN = "#f4f4f4", "#ffffff"


def connectivity_matrix(
    ax: Axes, table: pd.DataFrame, names: Sequence[str], ends: Sequence[str]
) -> Axes:
    """Return `ax` with a square for each ordered pair: the row asks, the column answers.

    A failure bears its reason's letter and hatch, and how many of a group's pairs it is where it is
    not all of them; what works a dot, what was not probed nothing.

    Args:
        ax: Where to draw.
        table: `alike.grouped`.
        names: What the rows and columns are called, by number.
        ends: What every node asks besides, in columns of their own on the right.
    """
    size = len(names)
    column = {name: size + 0.4 + place for place, name in enumerate(ends)}
    small = 13 if size <= 6 else 10 if size <= 11 else 8.5
    for row in table.to_dict("records"):
        y, end = float(row["src"]), row["kind"] == "end"
        x = column[row["dst"]] if end else float(row["dst"])
        _cell(ax, x, y, row["state"], row["reason"], int(row["fails"]), int(row["of"]), small)
    for place in range(size):
        if not ((table["src"] == place) & (table["dst"] == place)).any():
            ax.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fc="#dedede", ec="white"))
    turn = size > 5 or max(map(len, names), default=0) > 9
    ticks = [*range(size), *column.values()]
    ax.set_xticks(ticks, [*names, *column], fontsize=9 if size <= 12 else 8)
    if turn:
        for label in ax.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(size), list(names), fontsize=9 if size <= 12 else 8)
    ax.set_xlim(-0.55, max(column.values(), default=size - 1) + 0.55)
    ax.set_ylim(size - 0.45, -0.55)
    ax.set_aspect("equal")
    ax.set_frame_on(False)
    ax.tick_params(length=0, colors=INK)
    ax.set_xlabel("to", fontsize=9)
    ax.set_ylabel("from", fontsize=9)
    return ax


def _cell(
    ax: Axes, x: float, y: float, state: str, reason: str, fails: int, of: int, small: float
) -> None:
    corner = (x - 0.5, y - 0.5)
    if state != "fails":
        known = state == "works"
        face = _GOOD if known else _UNKNOWN
        ax.add_patch(Rectangle(corner, 1, 1, fc=face, ec=FAINT if not known else "white", lw=1.2))
        if known:
            ax.plot([x], [y], marker="o", ms=3.2, color="#9a9a9a", ls="")
        return
    letter, hatch, face, _ = LOOKS[reason]
    ax.add_patch(Rectangle(corner, 1, 1, fc=face, ec="#5c5c5c", hatch=hatch, lw=0))
    ax.add_patch(Rectangle(corner, 1, 1, fc="none", ec="white", lw=1.2))
    part = fails < of
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.4, "boxstyle": "round,pad=0.18"}
    ax.text(
        x, y - (0.1 if part else 0), letter, ha="center", va="center", fontsize=small,
        fontweight="bold", color=INK, bbox=box,
    )  # fmt: skip
    if part:
        ax.text(
            x, y + 0.33, f"{fails} of {of}", ha="center", va="center", fontsize=max(small - 4.5, 5),
            color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def probe_chart(ax: Axes, table: pd.DataFrame, labels: Mapping[str, str]) -> Axes:
    """Return `ax` with one line a probe: p50 as a dot and p99 as a diamond, with their intervals.

    Between pods in the dark, between the hosts themselves in grey below it.

    Args:
        ax: Where to draw.
        table: `connected.probe_table`.
        labels: Probe -> its name in words, in the order of the lines.
    """
    shown = [probe for probe in labels if (table["probe"] == probe).any()]
    factor, unit = unit_of(table["p50_ms"])
    looks = {"pod": (POD, -0.14, "between pods"), "host": (HOST, 0.2, "between hosts (baseline)")}
    end, least = 0.0, math.inf
    for row in table.dropna(subset=["p50_ms"]).to_dict("records"):
        color, shift, _ = looks[row["path"]]
        y = shown.index(row["probe"]) + shift
        for name, marker, size in (("p50", "o", 6.0), ("p99", "D", 5.0)):
            middle, low, high = (
                float(row[f"{name}{part}_ms"]) * factor for part in ("", "_low", "_high")
            )
            if not math.isnan(low):
                ax.plot([low, high], [y, y], color=color, lw=2.0, solid_capstyle="butt", alpha=0.55)
            ax.plot([middle], [y], marker=marker, ms=size, color=color, ls="", zorder=4,
                    mfc=color if name == "p50" else "white", mew=1.4)  # fmt: skip
            end, least = max(end, middle, high if high == high else 0), min(least, middle)
        said = f"{in_figures(row['p50_ms'] * factor)} / {in_figures(row['p99_ms'] * factor)}"
        ax.annotate(
            said, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            color=color, annotation_clip=False,
        )  # fmt: skip
    rows = list(range(len(shown)))
    ax.set_yticks(rows, [labels[probe] for probe in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    wide = end > 20 * least > 0
    if wide:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    else:
        ax.set_xlim(0, end * 1.05 or 1)
    ax.set_xlabel(f"time, {unit}{' (log scale)' if wide else ''}")
    ax.set_title(
        f"Each probe: dot p50, diamond p99, bars 95 % confidence; right p50 / p99, {unit}",
        loc="left", fontsize=9.5, color=INK,
    )  # fmt: skip
    for _, (path, (color, _, words)) in enumerate(looks.items()):
        if (table["path"] == path).any():
            ax.plot([], [], color=color, marker="o", ls="", label=words)
    ax.legend(
        frameon=False,
        fontsize=8,
        loc="upper left",
        ncols=2,
        bbox_to_anchor=(0, -0.14 - 0.3 / max(len(shown), 1)),
    )
    return plain(ax, grid="x")


def mtu_bars(ax: Axes, table: pd.DataFrame) -> Axes:
    """Return `ax` with a bar for each line: what passes, up to a tick at what the interface claims.

    Args:
        ax: Where to draw.
        table: Columns `label`, `passes_bytes`, `interface_mtu`, `told` (whether the network said
            that packets are too big).
    """
    rows = range(len(table))
    for y, row in zip(rows, table.to_dict("records"), strict=True):
        passes, claims = float(row["passes_bytes"]), float(row["interface_mtu"])
        ax.barh(y, passes, height=0.55, color="#8fa3bd", lw=0)
        ax.barh(y, claims - passes, left=passes, height=0.55, fc="white", ec=QUIET, hatch="////",
                lw=0.6)  # fmt: skip
        ax.plot([claims, claims], [y - 0.38, y + 0.38], color=INK, lw=1.8)
        word = "told to be too big" if row["told"] else "vanishes"
        ax.annotate(
            f"{passes:.0f} of {claims:.0f}; the rest {word}", (claims, y), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    ax.set_yticks(list(rows), [str(label) for label in table["label"]])
    ax.set_ylim(len(table) - 0.4, -0.6)
    widest = float(table["interface_mtu"].max())
    ax.set_xlim(0, widest * 1.6)
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= widest * 1.05])
    ax.set_xlabel("IP packet, bytes (black line: what the pod's interface claims)")
    ax.set_title("Largest packet that passes", loc="left", fontsize=10.5, color=INK)
    return plain(ax, grid="x")
