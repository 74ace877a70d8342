"""Logs and exec: the API passes them through to the kubelet of the pod's node, unchanged."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import aiohttp
from aiohttp import web

from kitlib.lab.api import errors
from kitlib.lab.api.handlers import truthy
from kitlib.lab.api.registry import NODES, Registry
from kitlib.lab.api.store import Obj

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_LOG_OPTIONS = (
    "follow", "tailLines", "timestamps", "previous", "limitBytes", "sinceSeconds", "sinceTime"
)  # fmt: skip


class KubeletProxy:
    """A client of the kubelets, with the API's own certificate."""

    def __init__(self, registry: Registry, pki_dir: Path) -> None:
        self._registry = registry
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A kubelet's serving certificate is self-signed on a kubeadm cluster: not verified.
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        name = "apiserver-kubelet-client"
        self._context.load_cert_chain(pki_dir / f"{name}.crt", pki_dir / f"{name}.key")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to the kubelets."""
        if self._session:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    def _target(self, pod: Obj, container: str) -> str:
        """Return `host:port/<ns>/<pod>/<container>` of a pod's container at its kubelet."""
        meta, spec = pod["metadata"], pod["spec"]
        node = self._registry.store.get(NODES, "", spec.get("nodeName", ""))
        addresses = ((node or {}).get("status") or {}).get("addresses") or []
        address = next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")
        if not address:
            raise errors.ApiError(
                500, "InternalError", f"Internal error occurred: no address of node of pod "
                f"{meta['name']}"
            )  # fmt: skip
        return f"{address}:{self._port(node)}|/{meta['namespace']}/{meta['name']}/{container}"

    def _port(self, node: Obj | None) -> int:
        endpoints = ((node or {}).get("status") or {}).get("daemonEndpoints") or {}
        port = (endpoints.get("kubeletEndpoint") or {}).get("Port")
        return int(port or self._registry.settings.kubelet_port)

    async def log(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Stream a container's log."""
        container = _container(pod, request.query.get("container", ""))
        if not pod["spec"].get("nodeName"):
            return web.Response(content_type="text/plain")
        host, path = self._target(pod, container).split("|")
        query = {name: request.query[name] for name in _LOG_OPTIONS if name in request.query}
        url = f"https://{host}/containerLogs{path}"
        try:
            answer = await self._client().get(url, params=query)
        except aiohttp.ClientError as cause:
            raise _unreachable("Get", url, cause) from cause
        async with answer:
            if answer.status != 200:
                text = (await answer.text()).strip()
                raise errors.ApiError(answer.status, "BadRequest", text)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response

    async def exec(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Join a client's WebSocket to the kubelet's."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise errors.bad_request("Upgrade request required")
        meta = pod["metadata"]
        container = _container(pod, request.query.get("container", ""))
        if not pod["spec"].get("nodeName"):
            raise errors.bad_request(f"pod {meta['name']} does not have a host assigned")
        host, path = self._target(pod, container).split("|")
        query: list[tuple[str, str]] = [
            (ours, "1" if truthy(request.query, theirs) else "0")
            for theirs, ours in (
                ("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"),
            )
        ]  # fmt: skip
        query += [("command", word) for word in request.query.getall("command", [])]
        asked = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        ]
        protocols = [name for name in PROTOCOLS if name in asked]
        if not protocols:
            raise errors.bad_request(f"unable to upgrade: none of {asked} is supported")
        url = f"https://{host}/exec{path}"
        try:
            kubelet = await self._client().ws_connect(
                url, params=query, protocols=protocols[:1], max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as cause:
            text = f"Internal error occurred: error executing command in container: {cause.message}"
            raise errors.ApiError(500, "InternalError", text) from cause
        except aiohttp.ClientError as cause:
            raise _unreachable("error dialing backend: ", url, cause) from cause
        client = web.WebSocketResponse(protocols=protocols[:1], max_msg_size=0)
        await client.prepare(request)
        await _join(client, kubelet)
        return client


async def _join(client: web.WebSocketResponse, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Pass frames both ways until the kubelet ends, or the client goes away."""

    async def upstream() -> None:
        async for message in client:
            if message.type is aiohttp.WSMsgType.BINARY:
                await kubelet.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await kubelet.send_str(message.data)
        await kubelet.close()

    task = asyncio.create_task(upstream())
    try:
        async for message in kubelet:
            if message.type is aiohttp.WSMsgType.BINARY:
                await client.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await client.send_str(message.data)
    except ConnectionError:
        pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kubelet.close()
        await client.close()


def _container(pod: Obj, name: str) -> str:
    """Return the container that is meant: the named one, or the only one.

    Raises:
        ApiError: 400 as the real API words it.
    """
    spec, pod_name = pod["spec"], pod["metadata"]["name"]
    names = [entry["name"] for entry in spec.get("containers") or []]
    starting = [entry["name"] for entry in spec.get("initContainers") or []]
    if not name:
        if len(names) == 1:
            return str(names[0])
        choices = f"choose one of: [{' '.join(names)}]"
        if starting:
            choices += f" or one of the init containers: [{' '.join(starting)}]"
        raise errors.bad_request(
            f"a container name must be specified for pod {pod_name}, {choices}"
        )
    if name not in (*names, *starting):
        raise errors.bad_request(f"container {name} is not valid for pod {pod_name}")
    return name


def _unreachable(verb: str, url: str, cause: Exception) -> errors.ApiError:
    if isinstance(cause, aiohttp.ClientConnectorError):
        reason = os.strerror(cause.os_error.errno or 0).lower()
        why = f"dial tcp {cause.host}:{cause.port}: connect: {reason}"
    else:
        why = str(cause)
    text = f'{verb} "{url}": {why}' if verb == "Get" else f"{verb}{why}"
    return errors.ApiError(500, "InternalError", text)
