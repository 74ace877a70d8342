"""The container runtime of an emulated node: sandboxes, containers, their processes and logs.

It belongs to the host and not to the kubelet: when the kubelet stops, containers run on, as they
do under containerd. A sandbox is a real network namespace; a container is a task that runs an
image's behaviour, which may be a real process in that namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from weakref import WeakKeyDictionary

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node import cni, datapath, image_tools
from kitlib.lab.node.kubelet_client import Obj

__all__ = ["Container", "ContainerLog", "NoSuchCommand", "Runtime", "Sandbox", "runtime_of"]

_SANDBOXES = Path("/run/containerd/io.containerd.grpc.v1.cri/sandboxes")
_ENTER = """for f in resolv.conf hosts; do [ ! -e "$1/$f" ] || mount --bind "$1/$f" "/etc/$f"; done
mount --bind "$1/tmp" /tmp; [ -z "$2" ] || hostname "$2"; PATH=$3; shift 3; exec "$@\""""
"""Enters a pod: its files, its host name (none: the host's), the tools of the image."""


class NoSuchCommand(Exception):
    """A command is not in the image; the text is the OCI runtime's."""

    def __init__(self, command: str) -> None:
        absolute = command.startswith("/")
        why = "no such file or directory" if absolute else "executable file not found in $PATH"
        prefix = "stat " + command if absolute else f'"{command}"'
        super().__init__(
            f"unable to start container process: exec: {prefix}: {why}: unknown"
            if not absolute
            else f'unable to start container process: exec: "{command}": {prefix}: {why}: unknown'
        )


class ContainerLog:
    """The lines that a container wrote, newest 20,000 kept, with a way to wait for more."""

    def __init__(self) -> None:
        self._lines: deque[tuple[float, str]] = deque(maxlen=20_000)
        self._grown = asyncio.Event()
        self.written = 0
        self.closed = False

    def write(self, line: str) -> None:
        """Add one line (no line end)."""
        self._lines.append((time.time(), line))
        self.written += 1
        self._grown.set()

    def close(self) -> None:
        """Say that nothing will follow."""
        self.closed = True
        self._grown.set()

    def since(self, position: int) -> list[tuple[float, str]]:
        """Return the lines after the first `position` ever written, as far as they are kept."""
        wanted = self.written - position
        return list(self._lines)[-wanted:] if wanted > 0 else []

    async def wait(self, position: int) -> None:
        """Wait until there are lines after `position`, or the log is closed."""
        while self.written <= position and not self.closed:
            self._grown.clear()
            await self._grown.wait()


@dataclass(eq=False, slots=True)
class Container:
    """One container, running or ended."""

    name: str
    image: str
    attempt: int
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    started: float = field(default_factory=time.time)
    finished: float | None = None
    exit_code: int = 137
    message: str = ""
    env: dict[str, str] = field(default_factory=dict)
    log: ContainerLog = field(default_factory=ContainerLog)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self.finished is None


@dataclass(eq=False, slots=True)
class Sandbox:
    """One pod's place on the node: its namespace, its address, its containers."""

    pod: Obj
    netns: str
    address: str
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    wire: cni.Wire | None = None
    created: float = field(default_factory=time.time)
    containers: dict[str, Container] = field(default_factory=dict)
    previous: dict[str, Container] = field(default_factory=dict)

    @property
    def files(self) -> Path:
        """Return the directory with the pod's own resolv.conf, hosts and /tmp."""
        return _SANDBOXES / self.id

    @property
    def hostname(self) -> str:
        """Return the host name that the pod's processes see."""
        spec = self.pod["spec"]
        return str(spec.get("hostname") or self.pod["metadata"]["name"])[:63]


Body = Callable[[Sandbox, Container], Awaitable[int]]
"""What a container does; returns the exit code and is cancelled when the container is stopped."""


