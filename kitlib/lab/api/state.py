"""What an object's status says: its conditions, whether it is going, whose it is."""

from __future__ import annotations

from kitlib.lab.api.store import Obj


def condition(obj: Obj, type_: str) -> Obj | None:
    """Return a status condition of an object, or None."""
    found = (obj.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == type_), None)


def is_true(obj: Obj, type_: str) -> bool:
    """Return whether a status condition of an object is True."""
    entry = condition(obj, type_)
    return entry is not None and entry["status"] == "True"


def terminating(obj: Obj) -> bool:
    """Return whether an object is being deleted."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def healthy(pod: Obj) -> bool:
    """Return whether a pod counts as available: it is Ready and not on its way out."""
    return is_true(pod, "Ready") and not terminating(pod)


def owner(obj: Obj) -> Obj:
    """Return the controlling ownerReference that names `obj`."""
    meta = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Obj) -> Obj | None:
    """Return the ownerReference of an object's controller, or None."""
    references = obj["metadata"].get("ownerReferences") or []
    return next((ref for ref in references if ref.get("controller")), None)
