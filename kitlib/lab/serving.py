"""What a host daemon does once its host is built: SSH, emulated commands, faults, the node."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kitlib.lab.commands import serve_commands
from kitlib.lab.host import Host
from kitlib.lab.hostapi import Handler, LabHost
from kitlib.lab.sshd import SshServer

__all__ = ["serve"]

_log = logging.getLogger(__name__)


async def serve(config: Mapping[str, Any], channel: socket.socket, outside: socket.socket) -> None:
    """Serve SSH and emulated commands, and answer the box, until the box goes away."""
    boot, handlers = _emulation(config["node"])
    names = frozenset(handlers) | {"kubectl"}
    host = Host(config["name"], config["address"], config["peers"], config["time_factor"], names)
    for command in names:
        host.remove_command(command)
    reader, writer = await asyncio.open_connection(sock=channel)
    server = await serve_commands(host, handlers)
    await boot(host)
    ssh = SshServer(host, outside)
    await ssh.start()
    _log.info("ready")
    await _tell(writer, {"event": "ready"})
    while line := await reader.readline():
        request = json.loads(line)
        try:
            if request["op"] == "break":
                await host.apply_fault(request["fault"])
            else:
                await host.heal(request["fault"])
            await _ssh_follows(host, ssh)
            answer = {}
        except Exception as error:
            _log.exception("%s %s", request["op"], request["fault"])
            answer = {"error": str(error)}
        await _tell(writer, {**answer, "faults": sorted(host.faults)})
    server.close()


async def _ssh_follows(host: Host, ssh: SshServer) -> None:
    """Refuse SSH while the host is down, accept it else."""
    if ("host-down" in host.faults) == ssh.accepting:
        await (ssh.stop() if ssh.accepting else ssh.start())


async def _tell(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


def _emulation(
    module: str,
) -> tuple[Callable[[LabHost], Awaitable[None]], Mapping[str, Handler]]:
    """Return `boot` and `COMMANDS` of the module that emulates a node."""
    node = importlib.import_module(module)
    return node.boot, node.COMMANDS
