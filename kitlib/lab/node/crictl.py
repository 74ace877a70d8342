"""crictl over the node's container runtime."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node import cni, containerd
from kitlib.lab.node.flags import FlagError, Flags, parse
from kitlib.lab.node.kubeadm_preflight import CONTAINERD_SOCKET, image_problem
from kitlib.lab.node.kubeadm_run import Run
from kitlib.lab.node.runtime import Container, Sandbox, runtime_of
from kitlib.lab.node.state import state_of

__all__ = ["crictl"]

_TAKES = (
    "runtime-endpoint", "image-endpoint", "name", "output", "timeout", "state", "pod", "tail",
    "namespace", "label",
)  # fmt: skip
_SWITCHES = ("all", "quiet", "no-trunc", "force", "debug", "timestamps", "verbose")
_SHORT = {
    "r": "runtime-endpoint", "i": "image-endpoint", "a": "all", "q": "quiet", "o": "output",
    "t": "timeout", "s": "state", "p": "pod", "f": "force",
}  # fmt: skip
_HEAD = ("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID")


@dataclass(frozen=True, slots=True)
class _Ask:
    """One invocation: where, for whom, with which flags, about which ids or images."""

    host: LabHost
    call: Call
    flags: Flags
    names: tuple[str, ...]


async def crictl(host: LabHost, call: Call) -> int:
    """Run crictl; returns 1 for any failure."""
    try:
        flags = parse(call.argv[1:], takes=_TAKES, switches=_SWITCHES, short=_SHORT)
    except FlagError as wrong:
        flag = str(wrong).rpartition(": ")[2].lstrip("-")
        await call.out(f"Incorrect Usage: flag provided but not defined: -{flag}")
        return 1
    verb, *names = flags.rest or ("",)
    if verb not in _VERBS:
        await call.out(f"No help topic for '{verb}'")
        return 3
    if not state_of(host).running("containerd"):
        await host.sleep(2.0)
        await _fatal(
            call,
            f"connect: connect endpoint 'unix://{CONTAINERD_SOCKET}', make sure you are running as "
            "root and the endpoint has been started: context deadline exceeded",
        )
        return 1
    if not containerd.in_force(state_of(host)):
        await _fatal(
            call,
            "validate service connection: CRI v1 runtime API is not implemented for endpoint "
            f'"unix://{CONTAINERD_SOCKET}": rpc error: code = Unimplemented desc = unknown service '
            "runtime.v1.RuntimeService",
        )
        return 1
    return await _VERBS[verb](_Ask(host, call, flags, tuple(names)))


async def _fatal(call: Call, message: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    escaped = message.replace('"', '\\"')
    await call.err(f'time="{stamp}" level=fatal msg="{escaped}"')


async def _version(ask: _Ask) -> int:
    for line in (
        "Version:  0.1.0",
        "RuntimeName:  containerd",
        "RuntimeVersion:  1.6.20~ds1",
        "RuntimeApiVersion:  v1",
    ):
        await ask.call.out(line)
    return 0


async def _info(ask: _Ask) -> int:
    state = state_of(ask.host)
    config = cni.config_in_force(state.path("/etc/cni/net.d"))
    settings = containerd.in_force(state)
    bin_dir = settings.get("cni", {}).get("bin_dir", "")
    network: dict[str, Any] = {"type": "NetworkReady", "status": True, "reason": "", "message": ""}
    status = "OK"
    if config is None:
        network |= {
            "status": False,
            "reason": "NetworkPluginNotReady",
            "message": "Network plugin returns error: cni plugin not initialized",
        }
        status = (
            "cni config load failed: no network config found in /etc/cni/net.d: "
            "cni plugin not initialized: failed to load cni config"
        )
    page = {
        "status": {
            "conditions": [
                {"type": "RuntimeReady", "status": True, "reason": "", "message": ""},
                network,
            ]
        },
        "cniconfig": {
            "PluginDirs": [bin_dir],
            "PluginConfDir": "/etc/cni/net.d",
            "PluginMaxConfNum": 1,
            "Prefix": "eth",
        },
        "config": {
            "containerd": {
                "snapshotter": "overlayfs",
                "defaultRuntimeName": "runc",
                "runtimes": {
                    "runc": {
                        "runtimeType": "io.containerd.runc.v2",
                        "options": settings["containerd"]["runtimes"]["runc"]["options"],
                    }
                },
            },
            "cni": {"binDir": bin_dir, "confDir": "/etc/cni/net.d", "maxConfNum": 1},
            "sandboxImage": settings["sandbox_image"],
            "containerdEndpoint": CONTAINERD_SOCKET,
            "rootDir": "/var/lib/containerd/io.containerd.grpc.v1.cri",
            "stateDir": "/run/containerd/io.containerd.grpc.v1.cri",
        },
        "golang": "go1.19.8",
        "lastCNILoadStatus": status,
        "lastCNILoadStatus.default": status,
    }
    for line in json.dumps(page, indent=2).splitlines():
        await ask.call.out(line)
    return 0


async def _ps(ask: _Ask) -> int:
    chosen = [
        (sandbox, item)
        for sandbox, item in _containers(ask.host)
        if (item.running or ask.flags.on("all"))
        and re.search(ask.flags.get("name", ""), item.name)
        and sandbox.id.startswith(ask.flags.get("pod"))
        and ask.flags.get("state", _state(item)).lower() == _state(item).lower()
    ]
    chosen.sort(key=lambda pair: pair[1].started, reverse=True)
    if ask.flags.on("quiet"):
        for _, item in chosen:
            await ask.call.out(item.id)
        return 0
    if ask.flags.get("output") == "json":
        found = [_described(sandbox, item) for sandbox, item in chosen]
        for line in json.dumps({"containers": found}, indent=2).splitlines():
            await ask.call.out(line)
        return 0
    rows = [
        (
            item.id if ask.flags.on("no-trunc") else item.id[:13],
            item.image if ask.flags.on("no-trunc") else _image_id(item.image)[:13],
            _ago(item.started),
            _state(item),
            item.name,
            str(item.attempt),
            sandbox.id[:13],
        )
        for sandbox, item in chosen
    ]
    await _table(ask.call, _HEAD, rows)
    return 0


async def _pods(ask: _Ask) -> int:
    rows = []
    for sandbox in runtime_of(ask.host).sandboxes.values():
        meta = sandbox.pod["metadata"]
        if not re.search(ask.flags.get("name", ""), meta["name"]):
            continue
        if ask.flags.on("quiet"):
            await ask.call.out(sandbox.id)
            continue
        space = meta["namespace"]
        rows.append(
            (sandbox.id[:13], _ago(sandbox.created), "Ready", meta["name"], space, "0", "(default)")
        )
    if not ask.flags.on("quiet"):
        head = ("POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME")
        await _table(ask.call, head, rows)
    return 0


async def _images(ask: _Ask) -> int:
    found = sorted(state_of(ask.host).images | {item.image for _, item in _containers(ask.host)})
    if ask.flags.on("quiet"):
        for image in found:
            await ask.call.out(f"sha256:{_image_id(image)}")
        return 0
    rows = []
    for image in found:
        name, _, tag = image.rpartition(":")
        rows.append((name, tag, _image_id(image)[:13], "33MB"))
    await _table(ask.call, ("IMAGE", "TAG", "IMAGE ID", "SIZE"), rows)
    return 0


async def _pull(ask: _Ask) -> int:
    for image in ask.names:
        problem = image_problem(Run.of(ask.host, ask.call), image)
        if problem:
            await ask.host.sleep(10)
            message = problem.partition(' msg="')[2].removesuffix('"') or problem
            await _fatal(ask.call, message.replace('\\"', '"'))
            return 1
        await ask.host.sleep(1.0)
        state_of(ask.host).images.add(image)
        await ask.call.out(f"Image is up to date for sha256:{_image_id(image)}")
    return 0


async def _stop(ask: _Ask) -> int:
    return await _each(ask, stop=True)


async def _rm(ask: _Ask) -> int:
    return await _each(ask, stop=ask.flags.on("force"), remove=True)


async def _each(ask: _Ask, *, stop: bool = False, remove: bool = False) -> int:
    """Stop or remove containers by id; returns the exit status."""
    runtime, status = runtime_of(ask.host), 0
    for wanted in ask.names:
        match = next(((s, c) for s, c in _containers(ask.host) if c.id.startswith(wanted)), None)
        if match is None:
            verb = "removing" if remove else "stopping"
            await _fatal(
                ask.call,
                f'{verb} the container "{wanted}": rpc error: code = NotFound desc = an error '
                f'occurred when try to find container "{wanted}": not found',
            )
            status = 1
            continue
        sandbox, container = match
        if stop:
            await runtime.stop(container)
        if remove:
            if container.running:
                await _fatal(ask.call, f'container "{wanted}" is running, please stop it first')
                status = 1
                continue
            sandbox.containers.pop(container.name, None)
        await ask.call.out(wanted)
    return status


async def _stopp(ask: _Ask) -> int:
    return await _each_pod(ask, "Stopped")


async def _rmp(ask: _Ask) -> int:
    return await _each_pod(ask, "Removed")


async def _each_pod(ask: _Ask, done: str) -> int:
    """Stop or remove pod sandboxes by id; returns the exit status."""
    runtime, status = runtime_of(ask.host), 0
    for wanted in ask.names:
        found = next(
            ((uid, s) for uid, s in runtime.sandboxes.items() if s.id.startswith(wanted)), None
        )
        if found is None:
            verb = "removing" if done == "Removed" else "stopping"
            await _fatal(
                ask.call,
                f'{verb} the pod sandbox "{wanted}": rpc error: code = NotFound desc = an error '
                f'occurred when try to find sandbox "{wanted}": not found',
            )
            status = 1
            continue
        uid, sandbox = found
        if done == "Removed":
            await runtime.remove(uid)
        else:
            for container in sandbox.containers.values():
                await runtime.stop(container)
            await runtime.unwire(sandbox)
        await ask.call.out(f"{done} sandbox {wanted}")
    return status


async def _logs(ask: _Ask) -> int:
    found = next(
        (c for _, c in _containers(ask.host) for n in ask.names if c.id.startswith(n)), None
    )
    if found is None:
        await _fatal(
            ask.call,
            "rpc error: code = NotFound desc = an error occurred when try to find container "
            f'"{" ".join(ask.names)}": not found',
        )
        return 1
    lines = found.log.since(0)
    for _, text in lines[-int(ask.flags.get("tail") or len(lines) or 1) :]:
        await ask.call.out(text)
    return 0


def _containers(host: LabHost) -> list[tuple[Sandbox, Container]]:
    """Return every container that the runtime knows, ended ones included."""
    found = []
    for sandbox in runtime_of(host).sandboxes.values():
        for kept in (sandbox.containers, sandbox.previous):
            found += [(sandbox, item) for item in kept.values()]
    return found


def _described(sandbox: Sandbox, item: Container) -> dict[str, Any]:
    meta = sandbox.pod["metadata"]
    return {
        "id": item.id,
        "podSandboxId": sandbox.id,
        "metadata": {"name": item.name, "attempt": item.attempt},
        "image": {"image": item.image},
        "state": "CONTAINER_RUNNING" if item.running else "CONTAINER_EXITED",
        "createdAt": str(int(item.started * 1e9)),
        "labels": {
            "io.kubernetes.container.name": item.name,
            "io.kubernetes.pod.name": meta["name"],
            "io.kubernetes.pod.namespace": meta["namespace"],
        },
    }


def _state(item: Container) -> str:
    return "Running" if item.running else "Exited"


def _image_id(image: str) -> str:
    """Return a stable id for an image that has no bytes."""
    return hashlib.sha256(image.encode()).hexdigest()


def _ago(moment: float) -> str:
    seconds = int(time.time() - moment)
    if seconds < 1:
        return "Less than a second ago"
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return ""


async def _table(call: Call, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    wide = [max(20, *(len(row[i]) + 1 for row in (head, *rows))) for i in range(len(head))]
    for row in (head, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], wide, strict=False)]
        await call.out("".join(cells) + row[-1])


_VERBS = {
    "version": _version, "info": _info, "ps": _ps, "pods": _pods, "images": _images,
    "pull": _pull, "stop": _stop, "rm": _rm, "stopp": _stopp, "rmp": _rmp,
    "logs": _logs,
}  # fmt: skip
