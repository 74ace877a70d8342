"""TCP connections passed on, byte for byte: to the leader of the emulated etcd, by the balancer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

__all__ = ["Relay", "Streams", "connect"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_PATIENCE = 2.0


async def connect(address: str, port: int) -> Streams:
    """Return a connection.

    Raises:
        OSError: There is none within two seconds.
    """
    async with asyncio.timeout(_PATIENCE):
        return await asyncio.open_connection(address, port)


class Relay:
    """Passes TCP connections on, byte for byte.

    Args:
        connect: Opens the other side of a connection; an OSError refuses it.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side ends it."""
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        ways = [
            asyncio.create_task(_pump(reader, far_writer)),
            asyncio.create_task(_pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open -= {writer, far_writer}
            writer.close()
            far_writer.close()

    def close(self) -> None:
        """Cut every connection."""
        for writer in list(self._open):
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
