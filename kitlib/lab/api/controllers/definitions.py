"""CustomResourceDefinitions that are being deleted: their objects go first."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.admission import CLEANUP
from kitlib.lab.api.controllers.base import Controller
from kitlib.lab.api.schema import CRDS
from kitlib.lab.api.state import condition, terminating
from kitlib.lab.api.store import Event, Obj

_GOING = "CustomResource deletion is in progress"


class Definitions(Controller):
    """Deletes a definition's objects, and lets it go when none is left."""

    name = "customresourcedefinition-finalizer"
    kinds = ("*",)

    def seed(self) -> None:
        """Mark the definitions that are going."""
        for crd in self.store.items(CRDS):
            self.enqueue(crd["metadata"]["name"])

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return the definition that changed, or that lost an object while it is going."""
        if event.kind == CRDS:
            return [event.obj["metadata"]["name"]]
        if event.type != "DELETED":
            return []
        group, _, plural = event.kind.partition("/")
        found = self.store.get(CRDS, "", f"{plural}.{group}")
        return [found["metadata"]["name"]] if found and terminating(found) else []

    def sync(self, key: Any) -> float | None:
        """Delete what is left of one definition that is going."""
        crd = self.store.get(CRDS, "", key)
        if crd is None or not terminating(crd):
            return None
        if CLEANUP not in (crd["metadata"].get("finalizers") or []):
            return None
        if condition(crd, "Terminating") is None:
            self.registry.patch(CRDS, "", key, _say_so)
        kind = f"{crd['spec']['group']}/{crd['spec']['names']['plural']}"
        left = 0
        for obj in self.store.items(kind):
            meta = obj["metadata"]
            place = (kind, meta.get("namespace", ""), meta["name"])
            if terminating(obj) or not self.registry.remove(*place)[1]:
                left += 1
        if not left:
            self.registry.patch(CRDS, "", key, _let_go)
        return None


def _say_so(crd: Obj) -> None:
    crd["status"].setdefault("conditions", []).append(
        {
            "type": "Terminating",
            "status": "True",
            "reason": "InstanceDeletionInProgress",
            "message": _GOING,
            "lastTransitionTime": clock.stamp(),
        }
    )


def _let_go(crd: Obj) -> None:
    meta = crd["metadata"]
    meta["finalizers"] = [name for name in meta["finalizers"] if name != CLEANUP]
