"""One stage as a run of its own, outside of a build: `kit stage`, and `kit preflight`."""

from __future__ import annotations

import contextlib
from typing import Any

from rich.console import Console

from kitlib import findings
from kitlib.errors import Interrupted, KitError, RecordError
from kitlib.model import Check, Outcome, Status, Verdict
from kitlib.session import Session, fail
from kitlib.stages.presence import ANSWERS

__all__ = ["Preflight", "preflight", "run_alone"]


def run_alone(session: Session, name: str) -> Outcome:
    """Run one stage as the whole run, write the run's verdict, and return how the stage ended.

    Raises:
        KitError: It failed; the record has the verdict all the same.
    """
    try:
        outcome = session.stage(name)
    except KitError as error:
        with contextlib.suppress(RecordError):  # that is what is said already
            fail(session, error)
        raise
    session.finish(outcome.verdict, outcome.reason)
    return outcome


class Preflight:
    """What preflight found, whether or not it ended well.

    Args:
        session: The run.
        error: How it failed; None when it passed.
    """

    def __init__(self, session: Session, error: KitError | None) -> None:
        self._session = session
        self.error = error
        self.checks: list[Check] = findings.read_checks(session.journal.path, "preflight")

    @property
    def verdict(self) -> str:
        """PASS or FAIL."""
        return (Verdict.FAIL if self.error else Verdict.PASS).value

    @property
    def unreachable(self) -> list[str]:
        """The hosts that did not answer, in the order of the parameters."""
        return [
            each.target for each in self.checks if each.id == ANSWERS and each.status is Status.FAIL
        ]

    def show(self, console: Console) -> None:
        """Print what was found, and the verdict last."""
        params = self._session.params
        console.print(
            f"cluster {params.cluster}: {len(params.hosts)} host(s), Kubernetes "
            f"{params.kubernetes_version}, {params.plugin}; nothing was changed",
            soft_wrap=True,
        )
        console.print()
        findings.show(self.checks, console)
        if self.unreachable:
            console.print(f"out of reach: {', '.join(self.unreachable)}", soft_wrap=True)
        console.print(f"record: {self._session.journal.path}", soft_wrap=True)
        console.print(f"preflight: {self.verdict} ({findings.count(self.checks)})", soft_wrap=True)

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values, for scripts."""
        params = self._session.params
        return {
            "cluster": params.cluster,
            "kubernetes_version": params.kubernetes_version,
            "plugin": params.plugin,
            "hosts": [host.name for host in params.hosts],
            "unreachable": self.unreachable,
            "verdict": self.verdict,
            "run_dir": str(self._session.journal.path),
            "checks": findings.as_json(self.checks),
        }


def preflight(session: Session) -> Preflight:
    """Run preflight and return what it found.

    Raises:
        KitError: It could not be judged at all: it was interrupted, or is a defect of the kit.
    """
    try:
        run_alone(session, "preflight")
    except Interrupted:
        raise
    except KitError as error:
        found = Preflight(session, error)
        if not found.checks:
            raise
        return found
    return Preflight(session, None)
