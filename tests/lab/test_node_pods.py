"""A pod's life on an emulated node, against an API and a host that live in this test."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kitlib.lab.node.kubelet_client import ApiRefused
from kitlib.lab.node.kubelet_events import Recorder
from kitlib.lab.node.pods import NodeContext, PodWorker
from kitlib.lab.node.pods_status import pod_status, restart_wanted
from kitlib.lab.node.runtime import Container, Runtime, Sandbox
from kitlib.lab.node.state import NodeState

NOW = "2026-11-22T18:08:07Z"


class FakeHost:
    name, address, time_factor = "w1", "10.77.0.12", 0.2
    peers: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.slept: list[float] = []

    async def sleep(self, recorded_seconds: float) -> None:
        self.slept.append(recorded_seconds)
        await asyncio.sleep(0)

    async def spawn(self, *argv: str, env: Mapping[str, str], **streams: Any) -> Any:
        return await asyncio.create_subprocess_exec(*argv, start_new_session=True, **streams)


class FakeApi:
    """Pods and Events; everything else is missing unless `present`."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.present: set[str] = set()
        self.deleted: list[str] = []
        self.waited_for: list[str] = []
        self.changed = asyncio.Event()

    def add(self, pod: dict[str, Any]) -> dict[str, Any]:
        meta = pod["metadata"]
        self.pods[f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"] = pod
        return copy.deepcopy(pod)

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        if path not in self.present:
            raise ApiRefused(404, "NotFound", "not found")
        return {"data": {"key": "value"}}

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/events"):
            self.events.append(body)
            self.changed.set()
        return body

    async def patch(self, path: str, body: dict[str, Any], kind: str = "") -> dict[str, Any]:
        if path.endswith("/status"):
            pod = self.pods[path.removesuffix("/status")]
            pod["status"] = {**pod.get("status", {}), **body["status"]}
            state = pod["status"]["containerStatuses"][0]["state"]
            self.waited_for.append(state.get("waiting", {}).get("reason", ""))
            self.changed.set()
            return copy.deepcopy(pod)
        return body

    async def delete(self, path: str, grace: int | None = None, uid: str = "") -> None:
        self.deleted.append(path)
        del self.pods[path]
        self.changed.set()

    async def until(self, true: Callable[[], Any]) -> None:
        while not true():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)

    def reasons(self, kind: str = "") -> list[str]:
        return [item["reason"] for item in self.events if kind in ("", item["type"])]


class Node:
    def __init__(self, tmp_path: Path) -> None:
        self.host = FakeHost()
        self.api = FakeApi()
        self.state = NodeState(root=tmp_path)
        runtime = Runtime(self.host, contain=False)  # type: ignore[arg-type]
        recorder = Recorder(self.api, "w1")  # type: ignore[arg-type]
        self.context = NodeContext(
            self.host,  # type: ignore[arg-type]
            self.state,
            runtime,
            self.api,  # type: ignore[arg-type]
            recorder,
            cni_dir=tmp_path / "net.d",
        )

    def pod(self, *command: str, **spec: Any) -> PodWorker:
        container = {"name": "c", "image": "busybox:1.36", "command": list(command)}
        pod = {
            "metadata": {"name": "p1", "namespace": "default", "uid": "uid-1"},
            "spec": {"hostNetwork": True, "containers": [container], **spec},
        }
        return PodWorker(self.context, self.api.add(pod))

    def status(self) -> dict[str, Any]:
        return dict(self.api.pods["/api/v1/namespaces/default/pods/p1"].get("status") or {})

    def state_of(self) -> dict[str, Any]:
        statuses = self.status().get("containerStatuses") or [{"state": {}}]
        return dict(statuses[0]["state"])

    async def end(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        worker.remove()
        await asyncio.wait_for(task, 20)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_pod_runs_and_goes_when_it_is_deleted(node: Node) -> None:
    worker = node.pod("sleep", "1000")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "running" in node.state_of())
    status = node.status()
    assert (status["phase"], status["podIP"], status["hostIP"]) == (
        "Running",
        "10.77.0.12",
        "10.77.0.12",
    )
    assert {item["type"]: item["status"] for item in status["conditions"]} == dict.fromkeys(
        ("Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    await node.end(worker, task)
    assert node.api.reasons() == ["Pulling", "Pulled", "Created", "Started", "Killing"]
    assert node.api.deleted == ["/api/v1/namespaces/default/pods/p1"]
    assert node.context.runtime.sandboxes == {}


async def test_a_status_that_somebody_else_changed_is_said_again(node: Node) -> None:
    """The node controller takes the pods of a silent node out of service; the kubelet knows."""
    worker = node.pod("sleep", "1000")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "running" in node.state_of())
    node.context.dirty.clear()
    path = "/api/v1/namespaces/default/pods/p1"
    changed = copy.deepcopy(node.api.pods[path])
    for entry in changed["status"]["conditions"]:
        entry["status"] = "False" if entry["type"] == "Ready" else entry["status"]
    worker.update(node.api.add(changed))
    assert node.context.dirty == {worker}, "looked at by the kubelet's next round"
    await worker.report()
    assert {entry["status"] for entry in node.status()["conditions"]} == {"True"}
    patched = len(node.api.waited_for)
    await worker.report()
    assert len(node.api.waited_for) == patched, "nothing to say, nothing said"
    await node.end(worker, task)


async def test_exit_codes_back_off_and_restart_counts(node: Node) -> None:
    worker = node.pod(sys.executable, "-c", "print('bye'); raise SystemExit(3)")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "BackOff" in node.api.reasons())
    status = node.status()["containerStatuses"][0]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["state"]["waiting"]["message"] == (
        "back-off 10s restarting failed container=c pod=p1_default(uid-1)"
    )
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["restartCount"] >= 1
    await node.end(worker, task)


