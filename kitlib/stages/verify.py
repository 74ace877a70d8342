"""Stage 8: pods made now, on every node, reach each other, and names resolve through a Service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kitlib import checks
from kitlib.checks.reachability import Heard
from kitlib.errors import ApiError, CommandError
from kitlib.facts import HostFacts
from kitlib.fanout import fan_out
from kitlib.model import Check, Status
from kitlib.probes import dns, ping
from kitlib.stages.agents import Agents, AgentSet, agents
from kitlib.stages.base import Action, Context, Plan, Stage
from kitlib.stages.network import manifest_check
from kitlib.stages.observe import (
    Steady,
    counted,
    in_the_cluster,
    network_now,
    workload_objects,
)
from kitlib.stages.presence import absences

__all__ = ["Verify"]

PACKETS = 5
"""Packets for each ordered pair: enough to tell a path that works from one that does not."""
INTERVAL = 0.2
NAME = "kubernetes.default.svc.cluster.local"


class Verify(Stage):
    """Probe pods, their addresses and devices, every ordered pair, DNS; then nothing is left."""

    name = "verify"
    title = "Prove that pods reach each other"
    needs_api = True
    judges_the_rest = True

    def plan(self, ctx: Context) -> Plan:
        """Return the probe namespace's coming and going, the only things that this changes."""
        # A dry run takes it that the stages before this one were done: every host is a node.
        nodes = () if ctx.read_only else in_the_cluster(ctx)
        wanted = AgentSet.of(ctx, nodes, image=ctx.params.probe.image, server=False)
        return Plan((wanted.create,), cleanup=(wanted.remove,))

    def apply(self, ctx: Context, plan: Plan) -> None:
        """Make the probe pods, measure, remove them; `check` reports what was measured."""
        wanted = _planned(plan.actions[0])
        steady = Steady(ctx)
        facts = ctx.facts()
        with agents(ctx, wanted) as found:
            measured = _measure(ctx, found, facts)
        ctx.results[self.name] = [*measured, *steady.end()]

    def check(self, ctx: Context) -> list[Check]:
        """Return what was measured, and that the plugin is still whole."""
        nodes = ctx.kube().items("/api/v1/nodes")
        objects = workload_objects(ctx.kube(), ctx.plugin.workloads)
        facts, inside = ctx.facts(), in_the_cluster(ctx)
        return [
            manifest_check(ctx),
            *absences(ctx, Status.FAIL),
            *checks.nodes(nodes, ctx.params, ctx.plugin),
            *checks.workloads(objects, ctx.plugin, **counted(ctx, nodes)),
            *checks.cni({name: facts[name] for name in inside}, ctx.plugin),
            *ctx.results.pop(self.name, []),
        ]


def _planned(action: Action) -> AgentSet:
    wanted = getattr(action.do, "__self__", None)
    assert isinstance(wanted, AgentSet)  # noqa: S101 - the plan is this module's own
    return wanted


def _measure(ctx: Context, found: Agents, facts: Mapping[str, HostFacts]) -> list[Check]:
    before = network_now(ctx, facts)
    addresses = found.addresses()
    kube = ctx.kube()
    node_cidrs = {
        node["metadata"]["name"]: node.get("spec", {}).get("podCIDR", "")
        for node in kube.items("/api/v1/nodes")
    }
    judged = [_exists(node, found) for node in found.nodes]
    judged += checks.pods(found.pods, before, ctx.params, ctx.plugin, node_cidrs=node_cidrs)

    alive = [node for node in found.nodes if node in addresses]
    ctx.waiting("cluster", f"pinging {len(alive) * (len(alive) - 1)} ordered pairs of pods")
    told = fan_out(lambda node: _ping_from(found, node, addresses, alive), alive)
    heard = {pair: how for each in told.raise_first().values() for pair, how in each.items()}
    judged += checks.reachability(found.nodes, heard)
    sent = {node: sum(h.sent for (source, _), h in heard.items() if source == node)
            for node in alive}  # fmt: skip
    after = network_now(ctx, facts)
    judged += checks.device_counters(before, after, ctx.plugin, sent)
    return [*judged, *_names(ctx, found, alive)]


def _ping_from(
    found: Agents, source: str, addresses: Mapping[str, str], alive: Sequence[str]
) -> dict[tuple[str, str], Heard]:
    """Return how a node's pod fared with every other one.

    One command does them all: starting a command in a pod costs the kit and the API much more than
    a ping does. Each node begins with its successor, so that the nodes that ping side by side do
    not all ping the same one.
    """
    here = alive.index(source)
    targets = [*alive[here + 1 :], *alive[:here]]
    if not targets:
        return {}
    cmd = ping.sweep([addresses[target] for target in targets], count=PACKETS, interval=INTERVAL)
    try:
        result = found.run(source, cmd)
    except (ApiError, CommandError) as error:
        why = error.message.splitlines()[0]
        return {(source, target): Heard(PACKETS, 0, why) for target in targets}
    swept = ping.parse_sweep(result.stdout, count=PACKETS)
    return {
        (source, target): _heard(swept[addresses[target]])
        for target in targets
        if addresses[target] in swept
    }


def _heard(samples: Sequence[ping.Sample]) -> Heard:
    reasons = sorted({sample.reason for sample in samples if sample.reason})
    got = sum(not sample.lost and not sample.duplicate for sample in samples)
    return Heard(PACKETS, got, ", ".join(reasons))


def _names(ctx: Context, found: Agents, alive: list[str]) -> list[Check]:
    """Return for each node whether its pods get a name's address, by way of a ClusterIP."""
    wanted = str(ctx.params.service_cidr.network_address + 1)

    def look_up(node: str) -> str:
        cmd = dns.command(NAME)
        try:
            result = found.run(node, cmd)
        except (ApiError, CommandError) as error:
            return error.message.splitlines()[0]
        answer = dns.parse(result.stdout + result.stderr)
        return ", ".join(answer.addresses) or answer.error

    ctx.waiting("cluster", f"resolving {NAME} on every node")
    answers = fan_out(look_up, alive, workers=16).raise_first()
    return [
        Check.that(
            answers[node] == wanted,
            "verify.dns",
            node,
            f"a pod resolves {NAME} through the DNS Service",
            got=answers[node],
            expected=wanted,
            remedy="are the coredns pods and kube-proxy on this node running? "
            "kubectl -n kube-system get pods -o wide",
        )
        for node in alive
    ]


def _exists(node: str, found: Agents) -> Check:
    why = found.missing.get((node, "pod"), "")
    return Check(
        "verify.probe-pod",
        node,
        Status.FAIL if why else Status.PASS,
        "a pod made now runs and has an address",
        got=why or found.agent(node).address,
        expected="Running, with an address" if why else "",
        remedy="kubectl get events -A: the reason stands in FailedCreatePodSandBox or Failed"
        if why
        else "",
    )
