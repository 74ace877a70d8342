"""Which hosts answer, and what a stage does about a worker that does not.

For most stages a host that is out of reach is the end, with an exit code of its own. The stages
that judge a cluster go on without a worker: it is one failed check, and the others are judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kitlib.errors import ConnectError
from kitlib.facts import HostFacts
from kitlib.model import Check, Status

if TYPE_CHECKING:
    from kitlib.stages.base import Context

__all__ = ["ANSWERS", "absences", "hosts_that_answer", "who", "without_name"]

ANSWERS = "host.answers"
"""The id of the check that a host can be reached; one that cannot is an error of its own kind."""


def hosts_that_answer(ctx: Context, *, without_workers: bool) -> list[Check]:
    """Return one check a host, read now.

    Args:
        ctx: The stage's context; what goes on without a worker finds it in `ctx.absent`.
        without_workers: Whether to go on without workers that cannot be reached.

    Raises:
        ConnectError: A host cannot be reached without which the stage does not go on.
        KitError: A host's facts cannot be read.
    """
    fanned = ctx.doors.facts([host.name for host in ctx.hosts], fresh=True)
    lost = {n: e for n, e in fanned.errors.items() if isinstance(e, ConnectError)}
    workers = {host.name for host in ctx.workers}
    if without_workers and lost == fanned.errors and workers.issuperset(lost):
        ctx.absent = lost
    elif fanned.errors:
        # An unreachable host is an error of its own kind (and exit code), not a failed check.
        ctx.failures.update(fanned.errors)
        fanned.raise_first()
    answer = [
        Check(ANSWERS, name, Status.PASS, "answers over SSH", got=who(facts))
        for name, facts in fanned.values.items()
    ]
    return [*answer, *absences(ctx, Status.WARN)]


def absences(ctx: Context, status: Status) -> list[Check]:
    """Return one check of this status for each host that the stage goes on without."""
    return [
        Check(
            ANSWERS,
            name,
            status,
            "answers over SSH",
            got=without_name(name, error.message).splitlines()[0],
            expected="an answer",
            remedy=error.remedy or "is the host up? the others are judged without it",
        )
        for name, error in ctx.absent.items()
    ]


def who(facts: HostFacts) -> str:
    """Return in a few words what system a host is."""
    return f"{facts.host.os_name or 'unknown system'}, kernel {facts.host.kernel or 'unknown'}"


def without_name(name: str, message: str) -> str:
    """Return an error's message without the host's name, which stands beside it already."""
    if message.startswith(f"{name} ("):
        return message.removeprefix(f"{name} (").replace("): ", ": ", 1)
    return message.removeprefix(f"{name}: ")
