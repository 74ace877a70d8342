"""A stand-in for the kubelet, for tests of kubeadm: it runs the real API process and joins nodes.

It does what kubeadm waits for and no more: starts the API that the manifests ask for, bootstraps
its certificate, registers its Node.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
from pathlib import Path

import yaml

from kitlib.lab.api import pki
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable
from kitlib.lab.node.state import state_of

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


async def appears(file: Path) -> None:
    """Wait until a file is there."""
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - written elsewhere, no event
        await asyncio.sleep(0.002)


async def run_kubelet(host) -> None:
    """Behave as a kubelet as far as kubeadm sees it; runs until cancelled."""
    node = state_of(host)
    if not node.running("containerd"):
        raise RuntimeError("no container runtime")
    kubeconfig = node.path("/etc/kubernetes/kubelet.conf")
    if not kubeconfig.exists():
        await _bootstrap(host, kubeconfig)
    manifest = node.path("/etc/kubernetes/manifests/etcd.yaml")
    process = None
    try:
        if node.path("/etc/kubernetes/pki/ca.key").exists():
            await appears(manifest)
            process = await _api(node)
        await _register(host, ApiClient.from_kubeconfig(kubeconfig))
        await asyncio.Event().wait()
    finally:
        if process is not None:
            process.terminate()
            await process.wait()


async def _api(node) -> asyncio.subprocess.Process:
    def flag(component: str, name: str) -> str:
        pod = yaml.safe_load(node.path(f"/etc/kubernetes/manifests/{component}.yaml").read_text())
        command = pod["spec"]["containers"][0]["command"]
        return next(
            (word.partition("=")[2] for word in command if word.startswith(f"--{name}=")), ""
        )

    pod = yaml.safe_load(node.path("/etc/kubernetes/manifests/kube-apiserver.yaml").read_text())
    version = pod["spec"]["containers"][0]["image"].rpartition(":v")[2]
    arguments = {
        "bind": f"127.0.0.9:{flag('kube-apiserver', 'secure-port')}",
        "advertise": flag("kube-apiserver", "advertise-address"),
        "pki-dir": str(node.path("/etc/kubernetes/pki")),
        "data-dir": str(node.path("/var/lib/etcd")),
        "kubernetes-version": version,
        "service-cidr": flag("kube-apiserver", "service-cluster-ip-range"),
        "pod-cidr": flag("kube-controller-manager", "cluster-cidr"),
        "time-factor": "0.01",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kitlib.lab.api"),
        *(word for name, value in arguments.items() for word in (f"--{name}", value)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.DEVNULL,
    )


async def _bootstrap(host, kubeconfig: Path) -> None:
    node = state_of(host)
    api = ApiClient.from_kubeconfig(node.path("/etc/kubernetes/bootstrap-kubelet.conf"))
    key, csr = pki.new_csr(f"system:node:{host.name}", ["system:nodes"])
    collection = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    spec = {
        "request": base64.b64encode(csr.encode()).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["digital signature", "key encipherment", "client auth"],
    }
    try:
        made = await api.create(
            collection,
            {
                "apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": {"generateName": "csr-"},
                "spec": spec,
            },
        )
        while not (cert := (made.get("status") or {}).get("certificate")):
            await asyncio.sleep(0.02)
            made = await api.get(f"{collection}/{made['metadata']['name']}")
    finally:
        await api.close()
    config = pki.kubeconfig(
        api.server,
        node.path("/etc/kubernetes/pki/ca.crt").read_text(),
        "default-auth",
        cert_pem=base64.b64decode(cert).decode(),
        key_pem=key,
    )
    _write(kubeconfig, yaml.safe_dump(config))


def _write(file: Path, text: str) -> None:
    """Put a file in place whole."""
    half = file.with_suffix(".new")
    half.write_text(text)
    half.rename(file)


async def _register(host, api: ApiClient) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": host.name}}
    try:
        while True:
            try:
                await api.create("/api/v1/nodes", body)
            except ApiUnreachable:
                await asyncio.sleep(0.02)
            except ApiRefused as refused:
                if refused.status != 409:
                    raise
                return
            else:
                return
    finally:
        await api.close()
