"""kube-router and calico without encapsulation: pods are routed between nodes as they are.

Both teach every node the others' pod ranges (BGP in the real ones, the API here) and program
plain host routes. What they made stays when they end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from kitlib.lab.node import agent, cni, datapath
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, register
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, Obj

__all__ = ["block_order", "block_routes", "pod_cidr_routes", "with_subnet"]

_BLOCKS = "/apis/crd.projectcalico.org/v1/ipamblocks"
_BLOCK_PREFIX = 26
_NO_IPIP = "plain routes stand in for Calico's IPIP"
_OFF = "the lab's manifest has Calico's encapsulation off: plain routes"

Routes = dict[str, tuple[IPv4Network, str]]
"""Node name -> (its pods' range, its address)."""


def pod_cidr_routes(nodes: Iterable[Obj], own: str) -> Routes:
    """Return the other nodes' pod CIDRs and addresses."""
    found: Routes = {}
    for node in nodes:
        name, cidr = node["metadata"]["name"], node["spec"].get("podCIDR")
        if name != own and cidr and (address := agent.internal_address(node)):
            found[name] = (IPv4Network(cidr), address)
    return found


def block_routes(blocks: Iterable[Obj], nodes: Iterable[Obj], own: str) -> Routes:
    """Return the address blocks of the other nodes that still exist."""
    addresses = {node["metadata"]["name"]: agent.internal_address(node) for node in nodes}
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
    mtu = int(Path(f"/sys/class/net/{agent.UNDERLAY}/mtu").read_text())
    named = program.env.get("KUBE_ROUTER_CNI_CONF_FILE")
    conf = Path(named or agent.CNI_DIR / "10-kuberouter.conflist")
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
    async with policies_enforced(program, "kube-router-filter-ipv4"):
        await _follow(
            program,
            client,
            ["/api/v1/nodes"],
            lambda nodes: pod_cidr_routes(nodes, host.name),
            "17",
        )
    return 0


async def _kube_router_install(program: Program) -> int:
    target = agent.CNI_DIR / "10-kuberouter.conflist"
    program.log(f"+ [ ! -f {target} ]")
    if target.exists():
        return 0
    agent.CNI_DIR.mkdir(parents=True, exist_ok=True)
    for old in agent.CNI_DIR.glob("*.conf"):
        program.log(f"+ rm -f {old}")
        old.unlink()
    try:
        text = await program.volume_file("/etc/kube-router/cni-conf.json")
    except FileNotFoundError:
        program.log("cp: can't stat '/etc/kube-router/cni-conf.json': No such file or directory")
        return 1
    program.log(f"+ mv {agent.CNI_DIR}/.tmp-kuberouter-cfg {target}")
    target.write_text(text)
    return 0


@register("calico-cni")
async def calico_install(program: Program) -> int:
    """Install calico's CNI binaries and configuration."""
    agent.install(["calico", "calico-ipam"], "calico")
    text = program.env.get("CNI_NETWORK_CONFIG", "")
    if not text:
        return 0
    text = text.replace("__KUBERNETES_NODE_NAME__", program.host.name)
    mtu = program.env.get("CNI_MTU") or "0"  # 0: the underlay's own
    text = text.replace("__CNI_MTU__", "1500" if mtu == "0" else mtu)
    text = text.replace("__KUBECONFIG_FILEPATH__", str(agent.CNI_DIR / "calico-kubeconfig"))
    agent.CNI_DIR.mkdir(parents=True, exist_ok=True)
    name = program.env.get("CNI_CONF_NAME", "10-calico.conflist")
    (agent.CNI_DIR / "calico-kubeconfig").write_text("# Kubeconfig file for Calico CNI plugin.\n")
    (agent.CNI_DIR / name).write_text(text)
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
    up = agent.network_up("CalicoIsUp", "Calico is running on this node")
    await client.patch(path, up, "strategic")
    program.log(f"Calico node started successfully; block {block} of pool {pool}")
    wrapped = program.env.get("CALICO_IPV4POOL_IPIP", "Never") == "Always"
    with agent.standing_in(host, _NO_IPIP if wrapped else _OFF):
        async with policies_enforced(program, "calico"):
            await _follow(
                program,
                client,
                ["/api/v1/nodes", _BLOCKS],
                lambda nodes, blocks: block_routes(blocks, nodes, host.name),
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
    client: ApiClient,
    paths: list[str],
    routes: Callable[..., Routes],
    protocol: str,
) -> None:
    """Keep the host's routes like `routes` says of these collections."""
    await agent.keep(
        program,
        client,
        paths,
        routes,
        learn=lambda to: datapath.route_via(*to, agent.UNDERLAY, protocol),
        forget=lambda to: datapath.forget_route(*to, agent.UNDERLAY),
    )
