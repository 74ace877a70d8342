"""The certificates, kubeconfigs and kubelet files that kubeadm writes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from kitlib.lab.api import pki
from kitlib.lab.node.kubeadm_config import InitOptions
from kitlib.lab.node.kubeadm_manifests import dump
from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubeadm_run import Run

__all__ = [
    "CA_CERT",
    "PKI",
    "certificates",
    "finalize_kubelet",
    "kubeconfigs",
    "kubelet_config",
    "kubelet_flags",
    "leaves",
]

PKI = "/etc/kubernetes/pki"
CA_CERT = f"{PKI}/ca.crt"
_CLIENT_PEM = "/var/lib/kubelet/pki/kubelet-client-current.pem"


def certificates(run: Run, options: InitOptions) -> Iterator[tuple[str, float]]:
    """Write every certificate and key; yields kubeadm's line and its recorded delay for each."""
    yield f'[certs] Using certificateDir folder "{PKI}"', 0.0
    ca = _authority(run, "ca", "kubernetes")
    yield '[certs] Generating "ca" certificate and key', 0.25
    yield from _own_api(run, options, ca)
    front = _authority(run, "front-proxy-ca", "front-proxy-ca")
    yield '[certs] Generating "front-proxy-ca" certificate and key', 0.07
    _leaf(run, "front-proxy-client", front, "front-proxy-client")
    yield '[certs] Generating "front-proxy-client" certificate and key', 0.15
    etcd = _authority(run, "etcd/ca", "etcd-ca")
    yield '[certs] Generating "etcd/ca" certificate and key', 0.1
    yield from _own_etcd(run, options, etcd)
    _leaf(
        run,
        "etcd/healthcheck-client",
        etcd,
        "kube-etcd-healthcheck-client",
        orgs=("system:masters",),
    )
    yield '[certs] Generating "etcd/healthcheck-client" certificate and key', 0.3
    _leaf(
        run, "apiserver-etcd-client", etcd, "kube-apiserver-etcd-client", orgs=("system:masters",)
    )
    yield '[certs] Generating "apiserver-etcd-client" certificate and key', 0.23
    key = pki.new_key()
    run.write(f"{PKI}/sa.key", key)
    run.write(f"{PKI}/sa.pub", pki.public_pem(key))
    yield '[certs] Generating "sa" key and public key', 0.12


def _own_api(run: Run, options: InitOptions, ca: pki.KeyPair) -> Iterator[tuple[str, float]]:
    """Write the certificates of one control plane's API server, as server and to kubelets."""
    dns, ips = _api_names(options)
    _leaf(run, "apiserver", ca, "kube-apiserver", dns=dns, ips=ips, server=True)
    yield '[certs] Generating "apiserver" certificate and key', 0.15
    yield _signed("apiserver", dns, ips), 0.0
    orgs = ("system:masters",) if options.release.minor < 29 else ("kubeadm:cluster-admins",)
    _leaf(run, "apiserver-kubelet-client", ca, "kube-apiserver-kubelet-client", orgs=orgs)
    yield '[certs] Generating "apiserver-kubelet-client" certificate and key', 0.2


def _own_etcd(run: Run, options: InitOptions, etcd: pki.KeyPair) -> Iterator[tuple[str, float]]:
    """Write the certificates of one control plane's etcd member, to clients and to its peers."""
    own_dns, own_ips = ["localhost", options.name], [options.address, "127.0.0.1", "::1"]
    for use in ("server", "peer"):
        _leaf(
            run,
            f"etcd/{use}",
            etcd,
            options.name,
            dns=own_dns,
            ips=own_ips,
            server=True,
            client=True,
        )
        yield f'[certs] Generating "etcd/{use}" certificate and key', 0.06
        yield _signed(f"etcd/{use}", own_dns, own_ips), 0.0


def leaves(run: Run, options: InitOptions) -> Iterator[tuple[str, float]]:
    """Write a further control plane's own certificates, signed by the authorities it was given."""
    ca, front, etcd = (_given(run, file) for file in ("ca", "front-proxy-ca", "etcd/ca"))
    _leaf(run, "front-proxy-client", front, "front-proxy-client")
    yield '[certs] Generating "front-proxy-client" certificate and key', 0.1
    yield from _own_api(run, options, ca)
    yield from _own_etcd(run, options, etcd)
    for file, cn in (
        ("etcd/healthcheck-client", "kube-etcd-healthcheck-client"),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client"),
    ):
        _leaf(run, file, etcd, cn, orgs=("system:masters",))
        yield f'[certs] Generating "{file}" certificate and key', 0.2


def _api_names(options: InitOptions) -> tuple[list[str], list[str]]:
    """Return the names and the addresses in the API server's certificate."""
    svc = f"kubernetes.default.svc.{options.domain}"
    dns = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", svc, options.name]
    ips = [str(options.services[1]), options.address]
    for extra in (*options.cert_sans, options.endpoint.partition(":")[0]):
        if extra and extra not in dns + ips:
            (ips if extra.replace(".", "").isdigit() else dns).append(extra)
    return dns, ips


