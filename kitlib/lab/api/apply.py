"""Server-side apply: who owns which fields, what a new configuration changes, and conflicts.

Ownership is kept as the real server keeps it, in `metadata.managedFields` (operation Apply).
Plain updates are not tracked, so only appliers can conflict with each other.
"""

from __future__ import annotations

import json
from typing import Any

from kitlib.lab.api import errors
from kitlib.lab.api.merge import is_set, list_keys
from kitlib.lab.api.store import Obj, copy, dumps

Path = tuple[str, ...]
_IDENTITY = {"apiVersion", "kind"}
_META = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields"}


def apply(live: Obj | None, config: Obj, manager: str, force: bool, when: str) -> Obj:
    """Return the object that results from applying `config` as `manager`.

    Raises:
        ApiError: 409 when another applier owns a field and wants another value.
    """
    config = copy(config)
    config.get("metadata", {}).pop("managedFields", None)
    live = copy(live) if live else {}
    entries = live.get("metadata", {}).get("managedFields") or []
    owned = {
        entry["manager"]: _paths(entry.get("fieldsV1") or {})
        for entry in entries
        if entry.get("operation") == "Apply"
    }
    mine = _leaves(config)
    before = owned.pop(manager, {})
    for other, paths in owned.items():
        clashes = [path for path in paths if path in mine and _get(live, path) != mine[path]]
        if clashes and not force:
            raise _conflict(config, other, clashes)
        owned[other] = {path: None for path in paths if path not in clashes}
    held = {path for paths in owned.values() for path in paths}
    result: Obj = _merge("", live, config)
    for path in sorted(set(before) - set(mine) - held, key=_removal_order):
        _remove(result, path)
    owned[manager] = dict.fromkeys(mine)
    result.setdefault("metadata", {})["managedFields"] = [
        {
            "manager": name,
            "operation": "Apply",
            "apiVersion": config["apiVersion"],
            "time": when,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(paths),
        }
        for name, paths in owned.items()
        if paths
    ]
    return result


def _merge(field: str, live: Any, config: Any) -> Any:
    if isinstance(config, dict) and isinstance(live, dict):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = _merge(key, live.get(key), value)
        return merged
    if isinstance(config, list) and isinstance(live, list):
        if is_set(field):
            return live + [item for item in config if item not in live]
        keys = list_keys(field, config)
        if keys:
            found = {_identity(keys, item): item for item in live}
            for item in config:
                at = _identity(keys, item)
                found[at] = _merge("", found.get(at), item)
            return list(found.values())
    return config


def _identity(keys: tuple[str, ...], item: Obj) -> str:
    defaults = {"protocol": "TCP"}
    named = {key: item.get(key, defaults.get(key)) for key in sorted(keys)}
    return "k:" + dumps({key: value for key, value in named.items() if value is not None})


def _leaves(config: Obj) -> dict[Path, Any]:
    """Return path -> value of every field that a configuration sets."""
    found: dict[Path, Any] = {}

    def walk(path: Path, field: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk((*path, f"f:{key}"), key, item)
        elif isinstance(value, list) and (keys := list_keys(field, value)):
            for item in value:
                at = (*path, _identity(keys, item))
                found[(*at, ".")] = None
                for key, inner in item.items():
                    walk((*at, f"f:{key}"), key, inner)
        elif isinstance(value, list) and is_set(field):
            for item in value:
                found[(*path, f"v:{dumps(item)}")] = item
        else:
            found[path] = value

    for key, value in config.items():
        if key == "metadata":
            for name, item in value.items():
                if name not in _META:
                    walk(("f:metadata", f"f:{name}"), name, item)
        elif key not in _IDENTITY:
            walk((f"f:{key}",), key, value)
    return found


def _tree(paths: dict[Path, Any]) -> Obj:
    tree: Obj = {}
    for path in paths:
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return tree


def _paths(tree: Obj, prefix: Path = ()) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for part, inner in tree.items():
        if inner:
            found.update(_paths(inner, (*prefix, part)))
        else:
            found[(*prefix, part)] = None
    return found


def _step(value: Any, part: str) -> Any:
    if part.startswith("f:"):
        return value.get(part[2:]) if isinstance(value, dict) else None
    if part.startswith("k:") and isinstance(value, list):
        wanted = json.loads(part[2:])
        return next((item for item in value if _fits(item, wanted)), None)
    if part.startswith("v:") and isinstance(value, list):
        wanted = json.loads(part[2:])
        return wanted if wanted in value else None
    return None


def _fits(item: Obj, wanted: Obj) -> bool:
    return all(item.get(key, "TCP" if key == "protocol" else None) == wanted[key] for key in wanted)


def _get(obj: Any, path: Path) -> Any:
    for part in path:
        if part == ".":
            return None
        obj = _step(obj, part)
    return obj


def _removal_order(path: Path) -> tuple[int, bool, Path]:
    """Sort the deepest fields first, but a list item before the key that it is found by."""
    return (-len(path), path[-1] != ".", path)


def _remove(obj: Obj, path: Path) -> None:
    item_itself = path[-1] == "."
    path = path[:-1] if item_itself else path
    parent: Any = obj
    for part in path[:-1]:
        parent = _step(parent, part)
    last = path[-1]
    if last.startswith("f:") and isinstance(parent, dict):
        parent.pop(last[2:], None)
    elif isinstance(parent, list):
        target = _step(parent, last)
        if target in parent:
            parent.remove(target)


def _conflict(config: Obj, manager: str, paths: list[Path]) -> errors.ApiError:
    shown = [_shown(path) for path in paths]
    count = f"{len(shown)} conflict" + ("s" if len(shown) > 1 else "")
    if len(shown) == 1:
        text = f'conflict with "{manager}": {shown[0]}'
    else:
        text = f'conflicts with "{manager}":\n' + "\n".join(f"- {path}" for path in shown)
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"', "field": path}
        for path in shown
    ]
    message = f"Apply failed with {count}: {text}"
    name = config.get("metadata", {}).get("name", "")
    return errors.ApiError(409, "Conflict", message, {"name": name, "causes": causes})


def _shown(path: Path) -> str:
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        elif part.startswith("k:"):
            text += "[" + part[2:].strip("{}").replace('":', "=").replace('"', "", 1) + "]"
    return text
