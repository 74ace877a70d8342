"""Stage 3: every host ready to be a node: kernel settings, container runtime, packages."""

from __future__ import annotations

from types import ModuleType

from kitlib import checks
from kitlib.facts import HostFacts
from kitlib.model import Check
from kitlib.software import apt, directory, dnf, proxy
from kitlib.software.bundle import verify
from kitlib.software.cni_programs import lost
from kitlib.software.steps import Step
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.bundle_source import bundle_fits, bundle_of, images_there, inside
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
        found += [*standing(facts, ctx.params), *offers(ctx, facts)]
        return found + bundle_fits(bundle_of(ctx), facts, ctx.params)

    def plan(self, ctx: Context) -> Plan:
        """Return the changes; none where every host is prepared and has the wanted packages.

        Raises:
            KitError: The repository's key cannot be had, or is another one; or a file of the
                bundle is not what was bundled.
        """
        params, facts = ctx.params, ctx.facts()
        keys = {
            kind: fetch_key(params, kind)
            for kind in {_kind(here) for here in facts.values() if _lacks_key(ctx, here)}
        }
        bundle = bundle_of(ctx)
        if bundle:
            verify(bundle)
        actions: list[Action] = []
        for name, here in facts.items():
            actions += settings(name, here, params.swap)
            through = proxy.steps(here, params)
            actions += [_action(name, step) for step in through]
            if bundle:
                got = inside(ctx, name, bundle)
                before = directory.steps_before(here, got, bundle, lost(here, params))
                copied = any(step.sends for step in before)
                after = directory.steps_after(got, bundle, copied=copied)
            else:
                key = keys.get(_kind(here), "")
                before, after = _system(here).steps(here, params, key), []
            actions += [_action(name, step) for step in before]
            actions += configure_containerd(
                name, here, params.kubernetes_version, restart=bool(through)
            )
            actions += [_action(name, step) for step in after]
        version = params.kubernetes_version
        reason = "" if actions else f"every host is ready for Kubernetes {version} and has it"
        return Plan(tuple(actions), reason)

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host whether its settings and the packages' versions are as wanted."""
        facts, params = ctx.facts(), ctx.params
        bundle = bundle_of(ctx)
        return [
            *checks.settings(facts, params),
            *checks.package_sources(facts, params),
            *checks.container_runtime(facts, params),
            *checks.packages(facts, params),
            *(images_there(ctx, bundle) if bundle else ()),
        ]


def _system(here: HostFacts) -> ModuleType:
    """Return what knows the host's package manager; Debian's where there is none of the two."""
    return dnf if here.repository.manager == "dnf" else apt


def _kind(here: HostFacts) -> str:
    return "rpm" if here.repository.manager == "dnf" else "deb"


def _lacks_key(ctx: Context, here: HostFacts) -> bool:
    steps = _system(here).repository_steps(here, ctx.params, "")
    return any(step.path in (apt.KEY_FILE, dnf.KEY_FILE) for step in steps)


def _action(name: str, step: Step) -> Action:
    if step.command is not None:
        return Action(name, step.what, step.command)
    write = writes(name, step.content, step.path, mode=step.mode)

    def do(hands: Hands) -> None:
        # The list of checksums is written first: its directory is there then.
        write(hands)
        for file, path in step.sends:
            hands.send(name, file, path)

    return Action(name, step.what, do=do)
