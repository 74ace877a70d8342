"""A pod's status as the kubelet reports it, computed from what the node knows. Pure."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any

from kitlib.lab.node.kubelet_client import Obj
from kitlib.lab.node.runtime import Container, Sandbox

__all__ = ["pod_status", "restart_wanted", "stamp"]

Waiting = Mapping[str, tuple[str, str]]
"""Container name -> (reason, message) for containers that the kubelet cannot start now."""


def stamp(seconds: float) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def restart_wanted(policy: str, exit_code: int) -> bool:
    """Return whether a container that ended is started again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def pod_status(
    pod: Obj,
    sandbox: Sandbox | None,
    waiting: Waiting,
    *,
    host_ip: str,
    now: str,
    unready: frozenset[str] = frozenset(),
    terminal: bool = False,
) -> Obj:
    """Return the whole status of a pod.

    Args:
        pod: The pod as the API has it; its present status gives transition times and counts.
        sandbox: Its sandbox, where there is one.
        waiting: Why containers do not run.
        host_ip: The node's address.
        now: Time stamp for what changes now.
        unready: Running containers whose probes have not passed yet.
        terminal: The pod is being deleted: nothing counts as ready.
    """
    spec, old = pod["spec"], pod.get("status") or {}
    policy = spec.get("restartPolicy", "Always")
    inits = spec.get("initContainers") or []
    known = {
        item["name"]: item
        for field in ("initContainerStatuses", "containerStatuses")
        for item in old.get(field) or []
    }
    done = all(_succeeded(sandbox, item["name"]) for item in inits)
    default = "ContainerCreating" if not inits else "PodInitializing"
    init_statuses = [
        _container(item, sandbox, waiting, known, default="PodInitializing", init=True)
        for item in inits
    ]
    statuses = [
        _container(item, sandbox, waiting, known, default=default, unready=unready)
        for item in spec["containers"]
    ]
    if terminal:
        for item in statuses:
            item["ready"] = False
    phase = _phase(statuses, init_statuses, policy)
    ended = phase in ("Succeeded", "Failed")
    ready = all(item["ready"] for item in statuses) and done and not ended
    not_ready = [item["name"] for item in statuses if not item["ready"]]
    conditions = _conditions(
        old,
        now,
        done,
        ready,
        not_ready,
        [i["name"] for i in init_statuses if not i["ready"]],
        ended,
    )
    status: Obj = {
        "phase": phase,
        "conditions": conditions,
        "hostIP": host_ip,
        "startTime": old.get("startTime") or now,
        "containerStatuses": statuses,
        "qosClass": old.get("qosClass") or _qos(spec),
    }
    if inits:
        status["initContainerStatuses"] = init_statuses
    address = host_ip if spec.get("hostNetwork") else (sandbox.address if sandbox else "")
    address = address or old.get("podIP", "")
    if address:
        status["podIP"] = address
        status["podIPs"] = [{"ip": address}]
    return status


def _succeeded(sandbox: Sandbox | None, name: str) -> bool:
    container = sandbox.containers.get(name) if sandbox else None
    return container is not None and not container.running and container.exit_code == 0


def _container(
    spec: Obj,
    sandbox: Sandbox | None,
    waiting: Waiting,
    known: Mapping[str, Obj],
    *,
    default: str,
    init: bool = False,
    unready: frozenset[str] = frozenset(),
) -> Obj:
    name, image = spec["name"], spec["image"]
    container = sandbox.containers.get(name) if sandbox else None
    previous = sandbox.previous.get(name) if sandbox else None
    status: Obj = {
        "name": name,
        "image": image,
        "imageID": "",
        "lastState": {},
        "ready": False,
        "restartCount": known.get(name, {}).get("restartCount", 0),
    }
    if container is None:
        reason, message = waiting.get(name, (default, ""))
        status["state"] = {"waiting": _reason(reason, message)}
        status["lastState"] = known.get(name, {}).get("lastState") or {}
    else:
        digest = hashlib.sha256(image.encode()).hexdigest()
        status["imageID"] = f"sha256:{digest}"
        status["containerID"] = f"containerd://{container.id}"
        status["restartCount"] = container.attempt
        if container.running:
            status["state"] = {"running": {"startedAt": stamp(container.started)}}
            status["ready"] = not init and name not in unready
        elif name in waiting:
            status["state"] = {"waiting": _reason(*waiting[name])}
            status["lastState"] = {"terminated": _terminated(container)}
        else:
            status["state"] = {"terminated": _terminated(container)}
            status["ready"] = init and container.exit_code == 0
        if previous is not None and not status["lastState"]:
            status["lastState"] = {"terminated": _terminated(previous)}
    if not init:
        status["started"] = container is not None and container.running
    return status


def _reason(reason: str, message: str) -> dict[str, str]:
    return {"reason": reason, "message": message} if message else {"reason": reason}


def _terminated(container: Container) -> dict[str, Any]:
    reason = "Completed" if container.exit_code == 0 else "Error"
    found: dict[str, Any] = {
        "containerID": f"containerd://{container.id}",
        "exitCode": container.exit_code,
        "finishedAt": stamp(container.finished or container.started),
        "reason": "StartError" if container.message else reason,
        "startedAt": stamp(container.started),
    }
    if container.message:
        found["message"] = container.message
    return found


def _phase(statuses: list[Obj], inits: list[Obj], policy: str) -> str:
    failed = [item for item in inits if item["state"].get("terminated", {}).get("exitCode")]
    if failed and policy == "Never":
        return "Failed"
    if any(not item["ready"] for item in inits):
        return "Pending"
    codes = [item["state"].get("terminated", {}).get("exitCode") for item in statuses]
    if all(code is not None and not restart_wanted(policy, code) for code in codes):
        return "Failed" if any(codes) else "Succeeded"
    if any("containerID" in item for item in statuses):
        return "Running"
    return "Pending"


def _conditions(
    old: Obj,
    now: str,
    initialized: bool,
    ready: bool,
    not_ready: list[str],
    not_initialized: list[str],
    ended: bool,
) -> list[Obj]:
    before = {item["type"]: item for item in old.get("conditions") or []}
    wanted: list[tuple[str, bool, str, str]] = [
        (
            "Initialized",
            initialized,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(not_initialized)}]",
        )
    ]
    unready = f"containers with unready status: [{' '.join(not_ready)}]"
    for kind in ("Ready", "ContainersReady"):
        wanted.append((kind, ready, "ContainersNotReady", unready))
    wanted.append(("PodScheduled", True, "", ""))
    conditions = []
    for kind, true, reason, message in wanted:
        status = "True" if true else "False"
        had = before.get(kind)
        same = had is not None and had.get("status") == status
        condition: Obj = {
            "type": kind,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": had["lastTransitionTime"] if had is not None and same else now,
        }
        if not true:
            condition |= {"reason": "PodCompleted"} if ended else {}
            condition |= {} if ended else {"reason": reason, "message": message}
        conditions.append(condition)
    return conditions


def _qos(spec: Obj) -> str:
    resources = [item.get("resources") or {} for item in spec["containers"]]
    if not any(item.get("requests") or item.get("limits") for item in resources):
        return "BestEffort"
    full = all(
        {"cpu", "memory"} <= set(item.get("limits") or {})
        and (item.get("requests") or item["limits"]) == item["limits"]
        for item in resources
    )
    return "Guaranteed" if full else "Burstable"
