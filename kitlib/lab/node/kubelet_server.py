"""The kubelet's own port: logs, exec, pods and health, for callers with a cluster certificate."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import json
import os
import signal
import ssl
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import WSMsgType, web

from kitlib.lab.api import pki
from kitlib.lab.hostapi import LabHost
from kitlib.lab.node.runtime import Container, NoSuchCommand, Runtime, Sandbox, end_process

__all__ = ["KubeletServer", "exit_status"]

PORT = 10250
HEALTH_PORT = 10248
_CERT = Path("/var/lib/kubelet/pki/kubelet.crt")
_KEY = Path("/var/lib/kubelet/pki/kubelet.key")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255


class KubeletServer:
    """Serves 10250 (TLS) and the health port on localhost.

    Args:
        host: The host.
        runtime: Whose containers are served.
        client_ca: The CA whose clients are let in.
    """

    def __init__(self, host: LabHost, runtime: Runtime, client_ca: Path) -> None:
        self._host = host
        self._runtime = runtime
        self._client_ca = client_ca
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Start listening.

        Raises:
            OSError: A port is taken, or the CA's file is missing.
        """
        app = web.Application(middlewares=[_authenticate])
        pod = "/{namespace}/{pod}/{container}"
        app.router.add_get("/containerLogs" + pod, self._logs)
        app.router.add_get("/exec" + pod, self._exec)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/healthz", _healthy)
        await self._listen(app, "0.0.0.0", PORT, self._tls())
        health = web.Application()
        health.router.add_get("/healthz", _healthy)
        await self._listen(health, "127.0.0.1", HEALTH_PORT, None)

    async def close(self) -> None:
        """Stop listening; open logs and sessions end."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _listen(
        self, app: web.Application, address: str, port: int, tls: ssl.SSLContext | None
    ) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, address, port, ssl_context=tls, reuse_address=True)
        await site.start()

    def _tls(self) -> ssl.SSLContext:
        if not _CERT.exists():
            name = self._host.name
            ca = pki.new_ca(f"{name}-ca@{int(dt.datetime.now(dt.UTC).timestamp())}")
            pair = pki.issue(ca, name, sans_dns=[name], sans_ip=[self._host.address], server=True)
            _CERT.parent.mkdir(parents=True, exist_ok=True)
            _CERT.write_text(pair.cert_pem + ca.cert_pem)
            _KEY.write_text(pair.key_pem)
            _KEY.chmod(0o600)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_CERT, _KEY)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self._client_ca)
        return context

    def _find(self, request: web.Request) -> tuple[Sandbox, Container]:
        info = request.match_info
        for sandbox in self._runtime.sandboxes.values():
            meta = sandbox.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (info["namespace"], info["pod"]):
                container = sandbox.containers.get(info["container"])
                if container is not None:
                    return sandbox, container
                text = f'container "{info["container"]}" in pod "{info["pod"]}" is not available'
                raise web.HTTPBadRequest(text=text)
        raise web.HTTPNotFound(text=f'pod "{info["pod"]}" not found')

    async def _pods(self, request: web.Request) -> web.Response:
        del request
        items = [sandbox.pod for sandbox in self._runtime.sandboxes.values()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": items})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        sandbox, container = self._find(request)
        query = request.query
        if query.get("previous") in ("true", "1"):
            previous = sandbox.previous.get(container.name)
            if previous is None:
                text = (
                    f'previous terminated container "{container.name}" in pod '
                    f'"{request.match_info["pod"]}" not found'
                )
                raise web.HTTPBadRequest(text=text)
            container = previous
        log = container.log
        lines = log.since(0)
        if query.get("tailLines"):
            count = int(query["tailLines"])
            lines = lines[-count:] if count else []
        stamps = query.get("timestamps") in ("true", "1")
        left = int(query.get("limitBytes") or 1 << 62)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        position = log.written
        while True:
            data = b"".join(_line(when, text, stamps) for when, text in lines)[:left]
            left -= len(data)
            if data:
                await response.write(data)
            if query.get("follow") not in ("true", "1") or left <= 0:
                break
            if log.closed and log.written <= position:
                break
            await log.wait(position)
            lines = log.since(position)
            position = log.written
        await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        sandbox, container = self._find(request)
        argv = request.query.getall("command", [])
        if not argv:
            raise web.HTTPBadRequest(text="you must specify at least 1 command for the container")
        protocols = ("v5.channel.k8s.io", "v4.channel.k8s.io")
        socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0)
        await socket.prepare(request)
        try:
            status = await self._session(request, socket, sandbox, container, argv)
        except (ConnectionError, OSError):
            return socket  # the caller is gone
        with contextlib.suppress(ConnectionError, OSError):
            await socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
            await socket.close()
        return socket

    async def _session(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        sandbox: Sandbox,
        container: Container,
        argv: list[str],
    ) -> dict[str, object]:
        def on(name: str) -> bool:
            return request.query.get(name) in ("1", "true")

        if not container.running:
            text = f"container not running ({container.id})"
            return _failure(f"error executing command in container: {text}")
        master, slave = os.openpty() if on("tty") else (-1, -1)
        pipe = asyncio.subprocess.PIPE
        try:
            process = await self._runtime.process(
                sandbox,
                container,
                argv,
                env={"TERM": "xterm"} if on("tty") else {},
                stdin=(slave if on("tty") else pipe) if on("input") or on("tty") else None,
                stdout=slave if on("tty") else pipe,
                stderr=slave if on("tty") else pipe,
                prefix=("setsid", "--ctty", "--wait") if on("tty") else (),
            )
        except NoSuchCommand as missing:
            return _failure(
                "error executing command in container: failed to exec in container: failed to "
                f'start exec "{container.id}": OCI runtime exec failed: exec failed: {missing}'
            )
        finally:
            if slave >= 0:
                os.close(slave)
        terminal = await _Terminal.open(master) if on("tty") else None
        streams = [(_STDOUT, terminal.reader if terminal else process.stdout)]
        if not terminal:
            streams.append((_STDERR, process.stderr))
        outputs = asyncio.gather(*(_output(socket, *each) for each in streams))
        caller = asyncio.create_task(_input(request, socket, process, terminal))
        ended = asyncio.create_task(process.wait())
        stopped = asyncio.create_task(container.done.wait())
        try:
            await asyncio.wait({ended, caller, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():  # what it wrote still goes out; others may hold its pipes open
                await asyncio.wait({outputs}, timeout=2.0)
                return exit_status(process.returncode or 0)
            return exit_status(128 + signal.SIGKILL)  # the caller is gone, or the container
        finally:
            await end_process(process)
            for task in (caller, ended, stopped, outputs):
                task.cancel()
            await asyncio.gather(caller, ended, stopped, outputs, return_exceptions=True)
            if terminal:
                terminal.close()


class _Terminal:
    """The kubelet's end of a pseudo terminal, as an asyncio stream."""

    def __init__(self, fd: int, reader: asyncio.StreamReader) -> None:
        self.fd = fd
        self.reader = reader

    @classmethod
    async def open(cls, fd: int) -> _Terminal:
        os.set_blocking(fd, False)
        reader = asyncio.StreamReader()
        terminal = cls(fd, reader)
        asyncio.get_running_loop().add_reader(fd, terminal._readable)
        return terminal

    def _readable(self) -> None:
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return
        except OSError:  # the last process closed its side
            data = b""
        if data:
            self.reader.feed_data(data)
        else:
            asyncio.get_running_loop().remove_reader(self.fd)
            self.reader.feed_eof()

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close(self) -> None:
        """Let the terminal go."""
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)


