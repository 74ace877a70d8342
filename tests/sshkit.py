"""SSH servers on loopback for the tests of the door to the hosts, and clients of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from kitlib.ssh import Ssh


@dataclass(frozen=True)
class Door:
    """A target as kitlib.ssh wants it."""

    name: str
    port: int
    identity_file: Path | None
    address: str = "127.0.0.1"
    user: str = "root"


def write_key(path: Path) -> asyncssh.SSHKey:
    """Write a new private key, readable by its owner alone, and return it."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.write_bytes(key.export_private_key())
    path.chmod(0o600)
    return key


def host_line(port: int, key: asyncssh.SSHKey) -> str:
    """Return the known_hosts line of a server on loopback."""
    return f"[127.0.0.1]:{port} {key.export_public_key().decode().strip()}\n"


def known_hosts(path: Path, *servers: Server) -> Path:
    """Write a known_hosts file with the keys of these servers and return it."""
    path.write_text("".join(host_line(server.port, server.host_key) for server in servers))
    return path


def ssh_to(server: Server, known: Path, *, identity: Path | None = None, **kw: Any) -> Ssh:
    """Return the kit's door to one server, under the name `worker-1`."""
    door = Door("worker-1", server.port, identity or server.identity)
    return Ssh({"worker-1": door}, known_hosts=known, **kw)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """Yield the port of a TCP server that answers every piece with the piece in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                while data := peer.recv(65536):
                    peer.sendall(data.upper())

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@dataclass
class Server:
    """An SSH server in this process that runs commands with the local shell.

    Attributes:
        identity: The file of the private key that may log in.
        key: That key.
        host_key: The server's key.
        logins: How many logins were tried.
        commands: What was asked to run.
        jumps: Where forwarded connections were asked to go.
        environment: What is set for the commands besides this process's environment.
    """

    directory: Path
    address: str = "127.0.0.1"
    port: int = 0
    logins: int = 0
    commands: list[str] = field(default_factory=list)
    jumps: list[tuple[str, int]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.identity = self.directory / "id"
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.key = write_key(self.identity)
        self._allowed = asyncssh.import_authorized_keys(self.key.export_public_key().decode())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener: asyncssh.SSHAcceptor | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._open: set[asyncssh.SSHServerConnection] = set()

    def __enter__(self) -> Server:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def drop(self) -> None:
        """Cut every connection without a word, as a host that dies does."""
        self._loop.call_soon_threadsafe(lambda: [each.abort() for each in list(self._open)])

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        self._listener = await asyncssh.listen(
            self.address,
            0,
            server_host_keys=[self.host_key],
            server_factory=lambda: _Connection(self),
            process_factory=self._run,
            sftp_factory=True,
            encoding=None,
        )
        self.port = self._listener.get_port()

    async def _end(self) -> None:
        assert self._listener
        self._listener.close()
        for each in list(self._open):
            each.abort()
        await self._listener.wait_closed()
        await asyncio.gather(*self._running)

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        assert process.command
        self.commands.append(process.command)
        task = asyncio.current_task()
        assert task
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_shell(
            process.command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            env={**os.environ, **self.environment},
        )
        ended = asyncio.create_task(_feed(process, child))
        closed = asyncio.create_task(process.channel.wait_closed())
        await asyncio.wait([ended, closed], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            os.killpg(child.pid, signal.SIGKILL)  # as with sshd: it dies with its channel
        out, err = await ended
        closed.cancel()
        if not process.channel.is_closing():
            process.stdout.write(out)
            process.stderr.write(err)
            process.exit(child.returncode or 0)


async def _feed(
    process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process
) -> tuple[bytes, bytes]:
    with contextlib.suppress(asyncssh.Error, OSError):
        return await child.communicate(await process.stdin.read())
    return await child.communicate()


def sudo_that_asks(server: Server, password: str) -> None:
    """Give a server's commands a `sudo` that wants this password, and says what sudo says.

    It gives no rights: an `id` beside it says that it did, so that any user may run these tests.
    """
    program = server.directory / "bin" / "sudo"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
if [ "$1" = -n ]; then echo 'sudo: a password is required' >&2; exit 1; fi
read -r given
if [ "$given" != {shlex.quote(password)} ]; then
    echo 'sudo: 1 incorrect password attempt' >&2; exit 1
fi
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""
    )
    program.chmod(0o755)
    identity = program.with_name("id")
    identity.write_text("#!/bin/sh\necho 0\n")
    identity.chmod(0o755)
    server.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"


class _Connection(asyncssh.SSHServer):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._mine: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._mine = conn
        self._server._open.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._mine is not None:
            self._server._open.discard(self._mine)

    def begin_auth(self, username: str) -> bool:
        self._server.logins += 1
        assert self._mine
        self._mine.set_authorized_keys(self._server._allowed)
        return True

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        self._server.jumps.append((dest_host, dest_port))
        return True
