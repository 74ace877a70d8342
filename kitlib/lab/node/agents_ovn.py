"""OVN-Kubernetes' containers: the cluster manager, and ovnkube-controller on each node.

The cluster manager gives each node a part of the pod network, in an annotation of its Node. Pods
hang on br-int, the node's way into it is ovn-k8s-mp0, packets to other nodes go through
genev_sys_6081. In the real one br-int is Open vSwitch's, and what routes, balances and translates
there is OpenFlow: here it is a Linux bridge, routes and nft rules of the kernel. Where the kernel
has no geneve, a VXLAN device takes its name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from kitlib.lab.node import agent, datapath, kubeproxy, leader, overlay, ranges, wiring
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, idle, register
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, Informer, Obj

__all__ = ["host_script", "node_part", "ovn", "peers", "pool_of"]

_SUBNETS = "k8s.ovn.org/node-subnets"
_ZONE = "k8s.ovn.org/zone-name"
_NAMESPACE = "ovn-kubernetes"
_TUNNEL = overlay.Tunnel("genev_sys_6081", vni=1, port=6081, mtu=1400, kind="geneve")
_TABLE = "ovn-kubernetes"
_BRIDGE = "br-int"
_SERVICES = "ovn-kubernetes-services"
_CONF = {
    "cniVersion": "1.1.0",
    "name": "ovn-kubernetes",
    "type": "ovn-k8s-cni-overlay",
    "ipam": {},
    "dns": {},
    "logFile": "/var/log/ovn-kubernetes/ovn-k8s-cni-overlay.log",
}
_STANDS_IN = (
    "a Linux bridge, routes and nft rules stand in for Open vSwitch and OVN's flows; "
    "the host's address stays on eth0"
)


def pool_of(net_cidr: str) -> tuple[IPv4Network, int]:
    """Return the pod network and the nodes' prefix length of a `net_cidr`: a.b.c.d/16[/24]."""
    address, length, *rest = net_cidr.split("/")
    return IPv4Network(f"{address}/{length}"), int(rest[0]) if rest else 24


def node_part(node: Obj) -> IPv4Network | None:
    """Return a Node's part of the pod network; None while it has none."""
    notes = node["metadata"].get("annotations") or {}
    parts = json.loads(notes.get(_SUBNETS) or "{}").get("default") or []
    return IPv4Network(parts[0]) if parts else None


def peers(nodes: Iterable[Obj], own: str) -> dict[str, overlay.Far]:
    """Return the far ends of the tunnels: the other Nodes that have a part."""
    listed = list(nodes)
    addresses = agent.other_nodes(listed, own)
    parts = {node["metadata"]["name"]: node_part(node) for node in listed}
    return {
        name: overlay.Far(address, part)
        for name, address in addresses.items()
        if (part := parts[name]) is not None
    }


def bridge_rules(part: IPv4Network) -> str:
    """Return nft rules, to be added to the plugin's table, for what the node puts into br-int.

    With br_netfilter the kernel sees such a packet again in the bridge. A Service's answer, which
    has its address back by then, would look new there and take another port: it is not tracked.
    """
    return (
        f"table ip {_TABLE} {{\n  chain bridged {{\n"
        "    type filter hook prerouting priority raw; policy accept;\n"
        f'    iifname "{_BRIDGE}" ether saddr {_port_mac(part)} notrack\n  }}\n}}\n'
    )


def _port_mac(part: IPv4Network) -> str:
    """Return the hardware address of the node's port, made from its address as OVN makes it."""
    node = part.network_address + 2
    return ":".join(("0a:58", *(f"{byte:02x}" for byte in node.packed)))


def host_script(part: IPv4Network, tunnel: overlay.Tunnel, local: str) -> str:
    """Return the script that makes br-int, the node's own port in it, and the tunnel.

    The node has the second address; the first one is the pods' router.
    """
    port, end = "ovn-k8s-mp0", "ovn-k8s-mp0_0"
    router, node = part.network_address + 1, part.network_address + 2
    return (
        datapath.bridge(_BRIDGE, None, tunnel.mtu)
        + f"ip link show dev {port} >/dev/null 2>&1 || ip link add {port} mtu {tunnel.mtu}"
        f" address {_port_mac(part)} type veth peer name {end} mtu {tunnel.mtu}\n"
        f"ip link set {end} master {_BRIDGE} up\n"
        f"ip link set {port} up\n"
        f"ip addr replace {node}/{part.prefixlen} dev {port}\n"
        f"ip addr replace {router}/{part.prefixlen} dev {port}\n"
        + overlay.routed_device(tunnel, local)
    )


