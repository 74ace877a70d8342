"""Cilium's containers: the agent of each node, and the operator that gives nodes their addresses.

The operator makes the CRD of the CiliumNodes, which agents make for their nodes, and writes each
node's part of the pool into them; that is Cilium's `cluster-pool`. Pods hang on point-to-point veth
pairs and packets to other nodes go through the device cilium_vxlan, as in the real one; what there
is programs on those devices (eBPF), here is routes and rules of the kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from kitlib.lab.node import agent, datapath, leader, overlay, ranges, wiring
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, idle, register
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, Informer, Obj

__all__ = ["agent_up", "host_script", "nodes_ranges", "peers"]

_NODES = "/apis/cilium.io/v2/ciliumnodes"
_CONFIG = "/api/v1/namespaces/kube-system/configmaps/cilium-config"
_CONF = "05-cilium.conflist"
_TUNNEL = overlay.Tunnel("cilium_vxlan", vni=2, port=8472, mtu=1450)
_CONFLIST = {
    "cniVersion": "0.3.1",
    "name": "cilium",
    "plugins": [{"type": "cilium-cni", "log-file": "/var/run/cilium/cilium-cni.log"}],
}
_STANDS_IN = "kernel routes and nft rules stand in for Cilium's eBPF programs"
_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ciliumnodes.cilium.io"},
    "spec": {
        "group": "cilium.io",
        "scope": "Cluster",
        "names": {
            "kind": "CiliumNode",
            "listKind": "CiliumNodeList",
            "plural": "ciliumnodes",
            "singular": "ciliumnode",
            "shortNames": ["cn", "ciliumn"],
        },
        "versions": [
            {
                "name": "v2",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def nodes_ranges(nodes: Iterable[Obj]) -> dict[str, IPv4Network | None]:
    """Return each CiliumNode's part of the pool, oldest node first; None where it has none yet."""
    by_age = sorted(nodes, key=lambda node: (node["metadata"]["creationTimestamp"],
                                             node["metadata"]["name"]))  # fmt: skip
    return {node["metadata"]["name"]: _part(node) for node in by_age}


def peers(nodes: Iterable[Obj], own: str) -> dict[str, overlay.Far]:
    """Return the far ends of the tunnels: the other CiliumNodes that have addresses."""
    found = {}
    for node in nodes:
        name, part = node["metadata"]["name"], _part(node)
        address = next((each["ip"] for each in node["spec"].get("addresses") or []), "")
        if name != own and part is not None and address:
            found[name] = overlay.Far(address, part)
    return found


def host_script(part: IPv4Network, local: str) -> str:
    """Return the script that makes cilium_host with the node's router address, and the tunnel."""
    router = part.network_address + 1
    return (
        "ip link show dev cilium_host >/dev/null 2>&1 ||"
        " ip link add cilium_host type veth peer name cilium_net\n"
        "ip link set cilium_host up\nip link set cilium_net up\n"
        f"ip addr replace {router}/32 dev cilium_host\n"
        f"ip route replace {part} via {router} dev cilium_host src {router}\n"
        + overlay.routed_device(_TUNNEL, local)
    )


