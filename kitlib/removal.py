"""Hosts leave a cluster that goes on: `kit remove`.

Two stages that no build has: the node is drained, then the host is reset and the cluster forgets
it. What would go is told first, and somebody has to say that it may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitlib.checks import FoundCluster
from kitlib.confirming import described_cluster
from kitlib.errors import ConnectError
from kitlib.membership import alone
from kitlib.model import CLUSTER, Outcome
from kitlib.session import Session
from kitlib.stages import Stage
from kitlib.stages.drain import Drain, load_of, shown
from kitlib.stages.remove import Remove, home, last_plane, left_on

__all__ = ["Removal", "plan_removal", "remove_hosts"]


@dataclass(frozen=True, slots=True)
class Removal:
    """What the removal of hosts would do, as it is told before it is confirmed.

    Attributes:
        names: The hosts.
        cluster: The cluster that they leave.
        down: Those that cannot be reached -> why; they are not reset.
        lost: What goes, one line a host; a host that is out of the cluster already has none.
        confirmed: True when the parameters (or the command line) name the cluster.
        force: Whether what would be lost for good may be.
    """

    names: tuple[str, ...]
    cluster: FoundCluster
    down: Mapping[str, ConnectError] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    confirmed: bool = False
    force: bool = False

    @property
    def subject(self) -> str:
        """What is taken out."""
        return ", ".join(self.names)

    def __str__(self) -> str:
        """Return what would be done, for the question."""
        lines = [f"out of {self.cluster}:", *(f"  {line}" for line in self.lost)]
        return "\n".join(lines)

    def result(self, file: Path) -> list[str]:
        """Return what to say at the end: how each host is, and what the file still says."""
        told = [
            f"{name}: out of the cluster, and NOT reset: it cannot be reached; if it comes back, "
            "the same command resets it"
            if name in self.down
            else f"{name}: out of the cluster, and clean"
            for name in self.names
        ]
        it = "it" if len(self.names) == 1 else "them"
        named = ", ".join(self.names)
        return [*told, f"take {named} out of {file}, or the next build joins {it} again"]


def plan_removal(session: Session, names: Sequence[str], *, force: bool = False) -> Removal:
    """Return what the removal of hosts would do. Reads only.

    Args:
        session: An open session on a new run, inside `whole_run`; from here on it works without
            those of the hosts that cannot be reached.
        names: Hosts of the parameters.
        force: Whether hosts may be out of reach, and pods and their data lost for good.

    Raises:
        ConnectError: A host cannot be reached; a named one may be, with `force`.
        PreconditionError: There is no cluster, or it could not go on without the hosts; or
            something would be lost for good, without `force`.
        GuardError: A host is in another cluster than the file describes.
    """
    wanted = tuple(host.name for host in session.inventory.select(names=names))
    planes = [host.name for host in session.inventory.select(role="control_plane")]
    if set(wanted).issuperset(planes):
        raise last_plane(planes[-1])
    down = _out_of_reach(session, wanted, force=force)
    session.leave_out(down)
    ctx = session.context
    main = home(ctx, wanted)
    facts = ctx.facts()
    cluster, confirmed = described_cluster(
        facts, main.name, session.params, f"{', '.join(wanted)}: not removed"
    )
    ctx.read_only = True
    for stage in (Drain(wanted, force=force), Remove(wanted, down=tuple(down))):
        stage.plan(ctx)  # what it refuses is said before anybody is asked
    lost = tuple(filter(None, (_lost(session, name, down) for name in wanted)))
    return Removal(wanted, cluster, down, lost, confirmed, force)


def remove_hosts(session: Session, removal: Removal) -> list[Outcome]:
    """Drain the nodes, reset the hosts, have the cluster forget them; return how that ended.

    Raises:
        KitError: A stage failed; the same command goes on from what is true then.
    """
    stages: list[Stage] = [Remove(removal.names, down=tuple(removal.down))]
    if set(removal.names) != set(removal.down):  # on a host that is down nothing ends a pod
        stages.insert(0, Drain(removal.names, force=removal.force))
    for line in removal.lost:
        name, _, what = line.partition(": ")
        session.journal.event("progress", host=name, text=f"what goes: {what}")
    for name, error in removal.down.items():
        text = f"goes on without it: {error.message.splitlines()[0]}"
        session.journal.event("progress", host=name, text=text)
    if not removal.lost:
        text = f"nothing to do: {', '.join(removal.names)}: in no cluster, and clean"
        session.journal.event("progress", host=CLUSTER, text=text)
    with alone(session):
        return [session.stage(stage) for stage in stages]


def _out_of_reach(
    session: Session, wanted: Sequence[str], *, force: bool
) -> dict[str, ConnectError]:
    """Return the named hosts that are down, where they may be; others must be reached."""
    fanned = session.context.doors.facts(session.inventory.names, fresh=True)
    down: dict[str, ConnectError] = {}
    for name, error in fanned.errors.items():
        # A refused login or a changed key is no host that is down: its kubelet may be at work.
        if name not in wanted or not isinstance(error, ConnectError) or not error.transient:
            raise error
        if not force:
            raise ConnectError(
                f"{error.message}\n  so it cannot be reset; nothing was changed",
                remedy="bring it back; or, if it is gone for good, --force has the cluster forget "
                "it without a reset",
            )
        down[name] = error
    return down


def _lost(session: Session, name: str, down: Mapping[str, ConnectError]) -> str:
    """Return what goes with a host, one line; empty where it has left already."""
    kube = session.kube(wait=60)
    node = kube.find(f"/api/v1/nodes/{name}")
    if name in down:
        return f"{name}: its Node; it cannot be reached and is not reset"
    if node is None:
        left = left_on(session.context, name)
        return f"{name}: what it still holds: {'; '.join(left)}" if left else ""
    load = load_of(kube, name)
    parts = [f"evicted: {', '.join(map(shown, load.evicted)) or 'no pod'}"]
    parts += [f"for good: {', '.join(load.alone)}"] if load.alone else []
    parts += [f"with their data on the host: {', '.join(load.local)}"] if load.local else []
    return f"{name}: its Node; {'; '.join(parts)}"
