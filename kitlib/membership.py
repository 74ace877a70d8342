"""Hosts come to a cluster that stands: `kit join`, and what it shares with `kit remove`.

Nothing here is another way to build: the same stages look at all hosts of the file. So a host of
the file that is not in the cluster has to be named too, or nothing begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kitlib.errors import KitError, PreconditionError, RecordError
from kitlib.in_a_row import in_a_row
from kitlib.inventory import Inventory
from kitlib.model import Verdict
from kitlib.params import load
from kitlib.session import Session, fail, find_params
from kitlib.stages.observe import in_the_cluster
from kitlib.stages.situation import judge

__all__ = ["JOIN_STAGES", "alone", "check_names", "join_hosts", "whole_run"]

JOIN_STAGES = ("preflight", "packages", "join", "ready", "verify")
"""What a new host goes through; what it holds of another network is for `kit stage reset`."""


def check_names(params: str | Path, names: Sequence[str]) -> None:
    """Return when each name is a host's of the file, before any run begins.

    Raises:
        ParamsError: The file is wrong, or a name is no host's; those that there are are listed.
    """
    Inventory.from_params(load(find_params(params))).select(names=names)


@contextmanager
def whole_run(session: Session, what: str) -> Iterator[None]:
    """See that the run has its verdict however what is done in it ends.

    Args:
        session: An open session on a new run.
        what: The verb, as the lock and the record name it.
    """
    session.what = what
    try:
        yield
    except KeyboardInterrupt:
        session.finish(Verdict.INTERRUPTED, "interrupted")
        raise
    except KitError as error:
        with contextlib.suppress(RecordError):  # that is what is said already
            fail(session, error)
        raise
    session.finish(Verdict.PLANNED if session.dry_run else Verdict.PASS)


@contextmanager
def alone(session: Session) -> Iterator[None]:
    """Keep other runs off the hosts, where this one may change them."""
    if session.dry_run:
        yield
        return
    with session.exclusive():
        yield


def join_hosts(session: Session, names: Sequence[str]) -> list[str]:
    """Take hosts into the cluster; return those that were in it already. All are judged.

    Args:
        session: An open session on a new run, inside `whole_run`.
        names: Hosts of the parameters.

    Raises:
        PreconditionError: There is no cluster, it is not the one that the file describes, or
            other hosts of the file are not in it either.
        KitError: A stage failed. Behind a join that workers failed, the others are judged.
    """
    wanted = [host.name for host in session.inventory.select(names=names)]
    with alone(session):
        inside = _ready_for(session, wanted)
        for name in inside:
            text = "in the cluster already: nothing to join; it is judged all the same"
            session.journal.event("progress", host=name, text=text)
        in_a_row(session.journal, JOIN_STAGES, lambda name: _run(session, name))
    return inside


def _run(session: Session, name: str) -> None:
    session.stage(name)


def _ready_for(session: Session, wanted: Sequence[str]) -> list[str]:
    """Return which of the hosts are in the cluster already, where the others can join it."""
    ctx = session.context
    facts = ctx.facts(fresh=True)
    if not facts[ctx.administrator.name].kubeadm.initialised:
        raise PreconditionError(
            "join: no control plane of the parameters has a cluster",
            remedy="kit build makes it, with every host of the parameters",
        )
    situation = judge(ctx)
    if not situation.wanted:
        why = situation.reset[ctx.administrator.name]
        raise PreconditionError(
            f"join: the cluster that stands is not the one that the file describes: {why}",
            remedy="make the file say what stands; kit build --dry-run shows what a build would do",
        )
    inside = in_the_cluster(ctx)
    others = [name for name in facts if name not in inside and name not in wanted]
    if others:
        raise PreconditionError(
            f"{', '.join(others)}: in the parameters, but not in the cluster, and not named",
            remedy="name it with --host as well, or take it out of the file, or run kit build",
        )
    return [name for name in wanted if name in inside]
