"""What the lab needs of the machine: tools, user namespaces, free ports. Each lack is explained."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from kitlib.errors import LabError
from kitlib.lab.hostroot import COMMAND_DIRS

__all__ = [
    "IN_NEW_NAMESPACES",
    "PATH",
    "STATE_VARIABLE",
    "TOOLS",
    "bind_port",
    "check_namespaces",
    "check_tools",
    "find_kubectl",
    "which",
    "why_refused",
]

TOOLS: Mapping[str, str] = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "setsid": "util-linux",
    "unshare": "util-linux",
}
"""The programs that the lab runs -> the Debian package that has each."""

PATH = ":".join(COMMAND_DIRS)
"""The PATH of everything in the lab; an ordinary user's own may lack the sbin directories."""

IN_NEW_NAMESPACES = (
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--uts",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
"""Runs a command as root of its own user, network, mount, UTS and PID namespaces."""

STATE_VARIABLE = "KIT_LAB_STATE"
"""Set for every process of a lab to its state directory, so that its owner can be told."""


def check_tools(path: str = PATH) -> None:
    """Raise LabError naming every missing program and the Debian package that has it."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        raise LabError(
            f"lab: not found on this machine: {', '.join(missing)}",
            remedy=f"apt-get install {packages}",
        )


def which(tool: str) -> str:
    """Return the path of one of the lab's tools, which `check_tools` found."""
    return shutil.which(tool, path=PATH) or tool


def find_kubectl() -> str:
    """Return the path of a real kubectl: the wheel's beside this Python, else the PATH's.

    Raises:
        LabError: There is none.
    """
    beside = Path(sysconfig.get_path("scripts"), "kubectl")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("kubectl")
    if found is None:
        raise LabError(
            "lab: kubectl: not found", remedy="pip install 'cluster-network-kit[lab]' brings it"
        )
    return str(Path(found).resolve())


def check_namespaces() -> None:
    """Raise LabError saying which switch is off when this user may not make namespaces."""
    probe = [*IN_NEW_NAMESPACES, "sh", "-c", "mount -t tmpfs lab /run && ip link set lo up"]
    done = subprocess.run(
        probe, env={"PATH": PATH}, cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise why_refused(done.stderr.strip(), _read)


def _read(path: str) -> str:
    """Return a file of /proc as stripped text; empty when it is not there."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def why_refused(message: str, read: Callable[[str], str], uid: int | None = None) -> LabError:
    """Return the error for refused namespaces: the switch that is off, and what turns it on.

    Args:
        message: What `unshare` said.
        read: Returns a file of /proc as text, empty when it is not there.
        uid: The user; None takes this process's.
    """
    plain_user = (os.getuid() if uid is None else uid) != 0
    status = dict(
        line.split(":", 1) for line in read("/proc/self/status").splitlines() if ":" in line
    )
    if read("/proc/sys/user/max_user_namespaces") == "0":
        cause = "user.max_user_namespaces is 0"
        remedy = "as root: sysctl -w user.max_user_namespaces=15000"
    elif plain_user and read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        cause = "kernel.unprivileged_userns_clone is 0"
        remedy = "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    elif plain_user and read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        cause = "kernel.apparmor_restrict_unprivileged_userns is 1"
        remedy = "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    elif status.get("Seccomp", "").strip() == "2":
        cause = "a seccomp filter is on, as in a container with the default profile"
        remedy = (
            "start the container with --security-opt seccomp=unconfined"
            " --security-opt systempaths=unconfined --security-opt apparmor=unconfined"
        )
    else:
        cause = "no known switch is off"
        remedy = "try `unshare --user --map-root-user --net --mount true` as this user"
    return LabError(f"lab: user namespaces are refused: {message}: {cause}", remedy=remedy)


def bind_port(port: int) -> socket.socket:
    """Return a TCP socket bound to 127.0.0.1 and `port`, listening and inheritable.

    Raises:
        LabError: The port is taken (names the holder where it can be seen) or not permitted.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        holder, remedy = _holder(port)
        raise LabError(
            f"lab: port {port} on 127.0.0.1: {error.strerror}{holder}", remedy=remedy
        ) from error
    sock.set_inheritable(True)
    return sock


def _holder(port: int) -> tuple[str, str]:
    """Return who listens on a port, as far as this user may see, and what to do about it."""
    remedy = "end what listens there, or choose other ports in the parameter file"
    inodes = set()
    for line in _read("/proc/net/tcp").splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        if not inodes & _open_files(process):
            continue
        state = _variable(process, STATE_VARIABLE)
        if state:
            return f": the lab of {state} holds it", f"end that lab first: kit lab down ({state})"
        return f": held by {_read(f'{process}/comm')} (pid {process.name})", remedy
    return "", remedy


def _open_files(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _variable(process: Path, name: str) -> str:
    prefix = f"{name}="
    entries = _read(f"{process}/environ").split("\0")
    return next((entry.removeprefix(prefix) for entry in entries if entry.startswith(prefix)), "")
