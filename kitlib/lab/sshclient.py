"""A small SSH client for `kit lab ssh`: a shell or one command on a lab host, without OpenSSH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import asyncssh

from kitlib.errors import ConnectError

__all__ = ["read", "session"]

_CHUNK = 65536
_Connection = contextlib.AbstractAsyncContextManager[asyncssh.SSHClientConnection]


async def session(port: int, identity: Path, known_hosts: Path, command: str | None) -> int:
    """Run a command, or a login shell, on this process's own streams; return its exit status.

    With a terminal as standard input and no command the terminal goes raw for the duration. A
    command that signal N ended has the status 128 + N.

    Raises:
        ConnectError: The host does not answer, or the connection was cut.
    """
    terminal = command is None and sys.stdin.isatty()
    try:
        async with _connect(port, identity, known_hosts) as connection:
            size = shutil.get_terminal_size()
            process = await connection.create_process(
                command,
                encoding=None,
                term_type=os.environ.get("TERM", "xterm") if terminal else None,
                term_size=(size.columns, size.lines) if terminal else None,
            )
            with _raw(process) if terminal else contextlib.nullcontext():
                feed = asyncio.create_task(_feed(process))
                await asyncio.gather(_show(process.stdout, 1), _show(process.stderr, 2))
                await process.wait_closed()
                feed.cancel()
    except (OSError, asyncssh.Error) as error:
        raise ConnectError(f"lab: ssh: port {port}: {error}", remedy="kit lab status") from error
    if process.exit_signal is not None:
        name = f"SIG{process.exit_signal[0]}"
        return 128 + getattr(signal, name, signal.SIGTERM)
    if process.exit_status is None:
        raise ConnectError(f"lab: ssh: port {port}: the connection was cut")
    return process.exit_status


async def read(port: int, identity: Path, known_hosts: Path, path: str) -> str:
    """Return a file of a host as text; empty where there is none.

    Raises:
        ConnectError: The host does not answer, or the connection was cut.
    """
    try:
        async with _connect(port, identity, known_hosts) as connection:
            done = await connection.run(f"cat {path}")
    except (OSError, asyncssh.Error) as error:
        raise ConnectError(f"lab: ssh: port {port}: {error}", remedy="kit lab status") from error
    return str(done.stdout or "")


def _connect(port: int, identity: Path, known_hosts: Path) -> _Connection:
    made: _Connection = asyncssh.connect(
        "127.0.0.1",
        port,
        username="root",
        client_keys=[str(identity)],
        known_hosts=str(known_hosts),
        agent_path=None,
        config=None,
    )
    return made


@contextlib.contextmanager
def _raw(process: asyncssh.SSHClientProcess[bytes]) -> Iterator[None]:
    """Keep the terminal raw, and the other side told of its size, for the duration."""
    loop = asyncio.get_running_loop()

    def resized() -> None:
        size = shutil.get_terminal_size()
        process.change_terminal_size(size.columns, size.lines)

    before = termios.tcgetattr(0)
    loop.add_signal_handler(signal.SIGWINCH, resized)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        loop.remove_signal_handler(signal.SIGWINCH)


async def _feed(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """Relay standard input, whatever it is, to the process until its end.

    A thread reads it: a file cannot be polled, and a read that never returns must not hold us up.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=8)

    def read() -> None:
        data = b"-"
        while data:
            try:
                data = os.read(0, _CHUNK)
            except OSError:
                data = b""
            with contextlib.suppress(RuntimeError, asyncio.CancelledError):
                asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()

    threading.Thread(target=read, daemon=True).start()
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await chunks.get():
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.write_eof()


async def _show(source: asyncssh.SSHReader[bytes], fd: int) -> None:
    while data := await source.read(_CHUNK):
        while data:
            data = data[os.write(fd, data) :]
