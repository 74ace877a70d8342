"""The faults that can be switched on in a lab, and how the host-side ones are made and undone.

A fault is real where the thing that it breaks is real (packets, sysctls, links, connections); the
others are flags in `host.faults` that the node emulation acts on.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib.lab import hostclock, missing_routes
from kitlib.lab.holding import HELD
from kitlib.lab.hostapi import LabHost
from kitlib.model import CommandResult

__all__ = ["FAULTS", "LARGEST", "SKEW", "SSH_DROP_AFTER", "Fault", "apply"]

LARGEST = 1400
"""The largest packet, in bytes, that still gets through under `mtu-blackhole`."""

SSH_DROP_AFTER = 1.0
"""Seconds that a command may run before `ssh-drop` cuts its connection."""


SKEW = 90.0
"""Seconds that a host's clock is ahead under `clock-skew`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what it does, whether it is real, and where it goes when no host is named.

    Attributes:
        summary: What is broken while it is on, one line.
        real: True when the kernel or the connection itself misbehaves; False when an emulated
            part is told to.
        role: The role of the host that it is for by default (the first host of that role).
    """

    summary: str
    real: bool
    role: str = "worker"


FAULTS: Mapping[str, Fault] = {
    "api-down": Fault("the API server's container ends and stays down", False, "control_plane"),
    "api-slow": Fault("every answer of the API server comes late", False, "control_plane"),
    "br-netfilter-missing": Fault(
        "br_netfilter is off: no net.bridge sysctls, bridged packets skip the firewall rules", True
    ),
    "clock-skew": Fault(
        f"the host's clock is {SKEW:g} s ahead: an offset that date, kubelet, kubeadm and API show",
        False,
    ),
    "disk-full": Fault("the host's disk is full: no installs, DiskPressure", False),
    "dns-broken": Fault("a DNS server of the cluster on this host fails", False, "control_plane"),
    "duplicate-hostname": Fault("the host has another host's name, as a copied machine", True),
    "forward-drop": Fault("the firewall drops every forwarded packet, as Docker's does", True),
    "host-down": Fault("the host's cable is out and its SSH server refuses connections", True),
    "image-pull-fails": Fault("no container image can be pulled", False),
    "mtu-blackhole": Fault(
        f"pod and tunnel packets over {LARGEST} bytes vanish without a word", True
    ),
    "no-route-out": Fault(
        "no package repository and no image registry can be reached", False, "control_plane"
    ),
    "plugin-crashloop": Fault("the network plugin's container ends again and again", False),
    "port-closed": Fault(
        "the firewall drops VXLAN (UDP 4789, 6784, 8472), BGP (TCP 179), the kubelet (TCP 10250)",
        True,
    ),
    "route-missing": Fault(
        "the host's routes to one other node's pods vanish, as often as they are added anew", True
    ),
    "slow-node": Fault(
        f"all packets of the host wait {HELD * 1000:g} ms on the lab's network, each way", True
    ),
    "ssh-drop": Fault(f"SSH connections die when a command has run for {SSH_DROP_AFTER:g} s", True),
    "swap-on": Fault("the host swaps, which the kubelet does not stand", False),
    "token-expired": Fault(
        "every bootstrap token has expired for the API server, new ones too", False, "control_plane"
    ),
    "tunnel-closed": Fault(
        "the firewall drops the plugins' tunnels (UDP 4789, 6081, 6784, 8472, 51234), no more", True
    ),
    "wrong-ca-hash": Fault(
        "cluster-info, which joining hosts ask for, names another CA than the cluster's",
        False,
        "control_plane",
    ),
}

_RULES: Mapping[str, str] = {
    "forward-drop": """
        chain forward { type filter hook forward priority 0; policy drop; }
    """,
    "mtu-blackhole": f"""
        chain forward {{
            type filter hook forward priority 0;
            iifname eth0 meta length > {LARGEST} drop
            oifname eth0 meta length > {LARGEST} drop
        }}
        chain input {{
            type filter hook input priority 0;
            iifname eth0 meta l4proto != tcp meta length > {LARGEST} drop
        }}
        chain output {{
            type filter hook output priority 0;
            oifname eth0 meta l4proto != tcp meta length > {LARGEST} drop
        }}
    """,
    "port-closed": """
        chain input {
            type filter hook input priority 0;
            iifname eth0 udp dport { 4789, 6784, 8472 } drop
            iifname eth0 tcp dport { 179, 10250 } drop
        }
    """,
    "tunnel-closed": """
        chain input {
            type filter hook input priority 0;
            iifname eth0 udp dport { 4789, 6081, 6784, 8472, 51234 } drop
        }
    """,
}

_BRIDGE = Path("/proc/sys/net/bridge")
_BRIDGE_CALLS = tuple(
    _BRIDGE / f"bridge-nf-call-{family}" for family in ("iptables", "ip6tables", "arptables")
)

Run = Callable[..., Awaitable[CommandResult]]
Undo = Callable[[], Coroutine[Any, Any, None]]


async def apply(name: str, host: LabHost) -> Undo | None:
    """Make the fault on this host; return what undoes it.

    None when it is a flag alone, or made outside the host (`host-down` and `slow-node`: box).
    """
    if name in _RULES:
        return await _firewall(f"lab_{name.replace('-', '_')}", _RULES[name], host.run)
    if name == "br-netfilter-missing":
        return await _without_br_netfilter(host.run)
    if name == "clock-skew":
        return _skewed()
    if name == "route-missing":
        return await missing_routes.apply(host)
    if name == "duplicate-hostname":
        return _named_as_another(host)
    return None


def _skewed() -> Undo:
    hostclock.set_ahead(SKEW)

    async def undo() -> None:
        hostclock.restore()

    return undo


def _named_as_another(host: LabHost) -> Undo:
    """Give the host the name of the last other one: a worker's, where there are two."""
    others = [peer for peer in host.peers if peer != host.name]
    socket.sethostname(others[-1] if others else host.name)

    async def undo() -> None:
        socket.sethostname(host.name)

    return undo


async def _firewall(table: str, chains: str, run: Run) -> Undo:
    await run("nft", "-f", "-", input=f"table inet {table} {{ {chains} }}\n")

    async def undo() -> None:
        await run("nft", "delete", "table", "inet", table)

    return undo


async def _without_br_netfilter(run: Run) -> Undo | None:
    """Switch the calls off for this host's bridges and take the sysctls out of sight."""
    before = {file: file.read_text() for file in _BRIDGE_CALLS if file.exists()}
    if not before:
        return None  # the machine has no br_netfilter: it is missing without our doing
    _write(dict.fromkeys(before, "0"))
    await run("mount", "-t", "tmpfs", "-o", "ro", "lab", str(_BRIDGE))

    async def undo() -> None:
        await run("umount", str(_BRIDGE))
        _write(before)

    return undo


def _write(values: Mapping[Path, str]) -> None:
    for file, value in values.items():
        file.write_text(value)
