"""Weave Net's containers: the one that installs its programs, and the router of each node.

All pods are in one network. Every node's pods hang on the bridge `weave`, which a veth pair joins
to `datapath`, and there the tunnel to the other nodes is a port. In the real one `datapath` is an
Open vSwitch datapath; here it is a second Linux bridge. Who has which addresses the real routers
agree on among themselves; here they do it in the ConfigMap in which they keep their peers.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from kitlib.lab.node import agent, datapath, overlay, ranges, wiring
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, idle, register

__all__ = ["device_script", "peers_register", "weave"]

_POOL = "10.32.0.0/12"
_MTU = 1376
_PROGRAMS = ("weave-net", "weave-ipam", "weave-plugin-2.8.1")
_CONFLIST = {
    "cniVersion": "0.3.0",
    "name": "weave",
    "plugins": [
        {"name": "weave", "type": "weave-net", "hairpinMode": True},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    ],
}
_STANDS_IN = "a Linux bridge stands in for Weave's Open vSwitch datapath"


def peers_register(pool: IPv4Network, prefix: int) -> ranges.Register:
    """Return the register of Weave's peers: a list, in which a peer's place tells its addresses."""

    def read(text: str) -> ranges.Taken:
        parts = list(pool.subnets(new_prefix=prefix))
        names = [peer["NodeName"] for peer in json.loads(text or '{"Peers": []}')["Peers"]]
        return dict(zip(names, parts, strict=False))

    def write(taken: ranges.Taken) -> str:
        names = sorted(taken, key=lambda name: taken[name])
        return json.dumps({"Peers": [{"NodeName": name} for name in names]})

    return ranges.Register("kube-system", "weave-net", "kube-peers.weave.works/peers", read, write)


def device_script(tunnel: overlay.Tunnel, gateway: IPv4Interface, local: str) -> str:
    """Return the script that makes Weave's bridges, the pair between them, and the tunnel."""
    pair = ("vethwe-bridge", "vethwe-datapath")
    return (
        datapath.bridge("weave", gateway, tunnel.mtu)
        + datapath.bridge("datapath", None, tunnel.mtu)
        + f"ip link show dev {pair[0]} >/dev/null 2>&1 || ip link add {pair[0]} mtu {tunnel.mtu}"
        f" type veth peer name {pair[1]} mtu {tunnel.mtu}\n"
        f"ip link set {pair[0]} master weave up\n"
        f"ip link set {pair[1]} master datapath up\n"
        + overlay.bridged_device(tunnel, "datapath", local, agent.UNDERLAY)
    )


@register("weave", images=("weave-kube",), agent=True)
async def weave(program: Program) -> int:
    """Do what the container is: install the programs, or be the router until stopped."""
    if program.spec not in program.pod["spec"]["containers"]:
        agent.install(_PROGRAMS, "weave")
        return 0
    host = program.host
    pool = IPv4Network(program.env.get("IPALLOC_RANGE") or _POOL)
    mtu = int(program.env.get("WEAVE_MTU") or _MTU)
    client = await program.connect()
    prefix = min(pool.prefixlen + 8, 30)
    try:
        own = await ranges.claim(client, peers_register(pool, prefix), host.name, pool, prefix)
    except ValueError as full:
        program.log(f"FATA: {full}")
        return 1
    program.log(f"INFO: Command line options: map[ipalloc-range:{pool} mtu:{mtu} port:6783]")
    tunnel = overlay.Tunnel("vxlan-6784", vni=6784, port=6784, mtu=mtu)
    gateway = IPv4Interface((own.network_address + 1, pool.prefixlen))
    with agent.standing_in(host, _STANDS_IN):
        await host.run("sh", "-e", input=device_script(tunnel, gateway, host.address))
        await host.run("nft", "-f", "-", input=datapath.masquerade("weave", pool))
        wired = wiring.Wiring("bridge", own, gateway, mtu, "vethwepl", 7, "weave")
        wired.save(Path(wiring.AGENTS["weave-net"].file))
        up = agent.network_up("WeaveIsUp", "Weave pod has set this")
        await client.patch(f"/api/v1/nodes/{host.name}/status", up, "strategic")
        agent.configure("10-weave.conflist", _CONFLIST)
        program.log(f"INFO: weave is up; addresses {own} of {pool}")

        await agent.keep_bridged(program, client, tunnel)
    return 0


@register("weave-npc", images=("weave-npc",))
async def weave_npc(program: Program) -> int:
    """Be the network policy controller until stopped."""
    async with policies_enforced(program, "weave"):
        return await idle(program)
