"""Namespaces, service accounts, garbage collection and the age of Events."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.auth import Auth
from kitlib.lab.api.controllers.base import EVENTS, Controller
from kitlib.lab.api.registry import ACCOUNTS, CONFIG_MAPS, NAMESPACES, SECRETS, Registry
from kitlib.lab.api.state import terminating
from kitlib.lab.api.store import Event, Obj

ROOT_CA = "kube-root-ca.crt"
_EVENT_TTL = 3600.0
_SWEEP = 60.0
_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105


class Namespaces(Controller):
    """Empties a namespace that is being deleted, then lets it go."""

    name = "namespace-controller"
    kinds = ("*",)

    def seed(self) -> None:
        """Mark the namespaces that are going."""
        for namespace in self.store.items(NAMESPACES):
            self.enqueue(namespace["metadata"]["name"])

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the namespace that changed, or that lost something while it is going."""
        meta = event.obj["metadata"]
        if event.kind == NAMESPACES:
            return [meta["name"]]
        if event.type != "DELETED" or not meta.get("namespace"):
            return []
        namespace = self.store.get(NAMESPACES, "", meta["namespace"])
        return [meta["namespace"]] if namespace and terminating(namespace) else []

    def sync(self, key: Any) -> float | None:
        """Delete what is left in a namespace that is going."""
        namespace = self.store.get(NAMESPACES, "", key)
        if namespace is None or not terminating(namespace):
            return None
        left = 0
        for kind in self.store.kinds():
            for obj in self.store.items(kind, key):
                meta = obj["metadata"]
                if terminating(obj) or not self.registry.remove(kind, key, meta["name"])[1]:
                    left += 1

        def finalized(obj: Obj) -> None:
            obj["spec"]["finalizers"] = []

        if not left:
            self.registry.patch(NAMESPACES, "", key, finalized)
        return None


