"""The static pod manifests that kubeadm init writes for the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from kitlib.lab.node.kubeadm_config import InitOptions

__all__ = ["dump", "manifest"]

Obj = dict[str, Any]
_PKI = "/etc/kubernetes/pki"
_CA_VOLUMES = (
    ("ca-certs", "/etc/ssl/certs"),
    ("etc-ca-certificates", "/etc/ca-certificates"),
    ("usr-local-share-ca-certificates", "/usr/local/share/ca-certificates"),
    ("usr-share-ca-certificates", "/usr/share/ca-certificates"),
)


def dump(document: Obj) -> str:
    """Return a document as the YAML that Kubernetes programs write."""
    return yaml.safe_dump(document, default_flow_style=False, sort_keys=True, width=100_000)


def manifest(component: str, options: InitOptions, peers: Mapping[str, str] | None = None) -> str:
    """Return the manifest of one control plane component as YAML.

    Args:
        component: `kube-apiserver`, `kube-controller-manager`, `kube-scheduler` or `etcd`.
        options: What kubeadm was told.
        peers: etcd's members, name -> address, for one that joins them.
    """
    if component == "etcd":
        return dump(_etcd(options, peers))
    build = {
        "kube-apiserver": _apiserver,
        "kube-controller-manager": _controller_manager,
        "kube-scheduler": _scheduler,
    }[component]
    return dump(build(options))


def _apiserver(options: InitOptions) -> Obj:
    flags = {
        "advertise-address": options.address,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{_PKI}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "etcd-cafile": f"{_PKI}/etcd/ca.crt",
        "etcd-certfile": f"{_PKI}/apiserver-etcd-client.crt",
        "etcd-keyfile": f"{_PKI}/apiserver-etcd-client.key",
        "etcd-servers": "https://127.0.0.1:2379",
        "kubelet-client-certificate": f"{_PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{_PKI}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "proxy-client-cert-file": f"{_PKI}/front-proxy-client.crt",
        "proxy-client-key-file": f"{_PKI}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{_PKI}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(options.port),
        "service-account-issuer": f"https://kubernetes.default.svc.{options.domain}",
        "service-account-key-file": f"{_PKI}/sa.pub",
        "service-account-signing-key-file": f"{_PKI}/sa.key",
        "service-cluster-ip-range": options.service_cidr,
        "tls-cert-file": f"{_PKI}/apiserver.crt",
        "tls-private-key-file": f"{_PKI}/apiserver.key",
    }
    if options.release.minor < 20:
        flags["insecure-port"] = "0"
        del flags["service-account-issuer"], flags["service-account-signing-key-file"]
    where = (options.address, options.port, "HTTPS")
    live, ready = ("/livez", "/readyz") if options.release.minor >= 18 else ("/healthz", "/healthz")
    pod = _pod(
        "kube-apiserver",
        options,
        flags,
        _probe(live, *where),
        "250m",
        (*_CA_VOLUMES, ("k8s-certs", _PKI)),
    )
    pod["metadata"]["annotations"] = {
        "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": (
            f"{options.address}:{options.port}"
        )
    }
    check = {"host": options.address, "path": ready, "port": options.port, "scheme": "HTTPS"}
    pod["spec"]["containers"][0]["readinessProbe"] = {
        "failureThreshold": 3,
        "httpGet": check,
        "periodSeconds": 1,
        "timeoutSeconds": 15,
    }
    return pod


def _controller_manager(options: InitOptions) -> Obj:
    conf = "/etc/kubernetes/controller-manager.conf"
    flags = {
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{_PKI}/ca.crt",
        "cluster-name": options.cluster,
        "cluster-signing-cert-file": f"{_PKI}/ca.crt",
        "cluster-signing-key-file": f"{_PKI}/ca.key",
        "controllers": "*,bootstrapsigner,tokencleaner",
        "kubeconfig": conf,
        "leader-elect": "true",
        "requestheader-client-ca-file": f"{_PKI}/front-proxy-ca.crt",
        "root-ca-file": f"{_PKI}/ca.crt",
        "service-account-private-key-file": f"{_PKI}/sa.key",
        "service-cluster-ip-range": options.service_cidr,
        "use-service-account-credentials": "true",
    }
    if options.pod_cidr:
        flags |= {"allocate-node-cidrs": "true", "cluster-cidr": options.pod_cidr}
    if 18 <= options.release.minor < 23:
        flags["port"] = "0"
    volumes = (
        *_CA_VOLUMES,
        ("flexvolume-dir", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"),
        ("k8s-certs", _PKI),
        ("kubeconfig", conf),
    )
    probe = _probe("/healthz", "127.0.0.1", 10257, "HTTPS")
    return _pod("kube-controller-manager", options, flags, probe, "200m", volumes)


def _scheduler(options: InitOptions) -> Obj:
    conf = "/etc/kubernetes/scheduler.conf"
    flags = {
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "kubeconfig": conf,
        "leader-elect": "true",
    }
    if 18 <= options.release.minor < 23:
        flags["port"] = "0"
    probe = _probe("/healthz", "127.0.0.1", 10259, "HTTPS")
    return _pod("kube-scheduler", options, flags, probe, "100m", (("kubeconfig", conf),))


def _etcd(options: InitOptions, peers: Mapping[str, str] | None = None) -> Obj:
    client, peer = f"https://{options.address}:2379", f"https://{options.address}:2380"
    flags = {
        "advertise-client-urls": client,
        "cert-file": f"{_PKI}/etcd/server.crt",
        "client-cert-auth": "true",
        "data-dir": "/var/lib/etcd",
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{options.name}={peer}",
        "key-file": f"{_PKI}/etcd/server.key",
        "listen-client-urls": f"https://127.0.0.1:2379,{client}",
        "listen-metrics-urls": "http://127.0.0.1:2381",
        "listen-peer-urls": peer,
        "name": options.name,
        "peer-cert-file": f"{_PKI}/etcd/peer.crt",
        "peer-client-cert-auth": "true",
        "peer-key-file": f"{_PKI}/etcd/peer.key",
        "peer-trusted-ca-file": f"{_PKI}/etcd/ca.crt",
        "snapshot-count": "10000",
        "trusted-ca-file": f"{_PKI}/etcd/ca.crt",
    }
    if peers:
        urls = (f"{name}=https://{address}:2380" for name, address in peers.items())
        flags |= {"initial-cluster": ",".join(urls), "initial-cluster-state": "existing"}
    volumes = (("etcd-data", "/var/lib/etcd"), ("etcd-certs", f"{_PKI}/etcd"))
    probe = _probe("/health", "127.0.0.1", 2381, "HTTP")
    pod = _pod("etcd", options, flags, probe, "100m", volumes)
    pod["metadata"]["annotations"] = {"kubeadm.kubernetes.io/etcd.advertise-client-urls": client}
    pod["spec"]["containers"][0]["resources"]["requests"]["memory"] = "100Mi"
    return pod


def _pod(
    name: str,
    options: InitOptions,
    flags: dict[str, str],
    probe: Obj,
    cpu: str,
    volumes: tuple[tuple[str, str], ...],
) -> Obj:
    release, own = options.release, options.repository
    image = release.etcd(own) if name == "etcd" else release.component(name, own)
    writable = ("etcd-data", "etcd-certs", "flexvolume-dir")
    container = {
        "command": [name, *(f"--{flag}={value}" for flag, value in sorted(flags.items()))],
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": {**probe, "failureThreshold": 8},
        "name": name,
        "resources": {"requests": {"cpu": cpu}},
        "startupProbe": {**probe, "failureThreshold": 24},
        "volumeMounts": [
            {"mountPath": path, "name": volume} | ({} if volume in writable else {"readOnly": True})
            for volume, path in sorted(volumes, key=lambda pair: _mount_order(pair[0]))
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "creationTimestamp": None,
            "labels": {"component": name, "tier": "control-plane"},
            "name": name,
            "namespace": "kube-system",
        },
        "spec": {
            "containers": [container],
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {"hostPath": {"path": path, "type": _volume_type(volume)}, "name": volume}
                for volume, path in sorted(volumes)
            ],
        },
        "status": {},
    }


def _volume_type(volume: str) -> str:
    return "FileOrCreate" if volume == "kubeconfig" else "DirectoryOrCreate"


def _mount_order(volume: str) -> tuple[int, str]:
    """Return a sort key: etcd mounts its data first, the others go by name."""
    return (0 if volume == "etcd-data" else 1), volume


def _probe(path: str, host: str, port: int, scheme: str) -> Obj:
    return {
        "httpGet": {"host": host, "path": path, "port": port, "scheme": scheme},
        "initialDelaySeconds": 10,
        "periodSeconds": 10,
        "timeoutSeconds": 15,
    }
