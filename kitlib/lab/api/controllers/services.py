"""Endpoints and EndpointSlices of Services with a selector, and the `kubernetes` Service."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.addresses import SERVICES
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.registry import PODS, Registry
from kitlib.lab.api.state import is_true, owner, terminating
from kitlib.lab.api.store import Event, Obj

ENDPOINTS, SLICES = "/endpoints", "discovery.k8s.io/endpointslices"
_MANAGED = "endpointslice.kubernetes.io/managed-by"
_SERVICE = "kubernetes.io/service-name"


class Endpoints(Controller):
    """Lists, for every Service, the addresses of the pods that it selects."""

    name = "endpoint-controller"
    kinds = (SERVICES, PODS)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the Services that a change may concern."""
        meta = event.obj["metadata"]
        if event.kind == SERVICES:
            return [(meta["namespace"], meta["name"])]
        states = [obj for obj in (event.old, event.obj) if obj is not None]
        if len(states) == 2 and event.type == "MODIFIED" and _shape(states[0]) == _shape(states[1]):
            return []
        return [
            (meta["namespace"], service["metadata"]["name"])
            for service in self.store.items(SERVICES, meta["namespace"])
            if any(_selects(service, pod) for pod in states)
        ]

    def sync(self, key: Any) -> float | None:
        """Write one Service's Endpoints and EndpointSlice."""
        service = self.store.get(SERVICES, *key)
        if service is None:
            if self.store.get(ENDPOINTS, *key):
                self.registry.remove(ENDPOINTS, *key)
            return None
        if not service["spec"].get("selector"):
            return None
        pods = [
            pod
            for pod in self.store.items(PODS, key[0])
            if _selects(service, pod)
            and (pod.get("status") or {}).get("podIP")
            and pod["status"].get("phase") not in ("Succeeded", "Failed")
        ]
        self._endpoints(service, [pod for pod in pods if not terminating(pod)])
        if SLICES in self.registry.catalogue.by_kind:
            self._slice(service, pods)
        return None

    def _endpoints(self, service: Obj, pods: list[Obj]) -> None:
        """Write subsets: one for each set of resolved ports."""
        groups: dict[str, Obj] = {}
        for pod in pods:
            ports = _ports(service, pod)
            subset = groups.setdefault(repr(ports), {"ports": ports})
            ready = is_true(pod, "Ready") or service["spec"].get("publishNotReadyAddresses")
            field = "addresses" if ready else "notReadyAddresses"
            address = {
                "ip": pod["status"]["podIP"],
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": _reference(pod),
            }
            subset.setdefault(field, []).append(address)
        subsets = [
            {name: sub[name] for name in ("addresses", "notReadyAddresses", "ports") if name in sub}
            for sub in groups.values()
        ]
        meta = service["metadata"]
        labels = dict(meta.get("labels") or {})
        if service["spec"].get("clusterIP") == "None":
            labels["service.kubernetes.io/headless"] = ""

        def change(obj: Obj) -> None:
            if obj.get("subsets") != subsets:
                annotations = obj["metadata"].setdefault("annotations", {})
                annotations["endpoints.kubernetes.io/last-change-trigger-time"] = clock.stamp()
            if subsets:
                obj["subsets"] = subsets
            else:
                obj.pop("subsets", None)

        if not self.registry.patch(ENDPOINTS, meta["namespace"], meta["name"], change):
            head = {"name": meta["name"], "namespace": meta["namespace"], "labels": labels}
            obj: Obj = {"metadata": head}
            change(obj)
            self.registry.make(ENDPOINTS, obj)

    def _slice(self, service: Obj, pods: list[Obj]) -> None:
        meta = service["metadata"]
        ports = _ports(service, pods[0]) if pods else []
        endpoints = [self._endpoint(pod) for pod in pods]

        def change(obj: Obj) -> None:
            obj["endpoints"], obj["ports"] = endpoints, ports

        found = next(
            (
                each
                for each in self.store.items(SLICES, meta["namespace"])
                if (each["metadata"].get("labels") or {}).get(_SERVICE) == meta["name"]
            ),
            None,
        )
        if found:
            self.registry.patch(SLICES, meta["namespace"], found["metadata"]["name"], change)
            return
        labels = {**(meta.get("labels") or {}), _SERVICE: meta["name"]}
        labels[_MANAGED] = "endpointslice-controller.k8s.io"
        head = {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]}
        obj: Obj = {
            "metadata": {**head, "labels": labels, "ownerReferences": [owner(service)]},
            "addressType": "IPv4",
        }
        change(obj)
        self.registry.make(SLICES, obj)

    def _endpoint(self, pod: Obj) -> Obj:
        ready = is_true(pod, "Ready")
        going = terminating(pod)
        conditions: Obj = {"ready": ready and not going}
        if self.registry.minor >= 22:
            conditions.update({"serving": ready, "terminating": going})
        endpoint: Obj = {
            "addresses": [pod["status"]["podIP"]],
            "conditions": conditions,
            "targetRef": _reference(pod),
        }
        if self.registry.minor >= 21:
            endpoint["nodeName"] = pod["spec"]["nodeName"]
        else:
            endpoint["topology"] = {"kubernetes.io/hostname": pod["spec"]["nodeName"]}
        return endpoint


