"""kubeadm's options: flags and configuration files become one value per verb."""

from __future__ import annotations

import ipaddress
import re
import secrets
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kitlib.lab.node.flags import Flags
from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubeadm_run import KubeadmError, Run

__all__ = ["InitOptions", "JoinOptions", "duration", "init_options", "join_options", "new_token"]

_TOKEN = re.compile(r"^[a-z0-9]{6}\.[a-z0-9]{16}$")
_APIS = {"v1beta1": (15, 21), "v1beta2": (15, 24), "v1beta3": (22, 99), "v1beta4": (31, 99)}
"""Configuration format -> the first and the last minor of kubeadm that reads it."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class InitOptions:
    """What `kubeadm init` was told.

    Attributes:
        release: The Kubernetes release to set up.
        asked_version: Whether a version was given, or kubeadm would look for the newest.
        address: The address that the API advertises.
        port: The port that it listens on.
        name: The node's name.
        pod_cidr: The pod network; empty for none.
        service_cidr: The network of Service addresses.
        domain: The cluster's DNS domain.
        cluster: The cluster's name.
        repository: The image repository.
        token: The bootstrap token.
        ttl: Its life in seconds; 0 never ends.
        cri_socket: The runtime socket, where one is given.
        ignore: Preflight checks that only warn, lower case.
        skip: Phases that are left out.
        upload_certs: Whether certificates are stored in the cluster.
        cert_sans: Further names and addresses in the API's certificate.
        endpoint: controlPlaneEndpoint, host:port; empty for the address itself.
        dry_run: Whether nothing may be changed.
        kubelet: Settings from a KubeletConfiguration document.
        extra: Further flags for the kubelet, name -> value.
        certificate_key: What the shared certificates are encrypted with; empty for a new one.
        hide_key: Whether the key is not printed.
    """

    release: Release
    asked_version: bool
    address: str
    port: int
    name: str
    pod_cidr: str
    service_cidr: str
    domain: str
    cluster: str
    repository: str
    token: str
    ttl: float
    cri_socket: str
    ignore: frozenset[str]
    skip: frozenset[str]
    upload_certs: bool
    cert_sans: tuple[str, ...]
    endpoint: str
    dry_run: bool
    kubelet: dict[str, Any]
    extra: dict[str, str]
    certificate_key: str
    hide_key: bool

    @property
    def server(self) -> str:
        """The API's address for clients."""
        return f"https://{self.join_address}"

    @property
    def join_address(self) -> str:
        """The API's host:port as workers name it."""
        if self.endpoint:
            return self.endpoint if ":" in self.endpoint else f"{self.endpoint}:{self.port}"
        return f"{self.address}:{self.port}"

    @property
    def services(self) -> ipaddress.IPv4Network:
        """The network of Service addresses."""
        return ipaddress.IPv4Network(self.service_cidr)

    @property
    def dns_address(self) -> str:
        """The cluster DNS Service's address, the tenth of the network."""
        return str(self.services[10])


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What `kubeadm join` was told.

    Attributes:
        server: host:port of the API.
        token: The discovery token.
        tls_token: The token that the kubelet asks for its certificate with.
        hashes: CA hashes that are accepted.
        unsafe: Whether any CA is accepted.
        name: The node's name.
        cri_socket: The runtime socket, where one is given.
        ignore: Preflight checks that only warn, lower case.
        extra: Further flags for the kubelet, name -> value.
        taints: What the Node registers with; empty for nothing.
        timeout: Seconds that discovery may take.
        verbose: Whether failed attempts at discovery are logged.
        control_plane: Whether the host becomes a control plane.
        certificate_key: What the shared certificates are decrypted with.
        address: What the new API server advertises; empty for the host's own.
        port: The port that it listens on.
    """

    server: str
    token: str
    tls_token: str
    hashes: tuple[str, ...]
    unsafe: bool
    name: str
    cri_socket: str
    ignore: frozenset[str]
    extra: dict[str, str]
    taints: tuple[dict[str, str], ...]
    timeout: float
    verbose: bool
    control_plane: bool
    certificate_key: str
    address: str
    port: int


def new_token() -> str:
    """Return a new bootstrap token."""
    letters = string.ascii_lowercase + string.digits
    bits = ["".join(secrets.choice(letters) for _ in range(length)) for length in (6, 16)]
    return ".".join(bits)


def duration(text: str) -> float:
    """Return a Go duration (`24h0m0s`) in seconds.

    Raises:
        ValueError: It is none.
    """
    if text == "0":
        return 0.0
    found = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ValueError(f'time: invalid duration "{text}"')
    return sum(float(number) * _UNITS[unit] for number, unit in found)


async def init_options(run: Run, flags: Flags) -> InitOptions:
    """Return what init's flags and its configuration file say.

    Raises:
        KubeadmError: A value is wrong, worded as kubeadm words it.
    """
    documents = _documents(run, flags, ("InitConfiguration", "ClusterConfiguration"))
    init = documents.get("InitConfiguration", {})
    cluster = documents.get("ClusterConfiguration", {})
    network = cluster.get("networking") or {}
    local = init.get("localAPIEndpoint") or {}
    node = init.get("nodeRegistration") or {}
    tokens = init.get("bootstrapTokens") or [{}]
    version = flags.get("kubernetes-version") or str(cluster.get("kubernetesVersion") or "")
    asked = bool(version) and not version.startswith(("stable", "latest"))
    try:
        release = Release.parse(version) if asked else run.own
        ttl = duration(flags.get("token-ttl") or str(tokens[0].get("ttl") or "24h0m0s"))
    except ValueError as wrong:
        raise KubeadmError(str(wrong)) from wrong
    if release.minor < run.own.minor - 1:
        raise KubeadmError(
            "this version of kubeadm only supports deploying clusters with the control plane "
            f"version >= 1.{run.own.minor - 1}.0. Current version: {release.tag}"
        )
    token = flags.get("token") or str(tokens[0].get("token") or new_token())
    api_server = cluster.get("apiServer") or {}
    pod_cidr = flags.get("pod-network-cidr") or str(network.get("podSubnet") or "")
    service_cidr = flags.get("service-cidr") or str(network.get("serviceSubnet") or "10.96.0.0/12")
    _validate(token, pod_cidr, service_cidr)
    return InitOptions(
        release=release,
        asked_version=asked,
        address=flags.get("apiserver-advertise-address")
        or str(local.get("advertiseAddress") or run.host.address),
        port=int(flags.get("apiserver-bind-port") or local.get("bindPort") or 6443),
        name=flags.get("node-name") or str(node.get("name") or await run.node_name()),
        pod_cidr=pod_cidr,
        service_cidr=service_cidr,
        domain=flags.get("service-dns-domain") or str(network.get("dnsDomain") or "cluster.local"),
        cluster=str(cluster.get("clusterName") or "kubernetes"),
        repository=flags.get("image-repository") or str(cluster.get("imageRepository") or ""),
        token=token,
        ttl=ttl,
        cri_socket=flags.get("cri-socket") or str(node.get("criSocket") or ""),
        ignore=_ignored(flags, node),
        skip=frozenset(flags.every("skip-phases") or init.get("skipPhases") or ()),
        upload_certs=flags.on("upload-certs"),
        cert_sans=tuple(
            flags.every("apiserver-cert-extra-sans") or api_server.get("certSANs") or ()
        ),
        endpoint=flags.get("control-plane-endpoint")
        or str(cluster.get("controlPlaneEndpoint") or ""),
        dry_run=flags.on("dry-run"),
        kubelet=documents.get("KubeletConfiguration", {}),
        extra=_extra_args(node),
        certificate_key=flags.get("certificate-key") or str(init.get("certificateKey") or ""),
        hide_key=flags.on("skip-certificate-key-print"),
    )


async def join_options(run: Run, flags: Flags) -> JoinOptions:
    """Return what join's flags, argument and configuration file say.

    Raises:
        KubeadmError: Something is missing or wrong, worded as kubeadm words it.
    """
    document = _documents(run, flags, ("JoinConfiguration",)).get("JoinConfiguration", {})
    discovery = document.get("discovery") or {}
    by_token = discovery.get("bootstrapToken") or {}
    node = document.get("nodeRegistration") or {}
    plane = document.get("controlPlane") or {}
    local = plane.get("localAPIEndpoint") or {}
    server = flags.rest[0] if flags.rest else str(by_token.get("apiServerEndpoint") or "")
    both = flags.get("token")
    token = flags.get("discovery-token") or both or str(by_token.get("token") or "")
    tls = (
        flags.get("tls-bootstrap-token") or both or str(discovery.get("tlsBootstrapToken") or token)
    )
    hashes = tuple(
        flags.every("discovery-token-ca-cert-hash") or by_token.get("caCertHashes") or ()
    )
    unsafe = flags.on("discovery-token-unsafe-skip-ca-verification") or bool(
        by_token.get("unsafeSkipCAVerification")
    )
    wrong = []
    if not server and not token:
        wrong.append('discovery: Invalid value: "": bootstrapToken or file must be set')
    else:
        if not _TOKEN.match(token):
            wrong.append(
                f'discovery.bootstrapToken.token: Invalid value: "{token}": '
                "the bootstrap token is invalid"
            )
        if not hashes and not unsafe:
            wrong.append(
                'discovery.bootstrapToken: Invalid value: "": using token-based discovery without '
                "caCertHashes can be unsafe. Set unsafeSkipCAVerification as true in your kubeadm "
                "config file or pass --discovery-token-unsafe-skip-ca-verification flag to continue"
            )
        if not server:
            wrong.append(
                "discovery.bootstrapToken.apiServerEndpoint: Required value: "
                "APIServerEndpoint is not set"
            )
    if wrong:
        raise KubeadmError(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    for pin in hashes:
        kind, _, digest = pin.partition(":")
        if kind != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise KubeadmError(
                "error execution phase preflight: couldn't validate the identity of the API "
                f"Server: invalid discovery token CA certificate hash: invalid hash {pin!r}, "
                "expected a 32 byte SHA-256 hash, found "
                f"{len(digest) // 2} bytes"
            )
    return JoinOptions(
        server=server,
        token=token,
        tls_token=tls,
        hashes=hashes,
        unsafe=unsafe,
        name=flags.get("node-name") or str(node.get("name") or await run.node_name()),
        cri_socket=flags.get("cri-socket") or str(node.get("criSocket") or ""),
        ignore=_ignored(flags, node),
        extra=_extra_args(node),
        taints=tuple(node.get("taints") or ()),
        timeout=duration(
            str(
                discovery.get("timeout")
                or (document.get("timeouts") or {}).get("discovery")
                or "5m0s"
            )
        ),
        verbose=flags.get("v", "0") != "0",
        control_plane=flags.on("control-plane") or "controlPlane" in document,
        certificate_key=flags.get("certificate-key") or str(plane.get("certificateKey") or ""),
        address=flags.get("apiserver-advertise-address")
        or str(local.get("advertiseAddress") or ""),
        port=int(flags.get("apiserver-bind-port") or local.get("bindPort") or 6443),
    )


def _documents(run: Run, flags: Flags, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the documents of `--config` by kind; empty where there is no such flag.

    Raises:
        KubeadmError: The file is missing, is no YAML, or holds none of `kinds`.
    """
    given = flags.get("config")
    if not given:
        return {}
    mixed = {"token", "pod-network-cidr", "service-cidr", "kubernetes-version", "token-ttl"}
    mixed |= {"apiserver-advertise-address", "discovery-token-ca-cert-hash"}
    clash = sorted(mixed & set(flags.values))
    if clash:
        raise KubeadmError(f"can not mix '--config' with arguments [{' '.join(clash)}]")
    file = (
        run.path(str(Path(run.call.cwd) / given)) if not given.startswith("/") else run.path(given)
    )
    try:
        loaded = [item for item in yaml.safe_load_all(file.read_text()) if isinstance(item, dict)]
    except FileNotFoundError:
        raise KubeadmError(
            f'unable to read config from "{given}" : open {given}: no such file or directory'
        ) from None
    except yaml.YAMLError as wrong:
        raise KubeadmError(f"error converting YAML to JSON: yaml: {wrong}") from wrong
    for item in loaded:
        api = str(item.get("apiVersion", "")).partition("/")
        first, last = _APIS.get(api[2], (1, 0))
        if api[0] == "kubeadm.k8s.io" and not first <= run.own.minor <= last:
            raise KubeadmError(
                f'your configuration file uses an unknown API spec: "{item["apiVersion"]}"'
            )
    found = {str(item.get("kind")): item for item in loaded}
    if not any(kind in found for kind in kinds):
        raise KubeadmError(f"no {' or '.join(kinds)} kind was found in the YAML file")
    return found


def _validate(token: str, pod_cidr: str, service_cidr: str) -> None:
    if not _TOKEN.match(token):
        raise KubeadmError(
            f'bootstrapTokens[0].token: Invalid value: "{token}": the bootstrap token is invalid'
        )
    for field, value in (("serviceSubnet", service_cidr), ("podSubnet", pod_cidr)):
        try:
            if value:
                ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise KubeadmError(
                f'networking.{field}: Invalid value: "{value}": '
                f"couldn't parse subnet: invalid CIDR address: {value}"
            ) from None


def _extra_args(node: dict[str, Any]) -> dict[str, str]:
    """Return kubeletExtraArgs: a mapping until v1beta3, a list since."""
    given = node.get("kubeletExtraArgs") or {}
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items()}
    return {str(item["name"]): str(item["value"]) for item in given}


def _ignored(flags: Flags, node: dict[str, Any]) -> frozenset[str]:
    named = flags.every("ignore-preflight-errors") or node.get("ignorePreflightErrors") or ()
    return frozenset(str(name).lower() for name in named)
