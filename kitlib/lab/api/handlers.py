"""The verbs on resources: get, list, watch, create, update, patch, delete, deletecollection."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import yaml
from aiohttp import web

from kitlib.lab.api import apply, clock, errors, merge, protobuf, selectors
from kitlib.lab.api.managed import UPDATE, Owner
from kitlib.lab.api.registry import Registry
from kitlib.lab.api.schema import Resource
from kitlib.lab.api.store import Obj, copy, dumps
from kitlib.lab.api.tables import table
from kitlib.lab.api.watch import Query, present, stream

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def answer(obj: Any, status: int = 200) -> web.Response:
    """Return a JSON answer."""
    body = (dumps(obj) + "\n").encode()
    return web.Response(status=status, body=body, content_type="application/json")


def table_form(request: web.Request) -> str:
    """Return how much of each object a Table shall include; empty when no Table is wanted."""
    first = request.headers.get("Accept", "").split(",")[0].replace(" ", "")
    if "as=Table" not in first:
        return ""
    return request.query.get("includeObject", "Metadata")


def truthy(query: Mapping[str, str], name: str) -> bool:
    """Return whether a boolean query parameter is set."""
    return query.get(name, "").lower() in ("true", "1")


async def body(request: web.Request) -> Any:
    """Return the decoded body; None when it is empty.

    Raises:
        ApiError: 415 or 400 when it is not JSON (or YAML where that is asked for).
    """
    raw = await request.read()
    if not raw:
        return None
    try:
        if raw.startswith(protobuf.MAGIC):
            found = protobuf.decode(raw)
            if found is None:
                raise errors.unsupported_media("application/json, application/yaml")
            return found
        if "yaml" in request.content_type:
            return yaml.load(raw, Loader=yaml.CSafeLoader)
        return json.loads(raw)
    except (ValueError, yaml.YAMLError) as cause:
        raise errors.bad_request(f"error decoding the body: {cause}") from cause


def owner_of(request: web.Request, resource: Resource, sub: str, minor: int) -> Owner:
    """Return whose the fields are that a request changes: its field manager, or its program."""
    agent = request.headers.get("User-Agent", "").partition("/")[0]
    manager = request.query.get("fieldManager") or agent or "unknown"
    return Owner(manager, UPDATE, resource.api_version, sub if minor >= 22 else "")


def dry(request: web.Request) -> bool:
    """Return whether nothing shall be stored."""
    return "All" in request.query.getall("dryRun", [])


class Handlers:
    """The generic verbs over a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store

    def _query(self, request: web.Request, resource: Resource, namespace: str) -> Query:
        labels = selectors.labels(request.query.get("labelSelector", ""))
        fields = selectors.fields(request.query.get("fieldSelector", ""), resource.store)
        return Query(
            resource=resource,
            namespace=namespace,
            matches=lambda obj: labels(obj) and fields(obj),
            as_table=table_form(request),
            version=request.query.get("resourceVersion", ""),
            send_initial=truthy(request.query, "sendInitialEvents"),
            bookmarks=truthy(request.query, "allowWatchBookmarks"),
            timeout=float(request.query.get("timeoutSeconds") or 1800),
        )

    async def watch(
        self, request: web.Request, resource: Resource, namespace: str
    ) -> web.StreamResponse:
        """Stream changes."""
        query = self._query(request, resource, namespace)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await stream(self._store, query, response)
        return response

    def list(self, request: web.Request, resource: Resource, namespace: str) -> web.Response:
        """Return a typed list, or a Table, a page at a time when `limit` says so."""
        query = self._query(request, resource, namespace)
        found = [obj for obj in self._store.items(resource.store, namespace) if query.matches(obj)]
        meta: Obj = {"resourceVersion": str(self._store.rv)}
        start = 0
        token = request.query.get("continue")
        if token:
            start, meta["resourceVersion"] = _resume(token, found)
        limit = int(request.query.get("limit") or 0)
        page = found[start:]
        if limit and len(page) > limit:
            left = len(page) - limit
            page = page[:limit]
            last = page[-1]["metadata"]
            mark = {"v": meta["resourceVersion"], "k": [last.get("namespace", ""), last["name"]]}
            meta["continue"] = base64.urlsafe_b64encode(dumps(mark).encode()).decode()
            meta["remainingItemCount"] = left
        items = [present(obj, resource) for obj in page]
        if query.as_table:
            return answer(table(resource, items, meta, query.as_table))
        return answer(
            {
                "kind": resource.list_kind,
                "apiVersion": resource.api_version,
                "metadata": meta,
                "items": items,
            }
        )

    def show(self, request: web.Request, resource: Resource, obj: Obj, code: int = 200) -> Any:
        """Return one object, or its Table."""
        obj = present(obj, resource)
        if form := table_form(request):
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return answer(table(resource, [obj], meta, form), code)
        return answer(obj, code)

    async def create(
        self, request: web.Request, resource: Resource, namespace: str
    ) -> web.Response:
        """Create the object in the body."""
        obj = await body(request)
        if not isinstance(obj, dict):
            raise errors.bad_request("the body must be an object")
        created = self._registry.create(
            resource,
            namespace,
            obj,
            dry_run=dry(request),
            owner=owner_of(request, resource, "", self._registry.minor),
        )
        return answer(present(created, resource), 201)

    async def update(
        self, request: web.Request, resource: Resource, namespace: str, name: str, sub: str
    ) -> web.Response:
        """Replace an object, or its status."""
        obj = await body(request)
        if not isinstance(obj, dict):
            raise errors.bad_request("the body must be an object")
        return self._replace(request, resource, namespace, name, sub, obj)

    def _replace(
        self,
        request: web.Request,
        resource: Resource,
        namespace: str,
        name: str,
        sub: str,
        obj: Obj,
    ) -> web.Response:
        stored = self._registry.update(
            resource,
            namespace,
            name,
            obj,
            subresource=sub,
            dry_run=dry(request),
            owner=owner_of(request, resource, sub, self._registry.minor),
        )
        return answer(present(stored, resource))

    async def patch(
        self, request: web.Request, resource: Resource, namespace: str, name: str, sub: str
    ) -> web.Response:
        """Change an object by one of the patch formats; server-side apply may create it."""
        _check_format(request.content_type, resource, self._registry.minor)
        change = await body(request)
        if request.content_type == APPLY:
            return self._apply(request, resource, namespace, name, sub, change)
        old = self._registry.get(resource, namespace, name)
        obj = patched(request.content_type, present(old, resource), change)
        return self._replace(request, resource, namespace, name, sub, obj)

    def _apply(
        self,
        request: web.Request,
        resource: Resource,
        namespace: str,
        name: str,
        sub: str,
        config: Any,
    ) -> web.Response:
        manager = request.query.get("fieldManager", "")
        if not manager:
            text = (
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: '
                "is required for apply patch"
            )
            raise errors.ApiError(422, "Invalid", text)
        live = self._store.get(resource.store, namespace, name)
        shown = present(live, resource) if live else None
        if not isinstance(config, dict):
            raise errors.bad_request("the body must be an object")
        config.setdefault("metadata", {}).setdefault("name", name)
        if not sub and "status" in resource.subresources:
            config.pop("status", None)
        obj = apply.apply(
            shown,
            config,
            manager,
            truthy(request.query, "force"),
            clock.stamp(),
            resource.shape,
            sub if self._registry.minor >= 22 else "",
        )
        if live is None:
            created = self._registry.create(resource, namespace, obj, dry_run=dry(request))
            return answer(present(created, resource), 201)
        stored = self._registry.update(
            resource, namespace, name, obj, subresource=sub, dry_run=dry(request)
        )
        return answer(present(stored, resource))

    async def delete(
        self, request: web.Request, resource: Resource, namespace: str, name: str
    ) -> web.Response:
        """Delete an object: its last state when it is still going, a Status when it is gone."""
        options = await delete_options(request)
        dry_run = dry(request) or "All" in (options.get("dryRun") or [])
        obj, gone = self._registry.delete(resource, namespace, name, options, dry_run=dry_run)
        if not gone or resource.store == "/pods":
            return answer(present(obj, resource))
        details = {"name": name, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
        if resource.group:
            details["group"] = resource.group
        return answer(success(details))

    async def delete_all(
        self, request: web.Request, resource: Resource, namespace: str
    ) -> web.Response:
        """Delete every selected object of a namespace."""
        query = self._query(request, resource, namespace)
        options = await delete_options(request)
        doomed = [obj for obj in self._store.items(resource.store, namespace) if query.matches(obj)]
        for obj in doomed:
            meta = obj["metadata"]
            place = meta.get("namespace", "")
            self._registry.delete(resource, place, meta["name"], options, dry_run=dry(request))
        meta = {"resourceVersion": str(self._store.rv)}
        items = [present(obj, resource) for obj in doomed]
        head = {"kind": resource.list_kind, "apiVersion": resource.api_version}
        return answer({**head, "metadata": meta, "items": items})


def patched(content_type: str, target: Obj, change: Any) -> Obj:
    """Return an object with a patch applied."""
    if content_type == JSON_PATCH:
        result = merge.json_patch(target, change)
    elif content_type == MERGE:
        result = merge.json_merge(target, change)
    else:
        result = merge.strategic(target, change)
    return copy(result)  # type: ignore[no-any-return]


def _check_format(content_type: str, resource: Resource, minor: int) -> None:
    """Refuse a patch in a format that the resource does not take.

    Raises:
        ApiError: 415.
    """
    accepted = [JSON_PATCH, MERGE]
    accepted += [] if resource.custom else [STRATEGIC]
    accepted += [APPLY] if minor >= 16 else []
    if content_type not in accepted:
        raise errors.unsupported_media(", ".join(accepted))


async def delete_options(request: web.Request) -> Obj:
    """Return the DeleteOptions of a request, from its body and its query."""
    options = await body(request)
    options = dict(options) if isinstance(options, dict) else {}
    if "propagationPolicy" in request.query:
        options["propagationPolicy"] = request.query["propagationPolicy"]
    if "gracePeriodSeconds" in request.query:
        options["gracePeriodSeconds"] = int(request.query["gracePeriodSeconds"])
    return options


def success(details: Obj | None = None, code: int = 0) -> Obj:
    """Return a v1.Status that says Success."""
    status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        status["details"] = details
    if code:
        status["code"] = code
    return status


def _resume(token: str, found: list[Obj]) -> tuple[int, str]:
    """Return where the next page starts, and the version of the first."""
    try:
        mark = json.loads(base64.urlsafe_b64decode(token))
        after = tuple(mark["k"])
        version = str(mark["v"])
    except (ValueError, KeyError) as cause:
        raise errors.bad_request("continue key is not valid") from cause
    for index, obj in enumerate(found):
        if (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) > after:
            return index, version
    return len(found), version
