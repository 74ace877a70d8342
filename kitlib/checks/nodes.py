"""Whether every host is a Ready Node of the cluster, judged from the API's own objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

from kitlib.model import Check, Status
from kitlib.params import Params
from kitlib.plugins import Plugin

__all__ = ["nodes", "ready_condition"]


def ready_condition(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a Node's Ready condition; empty while there is none."""
    conditions = node.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == "Ready"), {})


def nodes(objects: Iterable[Mapping[str, Any]], params: Params, plugin: Plugin) -> list[Check]:
    """Return the checks of every wanted node: there, Ready, right version, podCIDR in the pod CIDR.

    Args:
        objects: The cluster's Node objects, as plain mappings.
        params: The wanted hosts, version and pod CIDR.
        plugin: The wanted plugin; some need each Node's podCIDR.
    """
    by_name = {node["metadata"]["name"]: node for node in objects}
    checks: list[Check] = []
    for host in params.hosts:
        node = by_name.get(host.name)
        checks.append(
            Check.that(
                node is not None,
                "nodes.present",
                host.name,
                "is a node of the cluster",
                got="" if node else f"no Node object; there are {', '.join(by_name) or 'none'}",
                expected="a Node object of the host's name",
                remedy="run the join stage",
            )
        )
        if node is not None:
            checks.append(_ready(host.name, node))
            checks.append(_version(host.name, node, params.kubernetes_version))
            if plugin.needs.node_pod_cidr:
                checks.append(_pod_cidr(host.name, node, params.effective_pod_cidr))
    strangers = sorted(set(by_name) - {host.name for host in params.hosts})
    checks += [
        Check(
            "nodes.expected",
            name,
            Status.WARN,
            "is in the parameters",
            got="a node that the parameters do not name",
            remedy=f"add it to the parameters, or kubectl delete node {name}",
        )
        for name in strangers
    ]
    return checks


def _ready(name: str, node: Mapping[str, Any]) -> Check:
    condition = ready_condition(node)
    state = condition.get("status", "no Ready condition")
    why = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
    remedy = "journalctl -u kubelet on the host"
    if "NetworkPluginNotReady" in why:
        remedy = "no CNI configuration on the host yet: look at the plugin's pod of this node"
    elif state == "Unknown":
        remedy = "the kubelet no longer reports: is the host up, and systemctl is-active kubelet?"
    return Check.that(
        state == "True",
        "nodes.ready",
        name,
        "Node is Ready",
        got="Ready" if state == "True" else f"{state}: {why}",
        expected="Ready",
        remedy=remedy,
    )


def _version(name: str, node: Mapping[str, Any], wanted: str) -> Check:
    got = node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
    return Check.that(
        got.removeprefix("v") == wanted,
        "nodes.version",
        name,
        "kubelet has the wanted version",
        got=got,
        expected=f"v{wanted}",
        remedy="run the packages stage, then restart the kubelet",
    )


def _pod_cidr(name: str, node: Mapping[str, Any], wanted: IPv4Network) -> Check:
    got = node.get("spec", {}).get("podCIDR", "")
    try:
        inside = IPv4Network(got).subnet_of(wanted)
    except ValueError:
        inside = False
    return Check.that(
        inside,
        "nodes.pod-cidr",
        name,
        "Node has a podCIDR inside the pod CIDR",
        got=got or "none",
        expected=str(wanted),
        remedy="kubeadm init must be given --pod-network-cidr; it cannot be added later without a "
        "rebuild",
    )
