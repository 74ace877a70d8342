"""The API objects that kubeadm init creates, and how they are put in place."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

from kitlib.lab import hostclock
from kitlib.lab.node.kubeadm_config import InitOptions
from kitlib.lab.node.kubeadm_files import kubelet_config
from kitlib.lab.node.kubeadm_manifests import dump
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused

__all__ = [
    "certs_roles",
    "cluster_info",
    "ensure",
    "kubeadm_config",
    "kubelet_config_map",
    "rbac",
    "token_secret",
]

Obj = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"
_PLURALS = {
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "Deployment": "deployments",
    "DaemonSet": "daemonsets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}
_BOOTSTRAPPERS = "system:bootstrappers:kubeadm:default-node-token"


async def ensure(api: ApiClient, item: Obj) -> None:
    """Create an object, or replace the one that is there."""
    version, meta = item["apiVersion"], item["metadata"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    if "namespace" in meta:
        base += f"/namespaces/{meta['namespace']}"
    base += f"/{_PLURALS[item['kind']]}"
    try:
        await api.create(base, item)
    except ApiRefused as refused:
        if refused.status != 409:
            raise
        path = f"{base}/{meta['name']}"
        found = await api.get(path)
        version = found["metadata"]["resourceVersion"]
        if item["kind"] == "Service":
            item = {**item, "spec": {**found["spec"], **item["spec"]}}
        await api.update(path, {**item, "metadata": {**meta, "resourceVersion": version}})


def config_map(namespace: str, name: str, data: dict[str, str], labels: Obj | None = None) -> Obj:
    """Return a ConfigMap."""
    meta: Obj = {"name": name, "namespace": namespace}
    if labels:
        meta["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def kubeadm_config(options: InitOptions) -> Obj:
    """Return the ConfigMap with the ClusterConfiguration."""
    release = options.release
    networking = {"dnsDomain": options.domain, "serviceSubnet": options.service_cidr}
    if options.pod_cidr:
        networking["podSubnet"] = options.pod_cidr
    api_server: Obj = {"timeoutForControlPlane": "4m0s"}
    if release.minor < 36:
        api_server["extraArgs"] = {"authorization-mode": "Node,RBAC"}
    if release.config_api == "v1beta4":
        api_server = {}
    cluster: Obj = {
        "apiServer": api_server,
        "apiVersion": f"kubeadm.k8s.io/{release.config_api}",
        "certificatesDir": "/etc/kubernetes/pki",
        "clusterName": options.cluster,
        "controllerManager": {},
        "dns": {"type": "CoreDNS"} if release.minor < 22 else {},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
        "imageRepository": options.repository or release.repository,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": release.tag,
        "networking": networking,
        "scheduler": {},
    }
    if options.endpoint:
        cluster["controlPlaneEndpoint"] = options.endpoint
    data = {"ClusterConfiguration": dump(cluster)}
    if release.minor < 22:
        endpoint = {"advertiseAddress": options.address, "bindPort": options.port}
        data["ClusterStatus"] = dump(
            {
                "apiEndpoints": {options.name: endpoint},
                "apiVersion": f"kubeadm.k8s.io/{release.config_api}",
                "kind": "ClusterStatus",
            }
        )
    return config_map("kube-system", "kubeadm-config", data)


def kubelet_config_map(options: InitOptions) -> Obj:
    """Return the ConfigMap with the kubelets' configuration."""
    config = kubelet_config(options.release, options.dns_address, options.domain)
    config |= {k: v for k, v in options.kubelet.items() if k not in ("apiVersion", "kind")}
    return config_map("kube-system", options.release.kubelet_config_map, {"kubelet": dump(config)})


