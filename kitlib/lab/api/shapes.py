"""How the values of an object merge: which maps and lists are one value, and what keys lists have.

Built-in kinds are told by field names, which mean the same wherever they occur (but for `ports`,
whose items tell). Custom resources are told by the schema of their definition, where a list is one
value unless the schema says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kitlib.lab.api.store import Obj, dumps

ATOMIC, GRANULAR, KEYED, SET = "atomic", "granular", "keyed", "set"

# Lists that merge by keys, by field name. Where a name is used twice, the items tell.
_KEYS: dict[str, tuple[str, ...]] = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "secrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
    "webhooks": ("name",),
}
_SETS = frozenset({"finalizers", "podCIDRs", "loadBalancerSourceRanges"})
# Maps that have one owner as a whole: selectors and references.
_ATOMIC_MAPS = frozenset(
    {
        "configMapKeyRef", "fieldRef", "labelSelector", "namespaceSelector", "nodeSelector",
        "objectSelector", "podSelector", "requiredDuringSchedulingIgnoredDuringExecution",
        "resourceFieldRef", "roleRef", "scaleTargetRef", "secretKeyRef", "selector",
    }
)  # fmt: skip
# Maps with free keys: the map itself has owners too, where it was not applied.
_MAPS = frozenset(
    {"annotations", "binaryData", "data", "labels", "limits", "matchLabels", "requests"}
)
_DEFAULTS = {"protocol": "TCP"}


def list_keys(name: str, items: list[Any]) -> tuple[str, ...]:
    """Return the keys that identify the items of a built-in list; none for an atomic list."""
    if not items or not isinstance(items[0], dict):
        return ()
    if name == "ports":
        if "containerPort" in items[0]:
            return ("containerPort", "protocol")
        return ("port", "protocol") if "port" in items[0] else ()
    keys = _KEYS.get(name, ())
    named = [item for item in items if "$patch" not in item or len(item) > 1]
    return keys if all(keys and keys[0] in item for item in named) else ()


def is_set(name: str) -> bool:
    """Return whether a built-in list of plain values merges as a set."""
    return name in _SETS


def identity(keys: tuple[str, ...], item: Obj) -> str:
    """Return a list item's part of a field path, as managedFields writes it."""
    named = {key: item.get(key, _DEFAULTS.get(key)) for key in sorted(keys)}
    return "k:" + dumps({key: value for key, value in named.items() if value is not None})


def fits(item: Obj, wanted: Obj) -> bool:
    """Return whether a list item is the one with these keys."""
    return all(item.get(key, _DEFAULTS.get(key)) == value for key, value in wanted.items())


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of one value of a built-in kind, known by its field's name."""

    name: str = ""

    def form(self, value: Any) -> tuple[str, tuple[str, ...]]:
        """Return how a value of this field merges, and the keys where that is by keys."""
        if isinstance(value, dict):
            return (ATOMIC if self.name in _ATOMIC_MAPS else GRANULAR), ()
        if isinstance(value, list):
            if is_set(self.name):
                return SET, ()
            keys = list_keys(self.name, value)
            return (KEYED, keys) if keys else (ATOMIC, ())
        return ATOMIC, ()

    @property
    def owned(self) -> bool:
        """Whether the value itself has owners, beside its parts."""
        return self.name in _MAPS

    def at(self, name: str) -> Shape:
        """Return the form of a field."""
        return Shape(name)

    def item(self) -> Shape:
        """Return the form of a list's items."""
        return Shape()


@dataclass(frozen=True, slots=True)
class Described(Shape):
    """The form of one value of a custom resource, by the schema that describes it."""

    schema: Obj = field(default_factory=dict)

    def form(self, value: Any) -> tuple[str, tuple[str, ...]]:
        """Return how a value of this field merges, and the keys where that is by keys."""
        if isinstance(value, dict):
            one = self.schema.get("x-kubernetes-map-type") == "atomic"
            return (ATOMIC if one else GRANULAR), ()
        if isinstance(value, list):
            kind = self.schema.get("x-kubernetes-list-type", "atomic")
            if kind == "map" and all(isinstance(item, dict) for item in value):
                return KEYED, tuple(self.schema.get("x-kubernetes-list-map-keys") or ())
            return (SET if kind == "set" else ATOMIC), ()
        return ATOMIC, ()

    @property
    def owned(self) -> bool:
        """Whether the value itself has owners, beside its parts."""
        return True

    def at(self, name: str) -> Shape:
        """Return the form of a field; metadata is the same for every kind."""
        if name == "metadata" and not self.name:
            return Shape(name)
        known = (self.schema.get("properties") or {}).get(name)
        other = self.schema.get("additionalProperties")
        inner = known or (other if isinstance(other, dict) else {})
        return Described(name, inner)

    def item(self) -> Shape:
        """Return the form of a list's items."""
        return Described("item", self.schema.get("items") or {})
