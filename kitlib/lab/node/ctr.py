"""ctr over the node's images: list, pull, export, import and remove in the namespace k8s.io.

An exported archive holds the names of its images alone: the lab's images are behaviour, not files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.flags import FlagError, Flags, parse
from kitlib.lab.node.images import full_name
from kitlib.lab.node.kubeadm_preflight import image_problem
from kitlib.lab.node.kubeadm_run import Run
from kitlib.lab.node.state import state_of

__all__ = ["ctr"]

_FIRST = "Images of the lab, by name alone; only its emulated ctr understands this file."


async def ctr(host: LabHost, call: Call) -> int:
    """Run `ctr -n k8s.io images ls|pull|export|import|rm`; returns 1 for any failure."""
    try:
        flags = parse(
            call.argv[1:],
            takes=("namespace", "platform", "address"),
            switches=("quiet", "all-platforms", "no-unpack"),
            short={"n": "namespace", "q": "quiet", "a": "address"},
        )
    except FlagError as wrong:
        await call.err(f"Incorrect Usage: {wrong}")
        return 1
    group, verb, *names = (*flags.rest, "", "")
    names = [name for name in names if name]
    if group not in ("images", "image", "i") or verb not in _VERBS:
        await call.err(f"ctr: the lab knows images {', '.join(_VERBS)}")
        return 1
    if not state_of(host).running("containerd"):
        await call.err(
            'ctr: failed to dial "/run/containerd/containerd.sock": connection error: desc = '
            '"transport: error while dialing: dial unix /run/containerd/containerd.sock: connect: '
            'connection refused"'
        )
        return 1
    return await _VERBS[verb](host, call, flags, names)


async def _ls(host: LabHost, call: Call, flags: Flags, names: list[str]) -> int:
    del names
    if not flags.on("quiet"):
        await call.out("REF TYPE DIGEST SIZE PLATFORMS LABELS")
    for image in sorted(state_of(host).images):
        await call.out(image)
    return 0


async def _pull(host: LabHost, call: Call, flags: Flags, names: list[str]) -> int:
    del flags
    for name in names:
        problem = image_problem(Run.of(host, call), full_name(name))
        if problem:
            await call.err(f"ctr: {problem}")
            return 1
        await host.sleep(0.5)
        state_of(host).images.add(full_name(name))
    return 0


async def _export(host: LabHost, call: Call, flags: Flags, names: list[str]) -> int:
    del flags
    file, *images = names
    for image in images:
        if image not in state_of(host).images:
            await call.err(f'ctr: image "{image}": not found')
            return 1
    text = "".join(f"{line}\n" for line in (_FIRST, *images))
    _file(host, call, file).write_text(text)
    return 0


async def _import(host: LabHost, call: Call, flags: Flags, names: list[str]) -> int:
    del flags
    for name in names:
        file = _file(host, call, name)
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        if lines[:1] != [_FIRST]:
            why = "unrecognized image format" if lines else f"open {name}: no such file"
            await call.err(f"ctr: {why}")
            return 1
        for image in lines[1:]:
            state_of(host).images.add(image)
            await call.out(f"unpacking {image}...done")
    return 0


async def _rm(host: LabHost, call: Call, flags: Flags, names: list[str]) -> int:
    del flags
    for name in names:
        state_of(host).images.discard(name)
        await call.out(name)
    return 0


def _file(host: LabHost, call: Call, name: str) -> Path:
    return state_of(host).path(name if name.startswith("/") else f"{call.cwd}/{name}")


_Verb = Callable[[LabHost, Call, Flags, list[str]], Awaitable[int]]
_VERBS: dict[str, _Verb] = {
    "ls": _ls,
    "pull": _pull,
    "export": _export,
    "import": _import,
    "rm": _rm,
}
