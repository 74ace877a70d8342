"""Stage 3: every host ready to be a node: kernel settings, container runtime, packages."""

from __future__ import annotations

from kitlib import checks
from kitlib.facts import HostFacts
from kitlib.model import Check
from kitlib.software import apt
from kitlib.software.steps import Step
from kitlib.stages.base import Action, Context, Plan, Stage
from kitlib.stages.node_setup import configure_containerd, settings, writes
from kitlib.stages.package_sources import fetch_key, offers, standing

__all__ = ["Packages"]


class Packages(Stage):
    """Kernel settings, containerd, and the Kubernetes packages, pinned and held."""

    name = "packages"
    title = "Prepare the hosts, install the Kubernetes packages"

    def preconditions(self, ctx: Context) -> list[Check]:
        """Return also whether the version can be had, and that no cluster runs on another one."""
        found = super().preconditions(ctx)
        facts = ctx.facts()
        return [*found, *standing(facts, ctx.params), *offers(ctx, facts)]

    def plan(self, ctx: Context) -> Plan:
        """Return the changes; none where every host is prepared and has the wanted packages.

        Raises:
            KitError: The repository's key cannot be had, or is another one.
        """
        params, facts = ctx.params, ctx.facts()
        key = fetch_key(params, "deb") if any(_lacks_key(ctx, f) for f in facts.values()) else ""
        actions: list[Action] = []
        for name, here in facts.items():
            actions += settings(name, here, params.swap)
            actions += [_action(name, step) for step in apt.steps(here, params, key)]
            actions += configure_containerd(name, here, params.kubernetes_version)
        version = params.kubernetes_version
        reason = "" if actions else f"every host is ready for Kubernetes {version} and has it"
        return Plan(tuple(actions), reason)

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host whether its settings and the packages' versions are as wanted."""
        facts, params = ctx.facts(), ctx.params
        return [
            *checks.settings(facts, params),
            *checks.container_runtime(facts, params),
            *checks.packages(facts, params),
        ]


def _lacks_key(ctx: Context, here: HostFacts) -> bool:
    steps = apt.repository_steps(here, ctx.params, "")
    return any(step.path == apt.KEY_FILE for step in steps)


def _action(name: str, step: Step) -> Action:
    if step.command is None:
        return Action(name, step.what, do=writes(name, step.content, step.path))
    return Action(name, step.what, step.command)