def kubeconfigs(
    run: Run, options: InitOptions, *, kubelet: bool = True
) -> Iterator[tuple[str, float]]:
    """Write the kubeconfig files; yields kubeadm's line and its recorded delay for each.

    Args:
        run: The running kubeadm.
        options: What it was told.
        kubelet: Whether the kubelet's is among them; one that joins gets its own.
    """
    yield '[kubeconfig] Using kubeconfig folder "/etc/kubernetes"', 0.0
    ca = pki.KeyPair(run.path(CA_CERT).read_text(), run.path(f"{PKI}/ca.key").read_text())
    node = f"system:node:{options.name}"
    local = f"https://{options.address}:{options.port}"
    users: list[tuple[str, str, tuple[str, ...], str]] = [
        ("admin.conf", "kubernetes-admin", ("system:masters",), options.server)
    ]
    if options.release.minor >= 29:
        users = [
            ("admin.conf", "kubernetes-admin", ("kubeadm:cluster-admins",), options.server),
            ("super-admin.conf", "kubernetes-super-admin", ("system:masters",), options.server),
        ]
    users += [
        ("kubelet.conf", node, ("system:nodes",), options.server),
        ("controller-manager.conf", "system:kube-controller-manager", (), local),
        ("scheduler.conf", "system:kube-scheduler", (), local),
    ]
    users = [each for each in users if kubelet or each[0] != "kubelet.conf"]
    for (file, user, orgs, server), after in zip(users, (0.1, 0.1, 0.1, 0.12, 0.1), strict=False):
        pair = pki.issue(ca, user, orgs, client=True)
        shown = user if file != "kubelet.conf" else node
        config = pki.kubeconfig(
            server,
            ca.cert_pem,
            shown,
            options.cluster,
            cert_pem=pair.cert_pem,
            key_pem=pair.key_pem,
        )
        run.write(f"/etc/kubernetes/{file}", dump(config))
        yield f'[kubeconfig] Writing "{file}" kubeconfig file', after


def finalize_kubelet(run: Run) -> None:
    """Point kubelet.conf at the client certificate that the kubelet renews itself."""
    file = run.path("/etc/kubernetes/kubelet.conf")
    config = yaml.safe_load(file.read_text())
    user = config["users"][0]["user"]
    pem = run.path(_CLIENT_PEM)
    if not pem.exists() and "client-certificate-data" in user:
        parts = (user["client-certificate-data"], user["client-key-data"])
        run.write(_CLIENT_PEM, "".join(base64.b64decode(part).decode() for part in parts))
    config["users"][0]["user"] = {"client-certificate": str(pem), "client-key": str(pem)}
    file.write_text(dump(config))


def kubelet_config(release: Release, dns: str, domain: str) -> dict[str, Any]:
    """Return the KubeletConfiguration that kubeadm stores in the cluster and on every node."""
    minor = release.minor
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"cacheTTL": "0s", "enabled": True},
            "x509": {"clientCAFile": CA_CERT},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"},
        },
        "clusterDNS": [dns],
        "clusterDomain": domain,
        "cpuManagerReconcilePeriod": "0s",
        "evictionPressureTransitionPeriod": "0s",
        "fileCheckFrequency": "0s",
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "httpCheckFrequency": "0s",
        "imageMinimumGCAge": "0s",
        "kind": "KubeletConfiguration",
        "nodeStatusReportFrequency": "0s",
        "nodeStatusUpdateFrequency": "0s",
        "rotateCertificates": True,
        "runtimeRequestTimeout": "0s",
        "staticPodPath": "/etc/kubernetes/manifests",
        "streamingConnectionIdleTimeout": "0s",
        "syncFrequency": "0s",
        "volumeStatsAggPeriod": "0s",
    }
    if minor >= 21:
        config["shutdownGracePeriod"] = config["shutdownGracePeriodCriticalPods"] = "0s"
    if minor >= 20:
        config["logging"] = {}
    if minor >= 22:
        config |= {"cgroupDriver": "systemd", "memorySwap": {}}
    if minor >= 27:
        config["containerRuntimeEndpoint"] = ""
    return config


def kubelet_flags(
    run: Run,
    release: Release,
    name: str,
    cri_socket: str,
    extra: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
) -> str:
    """Return the text of kubeadm-flags.env."""
    flags = []
    if release.minor < 24:
        flags.append("--container-runtime=remote")
    flags.append(f"--container-runtime-endpoint={cri_socket or release.cri_socket}")
    if name != run.host.name:
        flags.append(f"--hostname-override={name}")
    if release.minor < 35:
        flags.append(f"--pod-infra-container-image={release.pause()}")
    if taints:
        shown = (f"{t['key']}={t.get('value') or ''}:{t['effect']}" for t in taints)
        flags.append(f"--register-with-taints={','.join(shown)}")
    flags += [f"--{flag}={value}" for flag, value in (extra or {}).items()]
    return f'KUBELET_KUBEADM_ARGS="{" ".join(flags)}"\n'


def _given(run: Run, file: str) -> pki.KeyPair:
    """Return a certificate authority that is on the host already."""
    read = (run.path(f"{PKI}/{file}.{part}").read_text() for part in ("crt", "key"))
    return pki.KeyPair(*read)


def _authority(run: Run, file: str, cn: str) -> pki.KeyPair:
    """Write a new certificate authority and return it."""
    pair = pki.new_ca(cn)
    _store(run, file, pair)
    return pair


def _leaf(
    run: Run,
    file: str,
    ca: pki.KeyPair,
    cn: str,
    *,
    orgs: tuple[str, ...] = (),
    dns: list[str] | None = None,
    ips: list[str] | None = None,
    server: bool = False,
    client: bool = False,
) -> None:
    pair = pki.issue(ca, cn, orgs, dns or (), ips or (), server=server, client=client or not server)
    _store(run, file, pair)


def _store(run: Run, file: str, pair: pki.KeyPair) -> None:
    run.write(f"{PKI}/{file}.crt", pair.cert_pem, 0o644)
    run.write(f"{PKI}/{file}.key", pair.key_pem)


def _signed(what: str, dns: list[str], ips: list[str]) -> str:
    return (
        f"[certs] {what} serving cert is signed for DNS names [{' '.join(dns)}] "
        f"and IPs [{' '.join(ips)}]"
    )