class Runtime:
    """All sandboxes of one host.

    Args:
        host: The host they are on.
        contain: Give processes a /tmp and a resolver of their own on the host's network, too.
    """

    def __init__(self, host: LabHost, *, contain: bool = True) -> None:
        self.host = host
        self._contain = contain
        self.sandboxes: dict[str, Sandbox] = {}
        self._wiring = asyncio.Lock()

    async def create(self, pod: Obj, config: cni.CniConfig | None, resolv: str) -> Sandbox:
        """Return a new sandbox for a pod, wired by the configuration in force.

        Raises:
            CniError: The pod could not be given a network; nothing is left behind.
        """
        meta = pod["metadata"]
        if pod["spec"].get("hostNetwork"):
            sandbox = Sandbox(pod, "", self.host.address)
        else:
            if config is None:
                raise cni.CniError("cni plugin not initialized")
            sandbox = Sandbox(pod, f"cni-{uuid.uuid4()}", "")
            await self.host.run("sh", "-e", input=datapath.new_sandbox(sandbox.netns))
            try:
                async with self._wiring:
                    sandbox.wire = await cni.wire(
                        self.host,
                        config,
                        sandbox.netns,
                        sandbox.id,
                        f"{meta['namespace']}/{meta['name']}",
                        annotations=meta.get("annotations") or {},
                    )
            except BaseException:
                await asyncio.shield(cni.wire_remove(self.host, sandbox.netns, None))
                raise
            sandbox.address = sandbox.wire.address
        if sandbox.netns or self._contain:
            (sandbox.files / "tmp").mkdir(parents=True)
            (sandbox.files / "tmp").chmod(0o1777)
            (sandbox.files / "resolv.conf").write_text(resolv)
        if sandbox.netns:
            (sandbox.files / "hosts").write_text(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"
                f"{sandbox.address}\t{sandbox.hostname}\n"
            )
        self.sandboxes[meta["uid"]] = sandbox
        return sandbox

    def start(self, sandbox: Sandbox, container: Container, body: Body) -> None:
        """Start a container; an earlier one of the same name becomes the previous one."""
        if old := sandbox.containers.get(container.name):
            sandbox.previous[container.name] = old
        sandbox.containers[container.name] = container
        container.task = asyncio.create_task(_live(sandbox, container, body))
        # A task that is cancelled before its first step never enters `_live`.
        container.task.add_done_callback(lambda _: _ended(container))

    async def stop(self, container: Container) -> None:
        """Stop a container; returns when it has ended."""
        if container.running and container.task is not None:
            container.task.cancel()
            await container.done.wait()

    async def remove(self, uid: str) -> None:
        """End a pod: its containers, its namespace, its address."""
        sandbox = self.sandboxes.pop(uid, None)
        if sandbox is None:
            return
        await asyncio.gather(*(self.stop(item) for item in sandbox.containers.values()))
        await self.unwire(sandbox)

    async def unwire(self, sandbox: Sandbox) -> None:
        """Take a sandbox's network and files away; its containers' records stay."""
        if sandbox.netns:
            await cni.wire_remove(self.host, sandbox.netns, sandbox.wire)
            sandbox.netns = ""
        shutil.rmtree(sandbox.files, ignore_errors=True)

    async def process(
        self,
        sandbox: Sandbox,
        container: Container,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = MappingProxyType({}),
        stdin: int | None = None,
        stdout: int | None = asyncio.subprocess.PIPE,
        stderr: int | None = asyncio.subprocess.PIPE,
        prefix: Sequence[str] = (),
    ) -> asyncio.subprocess.Process:
        """Start a real process in a container: with the pod's namespace, name, resolver and /tmp.

        Args:
            sandbox: The pod's.
            container: Whose image and environment it gets.
            argv: The command.
            env: Variables beside the container's own.
            stdin: As for `LabHost.spawn`.
            stdout: The same.
            stderr: The same.
            prefix: What runs the command (`setsid` for a terminal).

        Raises:
            NoSuchCommand: There is no such command in the image.
        """
        tools = image_tools.search_path(container.image)
        command = resolve_command(argv, tools)
        if sandbox.netns or self._contain:
            namespaces = ["unshare", "--mount"]
            if sandbox.netns:
                inside = f"--net=/run/netns/{sandbox.netns}"
                namespaces = ["nsenter", inside, *namespaces, "--uts"]
            name = sandbox.hostname if sandbox.netns else ""
            enter = ["sh", "-c", _ENTER, "sh", str(sandbox.files), name, tools]
            command = [*namespaces, *enter, *prefix, *command]
        else:
            command = [*prefix, *command]
        variables = {**container.env, **env}
        return await self.host.spawn(
            *command, env=variables, stdin=stdin, stdout=stdout, stderr=stderr
        )


def resolve_command(argv: Sequence[str], tools: str) -> list[str]:
    """Return a command as it can run on this machine.

    Args:
        argv: The command as the container names it.
        tools: The image's PATH.

    Raises:
        NoSuchCommand: There is no such command.
    """
    if shutil.which(argv[0], path=tools):
        return list(argv)
    if argv[0] == "etcdctl":
        return [sys.executable, "-m", "kitlib.lab.node.etcdctl", *argv[1:]]
    raise NoSuchCommand(argv[0])


async def end_process(process: asyncio.subprocess.Process, grace: float = 1.0) -> None:
    """End a process and its group: TERM, and when it has ended or the grace is over, KILL."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), grace)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it had started may not heed TERM
    await process.wait()


async def _live(sandbox: Sandbox, container: Container, body: Body) -> None:
    try:
        container.exit_code = await body(sandbox, container)
    except asyncio.CancelledError:
        container.exit_code = 137
    except NoSuchCommand as missing:
        container.exit_code = 128
        container.message = str(missing)
    except Exception as failed:  # a program that dies of anything ends its container, no more
        container.log.write(f"fatal: {failed}")
        container.exit_code = 2


def _ended(container: Container) -> None:
    container.finished = time.time()
    container.log.close()
    container.done.set()


_RUNTIMES: WeakKeyDictionary[LabHost, Runtime] = WeakKeyDictionary()


def runtime_of(host: LabHost) -> Runtime:
    """Return the host's runtime; it is made on first use."""
    return _RUNTIMES.setdefault(host, Runtime(host))
