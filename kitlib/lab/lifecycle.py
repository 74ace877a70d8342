"""Starting, finding and ending a lab.

A lab is one tree of processes below one `unshare --kill-child`: the kernel ends all of them when
that one dies, however it dies, and with them go their namespaces, mounts and interfaces. What is
left to this module is to start it with everything it needs in hand, and to find it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh

from kitlib import __version__
from kitlib.errors import LabError
from kitlib.lab import box, control, machine, processes
from kitlib.lab.spec import HostStatus, LabSpec, LabStatus

__all__ = ["BOX_LOG", "IDENTITY", "KNOWN_HOSTS", "NODE", "down", "read_record", "status", "up"]

IDENTITY = "id_ed25519"
KNOWN_HOSTS = "known_hosts"
BOX_LOG = "box.log"
START_SECONDS, START_EACH = 60.0, 6.0
"""How long hosts may take to start: together, and each; they share the machine's cores."""
NODE = "kitlib.lab.node"
"""The module that emulates a node: `boot` and `COMMANDS`."""

_RECORD = "lab.json"
_EMULATED = "Kubernetes API, kubeadm, kubelet, packages, images, systemd"
_RESTART = "`kit lab down`, then `kit lab up`"


@dataclass(frozen=True, slots=True)
class Record:
    """What `lab.json` says: how to find the lab that runs, and what it was started with.

    Attributes:
        pid: The outermost process; `start` is its start time in clock ticks since boot, which
            together name it for good.
        box_pid: The box as seen outside, 0 until it is known; `box_start` as above.
        control: The name of the abstract control socket.
        time_factor: What recorded delays are multiplied by.
        spec: The lab's hosts and ports.
        api_port: The port on 127.0.0.1 that leads to the cluster's API.
    """

    pid: int
    start: int
    box_pid: int
    box_start: int
    control: str
    time_factor: float
    spec: LabSpec
    api_port: int = 0


