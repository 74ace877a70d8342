"""What the packages stage does on a host besides installing: kernel settings, containerd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from kitlib.command import Cmd, script
from kitlib.facts import HostFacts
from kitlib.facts.containerd import parse_config
from kitlib.software import toml
from kitlib.software.containerd import CONFIG_FILE, configured, differences, needs_containerd
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
from kitlib.stages.base import Action, Hands

__all__ = ["configure_containerd", "settings", "writes"]

_WHO = "# Written by the cluster network kit; the file before it is config.toml.before-kubekit\n"
_KEEP = 'if [ -e "$1" ] && [ ! -e "$1.before-kubekit" ]; then cp -p "$1" "$1.before-kubekit"; fi'


def settings(name: str, here: HostFacts, swap: str) -> list[Action]:
    """Return what brings modules, sysctls and swap into order, now and for every start."""
    lacks = wanting(here, swap)
    actions = []
    if lacks.keep_modules:
        what = f"have {', '.join(lacks.keep_modules)} loaded at each start: {MODULES_FILE}"
        actions.append(Action(name, what, do=writes(name, MODULES_TEXT, MODULES_FILE)))
    if lacks.load:
        what = f"load the kernel modules {', '.join(lacks.load)}"
        actions.append(Action(name, what, Cmd.change("modprobe", "-a", *lacks.load)))
    if lacks.keep_sysctls:
        what = f"keep {', '.join(lacks.keep_sysctls)} on: {SYSCTLS_FILE}"
        actions.append(Action(name, what, do=writes(name, SYSCTLS_TEXT, SYSCTLS_FILE)))
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


def writes(name: str, content: str, path: str, *, mode: int = 0o644) -> Callable[[Hands], None]:
    """Return what writes a file on a host, its directory made where it is missing."""

    def write(hands: Hands) -> None:
        hands.run(name, Cmd.change("mkdir", "-p", str(PurePosixPath(path).parent)))
        hands.put(name, content, path, mode=mode)

    return write


def configure_containerd(
    name: str, here: HostFacts, version: str, *, restart: bool = False
) -> list[Action]:
    """Return what configures containerd for a node, and has it run; nothing where that is so.

    Args:
        name: The host.
        here: What is true on it.
        version: The Kubernetes version, which says the sandbox image.
        restart: Whether something else asks for a restart: its proxy changes.
    """
    found = here.containerd
    fresh = needs_containerd(here)
    if not found.installed and not fresh:
        return []
    wrong = () if fresh else differences(found.config or {}, version)
    if not found.config and not fresh:
        wrong = ("its configuration cannot be read",)
    actions = []
    if fresh or wrong:
        why = "; ".join(wrong) or "systemd's cgroups, /opt/cni/bin, the sandbox image"
        actions.append(
            Action(name, f"configure containerd: {why}", do=_writes_config(name, version))
        )
    stale = here.runtime.systemd_cgroup is False or not here.runtime.unit.startswith("active")
    if actions or stale or restart:
        start = script(
            "systemctl daemon-reload && systemctl enable containerd"
            " && systemctl restart containerd",
            mutates=True,
            label="enable and restart containerd",
        )
        actions.append(Action(name, "start containerd with that configuration", start))
    return actions


def _writes_config(name: str, version: str) -> Callable[[Hands], None]:
    """Return what writes the configuration: computed there and then, from the installed one."""

    def write(hands: Hands) -> None:
        told = hands.run(name, Cmd.of("containerd", "--version")).stdout
        installed = told.split()[2].removeprefix("v") if len(told.split()) > 2 else ""
        # Not recorded: it may hold a registry's password.
        dump = hands.doors.quietly(name, Cmd.of("containerd", "config", "dump"))
        config = configured(parse_config(dump.stdout) if dump.ok else None, installed, version)
        hands.run(name, Cmd.change("mkdir", "-p", str(PurePosixPath(CONFIG_FILE).parent)))
        hands.run(name, script(_KEEP, CONFIG_FILE, mutates=True, label="keep the file as it was"))
        hands.put(name, _WHO + toml.dumps(config), CONFIG_FILE)

    return write
