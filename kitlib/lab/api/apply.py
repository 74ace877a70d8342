"""Server-side apply: what a configuration changes, what its manager gave up, and conflicts."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from kitlib.lab.api import errors, managed
from kitlib.lab.api.managed import APPLY, BEFORE_APPLY, UPDATE, Fields, Owned, Owner, Owners, Path
from kitlib.lab.api.shapes import GRANULAR, KEYED, SET, Shape, identity
from kitlib.lab.api.store import Obj, copy, dumps
from kitlib.lab.api.validate import ANNOTATIONS

_KUBECTL = "kubectl"
_CLIENT_SIDE = "kubectl-client-side-apply"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

BUILT_IN = Shape()


def apply(
    live: Obj | None,
    config: Obj,
    manager: str,
    force: bool,
    when: str,
    shape: Shape = BUILT_IN,
    subresource: str = "",
) -> Obj:
    """Return the object that results from applying `config` as `manager`.

    Raises:
        ApiError: 409 when another manager owns a field and wants another value; 400 and 500 for a
            configuration that cannot be applied.
    """
    if (config.get("metadata") or {}).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    config = copy(_without_nulls(config))
    version = config.get("apiVersion", "")
    owner = Owner(manager, APPLY, "", subresource)
    mine = _applied(config, shape)
    old = copy(live) if live else {}
    owners = _known(old, version, shape, when)
    last = owners.pop(owner, None)
    held = {path for owned in owners.values() for path in owned.fields}
    result: Obj = _merge(shape, old, config)
    gone = (last.fields if last else set()) - mine - held
    _prune(result, gone, held | mine)
    change = managed.changes(live or {}, result, shape)
    if not force:
        _refuse_conflicts(owners, change.set, manager, old)
    kept: Owners = {}
    for other, owned in owners.items():
        left = owned.fields - change.set - change.removed
        kept[other] = Owned(left, owned.time, owned.version)
    same = last is not None and (last.fields, last.version) == (mine, version)
    kept[owner] = Owned(mine, last.time if last and same else when, version)
    meta = result.setdefault("metadata", {})
    meta["managedFields"] = managed.write(kept)
    if manager == _KUBECTL and LAST_APPLIED in (meta.get("annotations") or {}):
        _sync_last_applied(meta["annotations"], config)
    return result


def _without_nulls(value: Any) -> Any:
    """Return a configuration without its nulls, which say nothing."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _applied(config: Obj, shape: Shape) -> Fields:
    try:
        return set(managed.fields(config, shape, inner=False))
    except ValueError as twice:
        meta = config.get("metadata") or {}
        group, _, version = str(config.get("apiVersion")).rpartition("/")
        kind = f"{group + '/' if group else ''}{version}, Kind={config.get('kind')}"
        place = f"{meta.get('namespace', '')}/{meta.get('name', '')}"
        text = f"failed to create typed patch object ({place}; {kind}): {twice}"
        raise errors.ApiError(500, "", text) from twice


def _known(live: Obj, version: str, shape: Shape, when: str) -> Owners:
    """Return a live object's owners; what nobody is known to have set has one owner too."""
    found = managed.read((live.get("metadata") or {}).get("managedFields"))
    if found or not live:
        return found
    owner = Owner(BEFORE_APPLY, UPDATE, version)
    every = set(managed.changes({}, live, shape).set)
    return {owner: Owned(every, when, version)}


def _merge(shape: Shape, live: Any, config: Any) -> Any:
    none = isinstance(config, list) and not config
    kind, keys = shape.form(live if none else config)  # the keys of `ports` are in its items alone
    if kind == GRANULAR and isinstance(live, dict):
        merged = dict(live)
        for name, value in config.items():
            merged[name] = _merge(shape.at(name), live.get(name), value)
        return merged
    if kind == SET and isinstance(live, list):
        return live + [item for item in config if item not in live]
    if kind == KEYED and isinstance(live, list):
        return _merge_keyed(shape, keys, live, config)
    return config


