"""What every chart is made of: the figure, its colours, its numbers and its axes.

Figures are made without pyplot, so nothing global is touched, no backend is chosen and nothing
piles up in a long-lived kernel; a `Picture` shows itself in JupyterLab all the same. Colours are
cividis or grey (they differ in lightness, so a grey print and a colour-blind reader see the same),
and what matters is always said in text or hatching too.
"""

from __future__ import annotations

import io
import re
import textwrap
from typing import Any

import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

__all__ = [
    "CIVIDIS",
    "FAINT",
    "INK",
    "QUIET",
    "Picture",
    "in_figures",
    "in_seconds",
    "plain",
    "plain_log",
    "svg",
    "unit_of",
]

INK, QUIET, FAINT = "#1a1a1a", "#5c5c5c", "#d9d9d9"
CIVIDIS = colormaps["cividis"]
_SCREEN = 100
"""Dots per inch at which a figure has its natural size in a notebook."""


class Picture(Figure):
    """A figure that carries where its numbers come from, and shows itself in a notebook.

    Args:
        width: Inches.
        height: Inches.
        caption: Where the numbers come from; it stands below.
        alt: What the figure shows, in words.
        square: Whether its axes keep their shape, so that they cannot fill all the room.
    """

    def __init__(
        self, width: float, height: float, *, caption: str, alt: str, square: bool = False
    ) -> None:
        super().__init__(
            figsize=(width, height),
            dpi=_SCREEN,
            layout="compressed" if square else "constrained",
            facecolor="white",
        )
        FigureCanvasAgg(self)
        self.alt = alt
        self.caption = caption
        lines = textwrap.fill(caption, int(width * 16))
        self.supxlabel(lines, fontsize=7.5, color=QUIET, x=0.01, ha="left")

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save the figure: laid out here, and then drawn once.

        By itself matplotlib draws a whole figure twice where a layout is wanted, the first time for
        nothing but the places of its axes.
        """
        engine = self.get_layout_engine()
        if engine is not None:
            engine.execute(self)
        self.set_layout_engine(None)
        try:
            super().savefig(*args, **kwargs)
        finally:
            self.set_layout_engine(engine)

    def png(self, dpi: int = 160) -> bytes:
        """Return the figure as PNG."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def __repr__(self) -> str:
        """Return what the figure shows, in words."""
        return self.alt

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the figure at twice the density of the screen, and its size on the page."""
        return self.png(2 * _SCREEN), {"width": int(self.get_figwidth() * _SCREEN)}


def svg(picture: Picture, name: str) -> str:
    """Return the figure as an inline SVG element, the same bytes for the same figure.

    Args:
        picture: The figure.
        name: A word that makes the element's ids differ from those of other figures on a page.
    """
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids are unique within one figure only; a page holds several.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    opening, rest = text.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", opening) + ">" + rest


def unit_of(values_ms: pd.Series[float]) -> tuple[float, str]:
    """Return the factor from milliseconds and the unit in which these values read well."""
    known = values_ms.dropna()
    return (1000.0, "µs") if len(known) and float(known.median()) < 1 else (1.0, "ms")


def plain(ax: Axes, *, grid: str) -> Axes:
    """Return `ax` without frame, with a faint grid along `grid` (x, y or both)."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#888888")
    ax.set_axisbelow(True)
    ax.grid(axis=grid, color=FAINT, lw=0.6)  # type: ignore[arg-type]
    ax.tick_params(colors=INK, labelsize=8.5)
    ax.xaxis.label.set_fontsize(9)
    ax.yaxis.label.set_fontsize(9)
    return ax


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def in_figures(value: float) -> str:
    """Return a number with three figures or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def in_seconds(value: float) -> str:
    """Return a time with its unit."""
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s"
