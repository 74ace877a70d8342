"""Tunnels between nodes, as shell scripts of `ip` commands, for every plugin that wraps packets.

Two ways. Routed: each node's pods are a network of their own, routed into a tunnel device that
takes its far end from the route, as Cilium's and Open vSwitch's devices take it from their own
tables. Bridged: one network for all pods, the tunnel device is a port of the nodes' bridges and
they learn where an address is. Pure, like `datapath`. Where the kernel has no geneve, a VXLAN
device takes its name and its port.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

__all__ = ["Far", "Tunnel", "bridged_device", "bridged_forget", "bridged_peer", "geneve_script",
           "mac", "routed_device", "routed_forget", "routed_peer"]  # fmt: skip

Kind = Literal["vxlan", "geneve"]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One node's end of the tunnels to all others.

    Attributes:
        device: Its name.
        vni: The network's number in the packets.
        port: The UDP port.
        mtu: The largest packet that is put into it.
        kind: The kind of device.
    """

    device: str
    vni: int
    port: int
    mtu: int
    kind: Kind = "vxlan"


@dataclass(frozen=True, slots=True)
class Far:
    """Another node: its pods' network (none in a bridged overlay) and its own address."""

    underlay: str
    pods: IPv4Network | None = None


def mac(underlay: str) -> str:
    """Return the hardware address of the tunnel device of the node with that address.

    It follows from the node's address, so that no node has to tell the others its own.
    """
    return ":".join(("02:4c", *(f"{int(part):02x}" for part in underlay.split("."))))


def geneve_script() -> str:
    """Return a script that ends well where the kernel has geneve devices; it leaves none."""
    return (
        "ip link add kitgeneve0 type geneve external dstport 6081 2>/dev/null && "
        "ip link del kitgeneve0\n"
    )


def routed_device(tunnel: Tunnel, local: str) -> str:
    """Return the script that makes a routed tunnel's device, or keeps the one that is there."""
    device = tunnel.device
    return (
        f"ip link show dev {device} >/dev/null 2>&1 || ip link add {device} address {mac(local)}"
        f" type {tunnel.kind} external dstport {tunnel.port}\n"
        f"ip link set {device} mtu {tunnel.mtu} up\n"
        "echo 1 > /proc/sys/net/ipv4/ip_forward\n"
    )


def routed_peer(tunnel: Tunnel, far: Far, source: str = "") -> str:
    """Return the script that makes another node's pods reachable.

    Args:
        tunnel: This node's end.
        far: The other node.
        source: The address that this host itself shows to pods there.
    """
    gateway = _gateway(far)
    return (
        f"ip neigh replace {gateway} lladdr {mac(far.underlay)} dev {tunnel.device} nud permanent\n"
        f"ip route replace {far.pods} encap ip id {tunnel.vni} dst {far.underlay}"
        f" via {gateway} dev {tunnel.device} onlink{f' src {source}' if source else ''}\n"
    )


def routed_forget(tunnel: Tunnel, far: Far) -> str:
    """Return the script that undoes `routed_peer`; what is gone already is no error."""
    gateway = _gateway(far)
    return (
        f"ip route del {far.pods} dev {tunnel.device} 2>/dev/null || true\n"
        f"ip neigh del {gateway} lladdr {mac(far.underlay)} dev {tunnel.device} 2>/dev/null"
        " || true\n"
    )


def bridged_device(tunnel: Tunnel, bridge: str, local: str, underlay: str) -> str:
    """Return the script that makes a bridged tunnel's device a port of a bridge that is there."""
    device = tunnel.device
    return (
        f"ip link show dev {device} >/dev/null 2>&1 || ip link add {device} type vxlan"
        f" id {tunnel.vni} local {local} dev {underlay} dstport {tunnel.port} learning\n"
        f"ip link set {device} master {bridge} mtu {tunnel.mtu} up\n"
    )


def bridged_peer(tunnel: Tunnel, far: Far) -> str:
    """Return the script that has a bridged tunnel flood to another node what it has not learnt."""
    return f"{_flood('append', tunnel, far)} 2>/dev/null || true\n"  # there already: no error


def bridged_forget(tunnel: Tunnel, far: Far) -> str:
    """Return the script that undoes `bridged_peer`, with what was learnt of that node."""
    return (
        f"{_flood('del', tunnel, far)} 2>/dev/null || true\n"
        f"bridge fdb show dev {tunnel.device} | awk '/ dst {far.underlay.replace('.', '[.]')} /"
        " {print $1}' | while read -r m; do"
        f' bridge fdb del "$m" dev {tunnel.device} dst {far.underlay} self 2>/dev/null || true;'
        " done\n"
    )


def _flood(verb: str, tunnel: Tunnel, far: Far) -> str:
    return f"bridge fdb {verb} 00:00:00:00:00:00 dev {tunnel.device} dst {far.underlay} self"


def _gateway(far: Far) -> str:
    if far.pods is None:
        raise ValueError(f"{far.underlay}: a routed tunnel's far end needs its pods' network")
    return str(far.pods.network_address)
