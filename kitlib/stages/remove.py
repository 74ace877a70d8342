"""Hosts leave a cluster that goes on: each is reset as the reset stage resets one, and forgotten.

The order is kubeadm's: the host is reset while the cluster still knows it, so that its kubelet is
gone before its Node (it would make itself a new one) and a control plane takes its own member out
of etcd. What kubeadm only warns of, a member that stays, is made sure of here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kitlib.errors import ApiError, CommandError, GuardError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.retry import Deadline
from kitlib.stages import etcd
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.reset import any_network, host_actions, kubeconfig_check, leftovers
from kitlib.stages.situation import Situation

__all__ = ["Remove", "home", "last_plane", "left_on"]

API_SECONDS = 60.0
"""How long the API may take to answer again, after a control plane has left."""
_WHY = "it leaves the cluster"


class Remove(Stage):
    """Hosts reset, their etcd members out, their Nodes deleted.

    Args:
        names: The hosts.
        down: Those that cannot be reached: the cluster forgets them, and they are not reset.
    """

    name = "remove"
    title = "Reset the hosts, and delete their Nodes"
    needs_api = True

    def __init__(self, names: Sequence[str], *, down: Sequence[str] = ()) -> None:
        self._names = tuple(names)
        self._down = tuple(down)

    def plan(self, ctx: Context) -> Plan:
        """Return for each host its reset, its etcd member's end, its Node's end; what is left.

        Raises:
            GuardError: A host is in another cluster.
            PreconditionError: It would be the last control plane, or etcd's majority would go.
        """
        main = home(ctx, self._names)
        for name in self._names:
            if name not in self._down:
                _same_cluster(ctx.facts()[name], main)
        nodes, members = self._known(ctx)
        planes = self._planes(ctx)
        if planes:
            etcd.check_removal(ctx.kube(), *planes)
        actions: list[Action] = []
        for name in self._names:
            if name not in self._down:
                actions += self._reset(ctx, name, counted=name in members)
            if name in members:
                actions.append(_member(ctx, name))
            if name in nodes:
                actions.append(_node(ctx, name, down=name in self._down))
        return Plan(tuple(actions), "" if actions else "nothing to do: it is in no cluster")

    def turns(self, ctx: Context, targets: Sequence[str]) -> list[list[str]]:
        """Return the workers side by side, then each control plane by itself: etcd is counted."""
        planes = [name for name in self._planes(ctx) if name in targets]
        return [[name for name in targets if name not in planes], *([name] for name in planes)]

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host that it is clean, and that the cluster has nothing of it."""
        nodes, members = self._known(ctx)
        checks = []
        for name in self._names:
            known = (["a Node"] if name in nodes else []) + (
                ["an etcd member"] if name in members else []
            )
            checks.append(
                Check.that(
                    not known,
                    "remove.forgotten",
                    name,
                    "the cluster has nothing of it",
                    got=" and ".join(known) or "forgotten",
                    expected="no Node and no etcd member",
                    remedy="run the same command again",
                )
            )
            checks.append(self._clean(ctx, name))
            if name not in self._down and (path := ctx.facts()[name].leftovers.kubeconfig):
                checks.append(kubeconfig_check(name, path))
        return checks

    def _clean(self, ctx: Context, name: str) -> Check:
        if name in self._down:
            return Check(
                "remove.clean",
                name,
                Status.WARN,
                "holds nothing of the cluster",
                got="it cannot be reached, and was not reset",
                expected="a clean host",
                remedy="if it comes back: the same command again resets it; until then its kubelet "
                "is refused by the cluster",
            )
        rest = left_on(ctx, name)
        return Check.that(
            not rest,
            "remove.clean",
            name,
            "holds nothing of the cluster",
            got="; ".join(rest) or "clean",
            expected="a clean host",
            remedy="look at the record of this stage: a command did not remove it",
        )

    def _known(self, ctx: Context) -> tuple[set[str], set[str]]:
        """Return the names of the Nodes, and of etcd's members where a control plane goes."""
        kube = ctx.kube()
        nodes = {node["metadata"]["name"] for node in kube.items("/api/v1/nodes")}
        planes = self._planes(ctx)
        return nodes, {member.name for member in etcd.members(kube)} if planes else set()

    def _planes(self, ctx: Context) -> list[str]:
        """Return the control planes in the order in which they go: those that are down first."""
        planes = [host.name for host in ctx.params.hosts if host.is_control_plane]
        named = [name for name in planes if name in self._names]
        return sorted(named, key=lambda name: name not in self._down)

    def _reset(self, ctx: Context, name: str, *, counted: bool) -> list[Action]:
        situation = _situation(ctx, name)
        actions = host_actions(name, situation, any_network(ctx))
        if counted and name in situation.reset:
            actions[0] = replace(actions[0], do=_counted(ctx, actions[0]))
        return actions


