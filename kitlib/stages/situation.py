"""What stands on the hosts against what is wanted: the judgement that `reset` and `init` share.

A host is kept when what it holds is part of the wanted cluster. Everything else that it holds has
to go, and the reason is told. Whether it may go is the guard's question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from kitlib.checks import confirms, found_clusters
from kitlib.errors import ApiError, GuardError
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.kube import Kube
from kitlib.plugins import Plugin
from kitlib.plugins.schema import Workload
from kitlib.stages.base import Context

__all__ = ["Situation", "guard", "judge", "missing_of_init", "wants_kube_proxy"]

API_PATIENCE = 60
"""Seconds that the API of a cluster that stands may need to answer: a power-cycled control plane
was seen to need 43."""

_KUBE_PROXY = "DaemonSet kube-proxy"
_LAST_OF_INIT = {
    "ConfigMap kubeadm-config": "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
    _KUBE_PROXY: "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
    "Deployment coredns": "/apis/apps/v1/namespaces/kube-system/deployments/coredns",
}
"""What the last phases of `kubeadm init` make: an init without them did not end."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What stands on the hosts.

    Attributes:
        facts: Host -> what is true on it.
        wanted: True when the wanted cluster stands on the control plane.
        reset: Host -> why what it holds has to go; hosts that are kept or empty are not in it.
        lost: What of the cluster would be lost, one line; empty when its API does not answer.
    """

    facts: Mapping[str, HostFacts]
    wanted: bool
    reset: Mapping[str, str]
    lost: str = ""


def judge(ctx: Context) -> Situation:
    """Return what stands on the hosts; asks the API when there is a cluster to ask."""
    facts = ctx.facts()
    first = ctx.administrator.name
    main = facts[first].kubeadm
    nodes: set[str] = set()
    lost = ""
    if main.clean:
        why = ""
    elif not main.initialised or not main.serves:
        why = "a kubeadm init that did not end"  # no API to wait for
    else:
        try:
            kube = ctx.kube(wait=API_PATIENCE)
            nodes = {node["metadata"]["name"] for node in kube.items("/api/v1/nodes")}
            lost = _inventory_of(kube)
            why = _difference(ctx, facts, kube)
        except ApiError as error:
            why = f"a cluster whose API does not answer ({error.message})"
        if ctx.rebuild:
            why = "a rebuild was asked for"
    wanted = not main.clean and not why
    reset = {} if wanted or main.clean else {first: why}
    for host in ctx.hosts:
        if host.name == first:
            continue
        reason = _other(host, facts[host.name], wanted, main.ca_hash, host.name in nodes, why)
        if reason:
            reset[host.name] = reason
    return Situation(facts, wanted, reset, lost)


def guard(ctx: Context, situation: Situation) -> None:
    """Stop before a living cluster is destroyed that the parameters do not name.

    Raises:
        GuardError: It names the cluster, the hosts, what would be lost, and how to confirm.
    """
    for cluster in found_clusters(situation.facts, ctx.params):
        doomed = [name for name in cluster.hosts if name in situation.reset]
        if not doomed or cluster.orphaned or confirms(ctx.params.confirm_reset, cluster):
            continue
        lost = f"; it holds {situation.lost}" if situation.lost else ""
        raise GuardError(
            f"{', '.join(doomed)}: {cluster} would be destroyed{lost}: "
            f"{situation.reset[doomed[0]]}",
            remedy=f'to destroy it, write  confirm_reset: "{cluster.ca_hash}"  into the parameters',
        )


def wants_kube_proxy(plugin: Plugin) -> bool:
    """Return whether kube-proxy runs beside the plugin."""
    return plugin.needs.kube_proxy != "absent"


def missing_of_init(kube: Kube, plugin: Plugin) -> tuple[str, ...]:
    """Return which of the objects that `kubeadm init` makes last are not in the cluster."""
    return tuple(
        what
        for what, path in _LAST_OF_INIT.items()
        if (what != _KUBE_PROXY or wants_kube_proxy(plugin)) and kube.find(path) is None
    )


def _other(
    host: Host, here: HostFacts, wanted: bool, ca_hash: str, has_node: bool, why: str
) -> str:
    """Return why what another host holds has to go; empty when it is kept or holds nothing."""
    state = here.kubeadm
    if state.clean:
        return ""
    if not wanted:
        return why or "what is left of a cluster that is gone"
    if not state.joined:
        return "a kubeadm join that did not end"
    if state.ca_hash != ca_hash:
        return "it is in another cluster"
    if state.initialised != host.is_control_plane:
        role = "a control plane" if state.initialised else "a worker"
        return f"it is {role} of the cluster, wanted is {host.role.value.replace('_', ' ')}"
    return "" if has_node else "its Node was deleted: the cluster refuses its kubelet"


def _difference(ctx: Context, facts: Mapping[str, HostFacts], kube: Kube) -> str:
    """Return in what the cluster that stands differs from the wanted one; empty for nothing."""
    params = ctx.params
    main = facts[ctx.administrator.name]
    if main.kubeadm.cluster != params.cluster:
        return f"it is cluster {main.kubeadm.cluster or 'kubernetes'}, wanted is {params.cluster}"
    running = kube.get("/version")["gitVersion"].removeprefix("v")
    if running != params.kubernetes_version:
        return f"it runs Kubernetes {running}, wanted is {params.kubernetes_version}"
    missing = missing_of_init(kube, ctx.plugin)
    if missing:
        return f"a kubeadm init that did not end: no {', no '.join(missing)}"
    if not wants_kube_proxy(ctx.plugin) and kube.find(_LAST_OF_INIT[_KUBE_PROXY]) is not None:
        return f"it has kube-proxy, which must not run beside {ctx.plugin.title}"
    found = kube.get(_LAST_OF_INIT["ConfigMap kubeadm-config"])
    networking = yaml.safe_load(found["data"]["ClusterConfiguration"]).get("networking", {})
    for key, value in (
        ("podSubnet", str(params.effective_pod_cidr)),
        ("serviceSubnet", str(params.service_cidr)),
    ):
        if networking.get(key) != value:
            return f"its {key} is {networking.get(key)}, wanted is {value}"
    return _other_plugin(ctx, facts, kube)


def _other_plugin(ctx: Context, facts: Mapping[str, HostFacts], kube: Kube) -> str:
    # A user's variant of a plugin has that one's workloads: such a one says nothing.
    own = set(map(_identity, ctx.plugin.workloads))
    others = [
        (other.name, _identity(load))
        for other in ctx.params.catalogue.values()
        if not ctx.plugin.has_part(other.name)
        for load in other.workloads
        if _identity(load) not in own
    ]
    # Each kind is listed once: asked for one by one, twelve plugins' workloads are 30 requests.
    there = {
        (kind, item["metadata"]["namespace"], item["metadata"]["name"])
        for kind in sorted({kind for _, (kind, _, _) in others})
        for item in kube.items(f"/apis/apps/v1/{kind.lower()}s")
    }
    for name, load in others:
        if load in there:
            return f"its network plugin is {name}, wanted is {ctx.plugin.name}"
    for name, here in facts.items():
        if not here.kubeadm.joined:
            continue  # what lies on a host that is no part of it says nothing of the cluster
        foreign = ctx.params.catalogue.foreign_interfaces(
            ctx.plugin, [link.name for link in here.links or ()]
        )
        for device, owner in foreign.items():
            return f"{name} has {device} of {owner}, wanted is {ctx.plugin.name}"
        for file in here.cni.files:
            if file.owner and not ctx.plugin.has_part(file.owner):
                return f"{name} has {file.name} of {file.owner}, wanted is {ctx.plugin.name}"
    return ""


def _identity(load: Workload) -> tuple[str, str, str]:
    return load.kind, load.namespace, load.name


def _inventory_of(kube: Kube) -> str:
    pods = kube.items("/api/v1/pods")
    running = sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)
    volumes = len(kube.items("/api/v1/persistentvolumes"))
    return (
        f"{len(kube.items('/api/v1/nodes'))} nodes, "
        f"{len(kube.items('/api/v1/namespaces'))} namespaces, "
        f"{running} running pods, {volumes} persistent volumes"
    )
