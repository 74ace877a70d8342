"""One pod's row: the STATUS and READY words need more thought than any other column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.state import is_true, terminating
from kitlib.lab.api.store import Obj

NONE = "<none>"


def pod_cells(obj: Obj, age: str, duration: Callable[[float], str]) -> list[Any]:
    """Return the cells NAME to READINESS GATES of a pod."""
    spec, status = obj["spec"], obj.get("status") or {}
    total = len(spec.get("containers") or ())
    containers = status.get("containerStatuses") or []
    ready = sum(1 for entry in containers if entry.get("ready") and "running" in _state(entry))
    return [
        obj["metadata"]["name"],
        f"{ready}/{total}",
        pod_word(obj),
        _restarts(status, duration),
        age,
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        NONE,
    ]


def pod_word(obj: Obj) -> str:
    """Return the STATUS word: a phase, a reason, or Init:0/1 and Terminating."""
    spec, status = obj["spec"], obj.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    reason = _init_word(spec, status) or _container_word(status, reason)
    if terminating(obj):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _state(entry: Obj) -> Obj:
    return entry.get("state") or {}


def _init_word(spec: Obj, status: Obj) -> str:
    total = len(spec.get("initContainers") or ())
    for index, entry in enumerate(status.get("initContainerStatuses") or []):
        state = _state(entry)
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended and ended.get("exitCode", 0) == 0:
            continue
        if ended:
            if ended.get("reason"):
                return f"Init:{ended['reason']}"
            return f"Init:ExitCode:{ended.get('exitCode', 0)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def _container_word(status: Obj, reason: str) -> str:
    running = False
    for entry in reversed(status.get("containerStatuses") or []):
        state = _state(entry)
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif ended:
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
        elif entry.get("ready") and "running" in state:
            running = True
    if reason == "Completed" and running:
        return "Running" if is_true({"status": status}, "Ready") else "NotReady"
    return reason


def _restarts(status: Obj, duration: Callable[[float], str]) -> str:
    entries = status.get("containerStatuses") or []
    starting = status.get("initContainerStatuses") or []
    unfinished = any("terminated" not in _state(entry) for entry in starting)
    counted = starting if unfinished else entries
    count = sum(entry.get("restartCount", 0) for entry in counted)
    ended = [
        (entry.get("lastState") or {}).get("terminated", {}).get("finishedAt") for entry in counted
    ]
    last = max(filter(None, ended), default=None)
    return f"{count} ({duration(clock.age(last))} ago)" if count and last else str(count)
