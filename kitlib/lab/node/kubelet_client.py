"""A small Kubernetes API client for what runs on an emulated node.

The kubelet, kube-proxy, CoreDNS and the network plugins' agents all talk to the API through this
module: JSON over HTTPS with the credentials of a kubeconfig, typed refusals, and an informer that
keeps a list of objects current through watches.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml

__all__ = ["ApiClient", "ApiRefused", "ApiUnreachable", "Informer", "Obj", "key_of"]

Obj = dict[str, Any]
"""A Kubernetes object as JSON gives it."""

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class ApiUnreachable(Exception):
    """The API server could not be reached; the text is worded as client-go words it."""


class ApiRefused(Exception):
    """The API server answered with an error status.

    Args:
        status: The HTTP status.
        reason: The API's reason word.
        message: The API's message.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class ApiClient:
    """Requests to one API server with one identity.

    Args:
        server: Base address, `https://10.77.0.11:6443`.
        context: TLS with the cluster's CA and, where there is one, the client certificate.
        token: Bearer token; empty for certificate credentials.
        ca: The cluster's CA (PEM), for clients of the same server with another identity.
        program: The program's name: it owns in managedFields what it writes.
    """

    def __init__(
        self,
        server: str,
        context: ssl.SSLContext | None,
        token: str = "",
        ca: str = "",
        program: str = "kubeadm",
    ) -> None:
        self.server = server.rstrip("/")
        self._context = context
        self._ca = ca
        self._headers = {"User-Agent": f"{program}/lab (emulated)"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path) -> ApiClient:
        """Return a client with the credentials of a kubeconfig's current context.

        Raises:
            OSError: The file, or one that it names, is missing.
            ValueError: The file lacks something that a client needs.
        """
        try:
            config = yaml.safe_load(path.read_text())
            named = {item["name"]: item["context"] for item in config["contexts"]}
            context = named[config["current-context"]]
            cluster = _named(config["clusters"], context["cluster"], "cluster")
            user = _named(config["users"], context["user"], "user")
            server = str(cluster["server"])
        except (KeyError, TypeError, yaml.YAMLError) as wrong:
            raise ValueError(f"{path}: not a kubeconfig: {wrong}") from wrong
        ca = _inline(cluster, "certificate-authority")
        tls = ssl.create_default_context(cadata=ca.decode() if ca else None)
        cert, key = _inline(user, "client-certificate"), _inline(user, "client-key")
        if cert and key:
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(cert + b"\n" + key)
                pem.flush()
                tls.load_cert_chain(pem.name)
        program = "kubelet" if "kubelet" in path.name else "kubeadm"
        return cls(server, tls, str(user.get("token", "")), ca.decode(), program)

    def with_token(self, token: str) -> ApiClient:
        """Return a client of the same server that shows a bearer token and no certificate."""
        tls = ssl.create_default_context(cadata=self._ca) if self._ca else self._context
        return ApiClient(self.server, tls, token, self._ca, "Go-http-client")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **params: str) -> Obj:
        """Return one object or a list."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Obj) -> Obj:
        """Create an object and return it as the API stored it."""
        return await self._request("POST", path, body)

    async def update(self, path: str, body: Obj) -> Obj:
        """Replace an object and return it as the API stored it."""
        return await self._request("PUT", path, body)

    async def patch(
        self, path: str, body: Obj, kind: Literal["merge", "strategic"] = "merge"
    ) -> Obj:
        """Patch an object and return it as the API stored it."""
        return await self._request("PATCH", path, body, content_type=_PATCH_TYPES[kind])

    async def delete(self, path: str, grace: int | None = None, uid: str = "") -> None:
        """Delete an object; `uid` makes sure that it is still the same one."""
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._request("DELETE", path, options)

    async def watch(self, path: str, **params: str) -> AsyncIterator[Obj]:
        """Yield watch events until the server ends the watch."""
        query = {"watch": "true", **params}
        try:
            async with self._open().get(
                self.server + path,
                params=query,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            ) as answer:
                await _raise_for(answer)
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as failed:
            raise ApiUnreachable(_worded("GET", self.server + path, failed)) from failed

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._context if self._context is not None else True, limit=0
            )
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def _request(
        self,
        method: str,
        path: str,
        body: Obj | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Obj:
        url = self.server + path
        try:
            async with self._open().request(
                method,
                url,
                params=params,
                data=None if body is None else json.dumps(body),
                headers={**self._headers, "Content-Type": content_type},
                timeout=aiohttp.ClientTimeout(total=10),
            ) as answer:
                await _raise_for(answer)
                found: Obj = await answer.json(content_type=None)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failed:
            raise ApiUnreachable(_worded(method, url, failed)) from failed


class Informer:
    """The current objects of one kind, kept by a list and watches.

    Args:
        client: Where to ask.
        path: Collection path, `/api/v1/nodes`.
        on_change: Called after the first list and after every change, with no arguments.
        params: Selectors.
    """

    def __init__(
        self,
        client: ApiClient,
        path: str,
        on_change: Callable[[], None] = lambda: None,
        **params: str,
    ) -> None:
        self.objects: dict[str, Obj] = {}
        self.synced = asyncio.Event()
        self.error: Exception | None = None
        self._client = client
        self._path = path
        self._on_change = on_change
        self._params = params

    async def run(self, retry: float = 0.2) -> None:
        """Keep `objects` current until cancelled; failures are retried every `retry` seconds."""
        while True:
            try:
                await self._list_and_watch()
                self.error = None
            except (ApiRefused, ApiUnreachable) as failed:
                self.error = failed
            await asyncio.sleep(retry)

    async def _list_and_watch(self) -> None:
        found = await self._client.get(self._path, **self._params)
        self.objects = {key_of(item): item for item in found.get("items") or []}
        self.error = None
        self.synced.set()
        self._on_change()
        version = str(found["metadata"].get("resourceVersion", ""))
        while True:
            async for event in self._client.watch(
                self._path, resourceVersion=version, allowWatchBookmarks="true", **self._params
            ):
                item = event["object"]
                if event["type"] == "ERROR":
                    return
                version = str(item["metadata"].get("resourceVersion", version))
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    self.objects.pop(key_of(item), None)
                else:
                    self.objects[key_of(item)] = item
                self._on_change()


def key_of(item: Obj) -> str:
    """Return `namespace/name`, or the name alone for a cluster-wide object."""
    meta = item["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _named(items: list[Obj], name: str, kind: str) -> Obj:
    for item in items:
        if item["name"] == name:
            return dict(item[kind])
    raise KeyError(name)


def _inline(holder: Obj, field: str) -> bytes:
    if data := holder.get(f"{field}-data"):
        return base64.b64decode(data)
    if path := holder.get(field):
        return Path(path).read_bytes()
    return b""


async def _raise_for(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    text = await answer.text()
    try:
        status = json.loads(text)
        raise ApiRefused(answer.status, status.get("reason", ""), status.get("message", text))
    except (ValueError, AttributeError):
        raise ApiRefused(answer.status, answer.reason or "", text.strip()) from None


def _worded(method: str, url: str, failed: Exception) -> str:
    """Return a transport failure as client-go prints it."""
    verb = {"POST": "Post", "PUT": "Put"}.get(method, method.capitalize())
    address = url.split("//", 1)[1].split("/", 1)[0]
    if isinstance(failed, aiohttp.ClientConnectorCertificateError | ssl.SSLError) or isinstance(
        getattr(failed, "certificate_error", None), ssl.SSLError
    ):
        tail = "x509: certificate signed by unknown authority"
    elif isinstance(failed, aiohttp.ClientConnectorError):
        tail = f"dial tcp {address}: connect: {os.strerror(failed.os_error.errno or 0).lower()}"
    elif isinstance(failed, TimeoutError):
        tail = f"dial tcp {address}: i/o timeout"
    else:
        tail = str(failed) or "EOF"
    return f'{verb} "{url}": {tail}'
