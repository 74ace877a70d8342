"""A word for it before something is taken out of a living cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from kitlib.checks import FoundCluster, confirms, found_clusters
from kitlib.errors import GuardError, Interrupted
from kitlib.facts import HostFacts
from kitlib.params import Params

__all__ = ["Loss", "confirm", "described_cluster"]


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


def described_cluster(
    facts: Mapping[str, HostFacts], host: str, params: Params, refused: str
) -> tuple[FoundCluster, bool]:
    """Return the cluster that a host is in, and whether the parameters name it (confirm_reset).

    Args:
        facts: Host -> what is true on it.
        host: A host that is in a cluster.
        params: What describes it.
        refused: What is not done to another cluster, such as `worker-1: not removed`.

    Raises:
        GuardError: It is another cluster than the file describes, and nobody named it.
    """
    cluster = next(each for each in found_clusters(facts, params) if host in each.hosts)
    named = confirms(params.confirm_reset, cluster)
    if cluster.name != params.cluster and not named:
        raise GuardError(
            f"{refused}: the hosts are in {cluster}, the file describes {params.cluster!r}",
            remedy=f'if that is the one, name it: --confirm "{cluster.ca_hash}"',
        )
    return cluster, named


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
