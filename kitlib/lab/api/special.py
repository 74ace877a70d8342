"""Subresources and reviews that are not plain storage: scale, eviction, binding, token, access."""

from __future__ import annotations

import datetime as dt
from typing import Any

from aiohttp import web

from kitlib.lab.api import clock, disruption, errors
from kitlib.lab.api.auth import AUTHENTICATED, Ask, Auth, User
from kitlib.lab.api.handlers import answer, body, owner_of, patched, success
from kitlib.lab.api.registry import PODS, Registry
from kitlib.lab.api.schema import Resource
from kitlib.lab.api.store import Obj

REVIEWS = frozenset(
    {
        "localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectreviews",
        "selfsubjectrulesreviews", "subjectaccessreviews", "tokenreviews",
    }
)  # fmt: skip
_HOUR = 3600


class Special:
    """Handlers of the unusual subresources and of the review kinds."""

    def __init__(self, registry: Registry, auth: Auth) -> None:
        self._registry = registry
        self._auth = auth

    async def scale(
        self, request: web.Request, resource: Resource, namespace: str, name: str
    ) -> web.Response:
        """Read or write the number of replicas through autoscaling/v1 Scale."""
        live = self._registry.get(resource, namespace, name)
        shown = _scale(live)
        if request.method == "GET":
            return answer(shown)
        change = await body(request)
        if request.method == "PATCH":
            change = patched(request.content_type, shown, change)
        version = (change.get("metadata") or {}).get("resourceVersion")
        if version and version != live["metadata"]["resourceVersion"]:
            raise errors.conflict(resource.group, resource.plural, name)
        replicas = int((change.get("spec") or {}).get("replicas", 0))

        def set_replicas(obj: Obj) -> None:
            obj["spec"]["replicas"] = replicas

        owner = owner_of(request, resource, "scale", self._registry.minor)
        stored = self._registry.patch(resource.store, namespace, name, set_replicas, owner)
        return answer(_scale(stored or live))

    async def binding(self, request: web.Request, namespace: str, name: str) -> web.Response:
        """Assign a pod to a node."""
        target = ((await body(request)) or {}).get("target") or {}
        assign(self._registry, namespace, name, str(target.get("name", "")))
        return answer(success(code=201), 201)

    async def eviction(self, request: web.Request, namespace: str, name: str) -> web.Response:
        """Delete a pod with its grace period, where its disruption budget allows it."""
        wanted = (await body(request)) or {}
        if wanted.get("apiVersion") == "policy/v1" and self._registry.minor < 22:
            raise errors.bad_request('no kind "Eviction" is registered for version "policy/v1"')
        options = wanted.get("deleteOptions") or {}
        dry_run = "All" in (options.get("dryRun") or [])
        disruption.evict(self._registry, namespace, name, options, dry_run=dry_run)
        return answer(success(code=201), 201)

    async def token(self, request: web.Request, namespace: str, name: str) -> web.Response:
        """Issue a service account token."""
        review = (await body(request)) or {}
        resource = self._registry.resource("", "v1", "serviceaccounts")
        account = self._registry.get(resource, namespace, name)
        spec = review.setdefault("spec", {})
        life = int(spec.setdefault("expirationSeconds", _HOUR))
        audiences = spec.setdefault("audiences", ["https://kubernetes.default.svc.cluster.local"])
        uid = account["metadata"]["uid"]
        review.setdefault("kind", "TokenRequest")
        review.setdefault("apiVersion", "authentication.k8s.io/v1")
        review["metadata"] = {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": clock.stamp(),
        }
        review["status"] = {
            "token": self._auth.issue(namespace, name, uid, audiences, life),
            "expirationTimestamp": clock.stamp(clock.now() + dt.timedelta(seconds=life)),
        }
        return answer(review, 201)

    async def review(self, request: web.Request, resource: Resource, user: User) -> web.Response:
        """Answer a review: who may, or who is."""
        review: Obj = (await body(request)) or {}
        review.setdefault("apiVersion", resource.api_version)
        review.setdefault("kind", resource.kind)
        review.setdefault("metadata", {"creationTimestamp": None})
        spec = review.get("spec") or {}
        if resource.plural == "tokenreviews":
            review["status"] = self._token_status(str(spec.get("token", "")))
        elif resource.plural == "selfsubjectreviews":
            review["status"] = {"userInfo": _user_info(user)}
        elif resource.plural == "selfsubjectrulesreviews":
            review["status"] = {"resourceRules": [], "nonResourceRules": [], "incomplete": True}
        else:
            if not resource.plural.startswith("self"):
                groups = (*(spec.get("groups") or ()), AUTHENTICATED)
                user = User(str(spec.get("user", "")), groups)
            review["status"] = {"allowed": self._auth.allowed(user, _ask(spec))}
        return answer(review, 201)

    def _token_status(self, token: str) -> Obj:
        try:
            return {"authenticated": True, "user": _user_info(self._auth.bearer(token))}
        except errors.ApiError:
            return {"authenticated": False, "error": "invalid bearer token"}


def assign(registry: Registry, namespace: str, name: str, node: str) -> None:
    """Bind a pod to a node, as the scheduler does.

    Raises:
        ApiError: 404, 409 when the pod has a node.
    """
    pod = registry.get(registry.catalogue.by_kind[PODS], namespace, name)
    if pod["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        raise errors.conflict("", "pods/binding", name, why)

    def bind(obj: Obj) -> None:
        obj["spec"]["nodeName"] = node
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": clock.stamp(),
        }
        others = [c for c in obj["status"].get("conditions") or [] if c["type"] != "PodScheduled"]
        obj["status"]["conditions"] = [*others, condition]

    registry.patch(PODS, namespace, name, bind)


def _scale(obj: Obj) -> Obj:
    meta, selector = obj["metadata"], obj["spec"].get("selector") or {}
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in kept if field in meta},
        "spec": {"replicas": obj["spec"].get("replicas", 0)},
        "status": {
            "replicas": (obj.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        },
    }


def _ask(spec: Obj) -> Ask:
    path: Any = spec.get("nonResourceAttributes")
    if path:
        return Ask(verb=path.get("verb", ""), path=path.get("path", ""))
    wanted = spec.get("resourceAttributes") or {}
    return Ask(
        verb=wanted.get("verb", ""),
        group=wanted.get("group", ""),
        resource=wanted.get("resource", ""),
        subresource=wanted.get("subresource", ""),
        namespace=wanted.get("namespace", ""),
        name=wanted.get("name", ""),
    )


def _user_info(user: User) -> Obj:
    return {"username": user.name, "groups": list(user.groups)}
