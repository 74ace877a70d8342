"""A network plugin is taken out of a cluster that goes on: `kit unplug`.

What would be cut off is told first, and somebody has to say that it may be. Notebooks and other
modules call `unplug`, which wants the cluster to be named in the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.checks import FoundCluster
from kitlib.confirming import confirm, described_cluster
from kitlib.errors import PreconditionError
from kitlib.membership import alone
from kitlib.model import CLUSTER, Outcome
from kitlib.session import Session
from kitlib.stages.unplug import Unplug, cut_off

__all__ = ["Unplugging", "plan_unplug", "take_out", "unplug"]


@dataclass(frozen=True, slots=True)
class Unplugging:
    """What the removal of the plugin would do, as it is told before it is confirmed.

    Attributes:
        plugin: The plugin's title.
        cluster: The cluster.
        lost: What goes, line by line; empty where there is no trace of the plugin.
        confirmed: True when the parameters (or the command line) name the cluster.
    """

    plugin: str
    cluster: FoundCluster
    lost: tuple[str, ...] = ()
    confirmed: bool = False

    @property
    def subject(self) -> str:
        """What is taken out."""
        return self.plugin

    def __str__(self) -> str:
        """Return what would be done, for the question."""
        lines = [f"{self.plugin} out of {self.cluster}:", *(f"  {line}" for line in self.lost)]
        return "\n".join(lines)


def plan_unplug(session: Session) -> Unplugging:
    """Return what the removal of the session's plugin would do. Reads only.

    Raises:
        PreconditionError: There is no cluster.
        GuardError: The cluster is not the one that the file describes.
        ConnectError: A host cannot be reached.
    """
    ctx = session.context
    facts = ctx.facts(fresh=True)
    home = facts[ctx.administrator.name]
    if not home.kubeadm.initialised:
        raise PreconditionError(
            "unplug: no control plane of the parameters has a cluster",
            remedy="kit stage reset cleans hosts without one",
        )
    cluster, confirmed = described_cluster(
        facts, home.name, session.params, f"{ctx.plugin.name}: not unplugged"
    )
    ctx.read_only = True
    plan = Unplug().plan(ctx)
    lost = []
    if plan.actions:
        pods = cut_off(ctx.kube())
        ended = ", ".join(sorted(pods.ended.values()))
        lost.append(
            f"every node NotReady, every pod without a network until the next plugin: {ended}"
        )
        if pods.stay:
            stay = ", ".join(pods.stay)
            lost.append(
                f"nothing makes these anew; they run on cut off, and are evicted after 300 s on a "
                f"node that stays NotReady: {stay}"
            )
        lost += [action.what for action in plan.actions if action.target == CLUSTER]
        hosts = dict.fromkeys(a.target for a in plan.actions if a.target != CLUSTER)
        lost += [f"its traces on {', '.join(hosts)}"] if hosts else []
    return Unplugging(ctx.plugin.title, cluster, tuple(lost), confirmed)


def take_out(session: Session, unplugging: Unplugging) -> Outcome:
    """Take the plugin out of the cluster and off the hosts; return how that ended.

    Raises:
        KitError: The stage failed; the same command goes on from what is true then.
    """
    for line in unplugging.lost or (f"nothing to do: no trace of {unplugging.plugin}",):
        session.journal.event("progress", host=CLUSTER, text=line)
    with alone(session):
        return session.stage(Unplug())


def unplug(session: Session) -> Outcome:
    """Take the session's plugin out, where the parameters name the cluster (confirm_reset).

    Args:
        session: An open session; with `dry_run` nothing is changed and nothing has to be confirmed.

    Raises:
        PreconditionError: There is no cluster.
        GuardError: It is another cluster, or the parameters do not name it.
        KitError: The stage failed; the same call goes on from what is true then.
    """
    planned = plan_unplug(session)
    if not session.dry_run:
        confirm(planned, None)
    return take_out(session, planned)
