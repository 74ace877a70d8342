"""What checks found, as a person reads it in a terminal and as a script does: the worst first.

The findings of a run are taken from its journal, so that they are whole also where the stage that
made them ended in an error.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from kitlib.model import CLUSTER, Check, Status
from kitlib.progress import read_lines

__all__ = ["Finding", "as_json", "count", "grouped", "read_checks", "show"]

_STYLES = {Status.FAIL: "bold red", Status.WARN: "yellow", Status.SKIP: "dim", Status.PASS: "green"}
_INDENT = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is true of some hosts.

    Attributes:
        check: What was found.
        targets: The hosts (or `cluster`) that it was found on, in their order.
    """

    check: Check
    targets: tuple[str, ...]


def read_checks(run_dir: Path, stage: str) -> list[Check]:
    """Return the checks that a stage made in a run, in order, from the run's journal."""
    lines, _ = read_lines(run_dir / "journal.jsonl", 0)
    return [
        Check(
            line["data"]["id"],
            line["host"],
            Status(line["data"]["status"]),
            line["data"]["summary"],
            line["data"]["got"],
            line["data"]["expected"],
            line["data"]["remedy"],
        )
        for line in lines
        if line["kind"] == "check" and line["stage"] == stage
    ]


def grouped(checks: Iterable[Check]) -> list[Finding]:
    """Return the checks with those of one kind that say the same of several hosts put together."""
    found: dict[tuple[str, ...], tuple[Check, list[str]]] = {}
    for each in checks:
        key = (each.id, each.status, each.summary, each.got, each.expected, each.remedy)
        found.setdefault(key, (each, []))[1].append(each.target)
    return [Finding(check, tuple(targets)) for check, targets in found.values()]


def count(checks: Sequence[Check]) -> str:
    """Return in one line how many checks ended how."""
    words = {
        Status.FAIL: "failed",
        Status.WARN: "to know about",
        Status.PASS: "passed",
        Status.SKIP: "not applicable or not known",
    }
    numbers = {status: sum(each.status is status for each in checks) for status in words}
    shown = [f"{number} {words[status]}" for status, number in numbers.items() if number]
    return f"{len(checks)} checks: {', '.join(shown)}" if checks else "no checks"


def show(checks: Sequence[Check], console: Console) -> None:
    """Print the checks: what failed and what to know about whole, then what passed in one table.

    A remedy stands on a line of its own and is never broken, so that it can be pasted.

    Args:
        checks: The checks.
        console: Where to print; its width is what the table fits into.
    """
    for status in (Status.FAIL, Status.WARN):
        for finding in grouped(each for each in checks if each.status is status):
            _block(finding, console)
    for status, title in ((Status.PASS, "passed"), (Status.SKIP, "not applicable or not known")):
        chosen = [each for each in checks if each.status is status]
        if chosen:
            for line in _passed(chosen, title, console.width):
                console.print(line, soft_wrap=True)
            console.print()


def as_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return the checks as plain values, in the order in which they were made."""
    return [
        {
            "id": each.id,
            "target": each.target,
            "status": each.status.value,
            "summary": each.summary,
            "got": each.got,
            "expected": each.expected,
            "remedy": each.remedy,
        }
        for each in checks
    ]


def _block(finding: Finding, console: Console) -> None:
    check, width = finding.check, max(console.width - _INDENT - 6, 30)
    head = Text(f"{check.status.value}  ", style=_STYLES[check.status])
    head.append(f"{', '.join(finding.targets)}: {check.summary}", style="bold")
    console.print(head, soft_wrap=True)
    for word, text in (("got", check.got or "nothing"), ("want", check.expected)):
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            lead = f"{word:4}  " if number == 0 else " " * 6
            console.print(Text(" " * _INDENT + lead + line), soft_wrap=True)
    console.print(Text(f"{' ' * _INDENT}do    {check.remedy}", style="cyan"), soft_wrap=True)
    console.print()


def _passed(checks: Sequence[Check], title: str, width: int) -> list[Text]:
    """Return one line a check: what it is, on how many hosts, and what was found there."""
    rows: dict[tuple[str, str], list[Check]] = {}
    for each in checks:
        rows.setdefault((each.id, each.summary), []).append(each)
    cells = [(title, "on", "got")]
    cells += [(what, _where(same), "; ".join(_said(same))) for (_, what), same in rows.items()]
    first, second = (max(len(row[at]) for row in cells) for at in (0, 1))
    rest = max(width - first - second - 4, 12)
    lines = []
    for number, (what, where, got) in enumerate(cells):
        shown = got if len(got) <= rest else got[: rest - 1] + "…"
        line = Text(f"{what:{first}}  {where:{second}}  ", style="bold" if number == 0 else "")
        lines.append(line.append(shown, style="dim"))
        line.rstrip()
    return lines


def _where(checks: Sequence[Check]) -> str:
    if checks[0].target == CLUSTER:
        return CLUSTER
    return "1 host" if len(checks) == 1 else f"{len(checks)} hosts"


def _said(checks: Sequence[Check]) -> list[str]:
    """Return what was found: once where it is the same everywhere."""
    return list(dict.fromkeys(each.got for each in checks if each.got))
