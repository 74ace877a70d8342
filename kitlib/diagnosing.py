"""A living cluster measured and judged: the diagnostic notebooks, headless, and one report.

One notebook's finding does not keep the next from looking. Whatever ends it, what was put into the
cluster is taken out again, what was measured is kept, and the report says how far it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from kitlib import notebooks
from kitlib.errors import ChecksFailed, Interrupted, KitError, RecordError
from kitlib.model import CLUSTER, Check, Status, Verdict
from kitlib.pipeline import run_notebook
from kitlib.report import findings, write_exports, write_metrics, write_report
from kitlib.runs import load_run
from kitlib.session import Session
from kitlib.stages.agent_space import sweep
from kitlib.turns import unfinished

__all__ = ["Diagnosis", "diagnose"]

_SUBJECTS = {name: name.partition("_")[2].removeprefix("pod_") for name in notebooks.DIAGNOSE}
"""Notebook -> what it looks at, as run.json names what is missing."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a diagnosis left.

    Attributes:
        run_dir: Its record.
        verdict: PASS, FAIL or INTERRUPTED.
        checks: What failed or stands out, the worst first.
        report: The HTML report.
        charts: The files of every chart and its table.
        metrics: The OpenMetrics file; None where none was asked for.
        error: What ended it, or a part of it, other than a finding; None for nothing.
    """

    run_dir: Path
    verdict: Verdict
    checks: tuple[Check, ...]
    report: Path
    charts: tuple[Path, ...]
    metrics: Path | None
    error: KitError | None

    def failure(self) -> KitError | None:
        """Return the error that a program ends with; None where it is PASS."""
        if self.error is not None:
            return self.error
        if self.verdict is Verdict.PASS:
            return None
        bad = [each for each in self.checks if each.status is Status.FAIL]
        count = f"{len(bad)} finding{'' if len(bad) == 1 else 's'}"
        return ChecksFailed(f"diagnose: {count}; the report tells them: {self.report}")


def diagnose(session: Session, *, metrics: Path | None = None) -> Diagnosis:
    """Measure and judge the session's cluster; return what was found, whatever ended it.

    Args:
        session: An open session on a new run of the kind `diagnose`; its parameters say how much
            is measured.
        metrics: Where the headline figures go as OpenMetrics text; None writes none.

    Raises:
        RecordError: The record cannot be written.
    """
    session.what = "kit diagnose"
    errors: list[KitError] = []
    try:
        with ExitStack() as until_the_end:
            until_the_end.enter_context(session.exclusive())
            for name in notebooks.DIAGNOSE:
                unfinished(session.journal, _SUBJECTS[name], "it was not begun")
            for name in notebooks.DIAGNOSE:
                unfinished(session.journal, _SUBJECTS[name], "")
                _look(session, name, errors)
    except RecordError:
        raise
    except (KeyboardInterrupt, KitError) as error:
        told = error if isinstance(error, KitError) else Interrupted("interrupted")
        errors.append(told)
        _note(session, "", told)
    if any(not isinstance(error, ChecksFailed) for error in errors):
        _clean_up(session)
    return _ended(session, errors, metrics)


def _look(session: Session, name: str, errors: list[KitError]) -> None:
    """Run one notebook; what it finds, or fails of, is noted."""
    rounds = session.params.diagnose.rounds
    try:
        run_notebook(session, name, {"fresh": True, "rounds": rounds})
    except (Interrupted, RecordError):
        raise
    except KitError as error:
        errors.append(error)
        if not isinstance(error, ChecksFailed):  # what checks found is in the record already
            _note(session, name, error)


def _note(session: Session, name: str, error: KitError) -> None:
    session.journal.stage = name.partition("_")[2]
    session.journal.event("error", host=CLUSTER, message=str(error))
    session.journal.stage = ""


def _clean_up(session: Session) -> None:
    """Take out what a notebook that was cut off left in the cluster."""
    with contextlib.suppress(KitError):
        sweep(session.context)


def _ended(session: Session, errors: Sequence[KitError], metrics: Path | None) -> Diagnosis:
    run_dir = session.journal.path
    checks = tuple(each.check for each in findings(load_run(run_dir)).bad)
    bad = [check for check in checks if check.status is Status.FAIL]
    other = [error for error in errors if not isinstance(error, ChecksFailed)]
    interrupted = next((error for error in other if isinstance(error, Interrupted)), None)
    error = interrupted or (other[0] if other else None)
    verdict = Verdict.FAIL if bad or errors else Verdict.PASS
    reason = error.message.splitlines()[0] if error else _in_a_line(bad)
    session.finish(Verdict.INTERRUPTED if interrupted else verdict, reason)
    charts = tuple(write_exports(run_dir))
    return Diagnosis(
        run_dir,
        Verdict.INTERRUPTED if interrupted else verdict,
        checks,
        write_report(run_dir),
        charts,
        write_metrics(run_dir, metrics) if metrics is not None else None,
        error,
    )


def _in_a_line(bad: Sequence[Check]) -> str:
    if not bad:
        return ""
    first = bad[0]
    told = f"{first.target}: {first.summary}"
    if first.got:  # a summary says what was wanted
        got = shorten(first.got, 160, placeholder=" ...")
        told = f"{first.target}: {got} (wanted: {first.summary})"
    return f"{told}, and {len(bad) - 1} more" if len(bad) > 1 else told
