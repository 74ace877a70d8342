"""A page: figures and tables in one file that needs no network, written whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kitlib import charts
from kitlib.charts import Picture

__all__ = ["NOTHING", "Drawn", "Listed", "drawn", "number", "table_of", "utc", "write_page"]

NOTHING = "-"
"""What stands in a table for a value that there is not."""


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A table of a page."""

    columns: Sequence[_Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of a page; it is shown no wider than `rem` of the page's units."""

    svg: Markup
    alt: str
    rem: int


def write_page(template: str, target: Path, content: Mapping[str, Any]) -> Path:
    """Return the path of a page, written whole or not at all.

    Args:
        template: The template beside this module.
        target: The file.
        content: What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(content)
    part = target.with_name(f".{target.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(target)
    return target


def drawn(picture: Picture, name: str) -> Drawn:
    """Return a figure for a page; its name makes its ids differ from those of others there."""
    drawing = Markup(charts.svg(picture, name))  # noqa: S704 - our own SVG
    return Drawn(drawing, picture.alt, math.ceil(7.5 * picture.get_figwidth()))


def table_of(titles: Iterable[str], rows: Sequence[Sequence[str]]) -> Listed:
    """Return a table; a title that begins with `#` heads a column of numbers."""
    return Listed(
        [_Column(title.removeprefix("#"), title.startswith("#")) for title in titles], rows
    )


def number(value: Any, digits: int, factor: float = 1.0) -> str:
    """Return a value times a factor with so many digits; a dash for none."""
    return NOTHING if value is None or value != value else f"{value * factor:.{digits}f}"


def utc(t: object) -> str:
    """Return a Unix time as a person reads it; empty for none."""
    if not isinstance(t, int | float):
        return ""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
