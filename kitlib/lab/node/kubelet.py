"""The kubelet of a lab host: bootstrap, node, pods, static pods, and the port that serves them.

`run_kubelet` is one life of the process: it raises when a real kubelet would exit, and its unit
starts it again. Containers are the runtime's and outlive it; `stop_all_pods` ends them, as
`kubeadm reset` does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from pathlib import Path
from typing import Any

import yaml

from kitlib.lab.api import pki
from kitlib.lab.hostapi import LabHost

# Importing them is what registers what images do.
from kitlib.lab.node import (  # noqa: F401
    agents_cilium,
    agents_contiv,
    agents_contrail,
    agents_flannel,
    agents_genie,
    agents_nuage,
    agents_ovn,
    agents_romana,
    agents_routed,
    agents_weave,
    dns,
    kubeproxy,
    web,
)
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable, Informer, Obj
from kitlib.lab.node.kubelet_events import Recorder
from kitlib.lab.node.kubelet_node import NodeReporter
from kitlib.lab.node.kubelet_server import KubeletServer
from kitlib.lab.node.kubelet_static import MANIFESTS, mirror_of, read_manifests
from kitlib.lab.node.pods import NodeContext, PodWorker
from kitlib.lab.node.runtime import Container, Sandbox, runtime_of
from kitlib.lab.node.state import NodeState, state_of
from kitlib.lab.node.system import swap_is_on

__all__ = ["KubeletExit", "list_containers", "run_kubelet", "stop_all_pods"]

CONFIG = Path("/var/lib/kubelet/config.yaml")
KUBECONFIG = Path("/etc/kubernetes/kubelet.conf")
BOOTSTRAP = Path("/etc/kubernetes/bootstrap-kubelet.conf")
CLIENT_CERT = Path("/var/lib/kubelet/pki/kubelet-client-current.pem")
_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
_CSRS_SINCE = 19
"""The minor version that serves CertificateSigningRequests as v1; those before have v1beta1."""


class KubeletExit(Exception):
    """The kubelet's process ends with status 1; the text is its last log line."""


async def run_kubelet(host: LabHost) -> None:
    """Run the kubelet until cancelled.

    Raises:
        KubeletExit: A real kubelet would have exited: no credentials, no container runtime.
        OSError: The configuration is missing or the port is taken.
    """
    state = state_of(host)
    kubelet = _Kubelet(host, state)
    await kubelet.run()


async def stop_all_pods(host: LabHost) -> None:
    """End every container of the host and take its pods' namespaces away."""
    runtime = runtime_of(host)
    await asyncio.gather(*(runtime.remove(uid) for uid in list(runtime.sandboxes)))


def list_containers(host: LabHost) -> list[tuple[Sandbox, Container]]:
    """Return every container of the host with its sandbox, newest first (for crictl)."""
    found = [
        (sandbox, container)
        for sandbox in runtime_of(host).sandboxes.values()
        for container in sandbox.containers.values()
    ]
    return sorted(found, key=lambda pair: -pair[1].started)