def read_record(state_dir: Path) -> Record | None:
    """Return the record of the lab in a state directory; None when there is none."""
    try:
        data = json.loads((state_dir / _RECORD).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabError(
            f"{state_dir / _RECORD}: not readable: {error}", remedy="remove that file"
        ) from error
    return Record(**{**data, "spec": LabSpec.from_json(data["spec"])})


def _write_record(state_dir: Path, record: Record) -> None:
    part = state_dir / f"{_RECORD}.part"
    part.write_text(json.dumps(asdict(record), indent=2) + "\n")
    part.replace(state_dir / _RECORD)


def status(state_dir: Path) -> LabStatus:
    """Return how the lab of a state directory is now; it asks the lab itself."""
    record = read_record(state_dir)
    if record is None:
        return LabStatus(False, "lab: not running")
    if not processes.alive(record.pid, record.start):
        return LabStatus(False, "lab: not running; it was ended from outside")
    try:
        answer = control.ask(record.control, {"op": "status"})["hosts"]
    except LabError:
        answer = {}
    unknown = {"state": "unknown", "faults": ()}
    hosts = tuple(
        HostStatus(host, got["state"], tuple(got["faults"]))
        for host in record.spec.hosts
        for got in [answer.get(host.name, unknown)]
    )
    ready = sum(host.state == "ready" for host in hosts)
    return LabStatus(
        True,
        f"lab: {ready} of {len(hosts)} hosts ready",
        record.spec.cluster,
        record.time_factor,
        record.spec.manifest_port,
        hosts,
        record.pid,
    )


def up(
    spec: LabSpec,
    *,
    state_dir: Path,
    time_factor: float = 0.2,
    timeout: float | None = None,
    node: str = NODE,
    python_path: Sequence[Path] = (),
) -> LabStatus:
    """Start the lab and return its status once every host answers SSH.

    A lab that runs already with the same hosts, ports and time factor is left alone.

    Args:
        spec: Hosts and ports.
        state_dir: Where keys, `known_hosts`, the log and `lab.json` go; made when missing.
        time_factor: What recorded delays are multiplied by.
        timeout: Seconds that the hosts may take; after that everything is ended again. By default
            START_SECONDS, and START_EACH more for each host: they share the cores.
        node: The module that emulates a node.
        python_path: Directories with further modules that `node` needs.

    Raises:
        LabError: A tool, a port or the permission is missing, another lab runs here, or a host
            did not come up.
    """
    state_dir = state_dir.resolve()
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(state_dir):
        now = status(state_dir)
        record = read_record(state_dir)
        if now.running and record is not None:
            _same(record, spec, time_factor)
            return replace(now, summary=f"{now.summary}; it was running already")
        if record is not None:
            _end(state_dir, record)
        machine.check_tools()
        machine.check_namespaces()
        kubectl = machine.find_kubectl()
        with contextlib.ExitStack() as held:
            manifests = held.enter_context(machine.bind_port(spec.manifest_port))
            outside = [held.enter_context(machine.bind_port(h.ssh_port)) for h in spec.hosts]
            api = held.enter_context(machine.bind_port(0))
            api_port = int(api.getsockname()[1])
            name = f"kit-lab-{secrets.token_hex(8)}"
            commands = held.enter_context(control.listen(name))
            config = {
                "control_fd": commands.fileno(),
                "manifest_fd": manifests.fileno(),
                "api_fd": api.fileno(),
                "hosts": _host_configs(
                    spec, outside, state_dir, kubectl, time_factor, node, python_path
                ),
            }
            pid = _spawn(config, state_dir, python_path)
        start = processes.start_time(pid) or 0
        record = Record(pid, start, 0, 0, name, time_factor, spec, api_port)
        _write_record(state_dir, record)
        try:
            limit = START_SECONDS + START_EACH * len(spec.hosts) if timeout is None else timeout
            _wait_until_ready(state_dir, record, limit)
        except BaseException:
            _end(state_dir, record)
            raise
        box_pid = processes.child(pid)
        record = replace(record, box_pid=box_pid, box_start=processes.start_time(box_pid) or 0)
        _write_record(state_dir, record)
        return status(state_dir)


def down(state_dir: Path) -> LabStatus:
    """End the lab of a state directory; return only when all of it is gone. Keeps `box.log`."""
    if not state_dir.is_dir():
        return LabStatus(False, "lab: not running")
    with _locked(state_dir):
        record = read_record(state_dir)
        if record is None:
            return LabStatus(False, "lab: not running")
        lived = processes.alive(record.pid, record.start)
        _end(state_dir, record)
        return LabStatus(False, "lab: ended" if lived else "lab: had ended already; cleaned up")


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """Hold the state directory's lock; whoever comes second waits."""
    with (state_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _same(record: Record, spec: LabSpec, time_factor: float) -> None:
    """Raise LabError when the lab that runs was started with something else."""
    wrong = []
    if record.spec.cluster != spec.cluster:
        wrong.append(f"for cluster {record.spec.cluster}")
    if record.spec.hosts != spec.hosts:
        shown = ", ".join(f"{host.name}:{host.ssh_port}" for host in record.spec.hosts)
        wrong.append(f"with hosts {shown}")
    if record.spec.manifest_port != spec.manifest_port:
        wrong.append(f"with manifest port {record.spec.manifest_port}")
    if record.time_factor != time_factor:
        wrong.append(f"with time factor {record.time_factor:g}")
    if wrong:
        raise LabError(f"lab: it runs already, {', '.join(wrong)}", remedy=_RESTART)


def _host_configs(
    spec: LabSpec,
    outside: Sequence[socket.socket],
    state_dir: Path,
    kubectl: str,
    time_factor: float,
    node: str,
    python_path: Sequence[Path],
) -> list[dict[str, Any]]:
    """Return what each host daemon is told; writes the client key and known_hosts on the way."""
    client = asyncssh.generate_private_key("ssh-ed25519", comment="kit lab")
    identity = state_dir / IDENTITY
    identity.unlink(missing_ok=True)
    identity.touch(mode=0o600)
    identity.write_bytes(client.export_private_key())
    known = []
    configs = []
    for host, sock in zip(spec.hosts, outside, strict=True):
        key = asyncssh.generate_private_key("ssh-ed25519", comment=host.name)
        public = key.export_public_key().decode()
        known.append(f"[127.0.0.1]:{host.ssh_port} {' '.join(public.split()[:2])}\n")
        configs.append(
            {
                "name": host.name,
                "address": host.address,
                "control_plane": host.role == "control_plane",
                "gateway": box.GATEWAY,
                "peers": {peer.name: peer.address for peer in spec.hosts},
                "ssh_fd": sock.fileno(),
                "host_key": key.export_private_key().decode(),
                "host_key_public": public,
                "authorized_key": client.export_public_key().decode(),
                "read_only": [str(path) for path in _python_directories(python_path)],
                "kubectl": kubectl,
                "interpreter": str(Path(sys.executable).resolve()),
                "node": node,
                "time_factor": time_factor,
                "release": {
                    "LAB": "1",
                    "LAB_VERSION": __version__,
                    "LAB_CLUSTER": spec.cluster,
                    "LAB_TIME_FACTOR": f"{time_factor:g}",
                    "LAB_EMULATED": _EMULATED,
                },
            }
        )
    (state_dir / KNOWN_HOSTS).write_text("".join(known))
    return configs


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _libraries() -> list[Path]:
    """Return the directories of installed packages on this Python's path."""
    entries = [Path(entry).resolve() for entry in sys.path if entry]
    return [e for e in entries if e.name in ("site-packages", "dist-packages") and e.is_dir()]


def _python_directories(python_path: Sequence[Path]) -> list[Path]:
    """Return the directories that a host needs for Python and this package, outermost only."""
    wanted = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), _package()}
    wanted.update(_libraries())
    wanted.update(path.resolve() for path in python_path)
    return sorted(path for path in wanted if not wanted & set(path.parents))


