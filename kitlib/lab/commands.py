"""The daemon's side of emulated commands: takes a call from a shim, runs its handler, relays."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping

from kitlib.errors import KitError
from kitlib.lab.hostapi import Handler, LabHost
from kitlib.lab.hostroot import LAB_DIR

__all__ = ["ShimCall", "serve_commands"]

_log = logging.getLogger(__name__)


class ShimCall:
    """One call of an emulated command, over the connection that its shim opened."""

    def __init__(
        self, payload: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        cwd, count, *rest = payload.split(b"\0")
        arguments, settings = rest[: int(count)], rest[int(count) :]
        self.cwd = os.fsdecode(cwd)
        self.argv = tuple(os.fsdecode(argument) for argument in arguments)
        pairs = (os.fsdecode(setting).partition("=") for setting in settings)
        self.env = {name: value for name, _, value in pairs}
        self._reader = reader
        self._writer = writer
        self._stdin = bytearray()
        self._stdin_ended = asyncio.Event()

    async def out(self, line: str) -> None:
        """Write one line to standard output."""
        await self._send(b"1", line + "\n")

    async def err(self, line: str) -> None:
        """Write one line to standard error."""
        await self._send(b"2", line + "\n")

    async def read_stdin(self) -> str:
        """Return the whole of standard input."""
        await self._send(b"r", "")
        await self._stdin_ended.wait()
        return self._stdin.decode(errors="surrogateescape")

    async def end(self, status: int) -> None:
        """Tell the shim to end with this exit status."""
        await self._send(b"x", str(status))

    async def _send(self, kind: bytes, text: str) -> None:
        payload = text.encode(errors="surrogateescape")
        self._writer.write(kind + len(payload).to_bytes(4, "big") + payload)
        await self._writer.drain()

    async def until_gone(self) -> None:
        """Take in standard input; return when the shim has gone away."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, payload = await _frame(self._reader)
                self._stdin += payload
                if kind == b"e":
                    self._stdin_ended.set()


async def _frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big"))


async def serve_commands(host: LabHost, handlers: Mapping[str, Handler]) -> asyncio.Server:
    """Return a server that answers the shims of `host` with these handlers, by command name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _, payload = await _frame(reader)
            await _run(host, handlers, ShimCall(payload, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(answer, LAB_DIR / "commands")


async def _run(host: LabHost, handlers: Mapping[str, Handler], call: ShimCall) -> None:
    """Run one call to its end, or until its caller has gone away."""
    handler = handlers.get(call.argv[0])
    if handler is None:
        await call.err(f"{call.argv[0]}: command not found")
        await call.end(127)
        return
    work = asyncio.create_task(_status(host, handler, call))
    gone = asyncio.create_task(call.until_gone())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await call.end(work.result())
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _status(host: LabHost, handler: Handler, call: ShimCall) -> int:
    """Return the handler's exit status; its own defects are logged, and said to the caller."""
    try:
        return await handler(host, call)
    except ConnectionError:
        return 141
    except KitError as error:
        await call.err(f"{call.argv[0]}: {error}")
        return 1
    except Exception:
        _log.exception("%s: the emulated %s failed", host.name, call.argv[0])
        await call.err(f"{call.argv[0]}: a defect of the lab; its box.log has the details")
        return 70
