"""Stage 1: is everything there that the build needs? Says it all at once, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kitlib import checks
from kitlib.checks import found_clusters
from kitlib.errors import ConnectError, KitError
from kitlib.facts import HostFacts, members, reach
from kitlib.facts.reach import Answer
from kitlib.fanout import fan_out
from kitlib.model import Check, Status
from kitlib.stages.base import Context, Plan, Stage, who
from kitlib.stages.package_sources import offers

__all__ = ["ANSWERS", "Preflight"]

ANSWERS = "host.answers"
"""The id of the check that a host can be reached; one that cannot is an error of its own kind."""


class Preflight(Stage):
    """Every host reachable, root, fit, and connected to every other one."""

    name = "preflight"
    title = "Check the hosts before anything is changed"
    changes_nothing = True
    looks_in_dry_run = True

    def preconditions(self, ctx: Context) -> list[Check]:
        """Return none: what other stages take for granted is what this one finds out."""
        del ctx
        return []

    def plan(self, ctx: Context) -> Plan:
        """Return the empty plan."""
        del ctx
        return Plan(reason="preflight only looks")

    def check(self, ctx: Context) -> list[Check]:
        """Return one check for each thing that would stop or spoil the build.

        A host that cannot be reached fails one check; the others are judged all the same.
        """
        fanned = ctx.doors.facts([host.name for host in ctx.hosts], fresh=True)
        answers = [
            _answers(host.name, fanned.values.get(host.name), fanned.errors.get(host.name))
            for host in ctx.hosts
        ]
        facts = fanned.values
        heard = fan_out(lambda name: _reached(ctx, name), facts).values
        nodes = _members(ctx, facts)
        return [
            *answers,
            *checks.preflight(facts, ctx.params, ctx.plugin, heard, nodes),
            *offers(ctx, facts),
        ]

    def failure(self, bad: Sequence[Check]) -> KitError:
        """Return the error of the failed checks: of its own kind where a host is out of reach."""
        error = super().failure(bad)
        lost = [check.target for check in bad if check.id == ANSWERS]
        if not lost:
            return error
        count = "1 host" if len(lost) == 1 else f"{len(lost)} hosts"
        first, _, lines = error.message.partition("\n")
        first = first.replace(": ", f": {count} cannot be reached ({', '.join(lost)}); ", 1)
        return ConnectError(f"{first}\n{lines}")


def _answers(name: str, facts: HostFacts | None, error: Exception | None) -> Check:
    if facts is not None:
        return Check(ANSWERS, name, Status.PASS, "answers over SSH", got=who(facts))
    message = error.message if isinstance(error, KitError) else repr(error)
    lost = isinstance(error, ConnectError)
    return Check(
        ANSWERS if lost else "host.facts",
        name,
        Status.FAIL,
        "answers over SSH" if lost else "its facts can be read",
        got=_without(name, message),
        expected="an answer" if lost else "output that the kit knows",
        remedy=(error.remedy if isinstance(error, KitError) else "")
        or "is the host up, and is its address right in the parameters?",
    )


def _without(name: str, message: str) -> str:
    """Return an error's message without the host's name, which stands beside it already."""
    if message.startswith(f"{name} ("):
        return message.removeprefix(f"{name} (").replace("): ", ": ", 1)
    return message.removeprefix(f"{name}: ")


def _reached(ctx: Context, name: str) -> Mapping[str, Answer]:
    others = [host.node_address for host in ctx.hosts if host.name != name]
    return reach.parse(ctx.read(name, reach.command(others)).stdout) if others else {}


def _members(ctx: Context, facts: Mapping[str, HostFacts]) -> Mapping[str, tuple[str, ...]]:
    """Return host -> the nodes of the cluster whose administrator's kubeconfig it has.

    One host of each cluster is asked; a cluster that does not answer has none to tell.
    """
    homes = [
        next((name for name in each.hosts if facts[name].kubeadm.initialised), "")
        for each in found_clusters(facts, ctx.params)
    ]
    asked = fan_out(
        lambda name: members.parse(ctx.read(name, members.command()).stdout), filter(None, homes)
    )
    return {name: told for name, told in asked.values.items() if told}
