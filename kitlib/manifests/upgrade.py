"""Objects of an API that is gone, as the API has them now: the same thing in other words.

What an old API filled in by itself and a new one fills in otherwise is written out, so that the
object means what its author meant. What has no successor is left out, and said.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from kitlib.manifests.objects import Obj, dump, title
from kitlib.manifests.reading import in_order, read, unique
from kitlib.manifests.served import in_words, served_as, unserved
from kitlib.manifests.traps import control_plane_words, not_ready_tolerations, on_control_planes
from kitlib.plugins.schema import Plugin

__all__ = ["shown_manifest", "upgrade"]

_WORKLOADS = ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")
_SAME = {
    "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "APIService", "CronJob",
    "PodDisruptionBudget", "PriorityClass", "StorageClass", "CSIDriver", "Lease", "RuntimeClass",
    "IngressClass", "PodSecurityPolicy",
}  # fmt: skip
"""Kinds whose newer API version has the same fields, as far as manifests use them."""
_OPEN_SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def shown_manifest(plugin: Plugin, kubernetes_version: str, text: str) -> tuple[str, list[str]]:
    """Return a manifest as it would have to be for a Kubernetes version, and what was changed.

    Args:
        plugin: The plugin that it is of.
        kubernetes_version: Such as 1.31.
        text: The manifest as its authors publish it.

    Returns:
        YAML text, and notes: each change, and what no manifest can mend, one line each.

    Raises:
        ParamsError: The text is no manifest.
    """
    where = plugin.name
    objects, notes = unique(read(text, where), where)
    objects, changed = upgrade(objects, kubernetes_version)
    notes += changed
    notes += map(str, not_ready_tolerations(objects, plugin, kubernetes_version))
    notes += map(str, control_plane_words(objects, kubernetes_version))
    notes += map(str, on_control_planes(objects, plugin, kubernetes_version))
    still = in_words(objects, kubernetes_version)
    if still:
        notes.append(f"Kubernetes {kubernetes_version} still does not serve {still}")
    for broken in plugin.kubernetes.broken_on(kubernetes_version):
        notes.append(f"why it was not meant for {broken.since} and newer: {broken.why}")
    return dump(in_order(objects)), notes


def upgrade(objects: list[Obj], kubernetes_version: str) -> tuple[list[Obj], list[str]]:
    """Return objects that a Kubernetes version serves, and what was changed, one line each.

    Those that it serves as they are stay the same, and so do those of which no successor is known.
    The objects given are not changed.
    """
    old = {id(item) for item in unserved(objects, kubernetes_version)}
    result, notes = [], []
    for item in objects:
        if id(item) not in old:
            result.append(item)
            continue
        new, note = _upgraded(copy.deepcopy(item), kubernetes_version)
        notes.append(f"{title(item)}: {note}")
        if new is not None:
            result.append(new)
    return result, notes


def _upgraded(item: Obj, version: str) -> tuple[Obj | None, str]:
    """Return an object as a version serves it (None to leave it out), and what was done."""
    kind, old = item["kind"], item["apiVersion"]
    target = served_as(kind, version)
    if not target:
        if kind == "PodSecurityPolicy":
            return None, f"left out: Kubernetes {version} has no PodSecurityPolicy"
        return item, f"{old} stays: Kubernetes {version} serves no successor of it"
    convert = _CONVERTERS.get((kind, target)) or (_same if kind in _SAME else None)
    if convert is None and kind == "Ingress":
        convert = _same  # between the two beta versions
    if convert is None:
        return item, f"{old} stays: how to write it as {target} is not known to the kit"
    what = convert(item)
    if what is None:
        return item, f"{old} stays: its pods have no labels that a selector could name"
    item["apiVersion"] = target
    return item, f"{old} -> {target}" + (f"; {what}" if what else "")


def _same(item: Obj) -> str | None:
    del item
    return ""


def _workload(item: Obj) -> str | None:
    spec = item.setdefault("spec", {})
    said = []
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if not spec.get("selector"):
        if not labels:
            return None
        spec["selector"] = {"matchLabels": dict(labels)}
        said.append(f"selector from its pods' labels ({_pairs(labels)})")
    for field in ("templateGeneration", "rollbackTo"):
        if spec.pop(field, None) is not None:
            said.append(f"without {field}")
    if item["kind"] == "DaemonSet" and item["apiVersion"] == "extensions/v1beta1":
        strategy = spec.setdefault("updateStrategy", {"type": "OnDelete"})
        if strategy == {"type": "OnDelete"}:
            said.append("updateStrategy OnDelete, as it was without a word")
    return ", ".join(said)


def _definition(item: Obj) -> str | None:
    """Write a CustomResourceDefinition as v1 has it: everything a version has, in the version."""
    spec = item.setdefault("spec", {})
    versions = spec.get("versions") or [
        {"name": spec.get("version", "v1"), "served": True, "storage": True}
    ]
    shared = {}
    columns = spec.pop("additionalPrinterColumns", None)
    if columns:
        shared["additionalPrinterColumns"] = columns
    if spec.get("subresources"):
        shared["subresources"] = spec["subresources"]
    had_schema = bool(spec.get("validation"))
    for field in ("version", "validation", "subresources", "preserveUnknownFields"):
        spec.pop(field, None)
    spec["versions"] = []
    for each in versions:
        made = {**copy.deepcopy(shared), **each}
        had_schema = had_schema or "schema" in each
        made["schema"] = {"openAPIV3Schema": dict(_OPEN_SCHEMA)}
        for column in made.get("additionalPrinterColumns", []):
            if "JSONPath" in column:
                column["jsonPath"] = column.pop("JSONPath")
        spec["versions"].append(made)
    spec.setdefault("scope", "Namespaced")
    _conversion(spec)
    item.pop("status", None)
    said = "a schema that takes any field"
    return said + (", where it had one that v1 may refuse" if had_schema else "")


def _conversion(spec: Obj) -> None:
    conversion = spec.get("conversion")
    if isinstance(conversion, dict) and "webhookClientConfig" in conversion:
        spec["conversion"] = {
            "strategy": conversion.get("strategy", "Webhook"),
            "webhook": {
                "clientConfig": conversion["webhookClientConfig"],
                "conversionReviewVersions": conversion.get("conversionReviewVersions", ["v1beta1"]),
            },
        }


def _webhooks(item: Obj) -> str | None:
    """Write out what v1beta1 filled in by itself, and what v1 wants to be said."""
    said = set()
    for hook in item.get("webhooks") or []:
        for field, value in (
            ("failurePolicy", "Ignore"),
            ("matchPolicy", "Exact"),
            ("timeoutSeconds", 30),
            ("admissionReviewVersions", ["v1beta1"]),
        ):
            if field not in hook:
                hook[field] = value
                said.add(field)
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            hook["sideEffects"] = "None"
            said.add("sideEffects None, which its authors did not say")
    return f"written out: {', '.join(sorted(said))}" if said else ""


def _ingress(item: Obj) -> str | None:
    spec = item.setdefault("spec", {})
    if "backend" in spec:
        spec["defaultBackend"] = _backend(spec.pop("backend"))
    for rule in spec.get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            path["backend"] = _backend(path.get("backend") or {})
            path.setdefault("pathType", "ImplementationSpecific")
    return "backends written as services with a port"


def _backend(old: Obj) -> Obj:
    if "serviceName" not in old:
        return old
    port = old.get("servicePort")
    named = {"name": port} if isinstance(port, str) and not port.isdigit() else None
    return {
        "service": {"name": old["serviceName"], "port": named or {"number": int(port or 0)}},
        **({"resource": old["resource"]} if "resource" in old else {}),
    }


def _policy(item: Obj) -> str | None:
    item.setdefault("spec", {}).setdefault("podSelector", {})
    return ""


_CONVERTERS: dict[tuple[str, str], Callable[[Obj], str | None]] = {
    **{(kind, "apps/v1"): _workload for kind in _WORKLOADS},
    **{
        (kind, "admissionregistration.k8s.io/v1"): _webhooks
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    },
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1"): _definition,
    ("Ingress", "networking.k8s.io/v1"): _ingress,
    ("NetworkPolicy", "networking.k8s.io/v1"): _policy,
}


def _pairs(labels: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())
