"""Contiv's containers: netmaster, which knows the networks, and netplugin on each node.

All pods are in one network, as switched by Open vSwitch in the real one; here they hang on a Linux
bridge of that name, with a VXLAN device as a port to the other nodes. The real netmaster gives
out single addresses from its etcd; here each node takes a part of the network, noted in Contiv's
ConfigMap. And there is nobody to run netctl: netmaster makes the network default-net by itself,
of the cluster's pod CIDR.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import yaml

from kitlib.lab.node import agent, datapath, overlay, ranges, wiring
from kitlib.lab.node.images import Program, idle, register
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused

__all__ = ["NETWORK", "REGISTER", "default_network", "device_script", "netplugin", "node_prefix"]

BRIDGE = "contivVxlanBrid"
"""Contiv's contivVxlanBridge, as far as the kernel takes names."""
_MTU = 1450
_STORE = "/api/v1/namespaces/kube-system/configmaps/contiv-config"
_KUBEADM = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
NETWORK = "contiv.lab/default-net"
"""The annotation that holds the network default-net, once netmaster has made it."""
REGISTER = ranges.Register("kube-system", "contiv-config", "contiv.lab/endpoints")
_STANDS_IN = "a Linux bridge with a VXLAN port stands in for Contiv's Open vSwitch"


def node_prefix(pool: IPv4Network) -> int:
    """Return the prefix length of a node's part: a /24, or a smaller one of a small network."""
    return max(24, min(pool.prefixlen + 4, 28))


def device_script(tunnel: overlay.Tunnel, gateway: IPv4Interface, local: str) -> str:
    """Return the script that makes Contiv's bridge, and the tunnel as a port of it."""
    return datapath.bridge(BRIDGE, gateway, tunnel.mtu) + overlay.bridged_device(
        tunnel, BRIDGE, local, agent.UNDERLAY
    )


async def default_network(client: ApiClient) -> IPv4Network | None:
    """Return the network that pods get addresses of; None while there is none."""
    notes = (await client.get(_STORE))["metadata"].get("annotations") or {}
    return IPv4Network(notes[NETWORK]) if NETWORK in notes else None


@register("contiv", images=("contiv/netplugin",), agent=True)
async def contiv(program: Program) -> int:
    """Be what the role says: netmaster, or a node's netplugin."""
    if program.env.get("CONTIV_ROLE") == "netmaster":
        return await _netmaster(program)
    return await netplugin(program)


async def _netmaster(program: Program) -> int:
    client = await program.connect()
    if await default_network(client) is None:
        text = (await client.get(_KUBEADM))["data"]["ClusterConfiguration"]
        pods = (yaml.safe_load(text).get("networking") or {}).get("podSubnet")
        if not pods:
            program.log('level=fatal msg="no podSubnet in kubeadm\'s configuration"')
            return 1
        await _note(client, str(IPv4Network(pods)))
        program.log(
            f'level=info msg="Created network default-net of {pods}: in the lab by netmaster '
            'itself, elsewhere by its operator with netctl"'
        )
    program.log('level=info msg="Netmaster listening on 0.0.0.0:9999"')
    return await idle(program)


async def _note(client: ApiClient, network: str) -> None:
    """Write the network down; nodes may be writing at the same time."""
    while True:
        found = await client.get(_STORE)
        found["metadata"].setdefault("annotations", {})[NETWORK] = network
        try:
            await client.update(_STORE, found)
        except ApiRefused as refused:
            if refused.status != 409:
                raise
            continue
        return


async def netplugin(program: Program) -> int:
    """Be a node's netplugin until stopped.

    Its CNI file is there at once and makes the node Ready; pods get addresses when there is a
    network.
    """
    host = program.host
    agent.install(["contivk8s"], "contiv")
    config = json.loads(program.env["CONTIV_CNI_CONFIG"])
    agent.configure("1-contiv.conf", config)
    mode = program.env.get("CONTIV_NETPLUGIN_NET_MODE", "vxlan")
    if mode != "vxlan":
        program.log(f'level=fatal msg="network mode {mode}: the lab has vxlan only"')
        return 1
    client = await program.connect()
    while (pool := await default_network(client)) is None:
        program.log('level=info msg="waiting for network default-net"')
        await host.sleep(2.0)
    try:
        own = await ranges.claim(client, REGISTER, host.name, pool, node_prefix(pool))
    except ValueError as full:
        program.log(f'level=fatal msg="{full}"')
        return 1
    tunnel = overlay.Tunnel("vxlan_sys_4789", vni=1, port=4789, mtu=_MTU)
    gateway = IPv4Interface((own.network_address + 1, pool.prefixlen))
    with agent.standing_in(host, _STANDS_IN):
        await host.run("sh", "-e", input=device_script(tunnel, gateway, host.address))
        await host.run("nft", "-f", "-", input=datapath.masquerade("contiv", pool))
        wired = wiring.Wiring("bridge", own, gateway, _MTU, "vvport", 7, BRIDGE)
        wired.save(Path(wiring.AGENTS["contivk8s"].file))
        program.log(f'level=info msg="network default-net {pool}, endpoints here of {own}"')

        await agent.keep_bridged(program, client, tunnel)
    return 0


@register("contiv-etcd-init", images=("ferest/etcd-initer",))
async def _etcd_init(program: Program) -> int:
    """Write the arguments of Contiv's etcd, as one-shot."""
    program.log(f"cluster {program.env.get('ETCD_INIT_CLUSTER', '')}")
    return 0


register("contiv-helper", images=("contiv/stats", "contiv/auth_proxy"))(idle)
