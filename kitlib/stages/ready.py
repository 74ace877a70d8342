"""Stage 7: watch NotReady become Ready, and judge whether that Ready means a working network.

Nodes turn Ready as soon as any CNI configuration lies on the host, also one that an earlier cluster
left; so this stage asks for more before it says PASS.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from kitlib import checks
from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.model import Check
from kitlib.stages.base import Context, Plan, Stage
from kitlib.stages.network import manifest_check
from kitlib.stages.observe import plugin_pods, wait_for_nodes, wait_for_workloads

__all__ = ["STEADY_SECONDS", "Ready", "steady"]

STEADY_SECONDS = 10.0
"""The plugin's containers must not restart for that long: a crash loop shows 1/1 in between."""


class Ready(Stage):
    """Every node Ready, every workload of the plugin available and steady, one network on all."""

    name = "ready"
    title = "Wait until the nodes are Ready, and judge what made them so"
    changes_nothing = True
    needs_api = True

    def plan(self, ctx: Context) -> Plan:
        """Return the empty plan."""
        del ctx
        return Plan(reason="ready only watches")

    def check(self, ctx: Context) -> list[Check]:
        """Return the judged state, after waiting for it up to `timeouts.ready` seconds."""
        limit = ctx.params.timeouts.ready
        judged = [manifest_check(ctx)]
        nodes = wait_for_nodes(ctx, [host.name for host in ctx.hosts], limit)
        judged += checks.nodes(nodes, ctx.params, ctx.plugin)
        objects = wait_for_workloads(ctx, ctx.plugin.workloads, seconds=limit)
        judged += checks.workloads(objects, ctx.plugin, nodes=len(nodes))
        judged += steady(ctx)
        facts = ctx.facts(fresh=True)
        _note_configurations(ctx, facts)
        return [*judged, *checks.cni(facts, ctx.plugin)]


def _note_configurations(ctx: Context, facts: Mapping[str, HostFacts]) -> None:
    """Write into the journal when each host's CNI configuration was written, by the file's time."""
    for name, here in facts.items():
        if here.cni.in_force is not None:
            path = f"/etc/cni/net.d/{here.cni.in_force.name}"
            found = ctx.read(name, Cmd.of("stat", "-c", "%.Y", path))
            if found.ok:
                written = {"path": path, "modified": float(found.stdout)}
                ctx.journal.event("snapshot", host=name, cni_configuration=written)


def steady(ctx: Context) -> list[Check]:
    """Return whether the plugin's containers ran on without a restart for STEADY_SECONDS."""
    before = checks.restart_counts(plugin_pods(ctx.kube(), ctx.plugin), ctx.plugin)
    ctx.waiting("cluster", f"watching the plugin's restart counts for {STEADY_SECONDS:g} s")
    time.sleep(STEADY_SECONDS)
    after = checks.restart_counts(plugin_pods(ctx.kube(), ctx.plugin), ctx.plugin)
    return checks.restarts(before, after, STEADY_SECONDS)
