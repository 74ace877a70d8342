"""Stage 4: `kubeadm init` on the control plane, with the pod network that the plugin needs."""

from __future__ import annotations

import yaml

from kitlib.command import Cmd
from kitlib.errors import ApiError
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.model import CLUSTER, Check
from kitlib.params import Params
from kitlib.plugins.schema import minor
from kitlib.software.proxy import environment
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.broken_off import stop_where_broken_off

__all__ = ["KIT_DIRECTORY", "KUBECONFIG", "Init", "api_address", "kubeadm_config"]

KIT_DIRECTORY = "/etc/kubekit"
"""Where the kit keeps on a host what it applied there."""
CONFIG = f"{KIT_DIRECTORY}/kubeadm.yaml"
KUBECONFIG = {"KUBECONFIG": "/etc/kubernetes/admin.conf"}
"""The environment of commands on the control plane that speak with the API as administrator."""


class Init(Stage):
    """The first control plane of the cluster."""

    name = "init"
    title = "Start the control plane with kubeadm init"

    def plan(self, ctx: Context) -> Plan:
        """Return `kubeadm init`; nothing where the control plane runs."""
        name = ctx.control_plane.name
        here = ctx.facts()[name]
        if here.kubeadm.initialised:
            return Plan(reason=f"{name} is the control plane of cluster {here.kubeadm.cluster}")
        stop_where_broken_off(ctx, [name], self.name)
        config = kubeadm_config(ctx.params, ctx.control_plane, here)
        command = Cmd.change(
            "kubeadm",
            "init",
            "--config",
            CONFIG,
            env=environment(ctx.params),
            timeout=ctx.params.timeouts.init,
        )

        def write(hands: Hands) -> None:
            hands.run(name, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
            hands.put(name, config, CONFIG)
            hands.journal.keep("kubeadm.yaml", config)

        return Plan(
            (
                Action(name, f"write the kubeadm configuration to {CONFIG}", do=write),
                Action(
                    name,
                    f"start the control plane of cluster {ctx.params.cluster}, "
                    f"pod CIDR {ctx.params.effective_pod_cidr}",
                    command,
                    changes_cluster=True,
                ),
            )
        )

    def check(self, ctx: Context) -> list[Check]:
        """Return whether the API answers, and that it is the wanted cluster's."""
        name, params = ctx.control_plane.name, ctx.params
        here = ctx.facts()[name].kubeadm
        try:
            version = str(ctx.kube(wait=60).get("/version")["gitVersion"])
        except ApiError as error:
            version = error.message
        return [
            Check.that(
                version == f"v{params.kubernetes_version}",
                "init.api",
                CLUSTER,
                "the Kubernetes API answers in the wanted version",
                got=version,
                expected=f"v{params.kubernetes_version}",
                remedy="if an init was broken off here, run the reset stage, then this one; else "
                "look at the kubelet's journal on the control plane, kept in the record",
            ),
            Check.that(
                here.cluster == params.cluster,
                "init.cluster",
                name,
                "the control plane is that of the wanted cluster",
                got=f"{here.cluster} {here.ca_hash}",
                expected=params.cluster,
                remedy="run the reset stage first",
            ),
        ]


def kubeadm_config(params: Params, host: Host, here: HostFacts) -> str:
    """Return the configuration file for `kubeadm init`, in the API version that kubeadm speaks.

    Args:
        params: What is wanted.
        host: The control plane.
        here: What is true on it (its own address, when the parameters leave it out).
    """
    address = api_address(host, here)
    init = {
        "apiVersion": _api_version(params.kubernetes_version),
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address, "bindPort": 6443},
        "bootstrapTokens": [{"ttl": "30m0s"}],
        "nodeRegistration": {"name": host.name, "kubeletExtraArgs": _node_ip(params, address)},
    }
    cluster_wide = {
        "apiVersion": _api_version(params.kubernetes_version),
        "kind": "ClusterConfiguration",
        "clusterName": params.cluster,
        "kubernetesVersion": f"v{params.kubernetes_version}",
        "networking": {
            "podSubnet": str(params.effective_pod_cidr),
            "serviceSubnet": str(params.service_cidr),
        },
    }
    documents = [init, cluster_wide]
    if params.swap == "keep":
        # Kept in the cluster, so that every node that joins has it too.
        kubelet = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
        documents.append({**kubelet, "failSwapOn": False})
    return str(yaml.safe_dump_all(documents, sort_keys=False))


def api_address(host: Host, here: HostFacts) -> str:
    """Return the address that the other hosts reach this one at.

    It is the stated node_address, else the address that SSH uses when the host has it, else that of
    the interface with the default route.
    """
    if host.node_address:
        return host.node_address
    own = {
        address.partition("/")[0]: link for link in here.links or () for address in link.addresses
    }
    if host.address in own:
        return host.address
    device = next((r.device for r in here.routes or () if r.destination == "default"), "")
    return next((address for address, link in own.items() if link.name == device), host.address)


def _api_version(version: str) -> str:
    """Return the kubeadm configuration API of a Kubernetes version."""
    if minor(version) >= (1, 31):
        return "kubeadm.k8s.io/v1beta4"
    return "kubeadm.k8s.io/v1beta3" if minor(version) >= (1, 22) else "kubeadm.k8s.io/v1beta2"


def _node_ip(params: Params, address: str) -> object:
    """Return the kubelet's --node-ip in the form of the configuration API (v1beta4: a list)."""
    if minor(params.kubernetes_version) >= (1, 31):
        return [{"name": "node-ip", "value": address}]
    return {"node-ip": address}
