"""The seam between a lab host (namespaces, SSH, processes) and the node emulation on it.

The host daemon implements these protocols; `kitlib.lab.node` codes against them and never
against the daemon, so that either side can be tested with a small stand-in for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from kitlib.model import CommandResult

__all__ = ["Call", "Handler", "LabHost"]


class Call(Protocol):
    """One invocation of an emulated command on a lab host.

    When the caller goes away (its SSH channel died, Ctrl-C) the handler is cancelled.
    """

    @property
    def argv(self) -> tuple[str, ...]:
        """The command's name as it was called (no directory) and its arguments."""
        ...

    @property
    def env(self) -> dict[str, str]:
        """The caller's environment."""
        ...

    @property
    def cwd(self) -> str:
        """The caller's working directory on the host."""
        ...

    async def out(self, line: str) -> None:
        """Write one line to standard output (the newline is added); returns when it is taken."""
        ...

    async def err(self, line: str) -> None:
        """Write one line to standard error (the newline is added); returns when it is taken."""
        ...

    async def read_stdin(self) -> str:
        """Return the whole of standard input, up to its end."""
        ...


class LabHost(Protocol):
    """What the node emulation may ask of the host that it runs on.

    The daemon's process is in the host's own namespaces: file paths, `ip` and `nft` are the host's.
    """

    @property
    def name(self) -> str:
        """The host name, which is also the node name."""
        ...

    @property
    def address(self) -> str:
        """The host's IPv4 address in the lab."""
        ...

    @property
    def time_factor(self) -> float:
        """What recorded delays are multiplied by."""
        ...

    @property
    def peers(self) -> Mapping[str, str]:
        """Every lab host's name (this one's too) -> its lab address."""
        ...

    @property
    def faults(self) -> set[str]:
        """The names of the lab faults that are switched on for this host now."""
        ...

    async def sleep(self, recorded_seconds: float) -> None:
        """Wait for a recorded delay, scaled by the time factor."""
        ...

    async def run(
        self, *argv: str, netns: str = "", check: bool = True, input: str = ""
    ) -> CommandResult:
        """Run a real process on this host and return its result.

        Args:
            argv: The command; looked up on the host's PATH, no shell.
            netns: A named network namespace of this host (`ip netns`) to run it in.
            check: Raise CommandError on a non-zero exit status.
            input: Text for its standard input.
        """
        ...

    async def spawn(
        self,
        *argv: str,
        netns: str = "",
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        stdin: int | None = None,
    ) -> asyncio.subprocess.Process:
        """Start a long-lived process on this host, in a session of its own, and return it.

        Args:
            argv: The command; looked up on the host's PATH, no shell.
            netns: A named network namespace of this host to start it in.
            env: Variables added to the daemon's environment.
            stdout: As for `asyncio.create_subprocess_exec`; None discards (goes to /dev/null).
            stderr: The same.
            stdin: The same; None is /dev/null.
        """
        ...

    def log(self, unit: str, text: str) -> None:
        """Add a line to the journal of a unit (`journalctl -u` reads it back)."""
        ...

    def journal(self, unit: str) -> list[tuple[float, str]]:
        """Return the journal of a unit: (time in seconds since the epoch, line), oldest first."""
        ...

    def start_task(self, name: str, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a supervised task; a crash is written to the journal of unit `lab` and box.log.

        A running task of the same name is an error (ValueError): stop it first.
        """
        ...

    async def stop_task(self, name: str) -> None:
        """Cancel a task and wait until it has ended; nothing happens when there is none."""
        ...

    def install_command(self, name: str) -> None:
        """Put a command on the host's PATH: `kubectl` is the real binary, others are emulated.

        None is there at first, and the machine's own of the same names are hidden: `boot` installs
        what every host has from the start.
        """
        ...

    def remove_command(self, name: str) -> None:
        """Take a command off the host's PATH; nothing happens when it is not there."""
        ...

    def stands_in(self, text: str) -> None:
        """Say on the host what stands in for what in the pods' datapath; empty: nothing does.

        It is the line DATAPATH of /etc/lab-release, from where it gets into every caption.
        """
        ...

    async def heal(self, name: str) -> None:
        """Switch a fault of this host off, undoing what it did; an emulated remedy calls this.

        `modprobe br_netfilter`, for one, heals `br-netfilter-missing`.
        """
        ...


Handler = Callable[[LabHost, Call], Awaitable[int]]
"""An emulated command: does its work, writes through the call, returns the exit status."""
