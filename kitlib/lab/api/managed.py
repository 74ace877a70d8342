"""Field ownership, as `metadata.managedFields` keeps it: who set which fields, and how.

A field's path is a tuple of parts: `f:name` of a map, `k:{"name":"c"}` of a list with keys,
`v:"x"` of a set. A path of a list item or a map says that the item itself is owned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kitlib.lab.api.shapes import ATOMIC, KEYED, SET, Shape, fits, identity
from kitlib.lab.api.store import Obj, dumps

Path = tuple[str, ...]
Fields = set[Path]

APPLY, UPDATE = "Apply", "Update"
BEFORE_APPLY = "before-first-apply"
_INNER = object()
"""The value of what is owned beside its parts."""
_IDENTITY = {"apiVersion", "kind"}
_UNOWNED = {
    "clusterName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp",
    "generation", "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid",
}  # fmt: skip


class Owner(NamedTuple):
    """Who owns fields: a manager by one kind of operation (and, for updates, one version)."""

    manager: str
    operation: str
    version: str
    subresource: str = ""

    def __str__(self) -> str:
        part = f' with subresource "{self.subresource}"' if self.subresource else ""
        using = f" using {self.version}" if self.operation == UPDATE else ""
        return f'"{self.manager}"{part}{using}'


@dataclass(slots=True)
class Owned:
    """The fields of one owner, since when they are these, and the version they were applied in."""

    fields: Fields
    time: str
    version: str


Owners = dict[Owner, Owned]


def fields(obj: Obj, shape: Shape, *, inner: bool) -> dict[Path, Any]:
    """Return path -> value of every field that can be owned.

    Args:
        obj: An object or a configuration.
        shape: Its form.
        inner: Also the maps themselves, as updates own them; applied configurations own parts.

    Raises:
        ValueError: A list holds two items of the same keys; the text says which.
    """
    found: dict[Path, Any] = {}

    def walk(path: Path, form: Shape, value: Any) -> None:
        kind, keys = form.form(value)
        if kind == ATOMIC or not value:
            found[path] = value
        elif kind == KEYED:
            for item in value:
                at = (*path, identity(keys, item))
                if at in found:
                    raise ValueError(f"{shown(path)}: duplicate entries for key {shown(at[-1:])}")
                found[at] = _INNER
                for name, part in item.items():
                    walk((*at, f"f:{name}"), form.item().at(name), part)
        elif kind == SET:
            for item in value:
                found[(*path, f"v:{dumps(item)}")] = item
        else:
            if inner and form.owned:
                found[path] = _INNER
            for name, part in value.items():
                walk((*path, f"f:{name}"), form.at(name), part)

    for name, value in obj.items():
        if name == "metadata":
            for key, part in value.items():
                if key not in _UNOWNED:
                    walk(("f:metadata", f"f:{key}"), shape.at(name).at(key), part)
        elif name not in _IDENTITY:
            walk((f"f:{name}",), shape.at(name), value)
    return found


def read(entries: Iterable[Obj] | None) -> Owners:
    """Return the owners that managedFields names."""
    found: Owners = {}
    for entry in entries or []:
        if not entry.get("manager") or not entry.get("operation"):
            continue
        version = entry.get("apiVersion", "")
        operation = entry["operation"]
        owner = Owner(
            entry["manager"],
            operation,
            "" if operation == APPLY else version,
            entry.get("subresource", ""),
        )
        paths = set(_paths(entry.get("fieldsV1") or {}))
        found[owner] = Owned(paths, entry.get("time", ""), version)
    return found


def write(owners: Owners) -> list[Obj]:
    """Return managedFields: appliers first, then by time."""
    ordered = sorted(owners.items(), key=lambda each: (each[0].operation, each[1].time, each[0]))
    return [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owned.version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(owned.fields),
            **({"subresource": owner.subresource} if owner.subresource else {}),
        }
        for owner, owned in ordered
        if owned.fields
    ]


class Change(NamedTuple):
    """What became another between two states of an object."""

    set: Fields
    """Added or with another value."""
    removed: Fields


def changes(old: Obj, new: Obj, shape: Shape) -> Change:
    """Return the fields that differ between two states."""
    before, after = (_forgiving(obj, shape) for obj in (old, new))
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    return Change(changed, before.keys() - after.keys())


def update(owners: Owners, owner: Owner, change: Change, when: str) -> Owners:
    """Return who owns what after an update: what it changed is its own, and nobody else's."""
    found: Owners = {}
    for other, owned in owners.items():
        lost = change.removed if other == owner else change.removed | change.set
        kept = owned.fields - lost
        time = owned.time if kept == owned.fields or other != owner else when
        found[other] = Owned(kept, time, owned.version)
    mine = found.get(owner)
    before = mine.fields if mine else set()
    if change.set - before:
        found[owner] = Owned(before | change.set, when, owner.version)
    return {other: owned for other, owned in found.items() if owned.fields}


def track(
    live: Obj | None, obj: Obj, owner: Owner, shape: Shape, when: str, beside: str = ""
) -> None:
    """Set an object's managedFields after a create or an update of `live`.

    An update may write managedFields itself; one empty entry takes them all away. `beside` is the
    field that the request does not set: the status, where that has a way of its own.
    """
    meta = obj["metadata"]
    given = meta.pop("managedFields", None)
    if given == [{}]:
        return
    known = read(given) if not owner.subresource else {}
    known = known or read((live or {"metadata": {}})["metadata"].get("managedFields"))
    before, after = ({**each, beside: None} if beside else each for each in (live or {}, obj))
    found = write(update(known, owner, changes(before, after, shape), when))
    if found:
        meta["managedFields"] = found


def shown(path: Iterable[str]) -> str:
    """Return a path as messages write it: .spec.containers[name="c"].image."""
    text = ""
    for part in path:
        kind, value = part[:2], part[2:]
        if kind == "f:":
            text += f".{value}"
        elif kind == "k:":
            keys = json.loads(value)
            text += "[" + ",".join(f"{key}={dumps(keys[key])}" for key in sorted(keys)) + "]"
        else:
            text += f"[={value}]"
    return text


def step(value: Any, part: str) -> Any:
    """Return what one part of a path leads to, or None."""
    if part.startswith("f:"):
        return value.get(part[2:]) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    wanted = json.loads(part[2:])
    if part.startswith("k:"):
        found = (item for item in value if isinstance(item, dict) and fits(item, wanted))
        return next(found, None)
    return wanted if wanted in value else None


def _forgiving(obj: Obj, shape: Shape) -> Mapping[Path, Any]:
    """Return an object's fields; of one with an item twice, which updates may have, the top's."""
    try:
        return fields(obj, shape, inner=True)
    except ValueError:
        return {(f"f:{name}",): value for name, value in obj.items() if name not in _IDENTITY}


def _tree(paths: Fields) -> Obj:
    tree: Obj = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    for path in paths:
        node = tree
        for part in path:
            node = node[part]
        if node:
            node["."] = {}
    return tree


def _paths(tree: Obj, prefix: Path = ()) -> Iterable[Path]:
    for part, inside in tree.items():
        if part == ".":
            yield prefix
        elif inside:
            yield from _paths(inside, (*prefix, part))
        else:
            yield (*prefix, part)