class _Kubelet:
    def __init__(self, host: LabHost, state: NodeState) -> None:
        self._host = host
        self._pid = state.services["kubelet"].pid if "kubelet" in state.services else 1
        self._state = state
        self._version = state.packages.get("kubelet", "").split("-")[0]
        self._workers: dict[str, tuple[PodWorker, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        config: dict[str, Any] = yaml.safe_load(CONFIG.read_text()) or {}
        if not self._state.running("containerd"):
            raise KubeletExit(
                "failed to run Kubelet: unable to determine runtime API version: rpc error: "
                "code = Unavailable desc = connection error: desc = transport: Error while "
                "dialing dial unix /run/containerd/containerd.sock: connect: no such file or "
                "directory"
            )
        if swap_is_on(self._host) and config.get("failSwapOn", True):
            raise KubeletExit(
                "failed to run Kubelet: running with swap on is not supported, please disable "
                "swap! or set --fail-swap-on flag to false"
            )
        self._say("I", "server.go:440", f'"Kubelet version" kubeletVersion="v{self._version}"')
        await self._credentials()
        client = ApiClient.from_kubeconfig(KUBECONFIG)
        node = NodeContext(
            self._host,
            self._state,
            runtime_of(self._host),
            client,
            Recorder(client, self._host.name),
            cluster_dns=(config.get("clusterDNS") or ["10.96.0.10"])[0],
            cluster_domain=str(config.get("clusterDomain") or "cluster.local"),
        )
        server = KubeletServer(self._host, node.runtime, _client_ca(config))
        try:
            await server.start()
            self._say("I", "server.go:149", '"Starting to listen" address="0.0.0.0" port=10250')
            self._say("I", "server.go:1213", '"Started kubelet"')
            await self._serve(node, Path(config.get("staticPodPath") or MANIFESTS))
        finally:
            await self._stop_workers()
            await server.close()
            await client.close()

    async def _serve(self, node: NodeContext, manifests: Path) -> None:
        reporter = NodeReporter(node, self._pid)
        pods = Informer(
            node.client,
            "/api/v1/pods",
            self._changed.set,
            fieldSelector=f"spec.nodeName={self._host.name}",
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._static(node, manifests, pods, reporter))
            tasks.create_task(self._node(reporter, tasks))
            tasks.create_task(pods.run())
            tasks.create_task(self._pods(node, pods))
            tasks.create_task(self._resync(node))

    async def _node(self, reporter: NodeReporter, tasks: asyncio.TaskGroup) -> None:
        await reporter.register()
        tasks.create_task(reporter.leases())
        await reporter.announce()
        await reporter.run()

    async def _static(
        self, node: NodeContext, manifests: Path, pods: Informer, reporter: NodeReporter
    ) -> None:
        """Run what the manifests say, and keep a mirror of each in the API."""
        complained = 0
        while True:
            wanted = read_manifests(manifests, self._host.name)
            if not manifests.is_dir() and complained < 30:
                complained += 1
                self._say(
                    "E",
                    "file_linux.go:60",
                    '"Unable to read config path" err="path does not exist, ignoring" '
                    f'path="{manifests}"',
                )
            for uid, (worker, _) in list(self._workers.items()):
                if worker.static and uid not in wanted:
                    worker.remove()
                    await self._drop_mirror(node, worker)
            for uid, pod in wanted.items():
                if uid not in self._workers and not self._named(pod):
                    self._start(PodWorker(node, pod, static=True))
                if pods.synced.is_set() and uid in self._workers:
                    await self._mirror(node, self._workers[uid][0], pods, reporter)
            await self._host.sleep(1.0)

    def _named(self, pod: Obj) -> bool:
        """Return whether an older version of a static pod still runs."""
        name = pod["metadata"]["name"]
        return any(
            worker.static and worker.pod["metadata"]["name"] == name
            for worker, _ in self._workers.values()
        )

    async def _mirror(
        self, node: NodeContext, worker: PodWorker, pods: Informer, reporter: NodeReporter
    ) -> None:
        meta = worker.pod["metadata"]
        found = pods.objects.get(f"{meta['namespace']}/{meta['name']}")
        base = f"/api/v1/namespaces/{meta['namespace']}/pods"
        try:
            if found is not None:
                notes = found["metadata"].get("annotations") or {}
                stale = notes.get("kubernetes.io/config.mirror") != meta["uid"]
                if stale or found["metadata"].get("deletionTimestamp"):
                    await node.client.delete(f"{base}/{meta['name']}", grace=0)
                elif worker.mirror is None:
                    worker.update(found)
                    await worker.report()
                return
            if reporter.object is None:
                return
            worker.update(await node.client.create(base, mirror_of(worker.pod, reporter.object)))
            await worker.report()
        except ApiRefused as refused:
            if refused.status != 409:
                name = f"{meta['namespace']}/{meta['name']}"
                self._say(
                    "E",
                    "kubelet.go:1706",
                    f'"Failed creating a mirror pod for" err="{refused}" pod="{name}"',
                )
        except ApiUnreachable:
            pass  # the API is down or not up yet; the next round tries again

    async def _drop_mirror(self, node: NodeContext, worker: PodWorker) -> None:
        meta = worker.pod["metadata"]
        with contextlib.suppress(ApiRefused, ApiUnreachable):
            await node.client.delete(
                f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", grace=0
            )

    async def _pods(self, node: NodeContext, pods: Informer) -> None:
        """Keep one worker for every pod of this node that the API has."""
        await pods.synced.wait()
        self._say("I", "apiserver.go:52", '"Watching apiserver"')
        await self._sweep(node, pods)
        while True:
            self._changed.clear()
            present = {}
            for pod in list(pods.objects.values()):
                notes = pod["metadata"].get("annotations") or {}
                if mirror := notes.get("kubernetes.io/config.mirror"):
                    if mirror in self._workers:
                        self._workers[mirror][0].update(pod)
                    continue
                present[pod["metadata"]["uid"]] = pod
            for uid, pod in present.items():
                if uid in self._workers:
                    self._workers[uid][0].update(pod)
                elif (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") or pod[
                    "metadata"
                ].get("deletionTimestamp"):
                    worker = PodWorker(node, pod)
                    worker.update(pod)
                    self._start(worker)
            for uid, (worker, _) in self._workers.items():
                if not worker.static and uid not in present:
                    worker.remove()
            await self._changed.wait()

    async def _sweep(self, node: NodeContext, pods: Informer) -> None:
        """End pods that were deleted while no kubelet ran."""
        known = {pod["metadata"]["uid"] for pod in pods.objects.values()}
        known |= {uid for uid, (worker, _) in self._workers.items() if worker.static}
        for uid in set(node.runtime.sandboxes) - known:
            await node.runtime.remove(uid)

    async def _resync(self, node: NodeContext) -> None:
        """Try again what could not be reported."""
        while True:
            await self._host.sleep(2.0)
            dirty, node.dirty = node.dirty, set()
            for worker in dirty:
                await worker.report()

    def _start(self, worker: PodWorker) -> None:
        async def run() -> None:
            try:
                await worker.run()
            except asyncio.CancelledError:
                raise
            except Exception as failed:  # one pod's trouble is not the kubelet's end
                name = worker.pod["metadata"]["name"]
                self._say(
                    "E", "pod_workers.go:836", f'"Error syncing pod" err="{failed!r}" pod="{name}"'
                )
                raise
            finally:
                self._workers.pop(worker.uid, None)
                self._changed.set()

        task = asyncio.create_task(run())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._workers[worker.uid] = (worker, task)

    async def _stop_workers(self) -> None:
        tasks = [task for _, task in self._workers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _credentials(self) -> None:
        """Have a usable kubeconfig, by TLS bootstrap where there is only a token."""
        if KUBECONFIG.exists():
            return
        if not BOOTSTRAP.exists():
            raise KubeletExit(
                "failed to run Kubelet: unable to load bootstrap kubeconfig: stat "
                f"{BOOTSTRAP}: no such file or directory"
            )
        self._say("I", "server.go:868", '"Client rotation is on, will bootstrap in background"')
        client = ApiClient.from_kubeconfig(BOOTSTRAP)
        try:
            key, certificate = await self._request_certificate(client)
        finally:
            await client.close()
        CLIENT_CERT.parent.mkdir(parents=True, exist_ok=True)
        CLIENT_CERT.write_text(certificate + key)
        CLIENT_CERT.chmod(0o600)
        _write_kubeconfig()
        self._say(
            "I",
            "transport.go:135",
            '"Certificate rotation detected, shutting down client connections to start using '
            'new credentials"',
        )

    async def _request_certificate(self, client: ApiClient) -> tuple[str, str]:
        old = bool(self._version) and int(self._version.split(".")[1]) < _CSRS_SINCE
        group = f"certificates.k8s.io/{'v1beta1' if old else 'v1'}"
        path = f"/apis/{group}/certificatesigningrequests"
        key, request = pki.new_csr(f"system:node:{self._host.name}", ["system:nodes"])
        body: Obj = {
            "apiVersion": group,
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": {
                "request": base64.b64encode(request.encode()).decode(),
                "signerName": _SIGNER,
                "usages": ["digital signature", "key encipherment", "client auth"],
            },
        }
        name = ""
        while True:
            try:
                if not name:
                    name = (await client.create(path, body))["metadata"]["name"]
                status = (await client.get(f"{path}/{name}")).get("status") or {}
                if status.get("certificate"):
                    return key, base64.b64decode(status["certificate"]).decode()
            except (ApiUnreachable, ApiRefused) as failed:
                self._say(
                    "E",
                    "certificate_manager.go:471",
                    "kubernetes.io/kube-apiserver-client-kubelet: Failed while requesting a signed "
                    "certificate from the control plane: cannot create certificate signing "
                    f"request: {failed}",
                )
                await self._host.sleep(2.0)
            await self._host.sleep(0.3)

    def _say(self, severity: str, source: str, text: str) -> None:
        self._host.log("kubelet", klog(severity, self._pid, source, text))


def _write_kubeconfig() -> None:
    """Write kubelet.conf: the bootstrap's cluster with the new certificate."""
    config = yaml.safe_load(BOOTSTRAP.read_text())
    pem = str(CLIENT_CERT)
    user = {"client-certificate": pem, "client-key": pem}
    config["users"] = [{"name": "default-auth", "user": user}]
    cluster = config["clusters"][0]["name"]
    context = {"cluster": cluster, "namespace": "default", "user": "default-auth"}
    config["contexts"] = [{"name": "default-context", "context": context}]
    config["current-context"] = "default-context"
    temporary = KUBECONFIG.with_suffix(".tmp")
    temporary.write_text(yaml.safe_dump(config))
    temporary.chmod(0o600)
    temporary.replace(KUBECONFIG)


def _client_ca(config: dict[str, Any]) -> Path:
    x509 = (config.get("authentication") or {}).get("x509") or {}
    return Path(x509.get("clientCAFile") or "/etc/kubernetes/pki/ca.crt")
