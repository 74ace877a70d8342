"""The two add-ons of every kubeadm cluster, CoreDNS and kube-proxy, as API objects."""

from __future__ import annotations

from typing import Any

from kitlib.lab.node.kubeadm_config import InitOptions
from kitlib.lab.node.kubeadm_manifests import dump
from kitlib.lab.node.kubeadm_objects import binding, config_map

__all__ = ["coredns", "kube_proxy"]

Obj = dict[str, Any]
_DNS = {"k8s-app": "kube-dns"}
_PROXY = {"k8s-app": "kube-proxy"}
_COREFILE = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes DOMAIN in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""


def coredns(options: InitOptions) -> list[Obj]:
    """Return what `addon/coredns` creates, in kubeadm's order."""
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}
    watched = ["endpoints", "services", "pods", "namespaces"]
    rules = [
        {"apiGroups": [""], "resources": watched, "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    return [
        config_map(
            "kube-system", "coredns", {"Corefile": _COREFILE.replace("DOMAIN", options.domain)}
        ),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        binding("system:coredns", "system:coredns", [account]),
        _account("coredns"),
        _coredns_deployment(options),
        _dns_service(options),
    ]


def kube_proxy(options: InitOptions) -> list[Obj]:
    """Return what `addon/kube-proxy` creates, in kubeadm's order."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "bindAddress": "0.0.0.0",
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
        "clusterCIDR": options.pod_cidr,
        "configSyncPeriod": "0s",
        "enableProfiling": False,
        "iptables": {"masqueradeAll": False, "minSyncPeriod": "0s", "syncPeriod": "0s"},
        "kind": "KubeProxyConfiguration",
        "mode": "",
    }
    token = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a directory
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "cluster": {"certificate-authority": f"{token}/ca.crt", "server": options.server},
                "name": "default",
            }
        ],
        "contexts": [
            {
                "context": {"cluster": "default", "namespace": "default", "user": "default"},
                "name": "default",
            }
        ],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": f"{token}/token"}}],
    }
    data = {"config.conf": dump(config), "kubeconfig.conf": dump(kubeconfig)}
    account = {"kind": "ServiceAccount", "name": "kube-proxy", "namespace": "kube-system"}
    return [
        _account("kube-proxy"),
        config_map("kube-system", "kube-proxy", data, {"app": "kube-proxy"}),
        _proxy_daemon_set(options),
        binding("kubeadm:node-proxier", "system:node-proxier", [account]),
    ]


def _account(name: str) -> Obj:
    meta = {"name": name, "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def _dns_service(options: InitOptions) -> Obj:
    labels = {**_DNS, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    if options.release.minor < 19:
        labels["kubernetes.io/name"] = "KubeDNS"
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
            "labels": labels,
            "name": "kube-dns",
            "namespace": "kube-system",
        },
        "spec": {"clusterIP": options.dns_address, "ports": ports, "selector": dict(_DNS)},
    }


def _coredns_deployment(options: InitOptions) -> Obj:
    tolerations: list[Obj] = [{"key": "CriticalAddonsOnly", "operator": "Exists"}]
    roles = ["master"] if options.release.minor < 25 else []
    roles += ["control-plane"] if options.release.minor >= 20 else []
    for role in roles:
        tolerations.append({"effect": "NoSchedule", "key": f"node-role.kubernetes.io/{role}"})
    container = {
        "args": ["-conf", "/etc/coredns/Corefile"],
        "image": options.release.coredns(options.repository),
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": {
            "failureThreshold": 5,
            "httpGet": {"path": "/health", "port": 8080, "scheme": "HTTP"},
            "initialDelaySeconds": 60,
            "successThreshold": 1,
            "timeoutSeconds": 5,
        },
        "name": "coredns",
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
            {"containerPort": 9153, "name": "metrics", "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181, "scheme": "HTTP"}},
        "resources": {
            "limits": {"memory": "170Mi"},
            "requests": {"cpu": "100m", "memory": "70Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["all"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"mountPath": "/etc/coredns", "name": "config-volume", "readOnly": True}],
    }
    items = [{"key": "Corefile", "path": "Corefile"}]
    pod = {
        "containers": [container],
        "dnsPolicy": "Default",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": "coredns",
        "tolerations": tolerations,
        "volumes": [{"configMap": {"items": items, "name": "coredns"}, "name": "config-volume"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"labels": dict(_DNS), "name": "coredns", "namespace": "kube-system"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": dict(_DNS)},
            "strategy": {"rollingUpdate": {"maxUnavailable": 1}, "type": "RollingUpdate"},
            "template": {"metadata": {"labels": dict(_DNS)}, "spec": pod},
        },
    }


def _proxy_daemon_set(options: InitOptions) -> Obj:
    container = {
        "command": [
            "/usr/local/bin/kube-proxy",
            "--config=/var/lib/kube-proxy/config.conf",
            "--hostname-override=$(NODE_NAME)",
        ],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "image": options.release.component("kube-proxy", options.repository),
        "imagePullPolicy": "IfNotPresent",
        "name": "kube-proxy",
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"mountPath": "/var/lib/kube-proxy", "name": "kube-proxy"},
            {"mountPath": "/run/xtables.lock", "name": "xtables-lock"},
            {"mountPath": "/lib/modules", "name": "lib-modules", "readOnly": True},
        ],
    }
    lock = {"path": "/run/xtables.lock", "type": "FileOrCreate"}
    pod = {
        "containers": [container],
        "hostNetwork": True,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "priorityClassName": "system-node-critical",
        "serviceAccountName": "kube-proxy",
        "tolerations": [{"operator": "Exists"}],
        "volumes": [
            {"configMap": {"name": "kube-proxy"}, "name": "kube-proxy"},
            {"hostPath": lock, "name": "xtables-lock"},
            {"hostPath": {"path": "/lib/modules"}, "name": "lib-modules"},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"labels": dict(_PROXY), "name": "kube-proxy", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": dict(_PROXY)},
            "template": {"metadata": {"labels": dict(_PROXY)}, "spec": pod},
            "updateStrategy": {"type": "RollingUpdate"},
        },
    }
