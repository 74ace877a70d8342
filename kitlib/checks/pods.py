"""Whether pods sit on the wanted plugin's network: their addresses, and the device they hang on.

Pods that were made while another plugin's configuration was in force have addresses and answer
pings all the same, over the other plugin's bridge. The host's own route to the pod's address tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from kitlib.facts import HostFacts, Route
from kitlib.model import Check, Status
from kitlib.params import Params
from kitlib.plugins import Plugin

__all__ = ["pods", "route_to"]


def pods(
    objects: Iterable[Mapping[str, Any]],
    facts: Mapping[str, HostFacts],
    params: Params,
    plugin: Plugin,
    *,
    node_cidrs: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks of each pod: its address is in the right CIDR, its device is the plugin's.

    Args:
        objects: Pods with a network of their own, as plain mappings.
        facts: Host name -> facts read after the pods were made.
        params: The wanted pod CIDR.
        plugin: The wanted plugin.
        node_cidrs: Node name -> its podCIDR, for plugins that share that out.
    """
    checks: list[Check] = []
    for pod in objects:
        name = pod["metadata"]["name"]
        node = pod.get("spec", {}).get("nodeName", "")
        address = _address(pod.get("status", {}).get("podIP", ""))
        own = (node_cidrs or {}).get(node, "") if plugin.needs.node_pod_cidr else ""
        wanted = IPv4Network(own) if own else params.effective_pod_cidr
        checks.append(
            Check.that(
                address is not None and address in wanted,
                "pods.address",
                name,
                f"address is in {node}'s CIDR" if own else "address is in the pod CIDR",
                got=str(address or "no address"),
                expected=str(wanted),
                remedy="another CNI configuration was in force, or the plugin's CIDR is not the "
                "cluster's: see the cni checks",
            )
        )
        if address is not None:
            checks.append(_device(name, node, address, facts.get(node), plugin))
    return checks


def route_to(address: IPv4Address, routes: Iterable[Route]) -> Route | None:
    """Return the route that the kernel would take to an address (longest prefix), or None."""
    best: tuple[int, Route] | None = None
    for route in routes:
        text = "0.0.0.0/0" if route.destination == "default" else route.destination
        try:
            network = IPv4Network(text)
        except ValueError:
            continue
        if address in network and (best is None or network.prefixlen > best[0]):
            best = (network.prefixlen, route)
    return best[1] if best else None


def _device(
    name: str, node: str, address: IPv4Address, facts: HostFacts | None, plugin: Plugin
) -> Check:
    summary = "hangs on the plugin's device"
    if facts is None or facts.routes is None:
        got = f"routes of {node or 'its node'} unknown"
        return Check("pods.device", name, Status.SKIP, summary, got)
    route = route_to(address, facts.routes)
    device = route.device if route else ""
    owner = facts.known.owner_of_interface(device)
    return Check.that(
        plugin.is_pod_device(device),
        "pods.device",
        name,
        summary,
        got=f"{node} reaches {address} by {device or 'nothing'}" + (f" ({owner})" if owner else ""),
        expected=plugin.interfaces.pod.name,
        remedy=f"delete what is left of {owner or 'the other network'} on {node}, then the pod, so "
        "that it is wired anew",
    )


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None
