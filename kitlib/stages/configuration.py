"""The configuration files of kubeadm, in the API version that the installed kubeadm speaks.

Files and not flags: a token or a certificate key on a command line can be read by every user of
the host for as long as kubeadm runs, and the kubelet's address and taints have no flag at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from kitlib.command import Secret
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.params import Params
from kitlib.plugins.schema import minor
from kitlib.software.units import KIT_DIRECTORY

__all__ = [
    "API_PORT",
    "KIT_DIRECTORY",
    "KUBECONFIG",
    "Invitation",
    "api_address",
    "api_endpoint",
    "config_version",
    "init_configuration",
    "join_configuration",
    "upload_configuration",
]

API_PORT = 6443
KUBECONFIG = {"KUBECONFIG": "/etc/kubernetes/admin.conf"}
"""The environment of commands on the control plane that speak with the API as administrator."""
_DISCOVERY = "1m0s"
"""How long kubeadm may look for the cluster: the kit has found it already, the moment before."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a host needs to be let into a cluster.

    Attributes:
        endpoint: host:port of the API.
        token: The bootstrap token.
        ca_hash: `sha256:<hex>` of the cluster CA's public key.
        certificate_key: What a further control plane decrypts the shared certificates with; None
            for a worker.
    """

    endpoint: str
    token: Secret
    ca_hash: str
    certificate_key: Secret | None = None


def config_version(params: Params, here: HostFacts) -> str:
    """Return the configuration API of the kubeadm that is installed (else of the wanted one)."""
    found = minor(here.version("kubeadm") or params.kubernetes_version)
    if found >= (1, 31):
        return "kubeadm.k8s.io/v1beta4"
    return "kubeadm.k8s.io/v1beta3" if found >= (1, 22) else "kubeadm.k8s.io/v1beta2"


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


def api_endpoint(params: Params, facts: Mapping[str, HostFacts]) -> str:
    """Return host:port at which hosts reach the API: the stated one, or the control plane's own."""
    main = params.control_plane
    return params.control_plane_endpoint or f"{api_address(main, facts[main.name])}:{API_PORT}"


def init_configuration(params: Params, host: Host, here: HostFacts) -> str:
    """Return the file for `kubeadm init`.

    Args:
        params: What is wanted.
        host: The control plane.
        here: What is true on it (its own address, when the parameters leave it out).
    """
    version, address = config_version(params, here), api_address(host, here)
    init = {
        "apiVersion": version,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address, "bindPort": API_PORT},
        "bootstrapTokens": [{"ttl": "30m0s"}],
        "nodeRegistration": _registration(version, host, address),
    }
    return _dump(init, _cluster(params, version), *_kubelet(params))


def upload_configuration(params: Params, host: Host, here: HostFacts, key: Secret) -> str:
    """Return the file for `kubeadm init phase upload-certs`; it holds the certificate key."""
    version, address = config_version(params, here), api_address(host, here)
    init = {
        "apiVersion": version,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address, "bindPort": API_PORT},
        "nodeRegistration": _registration(version, host, address),
        "certificateKey": key.value,
    }
    return _dump(init, _cluster(params, version))


def join_configuration(params: Params, host: Host, here: HostFacts, invitation: Invitation) -> str:
    """Return the file for `kubeadm join`; it holds the token, and a control plane's the key too."""
    version, address = config_version(params, here), api_address(host, here)
    join: dict[str, Any] = {
        "apiVersion": version,
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": invitation.endpoint,
                "token": invitation.token.value,
                "caCertHashes": [invitation.ca_hash],
            },
        },
        "nodeRegistration": _registration(version, host, address),
    }
    if version.endswith("v1beta4"):
        join["timeouts"] = {"discovery": _DISCOVERY}
    else:
        join["discovery"]["timeout"] = _DISCOVERY
    if invitation.certificate_key is not None:
        join["controlPlane"] = {
            "localAPIEndpoint": {"advertiseAddress": address, "bindPort": API_PORT},
            "certificateKey": invitation.certificate_key.value,
        }
    elif host.taints:
        # On a control plane the list would replace kubeadm's own taints; there they come later.
        join["nodeRegistration"]["taints"] = [asdict(taint) for taint in host.taints]
    return _dump(join)


def _cluster(params: Params, version: str) -> dict[str, Any]:
    endpoint = params.control_plane_endpoint
    return {
        "apiVersion": version,
        "kind": "ClusterConfiguration",
        "clusterName": params.cluster,
        "kubernetesVersion": f"v{params.kubernetes_version}",
        **({"controlPlaneEndpoint": endpoint} if endpoint else {}),
        "networking": {
            "podSubnet": str(params.effective_pod_cidr),
            "serviceSubnet": str(params.service_cidr),
        },
    }


def _kubelet(params: Params) -> list[dict[str, Any]]:
    """Return the kubelets' settings, kept in the cluster so that every node that joins has them."""
    if params.swap != "keep":
        return []
    kind = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}
    return [{**kind, "failSwapOn": False}]


def _registration(version: str, host: Host, address: str) -> dict[str, Any]:
    """Return the Node's name and the kubelet's --node-ip (a list since v1beta4)."""
    listed = version.endswith("v1beta4")
    args = [{"name": "node-ip", "value": address}] if listed else {"node-ip": address}
    return {"name": host.name, "kubeletExtraArgs": args}


def _dump(*documents: dict[str, Any]) -> str:
    return str(yaml.safe_dump_all(documents, sort_keys=False))