def _merge_keyed(shape: Shape, keys: tuple[str, ...], live: list[Obj], config: list[Obj]) -> Any:
    """Merge the items by their keys: the configuration's in its order, the others where they are.

    An item that only the live list has stays behind the one that it followed.
    """
    found = {identity(keys, item): item for item in live}
    wanted = {identity(keys, item): item for item in config}
    merged = {at: _merge(shape.item(), found.get(at), item) for at, item in wanted.items()}
    order = list(wanted)
    before = None
    for at in found:
        if at not in wanted:
            order.insert(order.index(before) + 1 if before is not None else 0, at)
        before = at
    return [merged[at] if at in merged else found[at] for at in order]


def _prune(obj: Obj, gone: Fields, kept: Fields) -> None:
    """Take away what its manager applied once and nobody wants now, list items as a whole.

    The keys of an item stay as long as it does.
    """
    needed = {path[:end] for path in kept for end in range(1, len(path) + 1)}
    for path in sorted(gone, key=len):
        if path in needed or _is_key(path):
            continue
        parents: list[Any] = [obj]
        for part in path[:-1]:
            parents.append(managed.step(parents[-1], part))
        if parents[-1] is not None:
            _remove(parents, path)


def _is_key(path: Path) -> bool:
    """Return whether a path is a key of the list item that it is in."""
    item = path[-2] if len(path) > 1 else ""
    return item.startswith("k:") and path[-1][2:] in json.loads(item[2:])


def _remove(parents: list[Any], path: Path) -> None:
    """Remove the last part of a path, and the maps and lists that become empty by it."""
    for depth in range(len(path) - 1, -1, -1):
        parent, part = parents[depth], path[depth]
        if isinstance(parent, dict):
            parent.pop(part[2:], None)
        else:
            target = managed.step(parent, part)
            if target in parent:
                parent.remove(target)
        if parent or depth == 0 or not path[depth - 1].startswith("f:"):
            return


def _refuse_conflicts(owners: Owners, changed: Fields, manager: str, live: Obj) -> None:
    """Raise when a change takes fields from others.

    kubectl's own client-side applies are no conflict to kubectl where the live value is still the
    one that was applied.
    """
    conflicts = []
    for other, owned in owners.items():
        taken = sorted(owned.fields & changed)
        if manager == _KUBECTL and other.manager == _CLIENT_SIDE:
            applied = _last_applied(live)
            taken = [path for path in taken if _at(applied, path) != _at(live, path)]
        conflicts += [(other, path) for path in taken]
    if conflicts:
        raise _conflict(conflicts)


def _last_applied(live: Obj) -> Obj:
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED, "{}")
    try:
        found: Obj = json.loads(text)
    except ValueError:
        return {}
    return found


def _at(obj: Any, path: Path) -> Any:
    for part in path:
        obj = managed.step(obj, part)
    return obj


def _sync_last_applied(annotations: Obj, config: Obj) -> None:
    """Keep the annotation of client-side apply in step, as long as it has room."""
    text = dumps(config) + "\n"
    others = sum(len(key) + len(str(value)) for key, value in annotations.items())
    others -= len(LAST_APPLIED) + len(str(annotations[LAST_APPLIED]))
    if others + len(LAST_APPLIED) + len(text.encode()) <= ANNOTATIONS:
        annotations[LAST_APPLIED] = text
    else:
        del annotations[LAST_APPLIED]


def _conflict(conflicts: list[tuple[Owner, Path]]) -> errors.ApiError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {owner}",
            "field": managed.shown(path),
        }
        for owner, path in conflicts
    ]
    if len(conflicts) == 1:
        owner, path = conflicts[0]
        text = f"Apply failed with 1 conflict: conflict with {owner}: {managed.shown(path)}"
    else:
        by_owner = defaultdict(list)
        for owner, path in conflicts:
            by_owner[str(owner)].append(f"- {managed.shown(path)}")
        told = [
            f"conflicts with {owner}:\n" + "\n".join(paths)
            for owner, paths in sorted(by_owner.items())
        ]
        text = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(told)
    return errors.ApiError(409, "Conflict", text, {"causes": causes})
