"""Tables for notebooks: HTML in JupyterLab, aligned text elsewhere, the same words in both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from kitlib.errors import ChecksFailed
from kitlib.findings import grouped
from kitlib.model import Check, Status, failed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Rows", "Shown", "check_rows", "frame_rows", "judged"]

FOLD_FROM = 12
"""So many checks are shown whole; of more, those that pass are folded away."""

_COLOURS = {"PASS": "#1a7f37", "FAIL": "#cf222e", "WARN": "#9a6700", "SKIP": "#57606a"}


@dataclass(frozen=True, slots=True)
class Rows:
    """A small table for a notebook.

    Attributes:
        head: Column names.
        rows: Cell texts.
        caption: One line above the table.
        folded: Further rows, which JupyterLab shows on a click and text shows after the others.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    folded: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        """Return the table as aligned text."""
        rows = [self.head, *self.rows, *self.folded]
        if len(rows) == 1:
            return self.caption
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([self.caption, *lines] if self.caption else lines)

    def _repr_html_(self) -> str:
        shown = [f"<p>{escape(self.caption)}</p>"] if self.caption else []
        if self.rows:
            shown.append(_html_table(self.head, self.rows))
        if self.folded:
            table = _html_table(self.head, self.folded)
            shown.append(
                f"<details><summary>{len(self.folded)} more lines</summary>{table}</details>"
            )
        return "".join(shown)


class Shown(ABC):
    """What a notebook holds and shows by its name alone: as a small table."""

    def __repr__(self) -> str:
        """Return the table as aligned text."""
        return repr(self._rows())

    def _repr_html_(self) -> str:
        return self._rows()._repr_html_()

    @abstractmethod
    def _rows(self) -> Rows:
        """Return what it is, or is bound to."""


def judged(what: str, checks: Sequence[Check]) -> Rows:
    """Return the checks as a table when none failed.

    Raises:
        ChecksFailed: One did; all of them are named.
    """
    bad = failed(tuple(checks))
    if bad:
        lines = "\n".join(f"  {check}" for check in bad)
        raise ChecksFailed(f"{what}: {len(bad)} check(s) failed\n{lines}")
    return check_rows(checks)


def check_rows(checks: Sequence[Check]) -> Rows:
    """Return checks as a table, those that failed first."""
    head = ("", "where", "what", "got", "want", "remedy")
    # What is said of several hosts in the same words is one row.
    rows = [
        (
            check.status.value,
            ", ".join(hosts),
            check.summary,
            check.got,
            check.expected,
            check.remedy,
        )
        for check, hosts in ((each.check, each.targets) for each in grouped(checks))
    ]
    passed = [row for row in rows if row[0] == Status.PASS.value]
    others = [row for row in rows if row[0] != Status.PASS.value]
    good = sum(check.status is Status.PASS for check in checks)
    skipped = sum(check.status is Status.SKIP for check in checks)
    caption = f"{good} of {len(checks)} checks pass" if rows else "No checks at this point"
    caption += f", {skipped} do not apply here." if skipped else "."
    if len(rows) <= FOLD_FROM:
        return Rows(head, (*others, *passed), caption)
    return Rows(head, tuple(others), caption, folded=tuple(passed))


def frame_rows(frame: pd.DataFrame, *, digits: int) -> Rows:
    """Return a table of a data frame: floats with so many digits, what is missing as a dash."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "-" if value != value else f"{value:.{digits}f}"
        return str(value)

    rows = tuple(tuple(map(text, row)) for row in frame.itertuples(index=False))
    return Rows(tuple(str(name) for name in frame.columns), rows)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; columns that are empty in every row are left out."""
    kept = [at for at in range(len(head)) if any(row[at] for row in rows)]
    left = 'style="text-align:left;vertical-align:top"'
    titles = "".join(f"<th {left}>{escape(head[at])}</th>" for at in kept)
    body = "".join(
        "<tr>" + "".join(f"<td {left}>{_cell(head[at], row[at])}</td>" for at in kept) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _cell(column: str, text: str) -> str:
    shown = escape(text)
    if text in _COLOURS:
        return f'<b style="color:{_COLOURS[text]}">{shown}</b>'
    return f"<code>{shown}</code>" if column == "command" and text else shown
