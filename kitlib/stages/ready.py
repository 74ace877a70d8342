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
from kitlib.model import CLUSTER, Check
from kitlib.stages.base import Context, Plan, Stage
from kitlib.stages.network import manifest_check
from kitlib.stages.observe import (
    plugin_pods,
    wait_for_nodes,
    wait_for_workloads,
    workload_objects,
)

__all__ = ["STEADY_SECONDS", "Ready", "Steady"]

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
        wait_for_workloads(ctx, ctx.plugin.workloads, seconds=limit)
        steady = Steady(ctx)
        facts = ctx.facts(fresh=True)
        _note_configurations(ctx, facts)
        judged += [*checks.cni(facts, ctx.plugin), *steady.end()]
        # Judged last: a container that crashed meanwhile is counted only after its back-off.
        objects = workload_objects(ctx.kube(), ctx.plugin.workloads)
        return [*judged, *checks.workloads(objects, ctx.plugin, nodes=len(nodes))]


def _note_configurations(ctx: Context, facts: Mapping[str, HostFacts]) -> None:
    """Write into the journal when each host's CNI configuration was written, by the file's time."""
    for name, here in facts.items():
        if here.cni.in_force is not None:
            path = f"/etc/cni/net.d/{here.cni.in_force.name}"
            found = ctx.read(name, Cmd.of("stat", "-c", "%.Y", path))
            if found.ok:
                written = {"path": path, "modified": float(found.stdout)}
                ctx.journal.event("snapshot", host=name, cni_configuration=written)


class Steady:
    """A watch over the plugin's containers, begun now: they must not restart for a while."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._counts = self._read()
        self._begun = time.monotonic()

    def end(self) -> list[Check]:
        """Return one check a container, once STEADY_SECONDS have passed since the beginning."""
        left = self._begun + STEADY_SECONDS - time.monotonic()
        if left > 0:
            self._ctx.waiting(CLUSTER, f"the plugin's restart counts for {left:.0f} s more")
            time.sleep(left)
        return checks.restarts(self._counts, self._read(), STEADY_SECONDS)

    def _read(self) -> dict[str, int]:
        return checks.restart_counts(
            plugin_pods(self._ctx.kube(), self._ctx.plugin), self._ctx.plugin
        )
