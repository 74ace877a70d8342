"""What a run found, as its report lists it: what failed or stands out, the worst first."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kitlib import frames
from kitlib.diagnosis import connected, summary
from kitlib.model import CLUSTER, Check, Status
from kitlib.report.page import Listed, table_of
from kitlib.runs import DIAGNOSIS, Run

__all__ = ["Found", "Judged", "findings"]

MOST_NAMES = 6
"""Of so many hosts at most a finding that is the same for all lists the names."""

_CHECKS_FAILED = re.compile(r"\bchecks?(?:\(s\))? failed$")
"""The end of an error that only counts checks: they are findings themselves."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was found, as text.

    Attributes:
        status: FAIL or WARN.
        target: The host it is about, or `cluster`.
        summary: What is wrong.
        got: What was found.
        expected: What was wanted.
        remedy: A command to paste, or advice.
        id: The check's id; `error` for what ended a stage.
        stage: The stage; empty for what is judged of the record.
        output: What a command said.
    """

    status: str
    target: str
    summary: str
    got: str = ""
    expected: str = ""
    remedy: str = ""
    id: str = ""
    stage: str = ""
    output: str = ""

    @property
    def check(self) -> Check:
        """The same as a check, for what prints those."""
        return Check(
            self.id, self.target, Status(self.status), self.summary, self.got, self.expected,
            self.remedy,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """What was judged of a run.

    Attributes:
        bad: What failed or stands out, the worst first; what is true of several hosts alike, once.
        passed: What is as it should be.
        skipped: What does not apply, or could not be measured.
        checks: How many checks passed, each host's counted.
    """

    bad: tuple[Found, ...]
    passed: tuple[Found, ...]
    skipped: tuple[Found, ...]
    checks: int

    @property
    def failed(self) -> int:
        """How many of them are failures."""
        return sum(each.status == Status.FAIL for each in self.bad)

    def listed(self, status: str) -> Listed:
        """Return those of a status (PASS or SKIP) as a table."""
        chosen = self.passed if status == Status.PASS else self.skipped
        rows = [(each.target, each.summary, each.got, each.id) for each in chosen]
        return table_of(("Where", "What", "Found", "Check"), rows)


def findings(run: Run) -> Judged:
    """Return what was judged of a run: by its stages, of its record, and what ended it."""
    listed = frames.checks(run).drop_duplicates(["stage", "target", "id"], keep="last")
    told = [
        Found(**{str(key): str(value) for key, value in row.items() if key != "t"})
        for row in listed.to_dict("records")
    ]
    for check in (
        *summary.readiness_checks(run),
        *summary.latency_checks(run),
        *connected.connectivity_checks(run),
    ):
        told.append(_of(check))
    bad = [each for each in told if each.status in (Status.FAIL, Status.WARN)]
    bad += _errors(run, " ".join(each.summary for each in bad))
    rank = _nearness if run.kind == DIAGNOSIS else (lambda _: 0)
    bad = sorted(dict.fromkeys(bad), key=lambda each: (each.status != Status.FAIL, rank(each)))
    return Judged(
        tuple(_together(bad)),
        tuple(_together(each for each in told if each.status == Status.PASS)),
        tuple(_together(each for each in told if each.status == Status.SKIP)),
        sum(each.status == Status.PASS for each in told),
    )


def _nearness(found: Found) -> int:
    """Return how far a finding is from its cause: a host that is down is slow and not Ready too."""
    if found.id == "error":
        return 0 if found.target != CLUSTER else 3
    return {"readiness": 1, "connectivity": 2}.get(found.id.partition(".")[0], 3)


def _together(found: Iterable[Found]) -> list[Found]:
    """Return the findings with those that say the same of several hosts put into one."""
    targets: dict[Found, list[str]] = {}
    for each in found:
        targets.setdefault(replace(each, target=""), []).append(each.target)
    return [replace(each, target=_names(names)) for each, names in targets.items()]


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _errors(run: Run, said: str) -> list[Found]:
    """Return what ended stages, unless a finding says it already."""
    found = []
    for entry in run.entries:
        message = str(entry.data.get("message", "")) if entry.kind == "error" else ""
        first, _, rest = message.partition("\n")
        if first and first not in said and not _CHECKS_FAILED.search(first):
            what, _, remedy = rest.partition("remedy: ")
            host = entry.host or CLUSTER
            found.append(
                Found(
                    "FAIL",
                    host,
                    first.removeprefix(f"{host}: "),
                    output=textwrap.dedent(what).strip(),
                    remedy=remedy.strip(),
                    id="error",
                    stage=entry.stage,
                )
            )
    return found


def _of(check: Check) -> Found:
    return Found(
        check.status.value, check.target, check.summary,
        check.got, check.expected, check.remedy, check.id,
    )  # fmt: skip
