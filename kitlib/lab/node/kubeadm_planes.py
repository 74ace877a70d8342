"""kubeadm's part in further control planes: certificates, shared and own, and etcd's members.

The certificates travel as kubeadm sends them: AES-GCM with a key that is in nobody's hands but the
operator's, in the Secret kubeadm-certs, whose owner is a token of two hours.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kitlib.lab.api.members import ask, member_id
from kitlib.lab.node import kubeadm_files, kubeadm_objects
from kitlib.lab.node.kubeadm_config import InitOptions, JoinOptions, new_token
from kitlib.lab.node.kubeadm_manifests import manifest
from kitlib.lab.node.kubeadm_preflight import pull_images, report
from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubeadm_run import MANIFESTS, KubeadmError, Run
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable

__all__ = ["grow", "leave", "options_for", "prepare", "upload"]

_SECRET = "/api/v1/namespaces/kube-system/secrets/kubeadm-certs"  # noqa: S105 - a path
_SHARED = (
    "ca.crt",
    "ca.key",
    "sa.key",
    "sa.pub",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
)
_TWO_HOURS = 2 * 3600.0
_KEY = re.compile(r"[0-9a-f]{64}")
_UNSTABLE = """error execution phase preflight:
One or more conditions for hosting a new control plane instance is not satisfied.

unable to add a new control plane instance to a cluster that doesn't have a stable \
controlPlaneEndpoint address

Please ensure that:
* The cluster has a stable controlPlaneEndpoint address.
* The certificates that must be shared among control plane instances are provided.

