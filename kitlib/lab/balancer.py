"""The lab's stand-in for what an operator puts in front of several control planes.

It is a TCP forwarder at one address on the lab's bridge. It takes the next control plane whose
API port is open, and cuts the connections to one that has stopped answering, as a load balancer
with health checks does. The kit knows it only as `control_plane_endpoint`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from kitlib.lab.relay import Relay, Streams, connect

__all__ = ["PORT", "start", "way_in"]

PORT = 6443
_EVERY = 0.5
_PATIENCE = 1.5


async def start(address: str, planes: Sequence[str]) -> asyncio.Server:
    """Return the forwarder at `address`, in front of these control planes."""
    balancer = _Balancer(planes)
    server = await asyncio.start_server(balancer.serve, address, PORT, backlog=512)
    balancer.task = asyncio.create_task(balancer.watch())
    return server


async def way_in(sock: socket.socket, planes: Sequence[str]) -> asyncio.Server:
    """Return what leads from a socket outside of the lab to the first control plane that answers.

    It is for a kubeconfig that is used outside; it looks at nothing beforehand.
    """

    async def first() -> Streams:
        for plane in planes:
            try:
                return await connect(plane, PORT)
            except OSError:
                continue
        raise OSError("no control plane answers")

    return await asyncio.start_server(Relay(first).serve, sock=sock)


class _Balancer:
    def __init__(self, planes: Sequence[str]) -> None:
        self.task: asyncio.Task[None] | None = None
        self._planes = list(planes)
        self._well: set[str] = set()
        self._relays = {plane: Relay(self._way_to(plane)) for plane in planes}
        self._next = 0

    @staticmethod
    def _way_to(plane: str) -> Callable[[], Awaitable[Streams]]:
        return lambda: connect(plane, PORT)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, to the next control plane that is well."""
        well = [plane for plane in self._planes if plane in self._well]
        if not well:
            writer.transport.abort()
            return
        self._next += 1
        await self._relays[well[self._next % len(well)]].serve(reader, writer)

    async def watch(self) -> None:
        """Look at every control plane, again and again."""
        while True:
            await asyncio.gather(*map(self._look, self._planes))
            await asyncio.sleep(_EVERY)

    async def _look(self, plane: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                _, writer = await asyncio.open_connection(plane, PORT)
        except OSError:
            self._well.discard(plane)
            self._relays[plane].close()
        else:
            writer.transport.abort()
            self._well.add(plane)