async def test_a_job_like_pod_ends_by_its_restart_policy(node: Node) -> None:
    worker = node.pod("sh", "-c", "exit 0", restartPolicy="Never")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: node.status().get("phase") == "Succeeded")
    ready = next(item for item in node.status()["conditions"] if item["type"] == "Ready")
    assert ready["reason"] == "PodCompleted"
    await node.end(worker, task)


async def test_a_missing_config_map_keeps_the_pod_creating(node: Node) -> None:
    volume = {"name": "cfg", "configMap": {"name": "nosuch"}}
    worker = node.pod("sleep", "1000", volumes=[volume])
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "FailedMount" in node.api.reasons())
    text = 'MountVolume.SetUp failed for volume "cfg" : configmap "nosuch" not found'
    assert node.api.events[0]["message"] == text
    assert node.state_of() == {"waiting": {"reason": "ContainerCreating"}}
    node.api.present.add("/api/v1/namespaces/default/configmaps/nosuch")
    await node.api.until(lambda: "running" in node.state_of())
    await node.end(worker, task)


async def test_an_environment_that_names_a_missing_secret(node: Node) -> None:
    worker = node.pod("sleep", "1000")
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    worker.pod["spec"]["containers"][0]["env"] = [{"name": "X", "valueFrom": reference}]
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "Failed" in node.api.reasons())
    assert node.state_of()["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": 'secret "s" not found',
    }
    await node.end(worker, task)


async def test_an_image_that_cannot_be_pulled(node: Node) -> None:
    node.host.faults.add("image-pull-fails")
    worker = node.pod("sleep", "1000")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "BackOff" in node.api.reasons())
    wanted = ["ContainerCreating", "ErrImagePull", "ImagePullBackOff"]
    assert node.api.waited_for[:3] == wanted
    node.host.faults.clear()
    await node.api.until(lambda: "running" in node.state_of())
    assert "busybox:1.36" in node.state.images
    await node.end(worker, task)


async def test_no_network_means_no_sandbox(node: Node) -> None:
    worker = node.pod("sleep", "1000", hostNetwork=False)
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "NetworkNotReady" in node.api.reasons("Warning"))
    assert node.status()["phase"] == "Pending"
    assert "podIP" not in node.status()
    await node.end(worker, task)


async def test_init_containers_run_first_and_in_order(node: Node) -> None:
    inits = [
        {"name": name, "image": "busybox:1.36", "command": ["sh", "-c", "exit 0"]}
        for name in ("one", "two")
    ]
    worker = node.pod("sleep", "1000", initContainers=inits)
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "running" in node.state_of())
    started = [
        item["involvedObject"]["fieldPath"]
        for item in node.api.events
        if item["reason"] == "Started"
    ]
    assert started == [
        "spec.initContainers{one}",
        "spec.initContainers{two}",
        "spec.containers{c}",
    ]
    await node.end(worker, task)


async def test_a_restarted_kubelet_finds_what_runs(node: Node) -> None:
    first = node.pod("sleep", "1000")
    task = asyncio.create_task(first.run())
    await node.api.until(lambda: "running" in node.state_of())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    container = node.context.runtime.sandboxes["uid-1"].containers["c"]
    assert container.running
    node.api.events.clear()
    second = PodWorker(node.context, copy.deepcopy(next(iter(node.api.pods.values()))))
    again = asyncio.create_task(second.run())
    await asyncio.sleep(0.05)
    assert node.context.runtime.sandboxes["uid-1"].containers["c"] is container
    assert node.api.events == []
    await node.end(second, again)


async def test_a_broken_command_says_what_the_runtime_says(node: Node) -> None:
    worker = node.pod("/no/such/command", restartPolicy="Never")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: node.status().get("phase") == "Failed")
    ended = node.state_of()["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "stat /no/such/command: no such file or directory: unknown" in ended["message"]
    await node.end(worker, task)


def _status(containers: dict[str, Container], **spec: Any) -> dict[str, Any]:
    pod = {
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec},
    }
    sandbox = Sandbox(pod, "cni-1", "10.244.1.2", containers=containers)
    return pod_status(pod, sandbox, {}, host_ip="10.77.0.12", now=NOW)


async def test_the_status_of_a_pod_that_initializes() -> None:
    init = [{"name": "install-cni", "image": "i:1"}]
    status = _status({"install-cni": Container("install-cni", "i:1", 0)}, initContainers=init)
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    initialized = status["conditions"][0]
    assert (initialized["type"], initialized["status"], initialized["reason"]) == (
        "Initialized",
        "False",
        "ContainersNotInitialized",
    )
    assert initialized["message"] == "containers with incomplete status: [install-cni]"


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ],
)
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    assert restart_wanted(policy, code) is again


async def test_a_plugin_crash_loops_while_its_fault_is_on(node: Node) -> None:
    worker = node.pod("/opt/bin/flanneld")
    worker.pod["spec"]["containers"][0]["image"] = "flannel-io/flannel:v0.28.9"
    node.host.faults.add("plugin-crashloop")
    task = asyncio.create_task(worker.run())
    await node.api.until(lambda: "BackOff" in node.api.reasons())
    assert node.state_of()["waiting"]["reason"] == "CrashLoopBackOff"
    last = node.status()["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] == 1
    assert "" in node.api.waited_for, "it was Running between the crashes"
    await node.end(worker, task)
