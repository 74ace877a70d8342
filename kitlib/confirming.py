"""A word for it before something is taken out of a living cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kitlib.checks import FoundCluster
from kitlib.errors import GuardError, Interrupted

__all__ = ["Loss", "confirm"]


class Loss(Protocol):
    """What somebody is about to lose; its text says it line by line, for the question."""

    @property
    def subject(self) -> str:
        """What is taken out."""

    @property
    def cluster(self) -> FoundCluster:
        """What it is taken out of."""

    @property
    def lost(self) -> tuple[str, ...]:
        """What goes; empty where nothing does."""

    @property
    def confirmed(self) -> bool:
        """Whether the parameters, or the command line, name the cluster."""


def confirm(loss: Loss, ask: Callable[[str], bool] | None) -> None:
    """Return when it may be done.

    Args:
        loss: What would be done.
        ask: Shows a person what would be done and returns the answer; None where nobody can be
            asked.

    Raises:
        GuardError: Nobody confirmed it, and nobody can be asked.
        Interrupted: The person said no.
    """
    if loss.confirmed or not loss.lost:
        return
    if ask is None:
        raise GuardError(
            f"{loss.subject}: nothing is done without a word for it; it would go {loss}",
            remedy=f'say it with  --confirm "{loss.cluster.ca_hash}"',
        )
    if not ask(str(loss)):
        raise Interrupted(f"{loss.subject}: not confirmed: nothing was changed")
