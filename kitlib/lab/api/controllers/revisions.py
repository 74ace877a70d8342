"""The ControllerRevisions of DaemonSets: what `kubectl rollout history` and `undo` read."""

from __future__ import annotations

from kitlib.lab.api.registry import Registry
from kitlib.lab.api.state import controller_of, owner
from kitlib.lab.api.store import Obj, copy

REVISIONS = "apps/controllerrevisions"
HASH = "controller-revision-hash"


def keep_history(registry: Registry, parent: Obj, digest: str, in_use: set[str]) -> None:
    """Number a DaemonSet's template as its newest revision; forget those beyond its limit.

    Args:
        registry: Where.
        parent: The DaemonSet.
        digest: Its template's hash.
        in_use: The hashes of its pods' templates.
    """
    meta = parent["metadata"]
    found = [
        each
        for each in registry.store.items(REVISIONS, meta["namespace"])
        if (controller_of(each) or {}).get("uid") == meta["uid"]
    ]
    newest = max((each["revision"] for each in found), default=0)
    current = next((each for each in found if _hash(each) == digest), None)
    if current is None:
        _make(registry, parent, digest, newest + 1)
    elif current["revision"] < newest:

        def number(obj: Obj) -> None:
            obj["revision"] = newest + 1

        registry.patch(REVISIONS, meta["namespace"], current["metadata"]["name"], number)
    old = [each for each in found if each is not current and _hash(each) not in in_use]
    surplus = len(old) - parent["spec"].get("revisionHistoryLimit", 10)
    for each in sorted(old, key=lambda revision: int(revision["revision"]))[: max(0, surplus)]:
        registry.remove(REVISIONS, meta["namespace"], each["metadata"]["name"])


def _hash(revision: Obj) -> str:
    return str((revision["metadata"].get("labels") or {}).get(HASH, ""))


def _make(registry: Registry, parent: Obj, digest: str, number: int) -> None:
    meta, template = parent["metadata"], parent["spec"]["template"]
    labels = {**(template["metadata"].get("labels") or {}), HASH: digest}
    registry.make(
        REVISIONS,
        {
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": copy(meta.get("annotations") or {}),
                "ownerReferences": [owner(parent)],
            },
            "data": {"spec": {"template": {"$patch": "replace", **copy(template)}}},
            "revision": number,
        },
    )
