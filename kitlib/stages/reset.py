"""Stage 2: hosts that hold something else than the wanted cluster become clean hosts.

`kubeadm reset` keeps the CNI configuration, the plugin's interfaces and its rules; a cluster built
over them turns Ready and does not work. So this stage removes those too, each one by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from kitlib.command import Cmd
from kitlib.errors import PreconditionError
from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.stages import without_kubeadm
from kitlib.stages.base import Action, Context, Plan, Stage
from kitlib.stages.etcd import first_loss, members
from kitlib.stages.leftovers import Whose, removals
from kitlib.stages.situation import Situation, guard, judge

__all__ = ["Reset", "any_network", "host_actions", "kubeconfig_check", "leftovers"]


class Reset(Stage):
    """`kubeadm reset` and what it leaves, on every host that holds something to reset."""

    name = "reset"
    title = "Reset hosts that hold anything but the wanted cluster"

    def plan(self, ctx: Context) -> Plan:
        """Return the resets and clean-ups; none where the wanted cluster stands or hosts are clean.

        Raises:
            GuardError: A living cluster would be destroyed that the parameters do not name.
            PreconditionError: A control plane of the wanted cluster has to be reset, and etcd
                would lose its majority by it.
        """
        situation = judge(ctx)
        guard(ctx, situation)
        _keep_quorum(ctx, situation)
        actions: list[Action] = []
        whose = any_network(ctx)
        for host in ctx.hosts:
            actions += host_actions(host.name, situation, whose)
        kept = "the wanted cluster stands" if situation.wanted else "the hosts are clean"
        return Plan(tuple(actions), "" if actions else f"nothing to reset: {kept}")

    def turns(self, ctx: Context, targets: Sequence[str]) -> list[list[str]]:
        """Return the workers side by side, then each control plane by itself, the last one first.

        Each takes its own member out of etcd, which one at a time can follow.
        """
        planes = [host.name for host in ctx.control_planes if host.name in targets]
        workers = [name for name in targets if name not in planes]
        return [workers, *([name] for name in reversed(planes))]

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host that nothing is left that does not belong to the wanted cluster."""
        situation = judge(ctx)
        whose = any_network(ctx)
        checks = []
        for host in ctx.hosts:
            here = situation.facts[host.name]
            rest = [situation.reset[host.name]] if host.name in situation.reset else []
            rest += [action.what for action in leftovers(host.name, here, situation, whose)]
            checks.append(
                Check.that(
                    not rest,
                    "reset.clean",
                    host.name,
                    "holds nothing but the wanted cluster",
                    got="; ".join(rest) or ("in the cluster" if here.kubeadm.joined else "clean"),
                    expected="nothing of another cluster or plugin",
                    remedy="look at the record of this stage: a command did not remove it",
                )
            )
            if here.leftovers.kubeconfig and not here.kubeadm.joined:
                checks.append(kubeconfig_check(host.name, here.leftovers.kubeconfig))
        return checks


def kubeconfig_check(name: str, path: str) -> Check:
    """Return the warning that root keeps a kubeconfig on a host that was reset."""
    return Check(
        "reset.kubeconfig",
        name,
        Status.WARN,
        "root has no kubeconfig of a cluster that is gone",
        got=path,
        expected="none, or one of a cluster that lives",
        remedy=f"it is a person's file, so it stays: remove {path} if its cluster was reset",
    )


def _keep_quorum(ctx: Context, situation: Situation) -> None:
    """Refuse to reset control planes of a cluster that is kept, where its etcd would not stand it.

    They go one after another.
    """
    doomed = [host.name for host in ctx.control_planes if host.name in situation.reset]
    if not situation.wanted or not doomed:
        return
    lost = first_loss(members(ctx.kube()), doomed)
    if lost:
        name, why = lost
        raise PreconditionError(
            f"{name}: not reset ({situation.reset[name]}): {why}",
            remedy="bring the other control planes back first",
        )


def host_actions(name: str, situation: Situation, whose: Whose) -> list[Action]:
    """Return what resets one host: kubeadm's part where it has to go, and what plugins left.

    Args:
        name: The host.
        situation: What stands on the hosts, and which have to go.
        whose: Whose traces are looked for.
    """
    here = situation.facts[name]
    actions = []
    if name in situation.reset:
        why = situation.reset[name]
        if here.version("kubeadm"):
            actions.append(
                Action(
                    name,
                    f"reset kubeadm: {why}",
                    Cmd.change("kubeadm", "reset", "-f"),
                    changes_cluster=True,
                )
            )
        else:
            actions += without_kubeadm.actions(name, here, why)
    return actions + leftovers(name, here, situation, whose)


def leftovers(name: str, here: HostFacts, situation: Situation, whose: Whose) -> list[Action]:
    """Return the removal of what plugins left, where no part of the wanted cluster uses it."""
    if situation.wanted and name not in situation.reset and here.kubeadm.joined:
        return []  # another plugin's traces here would have made the cluster an unwanted one
    return removals(name, here, whose)


def any_network(ctx: Context) -> Whose:
    """Return whose traces a reset looks for: every known network's."""
    peers = frozenset(host.node_address for host in ctx.params.hosts)
    return Whose(None, ctx.params.effective_pod_cidr, peers)
