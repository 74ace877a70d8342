"""The door to the hosts: commands, files and forwards over SSH.

fabric by itself reads standard input; here nothing is ever read from the terminal.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
from fabric import Connection
from fabric.runners import Remote, Result
from invoke.exceptions import CommandTimedOut
from paramiko.ssh_exception import SSHException

from kitlib.become import Sudo, judge
from kitlib.command import Cmd, script
from kitlib.dial import KEEPALIVE, Dialler, Target, close, where
from kitlib.errors import CommandError, ConnectError, HostLoginError
from kitlib.model import CommandResult
from kitlib.retry import retry_transient

__all__ = ["Ssh", "Target"]

# paramiko reports every refused channel on standard error; here they are errors with a message.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


_WAIT = 0.5
"""Seconds between two looks at the threads that read a command's output."""

_Write = Callable[[paramiko.SFTPClient, str], object]
"""Writes a file's content at a path."""


class Ssh:
    """Connections to a set of hosts, opened when first used and closed together.

    Args:
        targets: The hosts by name.
        known_hosts: The file with the accepted host keys; it need not exist.
        config: The SSH configuration to read; None reads the usual ones.
        connect_timeout: Seconds for one connection attempt.
        keepalive: Seconds between keep-alive packets.
        command_timeout: Seconds for a command that names no timeout of its own.
        sudo: How a login that is not root's becomes root; None runs everything as the login does.

    Safe to use from several threads; one host's connection carries many commands at a time.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        *,
        known_hosts: Path,
        config: Path | None = None,
        connect_timeout: float = 10,
        keepalive: float = KEEPALIVE,
        command_timeout: float = 300,
        sudo: Sudo | None = None,
    ) -> None:
        self._targets = targets
        self._dialler = Dialler(known_hosts, config, connect_timeout, keepalive)
        self._command_timeout = command_timeout
        self._sudo = sudo
        self._open: dict[str, Connection] = {}
        self._closed = False
        self._locks = {name: threading.Lock() for name in targets}
        self._strays: dict[str, list[str]] = {name: [] for name in targets}

    def __enter__(self) -> Ssh:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection for good; commands under way end with a ConnectError."""
        self._closed = True
        self.disconnect()

    def disconnect(self) -> None:
        """Close every connection; the next command opens a new one."""
        for connection in list(self._open.values()):
            close(connection)
        self._open.clear()

    def run(self, name: str, cmd: Cmd) -> CommandResult:
        """Return what `cmd` did on the host `name`, whatever its exit status.

        Raises:
            ConnectError: The host cannot be reached, or the connection broke.
            HostKeyError: The host's key is unknown or differs.
            BecomeError: The login cannot become root.
            CommandError: The command did not end within its timeout.
        """
        connection = self._connection(name)
        started = time.monotonic()
        limit = cmd.timeout or self._command_timeout
        sudo = self._sudo_of(connection)
        line, feed = sudo.wrap(cmd.render()) if sudo else (cmd.render(), "")
        try:
            result = _run(connection, line, limit, feed=feed)
        except CommandTimedOut as error:
            self._drop(name)
            raise _endless(name, cmd, limit) from error
        except (SSHException, OSError, EOFError) as error:
            self._drop(name)
            raise _lost(name, cmd, error) from error
        if result.exited < 0:  # paramiko's word for "the channel closed without an exit status"
            self._drop(name)
            if time.monotonic() - started >= limit:
                raise _endless(name, cmd, limit)  # fabric was asked while its timer still ran
            raise _lost(name, cmd, "the connection closed before the command ended")
        return CommandResult(
            host=name,
            command=str(cmd),
            stdout=result.stdout,
            stderr=result.stderr,
            exit_status=result.exited,
            seconds=time.monotonic() - started,
        )

    def put(self, name: str, content: str, path: str, *, mode: int = 0o644) -> None:
        """Write `content` to `path` on the host; a reader sees the old file or the new one."""
        data = content.encode()

        def write(sftp: paramiko.SFTPClient, at: str) -> None:
            with sftp.open(at, "wb") as file:
                file.set_pipelined(True)
                file.write(data)

        self._deliver(name, f"write {path}", write, path, mode)

    def send(self, name: str, file: Path, path: str) -> None:
        """Copy a file of this machine to `path` on the host, whole or not at all."""
        what = f"copy {file} to {path}"
        self._deliver(name, what, lambda sftp, at: sftp.put(str(file), at), path, 0o644)

    def fetch(self, name: str, path: str, file: Path) -> None:
        """Copy a file of the host to this machine."""
        connection = self._connection(name)
        with self._naming(name, connection, f"copy {path} to {file}"):
            if not self._sudo_of(connection):
                connection.sftp().get(path, str(file))
                return
            with self._private_file(name, connection) as ours:
                self._as_root(name, script(_LEND, path, ours))
                connection.sftp().get(ours, str(file))

    def _deliver(self, name: str, what: str, write: _Write, path: str, mode: int) -> None:
        connection = self._connection(name)
        with self._naming(name, connection, what):
            if self._sudo_of(connection):
                # SFTP is the login's, so it goes by way of a file of the login.
                with self._private_file(name, connection) as ours:
                    write(connection.sftp(), ours)
                    self._as_root(name, script(_INSTALL, ours, path, f"{mode:04o}"))
                return
            sftp, temporary = connection.sftp(), f"{path}.new"
            try:
                with sftp.open(temporary, "wb") as file:
                    file.chmod(mode)  # before it has content
                write(sftp, temporary)
                sftp.posix_rename(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    sftp.remove(temporary)
                raise

    @contextmanager
    def _naming(self, name: str, connection: Connection, what: str) -> Iterator[None]:
        """Name the host and the file in whatever goes wrong."""
        try:
            yield
        except (SSHException, OSError, EOFError) as error:
            if not connection.is_connected:
                self._drop(name)
            raise CommandError(name, what, None, str(error) or repr(error)) from error

    @contextmanager
    def _private_file(self, name: str, connection: Connection) -> Iterator[str]:
        """Yield the path of an empty file on the host that its login alone may use."""
        made = _run(connection, _PRIVATE_FILE, self._command_timeout)
        temporary = made.stdout.strip()
        if made.exited or not temporary.startswith("/"):
            raise OSError(f"no temporary file: {made.stderr.strip()}")
        self._strays[name].append(temporary)  # whatever happens from here on
        try:
            yield temporary
        finally:
            self._sweep(name, connection)

    def _as_root(self, name: str, cmd: Cmd) -> None:
        done = self.run(name, cmd)
        if not done.ok:
            raise OSError(done.stderr.strip())

    def _sweep(self, name: str, connection: Connection) -> None:
        """Remove the login's temporary files; those that a lost connection left wait for the next.

        On a host that is never reached again they stay; only the login reads them.
        """
        strays = self._strays[name]
        if not connection.is_connected:  # fabric would connect again, behind this door's back
            return
        with contextlib.suppress(SSHException, OSError, EOFError):
            while strays:
                with contextlib.suppress(FileNotFoundError):
                    connection.sftp().remove(strays[-1])
                strays.pop()

    @contextmanager
    def forward(self, name: str, host: str, port: int) -> Iterator[int]:
        """Yield a port on this machine's loopback that leads to `host:port` as seen from `name`."""
        connection = self._connection(name)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    channel = connection.transport.open_channel(
                        "direct-tcpip", (host, port), self.request.getpeername(), timeout=10
                    )
                except (SSHException, OSError, EOFError, AttributeError):
                    return  # closing the socket tells the client
                # A small answer in two pieces would wait for the first one's acknowledgement.
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _splice(self.request, channel)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(
                target=server.serve_forever, args=(0.1,), daemon=True, name=f"forward-{name}"
            )
            thread.start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                thread.join()

    def _connection(self, name: str) -> Connection:
        with self._locks[name]:
            if self._closed:  # a thread that was unblocked by closing must not begin anew
                raise HostLoginError(f"{name}: the connections are closed")
            connection = self._open.get(name)
            if connection is not None and connection.is_connected:
                return connection
            connection = retry_transient(lambda: self._connect(self._targets[name]), attempts=2)
            self._open[name] = connection
            self._sweep(name, connection)
            return connection

    def _sudo_of(self, connection: Connection) -> Sudo | None:
        """Return how commands on this connection become root's; None where the login is root's."""
        return None if connection.user == "root" else self._sudo

    def _drop(self, name: str) -> None:
        with self._locks[name]:
            connection = self._open.pop(name, None)
        if connection is not None:
            close(connection)

    def _connect(self, target: Target) -> Connection:
        connection = self._dialler.open(target)
        self._prove_root(target, connection)
        return connection

    def _prove_root(self, target: Target, connection: Connection) -> None:
        """See once for each connection that sudo works, so that no command fails for its sake.

        Raises:
            BecomeError: It does not.
            ConnectError: The connection broke meanwhile.
        """
        sudo = self._sudo_of(connection)
        if sudo is None:
            return
        place = where(target.name, connection)
        line, feed = sudo.proof()
        try:
            done = _run(connection, line, 60, feed=feed)
        except (CommandTimedOut, SSHException, OSError, EOFError) as error:
            close(connection)
            raise ConnectError(f"{place}: sudo did not answer: {error}") from error
        if refusal := judge(place, sudo, done.exited, done.stdout, done.stderr):
            close(connection)
            raise refusal


class _Remote(Remote):  # type: ignore[misc]  # fabric is untyped
    """A command's runner: it may feed a line, and its timer may find the connection closed.

    fabric's own way to feed a command takes it a character at a time, and 10 ms for each.
    """

    feed = ""
    read_chunk_size = 65536
    """Bytes; fabric's own thousand makes long output cost ten times as much."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Start the command, give it what it is fed, and close its input after that."""
        super().start(*args, **kwargs)
        if self.feed:
            self.channel.sendall(self.feed.encode())
        self.channel.shutdown_write()  # a command that wants more must not wait for it

    def wait(self) -> None:
        """Return when the command has ended, or nobody reads its output any more.

        fabric's own way to wait looks a hundred times a second, for every host that is at work.
        """
        while not (self.channel.status_event.wait(_WAIT) or self.has_dead_threads):
            pass

    def kill(self) -> None:
        """Close the command's channel; called by fabric in the thread of its timer."""
        with contextlib.suppress(SSHException, OSError, EOFError):
            super().kill()


_PRIVATE_FILE = "mktemp /tmp/kit.XXXXXXXXXXXX"
"""Makes an empty file that its owner alone may use, and prints its name."""

_INSTALL = """\
trap 'rm -f -- "$2.new"' EXIT
install -T -m "$3" -- "$1" "$2.new" && mv -T -f -- "$2.new" "$2"
"""
"""Puts file $1 at $2 with mode $3; a reader sees the old file or the new one."""


_LEND = 'install -T -m 0600 -o "$(stat -c %u -- "$2")" -- "$1" "$2"'
"""Makes a copy of file $1 at $2, which belongs to whom $2 belonged: root may not write there."""


def _run(connection: Connection, line: str, limit: float, *, feed: str = "") -> Result:
    """Return what a shell line did; `feed` is all that it can read from its input."""
    runner = _Remote(connection, inline_env=True)
    runner.feed = feed
    return runner.run(line, hide=True, warn=True, in_stream=False, pty=False, timeout=limit)


def _endless(name: str, cmd: Cmd, limit: float) -> CommandError:
    # fabric leaves the command running on the host; its channel dies with the connection.
    return CommandError(
        name,
        str(cmd),
        None,
        f"no end within {limit:g} s",
        remedy="look at the host; raise the timeout in the parameters if it is only slow",
    )


def _lost(name: str, cmd: Cmd, why: object) -> ConnectError:
    return ConnectError(
        f"{name}: the connection was lost during: {cmd.brief}: {why}",
        remedy="check the host, then run the same command again: it goes on from what is true",
    )


def _splice(sock: socket.socket, channel: paramiko.Channel) -> None:
    """Copy both ways until both sides have ended.

    Two threads with blocking reads: `select` on a channel makes paramiko write to a descriptor of
    its own, whose number may belong to another connection by then.
    """

    def inwards() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := sock.recv(65536):
                channel.sendall(data)
        with contextlib.suppress(OSError, EOFError):
            channel.shutdown_write()

    thread = threading.Thread(target=inwards, daemon=True, name="forward-in")
    thread.start()
    try:
        while data := channel.recv(65536):
            sock.sendall(data)
    except (OSError, EOFError):
        pass
    finally:
        # The far side has ended: nothing that still comes in has a reader.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        channel.close()
        thread.join(timeout=10)
