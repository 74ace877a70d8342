"""kube-proxy: Services as real nft rules in the host's network namespace.

The rules are computed as one text from Services and Endpoints (pure) and loaded atomically, so a
Service's address is a real DNAT and a Service without endpoints is really rejected.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from kitlib.lab.node.images import Program, register
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable, Informer, Obj
from kitlib.lab.node.kubelet_events import now

__all__ = ["ServicePort", "ruleset", "run", "serve", "service_ports"]

_MARK = "0x4000"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service, and who answers it."""

    name: str
    address: str
    protocol: str
    port: int
    node_port: int
    endpoints: tuple[tuple[str, int], ...]


def service_ports(services: Iterable[Obj], endpoints: Mapping[str, Obj]) -> list[ServicePort]:
    """Return every Service port that has a cluster address.

    Args:
        services: Services as the API has them.
        endpoints: Endpoints by `namespace/name`.
    """
    found = []
    for service in services:
        spec, meta = service["spec"], service["metadata"]
        address = spec.get("clusterIP", "")
        if not address or address == "None" or ip_address(address).version != 4:
            continue
        subsets = endpoints.get(f"{meta['namespace']}/{meta['name']}", {}).get("subsets") or []
        for port in spec.get("ports") or []:
            found.append(
                ServicePort(
                    name=f"{meta['namespace']}/{meta['name']}:{port.get('name', '')}",
                    address=address,
                    protocol=port.get("protocol", "TCP").lower(),
                    port=int(port["port"]),
                    node_port=int(port.get("nodePort", 0)),
                    endpoints=_targets(subsets, port.get("name", "")),
                )
            )
    return sorted(found, key=lambda item: (item.name, item.protocol, item.port))


def ruleset(ports: Iterable[ServicePort], cluster_cidr: str = "", table: str = "kube-proxy") -> str:
    """Return the whole table as `nft -f` reads it, replacing what was there.

    Args:
        ports: Every Service port.
        cluster_cidr: The pods' range; Service traffic from elsewhere is masqueraded.
        table: The table's name.
    """
    chains: list[str] = []
    services: list[str] = []
    rejects: list[str] = []
    for number, port in enumerate(ports):
        match = f"ip daddr {port.address} {port.protocol} dport {port.port}"
        node = f"fib daddr type local {port.protocol} dport {port.node_port}"
        if not port.endpoints:
            rejects.append(f'    {match} reject comment "{port.name}"')
            continue
        names = [f"ep-{number}-{index}" for index in range(len(port.endpoints))]
        for name, (address, target) in zip(names, port.endpoints, strict=True):
            chains.append(
                f"  chain {name} {{\n"
                f"    ip saddr {address} meta mark set meta mark | {_MARK}\n"
                f"    meta l4proto {port.protocol} dnat to {address}:{target}\n"
                "  }\n"
            )
        choice = ", ".join(f"{index} : goto {name}" for index, name in enumerate(names))
        chains.append(
            f"  chain svc-{number} {{\n"
            + (
                f"    ip saddr != {cluster_cidr} meta mark set meta mark | {_MARK}\n"
                * bool(cluster_cidr)
            )
            + f"    numgen random mod {len(names)} vmap {{ {choice} }}\n"
            "  }\n"
        )
        services.append(f'    {match} goto svc-{number} comment "{port.name}"')
        if port.node_port:
            services.append(f"    {node} meta mark set meta mark | {_MARK} goto svc-{number}")
    table = f"ip {table}"
    return (
        f"table {table}\ndelete table {table}\ntable {table} {{\n"
        + "".join(chains)
        + _chain("services", "", services)
        + _chain("no-endpoints", "", rejects)
        + _chain("prerouting", "type nat hook prerouting priority dstnat", ["    jump services"])
        + _chain("output", "type nat hook output priority -100", ["    jump services"])
        + _chain(
            "postrouting",
            "type nat hook postrouting priority srcnat",
            [f"    meta mark & {_MARK} == {_MARK} masquerade fully-random"],
        )
        + _chain(
            "filter-fwd", "type filter hook forward priority filter", ["    jump no-endpoints"]
        )
        + _chain("filter-out", "type filter hook output priority filter", ["    jump no-endpoints"])
        + "}\n"
    )


@register("kube-proxy")
async def run(program: Program) -> int:
    """Be kube-proxy until stopped; its rules stay behind."""
    client = await program.connect()
    _say(program, "server.go:649", f"Version: {program.spec['image'].rsplit(':', 1)[-1]}")
    _say(program, "config.go:315", "Starting service config controller")
    await _started(program, client)
    await serve(program, client, await _cluster_cidr(program), "kube-proxy")
    return 0


async def serve(program: Program, client: ApiClient, cluster_cidr: str, table: str) -> None:
    """Keep a table of the host's rules like the cluster's Services, until cancelled.

    Args:
        program: Who does it; what goes wrong is in its log.
        client: Where to ask.
        cluster_cidr: The pods' range, empty where it is not known.
        table: The table's name.
    """
    changed = asyncio.Event()
    services = Informer(client, "/api/v1/services", changed.set)
    endpoints = Informer(client, "/api/v1/endpoints", changed.set)
    watches = [asyncio.create_task(item.run()) for item in (services, endpoints)]
    loaded = ""
    try:
        await services.synced.wait()
        await endpoints.synced.wait()
        _say(program, "shared_informer.go:247", "Caches are synced for service config")
        while True:
            changed.clear()
            ports = service_ports(services.objects.values(), endpoints.objects)
            text = ruleset(ports, cluster_cidr, table)
            if text != loaded:
                result = await program.host.run("nft", "-f", "-", check=False, input=text)
                if not result.ok:
                    _say(program, "proxier.go:850", f"Failed to load rules: {result.tail(2)}", "E")
                loaded = text if result.ok else ""
            await changed.wait()
            await asyncio.sleep(0.02)
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _cluster_cidr(program: Program) -> str:
    try:
        text = await program.volume_file("/var/lib/kube-proxy/config.conf")
    except (FileNotFoundError, ApiRefused, ApiUnreachable):
        return ""
    for line in text.splitlines():
        if line.startswith("clusterCIDR:"):
            return line.split(":", 1)[1].strip().strip('"')
    return ""


async def _started(program: Program, client: ApiClient) -> None:
    """Record kube-proxy's own event about its node, which has no text and no source."""
    name, stamp = program.host.name, now()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{program.container.id[:16]}", "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": name, "uid": name},
        "reason": "Starting",
        "action": "StartKubeProxy",
        "type": "Normal",
        "eventTime": stamp.replace("Z", ".000000Z"),
        "reportingComponent": "kube-proxy",
        "reportingInstance": f"kube-proxy-{name}",
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
    }
    with contextlib.suppress(ApiRefused, ApiUnreachable):  # events are best effort
        await client.create("/api/v1/namespaces/default/events", event)


def _targets(subsets: list[Obj], port_name: str) -> tuple[tuple[str, int], ...]:
    found = []
    for subset in subsets:
        numbers = [
            int(port["port"])
            for port in subset.get("ports") or []
            if port.get("name", "") == port_name
        ]
        for number in numbers[:1]:
            found += [(item["ip"], number) for item in subset.get("addresses") or []]
    return tuple(sorted(found))


def _chain(name: str, hook: str, rules: list[str]) -> str:
    lines = [
        f"  chain {name} {{",
        *([f"    {hook}; policy accept;"] if hook else []),
        *rules,
        "  }",
    ]
    return "\n".join(lines) + "\n"


def _say(program: Program, source: str, text: str, severity: str = "I") -> None:
    program.log(klog(severity, 1, source, text))
