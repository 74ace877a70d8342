"""flannel's containers: the two that install its files, and flanneld itself.

flanneld reads its ConfigMap, makes the VXLAN device, announces the node in annotations and keeps
routes, neighbour and forwarding entries for every other node. What it made stays when it ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kitlib.lab.node import agent, datapath
from kitlib.lab.node.images import Program, register
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import Obj

__all__ = ["NetConf", "flanneld", "net_conf", "peers", "subnet_file"]

_PREFIX = "flannel.alpha.coreos.com"
_SUBNET_ENV = Path("/run/flannel/subnet.env")


class _Fatal(Exception):
    """flanneld cannot run; the text is its last log line."""


@dataclass(frozen=True, slots=True)
class NetConf:
    """flannel's net-conf.json."""

    network: IPv4Network
    backend: str
    vni: int = 1
    port: int = 8472

    @property
    def device(self) -> str:
        """Return the name of the VXLAN device."""
        return f"flannel.{self.vni}"

    @property
    def mtu(self) -> int:
        """Return the pods' MTU on an underlay of 1500."""
        return 1450 if self.backend == "vxlan" else 1500


def net_conf(text: str) -> NetConf:
    """Return the configuration that a net-conf.json says.

    Raises:
        ValueError: It is not JSON, or the network or the backend is not usable.
    """
    data: dict[str, Any] = json.loads(text)
    backend = data.get("Backend") or {}
    kind = str(backend.get("Type", "udp"))
    if kind not in ("vxlan", "host-gw"):
        raise ValueError(f'unknown backend type "{kind}"')
    return NetConf(
        IPv4Network(data["Network"]),
        kind,
        int(backend.get("VNI", 1)),
        int(backend.get("Port") or 8472),
    )


def subnet_file(conf: NetConf, pod_cidr: IPv4Network) -> str:
    """Return the text of /run/flannel/subnet.env."""
    return (
        f"FLANNEL_NETWORK={conf.network}\n"
        f"FLANNEL_SUBNET={pod_cidr.network_address + 1}/{pod_cidr.prefixlen}\n"
        f"FLANNEL_MTU={conf.mtu}\nFLANNEL_IPMASQ=true\n"
    )


def peers(nodes: Iterable[Obj], own: str, backend: str) -> dict[str, datapath.VxlanPeer]:
    """Return the other nodes that have announced themselves, by node name."""
    found = {}
    for node in nodes:
        notes = node["metadata"].get("annotations") or {}
        cidr = node["spec"].get("podCIDR")
        name = node["metadata"]["name"]
        if name == own or not cidr or notes.get(f"{_PREFIX}/backend-type") != backend:
            continue
        data = json.loads(notes.get(f"{_PREFIX}/backend-data") or "null") or {}
        found[name] = datapath.VxlanPeer(
            IPv4Network(cidr), data.get("VtepMAC", ""), notes[f"{_PREFIX}/public-ip"]
        )
    return found


@register("flannel-cni")
async def install_binary(program: Program) -> int:
    """Copy the CNI plugin's binary to the host."""
    del program
    agent.install(["flannel"], "flannel")
    return 0


@register("flannel")
async def flannel(program: Program) -> int:
    """Do what the command says: copy the configuration, or be flanneld."""
    argv = program.argv
    if argv[:2] == ["cp", "-f"] and len(argv) == 4:
        try:
            text = await program.volume_file(argv[2])
        except FileNotFoundError:
            program.log(f"cp: can't stat '{argv[2]}': No such file or directory")
            return 1
        target = Path(argv[3])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return 0
    try:
        return await flanneld(program)
    except _Fatal as fatal:
        program.log(klog("E", 1, "main.go:326", str(fatal)))
        return 1


