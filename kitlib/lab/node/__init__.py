"""The emulated node: kubeadm, the kubelet, package and service tools on a lab host.

The host daemon calls `boot` once and serves `COMMANDS` to the shims on the host's PATH.
"""

from __future__ import annotations

from pathlib import Path

from kitlib.lab.hostapi import Handler, LabHost
from kitlib.lab.node import (
    apt,
    apt_query,
    containerd,
    crictl,
    ctr,
    dpkg,
    image_tools,
    journalctl,
    kubeadm,
    kubelet_command,
    packages,
    services,
    settings,
    state,
    system,
)

__all__ = ["COMMANDS", "boot"]

COMMANDS: dict[str, Handler] = {
    "apt-cache": apt_query.apt_cache,
    "apt-get": apt.apt_get,
    "apt-mark": apt_query.apt_mark,
    "containerd": containerd.containerd,
    "crictl": crictl.crictl,
    "ctr": ctr.ctr,
    "dpkg": dpkg.dpkg,
    "dpkg-query": dpkg.dpkg,
    "hostnamectl": settings.hostnamectl,
    "journalctl": journalctl.journalctl,
    "kubeadm": kubeadm.kubeadm,
    "kubelet": kubelet_command.kubelet,
    "lsmod": system.lsmod,
    "modprobe": system.modprobe,
    "swapoff": system.swapoff,
    "swapon": system.swapon,
    "systemctl": system.systemctl,
    "timedatectl": settings.timedatectl,
}
"""Every emulated command by name."""

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FROM_PACKAGES = ("crictl", "kubeadm", "kubelet")


async def boot(host: LabHost) -> None:
    """Bring a host's emulated parts up: base packages, containerd, the always-present commands.

    As the recorded hosts were prepared, it forwards packets from the start.
    """
    node = state.new_state(host)
    node.packages |= packages.BASE
    for folder in ("/etc/cni/net.d", "/etc/kubernetes", "/var/lib/containerd", "/run/containerd"):
        node.path(folder).mkdir(parents=True, exist_ok=True)
    containerd.write_prepared_config(host)
    services.place_socket(host)
    image_tools.prepare()
    _FORWARDING.write_text("1\n")
    for name in COMMANDS:
        if name not in _FROM_PACKAGES:
            host.install_command(name)
