"""A cluster for tests of the measuring agents: an API in memory, whose agents are real shells."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import websocket
from podkit import Pod

from kitlib.errors import ApiError
from kitlib.kube import Kube, Obj
from kitlib.params import Diagnose

NODES = ("cp-1", "w-1", "w-2")
Hook = Callable[[int, str, str], None]


class FakeKube(Kube):
    """The API's objects by path; a DaemonSet has its pods at once, a namespace goes with all in it.

    Attributes:
        objects: Path -> object.
        calls: (method, path) of every request, in order.
        before: Called with the request's number, method and path; may raise.
        after: The same, when the API has done it.
        pods_run: Whether pods run; else what `pod_status` says.
    """

    def __init__(self, exec_url: Callable[[tuple[str, ...]], str] | None = None) -> None:
        self.objects: dict[str, Obj] = {f"/api/v1/nodes/{node}": {"spec": {}} for node in NODES}
        self.calls: list[tuple[str, str]] = []
        self.before: Hook = lambda number, method, path: None
        self.after: Hook = lambda number, method, path: None
        self.pod_status: dict[str, Obj] = {}
        self._exec_url = exec_url
        self._late: list[str] = []

    @property
    def namespaces(self) -> list[str]:
        return [name for path in self.objects
                if (name := path.removeprefix("/api/v1/namespaces/")) != path
                and "/" not in name]  # fmt: skip

    def request(self, method: str, path: str, *, query: Any = None, body: Any = None) -> Obj:
        number = len(self.calls)
        self.calls.append((method, path))
        self.before(number, method, path)
        answer = self._do(method, path, body)
        self.after(number, method, path)
        return answer

    def text(self, path: str, **query: str) -> str:
        self.request("GET", path)
        return "ok"

    def open_exec(self, namespace: str, pod: str, argv: Any) -> websocket.WebSocket:
        assert self._exec_url is not None
        self.calls.append(("EXEC", f"{namespace}/{pod}"))
        return websocket.create_connection(self._exec_url(tuple(argv)))

    def _do(self, method: str, path: str, body: Any) -> Obj:
        if method == "GET" and path == "/readyz":
            return {}
        if method == "GET" and path in self.objects:
            return copy.deepcopy(self.objects[path])
        if method == "GET" and path.endswith(("s",)) and "serviceaccounts/" not in path:
            inside = re.compile(re.escape(path) + "/[^/]+")
            found = [obj for at, obj in self.objects.items() if inside.fullmatch(at)]
            return {"items": copy.deepcopy(found)}
        if method == "DELETE" and path in self.objects:
            for at in [at for at in self.objects if f"{at}/".startswith(f"{path}/")]:
                del self.objects[at]
            apps = path.replace("/api/v1", "/apis/apps/v1")
            for at in [at for at in self.objects if at.startswith(f"{apps}/")]:
                del self.objects[at]
            return {}
        if method == "PUT":
            self.objects[path] = body
            return body
        if method == "POST":
            return self._create(path, copy.deepcopy(body))
        raise ApiError(f"{method} {path}: not found", status=404, reason="NotFound")

    def _create(self, path: str, body: Obj) -> Obj:
        name = body["metadata"]["name"]
        self.objects[f"{path}/{name}"] = body
        if body["kind"] == "Namespace":
            self.objects[f"{path}/{name}/serviceaccounts/default"] = {}
        if body["kind"] == "Service":
            body["spec"]["clusterIP"] = "10.96.0.77"
        if body["kind"] == "DaemonSet":
            namespace = path.split("/")[5]
            spec = body["spec"]["template"]["spec"]
            affinity = spec["affinity"]["nodeAffinity"]
            terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
            for number, term in enumerate(terms):
                node = term["matchFields"][0]["values"][0]
                self._place(namespace, f"{name}-{number}", node, spec)
        return body

    def _place(self, namespace: str, name: str, node: str, spec: Obj) -> None:
        if f"/api/v1/nodes/{node}" not in self.objects:
            return
        address = f"10.244.0.{len(self.objects)}"
        status = self.pod_status.get(node, {"phase": "Running", "podIP": address})
        self.objects[f"/api/v1/namespaces/{namespace}/pods/{name}"] = {
            "metadata": {"name": name},
            "spec": {**spec, "nodeName": node},
            "status": status,
        }


class FakeContext:
    """What agents use of a stage's context."""

    def __init__(self, kube: FakeKube, home: Path, **diagnose: Any) -> None:
        self.api = kube
        self.keep = False
        self.read_only = False
        self.params = SimpleNamespace(
            diagnose=Diagnose(**diagnose), timeouts=SimpleNamespace(verify=5.0)
        )
        self.hosts = tuple(SimpleNamespace(name=node) for node in NODES)
        self.said: list[tuple[str, str]] = []
        self.done: list[str] = []
        self.journal = SimpleNamespace(path=home / "run-1", event=self._event)
        self.doors = SimpleNamespace(kube=self.kube)

    def _event(self, kind: str, **data: Any) -> None:
        self.said.append((kind, str(data.get("text") or data.get("message") or "")))

    def kube(self, *, wait: float = 60) -> FakeKube:
        self.api.text("/readyz")
        return self.api

    def waiting(self, host: str, text: str) -> None:
        self.said.append(("waiting", f"{host}: {text}"))

    def perform(self, action: Any) -> None:
        self.done.append(action.what)
        action.do(SimpleNamespace(kube=self.kube, doors=self.doors, journal=self.journal))


@contextlib.contextmanager
def cluster(home: Path, **diagnose: Any) -> Iterator[tuple[Any, FakeKube, Pod]]:
    """Yield a context, its API, and the server of the shells in every agent."""
    with Pod() as pod:
        kube = FakeKube(pod.url)
        yield FakeContext(kube, home, **diagnose), kube, pod