def agent_up(pods: Iterable[Obj]) -> set[str]:
    """Return the nodes whose agent is ready."""
    return {
        pod["spec"]["nodeName"]
        for pod in pods
        for condition in (pod.get("status") or {}).get("conditions") or []
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def _part(node: Obj) -> IPv4Network | None:
    parts = ((node.get("spec") or {}).get("ipam") or {}).get("podCIDRs") or []
    return IPv4Network(parts[0]) if parts else None


@register("cilium", images=("cilium",), agent=True)
async def cilium(program: Program) -> int:
    """Do what the container is: one of those that prepare the host, or the agent until stopped."""
    if program.spec not in program.pod["spec"]["containers"]:
        if program.spec["name"] == "install-cni-binaries":
            agent.install(["cilium-cni"], "cilium")
        return 0
    host = program.host
    client = await program.connect()
    config = (await client.get(_CONFIG))["data"]
    program.log('level=info msg="Waiting until all Cilium CRDs are available"')
    part = await _own_part(program, client)
    router = str(part.network_address + 1)
    program.log(f'level=info msg="Addressing information" ipv4.alloc={part} router={router}')
    with agent.standing_in(host, _STANDS_IN):
        await host.run("sh", "-e", input=host_script(part, host.address))
        pool = IPv4Network(config["cluster-pool-ipv4-cidr"].split()[0])
        await host.run("nft", "-f", "-", input=datapath.masquerade("cilium", pool))
        gateway = IPv4Interface(f"{router}/32")
        wired = wiring.Wiring("veth", part, gateway, _TUNNEL.mtu, "lxc", 12)
        wired.save(Path(wiring.AGENTS["cilium-cni"].file))
        Path("/var/lib/cilium").mkdir(parents=True, exist_ok=True)
        if config.get("cni-exclusive") == "true":
            _set_aside(program)
        agent.configure(_CONF, _CONFLIST)
        program.log('level=info msg="Daemon initialization completed"')
        async with policies_enforced(program, "cilium"):
            await agent.keep(
                program,
                client,
                [_NODES],
                lambda nodes: peers(nodes, host.name),
                learn=lambda far: overlay.routed_peer(_TUNNEL, far, source=router),
                forget=lambda far: overlay.routed_forget(_TUNNEL, far),
            )
    return 0


def _set_aside(program: Program) -> None:
    """Rename every other CNI configuration, as `cni-exclusive` has it."""
    for path in agent.CNI_DIR.glob("*"):
        if path.name != _CONF and path.suffix in (".conf", ".conflist", ".json"):
            path.rename(path.with_name(f"{path.name}.cilium_bak"))
            program.log(f'level=info msg="Renaming non-Cilium CNI configuration" path={path}')


async def _own_part(program: Program, client: ApiClient) -> IPv4Network:
    """Make this node's CiliumNode and return the addresses that the operator gives it."""
    host = program.host
    body = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": {"name": host.name},
        "spec": {
            "addresses": [{"ip": host.address, "type": "InternalIP"}],
            "ipam": {"podCIDRs": []},
        },
    }
    while True:
        try:
            part = _part(await client.get(f"{_NODES}/{host.name}"))
            if part is not None:
                return part
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            try:
                await client.create(_NODES, body)
            except ApiRefused as again:
                if again.status not in (404, 409):  # 404: the operator has not made the CRD yet
                    raise
        await asyncio.sleep(0.1)


@register("cilium-operator", images=("operator-generic",), agent=True)
async def operator(program: Program) -> int:
    """Be the operator until stopped: the CRD, the nodes' addresses, the nodes' conditions."""
    client = await program.connect()
    pool = IPv4Network(
        (await program.volume_file("/tmp/cilium/config-map/cluster-pool-ipv4-cidr")).split()[0]
    )
    size = await program.volume_file("/tmp/cilium/config-map/cluster-pool-ipv4-mask-size")
    me = program.pod["metadata"]["name"]
    async with leader.leading(client, "kube-system", "cilium-operator-resource-lock", me):
        program.log('level=info msg="Leading the operator HA deployment"')
        try:
            await client.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _CRD)
        except ApiRefused as refused:
            if refused.status != 409:
                raise
        await _serve(program, client, pool, int(size))
    return 0


async def _serve(program: Program, client: ApiClient, pool: IPv4Network, prefix: int) -> None:
    changed = asyncio.Event()
    nodes = Informer(client, _NODES, changed.set)
    pods = Informer(
        client, "/api/v1/namespaces/kube-system/pods", changed.set, labelSelector="k8s-app=cilium"
    )
    watches = [asyncio.create_task(item.run()) for item in (nodes, pods)]
    told: set[str] = set()
    try:
        await nodes.synced.wait()
        await pods.synced.wait()
        while True:
            changed.clear()
            await _assign(program, client, pool, prefix)
            up = agent_up(pods.objects.values())
            for name in sorted(up - told):
                condition = agent.network_up("CiliumIsUp", "Cilium is running on this node")
                await client.patch(f"/api/v1/nodes/{name}/status", condition, "strategic")
            told = up
            await changed.wait()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _assign(program: Program, client: ApiClient, pool: IPv4Network, prefix: int) -> None:
    """Give every CiliumNode without addresses a part; from what the API says at this moment."""
    nodes = {node["metadata"]["name"]: node for node in (await client.get(_NODES))["items"]}
    try:
        new = ranges.share_out(nodes_ranges(nodes.values()), pool, prefix)
    except ValueError as full:
        program.log(f'level=error msg="Unable to allocate podCIDR" error="{full}"')
        return
    for name, part in new.items():
        node = nodes[name]
        node["spec"]["ipam"] = {"podCIDRs": [str(part)]}
        try:
            await client.update(f"{_NODES}/{name}", node)
        except ApiRefused as refused:
            if refused.status not in (404, 409):  # gone or changed: there will be news of it
                raise


register("cilium-envoy", images=("cilium-envoy",))(idle)