def cluster_info(server: str, ca_pem: str) -> Obj:
    """Return the public ConfigMap that tells joining nodes where the cluster is."""
    entry = {
        "certificate-authority-data": base64.b64encode(ca_pem.encode()).decode(),
        "server": server,
    }
    config: Obj = {
        "apiVersion": "v1",
        "clusters": [{"cluster": entry, "name": ""}],
        "contexts": None,
        "current-context": "",
        "kind": "Config",
        "preferences": {},
        "users": None,
    }
    return config_map("kube-public", "cluster-info", {"kubeconfig": dump(config)})


def token_secret(
    token: str, ttl: float, description: str, groups: str = _BOOTSTRAPPERS, usages: str = ""
) -> Obj:
    """Return the Secret of a bootstrap token; `ttl` is in seconds, 0 never ends."""
    token_id, secret = token.split(".")
    data = {"token-id": token_id, "token-secret": secret, "auth-extra-groups": groups}
    for usage in (usages or "signing,authentication").split(","):
        data[f"usage-bootstrap-{usage}"] = "true"
    if description:
        data["description"] = description
    if ttl:
        end = hostclock.utc() + dt.timedelta(seconds=ttl)
        data["expiration"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def rbac(options: InitOptions) -> dict[str, list[Obj]]:
    """Return the roles and bindings that nodes need, by the step that makes them."""
    users = [_group(_BOOTSTRAPPERS), _group("system:nodes")]
    config_name = options.release.kubelet_config_map
    suffix = config_name.removeprefix("kubelet-config")
    steps = {
        "kubeadm-config": [
            *_role(
                "kube-system", "kubeadm:nodes-kubeadm-config", "configmaps", "kubeadm-config", users
            )
        ],
        "kubelet-config": [
            *_role(
                "kube-system", f"kubeadm:kubelet-config{suffix}", "configmaps", config_name, users
            )
        ],
        "get-nodes": [
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "kubeadm:get-nodes"},
                "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
            },
            binding("kubeadm:get-nodes", "kubeadm:get-nodes", [_group(_BOOTSTRAPPERS)]),
        ],
        "post-csrs": [
            binding(
                "kubeadm:kubelet-bootstrap", "system:node-bootstrapper", [_group(_BOOTSTRAPPERS)]
            )
        ],
        "approve": [
            binding(
                "kubeadm:node-autoapprove-bootstrap",
                "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
                [_group(_BOOTSTRAPPERS)],
            )
        ],
        "rotate": [
            binding(
                "kubeadm:node-autoapprove-certificate-rotation",
                "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
                [_group("system:nodes")],
            )
        ],
        "cluster-info": [
            *_role(
                "kube-public",
                "kubeadm:bootstrap-signer-clusterinfo",
                "configmaps",
                "cluster-info",
                [{"apiGroup": _RBAC, "kind": "User", "name": "system:anonymous"}],
            )
        ],
        "admins": [],
    }
    if options.release.minor >= 29:
        steps["admins"] = [
            binding("kubeadm:cluster-admins", "cluster-admin", [_group("kubeadm:cluster-admins")])
        ]
    return steps


def certs_roles() -> tuple[Obj, Obj]:
    """Return the role that lets joining control planes read the shared certificates."""
    return _role(
        "kube-system",
        "kubeadm:kubeadm-certs",
        "secrets",
        "kubeadm-certs",
        [_group(_BOOTSTRAPPERS)],
    )


def binding(name: str, role: str, subjects: list[Obj]) -> Obj:
    """Return a ClusterRoleBinding to a ClusterRole."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    }


def _role(
    namespace: str, name: str, resource: str, only: str, subjects: list[Obj]
) -> tuple[Obj, Obj]:
    """Return a Role that may get one object, and its binding."""
    meta = {"name": name, "namespace": namespace}
    rule = {"apiGroups": [""], "resourceNames": [only], "resources": [resource], "verbs": ["get"]}
    role = {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [rule]}
    bound = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": subjects,
    }
    return role, bound


def _group(name: str) -> Obj:
    return {"apiGroup": _RBAC, "kind": "Group", "name": name}
