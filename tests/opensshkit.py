"""OpenSSH's own server for tests: on loopback, in a mount namespace where a test wants one."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from sshkit import write_key

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
SUDO = shutil.which("sudo")

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
    """

    port: int
    identity: Path
    host_key: asyncssh.SSHKey
    log: Path
    address: str = "127.0.0.1"

    @property
    def line(self) -> str:
        """Its known_hosts line."""
        return (
            f"[{self.address}]:{self.port} {self.host_key.export_public_key().decode().strip()}\n"
        )


@contextlib.contextmanager
def start_sshd(*, address: str = "127.0.0.1", prepare: str = "", extra: str = "") -> Iterator[Sshd]:
    """Yield a running sshd.

    Args:
        address: The loopback address to listen on.
        prepare: Shell lines that run before it in a mount namespace of its own; `$1` is its
            directory, which every user may read.
        extra: Lines for its configuration.
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
        separation = Path("/run/sshd")  # sshd wants it; a system's own service makes it
        made = not separation.exists()
        separation.mkdir(exist_ok=True, mode=0o755)
        command = [SSHD, "-D", "-e", "-f", str(config)]
        if prepare:
            text = f'set -e\n{prepare}\nshift\nexec "$@"\n'
            command = ["unshare", "--mount", "sh", "-c", text, "sh", name, *command]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stderr=out)
        try:
            end = time.monotonic() + 60
            while "Server listening" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.01)
            yield Sshd(port, identity, host_key, log, address)
        finally:
            process.terminate()
            process.wait(30)
            if made:
                with contextlib.suppress(OSError):  # another server's by now
                    separation.rmdir()
