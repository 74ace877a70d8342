"""Values of the parameters put where a manifest states them: by structure, never by text.

A `Place` names an object and a way into it. Each way finds the value, and writes the new one back
in the form that stands there (JSON stays JSON, a number a number).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import yaml

from kitlib.errors import ParamsError
from kitlib.manifests.changes import Patch, shown
from kitlib.manifests.objects import Obj, containers, pod_spec, title
from kitlib.plugins.install import Place

__all__ = ["put", "stated"]

Found = tuple[Obj, str, Any, Callable[[Any], None]]
"""An object, the field in words, the value there (None for none), and how another is written."""


def stated(objects: list[Obj], place: Place) -> list[Any]:
    """Return the values that stand at a place; empty where the manifest states none.

    Raises:
        ParamsError: The way to it is blocked: what should be JSON is none.
    """
    found = [value for _, _, value, _ in _find(objects, place) if value is not None]
    return [place.read(each) if isinstance(each, str) else each for each in found]


def put(
    objects: list[Obj], place: Place, value: str | int, why: str, *, secret: bool = False
) -> tuple[bool, list[Patch]]:
    """Write a value to a place, in the objects themselves.

    Args:
        objects: The manifest's objects.
        place: Where it stands, or (environment, argument, key, field) where it is to stand.
        value: The value.
        why: What the difference says about its reason.
        secret: Whether it is masked in the difference.

    Returns:
        Whether the manifest has such a place at all, and what was changed.

    Raises:
        ParamsError: The way to it is blocked: what should be JSON is none.
    """
    found = list(_find(objects, place))
    patches = []
    for item, field, old, write in found:
        if place.placeholder:
            new: Any = str(old).replace(place.placeholder, str(value))
        else:
            new = _alike(place.written(str(value)) if place.form != "{}" else value, old)
        if new != old:
            write(new)
            # Of a text with a placeholder in it only that one is shown: the text may be long.
            before = place.placeholder or shown(old, secret=secret)
            after = shown(value if place.placeholder else new, secret=secret)
            patches.append(Patch(title(item), field, before, after, why))
    return bool(found), patches


def _alike(value: str | int, old: Any) -> Any:
    """Return a value in the type of the one that it replaces."""
    if isinstance(old, bool) or old is None:
        return value
    if isinstance(old, str):
        return str(value)
    if isinstance(old, int) and re.fullmatch(r"-?\d+", str(value)):
        return int(value)
    return value


def _find(objects: list[Obj], place: Place) -> Iterator[Found]:
    for item in objects:
        if place.kind and not _is(item, place):
            continue
        if place.key:
            yield from _in_key(item, place)
        elif place.env:
            yield from _in_containers(item, place.env, _env)
        elif place.argument:
            yield from _in_containers(item, place.argument, _argument)
        elif place.field:
            yield _field(item, item, place.field, place.field)
        else:
            yield from _placeholders(item, item, place.placeholder, "")


def _is(item: Obj, place: Place) -> bool:
    meta = item["metadata"]
    same_space = not place.namespace or meta.get("namespace", "default") == place.namespace
    return item["kind"] == place.kind and meta.get("name") == place.name and same_space


def _in_key(item: Obj, place: Place) -> Iterator[Found]:
    """Yield the value of a ConfigMap's or Secret's key, or the field inside of it."""
    part = "stringData" if place.key in (item.get("stringData") or {}) else "data"
    hidden = item["kind"] == "Secret" and part == "data"
    data = item.get(part)
    if not isinstance(data, dict):
        data = item[part] = {}
    text = data.get(place.key)
    if hidden and text is not None:
        text = base64.b64decode(text).decode(errors="replace")

    def write(new: Any) -> None:
        data[place.key] = base64.b64encode(str(new).encode()).decode() if hidden else str(new)

    field = f"{part}.{place.key}"
    if not place.path:
        yield item, field, text, write
        return
    if text is None:
        return  # a document of which nothing is known cannot be made of one field
    inside, back = _document(item, place, str(text))

    def write_inside(new: Any) -> None:
        set_inside(new)
        write(back(inside))

    _, shown_field, old, set_inside = _field(item, inside, place.path, f"{field} {place.path}")
    yield item, shown_field, old, write_inside


def _document(item: Obj, place: Place, text: str) -> tuple[Any, Callable[[Any], str]]:
    """Return what a key's JSON or YAML holds, and how it is written again."""
    broken = ParamsError(
        f"plugin manifest: {title(item)}: {place.key}: not JSON or YAML with fields in it",
        remedy=f"the catalogue looks for {place.path} there; see `kit plugins`",
    )
    try:
        if text.lstrip().startswith(("{", "[")):
            inside = json.loads(text)
            indent = None if "\n" not in text.strip() else 2
            end = "\n" if text.endswith("\n") else ""
            return inside, lambda new: json.dumps(new, indent=indent, ensure_ascii=False) + end
        inside = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise broken from error
    if not isinstance(inside, (dict, list)):
        raise broken
    return inside, lambda new: str(yaml.safe_dump(new, sort_keys=False))


