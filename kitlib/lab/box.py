"""The box: PID 1 of a lab, `python -m kitlib.lab.box`, with the lab's configuration on stdin.

It is the wall and the wire: it owns the bridge that the hosts hang on, starts one daemon a host,
serves the manifests, and answers the control socket. It restarts nothing: a host that ended is
said to be dead, in the log and in the status.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kitlib.lab import balancer, fileserver, kernel
from kitlib.lab.holding import Held
from kitlib.lab.pid1 import stay_behind

__all__ = ["BRIDGE", "GATEWAY"]

BRIDGE = "lab0"
GATEWAY = "10.77.0.1"
_MANIFESTS_INSIDE = 7720
_log = logging.getLogger("kitlib.lab.box")


@dataclass(slots=True)
class _Host:
    """One host as the box knows it; `streams` is the channel to its daemon, once it is ready."""

    config: Mapping[str, Any]
    cable: str
    state: str = "starting"
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    faults: list[str] = field(default_factory=list)
    held: Held | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


def main() -> None:
    """Run the lab until it is ended from outside."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s box: %(message)s", stream=sys.stderr
    )
    config = json.load(sys.stdin)
    kernel.mount("tmpfs", Path("/run"), "mode=755")
    for command in (
        ("link", "set", "lo", "up"),
        ("link", "add", BRIDGE, "type", "bridge"),
        ("address", "add", f"{GATEWAY}/24", "dev", BRIDGE),
        ("link", "set", BRIDGE, "up"),
    ):
        subprocess.run(["ip", *command], check=True)
    stay_behind()
    asyncio.run(_Box(config).run())


class _Box:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._hosts = {
            host["name"]: _Host(host, f"host{index}") for index, host in enumerate(config["hosts"])
        }

    async def run(self) -> None:
        """Start everything and serve for ever."""
        servers = [
            await asyncio.start_unix_server(
                self._control, sock=socket.socket(fileno=self._config["control_fd"])
            ),
            await asyncio.start_server(
                fileserver.serve_connection, sock=socket.socket(fileno=self._config["manifest_fd"])
            ),
            await asyncio.start_server(fileserver.serve_connection, GATEWAY, _MANIFESTS_INSIDE),
        ]
        planes = [each["address"] for each in self._config["hosts"] if each["control_plane"]]
        way_in = socket.socket(fileno=self._config["api_fd"])
        servers.append(await balancer.way_in(way_in, planes))
        if len(planes) > 1:
            servers.append(await balancer.start(GATEWAY, planes))
        async with asyncio.TaskGroup() as tasks:
            for server in servers:
                tasks.create_task(server.serve_forever())
            for host in self._hosts.values():
                tasks.create_task(self._run_host(host))

    async def _run_host(self, host: _Host) -> None:
        """Start one host and follow it to its end."""
        channel, theirs = socket.socketpair()
        ssh_fd = host.config["ssh_fd"]
        process = await asyncio.create_subprocess_exec(
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            *(sys.executable, "-P", "-m", "kitlib.lab.hostd"),
            *(str(theirs.fileno()), str(ssh_fd)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), ssh_fd),
        )
        theirs.close()
        socket.socket(fileno=ssh_fd).close()
        try:
            await asyncio.to_thread(_plug_in, channel, host.config, host.cable)
            reader, writer = await asyncio.open_connection(sock=channel)
            if await reader.readline():
                host.streams = (reader, writer)
                host.state = "ready"
        except (OSError, subprocess.SubprocessError):
            _log.exception("%s: not started", host.config["name"])
        status = await process.wait()
        _log.error("%s: the host ended with status %s", host.config["name"], status)
        host.state = "dead"

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of the lab's own user."""
        credentials = writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        try:
            if struct.unpack("3i", credentials)[1] == 0:
                request = json.loads(await reader.readline())
                answer = await self._answer(request)
            else:
                answer = {"error": "lab: this lab is another user's"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError) as error:
            _log.warning("control: %s", error)
        finally:
            writer.close()

    async def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request["op"] == "status":
            return {
                "hosts": {
                    name: {"state": host.state, "faults": host.faults}
                    for name, host in self._hosts.items()
                }
            }
        host = self._hosts.get(request["host"])
        if host is None or host.state != "ready" or host.streams is None:
            return {
                "error": f"{request['host']}: {host.state if host else 'no such host'}",
                "remedy": "see box.log; `kit lab down` and `kit lab up` start afresh",
            }
        reader, writer = host.streams
        async with host.turn:
            try:
                await _at_the_cable(host, request["fault"], request["op"] == "break")
            except OSError as error:
                return {"error": f"{request['host']}: {error}", "remedy": "see box.log"}
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        if not line:
            return {"error": f"{request['host']}: it ended meanwhile", "remedy": "see box.log"}
        answer: dict[str, Any] = json.loads(line)
        host.faults = answer["faults"]
        return answer


def _plug_in(channel: socket.socket, config: Mapping[str, Any], cable: str) -> None:
    """Hand a host its configuration and connect its eth0 to the bridge."""
    channel.sendall(json.dumps(config).encode() + b"\n")
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise ConnectionError("it ended while it was built")
    with open(descriptors[0]) as network:  # noqa: PTH123 - a descriptor, not a path
        path = f"/proc/self/fd/{network.fileno()}"
        add = ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", path]
        subprocess.run(add, check=True, pass_fds=[network.fileno()])
    subprocess.run(["ip", "link", "set", cable, "master", BRIDGE, "up"], check=True)
    channel.sendall(b"\n")


async def _at_the_cable(host: _Host, fault: str, broken: bool) -> None:
    """Do or undo what a fault does outside the host: to its cable.

    Raises:
        OSError: It could not be done; the cable is as it was.
    """
    if fault == "host-down":
        state = "down" if broken else "up"
        process = await asyncio.create_subprocess_exec("ip", "link", "set", host.cable, state)
        await process.wait()
    elif fault == "slow-node" and broken and host.held is None:
        held = Held(host.cable, BRIDGE)
        await held.start()
        host.held = held
    elif fault == "slow-node" and not broken and host.held is not None:
        await host.held.stop()
        host.held = None


if __name__ == "__main__":
    main()
