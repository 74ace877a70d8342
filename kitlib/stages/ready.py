"""Stage 7: watch NotReady become Ready, and judge whether that Ready means a working network.

Nodes turn Ready as soon as any CNI configuration lies on the host, also one that an earlier cluster
left; so this stage asks for more before it says PASS. A network without a manifest is written on
the hosts here, once each Node has its podCIDR.
"""

from __future__ import annotations

from collections.abc import Mapping

from kitlib import checks
from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.stages import per_node, way_back
from kitlib.stages.base import Context, Plan, Stage
from kitlib.stages.network import manifest_check
from kitlib.stages.observe import (
    Steady,
    counted,
    in_the_cluster,
    wait_for_nodes,
    wait_for_workloads,
    workload_objects,
)
from kitlib.stages.presence import absences

__all__ = ["Ready"]


class Ready(Stage):
    """Every node Ready, every workload of the plugin available and steady, one network on all."""

    name = "ready"
    title = "Wait until the nodes are Ready, and judge what made them so"
    changes_nothing = True
    needs_api = True
    judges_the_rest = True

    def only_looks(self, ctx: Context) -> bool:
        """Return whether it only watches.

        A network without a manifest is written here, and the way back from a plugin that moves the
        hosts' address is called off.
        """
        return ctx.plugin.per_node is None and not way_back.is_needed(ctx)

    def plan(self, ctx: Context) -> Plan:
        """Return what a network without a manifest needs on each host; else the empty plan."""
        if ctx.plugin.per_node is not None:
            return per_node.plan(ctx)
        # Those that joined since the network stage; in a dry run, those that would.
        unready = [host.name for host in ctx.hosts if host.name not in in_the_cluster(ctx)]
        hosts = [*way_back.armed(ctx), *(unready if ctx.read_only else ())]
        done = way_back.call_offs(ctx, hosts)
        return Plan(tuple(done), "" if done else "ready only watches")

    def check(self, ctx: Context) -> list[Check]:
        """Return the judged state, after waiting for it up to `timeouts.ready` seconds."""
        limit = ctx.params.timeouts.ready
        judged = [manifest_check(ctx), *absences(ctx, Status.FAIL)]
        # A host that is in no cluster fails a check at once: waiting does not make it a node.
        nodes = wait_for_nodes(ctx, in_the_cluster(ctx), limit)
        judged += checks.nodes(nodes, ctx.params, ctx.plugin)
        wait_for_workloads(ctx, ctx.plugin.workloads, seconds=limit)
        steady = Steady(ctx)
        read = ctx.facts(fresh=True)
        facts = {name: read[name] for name in in_the_cluster(ctx)}
        _note_configurations(ctx, facts)
        judged += [*checks.cni(facts, ctx.plugin), *steady.end()]
        # Judged last: a container that crashed meanwhile is counted only after its back-off.
        objects = workload_objects(ctx.kube(), ctx.plugin.workloads)
        return [*judged, *checks.workloads(objects, ctx.plugin, **counted(ctx, nodes))]


def _note_configurations(ctx: Context, facts: Mapping[str, HostFacts]) -> None:
    """Write into the journal when each host's CNI configuration was written, by the file's time."""
    for name, here in facts.items():
        if here.cni.in_force is not None:
            path = f"/etc/cni/net.d/{here.cni.in_force.name}"
            found = ctx.read(name, Cmd.of("stat", "-c", "%.Y", path))
            if found.ok:
                written = {"path": path, "modified": float(found.stdout)}
                ctx.journal.event("snapshot", host=name, cni_configuration=written)