"""


async def upload(run: Run, options: InitOptions, api: ApiClient) -> None:
    """Store the shared certificates in the cluster, encrypted; the key is printed unless hidden.

    Raises:
        KubeadmError: The key is none.
    """
    key = options.certificate_key or secrets.token_hex(32)
    if not _KEY.fullmatch(key):
        raise KubeadmError("error decoding certificate key: encoding/hex: invalid key")
    await run.out(
        '[upload-certs] Storing the certificates in Secret "kubeadm-certs" '
        'in the "kube-system" Namespace'
    )
    token = new_token()
    owner = kubeadm_objects.token_secret(
        token, _TWO_HOURS, "Proxy for managing TTL for the kubeadm-certs secret", groups=""
    )
    owner["data"] = {k: v for k, v in owner["data"].items() if not k.startswith(("usage", "auth"))}
    made = await api.create("/api/v1/namespaces/kube-system/secrets", owner)
    data = {}
    for file in _SHARED:
        nonce = os.urandom(12)
        content = run.path(f"{kubeadm_files.PKI}/{file}").read_bytes()
        sealed = nonce + AESGCM(bytes.fromhex(key)).encrypt(nonce, content, None)
        data[file.replace("/", "-")] = base64.b64encode(sealed).decode()
    reference = {"apiVersion": "v1", "kind": "Secret", "blockOwnerDeletion": True}
    reference |= {"controller": True, "name": made["metadata"]["name"]}
    reference |= {"uid": made["metadata"]["uid"]}
    name = {"name": "kubeadm-certs", "namespace": "kube-system", "ownerReferences": [reference]}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": name}
    await kubeadm_objects.ensure(api, {**secret, "data": data})
    for item in kubeadm_objects.certs_roles():
        await kubeadm_objects.ensure(api, item)
    if not options.hide_key:
        await run.out("[upload-certs] Using certificate key:")
        await run.out(key)


def options_for(run: Run, options: JoinOptions, cluster: dict[str, Any]) -> InitOptions:
    """Return what init would be told for this host, from the cluster's own configuration.

    Raises:
        KubeadmError: The cluster has no stable endpoint.
    """
    endpoint = str(cluster.get("controlPlaneEndpoint") or "")
    if not endpoint:
        raise KubeadmError(_UNSTABLE)
    network = cluster.get("networking") or {}
    return InitOptions(
        release=Release.parse(str(cluster["kubernetesVersion"])),
        asked_version=True,
        address=options.address or run.host.address,
        port=options.port,
        name=options.name,
        pod_cidr=str(network.get("podSubnet") or ""),
        service_cidr=str(network.get("serviceSubnet") or "10.96.0.0/12"),
        domain=str(network.get("dnsDomain") or "cluster.local"),
        cluster=str(cluster.get("clusterName") or "kubernetes"),
        repository="",
        token="",
        ttl=0,
        cri_socket=options.cri_socket,
        ignore=options.ignore,
        skip=frozenset(),
        upload_certs=False,
        cert_sans=tuple((cluster.get("apiServer") or {}).get("certSANs") or ()),
        endpoint=endpoint,
        dry_run=False,
        kubelet={},
        extra=options.extra,
        certificate_key=options.certificate_key,
        hide_key=True,
    )


async def prepare(run: Run, plane: InitOptions, api: ApiClient) -> None:
    """Fetch the shared certificates and write everything but etcd's manifest.

    Raises:
        KubeadmError: The certificates are not there, or the key does not open them.
    """
    await run.out(
        "[preflight] Running pre-flight checks before initializing the new control plane instance"
    )
    await run.out("[preflight] Pulling images required for setting up a Kubernetes cluster")
    await run.out(
        "[preflight] This might take a minute or two, depending on the speed of your internet "
        "connection"
    )
    word = "in beforehand " if run.own.minor < 30 else "beforehand "
    also = "'kubeadm config images pull'"
    await run.out(f"[preflight] You can also perform this action {word}using {also}")
    await report(run, await pull_images(run, plane.release.images()), plane.ignore)
    await run.out(
        '[download-certs] Downloading the certificates in Secret "kubeadm-certs" '
        'in the "kube-system" Namespace'
    )
    await _download(run, plane, api)
    for line, after in _certificates(run, plane):
        await run.out(line, after)
    await run.out("[kubeconfig] Generating kubeconfig files")
    for line, after in kubeadm_files.kubeconfigs(run, plane, kubelet=False):
        await run.out(line, after)
    await run.out(f'[control-plane] Using manifest folder "{MANIFESTS}"')
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        run.write(f"{MANIFESTS}/{component}.yaml", manifest(component, plane))
        await run.out(f'[control-plane] Creating static Pod manifest for "{component}"')
    await run.out("[check-etcd] Checking that the etcd cluster is healthy")


async def _download(run: Run, plane: InitOptions, api: ApiClient) -> None:
    phase = "error execution phase control-plane-prepare/download-certs: error downloading certs: "
    try:
        data = (await api.get(_SECRET))["data"]
    except (ApiRefused, ApiUnreachable) as failed:
        raise KubeadmError(
            f'{phase}error downloading the secret: Secret "kubeadm-certs" was not found in the '
            '"kube-system" Namespace. This Secret might have expired. Please, run `kubeadm init '
            "phase upload-certs --upload-certs` on a control plane to generate a new one"
        ) from failed
    try:
        key = AESGCM(bytes.fromhex(plane.certificate_key))
        for file in _SHARED:
            sealed = base64.b64decode(data[file.replace("/", "-")])
            content = key.decrypt(sealed[:12], sealed[12:], None).decode()
            mode = 0o600 if file.endswith(".key") else 0o644
            run.write(f"{kubeadm_files.PKI}/{file}", content, mode)
    except (InvalidTag, ValueError, KeyError, binascii.Error) as wrong:
        raise KubeadmError(
            f"{phase}error decoding secret data with provided key: cipher: message authentication "
            "failed"
        ) from wrong


def _certificates(run: Run, plane: InitOptions) -> Iterator[tuple[str, float]]:
    """Write this host's own certificates; yields kubeadm's line and a delay for each."""
    yield f'[certs] Using certificateDir folder "{kubeadm_files.PKI}"', 0.0
    yield from kubeadm_files.leaves(run, plane)
    yield '[certs] Valid certificates and keys now exist in "/etc/kubernetes/pki"', 0.0
    yield '[certs] Using the existing "sa" key', 0.0


async def grow(run: Run, plane: InitOptions, api: ApiClient) -> None:
    """Add this host to etcd and wait for its member, then mark the Node.

    Raises:
        KubeadmError: etcd refused, or the member did not come up.
    """
    run.phase = "control-plane-join/etcd"
    answer = await _asked(await _peers(api, plane.name), _joining(plane))
    await run.out("[etcd] Announced new etcd member joining to the existing etcd cluster")
    await run.out(f'[etcd] Creating static Pod manifest for "etcd" in "{MANIFESTS}"')
    peers = {name: member["address"] for name, member in answer["members"].items()}
    run.path("/var/lib/etcd").mkdir(parents=True, exist_ok=True)
    run.write(f"{MANIFESTS}/etcd.yaml", manifest("etcd", plane, peers))
    await run.out(
        "[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s"
    )
    until = time.monotonic() + run.patience(40)
    while True:
        try:
            if (await ask(plane.address, {"op": "state"}))["leader"]:
                break
        except OSError:
            pass
        if time.monotonic() > until:
            raise KubeadmError(
                "error execution phase control-plane-join/etcd: error creating local etcd static "
                "pod manifest file: timeout waiting for etcd cluster to be available"
            )
        await asyncio.sleep(0.1)
    if run.own.minor == 22:
        await run.out(
            "The 'update-status' phase is deprecated and will be removed in a future release. "
            "Currently it performs no operation"
        )


def _joining(plane: InitOptions) -> dict[str, Any]:
    return {"op": "add", "name": plane.name, "address": plane.address}


async def _peers(api: ApiClient, own: str) -> list[str]:
    """Return the addresses of the other control planes' etcd pods."""
    found = await api.get("/api/v1/namespaces/kube-system/pods", labelSelector="component=etcd")
    return [
        pod["status"]["podIP"]
        for pod in found["items"]
        if pod["spec"].get("nodeName") != own and (pod.get("status") or {}).get("podIP")
    ]


async def _asked(addresses: list[str], request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of the first member that gives one.

    Raises:
        KubeadmError: None does, or etcd refuses.
    """
    why = "no etcd endpoint"
    for address in addresses:
        try:
            answer = await ask(address, request)
        except OSError:
            why = "context deadline exceeded"
            continue
        if "error" not in answer:
            return answer
        why = str(answer["error"])
    raise KubeadmError(f"error execution phase control-plane-join/etcd: {why}")


async def leave(run: Run, api: ApiClient) -> str:
    """Take this host's member out of etcd, where there are others; returns why it failed, or ""."""
    pod = yaml.safe_load(run.path(f"{MANIFESTS}/etcd.yaml").read_text())
    command = pod["spec"]["containers"][0]["command"]
    name = next(word.partition("=")[2] for word in command if word.startswith("--name="))
    try:
        addresses = await _peers(api, name)
        if addresses:
            await _asked(addresses, {"op": "remove", "id": member_id(name)})
    except KubeadmError as failed:
        return str(failed).rpartition(": ")[2]
    except (ApiRefused, ApiUnreachable) as failed:
        return str(failed)
    return ""
