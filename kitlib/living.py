"""A living cluster, asked what it is: what a parameter file would say of it, from the API alone.

Nodes are the hosts; the network plugin is recognised by the catalogue's workloads. What the API
does not tell stays empty, and everything that does not need it works all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, collapse_addresses, ip_address
from typing import Any

import yaml

from kitlib.errors import ApiError, ParamsError, PreconditionError
from kitlib.kube import Kube, Obj
from kitlib.kubeconfig import Kubeconfig
from kitlib.link import KubeconfigLink
from kitlib.manifests.setting import stated
from kitlib.params import catalogue_beside
from kitlib.plugins import Catalogue, Plugin
from kitlib.rights import need_rights

__all__ = ["ZONE", "describe", "look_at", "recognised", "zone_of"]

ZONE = "topology.kubernetes.io/zone"
_ZONES = (ZONE, "failure-domain.beta.kubernetes.io/zone")
_ROLES = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_SYSTEMS = ("kubernetes.io/os", "beta.kubernetes.io/os")
_KUBEADM = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
_UNTOLD = (403, 404)


def look_at(source: Kubeconfig) -> dict[str, Any]:
    """Return what a kubeconfig's cluster is, as `describe` does.

    Raises:
        ApiError: It does not answer, or does not know who asks.
        PreconditionError: The user lacks rights that diagnosing takes, or it has no nodes.
        ParamsError: The kubeconfig is not usable.
    """
    link = KubeconfigLink(source)
    try:
        kube = link.open()
        need_rights(kube, source.user)
        return describe(kube, source.label, catalogue_beside(source.source))
    finally:
        link.close()


def describe(kube: Kube, cluster: str, known: Catalogue) -> dict[str, Any]:
    """Return what a cluster is, as plain values for the record.

    Args:
        kube: Its API.
        cluster: The name to file it under.
        known: The plugins to recognise.

    Returns:
        `cluster`, `kubernetes_version` (major.minor.patch), `plugin` and `plugin_delegate` (empty
        for none that is known), `plugin_backend` (how it carries packets, where its objects say
        so), `plugin_seen` (its workloads), `pod_cidr` and `service_cidr` (empty where the API does
        not tell), `hosts` (name, address, role, labels: the zone), `left_out` (Node -> why it is no
        host).

    Raises:
        ApiError: The API does not answer.
        PreconditionError: It has no node that pods could run on.
    """
    nodes = kube.items("/api/v1/nodes")
    left_out = {node["metadata"]["name"]: why for node in nodes if (why := _why_no_host(node))}
    hosts = [_host(node) for node in nodes if node["metadata"]["name"] not in left_out]
    if not hosts:
        raise PreconditionError(
            f"{kube.server}: the cluster has no Linux node: there is nothing to diagnose",
            remedy="kubectl get nodes -o wide",
        )
    plugin, delegate, seen = recognised(_workloads(kube, known), known)
    pods, cidr = _ranges(kube)
    shares = [node.get("spec", {}).get("podCIDR", "") for node in nodes]
    return {
        "cluster": cluster,
        "kubernetes_version": _version(kube),
        "plugin": plugin,
        "plugin_delegate": delegate,
        "plugin_backend": _backend(kube, known.wanted(plugin, delegate)),
        "plugin_seen": seen,
        "pod_cidr": pods or _around(shares),
        "service_cidr": cidr,
        "hosts": hosts,
        "left_out": left_out,
    }


def recognised(
    workloads: Iterable[tuple[str, str, str]], known: Catalogue
) -> tuple[str, str, list[str]]:
    """Return the network plugin that a cluster's workloads are of.

    Args:
        workloads: (kind, namespace, name) of each.
        known: The plugins to recognise.

    Returns:
        Its name, the name of the plugin that it calls, and the workloads that told it. A plugin
        whose workloads all are there goes before one of which some are; a workload in another
        namespace than the catalogue's counts, since operators choose their own.
    """
    there = set(workloads)
    anywhere = {(kind, name) for kind, _, name in there}
    marks: dict[str, tuple[float, int]] = {}
    for name, plugin in known.items():
        loads = plugin.workloads
        exact = sum((load.kind, load.namespace, load.name) in there for load in loads)
        loose = sum((load.kind, load.name) in anywhere for load in loads)
        agents = [load for load in loads if load.kind == "DaemonSet"]
        if any((load.kind, load.name) in anywhere for load in agents or loads):
            marks[name] = (loose / len(loads), exact)
    if not marks:
        return "", "", []
    # One that calls another is told with that other; a user's variant before what it varies.
    fronts = [name for name in marks if known[name].needs.delegate]
    best = max(fronts or marks, key=lambda name: (marks[name], name in known.own))
    others = [name for name in marks if name not in fronts]
    delegate = max(others, key=lambda name: marks[name]) if best in fronts and others else ""
    both = [*known[best].workloads, *(known[delegate].workloads if delegate else ())]
    told = [f"{o.kind} {o.name}" for o in both if (o.kind, o.name) in anywhere]
    return best, delegate, told


def _workloads(kube: Kube, known: Catalogue) -> list[tuple[str, str, str]]:
    kinds = sorted({load.kind for plugin in known.values() for load in plugin.workloads})
    return [
        (kind, item["metadata"]["namespace"], item["metadata"]["name"])
        for kind in kinds
        for item in _told(kube, f"/apis/apps/v1/{kind.lower()}s")
    ]


def _backend(kube: Kube, plugin: Plugin) -> str:
    """Return the catalogue's word for how packets get to other nodes; empty where none is told."""
    if plugin.backend is None:
        return ""
    words = {value: word for word, value in plugin.backend.values.items()}
    for place in (each for each in plugin.backend.places if each.kind):
        group = "/api/v1" if place.kind == "ConfigMap" else "/apis/apps/v1"
        path = f"{group}/namespaces/{place.namespace}/{place.kind.lower()}s/{place.name}"
        try:
            found = kube.get(path)
            values = stated([{**found, "kind": place.kind}], place)
        except (ApiError, ParamsError):
            continue  # not for this user, not there, or not as upstream has it
        for value in values:
            if str(value) in words:
                return words[str(value)]
    return ""


