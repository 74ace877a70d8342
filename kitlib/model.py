"""The values that the layers hand to each other: results, checks, changes, outcomes. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kitlib.command import Cmd
from kitlib.masking import mask_text

__all__ = [
    "CLUSTER",
    "Change",
    "Check",
    "CommandResult",
    "Outcome",
    "Status",
    "Verdict",
    "failed",
]

CLUSTER = "cluster"
"""The target name of a change that concerns the cluster as a whole and no single host."""


class Status(StrEnum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    WARN = "WARN"
    SKIP = "SKIP"


class Verdict(StrEnum):
    """How a stage or a run ended."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    PLANNED = "PLANNED"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What one command on one host did.

    Attributes:
        host: The host's name in the inventory.
        command: The masked, pasteable command.
        stdout: Its standard output, whole.
        stderr: Its standard error, whole.
        exit_status: Its exit status.
        seconds: Wall time from start to end as the kit saw it.
        record: The file that keeps all of it; empty where none does.
    """

    host: str
    command: str
    stdout: str
    stderr: str
    exit_status: int
    seconds: float = 0.0
    record: str = ""

    @property
    def ok(self) -> bool:
        """True when the exit status is 0."""
        return self.exit_status == 0

    def tail(self, lines: int = 10) -> str:
        """Return the last lines of standard error, or of standard output where that is empty.

        Masked before they are cut: of a private key's last lines nobody could say what they are.
        """
        text = mask_text(self.stderr.strip() or self.stdout.strip())
        return "\n".join(text.splitlines()[-lines:])


@dataclass(frozen=True, slots=True)
class Check:
    """One judged statement about a host or the cluster.

    Attributes:
        id: Stable dotted name, `cni.config-in-force`.
        target: A host's name, or `cluster`.
        status: PASS, FAIL, WARN or SKIP (not applicable; `summary` says why).
        summary: What was judged, in a few words.
        got: What was found.
        expected: What was wanted.
        remedy: What to do when it failed.
    """

    id: str
    target: str
    status: Status
    summary: str
    got: str = ""
    expected: str = ""
    remedy: str = ""

    @classmethod
    def that(
        cls,
        ok: bool,
        id: str,
        target: str,
        summary: str,
        *,
        got: str = "",
        expected: str = "",
        remedy: str = "",
    ) -> Check:
        """Return a check that is PASS where `ok`, else FAIL."""
        status = Status.PASS if ok else Status.FAIL
        return cls(id, target, status, summary, got, expected, remedy if not ok else "")

    def __str__(self) -> str:
        """Return one line: status, target, summary, and for a failure what was got and wanted."""
        line = f"{self.status.value} {self.target}: {self.summary}"
        if self.status in (Status.FAIL, Status.WARN):
            line += f": got {self.got or 'nothing'}"
            line += f", want {self.expected}" if self.expected else ""
            line += f"; {self.remedy}" if self.remedy else ""
        elif self.got:
            line += f": {self.got}"
        return line


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a stage plans or made.

    Attributes:
        target: A host's name, or `cluster`.
        what: What is done and why, one line.
        command: The command that does it, where it is known before the stage starts.
    """

    target: str
    what: str
    command: Cmd | None = None

    def __str__(self) -> str:
        """Return one plan line."""
        return f"{self.target}: {self.what}" + (f": {self.command}" if self.command else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one stage ended.

    Attributes:
        stage: The stage's name.
        verdict: PASS, FAIL, PLANNED or INTERRUPTED.
        changes: The changes made, or planned in a dry run; empty when there was nothing to do.
        reason: Why nothing was to be done, or why the stage failed.
        checks: The checks after the stage (before it, in a dry run).
        failures: Host -> what failed there.
        seconds: Wall time.
        data: Small facts worth keeping (no secrets).
    """

    stage: str
    verdict: Verdict
    changes: tuple[Change, ...] = ()
    reason: str = ""
    checks: tuple[Check, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)


def failed(checks: tuple[Check, ...] | list[Check]) -> list[Check]:
    """Return the checks that ended in FAIL."""
    return [check for check in checks if check.status is Status.FAIL]
