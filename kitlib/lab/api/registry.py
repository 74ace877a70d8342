"""Creating, updating and deleting objects by the API's rules, for clients and controllers alike."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from kitlib.lab.api import admission, clock, defaults, errors, managed, validate
from kitlib.lab.api.admission import ACCOUNTS, CSRS, NODES, PODS
from kitlib.lab.api.managed import Owner
from kitlib.lab.api.schema import CRDS, Catalogue, Resource, catalogue
from kitlib.lab.api.settings import Settings
from kitlib.lab.api.state import terminating
from kitlib.lab.api.store import Event, Obj, Store, copy

__all__ = [
    "ACCOUNTS", "CONFIG_MAPS", "CSRS", "NAMESPACES", "NODES", "PODS", "SECRETS",
    "SYSTEM_NAMESPACES", "Registry",
]  # fmt: skip

NAMESPACES, CONFIG_MAPS, SECRETS = "/namespaces", "/configmaps", "/secrets"
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")

# Kinds whose metadata.generation counts changes of the specification.
_GENERATIONS = {
    "apps/deployments", "apps/daemonsets", "apps/replicasets", "apps/statefulsets",
    "/replicationcontrollers", "batch/jobs", "batch/cronjobs", CRDS,
    "networking.k8s.io/networkpolicies", "networking.k8s.io/ingresses",
    "policy/poddisruptionbudgets", "networking.k8s.io/ingressclasses",
    "discovery.k8s.io/endpointslices",
}  # fmt: skip
# Kinds whose fields have no owners here: written every few seconds, and nobody asks by whom.
_UNOWNED = {"/events", "coordination.k8s.io/leases"}
# Kinds whose writers may set the status together with the object.
_KEEPS_STATUS = {NODES, PODS, NAMESPACES}


class Registry:
    """The rules between a request (or a controller) and the store."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.minor = settings.minor
        self._catalogue: Catalogue | None = None
        store.subscribe(CRDS, self._crds_changed)

    @property
    def catalogue(self) -> Catalogue:
        """What is served now."""
        if self._catalogue is None:
            self._catalogue = catalogue(self.minor, self.store.items(CRDS))
        return self._catalogue

    def resource(self, group: str, version: str, plural: str) -> Resource:
        """Return a served resource.

        Raises:
            ApiError: 404 when this version of Kubernetes does not serve it.
        """
        found = self.catalogue.resources.get((group, version, plural))
        if found is None:
            raise errors.no_resource()
        return found

    def _crds_changed(self, _event: Event) -> None:
        self._catalogue = None

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Return a stored object (not to be changed).

        Raises:
            ApiError: 404.
        """
        found = self.store.get(resource.store, namespace, name)
        if found is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return found

    def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Obj,
        *,
        dry_run: bool = False,
        owner: Owner | None = None,
    ) -> Obj:
        """Create an object (`obj` is taken over) and return it; `owner` then owns its fields.

        Raises:
            ApiError: As the real API refuses.
        """
        meta = obj.setdefault("metadata", {})
        self._identify(resource, namespace, obj)
        if meta.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        if resource.namespaced:
            self._check_namespace(resource, namespace, meta.get("name", ""))
        if resource.custom:
            self._check_definition(resource)
        if resource.store not in _KEEPS_STATUS and "status" in resource.subresources:
            obj.pop("status", None)
        self._fill(resource, obj)
        self._own(resource, None, obj, owner)  # before admission, which owns nothing
        admission.admit(self.store, self.settings, resource, namespace, obj, dry_run=dry_run)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + clock.suffix()
        validate.check(resource, obj, None, self.minor)
        if self.store.get(resource.store, namespace, meta["name"]):
            raise errors.already_exists(resource.group, resource.plural, meta["name"])
        meta["uid"] = clock.uid()
        meta["creationTimestamp"] = clock.stamp()
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(field, None)
        if resource.store in _GENERATIONS or resource.custom:
            meta["generation"] = 1
        return obj if dry_run else self.store.put(resource.store, obj)

    def _own(self, resource: Resource, live: Obj | None, obj: Obj, owner: Owner | None) -> None:
        """Keep an object's managedFields: since 1.18 of all, before of what was applied so.

        The kubelets' statuses of pods and nodes are left out, as Events and Leases are.
        """
        busy = resource.store in (PODS, NODES) and owner is not None and owner.subresource
        before = ((live or {}).get("metadata") or {}).get("managedFields")
        if owner is None or busy or resource.store in _UNOWNED:
            return
        if self.minor >= 18 or before:
            own_status = "status" in resource.subresources and not owner.subresource
            beside = "status" if own_status else ""
            managed.track(live, obj, owner, resource.shape, clock.stamp(), beside)
        else:
            obj["metadata"].pop("managedFields", None)

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        obj: Obj,
        *,
        subresource: str = "",
        dry_run: bool = False,
        owner: Owner | None = None,
    ) -> Obj:
        """Replace an object, or only its status, and return what is stored then.

        What changed is `owner`'s then.

        Raises:
            ApiError: 404, 409 on a stale resourceVersion, 422.
        """
        old = self.get(resource, namespace, name)
        before = old["metadata"]
        meta = obj.setdefault("metadata", {})
        self._identify(resource, namespace, obj)
        if meta.get("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the "
                f"URL ({name})"
            )
        version = meta.get("resourceVersion")
        if version and version != before["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, name)
        if meta.get("uid") and meta["uid"] != before["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {meta['uid']}, "
                f"UID in object meta: {before['uid']}"
            )
            raise errors.conflict(resource.group, resource.plural, name, why)
        if subresource in ("status", "approval"):
            new = {**copy(old), "status": obj.get("status") or {}}
            if subresource == "status":
                for field in ("labels", "annotations"):
                    if field in meta:
                        new["metadata"][field] = meta[field]
            obj, meta = new, new["metadata"]
        elif "status" in resource.subresources and "status" in old:
            obj["status"] = old["status"]
        elif "status" in resource.subresources:
            obj.pop("status", None)
        for field in ("uid", "creationTimestamp", "generation", "deletionTimestamp",
                      "deletionGracePeriodSeconds", "resourceVersion"):  # fmt: skip
            meta.pop(field, None)
            if field in before:
                meta[field] = before[field]
        meta["name"] = name
        if not subresource:
            self._fill(resource, obj)
            self._own(resource, old, obj, owner)
            admission.keep(self.store, resource, obj, old)
            validate.check(resource, obj, old, self.minor)
        else:
            self._own(resource, old, obj, owner)
        if dry_run:
            return obj
        return self.save(resource.store, obj, old)

    def save(self, kind: str, obj: Obj, old: Obj) -> Obj:
        """Store a changed object; nothing happens when it did not change; return what is stored."""
        meta = obj["metadata"]
        held = meta.get("finalizers") or (kind == NAMESPACES and obj["spec"].get("finalizers"))
        if meta.get("deletionTimestamp") and not held and kind != PODS:
            return self.store.remove(kind, meta.get("namespace", ""), meta["name"]) or obj
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        if obj == old:
            return old
        if "generation" in meta and obj.get("spec") != old.get("spec"):
            meta["generation"] += 1
        return self.store.put(kind, obj)

    def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        change: Callable[[Obj], None],
        owner: Owner | None = None,
    ) -> Obj | None:
        """Change a stored object as a controller does; return it, or None when it is gone."""
        old = self.store.get(kind, namespace, name)
        if old is None:
            return None
        obj = copy(old)
        change(obj)
        self._own(self.catalogue.by_kind[kind], old, obj, owner)
        return self.save(kind, obj, old)

    def make(self, kind: str, obj: Obj) -> Obj:
        """Create an object of a storage kind as a controller does."""
        resource = self.catalogue.by_kind[kind]
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        return self.create(resource, obj["metadata"].get("namespace", ""), obj)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: Obj | None = None,
        *,
        dry_run: bool = False,
    ) -> tuple[Obj, bool]:
        """Delete an object; return it, and whether it is gone already.

        Raises:
            ApiError: 404, 409 when a precondition fails, 403 for a system namespace.
        """
        options = options or {}
        old = self.get(resource, namespace, name)
        wanted = options.get("preconditions") or {}
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            have = old["metadata"][field]
            if wanted.get(field) and wanted[field] != have:
                why = (
                    f"the {label} in the precondition ({wanted[field]}) does not match the "
                    f"{label} in record ({have}). The object might have been deleted and then "
                    "recreated"
                )
                raise errors.conflict(resource.group, resource.plural, name, why)
        if resource.store == NAMESPACES and name in SYSTEM_NAMESPACES[:3]:
            raise errors.forbidden("", "namespaces", name, "this namespace may not be deleted")
        if dry_run:
            return old, True
        return self.remove(resource.store, namespace, name, options)

    def remove(
        self, kind: str, namespace: str, name: str, options: Obj | None = None
    ) -> tuple[Obj, bool]:
        """Delete an existing object of a storage kind; return it, and whether it is gone."""
        options = options or {}
        old = self.store.get(kind, namespace, name)
        assert old is not None  # noqa: S101
        obj = copy(old)
        meta = obj["metadata"]
        grace = _grace(kind, obj, options)
        if kind == PODS and grace > 0:
            if not meta.get("deletionTimestamp") or grace < meta["deletionGracePeriodSeconds"]:
                due = clock.now() + dt.timedelta(seconds=grace)
                meta["deletionTimestamp"] = clock.stamp(due)
                meta["deletionGracePeriodSeconds"] = grace
            return self.save(kind, obj, old), False
        finalizers = list(meta.get("finalizers") or [])
        policy = options.get("propagationPolicy")
        if options.get("orphanDependents"):
            policy = "Orphan"
        extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy or "")
        if extra and extra not in finalizers:
            finalizers.append(extra)
        held = finalizers or (kind == NAMESPACES and obj["spec"].get("finalizers"))
        if not held:
            return self.store.remove(kind, namespace, name) or old, True
        meta.setdefault("deletionTimestamp", clock.stamp())
        meta.setdefault("deletionGracePeriodSeconds", 0)
        if finalizers:
            meta["finalizers"] = finalizers
        if kind == NAMESPACES:
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return self.save(kind, obj, old), False

    def _identify(self, resource: Resource, namespace: str, obj: Obj) -> None:
        given = (obj.get("apiVersion") or resource.api_version, obj.get("kind") or resource.kind)
        if given != (resource.api_version, resource.kind):
            raise errors.bad_request(
                f"the API version in the data ({given[0]}) does not match the expected API "
                f"version ({resource.api_version})"
                if given[0] != resource.api_version
                else f"the kind in the data ({given[1]}) does not match the expected kind "
                f"({resource.kind})"
            )
        obj["apiVersion"], obj["kind"] = given
        meta = obj["metadata"]
        if not resource.namespaced:
            meta.pop("namespace", None)
        elif meta.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.store.get(NAMESPACES, "", namespace)
        if found is None:
            raise errors.not_found("", "namespaces", namespace)
        if found["metadata"].get("deletionTimestamp"):
            why = (
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated"
            )
            raise errors.forbidden(resource.group, resource.plural, name, why)

    def _check_definition(self, resource: Resource) -> None:
        """Refuse a new object whose definition is being deleted."""
        found = self.store.get(CRDS, "", f"{resource.plural}.{resource.group}")
        if found and terminating(found):
            text = "create not allowed while custom resource definition is terminating"
            raise errors.ApiError(405, "MethodNotAllowed", text)

    def _fill(self, resource: Resource, obj: Obj) -> None:
        defaults.apply_defaults(resource.store, obj, self.minor)
        stored = self.catalogue.by_kind[resource.store].api_version
        obj["apiVersion"] = stored


def _grace(kind: str, obj: Obj, options: Obj) -> int:
    """Return how long a deletion waits for the kubelet, in seconds."""
    if kind != PODS or not obj["spec"].get("nodeName"):
        return 0
    if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    given = options.get("gracePeriodSeconds")
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30) if given is None else given)
