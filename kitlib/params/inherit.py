"""Hosts with what they inherit: a host's own values go before its groups', those before defaults.

It works on raw values and passes over what is malformed, which has its own problem already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["INHERITED", "groups_of", "with_inherited"]

INHERITED = ("role", "port", "user", "identity_file", "labels", "taints")
"""The keys of a host that may stand in a group or in `defaults` as well."""


def groups_of(host: Mapping[str, Any]) -> list[str]:
    """Return the names of a host's groups, in the host's order."""
    stated = host.get("group", "")
    names = stated if isinstance(stated, (list, tuple)) else [stated]
    return [name for name in names if isinstance(name, str) and name]


def with_inherited(host: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a host's values with those filled in that it inherits.

    An empty value counts as none. Labels and taints are merged, a label by its key, a taint by its
    key and effect; of everything else the nearest value holds. Of two groups the first named does.

    Args:
        host: The host's own values.
        data: The whole file's values: `groups` and `defaults` are looked at.
    """
    groups = _mapping(data.get("groups"))
    layers = [
        _mapping(data.get("defaults")),
        *(_mapping(groups.get(name)) for name in reversed(groups_of(host))),
        host,
    ]  # the farthest first
    found = dict(host)
    for key in INHERITED:
        values = [layer[key] for layer in layers if key in layer and _stated(layer[key])]
        if not values:
            continue
        if key == "labels" and all(isinstance(value, Mapping) for value in values):
            found[key] = {name: text for value in values for name, text in value.items()}
        elif key == "taints" and all(isinstance(value, (list, tuple)) for value in values):
            found[key] = list({_slot(each): each for value in values for each in value}.values())
        else:
            found[key] = values[-1]
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _stated(value: Any) -> bool:
    return value not in ("", 0, None)


def _slot(taint: Any) -> str:
    """Return what makes a taint the same one: its key and effect, without its value."""
    pair, _, effect = str(taint).partition(":")
    return f"{pair.partition('=')[0]}:{effect}"
