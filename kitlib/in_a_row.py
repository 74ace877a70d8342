"""The stages of a run one after another, and what a join does that some workers failed.

The first failure ends a run, with one exception: where workers alone failed to join, the hosts that
did join are judged all the same. The run has failed then too, whatever is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kitlib.errors import Interrupted, KitError, RecordError
from kitlib.journal import Journal
from kitlib.model import CLUSTER
from kitlib.runs import load_run

__all__ = ["in_a_row", "workers_left_out"]

JUDGING = ("ready", "verify")
"""The stages that judge the hosts that joined."""


def in_a_row(journal: Journal, steps: Sequence[str], work: Callable[[str], None]) -> None:
    """Do the steps; stop at the first that fails, or, where workers failed to join, judge the rest.

    Args:
        journal: The run's record.
        steps: Stages, or notebooks called after them (`06_join`).
        work: Does one step.

    Raises:
        KitError: The first failure, with what came of the stages behind it.
    """
    failure: KitError | None = None
    for step in steps:
        stage = step.partition("_")[2] or step
        if failure is not None and stage not in JUDGING:
            continue
        try:
            work(step)
        except (Interrupted, RecordError):
            raise
        except KitError as error:
            if failure is not None:
                first = error.message.splitlines()[0].removeprefix(f"{stage}: ")
                failure.message += f"\n  {stage} of the hosts that joined, also FAIL: {first}"
                continue
            left = workers_left_out(journal.path) if stage == "join" else []
            if not left:
                raise
            failure = error
            text = f"going on without {', '.join(left)}: the hosts that joined are judged"
            journal.event("progress", host=CLUSTER, text=text)
    if failure is not None:
        raise failure


def workers_left_out(run_dir: Path) -> list[str]:
    """Return the workers that failed to join, where nothing else failed and a worker did join."""
    run = load_run(run_dir)
    ended = [e for e in run.entries if e.stage == "join" and e.kind == "host.ended"]
    lost = {entry.host for entry in ended if not entry.data.get("ok")}
    workers = [host.name for host in run.hosts if host.role == "worker"]
    if not lost.issubset(workers) or lost.issuperset(workers):
        return []
    return [name for name in workers if name in lost]
