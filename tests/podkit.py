"""A container runtime's side of an exec with standard input, for tests, with real processes.

As with a real runtime, the end of the connection closes the shell's standard input and no more:
what it runs at that moment runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from aiohttp import WSMsgType, web

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")


async def serve_exec(
    request: web.Request,
    *,
    cut_after: int | None = None,
    started: Callable[[asyncio.subprocess.Process], None] = lambda _: None,
) -> web.WebSocketResponse:
    """Run the asked command with the channels of the exec protocol.

    Args:
        request: The request, with `command` as often as it has words.
        cut_after: Pieces of standard input after which the connection is cut, without a word.
        started: Told the process.
    """
    socket = web.WebSocketResponse(protocols=PROTOCOLS)
    await socket.prepare(request)
    process = await asyncio.create_subprocess_exec(
        *request.query.getall("command"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )

    started(process)

    async def carry(channel: int, stream: Any) -> None:
        while data := await stream.read(4096):
            await socket.send_bytes(bytes([channel]) + data)

    async def feed() -> None:
        taken = 0
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                taken += 1
                process.stdin.write(message.data[1:])
                if cut_after is not None and taken > cut_after:
                    await asyncio.sleep(0.2)  # the command has begun
                    request.transport.abort()
                    break
        process.stdin.close()

    fed = asyncio.create_task(feed())
    try:
        await asyncio.gather(carry(1, process.stdout), carry(2, process.stderr))
        code = await process.wait()
        status: dict[str, Any] = {"metadata": {}, "status": "Success"}
        if code:
            status |= {
                "status": "Failure",
                "message": f"command terminated with exit code {code}",
                "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
            }
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket.close()
    except (ConnectionError, RuntimeError):
        pass  # the caller is gone
    finally:
        fed.cancel()
    return socket


class Pod:
    """A server of one pod's execs on loopback.

    Attributes:
        opened: The commands that were asked for.
        cuts: For the next execs, after how many pieces of standard input each is cut.
        refusal: What the next execs end with at once, in the API's words.
    """

    def __init__(self) -> None:
        self.opened: list[list[str]] = []
        self.cuts: list[int | None] = []
        self.refusal = ""
        self.requests: list[web.Request] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Pod:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _settle(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await self._runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def cut(self) -> None:
        """Cut every connection that is open now."""

        async def cut() -> None:
            for request in self.requests:
                if request.transport:
                    request.transport.abort()

        self._do(cut())

    def url(self, argv: tuple[str, ...]) -> str:
        """Return where an exec of a command is asked for."""
        words = "&".join(f"command={quote(word)}" for word in argv)
        return f"ws://127.0.0.1:{self.port}/exec?{words}"

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/exec", self._exec)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        self.opened.append(request.query.getall("command"))
        self.requests.append(request)
        if self.refusal:
            socket = web.WebSocketResponse(protocols=PROTOCOLS)
            await socket.prepare(request)
            told = {"status": "Failure", "message": self.refusal}
            await socket.send_bytes(b"\x03" + json.dumps(told).encode())
            await socket.close()
            return socket
        cut_after = self.cuts.pop(0) if self.cuts else None
        started = self._processes.append
        return await serve_exec(request, cut_after=cut_after, started=started)
