"""The kernel's side of the pod network, as shell scripts of `ip` commands.

Pure: every function returns the text of one script for `sh -e`, so that a pod or a peer costs one
process to start and the programs can be read and tested without a namespace. Device, route and
neighbour forms are those that the real plugins leave behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

__all__ = [
    "BridgePort",
    "VxlanPeer",
    "bridge",
    "bridge_attach",
    "detach",
    "forget_route",
    "masquerade",
    "new_sandbox",
    "rename_device",
    "route_via",
    "routed_attach",
    "vxlan_device",
    "vxlan_forget",
    "vxlan_peer",
]

CALICO_GATEWAY = IPv4Interface("169.254.1.1/32")
"""The gateway that every pod of Calico has; nobody has that address, the host answers for it."""
ROMANA_GATEWAY = IPv4Interface("172.142.0.1/32")
"""The gateway that every pod of Romana has: an address of each host's device romana-lo."""
BRIDGE_CONFLICT = 3
"""Exit status of a bridge script that found the bridge with another address."""


@dataclass(frozen=True, slots=True)
class BridgePort:
    """How one pod is plugged into a Linux bridge.

    Attributes:
        bridge: The bridge's name.
        gateway: The bridge's own address and prefix, the pods' gateway.
        address: The pod's address, same prefix.
        veth: Name of the host's end.
        mtu: MTU of bridge and veth; 0 leaves the kernel's 1500.
        hairpin: Whether a pod may reach itself through a Service.
        routes: More destinations that go to the gateway.
        owns_gateway: Whether the gateway is the bridge's own address.
    """

    bridge: str
    gateway: IPv4Interface
    address: IPv4Interface
    veth: str
    mtu: int = 0
    hairpin: bool = False
    routes: tuple[IPv4Network, ...] = ()
    owns_gateway: bool = True


@dataclass(frozen=True, slots=True)
class VxlanPeer:
    """Another node as a VXLAN device knows it: its pod CIDR, tunnel MAC and underlay address."""

    cidr: IPv4Network
    mac: str
    underlay: str


def new_sandbox(netns: str) -> str:
    """Return the script that makes a pod's network namespace with its loopback up."""
    return f"ip netns add {netns}\nip -n {netns} link set lo up\n"


def detach(netns: str) -> str:
    """Return the script that removes a pod's network namespace, and with it its veth pair."""
    return (
        f"ip -n {netns} link del eth0 2>/dev/null || true\n"
        f"ip netns del {netns} 2>/dev/null || true\n"
    )


def rename_device(netns: str, name: str) -> str:
    """Return the script that gives a pod's eth0 another name, which loses its default route."""
    return (
        f"ip -n {netns} link set eth0 down\nip -n {netns} link set eth0 name {name}\n"
        f"ip -n {netns} link set {name} up\n"
    )


def bridge(name: str, gateway: IPv4Interface | None, mtu: int = 0) -> str:
    """Return the script that makes a bridge, or exits 3 when it has another address."""
    lines = [
        f"ip link show dev {name} >/dev/null 2>&1 || ip link add {name} type bridge",
        f"ip link set {name} up" + (f" mtu {mtu}" if mtu else ""),
    ]
    if gateway is not None:
        lines += [
            f"set -- $(ip -4 -o addr show dev {name} scope global)",
            'case "${4:-}" in',
            f"{gateway}) ;;",
            f'"") ip addr add {gateway} brd + dev {name} ;;',
            f'*) echo "$4" >&2; exit {BRIDGE_CONFLICT} ;;',
            "esac",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
        ]
    return "\n".join(lines) + "\n"


def bridge_attach(netns: str, port: BridgePort) -> str:
    """Return the script that plugs a pod's namespace into a bridge."""
    mtu = f" mtu {port.mtu}" if port.mtu else ""
    inside = [
        f"addr add {port.address} brd + dev eth0",
        "link set eth0 up",
        f"route add default via {port.gateway.ip}",
        *(f"route add {route} via {port.gateway.ip}" for route in port.routes),
    ]
    hairpin = f"ip link set {port.veth} type bridge_slave hairpin on\n" if port.hairpin else ""
    return (
        bridge(port.bridge, port.gateway if port.owns_gateway else None, port.mtu)
        + f"ip link add {port.veth}{mtu} type veth peer name eth0{mtu} netns {netns}\n"
        + f"ip link set {port.veth} master {port.bridge} up\n"
        + hairpin
        + _batch(inside, netns)
    )