async def flanneld(program: Program) -> int:
    """Be flanneld until stopped."""
    host = program.host
    node_path = f"/api/v1/nodes/{host.name}"
    program.log(klog("I", 1, "main.go:204", "CLI flags config: {kubeSubnetMgr:true ipMasq:true}"))
    if "br-netfilter-missing" in host.faults or not agent.BRIDGE_NF.exists():
        missing = f"stat {agent.BRIDGE_NF}: no such file or directory"
        raise _Fatal(f"Failed to check br_netfilter: {missing}")
    try:
        conf = net_conf(await program.volume_file("/etc/kube-flannel/net-conf.json"))
    except (ValueError, KeyError, OSError) as wrong:
        raise _Fatal(
            f"Failed to create SubnetManager: error parsing subnet config: {wrong}"
        ) from None
    program.log(klog("I", 1, "kube.go:126", "Waiting 10m0s for node controller to sync"))
    await host.sleep(1.0)
    program.log(klog("I", 1, "kube.go:133", "Node controller sync successful"))
    program.log(klog("I", 1, "main.go:545", f"Found network config - Backend type: {conf.backend}"))
    client = await program.connect()
    node = await client.get(node_path)
    pod_cidr = _checked_cidr(node, conf, host.name)
    mac = await _device(program, conf, pod_cidr)
    data = {"VNI": conf.vni, "VtepMAC": mac} if conf.backend == "vxlan" else None
    notes = {
        f"{_PREFIX}/backend-data": json.dumps(data, separators=(",", ":")),
        f"{_PREFIX}/backend-type": conf.backend,
        f"{_PREFIX}/kube-subnet-manager": "true",
        f"{_PREFIX}/public-ip": host.address,
    }
    await client.patch(f"{node_path}/status", {"metadata": {"annotations": notes}}, "strategic")
    await client.patch(
        f"{node_path}/status",
        agent.network_up("FlannelIsUp", "Flannel is running on this node"),
        "strategic",
    )
    await host.run("nft", "-f", "-", input=datapath.masquerade("flannel-ipv4", conf.network))
    _SUBNET_ENV.parent.mkdir(parents=True, exist_ok=True)
    _SUBNET_ENV.write_text(subnet_file(conf, pod_cidr))
    program.log(klog("I", 1, "main.go:427", f"Wrote subnet file to {_SUBNET_ENV}"))
    program.log(klog("I", 1, "main.go:431", "Running backend."))
    await agent.keep(
        program,
        client,
        ["/api/v1/nodes"],
        lambda nodes: peers(nodes, host.name, conf.backend),
        learn=lambda peer: _learn(conf, peer),
        forget=lambda peer: _forget(conf, peer),
    )
    return 0


def _checked_cidr(node: Obj, conf: NetConf, name: str) -> IPv4Network:
    failed = "Error registering network: failed to acquire lease: "
    text = node["spec"].get("podCIDR")
    if not text:
        raise _Fatal(f'{failed}node "{name}" pod cidr not assigned')
    cidr = IPv4Network(text)
    if not cidr.subnet_of(conf.network):
        raise _Fatal(
            f'{failed}subnet "{conf.network}" specified in the flannel net config doesn\'t '
            f'contain "{cidr}" PodCIDR of the "{name}" node'
        )
    return cidr


async def _device(program: Program, conf: NetConf, pod_cidr: IPv4Network) -> str:
    """Make the backend's device and return its MAC; host-gw has none."""
    if conf.backend != "vxlan":
        return ""
    script = datapath.vxlan_device(
        conf.device,
        vni=conf.vni,
        local=program.host.address,
        underlay=agent.UNDERLAY,
        port=conf.port,
        mtu=conf.mtu,
        address=str(pod_cidr.network_address),
    )
    await program.host.run("sh", "-e", input=script)
    return (Path("/sys/class/net") / conf.device / "address").read_text().strip()


def _learn(conf: NetConf, peer: datapath.VxlanPeer) -> str:
    if conf.backend == "vxlan":
        return datapath.vxlan_peer(conf.device, peer)
    return datapath.route_via(peer.cidr, peer.underlay, agent.UNDERLAY, "boot")


def _forget(conf: NetConf, peer: datapath.VxlanPeer) -> str:
    if conf.backend == "vxlan":
        return datapath.vxlan_forget(conf.device, peer)
    return datapath.forget_route(peer.cidr, peer.underlay, agent.UNDERLAY)
