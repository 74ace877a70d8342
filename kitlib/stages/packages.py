"""Stage 3: kubernetes-cni, kubelet, kubeadm and kubectl in the wanted version on every host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from kitlib import checks
from kitlib.command import Cmd, script
from kitlib.facts import HostFacts
from kitlib.model import Check
from kitlib.software.settings import (
    APPLY_SYSCTLS,
    MODULES_FILE,
    MODULES_TEXT,
    SWAP_OFF,
    SYSCTLS,
    SYSCTLS_FILE,
    SYSCTLS_TEXT,
    wanting,
)
from kitlib.stages.base import Action, Context, Hands, Plan, Stage

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
            actions += _settings(name, here, ctx.params.swap)
            actions += _for_host(name, here, version)
        reason = "" if actions else f"every host is ready for Kubernetes {version} and has it"
        return Plan(tuple(actions), reason)

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host whether its settings and the packages' versions are as wanted."""
        facts = ctx.facts()
        return [*checks.settings(facts, ctx.params), *checks.packages(facts, ctx.params)]


def _settings(name: str, here: HostFacts, swap: str) -> list[Action]:
    """Return what brings modules, sysctls and swap into order, now and for every start."""
    lacks = wanting(here, swap)
    actions = []
    if lacks.keep_modules:
        what = f"have {', '.join(lacks.keep_modules)} loaded at each start: {MODULES_FILE}"
        actions.append(Action(name, what, do=_writes(name, MODULES_TEXT, MODULES_FILE)))
    if lacks.load:
        what = f"load the kernel modules {', '.join(lacks.load)}"
        actions.append(Action(name, what, Cmd.change("modprobe", "-a", *lacks.load)))
    if lacks.keep_sysctls:
        what = f"keep {', '.join(lacks.keep_sysctls)} on: {SYSCTLS_FILE}"
        actions.append(Action(name, what, do=_writes(name, SYSCTLS_TEXT, SYSCTLS_FILE)))
    if lacks.set or ("br_netfilter" in lacks.load):
        given = [f"{setting}={value}" for setting, value in SYSCTLS.items()]
        command = script(APPLY_SYSCTLS, *given, mutates=True, label="set the sysctls")
        what = f"switch on now: {', '.join(lacks.set or SYSCTLS)}"
        actions.append(Action(name, what, command))
    if lacks.swaps or lacks.swap_lines:
        areas = ", ".join(lacks.swaps) or "its lines in /etc/fstab"
        actions.append(
            Action(
                name,
                f"switch swap off, now and in /etc/fstab: {areas}",
                script(SWAP_OFF, mutates=True, label="swapoff -a, and its lines in /etc/fstab"),
            )
        )
    return actions


def _writes(name: str, content: str, path: str) -> Callable[[Hands], None]:
    def write(hands: Hands) -> None:
        hands.run(name, Cmd.change("mkdir", "-p", str(PurePosixPath(path).parent)))
        hands.put(name, content, path)

    return write


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
