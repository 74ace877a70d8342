"""The three patch formats: JSON patch, JSON merge patch, strategic merge patch."""

from __future__ import annotations

from typing import Any

from kitlib.lab.api import errors
from kitlib.lab.api.shapes import is_set, list_keys
from kitlib.lab.api.store import Obj, copy


def json_merge(target: Any, patch: Any) -> Any:
    """Return `target` with a JSON merge patch (RFC 7386) applied."""
    if not isinstance(patch, dict):
        return copy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = json_merge(result.get(key), value)
    return result


def strategic(target: Any, patch: Any) -> Any:
    """Return `target` with a strategic merge patch applied: known lists merge by their keys."""
    if not isinstance(patch, dict):
        return copy(patch)
    if patch.get("$patch") == "replace":
        return copy({key: value for key, value in patch.items() if key != "$patch"})
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _merge_list(key, result.get(key) or [], value)
        else:
            result[key] = strategic(result.get(key), value)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            _reorder(result, key.partition("/")[2], order)
    return result


def _merge_list(field: str, old: list[Any], new: list[Any]) -> list[Any]:
    keys = list_keys(field, new) or (list_keys(field, old) if not new else ())
    if is_set(field):
        return [*old, *(item for item in new if item not in old)]
    if new and isinstance(new[0], dict) and any(item.get("$patch") == "replace" for item in new):
        return [copy(item) for item in new if "$patch" not in item]
    if not keys:
        return list(copy(new))
    key = keys[0]
    merged = list(old)
    for item in new:
        at = next((i for i, have in enumerate(merged) if have.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del merged[at]
        elif at is None:
            merged.append(strategic({}, item))
        else:
            merged[at] = strategic(merged[at], item)
    return merged


def _reorder(result: Obj, field: str, order: list[Any]) -> None:
    items = result.get(field)
    if not isinstance(items, list) or not order:
        return
    keys = list_keys(field, items)
    wanted = [entry.get(keys[0]) if keys and isinstance(entry, dict) else entry for entry in order]

    def place(item: Any) -> int:
        value = item.get(keys[0]) if keys else item
        return wanted.index(value) if value in wanted else len(wanted)

    if keys or not isinstance(items[0] if items else None, dict):
        result[field] = sorted(items, key=place)


def json_patch(target: Obj, operations: list[Any]) -> Any:
    """Return `target` with a JSON patch (RFC 6902) applied.

    Raises:
        ApiError: 422 when a path does not exist or a test fails.
    """
    result: Any = copy(target)
    for operation in operations:
        verb, path = operation.get("op"), _pointer(operation.get("path", ""))
        value = copy(operation.get("value"))
        if verb in ("move", "copy"):
            source = _pointer(operation.get("from", ""))
            value = copy(_read(result, source))
            if verb == "move":
                result = _write(result, source, None, "remove")
            verb = "add"
        if verb == "test":
            if _read(result, path) != value:
                raise _failed(f"testing value {operation.get('path')} failed")
        else:
            result = _write(result, path, value, str(verb))
    return result


def _pointer(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _failed(text: str) -> errors.ApiError:
    return errors.ApiError(
        422, "Invalid", f"the server rejected our request due to an error: {text}"
    )


def _read(value: Any, path: list[str]) -> Any:
    for part in path:
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError) as cause:
            raise _failed(f"missing path: /{'/'.join(path)}") from cause
    return value


def _write(root: Any, path: list[str], value: Any, verb: str) -> Any:
    if not path:
        return value
    parent, last = _read(root, path[:-1]), path[-1]
    if isinstance(parent, list):
        if verb == "add":
            parent.insert(len(parent) if last == "-" else int(last), value)
            return root
        _read(parent, [last])
        if verb == "remove":
            del parent[int(last)]
        else:
            parent[int(last)] = value
    elif isinstance(parent, dict):
        if verb in ("remove", "replace"):
            _read(parent, [last])
        if verb == "remove":
            del parent[last]
        else:
            parent[last] = value
    else:
        raise _failed(f"missing path: /{'/'.join(path)}")
    return root
