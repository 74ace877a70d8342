"""kube-router and calico without encapsulation: pods are routed between nodes as they are.

Both teach every node the others' pod ranges (BGP in the real ones, the API here) and program
plain host routes. What they made stays when they end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from kitlib.lab.node import cni, datapath
from kitlib.lab.node.agents_flannel import network_up
from kitlib.lab.node.images import Program, register
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, Informer, Obj

__all__ = ["block_order", "block_routes", "pod_cidr_routes", "with_subnet"]

_CNI_DIR = Path("/etc/cni/net.d")
_UNDERLAY = "eth0"
_BLOCKS = "/apis/crd.projectcalico.org/v1/ipamblocks"
_BLOCK_PREFIX = 26

Routes = dict[str, tuple[IPv4Network, str]]
"""Node name -> (its pods' range, its address)."""


def pod_cidr_routes(nodes: Iterable[Obj], own: str) -> Routes:
    """Return the other nodes' pod CIDRs and addresses."""
    found: Routes = {}
    for node in nodes:
        name, cidr = node["metadata"]["name"], node["spec"].get("podCIDR")
        if name != own and cidr and (address := _internal(node)):
            found[name] = (IPv4Network(cidr), address)
    return found


def block_routes(blocks: Iterable[Obj], nodes: Iterable[Obj], own: str) -> Routes:
    """Return the address blocks of the other nodes that still exist."""
    addresses = {node["metadata"]["name"]: _internal(node) for node in nodes}
    found: Routes = {}
    for block in blocks:
        name = block["spec"]["affinity"].removeprefix("host:")
        if name != own and addresses.get(name):
            found[name] = (IPv4Network(block["spec"]["cidr"]), addresses[name])
    return found


def block_order(pool: IPv4Network, node: str) -> list[IPv4Network]:
    """Return a pool's blocks in the order in which a node tries them, from a place of its own."""
    blocks = list(pool.subnets(new_prefix=max(_BLOCK_PREFIX, pool.prefixlen)))
    start = int.from_bytes(hashlib.sha256(node.encode()).digest()[:4]) % len(blocks)
    return blocks[start:] + blocks[:start]


def with_subnet(conflist: str, subnet: str, mtu: int) -> str:
    """Return kube-router's CNI configuration with this node's pod CIDR and MTU filled in."""
    data = json.loads(conflist)
    for plugin in data.get("plugins") or [data]:
        if plugin.get("type") == "bridge":
            plugin.setdefault("ipam", {})["subnet"] = subnet
            plugin["mtu"] = mtu
    return json.dumps(data)


@register("kube-router")
async def kube_router(program: Program) -> int:
    """Do what the container is: the one that installs the configuration, or the router."""
    if program.spec not in program.pod["spec"]["containers"]:
        return await _kube_router_install(program)
    host = program.host
    program.log(klog("I", 1, "kube-router.go:231", "Running /usr/local/bin/kube-router"))
    client = await program.connect()
    node = await client.get(f"/api/v1/nodes/{host.name}")
    cidr = node["spec"].get("podCIDR")
    if not cidr:
        program.log(
            "Failed to run kube-router: Failed to create network routing controller: "
            "failed to get pod CIDR details from Node.spec: node.Spec.PodCIDR not set for node: "
            f"{host.name}"
        )
        return 1
    mtu = int(Path(f"/sys/class/net/{_UNDERLAY}/mtu").read_text())
    conf = Path(program.env.get("KUBE_ROUTER_CNI_CONF_FILE", _CNI_DIR / "10-kuberouter.conflist"))
    if conf.exists():
        conf.write_text(with_subnet(conf.read_text(), cidr, mtu))
    network = IPv4Network(cidr)
    gateway = IPv4Interface((network.network_address + 1, network.prefixlen))
    await host.run("sh", "-e", input=datapath.bridge("kube-bridge", gateway, mtu))
    program.log(
        klog(
            "I",
            1,
            "network_routes_controller.go:218",
            f"Setting MTU of kube-bridge interface to: {mtu}",
        )
    )
    changed = asyncio.Event()
    nodes = Informer(client, "/api/v1/nodes", changed.set)
    await _follow(
        program, [nodes], changed, lambda: pod_cidr_routes(nodes.objects.values(), host.name), "17"
    )
    return 0


async def _kube_router_install(program: Program) -> int:
    target = _CNI_DIR / "10-kuberouter.conflist"
    program.log(f"+ [ ! -f {target} ]")
    if target.exists():
        return 0
    _CNI_DIR.mkdir(parents=True, exist_ok=True)
    for old in _CNI_DIR.glob("*.conf"):
        program.log(f"+ rm -f {old}")
        old.unlink()
    try:
        text = await program.volume_file("/etc/kube-router/cni-conf.json")
    except FileNotFoundError:
        program.log("cp: can't stat '/etc/kube-router/cni-conf.json': No such file or directory")
        return 1
    program.log(f"+ mv {_CNI_DIR}/.tmp-kuberouter-cfg {target}")
    target.write_text(text)
    return 0


@register("calico-cni")
async def calico_install(program: Program) -> int:
    """Install calico's CNI binaries and configuration."""
    for name in ("calico", "calico-ipam"):
        path = Path("/opt/cni/bin") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n# calico's CNI plugin: emulated by the lab's kubelet\n")
        path.chmod(0o755)
    text = program.env.get("CNI_NETWORK_CONFIG", "")
    if not text:
        return 0
    text = text.replace("__KUBERNETES_NODE_NAME__", program.host.name)
    text = text.replace("__CNI_MTU__", program.env.get("CNI_MTU") or "1500")
    text = text.replace("__KUBECONFIG_FILEPATH__", str(_CNI_DIR / "calico-kubeconfig"))
    _CNI_DIR.mkdir(parents=True, exist_ok=True)
    name = program.env.get("CNI_CONF_NAME", "10-calico.conflist")
    (_CNI_DIR / "calico-kubeconfig").write_text("# Kubeconfig file for Calico CNI plugin.\n")
    (_CNI_DIR / name).write_text(text)
    program.log(f"Wrote Calico CNI binaries and {name}")
    return 0


@register("calico-node")
async def calico_node(program: Program) -> int:
    """Be calico-node until stopped; its one-shot containers just succeed."""
    if program.spec not in program.pod["spec"]["containers"]:
        return 0
    host = program.host
    pool = IPv4Network(program.env.get("CALICO_IPV4POOL_CIDR") or "192.168.0.0/16")
    client = await program.connect()
    block = await _claim_block(client, host.name, pool)
    notes = {"projectcalico.org/IPv4Address": f"{host.address}/24"}
    path = f"/api/v1/nodes/{host.name}/status"
    await client.patch(path, {"metadata": {"annotations": notes}}, "strategic")
    await host.run("sh", "-e", input=f"ip route replace blackhole {block} proto 12\n")
    await host.run("nft", "-f", "-", input=datapath.masquerade("calico", pool))
    nodename = Path(cni.CALICO_NODENAME)
    nodename.parent.mkdir(parents=True, exist_ok=True)
    Path(cni.CALICO_BLOCK).write_text(f"{block}\n")
    nodename.write_text(host.name)
    up = network_up("CalicoIsUp", "Calico is running on this node")
    await client.patch(path, up, "strategic")
    program.log(f"Calico node started successfully; block {block} of pool {pool}")
    changed = asyncio.Event()
    nodes = Informer(client, "/api/v1/nodes", changed.set)
    blocks = Informer(client, _BLOCKS, changed.set)
    await _follow(
        program,
        [nodes, blocks],
        changed,
        lambda: block_routes(blocks.objects.values(), nodes.objects.values(), host.name),
        "12",
    )
    return 0


async def _claim_block(client: ApiClient, node: str, pool: IPv4Network) -> IPv4Network:
    """Return this node's block: the one it has, or the first that nobody has."""
    mine = f"host:{node}"
    found = (await client.get(_BLOCKS)).get("items") or []
    for block in found:
        if block["spec"]["affinity"] == mine:
            return IPv4Network(block["spec"]["cidr"])
    taken = {block["spec"]["cidr"] for block in found}
    for cidr in block_order(pool, node):
        if str(cidr) in taken:
            continue
        name = str(cidr).replace(".", "-").replace("/", "-")
        body = {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMBlock",
            "metadata": {"name": name},
            "spec": {"cidr": str(cidr), "affinity": mine, "deleted": False},
        }
        try:
            await client.create(_BLOCKS, body)
        except ApiRefused as refused:
            if refused.status != 409:
                raise
            continue
        return cidr
    raise ValueError(f"IP pool {pool} is exhausted")


async def _follow(
    program: Program,
    informers: list[Informer],
    changed: asyncio.Event,
    routes: Callable[[], Routes],
    protocol: str,
) -> None:
    """Keep the host's routes like `routes` says, whenever one of the informers has news."""
    watches = [asyncio.create_task(item.run()) for item in informers]
    known: Routes = {}
    try:
        for item in informers:
            await item.synced.wait()
        while True:
            changed.clear()
            wanted = routes()
            script = "".join(
                datapath.forget_route(cidr, via, _UNDERLAY)
                for name, (cidr, via) in known.items()
                if wanted.get(name) != (cidr, via)
            )
            script += "".join(
                datapath.route_via(cidr, via, _UNDERLAY, protocol)
                for name, (cidr, via) in wanted.items()
                if known.get(name) != (cidr, via)
            )
            if script:
                result = await program.host.run("sh", "-e", check=False, input=script)
                if not result.ok:
                    program.log(klog("E", 1, "routes.go:1", result.tail(1)))
            known = wanted
            await changed.wait()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


def _internal(node: Obj) -> str:
    for item in (node.get("status") or {}).get("addresses") or []:
        if item["type"] == "InternalIP":
            return str(item["address"])
    return ""
