"""The daemon of one lab host: `python -m kitlib.lab.hostd CHANNEL_FD SSH_FD`, started by the box.

As PID 1 of its PID namespace it builds the host (root directory, namespaces, interface), then runs
the SSH server, the emulated commands and the node emulation in a child. The channel to the box
is a socket of JSON lines: first the configuration comes in, and a descriptor of the new network
namespace goes back, so that the box can plug in the cable.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kitlib.lab import hostroot, identity, kernel, neighbours
from kitlib.lab.hostroot import AUTHORIZED_KEYS, HOST_KEY
from kitlib.lab.pid1 import stay_behind


def main() -> None:
    """Build the host and serve until the box goes away."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    outside = socket.socket(fileno=int(sys.argv[2]))
    with channel.makefile("rw") as lines:
        config = json.loads(lines.readline())
        name = config["name"]
        logging.basicConfig(
            level=logging.INFO, format=f"%(asctime)s {name}: %(message)s", stream=sys.stderr
        )
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        _build(config)
        with Path("/proc/self/ns/net").open() as network:
            socket.send_fds(channel, [b"\n"], [network.fileno()])
        lines.readline()
    _configure(config)
    stay_behind()
    from kitlib.lab.serving import (
        serve,
    )  # large: not in PID 1, and nothing that could start threads

    asyncio.run(serve(config, channel, outside))


def _build(config: Mapping[str, Any]) -> None:
    """Give this process the host's root directory and namespaces."""
    hostroot.build(
        name=config["name"],
        peers=config["peers"],
        read_only=config["read_only"],
        kubectl=config["kubectl"],
        interpreter=config["interpreter"],
        release=config["release"],
    )
    with _namespaces_of_a_child() as child:
        kernel.enter(child, "net")
        kernel.mount("sysfs", Path("/sys"), read_only=True)
        identity.give_firmware_uuid()
        kernel.enter(child, "user", "uts", "ipc")
        kernel.unshare(kernel.NEW_MOUNT)
    socket.sethostname(config["name"])


@contextlib.contextmanager
def _namespaces_of_a_child() -> Iterator[int]:
    """Give the pid of a process in a new user namespace with its own network, UTS and IPC ones.

    The mounts must all be there before this process joins the user namespace and copies them:
    only then does the kernel keep root on the host from undoing them. And the host's sysfs
    needs the network namespace, which must belong to that user namespace. Hence the child.
    """
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        kernel.unshare(kernel.NEW_USER | kernel.NEW_NET | kernel.NEW_UTS | kernel.NEW_IPC)
        os.write(tell, b".")
        signal.pause()
    os.close(tell)
    os.read(ready, 1)
    os.close(ready)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _configure(config: Mapping[str, Any]) -> None:
    """Configure the host once its cable is in: interface, keys, the shim."""
    os.environ["HOME"] = "/root"
    os.chdir("/root")
    identity.set_zone(Path("/etc"))
    for command in (
        ("link", "set", "lo", "up"),
        ("link", "set", "eth0", "address", neighbours.mac(config["address"])),
        ("address", "add", f"{config['address']}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", config["gateway"]),
    ):
        subprocess.run(["ip", *command], check=True)
    neighbours.introduce(config["address"], config["peers"])
    HOST_KEY.touch(mode=0o600)
    HOST_KEY.write_text(config["host_key"])
    Path(f"{HOST_KEY}.pub").write_text(config["host_key_public"])
    AUTHORIZED_KEYS.parent.mkdir(mode=0o700)
    AUTHORIZED_KEYS.write_text(config["authorized_key"])
    shim = hostroot.LAB_DIR / "shim"
    source = Path(__file__).with_name("shim.py").read_text()
    shim.write_text(f"#!{hostroot.LAB_DIR}/python -IS\n{source}")
    shim.chmod(0o755)


if __name__ == "__main__":
    main()
