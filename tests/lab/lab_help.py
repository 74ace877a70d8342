"""Labs for tests: on free ports, in a directory of the test's, ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fabric
import paramiko

from kitlib.lab import lifecycle, machine, verbs
from kitlib.lab.spec import LabSpec

STUB = Path(__file__).with_name("node_stub")
HOSTS = ("control-plane-1", "worker-1", "worker-2")


def free_ports(count: int) -> list[int]:
    """Return that many TCP ports that are free on 127.0.0.1 now."""
    with contextlib.ExitStack() as held:
        socks = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]


def free_spec(hosts: Sequence[str] = HOSTS, cluster: str = "test") -> LabSpec:
    """Return the spec of a lab with these hosts on free ports.

    The first one is a control plane, and so is every one that is called so.
    """
    manifests, *ports = free_ports(len(hosts) + 1)
    planes = {hosts[0], *(name for name in hosts if name.startswith("control-plane-"))}
    roles = ["control_plane" if name in planes else "worker" for name in hosts]
    rows = zip(hosts, roles, ports, strict=True)
    return verbs.build_spec(cluster, rows, manifest_port=manifests)


def processes_of(state_dir: Path) -> list[str]:
    """Return what still runs, as `pid command`, of the lab with this state directory."""
    wanted = f"{machine.STATE_VARIABLE}={state_dir.resolve()}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"{process.name} {command.decode(errors='replace')}")
    return found


def namespaces(pids: str = "[0-9]*") -> set[str]:
    """Return every namespace that a process of this machine (or those of a pattern) is in."""
    found = set()
    for link in Path("/proc").glob(f"{pids}/ns/*"):
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


@dataclass
class Lab:
    """A lab that runs, and fabric connections to its hosts as the kit makes them."""

    spec: LabSpec
    state_dir: Path
    _open: list[fabric.Connection] = field(default_factory=list)

    def port(self, host: str) -> int:
        return next(spec.ssh_port for spec in self.spec.hosts if spec.name == host)

    def connect(self, host: str = "worker-1", user: str = "root") -> fabric.Connection:
        """Return an open connection with strict host key checking; closed when the test ends."""
        connection = fabric.Connection(
            "127.0.0.1",
            user=user,
            port=self.port(host),
            connect_timeout=10,
            connect_kwargs={
                "key_filename": str(self.state_dir / lifecycle.IDENTITY),
                "look_for_keys": False,
                "allow_agent": False,
            },
        )
        connection.client.load_host_keys(str(self.state_dir / lifecycle.KNOWN_HOSTS))
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self._open.append(connection)
        connection.open()
        connection.transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def run(self, command: str, host: str = "worker-1") -> fabric.Result:
        """Return the result of a command on a host, whatever its exit status."""
        return self.connect(host).run(command, hide=True, warn=True, in_stream=False)

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()


@contextlib.contextmanager
def running_lab(
    directory: Path,
    *,
    hosts: Sequence[str] = HOSTS,
    node: str = lifecycle.NODE,
    python_path: Sequence[Path] = (),
    time_factor: float = 0.02,
) -> Iterator[Lab]:
    """Start a lab with its state in `directory`; end it afterwards."""
    spec = free_spec(hosts)
    try:
        verbs.up(
            spec, state_dir=directory, node=node, python_path=python_path, time_factor=time_factor
        )
        lab = Lab(spec, directory)
        yield lab
        lab.close()
    finally:
        verbs.down(directory)


@dataclass(frozen=True)
class Someone:
    """A user that labs are started as, in a process of its own."""

    prefix: tuple[str, ...]
    python: str
    directory: Path

    def python_run(self, code: str, *args: str) -> str:
        """Return what a Python program printed, run as this user with kitlib at hand."""
        done = subprocess.run(
            [*self.prefix, self.python, "-c", code, *args],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, spec: LabSpec) -> Lab:
        """Start a lab as this user."""
        code = (
            "import json, sys; from pathlib import Path; from kitlib.lab import verbs, spec\n"
            "verbs.up(spec.LabSpec.from_json(json.loads(sys.argv[1])), state_dir=Path(sys.argv[2]),"
            " node='lab_node_stub', python_path=[Path(sys.argv[3])])"
        )
        self.python_run(code, json.dumps(spec.to_json()), str(self.directory), str(STUB))
        return Lab(spec, self.directory)

    def down(self) -> str:
        """End it as this user; return what is said."""
        code = (
            "import sys; from pathlib import Path; from kitlib.lab import verbs\n"
            "print(verbs.down(Path(sys.argv[1])).summary)"
        )
        return self.python_run(code, str(self.directory)).strip()


def environment() -> dict[str, str]:
    packages = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    root = str(Path(lifecycle.__file__).parents[2])
    scripts = str(Path(sys.executable).parent)
    return {
        "PATH": f"{scripts}:/usr/bin:/bin",
        "PYTHONPATH": ":".join([root, *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def python_for(prefix: tuple[str, ...]) -> str | None:
    """Return a Python of this one's version that a user may run, with the lab's libraries."""
    code = (
        "import os, sys, asyncssh, kitlib.lab.lifecycle\n"
        "sys.exit(not os.access(sys.executable, os.X_OK))"
    )
    version = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        probe = [*prefix, python, "-c", code]
        with contextlib.suppress(OSError):
            if subprocess.run(probe, env=environment(), capture_output=True).returncode == 0:
                return python
    return None


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return when the condition holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
