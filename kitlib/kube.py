"""The door to the Kubernetes API: objects as plain dictionaries. The sole importer of kubernetes.

The official client brings the TLS, the kubeconfig and the exec stream; requests go through its
connection pool and answers stay JSON, so that any version's objects pass through unchanged.
It is imported when the first cluster is met: that takes a third of a second, for a class of every
object that there is, and the first stages meet none.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from websocket import WebSocket, WebSocketBadStatusException, WebSocketException

from kitlib.command import Cmd, Secret
from kitlib.errors import ApiError, CommandError, ParseError
from kitlib.masking import mask_text, remember
from kitlib.model import CommandResult

__all__ = ["Kube", "Obj", "WatchExpired"]

Obj = dict[str, Any]
"""One API object as JSON gives it."""


class WatchExpired(ApiError):
    """The watch's resourceVersion is too old (HTTP 410): list again and go on from there."""


class Kube:
    """One cluster's API.

    Args:
        kubeconfig: A parsed kubeconfig; its keys stay in memory.
        port: A port on this machine's loopback that leads to the API; 0 uses the address in the
            kubeconfig. The certificate is checked against the kubeconfig's address either way.
        connect_timeout: Seconds until a connection, with its certificate, must stand.

    Raises:
        ParseError: The kubeconfig is not usable.
    """

    def __init__(
        self, kubeconfig: Mapping[str, Any], *, port: int = 0, connect_timeout: float = 5
    ) -> None:
        from kubernetes import client, config

        self._timeout = urllib3.Timeout(connect=connect_timeout, read=30)
        self._files: list[int] = []
        try:
            usable = self._keys_in_memory(kubeconfig)
            settings = client.Configuration()
            with _memory() as folder, _said_by_the_client() as said:
                config.load_kube_config_from_dict(
                    usable, client_configuration=settings, temp_file_path=folder
                )
                self._take_files(settings, folder)
            server = urlsplit(settings.host)
        except (config.ConfigException, KeyError, TypeError, ValueError, OSError) as error:
            self.close()
            raise ParseError(f"kubeconfig: not usable: {error}") from error
        if said:  # the client goes on as nobody where a credential plugin fails
            self.close()
            raise ParseError(f"kubeconfig: no credentials: {mask_text(said[0])}")
        remember(*filter(None, [settings.api_key.get("BearerToken", "").partition(" ")[2]]))
        self.server = settings.host
        if port:
            settings.tls_server_name = server.hostname
            settings.host = f"https://127.0.0.1:{port}"
        settings.proxy = None if port else settings.proxy
        settings.retries = urllib3.Retry(0)
        settings.connection_pool_maxsize = 32
        self._settings = settings
        self._api = client.ApiClient(settings)

    def __enter__(self) -> Kube:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the keys and the connections."""
        api = getattr(self, "_api", None)
        if api is not None:
            api.rest_client.pool_manager.clear()
        for number in self._files:
            os.close(number)
        self._files.clear()

    def get(self, path: str, **query: str) -> Obj:
        """Return what `GET path?query` answers.

        Raises:
            ApiError: Any answer that is not a success, or none.
        """
        return self.request("GET", path, query=query)

    def items(self, path: str, **query: str) -> list[Obj]:
        """Return the items of a list."""
        found: list[Obj] = self.get(path, **query).get("items") or []
        return found

    def find(self, path: str) -> Obj | None:
        """Return an object, or None where it does not exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Obj) -> Obj:
        """Create an object and return it as stored."""
        return self.request("POST", path, body=body)

    def delete(self, path: str, *, grace: int | None = None, policy: str = "") -> None:
        """Delete an object; one that does not exist is as good as deleted.

        Args:
            path: The object.
            grace: Seconds that a pod gets to end; None leaves that to the pod.
            policy: What becomes of what it owns: Background, Foreground or Orphan; empty leaves
                that to the API, whose old versions orphan pods.
        """
        query = {} if grace is None else {"gracePeriodSeconds": str(grace)}
        query |= {"propagationPolicy": policy} if policy else {}
        try:
            self.request("DELETE", path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise

    def text(self, path: str, **query: str) -> str:
        """Return a plain-text answer (pod logs, `/healthz`)."""
        with self._open("GET", path, query) as response:
            return self._body(f"GET {path}", response).decode(errors="replace")

    def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Obj:
        """Return the JSON answer to one request.

        Raises:
            ApiError: Any answer that is not a success, or none.
        """
        with self._open(method, path, query or {}, body) as response:
            try:
                answer: Obj = json.loads(self._body(f"{method} {path}", response))
            except ValueError as error:
                raise ApiError(f"{method} {path}: the answer is not JSON: {error}") from error
            return answer

    def watch(self, path: str, resource_version: str, *, seconds: int = 300) -> Iterator[Obj]:
        """Yield watch events (`{"type": ..., "object": ...}`) until the server ends the watch.

        Raises:
            WatchExpired: The resourceVersion is too old.
            ApiError: The watch could not start or broke.
        """
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = urllib3.Timeout(connect=5, read=seconds + 15)
        with self._open("GET", path, query, timeout=timeout) as response:
            buffer = b""
            try:
                for part in response.stream(65536):
                    *lines, buffer = (buffer + part).split(b"\n")
                    for line in filter(None, lines):
                        yield self._watch_event(path, line)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise ApiError(f"watch {path}: broke off: {error}") from error

    def exec(
        self, namespace: str, pod: str, cmd: Cmd, *, container: str = "", timeout: float = 60
    ) -> CommandResult:
        """Return what a command in a pod did.

        Raises:
            ApiError: The exec could not start (no such pod, the kubelet is out of reach).
            CommandError: The command did not end within `timeout` seconds.
        """
        started = time.monotonic()
        channel = self._exec(namespace, pod, cmd.argv, container=container, stdin=False)
        try:
            channel.run_forever(timeout=timeout)
            if channel.is_open():
                raise CommandError(f"{namespace}/{pod}", str(cmd), None, f"no end in {timeout:g} s")
            stdout, stderr = channel.read_stdout(timeout=0), channel.read_stderr(timeout=0)
            exit_status = channel.returncode
        except (WebSocketException, OSError, LookupError, TypeError, ValueError) as error:
            # Without the status that ends an exec, the client fails while it looks for one.
            raise ApiError(f"exec in {namespace}/{pod}: broke off: {error}") from error
        finally:
            channel.close(timeout=1)
            channel.sock.shutdown()  # close() leaves it open where the server closed first
        return CommandResult(
            host=f"{namespace}/{pod}",
            command=str(cmd),
            stdout=stdout or "",
            stderr=stderr or "",
            exit_status=-1 if exit_status is None else int(exit_status),
            seconds=time.monotonic() - started,
        )

    def open_exec(self, namespace: str, pod: str, argv: Sequence[str]) -> WebSocket:
        """Return an open exec with standard input, for a `PodShell` to speak through.

        Raises:
            ApiError: It could not start (no such pod, the kubelet is out of reach).
        """
        socket: WebSocket = self._exec(namespace, pod, argv, stdin=True, binary=True).sock
        return socket

    def _exec(
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str | Secret],
        *,
        container: str = "",
        **how: bool,
    ) -> Any:
        from kubernetes import client
        from kubernetes.stream import stream

        # stream() patches the client that it is given: every exec has one of its own.
        core = client.CoreV1Api(client.ApiClient(self._settings))
        options: dict[str, Any] = {"container": container} if container else {}
        try:
            return stream(
                core.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                command=[*argv],
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
                **options,
                **how,
            )
        except client.ApiException as error:
            raise self._exec_refusal(f"exec in {namespace}/{pod}", error) from error

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any = None,
        timeout: urllib3.Timeout | None = None,
    ) -> urllib3.BaseHTTPResponse:
        url = self._settings.host + quote(path) + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json"}
        bearer = self._settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        if bearer:
            headers["authorization"] = bearer
        if body is not None:
            headers["Content-Type"] = "application/json"
        what = f"{method} {path}"
        try:
            response: urllib3.BaseHTTPResponse = self._api.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=timeout or self._timeout,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(
                f"{what}: no answer from {self.server}: {_root_cause(error)}",
                remedy="is the control plane up? see the node_readiness notebook",
            ) from error
        if response.status < 400:
            return response
        raise self._refusal(what, response)

    @staticmethod
    def _body(what: str, response: urllib3.BaseHTTPResponse) -> bytes:
        """Return the whole answer; one that breaks off is no answer."""
        try:
            return response.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"{what}: the answer broke off: {_root_cause(error)}") from error

    @classmethod
    def _refusal(cls, what: str, response: urllib3.BaseHTTPResponse) -> ApiError:
        text = cls._body(what, response).decode(errors="replace")
        return cls._status_error(what, response.status, text)

    @classmethod
    def _exec_refusal(cls, what: str, error: Any) -> ApiError:
        """Return the API's own words: the client's ApiException hides them in its context."""
        cause = error.__context__
        if not isinstance(cause, WebSocketBadStatusException):
            return ApiError(f"{what}: {error.reason}", status=int(error.status or 0))
        body = cause.resp_body or b""
        return cls._status_error(what, cause.status_code, body.decode(errors="replace"))

    @staticmethod
    def _status_error(what: str, status: int, text: str) -> ApiError:
        try:
            answer = json.loads(text)
            message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
            causes = (answer.get("details") or {}).get("causes") or []
            told = [str(each.get("message", "")) for each in causes]
            message = " ".join([message, *(text for text in told if text not in message)])
        except (ValueError, AttributeError):
            message, reason = text[:200], ""
        kind = WatchExpired if status == 410 else ApiError
        return kind(f"{what}: {message or status}", status=status, reason=reason)

    @staticmethod
    def _watch_event(path: str, line: bytes) -> Obj:
        try:
            event: Obj = json.loads(line)
        except ValueError as error:
            raise ApiError(f"watch {path}: torn answer: {error}") from error
        if event.get("type") == "ERROR":
            status = event.get("object") or {}
            kind = WatchExpired if status.get("code") == 410 else ApiError
            raise kind(f"watch {path}: {status.get('message')}", status=int(status.get("code", 0)))
        return event

    def _keys_in_memory(self, kubeconfig: Mapping[str, Any]) -> Obj:
        """Return the kubeconfig with inline keys and certificates behind anonymous files.

        The client wants file names; files on a disk would outlive a killed kit.
        """
        usable: Obj = json.loads(json.dumps(kubeconfig))
        places: list[tuple[Obj, tuple[str, ...]]] = [
            (cluster["cluster"], ("certificate-authority",)) for cluster in usable["clusters"]
        ]
        places += [(u["user"], ("client-certificate", "client-key")) for u in usable["users"]]
        for place, names in places:
            for name in names:
                data = place.pop(f"{name}-data", None)
                if data:
                    place[name] = self._in_memory(name, base64.b64decode(data))
        return usable

    def _take_files(self, settings: Any, folder: str) -> None:
        """Take into memory the keys that a credential plugin gave, which the client wrote down."""
        for name in ("ssl_ca_cert", "cert_file", "key_file"):
            file = Path(getattr(settings, name) or "/")
            if file.parent == Path(folder):
                setattr(settings, name, self._in_memory(name, file.read_bytes()))

    def _in_memory(self, name: str, data: bytes) -> str:
        number = os.memfd_create(name, os.MFD_CLOEXEC)
        self._files.append(number)
        os.write(number, data)
        return f"/proc/{os.getpid()}/fd/{number}"


@contextlib.contextmanager
def _memory() -> Iterator[str]:
    """Yield a directory for files that live for a moment, in memory where there is such a one."""
    shared = "/dev/shm"  # noqa: S108 - a directory of our own is made in it
    usable = os.access(shared, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="kit-", dir=shared if usable else None) as folder:
        yield folder


@contextlib.contextmanager
def _said_by_the_client() -> Iterator[list[str]]:
    """Yield what the client's loader logs as errors: it raises none for a failed plugin."""
    said: list[str] = []
    me = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.module == "kube_config" and record.thread == me:
                said.append(record.getMessage())

    listener = Listener(logging.ERROR)
    logging.getLogger().addHandler(listener)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(listener)


def _root_cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return _root_cause(reason) if isinstance(reason, BaseException) else str(error)
