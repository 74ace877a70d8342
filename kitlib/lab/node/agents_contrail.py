"""OpenSDN's (Contrail's) containers: kube-manager gives out addresses, an agent is on each node.

The real controllers keep who has which address in a database of their own and tell the agents by
XMPP; they give out single addresses of the one pod network. Here kube-manager gives each node with
an agent a part of it, kept in an annotation of a ConfigMap of the manifest, and agents read that
with their node's credentials. Pods hang on point-to-point veth pairs. What the vrouter module does
in the real one, routes do here: VXLAN on pkt1 stands in for MPLS over UDP, and vhost0 is a device
of that name, which the host's address does not move to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from kitlib.lab.node import agent, overlay, ranges, wiring
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, register
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, Informer, Obj

__all__ = ["gateway_of", "host_script", "peers"]

_CONFIG = "/api/v1/namespaces/kube-system/configmaps"
_REGISTER = ranges.Register("kube-system", "kube-manager-config", "lab.opensdn/addresses")
_AGENTS = "node-role.opencontrail.org/agent"
_POOL = "10.32.0.0/12"
_TUNNEL = overlay.Tunnel("pkt1", vni=1, port=51234, mtu=1450)
_ROUTER_MAC = "00:00:5e:00:01:00"
_UNPACKED = ("contrail-k8s-cni", "bridge", "host-local", "loopback", "portmap")
"""What cni-init brings: its own program, and a CNI set over the one that is there."""
_CONF = {
    "cniVersion": "0.3.1",
    "name": "contrail-k8s-cni",
    "type": "contrail-k8s-cni",
    "contrail": {
        "vif-type": "veth",
        "parent-interface": agent.UNDERLAY,
        "vrouter-ip": "127.0.0.1",
        "vrouter-port": 9091,
        "config-dir": "/var/lib/contrail/ports/vm",
        "log-file": "/var/log/contrail/cni/opencontrail.log",
    },
}
_STANDS_IN = (
    "VXLAN stands in for MPLS over UDP and kernel routes for Contrail's vrouter; "
    "the host's address stays on eth0"
)


def gateway_of(pool: IPv4Network) -> IPv4Interface:
    """Return the pods' gateway, the last address of the pod network, with the network's length."""
    return IPv4Interface((pool.broadcast_address - 1, pool.prefixlen))


def peers(maps: Iterable[Obj], nodes: Iterable[Obj], own: str) -> dict[str, overlay.Far]:
    """Return the far ends of the tunnels: the other nodes that have a part of the pod network."""
    addresses = agent.other_nodes(nodes, own)
    parts = _parts(maps)
    return {
        name: overlay.Far(address, parts[name])
        for name, address in addresses.items()
        if name in parts
    }


def host_script(local: str) -> str:
    """Return the script that makes the vrouter's devices."""
    return (
        "ip link show dev vhost0 >/dev/null 2>&1 || ip link add vhost0 type veth peer name pkt0\n"
        "ip link set vhost0 up\nip link set pkt0 up\n" + overlay.routed_device(_TUNNEL, local)
    )


def _parts(maps: Iterable[Obj]) -> ranges.Taken:
    for item in maps:
        if item["metadata"]["name"] == _REGISTER.name:
            notes = item["metadata"].get("annotations") or {}
            return _REGISTER.read(notes.get(_REGISTER.annotation, ""))
    return {}


async def _pool(client: ApiClient) -> IPv4Network:
    data = (await client.get(f"{_CONFIG}/env")).get("data") or {}
    return IPv4Network(data.get("KUBERNETES_POD_SUBNETS") or _POOL)


@register("contrail-cni-init", images=("opensdn-kubernetes-cni-init",))
async def cni_init(program: Program) -> int:
    """Unpack programs over /opt/cni/bin and write the configuration: the node turns Ready by it."""
    agent.install(_UNPACKED, "contrail")
    agent.configure("10-contrail.conf", _CONF)
    program.log("INFO: contrail-k8s-cni installed")
    return 0


@register("contrail-kube-manager", images=("opensdn-kubernetes-kube-manager",), agent=True)
async def kube_manager(program: Program) -> int:
    """Give every node with an agent its part of the pod network, until stopped."""
    client = await program.connect()
    pool = await _pool(client)
    prefix = min(pool.prefixlen + 8, 30)
    changed = asyncio.Event()
    nodes = Informer(client, "/api/v1/nodes", changed.set, labelSelector=_AGENTS)
    watch = asyncio.create_task(nodes.run())
    try:
        await nodes.synced.wait()
        while True:
            changed.clear()
            for name in sorted(nodes.objects):
                try:
                    await ranges.claim(client, _REGISTER, name, pool, prefix)
                except ValueError as full:
                    program.log(f"ERROR: {name}: {full}")
            await changed.wait()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    return 0


@register("contrail-agent", images=("opensdn-vrouter-agent",), agent=True)
async def vrouter_agent(program: Program) -> int:
    """Be the node's agent until stopped."""
    host = program.host
    client = program.connect_as_node()
    pool = await _pool(client)
    part = await _own_part(client, host.name)
    with agent.standing_in(host, _STANDS_IN):
        await host.run("sh", "-e", input=host_script(host.address))
        wired = wiring.Wiring(
            "veth", part, gateway_of(pool), _TUNNEL.mtu, "tapeth0-", 6, first=1, mac=_ROUTER_MAC
        )
        wired.save(Path(wiring.AGENTS["contrail-k8s-cni"].file))
        program.log(f"INFO: agent is ready; addresses {part} of {pool}")
        async with policies_enforced(program, "contrail", stays=False):
            await agent.keep(
                program,
                client,
                [_CONFIG, "/api/v1/nodes"],
                lambda maps, nodes: peers(maps, nodes, host.name),
                learn=lambda far: overlay.routed_peer(_TUNNEL, far),
                forget=lambda far: overlay.routed_forget(_TUNNEL, far),
            )
    return 0


async def _own_part(client: ApiClient, node: str) -> IPv4Network:
    """Wait until kube-manager has given the node its part."""
    while True:
        try:
            parts = _parts([await client.get(f"{_CONFIG}/{_REGISTER.name}")])
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            parts = {}
        if node in parts:
            return parts[node]
        await asyncio.sleep(0.1)