def _field(item: Obj, root: Any, path: str, shown_path: str) -> Found:
    """Return the field at a dotted path; what is missing on the way to it is made on writing."""
    steps = path.split(".")
    value: Any = root
    for step in steps:
        value = _step(value, step)

    def write(new: Any) -> None:
        at: Any = root
        for step, following in pairwise(steps):
            inner = _step(at, step)
            if not isinstance(inner, (dict, list)):
                inner = [] if following.isdigit() else {}
                _assign(at, step, inner)
            at = inner
        _assign(at, steps[-1], new)

    return item, shown_path, value, write


def _step(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    return None


def _assign(at: Any, step: str, value: Any) -> None:
    if isinstance(at, dict):
        at[step] = value
    elif int(step) < len(at):
        at[int(step)] = value
    else:
        at.append(value)


def _in_containers(item: Obj, name: str, look: Callable[[Obj, Obj, str], Found]) -> Iterator[Found]:
    """Yield what the containers state; where none does, the first one is where it will stand."""
    spec = pod_spec(item)
    if spec is None:
        return
    looked = [look(item, each, name) for each in containers(spec)]
    having = [found for found in looked if found[2] is not None]
    first = [look(item, each, name) for each in (spec.get("containers") or [])[:1]]
    yield from having or first


def _env(item: Obj, container: Obj, name: str) -> Found:
    variables: list[Obj] = container.get("env") or []
    entry = next((each for each in variables if each.get("name") == name), None)
    old = None if entry is None else entry.get("value", entry.get("valueFrom", ""))

    def write(new: Any) -> None:
        if entry is None:
            container["env"] = [*variables, {"name": name, "value": str(new)}]
        else:
            entry.pop("valueFrom", None)
            entry["value"] = str(new)

    return item, f"{container.get('name')} env {name}", old, write


def _argument(item: Obj, container: Obj, flag: str) -> Found:
    for part in ("args", "command"):
        words = container.get(part) or []
        for at, word in enumerate(words):
            if str(word).startswith(f"{flag}="):
                return _word(item, container, words, at, flag, joined=True)
            if word == flag and at + 1 < len(words):
                return _word(item, container, words, at + 1, flag, joined=False)

    def append(new: Any) -> None:
        part = "args" if container.get("args") or not container.get("command") else "command"
        container[part] = [*(container.get(part) or []), f"{flag}={new}"]

    return item, f"{container.get('name')} {flag}", None, append


def _word(
    item: Obj, container: Obj, words: list[Any], at: int, flag: str, *, joined: bool
) -> Found:
    def write(new: Any) -> None:
        words[at] = f"{flag}={new}" if joined else str(new)

    old = str(words[at]).partition("=")[2] if joined else str(words[at])
    return item, f"{container.get('name')} {flag}", old, write


def _placeholders(item: Obj, value: Any, word: str, path: str) -> Iterator[Found]:
    """Yield every text value that holds a placeholder."""
    steps: list[Any] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    for step in steps:
        inner, at = value[step], f"{path}.{step}" if path else str(step)
        if isinstance(inner, str) and word in inner:
            yield item, at, inner, _writer(value, step)
        else:
            yield from _placeholders(item, inner, word, at)


def _writer(value: Any, step: Any) -> Callable[[Any], None]:
    def write(new: Any) -> None:
        value[step] = new

    return write