def _told(kube: Kube, path: str) -> list[Obj]:
    """Return a list, or nothing where the API does not give it to this user."""
    try:
        return kube.items(path)
    except ApiError as error:
        if error.status in _UNTOLD:
            return []
        raise


def _version(kube: Kube) -> str:
    """Return the version without what a vendor adds to it: v1.29.3-eks-1 is 1.29.3."""
    text = str(kube.get("/version").get("gitVersion", ""))
    found = re.search(r"\d+\.\d+\.\d+", text)
    if not found:
        raise ApiError(f"{kube.server}: GET /version: {text!r} is no version")
    return found[0]


def _why_no_host(node: Obj) -> str:
    """Return why no agent can run on a node; empty where one can."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    system = next((labels[key] for key in _SYSTEMS if key in labels), "linux")
    if system != "linux":
        return f"its system is {system}"
    if labels.get("type") == "virtual-kubelet":
        return "it is virtual: its pods run elsewhere"
    return "" if _address(node) else "it has no InternalIP"


def _host(node: Obj) -> dict[str, Any]:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    zone = zone_of(node)
    return {
        "name": node["metadata"]["name"],
        "address": _address(node),
        "role": "control_plane" if any(role in labels for role in _ROLES) else "worker",
        "labels": {ZONE: zone} if zone else {},
    }


def zone_of(node: Obj) -> str:
    """Return the zone that a Node says it is in; empty where it says none."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    return next((str(labels[key]) for key in _ZONES if key in labels), "")


def _address(node: Obj) -> str:
    """Return a node's InternalIP, of two the IPv4 one."""
    listed = node.get("status", {}).get("addresses") or []
    found = [str(each["address"]) for each in listed if each.get("type") == "InternalIP"]
    return min(found, key=lambda text: ip_address(text).version, default="")


def _ranges(kube: Kube) -> tuple[str, str]:
    """Return the pods' and the Services' IPv4 range as kubeadm wrote them down, or else as told."""
    pods = services = ""
    try:
        text = kube.get(_KUBEADM)["data"]["ClusterConfiguration"]
        networking = (yaml.safe_load(text) or {}).get("networking") or {}
        pods = _first_ipv4(networking.get("podSubnet"))
        services = _first_ipv4(networking.get("serviceSubnet"))
    except (ApiError, KeyError, yaml.YAMLError):
        pass  # not kubeadm's, or not for this user
    if not services:
        for item in _told(kube, "/apis/networking.k8s.io/v1/servicecidrs"):
            services = services or _first_ipv4(",".join(item["spec"].get("cidrs") or []))
    return pods, services


def _first_ipv4(text: object) -> str:
    each = (part.strip() for part in str(text or "").split(","))
    return next((part for part in each if part and ":" not in part), "")


def _around(shares: Sequence[str]) -> str:
    """Return the smallest network that holds every node's share; empty without any."""
    networks = [IPv4Network(each) for each in shares if each and ":" not in each]
    found = list(collapse_addresses(networks))
    if not found:
        return ""
    whole = found[0]
    while not all(each.subnet_of(whole) for each in found):
        whole = whole.supernet()
    return str(whole)
