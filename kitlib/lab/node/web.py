"""The web server of the lab's web images: every pod answers with its own name."""

from __future__ import annotations

import asyncio
import socket

from kitlib.lab.node import netns
from kitlib.lab.node.images import Program, register

__all__ = ["serve"]

_PORTS = (80, 8080)


@register("web")
async def serve(program: Program) -> int:
    """Answer HTTP on the image's ports with the pod's name until stopped."""
    name = program.sandbox.hostname
    servers = []
    try:
        for port in _ports(program):
            sock = netns.listen(program.sandbox.netns, socket.SOCK_STREAM, port)
            servers.append(
                await asyncio.start_server(lambda r, w: _answer(program, name, r, w), sock=sock)
            )
        await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()
    return 0


def _ports(program: Program) -> tuple[int, ...]:
    named = {
        int(port["containerPort"])
        for port in program.spec.get("ports") or []
        if port.get("protocol", "TCP") == "TCP"
    }
    return tuple(sorted(named | set(_PORTS)))


async def _answer(
    program: Program, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        request = head.split(b"\r\n", 1)[0].decode(errors="replace")
        program.log(f'{writer.get_extra_info("peername")[0]} "{request}" 200')
        text = f"{name}\n".encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(text)
        )
        if not request.startswith("HEAD "):
            writer.write(text)
        await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the caller went away or spoke something else: nothing to answer
    finally:
        writer.close()
