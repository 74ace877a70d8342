"""OpenSSH's own server for tests: on loopback, in a mount namespace where a test wants one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh
import pytest
from sshkit import write_key

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
SUDO = shutil.which("sudo")
SEPARATION = Path("/run/sshd")

NEEDS_SSHD = [
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an sshd that logs root in"),
]
NEEDS_SUDO = [*NEEDS_SSHD, pytest.mark.skipif(SUDO is None, reason="sudo is not installed")]


@dataclass
class Sshd:
    """A running server.

    Attributes:
        port: Its port.
        identity: The private key that may log in, as any user.
        host_key: Its host key.
        log: What it says.
        address: Where it listens.
        pid: Its process.
    """

    port: int
    identity: Path
    host_key: asyncssh.SSHKey
    log: Path
    address: str = "127.0.0.1"
    pid: int = 0

    @property
    def line(self) -> str:
        """Its known_hosts line."""
        return (
            f"[{self.address}]:{self.port} {self.host_key.export_public_key().decode().strip()}\n"
        )


@contextlib.contextmanager
def start_sshd(
    *, address: str = "127.0.0.1", prepare: str = "", extra: str = "", network: bool = False
) -> Iterator[Sshd]:
    """Yield a running sshd.

    Args:
        address: The loopback address to listen on.
        prepare: Shell lines that run before it in a mount namespace of its own; `$1` is its
            directory, which every user may read.
        extra: Lines for its configuration.
        network: True puts it into a network namespace of its own, with a loopback alone.
    """
    assert SSHD
    with tempfile.TemporaryDirectory(prefix="kit-sshd-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # sshd reads authorized_keys as the user who logs in
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as taken:
            taken.bind((address, 0))
            port = taken.getsockname()[1]
        host_key = write_key(directory / "host_key")
        identity = directory / "id"
        keys = directory / "authorized_keys"
        keys.write_text(write_key(identity).export_public_key().decode())
        keys.chmod(0o644)
        shown = f"[{address}]" if ":" in address else address
        config = directory / "sshd_config"
        config.write_text(
            f"ListenAddress {shown}:{port}\nHostKey {directory / 'host_key'}\n"
            f"AuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nPidFile none\nSubsystem sftp internal-sftp\n"
            + extra
        )
        log = directory / "log"
        command = [SSHD, "-D", "-e", "-f", str(config)]
        if prepare or network:
            up = "ip link set lo up" if network else ""
            text = f'set -e\n{prepare}\n{up}\nshift\nexec "$@"\n'
            kinds = ["--mount", *(["--net"] if network else [])]
            command = ["unshare", *kinds, "sh", "-c", text, "sh", name, *command]
        with _separation_directory(), log.open("wb") as out:
            process = subprocess.Popen(command, stderr=out)
            try:
                yield from _serving(process, Sshd(port, identity, host_key, log, address))
            finally:
                process.terminate()
                process.wait(30)


def _serving(process: subprocess.Popen[bytes], server: Sshd) -> Iterator[Sshd]:
    """Yield the server once it listens."""
    end = time.monotonic() + 60
    while "Server listening" not in server.log.read_text():
        assert process.poll() is None, server.log.read_text()
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.01)
    yield replace(server, pid=process.pid)


@contextlib.contextmanager
def _separation_directory() -> Iterator[None]:
    """Keep the directory that every sshd wants, which a system's own service makes.

    Servers of several test processes share it: each holds a lock, and the last one takes away what
    the first one made.
    """
    mark = SEPARATION / "made-for-tests"
    while True:
        with contextlib.suppress(FileExistsError):
            SEPARATION.mkdir(mode=0o755)
            mark.touch()
        try:
            held = os.open(SEPARATION, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(held, fcntl.LOCK_SH)
        if SEPARATION.exists() and os.fstat(held).st_ino == SEPARATION.stat().st_ino:
            break
        os.close(held)
    try:
        yield
    finally:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mark.exists():
                mark.unlink()
                SEPARATION.rmdir()
        os.close(held)


@dataclass
class Relay:
    """A TCP relay on loopback: a link that delays, and that can be cut.

    Attributes:
        port: Where it listens.
        delay: Seconds that each piece is held, in either direction.
    """

    port: int
    delay: float
    peers: list[socket.socket]

    def cut(self) -> None:
        """End every connection, as a device in between does that loses its state."""
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(to: int, delay: float = 0.0) -> Iterator[Relay]:
    """Yield a relay to a port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Relay(listener.getsockname()[1], delay, [])
        threads: list[threading.Thread] = []

        def begin(work: Callable[..., None], *args: socket.socket) -> None:
            threads.append(threading.Thread(target=work, args=args, daemon=True))
            threads[-1].start()

        def pump(source: socket.socket, sink: socket.socket) -> None:
            held: queue.Queue[tuple[float, bytes]] = queue.Queue()

            def take() -> None:
                with contextlib.suppress(OSError):
                    while data := source.recv(65536):
                        held.put((time.monotonic() + delay, data))
                held.put((0.0, b""))

            begin(take)
            with contextlib.suppress(OSError):
                while True:
                    due, data = held.get()
                    if not data:
                        break
                    time.sleep(max(0.0, due - time.monotonic()))
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(("127.0.0.1", to))
                    made.peers += [near, far]
                    begin(pump, near, far)
                    begin(pump, far, near)

        begin(serve)
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join(10)
            made.cut()
            for thread in list(threads):
                thread.join(10)
            for peer in made.peers:  # now that nobody reads them: numbers are used again
                peer.close()


@contextlib.contextmanager
def start_inner(address: str = "127.0.0.1") -> Iterator[tuple[Sshd, Sshd]]:
    """Yield a jump host and a host that only it reaches: they share a network namespace.

    The jump host's connections come in from outside: each is handed to an sshd inside as its
    standard input, as inetd does.
    """
    with start_sshd(network=True) as inner, start_sshd() as jump:
        config = jump.log.with_name("sshd_config")
        with socket.create_server((address, 0)) as listener:
            running: list[subprocess.Popen[bytes]] = []

            def serve() -> None:
                with contextlib.suppress(OSError), jump.log.open("ab") as log:
                    while True:
                        peer, _ = listener.accept()
                        with peer:
                            inside = ["nsenter", "--target", str(inner.pid), "--net"]
                            command = [*inside, str(SSHD), "-i", "-e", "-f", str(config)]
                            running.append(
                                subprocess.Popen(command, stdin=peer, stdout=peer, stderr=log)
                            )

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            try:
                yield replace(jump, port=listener.getsockname()[1]), inner
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(10)
                for process in running:
                    process.terminate()
                    process.wait(10)
