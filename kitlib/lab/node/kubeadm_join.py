"""kubeadm join: discovery, the cluster's configuration, and the kubelet's TLS bootstrap."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
import time
from typing import Any

import yaml

from kitlib.lab.api import pki
from kitlib.lab.node import kubeadm_files, kubeadm_planes, services
from kitlib.lab.node.flags import Flags
from kitlib.lab.node.kubeadm_config import InitOptions, JoinOptions, join_options
from kitlib.lab.node.kubeadm_init import mark
from kitlib.lab.node.kubeadm_manifests import dump
from kitlib.lab.node.kubeadm_preflight import DOCKER_MISSING, join_checks, report
from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubeadm_run import KubeadmError, Run
from kitlib.lab.node.kubeadm_wait import (
    complain,
    kubelet_trouble,
    mark_cri_socket,
    start_kubelet,
)
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable

__all__ = ["join"]

_CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
_BOOTSTRAP_CONF = "/etc/kubernetes/bootstrap-kubelet.conf"
_IDENTITY = "error execution phase preflight: couldn't validate the identity of the API Server: "


async def join(run: Run, flags: Flags) -> int:
    """Make this host a worker, or a further control plane, of a cluster; returns the exit status.

    Raises:
        KubeadmError: A phase failed; what earlier phases wrote stays.
    """
    options = await join_options(run, flags)
    await run.host.sleep(0.28)
    await run.out("[preflight] Running pre-flight checks")
    if run.own.minor < 24 and not options.cri_socket and not run.state.running("containerd"):
        await run.out(
            "[preflight] WARNING: Couldn't create the interface used for talking to the container "
            f"runtime: {DOCKER_MISSING}"
        )
    await run.host.sleep(0.1)
    await report(run, await join_checks(run, options.name, options.cri_socket), options.ignore)
    cluster = await _discover(run, options)
    bootstrap = _bootstrap_config(options, cluster)
    api = _client(cluster, options.tls_token)
    plane = None
    try:
        kubelet, config = await _configuration(run, api)
        await _duplicate(api, options.name)
        if options.control_plane:
            plane = kubeadm_planes.options_for(run, options, config)
            await kubeadm_planes.prepare(run, plane, api)
    finally:
        await api.close()
    await _start(run, options, bootstrap, cluster["ca"], kubelet)
    await _await_tls(run)
    api = ApiClient.from_kubeconfig(run.path(_KUBELET_CONF))
    socket = options.cri_socket or run.own.cri_socket
    try:
        await mark_cri_socket(run, api, options.name, socket, "kubelet-start")
    finally:
        await api.close()
    run.path(_BOOTSTRAP_CONF).unlink(missing_ok=True)
    if plane is not None:
        return await _finish_plane(run, plane)
    for line in (
        "",
        "This node has joined the cluster:",
        "* Certificate signing request was sent to apiserver and a response was received.",
        "* The Kubelet was informed of the new secure connection details.",
        "",
        "Run 'kubectl get nodes' on the control-plane to see this node join the cluster.",
        "",
    ):
        await run.out(line)
    return 0


async def _finish_plane(run: Run, plane: InitOptions) -> int:
    """Join etcd and mark the Node; returns the exit status."""
    api = run.admin()
    try:
        await kubeadm_planes.grow(run, plane, api)
        await mark(run, plane, api)
    except (ApiRefused, ApiUnreachable) as failed:
        raise KubeadmError(f"error execution phase {run.phase}: {failed}") from failed
    finally:
        await api.close()
    old = "(master) " if run.own.minor < 24 else ""
    for line in (
        "",
        "This node has joined the cluster and a new control plane instance was created:",
        "",
        "* Certificate signing request was sent to apiserver and approval was received.",
        "* The Kubelet was informed of the new secure connection details.",
        f"* Control plane {old}label and taint were applied to the new node.",
        "* The Kubernetes control plane instances scaled up.",
        "* A new etcd member was added to the local/stacked etcd cluster.",
        "",
        "To start administering your cluster from this node, you need to run the following as a "
        "regular user:",
        "",
        "\tmkdir -p $HOME/.kube",
        "\tsudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config",
        "\tsudo chown $(id -u):$(id -g) $HOME/.kube/config",
        "",
        "Run 'kubectl get nodes' to see this node join the cluster.",
        "",
    ):
        await run.out(line)
    return 0


async def _discover(run: Run, options: JoinOptions) -> dict[str, str]:
    """Return the API's address and the CA of the cluster that the token vouches for.

    Unreachable servers and unsigned cluster-info are retried in silence.

    Raises:
        KubeadmError: Time is up, or the CA is not the pinned one.
    """
    token_id, secret = options.token.split(".")
    loose = ssl.create_default_context()
    loose.check_hostname = False
    loose.verify_mode = ssl.CERT_NONE
    api = ApiClient(f"https://{options.server}", loose)
    problem = "timed out waiting for the condition"
    began = time.monotonic()
    limit = options.timeout * run.host.time_factor
    try:
        while True:
            try:
                info = await api.get(_CLUSTER_INFO)
                found = _verified(info, token_id, secret)
                if found:
                    return _pinned(options, found)
                problem = (
                    "could not find a JWS signature in the cluster-info ConfigMap for token ID "
                    f'"{token_id}"'
                )
            except ApiUnreachable as failed:
                problem = str(failed)
            except ApiRefused as refused:
                problem = f"failed to request the cluster-info ConfigMap: {refused.message}"
            if options.verbose:
                await _verbose(run, problem)
            left = limit - (time.monotonic() - began)
            if left <= 0:
                raise KubeadmError(f"{_IDENTITY}{problem}")
            await asyncio.sleep(min(5.0 * run.host.time_factor, left))
    finally:
        await api.close()


async def _verbose(run: Run, problem: str) -> None:
    await run.log(
        "I",
        "token.go:217",
        f"[discovery] Failed to request cluster-info, will try again: {problem}",
    )


def _verified(info: dict[str, Any], token_id: str, secret: str) -> dict[str, str] | None:
    """Return server and CA of a cluster-info that the token signed; None where it did not.

    Raises:
        KubeadmError: There is a signature and it is wrong.
    """
    data = info.get("data") or {}
    config = str(data.get("kubeconfig", ""))
    signature = data.get(f"jws-kubeconfig-{token_id}")
    if not config or not signature:
        return None
    if not pki.jws_verify(str(signature), config, token_id, secret):
        raise KubeadmError(
            f"{_IDENTITY}failed to verify JWS signature of received cluster info object"
        )
    entry = yaml.safe_load(config)["clusters"][0]["cluster"]
    try:
        ca = base64.b64decode(entry["certificate-authority-data"]).decode()
    except (KeyError, binascii.Error) as wrong:
        raise KubeadmError(f"{_IDENTITY}failed to load CA certificate: {wrong}") from wrong
    return {"server": str(entry["server"]), "ca": ca}


def _pinned(options: JoinOptions, cluster: dict[str, str]) -> dict[str, str]:
    """Return the cluster where its CA is accepted.

    Raises:
        KubeadmError: The CA is none of the pinned ones.
    """
    found = pki.ca_hash(cluster["ca"])
    if options.unsafe or found in {pin.lower() for pin in options.hashes}:
        return cluster
    raise KubeadmError(
        f"{_IDENTITY}cluster CA found in cluster-info ConfigMap is invalid: "
        f'none of the public keys "{found}" are pinned'
    )


def _bootstrap_config(options: JoinOptions, cluster: dict[str, str]) -> dict[str, Any]:
    return pki.kubeconfig(
        cluster["server"], cluster["ca"], "tls-bootstrap-token-user", token=options.tls_token
    )


def _client(cluster: dict[str, str], token: str) -> ApiClient:
    return ApiClient(cluster["server"], ssl.create_default_context(cadata=cluster["ca"]), token)


async def _configuration(run: Run, api: ApiClient) -> tuple[str, dict[str, Any]]:
    """Return the kubelets' configuration that the cluster stores, as text, and the cluster's.

    Raises:
        KubeadmError: One of the ConfigMaps cannot be read.
    """
    if run.own.minor < 32:
        await run.out("[preflight] Reading configuration from the cluster...")
        await run.out(
            "[preflight] FYI: You can look at this config file with "
            "'kubectl -n kube-system get cm kubeadm-config -o yaml'"
        )
    else:
        await run.out(
            '[preflight] Reading configuration from the "kubeadm-config" ConfigMap '
            'in namespace "kube-system"...'
        )
        await run.out(
            "[preflight] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' "
            "to re-upload it."
        )
    place = "/api/v1/namespaces/kube-system/configmaps"
    wanted = "kubeadm-config"
    try:
        found = await api.get(f"{place}/{wanted}")
        cluster: dict[str, Any] = yaml.safe_load(found["data"]["ClusterConfiguration"])
        release = Release.parse(str(cluster["kubernetesVersion"]))
        wanted = release.kubelet_config_map
        kubelet = str((await api.get(f"{place}/{wanted}"))["data"]["kubelet"])
    except (ApiRefused, ApiUnreachable) as failed:
        raise KubeadmError(
            "error execution phase preflight: unable to fetch the kubeadm-config ConfigMap: failed "
            f"to get config map: {failed}"
            if wanted == "kubeadm-config"
            else f"error execution phase kubelet-start: failed to get config map: {failed}"
        ) from failed
    return kubelet, cluster


async def _duplicate(api: ApiClient, name: str) -> None:
    """Refuse the name of a Node that is Ready in the cluster.

    Raises:
        KubeadmError: There is such a Node.
    """
    try:
        node = await api.get(f"/api/v1/nodes/{name}")
    except (ApiRefused, ApiUnreachable):
        return
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True":
            raise KubeadmError(
                f'error execution phase kubelet-start: a Node with name "{name}" and status "Ready"'
                " "
                "already exists in the cluster. You must delete the existing Node or change the "
                "name of this new joining Node"
            )


async def _start(
    run: Run,
    options: JoinOptions,
    bootstrap: dict[str, Any],
    ca_pem: str,
    kubelet: str,
) -> None:
    """Write the kubelet's files and start it."""
    run.write(_BOOTSTRAP_CONF, dump(bootstrap))
    run.write(kubeadm_files.CA_CERT, ca_pem, 0o644)
    await services.stop(run.host, "kubelet")
    await run.out(
        '[kubelet-start] Writing kubelet configuration to file "/var/lib/kubelet/config.yaml"'
    )
    run.write("/var/lib/kubelet/config.yaml", kubelet, 0o644)
    await run.out(
        "[kubelet-start] Writing kubelet environment file with flags to file "
        '"/var/lib/kubelet/kubeadm-flags.env"'
    )
    flags = kubeadm_files.kubelet_flags(
        run, run.own, options.name, options.cri_socket, options.extra, options.taints
    )
    run.write("/var/lib/kubelet/kubeadm-flags.env", flags, 0o644)
    await run.out("[kubelet-start] Starting the kubelet")
    await start_kubelet(run)


async def _await_tls(run: Run) -> None:
    """Wait until the kubelet has its own certificate.

    Raises:
        KubeadmError: It has none after five recorded minutes.
    """
    minor = run.own.minor
    began = time.monotonic()
    if minor >= 30:
        where = " at http://127.0.0.1:10248/healthz" if minor >= 31 else ""
        await run.out(
            f"[kubelet-check] Waiting for a healthy kubelet{where}. This can take up to 4m0s"
        )
        await run.host.sleep(1.0)
        seconds = time.monotonic() - began
        await run.out(f"[kubelet-check] The kubelet is healthy after {seconds * 1000:.6f}ms")
    dots = "..." if minor < 30 else ""
    await run.out(f"[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap{dots}")
    limit = run.patience(300)
    complaint = 40.0
    while not run.path(_KUBELET_CONF).exists():
        waited = time.monotonic() - began
        if waited > limit:
            await kubelet_trouble(run)
            raise KubeadmError(
                "error execution phase kubelet-start: timed out waiting for the condition"
            )
        if minor < 30 and waited > complaint * run.host.time_factor:
            await complain(run, first=complaint == 40.0)
            complaint = 45.0 if complaint == 40.0 else complaint + 10.0
        await run.host.sleep(5)