def routed_attach(
    netns: str,
    veth: str,
    address: str,
    mtu: int,
    gateway: IPv4Interface = CALICO_GATEWAY,
    mac: str = "ee:ee:ee:ee:ee:ee",
) -> str:
    """Return the script that connects a pod by a routed veth pair with proxy ARP.

    Args:
        netns: The pod's namespace.
        veth: Name of the host's end.
        address: The pod's address.
        mtu: MTU of both ends.
        gateway: The pod's gateway and the prefix length of the pod's address.
        mac: The hardware address of the host's end.
    """
    inside = [
        f"addr add {address}/{gateway.network.prefixlen} dev eth0",
        "link set eth0 up",
        f"route replace {gateway.ip} dev eth0 scope link",
        f"route add default via {gateway.ip} dev eth0",
    ]
    return (
        f"ip link add {veth} mtu {mtu} address {mac} type veth"
        f" peer name eth0 mtu {mtu} netns {netns}\n"
        f"ip link set {veth} up\n"
        f"echo 1 > /proc/sys/net/ipv4/conf/{veth}/proxy_arp\n"
        f"echo 1 > /proc/sys/net/ipv4/conf/{veth}/forwarding\n"
        f"echo 0 > /proc/sys/net/ipv4/neigh/{veth}/proxy_delay\n"
        "echo 1 > /proc/sys/net/ipv4/ip_forward\n"
        f"ip route replace {address} dev {veth} scope link\n" + _batch(inside, netns)
    )


def vxlan_device(
    name: str,
    *,
    vni: int,
    local: str,
    underlay: str,
    port: int,
    mtu: int,
    address: str,
    mac: str = "",
) -> str:
    """Return the script that makes a VXLAN device, or keeps one that is there already."""
    own = f" address {mac}" if mac else ""
    return (
        f"ip link show dev {name} >/dev/null 2>&1 || ip link add {name}{own} type vxlan id {vni}"
        f" local {local} dev {underlay} dstport {port} nolearning\n"
        f"ip link set {name} mtu {mtu} up\n"
        f"ip -4 addr flush dev {name}\n"
        f"ip addr add {address}/32 dev {name}\n"
    )


def vxlan_peer(device: str, peer: VxlanPeer) -> str:
    """Return the script that makes another node's pods reachable through a VXLAN device."""
    tunnel = peer.cidr.network_address
    return (
        f"bridge fdb replace {peer.mac} dev {device} dst {peer.underlay} self permanent\n"
        f"ip neigh replace {tunnel} lladdr {peer.mac} dev {device} nud permanent\n"
        f"ip route replace {peer.cidr} via {tunnel} dev {device} onlink\n"
    )


def vxlan_forget(device: str, peer: VxlanPeer) -> str:
    """Return the script that undoes `vxlan_peer`; what is gone already is no error."""
    tunnel = peer.cidr.network_address
    return (
        f"ip route del {peer.cidr} via {tunnel} dev {device} onlink 2>/dev/null || true\n"
        f"ip neigh del {tunnel} lladdr {peer.mac} dev {device} 2>/dev/null || true\n"
        f"bridge fdb del {peer.mac} dev {device} dst {peer.underlay} self 2>/dev/null || true\n"
    )


def route_via(cidr: IPv4Network, gateway: str, device: str, protocol: str = "static") -> str:
    """Return the script that routes a node's pods to that node (no encapsulation)."""
    return f"ip route replace {cidr} via {gateway} dev {device} proto {protocol}\n"


def forget_route(cidr: IPv4Network, gateway: str, device: str) -> str:
    """Return the script that undoes `route_via`; a route that is gone already is no error."""
    return f"ip route del {cidr} via {gateway} dev {device} 2>/dev/null || true\n"


def masquerade(table: str, pods: IPv4Network) -> str:
    """Return nft rules that hide pods behind their node when they leave the pod network."""
    return (
        f"table ip {table}\ndelete table ip {table}\n"
        f"table ip {table} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    ip saddr {pods} ip daddr != {pods} ip daddr != 224.0.0.0/4 masquerade fully-random\n"
        "  }\n"
        "}\n"
    )


def _batch(commands: Sequence[str], netns: str) -> str:
    return f"ip -n {netns} -batch - <<'END'\n" + "\n".join(commands) + "\nEND\n"
