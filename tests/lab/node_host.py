"""A lab host and a call for tests of the emulated commands: in memory, with a root of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import defaultdict
from pathlib import Path

from kitlib.lab.node import COMMANDS, packages, services, state
from kitlib.model import CommandResult

DATA = Path(__file__).parents[1] / "data" / "kubeadm"
_NOISE = (
    (r"^([WIE])\d{4} [\d:.]+ +\d+ ", r"\1 "),
    (r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", "TOKEN"),
    (r"sha256:[0-9a-f]{64}", "HASH"),
    (r"\b(m1|w1|w2|control-plane-1|worker-1)\b", "NODE"),
    (r"\b(10\.77\.0\.1[123]|127\.0\.0\.9)\b", "ADDRESS"),
    (r"ADDRESS:\d{4,5}->", "ADDRESS:PORT->"),
    (r"ADDRESS:\d{4,5}\b", "ADDRESS:PORT"),
    (r"after [\d.]+ seconds", "after N seconds"),
    (r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME"),
    (r"lookup dl\.k8s\.io.*$", "lookup fails"),
)


class FakeHost:
    """Enough of a lab host for handlers: no sleeping, processes of its own, a journal in memory."""

    def __init__(self, name: str = "control-plane-1", address: str = "127.0.0.9") -> None:
        self.name = name
        self.address = address
        self.time_factor = 0.002
        self.peers = {name: address}
        self.faults: set[str] = set()
        self.commands: set[str] = set()
        self.slept = 0.0
        self.datapath = ""
        self._journal: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def sleep(self, recorded_seconds: float) -> None:
        self.slept += recorded_seconds
        await asyncio.sleep(recorded_seconds * self.time_factor)

    def stands_in(self, text: str) -> None:
        self.datapath = text

    async def heal(self, name: str) -> None:
        self.faults.discard(name)

    async def run(self, *argv, netns="", check=True, input="") -> CommandResult:
        answers = {"hostname": self.name, "uname": "6.1.0"}
        return CommandResult(self.name, " ".join(argv), answers[argv[0]] + "\n", "", 0)

    async def spawn(self, *argv, netns="", env=None, stdout=None, stderr=None, stdin=None):
        return await asyncio.create_subprocess_exec(
            *argv, stdout=stdout, stderr=stderr, start_new_session=True
        )

    def log(self, unit: str, text: str) -> None:
        self._journal[unit].append((time.time(), text))

    def journal(self, unit: str) -> list[tuple[float, str]]:
        return list(self._journal[unit])

    def start_task(self, name, coro):
        assert name not in self.tasks, name
        self.tasks[name] = asyncio.create_task(coro)
        return self.tasks[name]

    async def stop_task(self, name: str) -> None:
        if task := self.tasks.pop(name, None):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def install_command(self, name: str) -> None:
        self.commands.add(name)

    def remove_command(self, name: str) -> None:
        self.commands.discard(name)


class FakeCall:
    """One invocation that keeps what it prints."""

    def __init__(self, argv, stdin: str = "") -> None:
        self.argv = tuple(argv)
        self.env: dict[str, str] = {}
        self.cwd = "/root"
        self.stdin = stdin
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._printed = asyncio.Condition()

    async def out(self, line: str) -> None:
        async with self._printed:
            self.lines.append(line)
            self._printed.notify_all()

    async def has(self, count: int) -> None:
        """Wait until that many lines are on standard output."""
        async with self._printed:
            await self._printed.wait_for(lambda: len(self.lines) >= count)

    async def err(self, line: str) -> None:
        self.errors.extend(line.split("\n"))

    async def read_stdin(self) -> str:
        return self.stdin


def new_host(root: Path, **names: str) -> FakeHost:
    """Return a booted host with its files under `root`, sysctls as a prepared host has them."""
    host = FakeHost(**names)
    node = state.new_state(host, root)
    node.packages |= packages.BASE
    for setting in ("bridge/bridge-nf-call-iptables", "ipv4/ip_forward"):
        file = node.path(f"/proc/sys/net/{setting}")
        file.parent.mkdir(parents=True)
        file.write_text("1\n")
    return host


async def install(host: FakeHost, version: str = "") -> None:
    """Install the Kubernetes packages, in one version."""
    pin = f"={version}-*" if version else ""
    names = [f"{name}{pin}" for name in ("kubelet", "kubeadm", "kubectl")]
    done = await call(host, "apt-get", "install", "-y", "--allow-downgrades", *names)
    assert done.status == 0, done.errors


class Done(FakeCall):
    """A call that ended."""

    status = -1


async def call(host: FakeHost, *argv: str, stdin: str = "") -> Done:
    """Return a call of an emulated command after it ended."""
    done = Done(argv, stdin)
    done.status = await COMMANDS[argv[0]](host, done)
    return done


async def close(host: FakeHost) -> None:
    """End what runs on a host."""
    await services.stop(host, "kubelet")
    for name in list(host.tasks):
        await host.stop_task(name)
    state.forget(host)


def recorded(name: str) -> dict[str, object]:
    """Return one recorded command: `command`, `out`, `err`, `exit_status`."""
    return json.loads((DATA / f"{name}.json").read_text())


def plain(lines) -> list[str]:
    """Return lines without what differs from run to run: tokens, hashes, names, times."""
    kept = []
    for line in lines:
        for pattern, text in _NOISE:
            line = re.sub(pattern, text, line)
        if not line.startswith("I "):
            kept.append(line.rstrip())
    return kept