def _spawn(config: dict[str, Any], state_dir: Path, python_path: Sequence[Path]) -> int:
    """Start the lab's processes, detached from this one, and return the outermost one's pid."""
    path = [_package().parent, *(entry.resolve() for entry in python_path), *_libraries()]
    env = {
        "LANG": "C.UTF-8",
        "PATH": machine.PATH,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join(map(str, path)),
        machine.STATE_VARIABLE: str(state_dir),
    }
    argv = [*machine.IN_NEW_NAMESPACES, sys.executable, "-P", "-m", "kitlib.lab.box"]
    program = machine.which(argv[0])
    with tempfile.TemporaryFile("w+") as stdin, (state_dir / BOX_LOG).open("w") as log:
        json.dump(config, stdin)
        stdin.flush()
        stdin.seek(0)
        return os.posix_spawn(
            program,
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
        )


def _wait_until_ready(state_dir: Path, record: Record, timeout: float) -> None:
    """Return when every host answers SSH.

    Raises:
        LabError: One ended or took too long; the message holds the end of the log.
    """
    deadline = time.monotonic() + timeout
    problem = ""
    while not problem:
        now = status(state_dir)
        slow = [host.spec.name for host in now.hosts if host.state != "ready"]
        dead = [host.spec.name for host in now.hosts if host.state == "dead"]
        if not now.running:
            problem = "it ended while it was starting"
        elif dead:
            problem = f"{', '.join(dead)}: ended while starting"
        elif not slow:
            slow = [host.name for host in record.spec.hosts if not _answers_ssh(host.ssh_port)]
            if not slow:
                return
        if not problem and time.monotonic() > deadline:
            problem = f"{', '.join(slow)}: no answer over SSH after {timeout:g} s"
        time.sleep(0.05)
    log = state_dir / BOX_LOG
    tail = "\n".join(f"  | {line}" for line in log.read_text().splitlines()[-20:])
    raise LabError(f"lab: {problem}\n{tail}", remedy=f"the whole log is {log}")


def _answers_ssh(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as sock:
            return sock.recv(8) == b"SSH-2.0-"
    except OSError:
        return False


def _end(state_dir: Path, record: Record) -> None:
    """End a lab for certain and forget it.

    There is nothing in it to be saved, so that the first signal is SIGKILL: the kernel then ends
    the box, as PID 1, and everything in its PID namespace.
    """
    box_pid = record.box_pid or processes.child(record.pid)
    box_start = record.box_start or processes.start_time(box_pid) or 0
    processes.kill(record.pid, record.start)
    processes.kill(box_pid, box_start)
    (state_dir / _RECORD).unlink(missing_ok=True)
