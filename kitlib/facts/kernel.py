"""Kernel settings that pod networks need, and swap, which the kubelet refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kitlib.facts.sections import command, lines_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "SYSCTLS", "Kernel", "parse"]

SYSCTLS = (
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.ip_forward",
)
"""The settings that are read."""

_PATHS = " ".join(f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS)

SCRIPT = "".join(
    (
        section(
            "kernel.sysctl",
            f'for f in {_PATHS}; do if [ -r "$f" ]; then echo "$f $(cat "$f")"; fi; done',
        ),
        section(
            "kernel.modules",
            "if command -v lsmod >/dev/null; then lsmod; else cat /proc/modules; fi"
            " | cut -d ' ' -f 1 | grep -xE 'br_netfilter|overlay|vxlan|ip_set|xt_set|ip_vs'"
            " | sort -u",
        ),
        section(
            "kernel.filesystems",
            "awk '{print $NF}' /proc/filesystems",
        ),
        section(
            "kernel.swap",
            needs("swapon", "swapon --show=NAME --noheadings"),
        ),
        section("kernel.cgroup", "stat -f -c %T /sys/fs/cgroup"),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Kernel state; None stands for what could not be read.

    Attributes:
        sysctls: Setting -> value, of those that exist; a bridge setting exists once br_netfilter
            is loaded.
        modules: Modules that are loaded, of those that matter here; built-in ones do not show.
        filesystems: File systems that the kernel can mount.
        swaps: Swap devices and files in use.
        cgroups: The version of the control groups, 1 or 2.
    """

    sysctls: Mapping[str, str]
    modules: tuple[str, ...] | None
    filesystems: tuple[str, ...] | None
    swaps: tuple[str, ...] | None
    cgroups: int | None

    def has(self, module: str) -> bool | None:
        """Return whether a module's function is there; None when that cannot be said."""
        if module == "br_netfilter" and SYSCTLS[0] in self.sysctls:
            return True
        if module in (self.filesystems or ()) or module in (self.modules or ()):
            return True
        return None if self.modules is None else False


def parse(text: str) -> Kernel:
    """Return the kernel's state, from what `COMMAND` printed."""
    sections = split(text)
    fs = lines_of(sections, "kernel.cgroup")
    sysctls = {}
    for line in lines_of(sections, "kernel.sysctl") or ():
        path, _, value = line.partition(" ")
        sysctls[path.removeprefix("/proc/sys/").replace("/", ".")] = value.strip()
    return Kernel(
        sysctls=sysctls,
        modules=lines_of(sections, "kernel.modules"),
        filesystems=lines_of(sections, "kernel.filesystems"),
        swaps=lines_of(sections, "kernel.swap"),
        cgroups={"cgroup2fs": 2, "tmpfs": 1}.get(fs[0].strip()) if fs else None,
    )
