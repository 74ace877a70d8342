"""The cluster roles that every API server makes itself, as far as a kubeadm cluster binds them."""

from __future__ import annotations

from typing import Any

from kitlib.lab.api.registry import Registry
from kitlib.lab.api.store import Obj

_KIND = "rbac.authorization.k8s.io/clusterroles"
_READ = ["get", "list", "watch"]


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


_ROLES: dict[str, list[dict[str, Any]]] = {
    "cluster-admin": [_rule("*", ["*"], ["*"])],
    "system:node-proxier": [
        _rule("", ["endpoints", "services"], ["list", "watch"]),
        _rule("", ["nodes"], _READ),
        _rule("", ["events"], ["create", "patch", "update"]),
        _rule("events.k8s.io", ["events"], ["create", "patch", "update"]),
        _rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
    ],
}


def publish_roles(registry: Registry) -> None:
    """Make the roles that are missing."""
    for name, rules in _ROLES.items():
        if registry.store.get(_KIND, "", name) is None:
            meta = {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
            role: Obj = {"metadata": meta, "rules": rules}
            registry.make(_KIND, role)