@register("ovn", images=("ovn-kube-ubuntu", "ovn-kube-fedora"), agent=True)
async def ovn(program: Program) -> int:
    """Do what the command says; the databases and daemons around it just stay."""
    what = program.argv[-1] if program.argv else ""
    if what == "ovn-cluster-manager":
        return await _cluster_manager(program)
    if what == "ovnkube-controller-with-node":
        return await _controller(program)
    return await idle(program)


async def _cluster_manager(program: Program) -> int:
    pool, prefix = pool_of(program.env["OVN_NET_CIDR"])
    client = await program.connect()
    me = program.pod["metadata"]["name"]
    async with leader.leading(client, _NAMESPACE, "ovn-kubernetes-master", me):
        program.log(f"I1 clustermanager.go:1] Won leader election; cluster subnet {pool}")
        changed = asyncio.Event()
        nodes = Informer(client, "/api/v1/nodes", changed.set)
        watch = asyncio.create_task(nodes.run())
        try:
            await nodes.synced.wait()
            while True:
                changed.clear()
                await _share_out(program, client, pool, prefix)
                await changed.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    return 0


async def _share_out(program: Program, client: ApiClient, pool: IPv4Network, prefix: int) -> None:
    """Give every Node without one a part; from what the API says at this moment."""
    found = sorted(
        (await client.get("/api/v1/nodes"))["items"],
        key=lambda node: (node["metadata"]["creationTimestamp"], node["metadata"]["name"]),
    )
    held = {node["metadata"]["name"]: node_part(node) for node in found}
    try:
        new = ranges.share_out(held, pool, prefix)
    except ValueError as full:
        program.log(f"E1 node_allocator.go:1] error allocating network for a node: {full}")
        return
    for name, part in new.items():
        notes = {_SUBNETS: json.dumps({"default": [str(part)]}, separators=(",", ":"))}
        body = {"metadata": {"annotations": notes}}
        try:
            await client.patch(f"/api/v1/nodes/{name}/status", body, "strategic")
        except ApiRefused as refused:
            if refused.status != 404:
                raise


async def _controller(program: Program) -> int:
    """Be the node's controller until stopped."""
    host = program.host
    client = await program.connect()
    part = await _own_part(program, client)
    pool, _ = pool_of(program.env["OVN_NET_CIDR"])
    mtu = int(program.env.get("OVN_MTU") or _TUNNEL.mtu)
    has_geneve = (await host.run("sh", check=False, input=overlay.geneve_script())).ok
    kind: overlay.Kind = "geneve" if has_geneve else "vxlan"
    tunnel = replace(_TUNNEL, mtu=mtu, kind=kind)
    stands_in = _STANDS_IN if has_geneve else f"VXLAN stands in for geneve; {_STANDS_IN}"
    with agent.standing_in(host, stands_in):
        await host.run("sh", "-e", input=host_script(part, tunnel, host.address))
        rules = datapath.masquerade(_TABLE, pool) + bridge_rules(part)
        await host.run("nft", "-f", "-", input=rules)
        gateway = IPv4Interface((part.network_address + 1, part.prefixlen))
        wired = wiring.Wiring(
            "bridge", part, gateway, mtu, "", 15, _BRIDGE, first=3, bridge_has_gateway=False
        )
        wired.save(Path(wiring.AGENTS["ovn-k8s-cni-overlay"].file))
        agent.install(["ovn-k8s-cni-overlay"], "ovn-kubernetes")
        agent.configure("10-ovn-kubernetes.conf", _CONF)
        program.log(f"I1 node.go:1] OVN Kube Node initialized and ready; subnet {part}")
        own = str(part.network_address + 2)
        async with policies_enforced(program, _TABLE):
            await asyncio.gather(
                kubeproxy.serve(program, client, str(pool), _SERVICES),
                agent.keep(
                    program,
                    client,
                    ["/api/v1/nodes"],
                    lambda nodes: peers(nodes, host.name),
                    learn=lambda far: overlay.routed_peer(tunnel, far, source=own),
                    forget=lambda far: overlay.routed_forget(tunnel, far),
                ),
            )
    return 0


async def _own_part(program: Program, client: ApiClient) -> IPv4Network:
    """Wait until this Node has its zone, which is its operator's to say, and its part."""
    told = ""
    while True:
        node = await client.get(f"/api/v1/nodes/{program.host.name}")
        zone = (node["metadata"].get("labels") or {}).get(_ZONE)
        part = node_part(node)
        if zone and part is not None:
            return part
        waits = "its subnet annotation" if zone else f"its label {_ZONE}"
        if waits != told:
            program.log(f"I1 node.go:1] waiting for node {program.host.name} to have {waits}")
            told = waits
        await asyncio.sleep(0.1)
