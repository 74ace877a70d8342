"""Stage 3: every host ready to be a node: kernel settings, container runtime, packages."""

from __future__ import annotations

from kitlib import checks
from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.model import Check
from kitlib.stages.base import Action, Context, Plan, Stage
from kitlib.stages.node_setup import configure_containerd, needs_containerd, settings

__all__ = ["Packages"]

VERSIONED = ("kubelet", "kubeadm", "kubectl")
"""These carry the Kubernetes version; kubernetes-cni has one of its own."""
HELD = ("kubernetes-cni", *VERSIONED)
"""Kept from upgrades: a node's version changes when somebody decides it."""
RUNTIME = "containerd"
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


class Packages(Stage):
    """Kernel settings, containerd, and the Kubernetes packages, pinned and held."""

    name = "packages"
    title = "Prepare the hosts, install the Kubernetes packages"

    def plan(self, ctx: Context) -> Plan:
        """Return the installations; none where every package has the wanted version."""
        version = ctx.params.kubernetes_version
        actions: list[Action] = []
        for name, here in ctx.facts().items():
            actions += settings(name, here, ctx.params.swap)
            actions += _for_host(name, here, version)
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


def _for_host(name: str, here: HostFacts, version: str) -> list[Action]:
    missing = [package for package in VERSIONED if here.version(package) != version]
    bare = not here.version("kubernetes-cni")
    runtime = needs_containerd(here)
    actions = []
    if missing or bare or runtime:
        what = "read the package lists anew"
        actions.append(Action(name, what, Cmd.change("apt-get", "update", "-q", env=_QUIET)))
    if runtime:
        actions.append(Action(name, "install containerd: no container runtime", _install(RUNTIME)))
    actions += configure_containerd(name, here, version)
    if missing or bare:
        pinned = [f"{package}={version}-*" for package in VERSIONED]
        found = ", ".join(f"{p} {here.version(p) or 'absent'}" for p in missing)
        found = found or "kubernetes-cni absent"
        what = f"install the packages of Kubernetes {version}: {found}"
        actions.append(Action(name, what, _install("kubernetes-cni", *pinned)))
    held = [package for package in HELD if (here.packages or {}).get(package) is not None]
    if missing or bare or not all((here.packages or {})[p].held for p in held):
        actions.append(
            Action(name, "keep their versions from upgrades", Cmd.change("apt-mark", "hold", *HELD))
        )
    return actions


def _install(*packages: str) -> Cmd:
    return Cmd.change(
        "apt-get",
        "install",
        "-y",
        "--allow-downgrades",
        "--allow-change-held-packages",
        # A configuration file that the kit or somebody else changed is kept, without a question.
        "-o",
        "Dpkg::Options::=--force-confold",
        *packages,
        env=_QUIET,
    )
