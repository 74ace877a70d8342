"""A registry whose controllers run, without HTTP, for the tests of the lab's controllers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from typing import Any

import apikit

from kitlib.lab.api import pki
from kitlib.lab.api.auth import Auth
from kitlib.lab.api.controllers import Manager
from kitlib.lab.api.registry import NODES, PODS, Registry
from kitlib.lab.api.settings import Settings
from kitlib.lab.api.store import Obj, Store

CA = pki.new_ca("kubernetes")
KEY = pki.new_key()
FACTOR = 0.005


class Cluster:
    """A registry whose controllers run, and what tests ask of it."""

    def __init__(self, minor: int) -> None:
        settings = Settings(
            minor=minor, version=f"1.{minor}.0", advertise="10.77.0.11", port=6443,
            service_cidr=ipaddress.IPv4Network("10.96.0.0/12"),
            pod_cidr=ipaddress.IPv4Network("10.244.0.0/16"), time_factor=FACTOR,
            ca_pem=CA.cert_pem, ca_key_pem=CA.key_pem, sa_key_pem=KEY,
            sa_public_pem=pki.public_pem(KEY),
        )  # fmt: skip
        self.store = Store()
        self.registry = Registry(self.store, settings)
        self.manager = Manager(self.registry, Auth(self.registry))
        self._changed = asyncio.Event()
        self.store.subscribe("*", lambda _event: self._changed.set())

    async def until(self, probe: Callable[[], Any], what: str) -> Any:
        """Return the first true result of `probe`, asked again after each change."""
        async with asyncio.timeout(20):
            while not (found := probe()):
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.1)
        assert found, what
        return found

    async def settle(self) -> None:
        """Wait until nothing has changed for a moment."""
        before = -1
        while before != self.store.rv:
            before = self.store.rv
            await asyncio.sleep(0.05)

    def add_node(self, name: str, ready: bool = True) -> Obj:
        node = apikit.node(name, ready=ready)
        return self.registry.make(NODES, node)

    def add(self, kind: str, name: str, **fields: Any) -> Obj:
        return self.registry.make(kind, {"metadata": {"name": name, "namespace": "default"},
                                         **fields})  # fmt: skip

    def get(self, kind: str, name: str, namespace: str = "default") -> Obj:
        found = self.store.get(kind, namespace, name)
        assert found, f"{kind} {name}"
        return found

    def pods(self) -> list[Obj]:
        return self.store.items(PODS, "default")

    def on(self) -> list[str]:
        return sorted(pod["spec"].get("nodeName", "") for pod in self.pods())

    def run(self, pod: Obj, ip: str = "10.244.0.5") -> None:
        """Make a pod running and ready, as its kubelet would say."""

        def change(obj: Obj) -> None:
            obj["status"].update({"phase": "Running", "podIP": ip})
            obj["status"]["conditions"] = [{"type": "Ready", "status": "True"}]

        self.registry.patch(PODS, "default", pod["metadata"]["name"], change)

    def kill(self, pod: Obj) -> None:
        """Delete a pod at once, as a kubelet confirms."""
        self.registry.remove(PODS, "default", pod["metadata"]["name"], {"gracePeriodSeconds": 0})

    def events(self, reason: str) -> list[str]:
        return [e["message"] for e in self.store.items("/events") if e["reason"] == reason]

    def set_ready(self, name: str, status: str) -> None:
        def change(obj: Obj) -> None:
            for entry in obj["status"]["conditions"]:
                if entry["type"] == "Ready":
                    entry["status"] = status

        self.registry.patch(NODES, "", name, change)

    def taints(self, name: str) -> set[tuple[str, str]]:
        found = self.get(NODES, name, "")["spec"].get("taints") or []
        return {(taint["key"].partition("/")[2], taint["effect"]) for taint in found}


@contextlib.asynccontextmanager
async def cluster(minor: int = 22) -> AsyncIterator[Cluster]:
    found = Cluster(minor)
    found.manager.start()
    ready = lambda: found.store.get("/serviceaccounts", "default", "default")  # noqa: E731
    try:
        await found.until(ready, "the controllers are at work")
        yield found
    finally:
        await found.manager.stop()


def template(labels: dict[str, str], **spec: Any) -> Obj:
    container = {"name": "c", "image": "x:1", "ports": [{"name": "http", "containerPort": 80}]}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container], **spec}}


def workload(replicas: int | None = None, **spec: Any) -> Obj:
    labels = {"app": "web"}
    found: Obj = {"selector": {"matchLabels": labels}, "template": template(labels, **spec)}
    if replicas is not None:
        found["replicas"] = replicas
    return found
