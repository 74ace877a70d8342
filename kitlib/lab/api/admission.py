"""What the API adds to an object on its way in, and what it keeps of one that is replaced."""

from __future__ import annotations

from kitlib.lab.api import addresses, clock, defaults, errors
from kitlib.lab.api.addresses import SERVICES
from kitlib.lab.api.schema import CRDS, Resource
from kitlib.lab.api.settings import Settings
from kitlib.lab.api.store import Obj, Store, copy

PODS, NODES, ACCOUNTS = "/pods", "/nodes", "/serviceaccounts"
CSRS = "certificates.k8s.io/certificatesigningrequests"
API_SERVICES = "apiregistration.k8s.io/apiservices"
WEBHOOKS = frozenset(
    {
        "admissionregistration.k8s.io/mutatingwebhookconfigurations",
        "admissionregistration.k8s.io/validatingwebhookconfigurations",
    }
)
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that holds a definition until its objects are gone."""

_PRIORITIES = "scheduling.k8s.io/priorityclasses"
_SYSTEM = ("system-cluster-critical", "system-node-critical")


def admit(
    store: Store,
    settings: Settings,
    resource: Resource,
    namespace: str,
    obj: Obj,
    *,
    dry_run: bool,
) -> None:
    """Change a new object as the API server's admission and strategies do.

    Raises:
        ApiError: 403 for a pod that admission refuses; 422 for an address that is not to be had.
    """
    kind = resource.store
    if kind == PODS:
        _pod(store, settings.minor, namespace, obj)
    elif kind == NODES:
        taints = obj.setdefault("spec", {}).get("taints") or []
        if not any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints):
            taints.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
        obj["spec"]["taints"] = taints
    elif kind == SERVICES:
        addresses.cluster_ip(store, settings, obj, dry_run=dry_run)
        addresses.node_ports(store, obj["spec"])
    elif kind == CRDS:
        _establish(obj)
    elif kind == API_SERVICES:
        _unreachable(obj)
    if resource.namespaced:
        obj["metadata"]["namespace"] = namespace


def keep(store: Store, resource: Resource, obj: Obj, old: Obj) -> None:
    """Carry over what clients leave out of an update and the API keeps."""
    if resource.store == SERVICES:
        for field in ("clusterIP", "clusterIPs"):
            if old["spec"].get(field) and not obj["spec"].get(field):
                obj["spec"][field] = old["spec"][field]
        addresses.node_ports(store, obj["spec"])
    elif resource.store == PODS:
        for field in ("nodeName", "serviceAccountName", "priority"):
            if field in old["spec"]:
                obj["spec"].setdefault(field, old["spec"][field])
    elif resource.store == CSRS:
        obj["spec"] = old["spec"]
    elif resource.store == CRDS:
        stored = obj["status"] = copy(old.get("status") or {})
        known = stored.setdefault("storedVersions", [])
        known += [name for name in _storage_versions(obj) if name not in known]


def notice(resource: Resource) -> str:
    """Return what a person must know who writes such an object to a lab, or nothing."""
    if resource.store in WEBHOOKS:
        return f"the lab's API is emulated: it stores a {resource.kind} and never calls it"
    if resource.store == API_SERVICES:
        return "the lab's API is emulated: it stores an APIService and never asks its server"
    return ""


def _pod(store: Store, minor: int, namespace: str, obj: Obj) -> None:
    spec, meta = obj["spec"], obj["metadata"]
    account = spec.get("serviceAccountName") or "default"
    mirror = "kubernetes.io/config.mirror" in (meta.get("annotations") or {})
    secret = ""
    if not mirror:
        name = meta.get("name") or meta.get("generateName", "")
        found = store.get(ACCOUNTS, namespace, account)
        if found is None:
            why = (
                f"error looking up service account {namespace}/{account}: serviceaccount "
                f'"{account}" not found'
            )
            raise errors.forbidden("", "pods", name, why)
        secret = next((entry["name"] for entry in found.get("secrets") or []), "")
        _priority(store, minor, namespace, name, spec)
    defaults.admit_pod(obj, clock.suffix(), minor, secret)


def _priority(store: Store, minor: int, namespace: str, name: str, spec: Obj) -> None:
    wanted = spec.get("priorityClassName")
    if wanted in _SYSTEM:
        if minor <= 16 and namespace != "kube-system":
            why = f"pods with {wanted} priorityClass is not permitted in {namespace} namespace"
            raise errors.forbidden("", "pods", name, why)
    elif wanted:
        found = store.get(_PRIORITIES, "", wanted)
        if found is None:
            why = f"no PriorityClass with name {wanted} was found"
            raise errors.forbidden("", "pods", name, why)
        spec.setdefault("priority", found.get("value", 0))


def _storage_versions(crd: Obj) -> list[str]:
    return [entry["name"] for entry in crd["spec"].get("versions") or [] if entry.get("storage")]


def _establish(obj: Obj) -> None:
    """Give a new CustomResourceDefinition the status of an established one."""
    when = clock.stamp()
    told = (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    )
    finalizers = obj["metadata"].setdefault("finalizers", [])
    finalizers += [] if CLEANUP in finalizers else [CLEANUP]
    obj["status"] = {
        "acceptedNames": obj["spec"]["names"],
        "storedVersions": _storage_versions(obj),
        "conditions": [
            {"type": type_, "status": "True", "reason": reason, "message": text,
             "lastTransitionTime": when}
            for type_, reason, text in told
        ],
    }  # fmt: skip


def _unreachable(obj: Obj) -> None:
    """Give a new APIService the status of one whose server cannot be asked."""
    reason = {
        "type": "Available",
        "status": "False",
        "reason": "EmulatedByTheLab",
        "message": "the lab's API is emulated: it never asks another server",
        "lastTransitionTime": clock.stamp(),
    }
    obj["status"] = {"conditions": [reason]}
