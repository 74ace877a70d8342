"""The kubelet's worker for one pod: volumes, sandbox, init containers, containers, the end.

One `PodWorker` a pod. It owns no process: sandboxes and containers belong to the runtime, so a
worker of a restarted kubelet finds what runs and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node import cni, images
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable, Obj
from kitlib.lab.node.kubelet_events import Recorder, now
from kitlib.lab.node.pods_status import pod_status, restart_wanted
from kitlib.lab.node.runtime import Container, Runtime, Sandbox
from kitlib.lab.node.state import NodeState

__all__ = ["NETWORK_NOT_READY", "NodeContext", "PodWorker", "backoff"]

NETWORK_NOT_READY = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)
_SANDBOX_RETRY = 12.0
_CREATE = 0.08
_START = 0.1
_STOP = 1.0
_RELIST = 0.4


def backoff(failures: int) -> float:
    """Return the recorded wait before a restart: none, then 10 s doubling up to five minutes."""
    return 0.0 if failures <= 1 else min(10.0 * 2.0 ** (failures - 2), 300.0)


@dataclass(eq=False)
class NodeContext:
    """What every pod worker of a kubelet shares."""

    host: LabHost
    state: NodeState
    runtime: Runtime
    client: ApiClient
    recorder: Recorder
    cluster_dns: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    cni_dir: Path = Path("/etc/cni/net.d")
    dirty: set[PodWorker] = field(default_factory=set)

    def cni(self) -> cni.CniConfig | None:
        """Return the CNI configuration in force now."""
        return cni.config_in_force(self.cni_dir)

    def resolv(self, pod: Obj) -> str:
        """Return the resolv.conf of a pod by its DNS policy."""
        policy = pod["spec"].get("dnsPolicy", "ClusterFirst")
        first = ("ClusterFirstWithHostNet",) if pod["spec"].get("hostNetwork") else (
            "ClusterFirst", "ClusterFirstWithHostNet"
        )  # fmt: skip
        if policy not in first:
            return Path("/etc/resolv.conf").read_text()
        domain, namespace = self.cluster_domain, pod["metadata"]["namespace"]
        return (
            f"search {namespace}.svc.{domain} svc.{domain} {domain}\n"
            f"nameserver {self.cluster_dns}\noptions ndots:5\n"
        )


class PodWorker:
    """Runs one pod until it is deleted.

    Args:
        node: The kubelet's shared context.
        pod: The pod as it is now.
        static: The pod comes from a manifest file; its API object is only a mirror.
    """

    def __init__(self, node: NodeContext, pod: Obj, *, static: bool = False) -> None:
        self.node = node
        self.pod = pod
        self.static = static
        self.uid = str(pod["metadata"]["uid"])
        self.mirror: Obj | None = None
        self.finished = False
        self._deleted = asyncio.Event()
        self._waiting: dict[str, tuple[str, str]] = {}
        self._failures: dict[str, int] = {}
        self._unready: set[str] = set()
        self._lock = asyncio.Lock()
        self._terminal = False

    def update(self, pod: Obj) -> None:
        """Take a newer version of the pod."""
        if _taken_out_of_service(pod):
            self.node.dirty.add(self)  # this kubelet lives, and says so again
        if self.static:
            self.mirror = pod
            return
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._deleted.set()

    def remove(self) -> None:
        """End the pod: its object or its manifest is gone."""
        self._deleted.set()

    async def run(self) -> None:
        """Run the pod; returns when it was deleted and nothing of it is left."""
        if not self._deleted.is_set():
            life = asyncio.create_task(self._live())
            gone = asyncio.create_task(self._deleted.wait())
            try:
                await asyncio.wait({life, gone}, return_when=asyncio.FIRST_COMPLETED)
                if life.done():
                    life.result()
                    await gone
            finally:
                life.cancel()
                gone.cancel()
                await asyncio.gather(life, gone, return_exceptions=True)
        await self._terminate()

    async def report(self) -> None:
        """Bring the API's status of the pod up to date; a failure is tried again later."""
        async with self._lock:
            target = self.mirror if self.static else self.pod
            if target is None or self.finished:
                return
            status = pod_status(
                {**self.pod, "status": target.get("status") or {}},
                self._sandbox,
                self._waiting,
                host_ip=self.node.host.address,
                now=now(),
                unready=frozenset(self._unready),
                terminal=self._terminal,
            )
            had = target.get("status") or {}
            if all(had.get(key) == value for key, value in status.items()):
                return
            try:
                stored = await self.node.client.patch(_path(target) + "/status", {"status": status})
            except ApiUnreachable:
                self.node.dirty.add(self)
                return
            except ApiRefused as refused:
                if refused.status not in (404, 409):
                    self.node.dirty.add(self)
                return
            if self.static:
                self.mirror = stored
            elif stored["metadata"].get("uid") == self.uid:
                self.update(stored)

    @property
    def _sandbox(self) -> Sandbox | None:
        return self.node.runtime.sandboxes.get(self.uid)

    async def _live(self) -> None:
        spec = self.pod["spec"]
        await self.report()
        if not self.static:
            await self._volumes()
        sandbox = self._sandbox or await self._make_sandbox()
        for item in spec.get("initContainers") or []:
            if not await self._init(sandbox, item):
                return
        await asyncio.gather(*(self._keep(sandbox, item) for item in spec["containers"]))
        await self.node.runtime.unwire(sandbox)

    async def _volumes(self) -> None:
        failures = 0
        while missing := await self._missing_volumes():
            for volume, why in missing:
                await self._event(
                    "Warning",
                    "FailedMount",
                    f'MountVolume.SetUp failed for volume "{volume}" : {why}',
                )
            failures += 1
            await self.node.host.sleep(min(0.5 * 2**failures, 122))

    async def _missing_volumes(self) -> list[tuple[str, str]]:
        base = f"/api/v1/namespaces/{self.pod['metadata']['namespace']}"
        missing = []
        for volume in self.pod["spec"].get("volumes") or []:
            for kind, name in _sources(volume):
                try:
                    await self.node.client.get(f"{base}/{kind}s/{name}")
                except ApiRefused as refused:
                    if refused.status == 404:
                        missing.append((volume["name"], f'{kind} "{name}" not found'))
                except ApiUnreachable:
                    missing.append(
                        (
                            volume["name"],
                            f"failed to sync {kind} cache: timed out waiting for the condition",
                        )
                    )
        return missing

    async def _make_sandbox(self) -> Sandbox:
        while True:
            config = self.node.cni()
            if config is None and not self.pod["spec"].get("hostNetwork"):
                await self._event(
                    "Warning", "NetworkNotReady", f"network is not ready: {NETWORK_NOT_READY}"
                )
                await self.node.host.sleep(2.0)
                continue
            await self.node.host.sleep(0.3)
            try:
                sandbox = await self.node.runtime.create(
                    self.pod, config, self.node.resolv(self.pod)
                )
            except cni.CniError as failed:
                sandbox_id = Sandbox(self.pod, "", "").id
                await self._event(
                    "Warning",
                    "FailedCreatePodSandBox",
                    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to "
                    f'setup network for sandbox "{sandbox_id}": {failed}',
                )
                await self.node.host.sleep(_SANDBOX_RETRY)
                continue
            return sandbox

    async def _init(self, sandbox: Sandbox, spec: Obj) -> bool:
        """Run one init container; returns False when the pod has failed for good."""
        while True:
            container = sandbox.containers.get(spec["name"])
            if container is None or (not container.running and container.exit_code != 0):
                container = await self._start(sandbox, spec)
            await container.done.wait()
            await self.node.host.sleep(_RELIST)
            if container.exit_code == 0:
                await self.report()
                return True
            policy = self.pod["spec"].get("restartPolicy", "Always")
            if policy == "Never":
                await self.report()
                return False
            await self._back_off(spec)

    async def _keep(self, sandbox: Sandbox, spec: Obj) -> None:
        """Run one container and restart it as the policy says; returns when it is done."""
        policy = self.pod["spec"].get("restartPolicy", "Always")
        name = spec["name"]
        while True:
            container = sandbox.containers.get(name)
            if container is None or (
                not container.running and restart_wanted(policy, container.exit_code)
            ):
                container = await self._start(sandbox, spec)
            elif container.running:
                await self.report()
            readiness = asyncio.create_task(self._readiness(spec))
            try:
                await container.done.wait()
            finally:
                readiness.cancel()
            self._unready.discard(name)
            if time.time() - container.started > 600 * max(self.node.host.time_factor, 0.01):
                self._failures.pop(name, None)
            if not restart_wanted(policy, container.exit_code):
                await self.report()
                return
            await self._back_off(spec)

    async def _readiness(self, spec: Obj) -> None:
        """Turn a container with probes ready after their recorded delay."""
        if spec["name"] not in self._unready:
            return
        await self.node.host.sleep(4.0 if spec.get("startupProbe") else 0.1)
        self._unready.discard(spec["name"])
        await self.report()

    async def _back_off(self, spec: Obj) -> None:
        """Wait as long as the kubelet waits before it starts a container again."""
        name = spec["name"]
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        wait = backoff(failures)
        if not wait:
            await self.report()
            return
        meta = self.pod["metadata"]
        about = f"container={name} pod={meta['name']}_{meta['namespace']}({self.uid})"
        self._waiting[name] = (
            "CrashLoopBackOff",
            f"back-off {_minutes(wait)} restarting failed {about}",
        )
        await self.report()
        await self._event("Warning", "BackOff", "Back-off restarting failed container", name)
        await self.node.host.sleep(wait)

    async def _start(self, sandbox: Sandbox, spec: Obj) -> Container:
        name = spec["name"]
        await self._pull(spec)
        while True:
            try:
                env = await images.environment(self.node.client, self.pod, spec, sandbox)
                break
            except images.MissingReference as missing:
                self._waiting[name] = ("CreateContainerConfigError", str(missing))
                await self.report()
                await self._event("Warning", "Failed", f"Error: {missing}", name)
                await self.node.host.sleep(10.0)
        await self.node.host.sleep(_CREATE)
        await self._event("Normal", "Created", f"Created container {name}", name)
        await self.node.host.sleep(_START)
        container = Container(name, spec["image"], self._attempt(sandbox, name))
        if spec.get("readinessProbe") or spec.get("startupProbe"):
            self._unready.add(name)
        self._waiting.pop(name, None)
        body = images.body(self.node.host, self.node.runtime, self.pod, spec, env)
        self.node.runtime.start(sandbox, container, body)
        await self._event("Normal", "Started", f"Started container {name}", name)
        await self.report()
        return container

    def _attempt(self, sandbox: Sandbox, name: str) -> int:
        """Return a new container's restart count, going on from what the API remembers."""
        if old := sandbox.containers.get(name):
            return old.attempt + 1
        target = self.mirror if self.static else self.pod
        for field_name in ("initContainerStatuses", "containerStatuses"):
            for status in ((target or {}).get("status") or {}).get(field_name) or []:
                if status["name"] == name and status.get("containerID"):
                    return int(status.get("restartCount", 0)) + 1
        return 0

    async def _pull(self, spec: Obj) -> None:
        """Have the image, or say why not and try again."""
        name, image = spec["name"], spec["image"]
        present = images.full_name(image) in self.node.state.images
        latest = images.full_name(image).endswith(":latest")
        policy = spec.get("imagePullPolicy") or ("Always" if latest else "IfNotPresent")
        if present and policy != "Always":
            text = f'Container image "{image}" already present on machine'
            await self._event("Normal", "Pulled", text, name)
            return
        failures = 0
        while True:
            await self._event("Normal", "Pulling", f'Pulling image "{image}"', name)
            started = time.monotonic()
            await self.node.host.sleep(0.03 if present else 0.45)
            if not {"image-pull-fails", "no-route-out"} & self.node.host.faults:
                break
            why = (
                f'rpc error: code = Unknown desc = failed to pull and unpack image "{image}": '
                f'failed to resolve reference "{image}": failed to do request: '
                "dial tcp: i/o timeout"
            )
            await self._event("Warning", "Failed", f'Failed to pull image "{image}": {why}', name)
            await self._event("Warning", "Failed", "Error: ErrImagePull", name)
            self._waiting[name] = ("ErrImagePull", why)
            await self.report()
            failures += 1
            await self.node.host.sleep(2.0)
            self._waiting[name] = ("ImagePullBackOff", f'Back-off pulling image "{image}"')
            await self.report()
            await self._event("Normal", "BackOff", f'Back-off pulling image "{image}"', name)
            await self._event("Warning", "Failed", "Error: ImagePullBackOff", name)
            await self.node.host.sleep(backoff(failures + 1))
        self.node.state.images.add(images.full_name(image))
        took = f"{(time.monotonic() - started) * 1000:.6f}ms"
        await self._event(
            "Normal", "Pulled", f'Successfully pulled image "{image}" in {took}', name
        )

    async def _terminate(self) -> None:
        sandbox = self._sandbox
        if sandbox is not None:
            for container in sandbox.containers.values():
                if container.running:
                    text = f"Stopping container {container.name}"
                    await self._event("Normal", "Killing", text, container.name)
            self._terminal = True
            await self.node.host.sleep(_STOP)
            containers = list(sandbox.containers.values())
            await asyncio.gather(*(self.node.runtime.stop(item) for item in containers))
            await self.report()
            await self.node.runtime.remove(self.uid)
        self.finished = True
        if self.static:
            return
        while True:
            try:
                await self.node.client.delete(_path(self.pod), grace=0, uid=self.uid)
                return
            except ApiRefused as refused:
                if refused.status in (401, 404, 409):
                    return
            except ApiUnreachable:
                pass
            await self.node.host.sleep(2.0)

    async def _event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        about = self.pod
        if self.static and self.mirror is None:
            return
        await self.node.recorder.pod(about, kind, reason, message, container=container)


def _sources(volume: Obj) -> list[tuple[str, str]]:
    """Return the objects that a volume is made of: (configmap or secret, name)."""
    found: list[tuple[str, str]] = []
    parts: list[dict[str, Any]] = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for part in parts:
        for field_name, kind in (("configMap", "configmap"), ("secret", "secret")):
            source = part.get(field_name)
            if source and not source.get("optional"):
                found.append((kind, source.get("secretName") or source["name"]))
    return found


def _taken_out_of_service(pod: Obj) -> bool:
    """Return whether the pod is not Ready although its containers are, as of a silent node."""
    status = pod.get("status") or {}
    said = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    return said.get("Ready") == "False" and said.get("ContainersReady") == "True"


def _path(pod: Obj) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def _minutes(seconds: float) -> str:
    """Return a duration as Go prints it: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _ready(pod: Obj | None) -> bool:
    conditions = ((pod or {}).get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