def home(ctx: Context, leaving: Sequence[str]) -> HostFacts:
    """Return the facts of the control plane from which the cluster is judged: one that stays.

    Raises:
        PreconditionError: None stays: the cluster would be gone, or there is none.
    """
    facts = ctx.facts()
    planes = [h.name for h in ctx.control_planes if facts[h.name].kubeadm.initialised]
    staying = [name for name in planes if name not in leaving]
    if staying:
        return facts[staying[0]]
    if planes:
        raise last_plane(planes[-1])
    raise PreconditionError(
        "remove: no control plane of the parameters has a cluster",
        remedy="kit hosts shows what is on each host; kit stage reset cleans what is left",
    )


def last_plane(name: str) -> PreconditionError:
    """Return the refusal to remove the last control plane."""
    return PreconditionError(
        f"{name}: not removed: it is the last control plane, the cluster would end with it",
        remedy="to end the cluster: kit stage reset --rebuild, with confirm_reset in the file",
    )


def left_on(ctx: Context, name: str) -> list[str]:
    """Return what a host still holds of a cluster or a plugin; nothing on a clean one."""
    here = ctx.facts()[name]
    found = [f"kubeadm's files: {', '.join(here.kubeadm.files)}"] if not here.kubeadm.clean else []
    situation = _situation(ctx, name)
    return found + [action.what for action in leftovers(name, here, situation, any_network(ctx))]


def _same_cluster(here: HostFacts, main: HostFacts) -> None:
    state = here.kubeadm
    if state.joined and state.ca_hash != main.kubeadm.ca_hash:
        raise GuardError(
            f"{here.name}: not removed: it is in another cluster, {state.ca_hash or 'without a CA'}"
            f" at {state.server or '?'}",
            remedy="name it in the parameters of that cluster, and remove it there",
        )


def _situation(ctx: Context, name: str) -> Situation:
    """Return the situation of a host that goes, in a cluster that stays."""
    facts = ctx.facts()
    return Situation(facts, True, {} if facts[name].kubeadm.clean else {name: _WHY})


def _counted(ctx: Context, reset: Action) -> Callable[[Hands], None]:
    """Return the reset of a control plane, behind a count of etcd's members at that moment."""

    def do(hands: Hands) -> None:
        _patiently(ctx, reset.target, lambda: etcd.check_removal(hands.kube(), reset.target))
        assert reset.command is not None  # noqa: S101 - as every action of the reset stage
        hands.run(reset.target, reset.command)

    return do


def _member(ctx: Context, name: str) -> Action:
    def do(hands: Hands) -> None:
        def work() -> None:
            etcd.check_removal(hands.kube(), name)
            etcd.remove_member(hands.kube(), name)

        _patiently(ctx, name, work)

    return Action(name, "take its member out of etcd, where it is still in it", do=do)


def _node(ctx: Context, name: str, *, down: bool) -> Action:
    def do(hands: Hands) -> None:
        _patiently(ctx, name, lambda: hands.kube().delete(f"/api/v1/nodes/{name}"))

    why = " (the host cannot be reached, and is not reset)" if down else ""
    return Action(name, f"delete its Node{why}", do=do)


def _patiently(ctx: Context, name: str, work: Callable[[], None]) -> None:
    """Do what the API is needed for, through the time in which it finds another control plane."""
    deadline = Deadline(API_SECONDS, f"{name}: the API")
    while True:
        try:
            work()
        except (ApiError, CommandError) as error:
            again = isinstance(error, CommandError) or error.retryable
            if not again or deadline.left < 1:
                raise
            ctx.waiting(name, f"the API: {error.message.splitlines()[0]}")
            deadline.sleep(1)
        else:
            return
