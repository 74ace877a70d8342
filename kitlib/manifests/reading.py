"""A manifest's text into objects: several documents, Lists taken apart, in the order of applying.

It is read as kubectl reads it, and before anything is touched: an error page, a template that
nobody filled in, and an object that stands there twice with two meanings are refused by name.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from kitlib.errors import ParamsError
from kitlib.manifests.objects import Obj, identity, title

__all__ = ["in_order", "read", "unique"]

_LOOK = "look at the file; an error page saved as a manifest is the usual cause"
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads dates as text, as kubectl does: JSON has none."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_scalar)


def read(text: str, where: str) -> list[Obj]:
    """Return a manifest's objects as they stand there, Lists taken apart.

    Args:
        text: The manifest: YAML documents, or JSON.
        where: Where it is from; messages name it.

    Raises:
        ParamsError: It is not YAML, a template that was not filled in, holds no object, or one
            without apiVersion, kind and name.
    """
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_yaml(text, where, error) from error
    objects: list[Obj] = []
    for number, document in enumerate(documents, start=1):
        if document is not None:
            objects += _objects(document, f"{where}: document {number}")
    if not objects:
        raise ParamsError(f"plugin manifest: {where}: no object in it")
    return objects


def _not_yaml(text: str, where: str, error: Exception) -> ParamsError:
    for number, line in enumerate(text.splitlines(), start=1):
        found = _TEMPLATE.search(line)
        if found and not line.lstrip().startswith("#"):
            return ParamsError(
                f"plugin manifest: {where}: not YAML but a template: {found[0][:80]} in line "
                f"{number} has not been filled in",
                remedy="render it with the tool that it is made for (helm template, sed, its own "
                "script) and name the result as plugin_manifest",
            )
    why = " ".join(str(error).split())
    return ParamsError(f"plugin manifest: {where}: not YAML: {why}", remedy=_LOOK)


def _objects(item: Any, where: str) -> list[Obj]:
    """Return the object of a document, or those of a List."""
    if isinstance(item, dict) and _is_list(item):
        parts = item.get("items") or []
        if not isinstance(parts, list):
            raise ParamsError(f"plugin manifest: {where}: a List without a list of items")
        return [each for part in parts for each in _objects(part, where)]
    named = isinstance(item, dict) and isinstance(item.get("metadata"), dict)
    if not named or not all(isinstance(item.get(key), str) for key in ("apiVersion", "kind")):
        raise ParamsError(
            f"plugin manifest: {where}: not a Kubernetes object (apiVersion, kind, metadata)",
            remedy=_LOOK,
        )
    if not (item["metadata"].get("name") or item["metadata"].get("generateName")):
        raise ParamsError(
            f"plugin manifest: {where}: a {item['kind']} without a name", remedy=_LOOK
        )
    found: Obj = item
    return [found]


def _is_list(item: Obj) -> bool:
    """Return whether a document is `kind: List`, or a typed list such as ConfigMapList."""
    kind = str(item.get("kind", ""))
    return kind == "List" or (kind.endswith("List") and isinstance(item.get("items"), list))


def unique(objects: list[Obj], where: str) -> tuple[list[Obj], list[str]]:
    """Return the objects without those that stand there again, word for word, and what was left.

    Raises:
        ParamsError: Two objects have one name and different contents: the last one would win.
    """
    seen: dict[tuple[str, ...], tuple[int, Obj]] = {}
    again, clashes = [], []
    for number, item in enumerate(objects, start=1):
        first, other = seen.setdefault(identity(item), (number, item))
        if other is item:
            continue
        if other == item:
            again.append(f"{title(item)} stands in the manifest twice, word for word: applied once")
        else:
            clashes.append(f"{title(item)} (objects {first} and {number})")
    if clashes:
        raise ParamsError(
            f"plugin manifest: {where}: two different objects of one name: {', '.join(clashes)}",
            remedy="leave the one in that is wanted, and name the file as plugin_manifest",
        )
    return [item for _, item in seen.values()], again


def in_order(objects: list[Obj]) -> list[Obj]:
    """Return the objects in the order of applying: namespaces, definitions of kinds, the others.

    The others keep the order that they stand in.
    """
    ranks = {"Namespace": 0, "CustomResourceDefinition": 1}
    return sorted(objects, key=lambda item: ranks.get(item["kind"], 2))