def publish_api(registry: Registry) -> None:
    """Make or correct the `kubernetes` Service and its endpoints, as the API server itself does."""
    settings = registry.settings
    port = {"name": "https", "protocol": "TCP"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    name = {"name": "kubernetes", "namespace": "default"}
    if not registry.store.get(SERVICES, "default", "kubernetes"):
        address = str(next(settings.service_cidr.hosts()))
        ports = [{**port, "port": 443, "targetPort": settings.port}]
        spec = {"clusterIP": address, "ports": ports}
        registry.make(SERVICES, {"metadata": {**name, "labels": labels}, "spec": spec})
    ports = [{**port, "port": settings.port}]
    planes = settings.planes or [settings.advertise]
    subsets = [{"addresses": [{"ip": address} for address in planes], "ports": ports}]

    def endpoints(obj: Obj) -> None:
        obj["subsets"] = subsets

    if not registry.patch(ENDPOINTS, "default", "kubernetes", endpoints):
        managed = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        registry.make(ENDPOINTS, {"metadata": {**name, "labels": managed}, "subsets": subsets})
    if SLICES not in registry.catalogue.by_kind:
        return

    def slice_(obj: Obj) -> None:
        ready = {"conditions": {"ready": True}}
        obj["endpoints"] = [{"addresses": [address], **ready} for address in planes]
        obj["ports"] = ports

    if not registry.patch(SLICES, "default", "kubernetes", slice_):
        obj = {"metadata": {**name, "labels": {_SERVICE: "kubernetes"}}, "addressType": "IPv4"}
        slice_(obj)
        registry.make(SLICES, obj)


def _selects(service: Obj, pod: Obj) -> bool:
    selector = service["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def _reference(pod: Obj) -> Obj:
    meta = pod["metadata"]
    place = {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    return {"kind": "Pod", **place}


def _ports(service: Obj, pod: Obj) -> list[Obj]:
    """Return a Service's ports as they are at a pod: names of target ports resolved."""
    found = []
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort", port["port"])
        if isinstance(target, str) and not target.isdigit():
            target = _named_port(pod, target)
            if target is None:
                continue
        entry: Obj = {"port": int(target), "protocol": port.get("protocol", "TCP")}
        if port.get("name"):
            entry = {"name": port["name"], **entry}
        found.append(entry)
    return found


def _named_port(pod: Obj, name: str) -> int | None:
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == name:
                return int(port["containerPort"])
    return None


def _shape(pod: Obj) -> tuple[Any, ...]:
    """Return what of a pod matters to a Service."""
    status = pod.get("status") or {}
    return (
        pod["metadata"].get("labels"),
        status.get("podIP"),
        status.get("phase"),
        is_true(pod, "Ready"),
        terminating(pod),
    )
