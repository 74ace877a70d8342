"""Nuage's containers: the one that installs the CNI program, and the switch (VRS) of each node.

The real switch is an Open vSwitch that controllers outside of the cluster program. Here pods hang
on a Linux bridge of the same name and other nodes are reached through a VXLAN device, in the very
form of flannel's: a comparison of the two must find no difference. Who has which subnet, which the
real directory (VSD) decides, is noted in Nuage's ConfigMap.
"""

from __future__ import annotations

import shutil
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import yaml

from kitlib.lab.node import agent, datapath, overlay, ranges, wiring
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, idle, register
from kitlib.lab.node.kubelet_client import Obj

__all__ = ["REGISTER", "device_script", "pod_network", "subnets", "vrs", "wipe"]

BRIDGE, DEVICE = "alubr0", "vxlan_sys_4789"
_CONFIG = Path("/etc/default/nuage-cni.yaml")
_FILE = "nuage-net.conf"
_MTU = 1450
_SUBNET = 24
REGISTER = ranges.Register("kube-system", "nuage-node-config", "nuage.lab/subnets")
_STANDS_IN = "a Linux bridge and a VXLAN device stand in for Nuage's Open vSwitch"
_NO_CONTROLLER = "no controller (VSC) at {}: the lab has none, subnets are shared out by the nodes"


def wipe(etc: Path, opt: Path) -> None:
    """Remove what Nuage's install script removes: every plugin's files and programs."""
    for directory in (opt / "cni", etc / "cni"):
        shutil.rmtree(directory, ignore_errors=True)


def pod_network(env: dict[str, str]) -> IPv4Network:
    """Return the pods' network as the switch is told it, with sed's backslash in it."""
    return IPv4Network(env.get("NUAGE_K8S_POD_NETWORK_CIDR", "70.70.0.0/16").replace("\\", ""))


def device_script(gateway: IPv4Interface, local: str, mtu: int) -> str:
    """Return the script that makes Nuage's bridge and its tunnel."""
    tunnel = datapath.vxlan_device(
        DEVICE,
        vni=1,
        local=local,
        underlay=agent.UNDERLAY,
        port=4789,
        mtu=mtu,
        address=str(gateway.network.network_address),
        mac=overlay.mac(local),
    )
    return datapath.bridge(BRIDGE, gateway, mtu) + tunnel


def subnets(nodes: list[Obj], maps: list[Obj], own: str) -> dict[str, datapath.VxlanPeer]:
    """Return the other nodes that have a subnet, by node name.

    Args:
        nodes: The Nodes.
        maps: ConfigMaps, Nuage's among them.
        own: This node's name.
    """
    found: dict[str, datapath.VxlanPeer] = {}
    others = agent.other_nodes(nodes, own)
    for item in maps:
        meta = item["metadata"]
        if (meta.get("namespace"), meta["name"]) != (REGISTER.namespace, REGISTER.name):
            continue
        taken = REGISTER.read((meta.get("annotations") or {}).get(REGISTER.annotation, ""))
        for name, subnet in taken.items():
            if address := others.get(name):
                found[name] = datapath.VxlanPeer(subnet, overlay.mac(address), address)
    return found


@register("nuage-cni", images=("nuage/cni",))
async def install_cni(program: Program) -> int:
    """Empty the CNI directories, put Nuage's own files there, and watch until stopped."""
    wipe(Path("/etc"), Path("/opt"))
    agent.install(["nuage-cni-k8s", "loopback"], "nuage")
    program.log("Wrote Nuage CNI binaries to /host/opt/cni/bin/")
    _CONFIG.parent.mkdir(parents=True, exist_ok=True)
    _CONFIG.write_text(program.env.get("NUAGE_CNI_YAML_CONFIG", ""))
    config = {"cniVersion": "0.3.0", "name": "nuage-net", "type": "nuage-cni-k8s"}
    agent.configure(_FILE, config)
    program.log(f"Wrote CNI config: {_FILE}")
    program.log("Done configuring CNI")
    return await idle(program)


@register("nuage-vrs", images=("nuage/vrs",), agent=True)
async def vrs(program: Program) -> int:
    """Be a node's switch until stopped."""
    host = program.host
    program.log(_NO_CONTROLLER.format(program.env.get("NUAGE_ACTIVE_CONTROLLER", "")))
    client = await program.connect()
    pool = pod_network(program.env)
    own = await ranges.claim(client, REGISTER, host.name, pool, max(_SUBNET, pool.prefixlen))
    path = f"/api/v1/namespaces/{REGISTER.namespace}/configmaps"
    stated = yaml.safe_load(
        (await client.get(f"{path}/{REGISTER.name}"))["data"]["cni_yaml_config"]
    )
    mtu = int((stated or {}).get("mtu") or _MTU)
    gateway = IPv4Interface((own.network_address + 1, own.prefixlen))
    with agent.standing_in(host, _STANDS_IN):
        await host.run("sh", "-e", input=device_script(gateway, host.address, mtu))
        await host.run("nft", "-f", "-", input=datapath.masquerade("nuage", pool))
        wired = wiring.Wiring("bridge", own, gateway, mtu, device=BRIDGE)
        wired.save(Path(wiring.AGENTS["nuage-cni-k8s"].file))
        program.log(f"subnet {own} of {pool}")
        async with policies_enforced(program, "nuage"):
            await agent.keep(
                program,
                client,
                ["/api/v1/nodes", path],
                lambda nodes, maps: subnets(list(nodes), list(maps), host.name),
                learn=lambda peer: datapath.vxlan_peer(DEVICE, peer),
                forget=lambda peer: datapath.vxlan_forget(DEVICE, peer),
            )
    return 0


register("nuage-helper", images=("nuage/master", "nuage/infra"))(idle)
