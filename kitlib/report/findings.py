"""What a run found, as its report lists it: what failed or stands out, the worst first."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from kitlib import frames
from kitlib.diagnosis import summary
from kitlib.model import Check, Status
from kitlib.runs import Run

__all__ = ["Found", "findings"]

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


def findings(run: Run) -> tuple[list[Found], int]:
    """Return what failed or stands out, worst first, and how many checks passed."""
    listed = frames.checks(run).drop_duplicates(["stage", "target", "id"], keep="last")
    told = [
        Found(**{str(key): str(value) for key, value in row.items() if key != "t"})
        for row in listed.to_dict("records")
    ]
    for check in (*summary.readiness_checks(run), *summary.latency_checks(run)):
        told.append(_of(check))
    passed = sum(each.status == Status.PASS for each in told)
    bad = [each for each in told if each.status in (Status.FAIL, Status.WARN)]
    said = " ".join(each.summary for each in bad)
    for entry in run.entries:
        message = str(entry.data.get("message", "")) if entry.kind == "error" else ""
        first, _, rest = message.partition("\n")
        if first and first not in said and not _CHECKS_FAILED.search(first):
            what, _, remedy = rest.partition("remedy: ")
            host = entry.host or "cluster"
            bad.append(
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
    return sorted(dict.fromkeys(bad), key=lambda each: each.status != Status.FAIL), passed


def _of(check: Check) -> Found:
    return Found(
        check.status.value, check.target, check.summary,
        check.got, check.expected, check.remedy, check.id,
    )  # fmt: skip