class ServiceAccounts(Controller):
    """Keeps the default account, the CA's ConfigMap and (before 1.24) token Secrets."""

    name = "serviceaccount-controller"
    kinds = (NAMESPACES, ACCOUNTS, CONFIG_MAPS)

    def __init__(self, registry: Registry, auth: Auth) -> None:
        super().__init__(registry)
        self._auth = auth

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the namespace of a change that may leave something missing."""
        meta = event.obj["metadata"]
        if event.kind == NAMESPACES:
            return [meta["name"]]
        if event.kind == CONFIG_MAPS and meta["name"] != ROOT_CA:
            return []
        return [meta["namespace"]]

    def sync(self, key: Any) -> float | None:
        """Make what is missing in one namespace."""
        namespace = self.store.get(NAMESPACES, "", key)
        if namespace is None or terminating(namespace):
            return None
        settings = self.registry.settings
        if self.registry.minor >= 20 and not self.store.get(CONFIG_MAPS, key, ROOT_CA):
            meta: Obj = {"name": ROOT_CA, "namespace": key}
            if self.registry.minor >= 21:
                text = (
                    "Contains a CA bundle that can be used to verify the kube-apiserver when using "
                    "internal endpoints such as the internal service IP or "
                    "kubernetes.default.svc. No other usage is guaranteed across distributions of "
                    "Kubernetes clusters."
                )
                meta["annotations"] = {"kubernetes.io/description": text}
            data = {"ca.crt": settings.ca_pem}
            self.registry.make(CONFIG_MAPS, {"metadata": meta, "data": data})
        if not self.store.get(ACCOUNTS, key, "default"):
            self.registry.make(ACCOUNTS, {"metadata": {"name": "default", "namespace": key}})
        if self.registry.minor < 24:
            for account in self.store.items(ACCOUNTS, key):
                if not account.get("secrets"):
                    self._token(account)
        return None

    def _token(self, account: Obj) -> None:
        meta = account["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        token = self._auth.issue(namespace, name, meta["uid"], [], 0)
        secret = f"{name}-token-{clock.suffix()}"
        data = {"ca.crt": self.registry.settings.ca_pem, "namespace": namespace, "token": token}
        about = {
            "kubernetes.io/service-account.name": name,
            "kubernetes.io/service-account.uid": meta["uid"],
        }
        self.registry.make(
            SECRETS,
            {
                "metadata": {"name": secret, "namespace": namespace, "annotations": about},
                "type": _TOKEN,
                "data": {key: base64.b64encode(text.encode()).decode()
                         for key, text in data.items()},
            },
        )  # fmt: skip

        def change(obj: Obj) -> None:
            obj["secrets"] = [{"name": secret}]

        self.registry.patch(ACCOUNTS, namespace, name, change)


Ref = tuple[str, str, str]


class GarbageCollector(Controller):
    """Deletes what belongs to owners that are gone; foreground and orphan deletion too."""

    name = "garbage-collector-controller"
    kinds = ("*",)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._owned: dict[str, set[Ref]] = defaultdict(set)
        self._alive: dict[str, Ref] = {}

    def seed(self) -> None:
        """Learn who owns what."""
        for kind in self.store.kinds():
            for obj in self.store.items(kind):
                for key in self.keys(Event("ADDED", kind, 0, obj, None)):
                    self.enqueue(key)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Keep the index; return the object, and its dependents when it went."""
        meta = event.obj["metadata"]
        uid = meta.get("uid", "")
        ref = (event.kind, meta.get("namespace", ""), meta["name"])
        owners = [reference["uid"] for reference in meta.get("ownerReferences") or []]
        if event.type == "DELETED":
            self._alive.pop(uid, None)
            for owner_uid in owners:
                self._owned[owner_uid].discard(ref)
            waiting = [self._alive[owner_uid] for owner_uid in owners if owner_uid in self._alive]
            return [*self._owned.pop(uid, ()), *waiting]
        self._alive[uid] = ref
        for owner_uid in owners:
            self._owned[owner_uid].add(ref)
        return [ref] if owners or meta.get("deletionTimestamp") else []

    def sync(self, key: Any) -> float | None:
        """Delete one object whose owners are all gone; serve its own deletion finalizers."""
        obj = self.store.get(*key)
        if obj is None:
            return None
        meta = obj["metadata"]
        references = meta.get("ownerReferences") or []
        if references and not any(ref["uid"] in self._alive for ref in references):
            if not terminating(obj):
                self.registry.remove(*key)
            return None
        if terminating(obj):
            finalizers = meta.get("finalizers") or []
            if "orphan" in finalizers:
                self._orphan(key, meta["uid"])
            elif "foregroundDeletion" in finalizers:
                self._foreground(key, meta["uid"])
        return None

    def _orphan(self, key: Ref, uid: str) -> None:
        def disown(obj: Obj) -> None:
            kept = [ref for ref in obj["metadata"]["ownerReferences"] if ref["uid"] != uid]
            obj["metadata"]["ownerReferences"] = kept
            if not kept:
                del obj["metadata"]["ownerReferences"]

        for dependent in list(self._owned.pop(uid, ())):
            self.registry.patch(*dependent, disown)
        self._release(key, "orphan")

    def _foreground(self, key: Ref, uid: str) -> None:
        left = False
        for dependent in list(self._owned.get(uid, ())):
            obj = self.store.get(*dependent)
            if obj is None:
                continue
            gone = False
            if not terminating(obj):
                policy = {"propagationPolicy": "Foreground"}
                options = policy if self._owned.get(obj["metadata"]["uid"]) else {}
                gone = self.registry.remove(*dependent, options)[1]
            left = left or not gone
        if not left:
            self._release(key, "foregroundDeletion")

    def _release(self, key: Ref, finalizer: str) -> None:
        def change(obj: Obj) -> None:
            finalizers = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
            obj["metadata"]["finalizers"] = finalizers

        self.registry.patch(*key, change)


class EventAges(Controller):
    """Removes Events that are older than an hour."""

    name = "event-ttl"
    kinds = ()

    def seed(self) -> None:
        """Start the sweep."""
        self.enqueue("sweep", _SWEEP)

    def sync(self, key: Any) -> float | None:  # noqa: ARG002
        """Remove the old Events."""
        for event in self.store.all(EVENTS):
            # An event may tell of long ago: what counts is when it was written.
            told = (event.get("lastTimestamp"), event["metadata"].get("creationTimestamp"))
            if min((clock.age(each) for each in told if each), default=0.0) > _EVENT_TTL:
                meta = event["metadata"]
                self.store.remove(EVENTS, meta["namespace"], meta["name"])
        return _SWEEP
