"""What every part of the engine needs to know of an object: who it is, and where its pods stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

__all__ = [
    "LIMIT",
    "Obj",
    "containers",
    "dump",
    "identity",
    "is_large",
    "namespaced",
    "pod_spec",
    "title",
    "wire_size",
]

Obj = dict[str, Any]
"""One object as YAML or JSON gives it."""

LIMIT = 262_144
"""Bytes that all annotations of an object may have; `kubectl apply` keeps the object in one."""
_MARGIN = 4_096

_CLUSTER_WIDE = {
    "APIService", "ClusterRole", "ClusterRoleBinding", "CSIDriver", "CustomResourceDefinition",
    "IngressClass", "MutatingWebhookConfiguration", "Namespace", "Node", "PersistentVolume",
    "PodSecurityPolicy", "PriorityClass", "RuntimeClass", "StorageClass",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
}  # fmt: skip
_TEMPLATED = frozenset(
    ("DaemonSet", "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "Job")
)
_DUBIOUS = frozenset(("", "y", "Y", "n", "N", "=", "<<", "null", "Null", "NULL"))


def namespaced(item: Obj) -> bool:
    """Return whether an object of Kubernetes' own kinds lives in a namespace."""
    return item["kind"] not in _CLUSTER_WIDE


def identity(item: Obj) -> tuple[str, str, str, str]:
    """Return (API group, kind, namespace, name): what two objects may not have in common.

    The version is no part of it: extensions/v1beta1 and apps/v1 name the same DaemonSet, so that
    the group is left out of the kinds that moved.
    """
    group = item["apiVersion"].rpartition("/")[0]
    group = "apps" if group == "extensions" and item["kind"] in _TEMPLATED else group
    meta = item["metadata"]
    space = str(meta.get("namespace") or "default") if namespaced(item) else ""
    return group, str(item["kind"]), space, str(meta.get("name") or meta.get("generateName", ""))


def title(item: Obj) -> str:
    """Return an object in words: `DaemonSet kube-system/calico-node`."""
    meta = item["metadata"]
    space = f"{meta['namespace']}/" if meta.get("namespace") and namespaced(item) else ""
    return f"{item['kind']} {space}{meta.get('name') or meta.get('generateName', '')}"


def pod_spec(item: Obj) -> Obj | None:
    """Return the pod specification of a workload, to look at or to change; None where it has none.

    A workload without one, which the API would refuse, counts as none.
    """
    spec = item.get("spec")
    if item["kind"] == "CronJob":
        spec = _under(spec, "jobTemplate", "spec")
    if item["kind"] == "CronJob" or item["kind"] in _TEMPLATED:
        spec = _under(spec, "template", "spec")
    elif item["kind"] != "Pod":
        return None
    return spec if isinstance(spec, dict) else None


def _under(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def containers(value: Any) -> Iterator[Obj]:
    """Yield every container below a value, those that start first before the others.

    Also those in pod templates of custom resources.
    """
    if isinstance(value, list):
        for each in value:
            yield from containers(each)
    if not isinstance(value, dict):
        return
    for key in ("initContainers", "containers", "ephemeralContainers"):
        found = value.get(key)
        if isinstance(found, list):
            yield from (each for each in found if isinstance(each, dict))
    for each in value.values():
        yield from containers(each)


def wire_size(item: Obj) -> int:
    """Return how many bytes the annotation has in which `kubectl apply` keeps an object."""
    text = json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    # Go writes these three as \u003c and so on.
    return len(text.encode()) + 5 * sum(text.count(mark) for mark in "<>&")


def is_large(item: Obj) -> bool:
    """Return whether an object is too large for `kubectl apply` without --server-side."""
    own = item["metadata"].get("annotations") or {}
    held = sum(len(str(key)) + len(str(value)) for key, value in own.items())
    return wire_size(item) + held > LIMIT - _MARGIN


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes YAML that kubectl, which knows other numbers and truths than Python, reads alike."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: Any, value: str) -> Any:
    style = None
    if "\n" in value and not any(line != line.rstrip() for line in value.split("\n")):
        style = "|"
    elif value in _DUBIOUS or value[0] in "0123456789+-.":
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(objects: list[Obj]) -> str:
    """Return objects as YAML, one document each."""
    return str(
        yaml.dump_all(
            objects,
            Dumper=_Dumper,
            sort_keys=False,
            default_flow_style=False,
            allow_unicode=True,
            width=1000,
            explicit_start=True,
        )
    )
