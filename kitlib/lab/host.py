"""A lab host as the node emulation sees it: its processes, journal, tasks, commands and faults."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from kitlib.errors import CommandError
from kitlib.lab import faults as lab_faults
from kitlib.lab import hostclock
from kitlib.lab.hostroot import COMMAND_DIRS, LAB_DIR, state_datapath
from kitlib.model import CommandResult

__all__ = ["Host"]

_log = logging.getLogger(__name__)
_JOURNAL_LINES = 10_000


class Host:
    """The host that this process runs on; implements `kitlib.lab.hostapi.LabHost`.

    Args:
        name: The host name.
        address: Its lab address.
        peers: Every lab host's name -> lab address.
        time_factor: What recorded delays are multiplied by.
        commands: The names of the emulated commands that there are.
    """

    def __init__(
        self,
        name: str,
        address: str,
        peers: Mapping[str, str],
        time_factor: float,
        commands: frozenset[str],
    ) -> None:
        self.name = name
        self.address = address
        self.peers = dict(peers)
        self.time_factor = time_factor
        self.faults: set[str] = set()
        self._commands = commands
        self._journal: defaultdict[str, deque[tuple[float, str]]] = defaultdict(
            lambda: deque(maxlen=_JOURNAL_LINES)
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._undo: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}

    async def sleep(self, recorded_seconds: float) -> None:
        """Wait for a recorded delay, scaled by the time factor."""
        await asyncio.sleep(recorded_seconds * self.time_factor)

    async def run(
        self, *argv: str, netns: str = "", check: bool = True, input: str = ""
    ) -> CommandResult:
        """Run a real process on this host and return its result."""
        started = time.monotonic()
        pipe = asyncio.subprocess.PIPE
        process = await self._start(argv, netns, {}, pipe, pipe, pipe)
        try:
            out, err = await process.communicate(input.encode())
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        result = CommandResult(
            self.name,
            shlex.join(argv),
            out.decode(errors="replace"),
            err.decode(errors="replace"),
            process.returncode or 0,
            time.monotonic() - started,
        )
        if check and not result.ok:
            raise CommandError(self.name, result.command, result.exit_status, result.tail())
        return result

    async def spawn(
        self,
        *argv: str,
        netns: str = "",
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        stdin: int | None = None,
    ) -> asyncio.subprocess.Process:
        """Start a long-lived process in a session of its own and return it."""
        nowhere = asyncio.subprocess.DEVNULL
        return await self._start(
            argv,
            netns,
            env or {},
            nowhere if stdin is None else stdin,
            nowhere if stdout is None else stdout,
            nowhere if stderr is None else stderr,
        )

    async def _start(
        self,
        argv: tuple[str, ...],
        netns: str,
        env: Mapping[str, str],
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> asyncio.subprocess.Process:
        inside = ("ip", "netns", "exec", netns) if netns else ()
        return await asyncio.create_subprocess_exec(
            *inside,
            *argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **env},
            start_new_session=True,
        )

    def log(self, unit: str, text: str) -> None:
        """Add a line to the journal of a unit."""
        self._journal[unit].append((hostclock.now(), text))

    def journal(self, unit: str) -> list[tuple[float, str]]:
        """Return the journal of a unit, oldest first."""
        return list(self._journal.get(unit, ()))

    def start_task(self, name: str, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a supervised task; a crash is logged, not lost."""
        if name in self._tasks:
            coro.close()
            raise ValueError(f"{self.name}: task {name} is running")
        task = asyncio.create_task(coro, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log("lab", f"task {name} crashed: {error!r}")
            _log.error("%s: task %s crashed", self.name, name, exc_info=error)

    async def stop_task(self, name: str) -> None:
        """Cancel a task and wait until it has ended."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def install_command(self, name: str) -> None:
        """Put a command on the host's PATH."""
        if name != "kubectl" and name not in self._commands:
            raise ValueError(f"{self.name}: no such lab command: {name}")
        self.remove_command(name)
        program = LAB_DIR / ("kubectl" if name == "kubectl" else "shim")
        Path("/usr/bin", name).symlink_to(program)

    def remove_command(self, name: str) -> None:
        """Take a command off the host's PATH."""
        for directory in COMMAND_DIRS:
            Path(directory, name).unlink(missing_ok=True)

    def stands_in(self, text: str) -> None:
        """Say on the host what stands in for what in the pods' datapath; empty: nothing does."""
        state_datapath(Path("/etc/lab-release"), text)

    async def apply_fault(self, name: str) -> None:
        """Switch a fault on; nothing happens when it is on already."""
        if name not in self.faults:
            undo = await lab_faults.apply(name, self)
            if undo is not None:
                self._undo[name] = undo
            self.faults.add(name)

    async def heal(self, name: str) -> None:
        """Switch a fault off, undoing exactly what it did; nothing happens when it is off."""
        if name in self.faults:
            undo = self._undo.pop(name, None)
            if undo is not None:
                await undo()
            self.faults.discard(name)
