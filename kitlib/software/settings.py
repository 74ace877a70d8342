"""Kernel modules, sysctls and swap: the files that keep them over a restart, and what loads them.

Kubernetes' own guide asks for exactly these: https://kubernetes.io/docs/setup/production-environment/
container-runtimes/ (forwarding, bridged traffic through iptables) and install-kubeadm (swap).
"""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.facts import HostFacts

__all__ = [
    "APPLY_SYSCTLS",
    "MODULES",
    "MODULES_FILE",
    "MODULES_TEXT",
    "SWAP_MARK",
    "SWAP_OFF",
    "SYSCTLS",
    "SYSCTLS_FILE",
    "SYSCTLS_TEXT",
    "Wanting",
    "wanting",
]

MODULES = ("overlay", "br_netfilter")
"""overlay for containerd's images, br_netfilter so that bridged packets meet the Service rules."""

SYSCTLS = {
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.ipv4.ip_forward": "1",
}
"""Setting -> value."""

_WHO = "# Written by the cluster network kit (kit stage packages).\n"
MODULES_FILE = "/etc/modules-load.d/kubekit.conf"
MODULES_TEXT = _WHO + "".join(f"{name}\n" for name in MODULES)
# sysctl.d files are read in the order of their names and the last one wins: a distribution's
# 99-sysctl.conf (a link to /etc/sysctl.conf) must not switch forwarding off again.
SYSCTLS_FILE = "/etc/sysctl.d/99-zz-kubekit.conf"
SYSCTLS_TEXT = _WHO + "".join(f"{name} = {value}\n" for name, value in SYSCTLS.items())

SWAP_MARK = "# kubekit: swap off: "
"""Begins each line of /etc/fstab that the kit switched off; without it the line is as it was."""

SWAP_OFF = f"""\
set -e
swapoff -a
if grep -qsE '^[^#]\\S*\\s+\\S+\\s+swap\\s' /etc/fstab; then
  # The first copy is the host's own file: a second run must not overwrite it.
  [ -e /etc/fstab.before-kubekit ] || cp -p /etc/fstab /etc/fstab.before-kubekit
  sed -E 's/^([^#]\\S*\\s+\\S+\\s+swap\\s)/{SWAP_MARK}\\1/' /etc/fstab > /etc/fstab.kubekit-new
  chmod 644 /etc/fstab.kubekit-new
  mv /etc/fstab.kubekit-new /etc/fstab
fi
"""
"""Takes every swap area out of use and its lines in /etc/fstab out of force, with a copy of it."""

APPLY_SYSCTLS = """\
set -e
for setting; do
  file=/proc/sys/$(printf %s "${setting%%=*}" | tr . /)
  # A bridge setting is there once br_netfilter is; what is missing shows in the check.
  if [ -e "$file" ]; then printf '%s\\n' "${setting#*=}" > "$file"; fi
done
"""
"""Brings the settings given as `name=value` into force: no tool is needed that a host may lack."""


@dataclass(frozen=True, slots=True)
class Wanting:
    """What of modules, sysctls and swap is not as it should be; all empty where all is well.

    Attributes:
        load: Modules that are not loaded.
        keep_modules: Modules that nothing loads when the host starts.
        set: Settings whose value is wrong now.
        keep_sysctls: Settings that no file gives the right value when the host starts.
        swaps: Swap areas in use that should not be.
        swap_lines: Lines of /etc/fstab that would bring swap back.
    """

    load: tuple[str, ...]
    keep_modules: tuple[str, ...]
    set: tuple[str, ...]
    keep_sysctls: tuple[str, ...]
    swaps: tuple[str, ...]
    swap_lines: tuple[str, ...]


def wanting(here: HostFacts, swap: str) -> Wanting:
    """Return what of a host's modules, sysctls and swap is not as it should be.

    What could not be read counts as wanting, except a bridge setting that cannot be seen although
    br_netfilter is there: that is so only where the module is emulated.

    Args:
        here: What is true on the host.
        swap: The parameter: `off` or `keep`.
    """
    kernel, kept = here.kernel, here.setup
    unseen = {
        name
        for name in SYSCTLS
        if name.startswith("net.bridge.")
        and name not in kernel.sysctls
        and kernel.has("br_netfilter")
    }
    off = swap == "off"
    return Wanting(
        # A module whose state cannot be read is loaded all the same: modprobe does no harm twice.
        load=tuple(name for name in MODULES if not kernel.has(name)),
        keep_modules=tuple(name for name in MODULES if name not in (kept.modules or ())),
        set=tuple(
            name
            for name, value in SYSCTLS.items()
            if kernel.sysctls.get(name) != value and name not in unseen
        ),
        keep_sysctls=tuple(
            name for name, value in SYSCTLS.items() if (kept.sysctls or {}).get(name) != value
        ),
        swaps=(kernel.swaps or ()) if off else (),
        swap_lines=(kept.swap_lines or ()) if off else (),
    )
