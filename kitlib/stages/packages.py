"""Stage 3: kubernetes-cni, kubelet, kubeadm and kubectl in the wanted version on every host."""

from __future__ import annotations

from kitlib import checks
from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.model import Check
from kitlib.stages.base import Action, Context, Plan, Stage

__all__ = ["Packages"]

VERSIONED = ("kubelet", "kubeadm", "kubectl")
"""These carry the Kubernetes version; kubernetes-cni has one of its own."""
HELD = ("kubernetes-cni", *VERSIONED)
"""Kept from upgrades: a node's version changes when somebody decides it."""
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


class Packages(Stage):
    """`apt-get install kubernetes-cni kubelet kubeadm kubectl`, pinned and held."""

    name = "packages"
    title = "Install the Kubernetes packages"

    def plan(self, ctx: Context) -> Plan:
        """Return the installations; none where every package has the wanted version."""
        version = ctx.params.kubernetes_version
        actions: list[Action] = []
        for name, here in ctx.facts().items():
            actions += _for_host(name, here, version)
        reason = "" if actions else f"every host has the packages of Kubernetes {version}"
        return Plan(tuple(actions), reason)

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host and package whether its version is the wanted one."""
        return checks.packages(ctx.facts(), ctx.params)


def _for_host(name: str, here: HostFacts, version: str) -> list[Action]:
    missing = [package for package in VERSIONED if here.version(package) != version]
    bare = not here.version("kubernetes-cni")
    actions = []
    if missing or bare:
        pinned = [f"{package}={version}-*" for package in VERSIONED]
        found = ", ".join(f"{p} {here.version(p) or 'absent'}" for p in missing)
        found = found or "kubernetes-cni absent"
        actions += [
            Action(
                name,
                "read the package lists anew",
                Cmd.change("apt-get", "update", "-q", env=_QUIET),
            ),
            Action(
                name,
                f"install the packages of Kubernetes {version}: {found}",
                Cmd.change(
                    "apt-get",
                    "install",
                    "-y",
                    "--allow-downgrades",
                    "--allow-change-held-packages",
                    "kubernetes-cni",
                    *pinned,
                    env=_QUIET,
                ),
            ),
        ]
    held = [package for package in HELD if (here.packages or {}).get(package) is not None]
    if missing or bare or not all((here.packages or {})[p].held for p in held):
        actions.append(
            Action(name, "keep their versions from upgrades", Cmd.change("apt-mark", "hold", *HELD))
        )
    return actions
