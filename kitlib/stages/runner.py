"""Running one stage step by step: preconditions, plan, apply, validate; by hand and headless alike.

A person does the steps cell by cell; `run_stage` does them in a row. Whatever happens, the journal
gets the stage's end with its verdict, and the evidence that would be gone tomorrow is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from kitlib.errors import ApiError, ConnectError, Interrupted, KitError, PreconditionError
from kitlib.model import CLUSTER, Check, Outcome, Verdict, failed
from kitlib.retry import Deadline
from kitlib.stages.base import Context, Plan, Stage

__all__ = ["StageRun", "run_stage"]

T = TypeVar("T")

ATTEMPTS = 5
"""How often a look at the cluster is begun at most, when hosts or the API restart meanwhile."""


class StageRun:
    """One pass through a stage.

    Args:
        stage: The stage.
        ctx: What it works with.
        dry_run: Plan only; the verdict is PLANNED.
        snapshot: Keeps the evidence that would be gone later; called at the end, whatever it is.
    """

    def __init__(
        self,
        stage: Stage,
        ctx: Context,
        *,
        dry_run: bool,
        snapshot: Callable[[Context], None],
    ) -> None:
        self.stage = stage
        self.dry_run = dry_run
        self._ctx = ctx
        self._snapshot = snapshot
        self._plan = Plan()
        self._checks: list[Check] = []
        self._in_guard = False
        ctx.read_only = dry_run or stage.only_looks(ctx)
        ctx.failures.clear()
        ctx.absent = {}
        ctx.journal.stage = stage.name
        self._started = time.monotonic()
        ctx.journal.event("stage.started", title=stage.title, dry_run=dry_run)

    def preconditions(self) -> list[Check]:
        """Return the preconditions, judged now.

        Raises:
            PreconditionError: One does not hold; nothing was changed. A dry run only shows it.
        """
        with self._guarded(), self._alone():
            checks = self.stage.preconditions(self._ctx)
            self._ctx.record(checks)
            bad = failed(checks)
            if bad and not self.dry_run:
                raise PreconditionError(self.stage.failure(bad).message)
            return checks

    def plan(self) -> Plan:
        """Return what would be done, computed from facts read now."""
        with self._guarded(), self._alone():
            self._plan = self._through(self.stage.plan)
            for text in self._plan.notices:
                self._ctx.journal.event("notice", host=CLUSTER, text=text)
            for change in self._plan.changes:
                self._ctx.journal.event("planned", host=change.target, what=change.what)
            if not self._plan.changes:
                self._ctx.journal.event("note", text=self._plan.reason)
            return self._plan

    def apply(self) -> Plan:
        """Do exactly the plan, and return it. A dry run does nothing."""
        with self._guarded():
            if self._plan.actions and not self.dry_run:
                with self._alone() as left:
                    if left:
                        raise PreconditionError(
                            "the plan is out of date: " + "; ".join(left),
                            remedy="plan again, then apply",
                        )
                    self.stage.apply(self._ctx, self._plan)
            return self._plan

    def validate(self) -> Outcome:
        """Return how the stage ended when it ended well.

        Raises:
            ChecksFailed: The state after it is not as wanted (preflight: ConnectError, where a host
                is out of reach). A dry run of preflight only shows it.
        """
        with self._guarded():
            if not self.dry_run or self.stage.looks_in_dry_run:
                self._checks = self._through(self.stage.check)
                self._ctx.record(self._checks)
            if self.dry_run:
                return self._end(Verdict.PLANNED, self._plan.reason)
            bad = failed(self._checks)
            if bad:
                raise self.stage.failure(bad)
            self._snapshot(self._ctx)
            return self._end(Verdict.PASS, self._plan.reason)

    def to_the_end(self) -> Outcome:
        """Return how the stage ended, all steps in a row; raises what they raise."""
        with self._guarded(), self._alone():
            self.preconditions()
            self.plan()
            self.apply()
            return self.validate()

    def _through(self, look: Callable[[Context], T]) -> T:
        """Return what a look at the hosts and the cluster gave, through a restart of either.

        It changes nothing, so it can be taken anew from its beginning. An API that was waited for
        in vain is not waited for again.
        """
        ctx = self._ctx
        deadline = Deadline(ctx.params.timeouts.reconnect, "the hosts and the API")
        for _ in range(ATTEMPTS - 1):
            try:
                return look(ctx)
            except (ApiError, ConnectError) as error:
                if isinstance(error, ApiError):
                    again = error.retryable and not error.waited
                else:
                    again = error.transient
                if not again or deadline.left < 1:
                    raise
                why = error.message.splitlines()[0]
                ctx.waiting(CLUSTER, f"interrupted by: {why}; looking again")
                ctx.failures.clear()
                deadline.sleep(1)
        return look(ctx)

    @contextmanager
    def _alone(self) -> Iterator[Sequence[str]]:
        """Keep other runs off the hosts where this stage may change them.

        By hand each step does it for itself: in between, others may come.
        """
        if self._ctx.read_only:
            yield ()
            return
        with self._ctx.doors.exclusive() as left:
            yield left

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """See that the stage's end is recorded when a step fails or is interrupted."""
        ctx = self._ctx
        if self._in_guard:  # the steps in a row have one end
            yield
            return
        self._in_guard = True
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self._end(Verdict.INTERRUPTED, "interrupted")
            raise Interrupted.by(
                interrupt,
                self.stage.name,
                remedy="run the build again: it goes on from what is true on the hosts",
            ) from None
        except KitError as error:
            for host, failure in ctx.failures.items():
                ctx.journal.event("error", host=host, message=str(failure))
            if not ctx.failures:
                ctx.journal.event("error", message=str(error))
            self._snapshot(ctx)
            self._end(Verdict.FAIL, error.message.splitlines()[0])
            raise _with_others(self.stage, error, ctx.failures) from error
        except Exception as error:  # a defect of the kit: the record must end all the same
            ctx.journal.event("error", message=repr(error))
            self._end(Verdict.FAIL, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._in_guard = False

    def _end(self, verdict: Verdict, reason: str) -> Outcome:
        seconds = time.monotonic() - self._started
        changes = self._plan.changes
        self._ctx.journal.event(
            "stage.ended",
            verdict=verdict.value,
            seconds=round(seconds, 6),
            reason=reason,
            changes=len(changes),
        )
        self._ctx.journal.sync()
        return Outcome(
            stage=self.stage.name,
            verdict=verdict,
            changes=changes,
            reason=reason,
            checks=tuple(self._checks),
            failures={host: str(error) for host, error in self._ctx.failures.items()},
            seconds=seconds,
        )


def run_stage(
    stage: Stage,
    ctx: Context,
    *,
    dry_run: bool = False,
    snapshot: Callable[[Context], None],
) -> Outcome:
    """Return how a stage ended, all steps in a row.

    Raises:
        KitError: The stage failed; the journal has the whole story.
    """
    return StageRun(stage, ctx, dry_run=dry_run, snapshot=snapshot).to_the_end()


def _with_others(stage: Stage, error: KitError, failures: dict[str, Exception]) -> KitError:
    """Return the error with the stage's name, and the other hosts' failures told beside it."""
    others = []
    for host, other in failures.items():
        text = other.message if isinstance(other, KitError) else repr(other)
        if other is not error:
            others.append(f"  also {host}: {text.removeprefix(f'{host}: ')}")
    if others:
        error.message += "\n" + "\n".join(others)
    if not error.message.startswith(f"{stage.name}: "):
        error.message = f"{stage.name}: {error.message}"
    return error
