"""Stage 1: is everything there that the build needs? Says it all at once, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from kitlib import checks
from kitlib.facts import reach
from kitlib.fanout import fan_out
from kitlib.model import Check
from kitlib.stages.base import Context, Plan, Stage
from kitlib.stages.package_sources import offers

__all__ = ["Preflight"]


class Preflight(Stage):
    """Every host reachable, root, fit, and connected to every other one."""

    name = "preflight"
    title = "Check the hosts before anything is changed"
    changes_nothing = True

    def plan(self, ctx: Context) -> Plan:
        """Return the empty plan."""
        del ctx
        return Plan(reason="preflight only looks")

    def check(self, ctx: Context) -> list[Check]:
        """Return one check for each thing that would stop or spoil the build."""
        addresses = {host.name: host.node_address for host in ctx.hosts}

        def reached_from(name: str) -> Mapping[str, bool]:
            others = [address for other, address in addresses.items() if other != name]
            return reach.parse(ctx.read(name, reach.command(others)).stdout)

        heard = fan_out(reached_from, addresses).raise_first()
        facts = ctx.facts()
        found = checks.preflight(facts, ctx.params, ctx.plugin, heard)
        return [*found, *offers(ctx, facts)]