async def _output(
    socket: web.WebSocketResponse, channel: int, stream: asyncio.StreamReader | None
) -> None:
    while stream is not None and (data := await stream.read(32_768)):
        await socket.send_bytes(bytes([channel]) + data)


async def _input(
    request: web.Request,
    socket: web.WebSocketResponse,
    process: asyncio.subprocess.Process,
    terminal: _Terminal | None,
) -> None:
    """Carry stdin and window sizes to the process until the caller goes away."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STDIN and terminal is not None:
            os.write(terminal.fd, data)
        elif channel == _STDIN and process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(data)
                if not await _taken(process.stdin, request):
                    return
        elif channel == _CLOSE and data == bytes([_STDIN]) and process.stdin is not None:
            process.stdin.close()
        elif channel == _RESIZE and terminal is not None:
            size = json.loads(data)
            terminal.resize(int(size["Width"]), int(size["Height"]))


async def _taken(stdin: asyncio.StreamWriter, request: web.Request) -> bool:
    """Wait until a process has read its input; return False when the caller went away first."""
    draining = asyncio.ensure_future(stdin.drain())
    try:
        while not (await asyncio.wait({draining}, timeout=0.2))[0]:
            if request.transport is None or request.transport.is_closing():
                return False
        draining.result()
        return True
    finally:
        draining.cancel()


def exit_status(code: int) -> dict[str, object]:
    """Return the Status that ends an exec session: success, or the command's exit code."""
    base: dict[str, object] = {"metadata": {}}
    if code == 0:
        return {**base, "status": "Success"}
    code = 128 - code if code < 0 else code
    return {
        **base,
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failure(message: str) -> dict[str, object]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def _line(when: float, text: str, stamps: bool) -> bytes:
    if not stamps:
        return f"{text}\n".encode()
    stamp = dt.datetime.fromtimestamp(when, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return f"{stamp} {text}\n".encode()


async def _healthy(request: web.Request) -> web.Response:
    del request
    return web.Response(text="ok")


@web.middleware
async def _authenticate(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse callers without a certificate of the cluster (TLS has checked the one given)."""
    transport = request.transport
    if transport is None or not transport.get_extra_info("peercert"):
        return web.Response(status=401, text="Unauthorized")
    return await handler(request)
