"""Discovery and OpenAPI documents: what clients ask before they ask for anything else."""

from __future__ import annotations

import hashlib
from typing import Any

from kitlib.lab.api import errors
from kitlib.lab.api.schema import LAST, Catalogue, Resource
from kitlib.lab.api.settings import Settings
from kitlib.lab.api.store import Obj, dumps

# subresource -> (kind, verbs); the kind "" stands for the resource's own.
_SUBRESOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "approval": ("", ("get", "patch", "update")),
    "binding": ("Binding", ("create",)),
    "eviction": ("Eviction", ("create",)),
    "exec": ("PodExecOptions", ("create", "get")),
    "finalize": ("Namespace", ("update",)),
    "log": ("Pod", ("get",)),
    "scale": ("Scale", ("get", "patch", "update")),
    "status": ("", ("get", "patch", "update")),
    "token": ("TokenRequest", ("create",)),
}


# since which minor version aggregated discovery is on by default, by its form
_AGGREGATED = ((30, "v2"), (27, "v2beta1"))

# An OpenAPI v2 document with nothing in it (swagger "2.0", info, paths), in the protobuf form that
# kubectl asks for. It skips its own validation of kinds that the document does not describe.
OPENAPI_V2 = b"\x0a\x032.0\x12\x13\x0a\x0aKubernetes\x12\x05empty\x42\x00"
OPENAPI_V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def version(settings: Settings) -> Obj:
    """Return the answer of `/version`."""
    major, minor, *_ = settings.version.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{settings.version}",
        "gitCommit": hashlib.sha1(settings.version.encode(), usedforsecurity=False).hexdigest(),
        "gitTreeState": "clean",
        "buildDate": "2020-01-01T00:00:00Z",
        "goVersion": "go1.21.13",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def core_versions(settings: Settings) -> Obj:
    """Return the answer of `/api`."""
    address = f"{settings.advertise}:{settings.port}"
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(catalogue: Catalogue) -> Obj:
    """Return the answer of `/apis`."""
    found = [_group(name, versions) for name, versions in catalogue.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(catalogue: Catalogue, name: str) -> Obj:
    """Return the answer of `/apis/<group>`.

    Raises:
        ApiError: 404 for a group that is not served.
    """
    versions = catalogue.groups().get(name)
    if not versions or not name:
        raise errors.no_resource()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def _group(name: str, versions: list[str]) -> Obj:
    entries = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def resources(catalogue: Catalogue, group_name: str, version_name: str, minor: int) -> Obj:
    """Return the answer of `/api/v1` or `/apis/<group>/<version>`.

    Raises:
        ApiError: 404 for a group version that is not served.
    """
    served = _of(catalogue, group_name, version_name)
    if not served:
        raise errors.no_resource()
    entries = [entry for resource in served for entry in _entries(resource, minor)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": served[0].api_version,
        "resources": entries,
    }


def _of(catalogue: Catalogue, group_name: str, version_name: str) -> list[Resource]:
    found = [
        resource
        for (group_, version_, _), resource in catalogue.resources.items()
        if (group_, version_) == (group_name, version_name)
    ]
    return sorted(found, key=lambda resource: resource.plural)


def _entries(resource: Resource, minor: int) -> list[Obj]:
    entry: Obj = {
        "name": resource.plural,
        "singularName": resource.singular if resource.custom or minor >= 27 else "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    found = [entry]
    for name in resource.subresources:
        kind, verbs = _SUBRESOURCES[name]
        sub: Obj = {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind or resource.kind,
            "verbs": list(verbs),
        }
        outside = {
            "eviction": ("policy", "v1" if minor >= 22 else "v1beta1"),
            "scale": ("autoscaling", "v1"),
            "token": ("authentication.k8s.io", "v1"),
        }.get(name)
        if outside:
            sub["group"], sub["version"] = outside
        found.append(sub)
    return found


def aggregated(catalogue: Catalogue, minor: int, accept: str, *, core: bool) -> tuple[Obj, str]:
    """Return the aggregated answer of `/api` or `/apis`, and its media type.

    Both are empty where the client does not ask for it or the version does not have it: from 1.27
    on (v2beta1), and as v2 since 1.30. It saves clients a request for each group version.
    """
    for wanted in accept.replace(" ", "").split(","):
        for since, form in _AGGREGATED:
            parts = {f"v={form}", "g=apidiscovery.k8s.io", "as=APIGroupDiscoveryList"}
            if minor >= since and parts <= set(wanted.split(";")):
                return _aggregated(catalogue, form, core=core), wanted
    return {}, ""


def _aggregated(catalogue: Catalogue, form: str, *, core: bool) -> Obj:
    items = []
    for name, versions in catalogue.groups().items():
        if bool(name) == core:
            continue
        told = [
            {
                "version": each,
                "resources": [_discovered(resource) for resource in _of(catalogue, name, each)],
                "freshness": "Current",
            }
            for each in versions
        ]
        meta = {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}
        items.append({"metadata": meta, "versions": told})
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{form}"}
    return {**head, "metadata": {}, "items": items}


def _discovered(resource: Resource) -> Obj:
    """Return one resource as aggregated discovery words it: what `_entries` says, in a tree."""
    first, *rest = _entries(resource, LAST)
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    found: Obj = {
        "resource": first["name"],
        "responseKind": gvk,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": first["singularName"],
        "verbs": first["verbs"],
        **{key: first[key] for key in ("shortNames", "categories") if key in first},
    }
    if rest:
        found["subresources"] = [
            {
                "subresource": sub["name"].partition("/")[2],
                "responseKind": {
                    "group": sub.get("group", resource.group),
                    "version": sub.get("version", resource.version),
                    "kind": sub["kind"],
                },
                "verbs": sub["verbs"],
            }
            for sub in rest
        ]
    return found


def openapi_index(catalogue: Catalogue) -> Obj:
    """Return the answer of `/openapi/v3`."""
    paths: Obj = {}
    for name, versions in catalogue.groups().items():
        for each in versions:
            path = f"apis/{name}/{each}" if name else f"api/{each}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
    return {"paths": paths}


def openapi(catalogue: Catalogue, group_name: str, version_name: str) -> Obj:
    """Return the OpenAPI v3 document of one group version.

    It holds what kubectl looks for before it applies: that a PATCH of each kind takes
    `fieldValidation`, so that validation is the server's.
    """
    served = _of(catalogue, group_name, version_name)
    if not served:
        raise errors.no_resource()
    paths: Obj = {}
    for resource in served:
        root = f"/apis/{group_name}/{version_name}" if group_name else f"/api/{version_name}"
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        paths[f"{root}{scope}/{resource.plural}/{{name}}"] = {"patch": _operation(gvk)}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "emulated"},
        "paths": paths,
        "components": {"schemas": {}},
    }


def _operation(gvk: dict[str, str]) -> dict[str, Any]:
    names = ("dryRun", "fieldManager", "fieldValidation", "force")
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in names
        ],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-group-version-kind": gvk,
        "x-kubernetes-action": "patch",
    }


def etag(document: Obj) -> str:
    """Return a hash that changes when a document does."""
    return hashlib.sha256(dumps(document).encode()).hexdigest()[:32]
