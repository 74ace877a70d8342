"""The kubelet's Node object: what it registers, and the conditions that it keeps reporting.

The Ready condition's reasons and texts, their order and the times at which they change are those
of a real kubelet with containerd: a bracketed list in the first seconds, the CNI text alone after
the first period, Ready at the first period that finds a CNI configuration.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
import uuid
from pathlib import Path

from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import ApiRefused, ApiUnreachable, Obj
from kitlib.lab.node.kubelet_events import now
from kitlib.lab.node.pods import NETWORK_NOT_READY, NodeContext

__all__ = ["LEASE_PERIOD", "STATUS_PERIOD", "NodeReporter", "conditions", "ready_problems"]

STATUS_PERIOD = 10.0
LEASE_PERIOD = 10.0
_HEARTBEAT = 300.0
_STATUS_CHECK = "container runtime status check may not have completed yet"
_PLEG = "PLEG is not healthy: pleg has yet to be successful"
_RUNTIME_DOWN = "container runtime is down"
_CSI = "CSINode is not yet initialized"

_PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)
_EVENTS = ("NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID")


def ready_problems(
    *,
    cni: bool,
    runtime_up: bool = True,
    checked: bool = True,
    pleg: bool = True,
    csi: bool = True,
) -> list[str]:
    """Return why a node is not Ready, in the kubelet's order; empty when it is.

    Args:
        cni: A CNI configuration is in force.
        runtime_up: The container runtime answers.
        checked: The runtime's status was looked at since the kubelet started.
        pleg: The pod lifecycle event generator has run since the kubelet started.
        csi: The CSINode object has been made.
    """
    problems = []
    if not runtime_up:
        problems.append(_RUNTIME_DOWN)
    if not checked:
        problems.append(_STATUS_CHECK)
    if not pleg:
        problems.append(_PLEG)
    if not cni:
        problems.append(NETWORK_NOT_READY)
    if not csi:
        problems.append(_CSI)
    return problems


def conditions(
    problems: list[str], old: list[Obj], stamp: str, disk_full: bool = False
) -> list[Obj]:
    """Return the four conditions that the kubelet owns, keeping transition times.

    Args:
        problems: Why the node is not Ready.
        old: The conditions that the API has.
        stamp: The time of this report.
        disk_full: Whether the node's disk is full.
    """
    wanted = [(kind, "False", reason, text) for kind, reason, text in _PRESSURES]
    if disk_full:
        wanted[1] = (
            "DiskPressure",
            "True",
            "KubeletHasDiskPressure",
            "kubelet has disk pressure",
        )
    if problems:
        text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        wanted.append(("Ready", "False", "KubeletNotReady", text))
    else:
        wanted.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    before = {item["type"]: item for item in old}
    found = []
    for kind, status, reason, text in wanted:
        had = before.get(kind)
        same = had is not None and had.get("status") == status
        found.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": text,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": had["lastTransitionTime"] if had and same else stamp,
            }
        )
    return found


def registered_taints(flags: Path = Path("/var/lib/kubelet/kubeadm-flags.env")) -> list[Obj]:
    """Return the taints that a new Node gets: --register-with-taints, as kubeadm wrote it."""
    found = re.search(r"--register-with-taints=([^\s\"]+)", _text(str(flags)))
    taints = []
    for text in found[1].split(",") if found else ():
        rest, _, effect = text.rpartition(":")
        key, _, value = rest.partition("=")
        taints.append({"key": key, **({"value": value} if value else {}), "effect": effect})
    return taints


class NodeReporter:
    """Registers the node and keeps its status and lease.

    Args:
        node: The kubelet's shared context.
        pid: The kubelet's process id, for its log.
    """

    def __init__(self, node: NodeContext, pid: int) -> None:
        self._node = node
        self._pid = pid
        self._path = f"/api/v1/nodes/{node.host.name}"
        self._started = time.monotonic()
        self._checked = False
        self._reported: tuple[list[str], bool] | None = None
        self._last_report = 0.0
        self._ready = False
        self.object: Obj | None = None

    async def register(self) -> None:
        """Create the Node object, or take over the one that exists; retried until it works."""
        name, wait = self._node.host.name, 0.2
        self._say("I", "kubelet_node_status.go:71", f'"Attempting to register node" node="{name}"')
        while True:
            try:
                self.object = await self._create_or_get()
                break
            except (ApiUnreachable, ApiRefused) as failed:
                self._say(
                    "E",
                    "kubelet_node_status.go:93",
                    f'"Unable to register node with API server" err={_quoted(failed)} '
                    f'node="{name}"',
                )
                await self._node.host.sleep(wait)
                wait = min(wait * 2, 7.0)
        self._say("I", "kubelet_node_status.go:74", f'"Successfully registered node" node="{name}"')

    async def announce(self) -> None:
        """Record the events of a kubelet that starts."""
        recorder, name = self._node.recorder, self._node.host.name
        await recorder.node("Normal", "Starting", "Starting kubelet.")
        await recorder.node(
            "Warning", "InvalidDiskCapacity", "invalid capacity 0 on image filesystem"
        )
        for reason in _EVENTS:
            await recorder.node("Normal", reason, f"Node {name} status is now: {reason}")
        await recorder.node(
            "Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"
        )

    async def run(self) -> None:
        """Report the status, first in quick succession, then every period, until cancelled."""
        host = self._node.host
        self._checked = True
        await self._report(pleg=False, csi=False)
        await host.sleep(0.1)
        await self._report(csi=False)
        while True:
            await host.sleep(STATUS_PERIOD)
            if not self._node.cni():
                text = NETWORK_NOT_READY.removeprefix("container runtime network not ready: ")
                self._say(
                    "E",
                    "kubelet.go:2337",
                    f'"Container runtime network not ready" networkReady="{text}"',
                )
            await self._report()

    async def leases(self) -> None:
        """Renew the node's lease until cancelled."""
        host = self._node.host
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        period = LEASE_PERIOD
        while True:
            try:
                await self._renew(path)
                period = LEASE_PERIOD
            except (ApiUnreachable, ApiRefused) as failed:
                self._say(
                    "E",
                    "controller.go:144",
                    f"failed to ensure lease exists, will retry in {period:g}s, error: {failed}",
                )
                period = 2.0
            await host.sleep(period)

    async def _create_or_get(self) -> Obj:
        body = self._body()
        try:
            return await self._node.client.create("/api/v1/nodes", body)
        except ApiRefused as refused:
            if refused.status != 409:
                raise
        found = await self._node.client.get(self._path)
        problems = ready_problems(cni=self._node.cni() is not None, checked=False)
        await self._write(found, problems)
        return found

    async def _report(self, *, pleg: bool = True, csi: bool = True) -> None:
        node = self._node
        up = node.state.running("containerd")
        problems = ready_problems(cni=node.cni() is not None, runtime_up=up, pleg=pleg, csi=csi)
        state = (problems, "disk-full" in node.host.faults)
        age = time.monotonic() - self._last_report
        if state == self._reported and age < _HEARTBEAT * node.host.time_factor:
            try:
                found = await node.client.get(self._path)
            except (ApiUnreachable, ApiRefused) as failed:
                self._failed(failed)
                return
            had = {item["type"]: item for item in found["status"].get("conditions") or []}
            if had.get("Ready", {}).get("reason") == (
                "KubeletNotReady" if problems else "KubeletReady"
            ):
                return
        else:
            try:
                found = await node.client.get(self._path)
            except (ApiUnreachable, ApiRefused) as failed:
                self._failed(failed)
                return
        try:
            await self._write(found, problems)
        except (ApiUnreachable, ApiRefused) as failed:
            self._failed(failed)
            return
        self._reported, self._last_report = state, time.monotonic()

    async def _write(self, found: Obj, problems: list[str]) -> None:
        node = self._node
        old = found.get("status", {}).get("conditions") or []
        if not problems and not self._ready:
            name = node.host.name
            had = {item["type"]: item["status"] for item in old}
            if had.get("Ready") != "True":
                await node.recorder.node(
                    "Normal", "NodeReady", f"Node {name} status is now: NodeReady"
                )
        wanted = conditions(problems, old, now(), "disk-full" in node.host.faults)
        status: Obj = {"conditions": wanted, "nodeInfo": self._info(), "images": self._images()}
        self.object = await node.client.patch(
            f"{self._path}/status", {"status": status}, "strategic"
        )
        self._ready = not problems

    def _failed(self, failed: Exception) -> None:
        name = self._node.host.name
        self._say(
            "E",
            "kubelet_node_status.go:470",
            '"Error updating node status, will retry" '
            f'err="error getting node \\"{name}\\": {_quoted(failed)[1:-1]}"',
        )
        if isinstance(failed, ApiRefused) and failed.status == 404:
            self._say(
                "E", "kubelet.go:2412", f'"Error getting node" err="node \\"{name}\\" not found"'
            )

    async def _renew(self, path: str) -> None:
        name = self._node.host.name
        stamp = now().replace("Z", f".{time.time_ns() // 1000 % 1_000_000:06d}Z")
        spec: Obj = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": stamp}
        try:
            await self._node.client.patch(f"{path}/{name}", {"spec": spec})
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            meta: Obj = {"name": name, "namespace": "kube-node-lease"}
            if self.object is not None:
                owner = {"apiVersion": "v1", "kind": "Node", "name": name}
                meta["ownerReferences"] = [{**owner, "uid": self.object["metadata"]["uid"]}]
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": meta,
                "spec": spec,
            }
            await self._node.client.create(path, body)

    def _body(self) -> Obj:
        host = self._node.host
        problems = ready_problems(
            cni=self._node.cni() is not None, checked=False, pleg=False, csi=False
        )
        labels = {
            "beta.kubernetes.io/arch": _arch(),
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": _arch(),
            "kubernetes.io/hostname": host.name,
            "kubernetes.io/os": "linux",
        }
        capacity = _capacity()
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": host.name,
                "labels": labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {"taints": taints} if (taints := registered_taints()) else {},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": host.address},
                    {"type": "Hostname", "address": host.name},
                ],
                "capacity": capacity,
                "allocatable": capacity,
                "conditions": conditions(problems, [], now()),
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "nodeInfo": self._info(),
                "images": self._images(),
            },
        }

    def _info(self) -> dict[str, str]:
        state = self._node.state
        version = "v" + state.packages.get("kubelet", "1.22.3").split("-")[0]
        machine = uuid.uuid5(uuid.NAMESPACE_DNS, self._node.host.name).hex
        return {
            "architecture": _arch(),
            "bootID": _text("/proc/sys/kernel/random/boot_id"),
            "containerRuntimeVersion": "containerd://1.6.20",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": version,
            "kubeletVersion": version,
            "machineID": _text("/etc/machine-id") or machine,
            "operatingSystem": "linux",
            "osImage": _os_image(),
            "systemUUID": _text("/sys/class/dmi/id/product_uuid") or machine,
        }

    def _images(self) -> list[Obj]:
        return [{"names": [name]} for name in sorted(self._node.state.images)]

    def _say(self, severity: str, source: str, text: str) -> None:
        self._node.host.log("kubelet", klog(severity, self._pid, source, text))


def _quoted(failed: Exception) -> str:
    """Return an error as klog quotes a value."""
    return '"' + str(failed).replace('"', '\\"') + '"'


def _arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _capacity() -> dict[str, str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    disk = shutil.disk_usage("/").total // 1024
    return {
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": f"{disk}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{memory}Ki",
        "pods": "110",
    }


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip('"')
    return "Linux"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
