"""Stage 1: is everything there that the build needs? Says it all at once, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from kitlib import checks
from kitlib.checks import found_clusters
from kitlib.errors import ConnectError, KitError, ParamsError, PreconditionError, RecordError
from kitlib.facts import HostFacts, members, reach
from kitlib.facts.reach import Answer
from kitlib.fanout import fan_out
from kitlib.inventory import Host
from kitlib.model import CLUSTER, Check, Status
from kitlib.stages.base import Context, Plan, Stage
from kitlib.stages.fetching import prepared
from kitlib.stages.package_sources import offers
from kitlib.stages.presence import ANSWERS, who, without_name

__all__ = ["Preflight"]


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

        Raises:
            RecordError: What the hosts said cannot be written.
        """
        fanned = ctx.doors.facts([host.name for host in ctx.hosts], fresh=True)
        for error in fanned.errors.values():
            if isinstance(error, RecordError):
                raise error  # this machine's trouble, not the host's
        heard = fan_out(lambda name: _reached(ctx, name), fanned.values).values
        answers = [
            _lost(host, fanned.errors[host.name], heard)
            if host.name in fanned.errors
            else Check(
                ANSWERS,
                host.name,
                Status.PASS,
                "answers over SSH",
                got=who(fanned.values[host.name]),
            )
            for host in ctx.hosts
        ]
        told = _members(ctx, fanned.values)
        return [
            *answers,
            *checks.preflight(fanned.values, ctx.params, ctx.plugin, heard, told),
            *_manifest(ctx),
            *offers(ctx, fanned.values),
        ]


def _manifest(ctx: Context) -> list[Check]:
    """Return whether the plugin's manifest is at hand and can be applied as it is wanted."""
    if ctx.plugin.per_node is not None:
        return []
    ctx.manifest, got, remedy = None, "", ""  # a file may have been mended since the last look
    try:
        found = prepared(ctx)
        got = f"{len(found.objects)} objects of {found.where}"
    except (ParamsError, PreconditionError) as error:
        got, remedy = error.message, error.remedy
    return [
        Check.that(
            ctx.manifest is not None,
            "preflight.manifest",
            CLUSTER,
            f"the manifest of {ctx.plugin.title} can be had and applied",
            got=got,
            expected="objects that this Kubernetes serves",
            remedy=remedy,
        )
    ]


def _lost(host: Host, error: Exception, heard: Mapping[str, Mapping[str, Answer]]) -> Check:
    """Return the failed check of a host whose facts could not be had."""
    message = error.message if isinstance(error, KitError) else repr(error)
    remedy = error.remedy if isinstance(error, KitError) else ""
    if not isinstance(error, ConnectError):
        return Check(
            "host.facts",
            host.name,
            Status.FAIL,
            "its facts can be read",
            got=without_name(host.name, message),
            expected="output that the kit knows",
            remedy=remedy or "run the command on the host by hand; its output is in the record",
        )
    return Check(
        ANSWERS,
        host.name,
        Status.FAIL,
        "answers over SSH",
        got=without_name(host.name, message) + _from_others(host, heard),
        expected="an answer",
        remedy=remedy or "is the host up, and is its address right in the parameters?",
    )


def _from_others(host: Host, heard: Mapping[str, Mapping[str, Answer]]) -> str:
    """Return whether other hosts reach one that the kit does not: is it down, or only its SSH?"""
    if not heard:
        return ""
    near = sum(each.get(host.node_address) in (Answer.PING, Answer.TCP) for each in heard.values())
    return f"; {near} of {len(heard)} other hosts reach it at {host.node_address}"


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
