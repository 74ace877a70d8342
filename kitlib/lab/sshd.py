"""The SSH server of a lab host: commands, shells, SFTP and forwarding, inside the host.

It behaves as OpenSSH's sshd does where the kit can tell: a command runs in root's shell, its
output ends when nobody holds it open any more, and it gets SIGHUP when its connection dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pty
import signal
import socket
import struct
import termios
from pathlib import Path

import asyncssh

from kitlib.lab import faults as lab_faults
from kitlib.lab.host import Host
from kitlib.lab.hostroot import AUTHORIZED_KEYS, HOST_KEY

__all__ = ["SshServer"]

_CHUNK = 65536
_log = logging.getLogger(__name__)


class SshServer:
    """The SSH server of this host, on an inherited socket outside and on port 22 inside.

    Args:
        host: The host.
        outside: The socket, bound to a port of the machine's 127.0.0.1.
    """

    def __init__(self, host: Host, outside: socket.socket) -> None:
        self._host = host
        self._outside = outside
        self._listeners: list[asyncssh.SSHAcceptor] = []
        self._connections: set[asyncssh.SSHServerConnection] = set()

    @property
    def accepting(self) -> bool:
        """True between start and stop."""
        return bool(self._listeners)

    async def start(self) -> None:
        """Accept connections."""
        self._outside.listen(128)
        inside = socket.create_server(("0.0.0.0", 22), reuse_port=False)
        for sock in (self._outside.dup(), inside):
            listener = await asyncssh.listen(
                sock=sock,
                server_factory=lambda: _Connection(self._connections),
                server_host_keys=[str(HOST_KEY)],
                process_factory=self._serve,
                sftp_factory=True,
                allow_scp=True,
                encoding=None,
                line_editor=False,
                agent_forwarding=False,
                gss_host=None,
                keepalive_interval=30,
                login_timeout=30,
            )
            self._listeners.append(listener)

    async def stop(self) -> None:
        """Cut all connections and refuse new ones; the port stays this host's."""
        self._outside.shutdown(socket.SHUT_RDWR)
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.abort()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        loop = asyncio.get_running_loop()
        cut = loop.call_later(lab_faults.SSH_DROP_AFTER, self._drop, process)
        try:
            await _Command(process).run()
        except Exception:
            _log.exception("%s: ssh: %r", self._host.name, process.command)
            process.exit(255)
        finally:
            cut.cancel()

    def _drop(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if "ssh-drop" in self._host.faults:
            process.channel.get_connection().abort()


class _Connection(asyncssh.SSHServer):
    """One connection: root alone, by key alone; forwarding goes wherever the host can go."""

    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections
        self._own: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._own = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's name
        if self._own is not None:
            self._connections.discard(self._own)

    def begin_auth(self, username: str) -> bool:
        if username == "root" and self._own is not None:
            self._own.set_authorized_keys(str(AUTHORIZED_KEYS))
        return True

    def connection_requested(self, *_: object) -> bool:
        return True


class _Command:
    """One command or login shell of an SSH session, with pipes or a terminal."""

    def __init__(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self._process = process
        self._terminal = -1

    async def run(self) -> None:
        """Run it, relay its streams, and report how it ended."""
        process = self._process
        transports: list[asyncio.BaseTransport] = []
        if process.term_type:
            self._terminal, theirs = pty.openpty()
            self._resize(*process.term_size)
            ends = [theirs, theirs, theirs]
            ours = [os.dup(self._terminal), self._terminal]
        else:
            pipes = [os.pipe(), os.pipe(), os.pipe()]
            ends = [pipes[0][0], pipes[1][1], pipes[2][1]]
            ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        child = await asyncio.create_subprocess_exec(
            *(("setsid", "--ctty") if process.term_type else ()),
            *_shell(process.command),
            stdin=ends[0],
            stdout=ends[1],
            stderr=ends[2],
            env=self._environment(),
            cwd="/root",
            start_new_session=not process.term_type,
        )
        for fd in set(ends):
            os.close(fd)
        stdin = await _writer(ours[0], transports)
        outputs = [
            self._pump(await _reader(fd, transports), to)
            for fd, to in zip(ours[1:], (process.stdout, process.stderr), strict=False)
        ]
        lost = asyncio.create_task(process.channel.wait_closed())
        feed = asyncio.create_task(self._feed(stdin, child))
        done = asyncio.gather(child.wait(), *outputs)
        try:
            await asyncio.wait((lost, done), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                _hang_up(child)
            else:
                await done
                self._report(child.returncode or 0)
        finally:
            lost.cancel()
            feed.cancel()
            done.cancel()
            await asyncio.gather(lost, feed, done, return_exceptions=True)
            for transport in transports:
                if not transport.is_closing():
                    transport.close()

    def _environment(self) -> dict[str, str]:
        process = self._process
        env = {
            "HOME": "/root",
            "LOGNAME": "root",
            "PATH": os.environ["PATH"],
            "SHELL": _shell(None)[0],
            "USER": "root",
        }
        peer, local = (process.get_extra_info(name) for name in ("peername", "sockname"))
        env["SSH_CONNECTION"] = f"{peer[0]} {peer[1]} {local[0]} {local[1]}"
        env["SSH_CLIENT"] = f"{peer[0]} {peer[1]} {local[1]}"
        for name, value in process.env.items():
            if name == "LANG" or name.startswith("LC_"):
                env[name] = value
        if process.term_type:
            env["TERM"] = process.term_type
        return env

    async def _pump(self, source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
        """Relay one output to its end; a terminal's end reads as an error."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while data := await source.read(_CHUNK):
                target.write(data)
                await target.drain()

    async def _feed(self, stdin: asyncio.StreamWriter, child: asyncio.subprocess.Process) -> None:
        """Relay standard input, window sizes and signals until the client ends it."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while True:
                try:
                    data = await self._process.stdin.read(_CHUNK)
                except asyncssh.TerminalSizeChanged as size:
                    self._resize(size.width, size.height, size.pixwidth, size.pixheight)
                    continue
                except asyncssh.BreakReceived:
                    continue
                except asyncssh.SignalReceived as sent:
                    _send(child, getattr(signal, f"SIG{sent.signal}", signal.SIGTERM))
                    continue
                if not data:
                    break
                stdin.write(data)
                await stdin.drain()
            if not self._process.term_type:
                stdin.close()

    def _resize(self, width: int, height: int, pixel_width: int, pixel_height: int) -> None:
        size = struct.pack("HHHH", height, width, pixel_width, pixel_height)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def _report(self, status: int) -> None:
        if status < 0:
            self._process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            self._process.exit(status)


def _shell(command: str | bytes | None) -> tuple[str, ...]:
    """Return the arguments of root's shell: a login shell when there is no command."""
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    if not command:
        return (shell, "-l")
    return (shell, "-c", command if isinstance(command, str) else os.fsdecode(command))


def _hang_up(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        _send(child, signal.SIGHUP)


def _send(child: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


async def _reader(fd: int, transports: list[asyncio.BaseTransport]) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2 * _CHUNK)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    transports.append(transport)
    return reader


async def _writer(fd: int, transports: list[asyncio.BaseTransport]) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(fd, "wb", 0)
    )
    transports.append(transport)
    return asyncio.StreamWriter(transport, protocol, None, loop)
