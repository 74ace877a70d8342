"""The HTTP side: paths to verbs, credentials to users, refusals to Status objects."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from kitlib.lab.api import admission, auth, discovery, errors, lifecycle
from kitlib.lab.api.auth import ANONYMOUS, Ask, Auth, User
from kitlib.lab.api.handlers import Handlers, answer, body, truthy
from kitlib.lab.api.proxy import KubeletProxy
from kitlib.lab.api.registry import CSRS, NAMESPACES, Registry
from kitlib.lab.api.schema import Resource
from kitlib.lab.api.special import REVIEWS, Special
from kitlib.lab.api.store import Obj, dumps

log = logging.getLogger(__name__)

_MAX_BODY = 16 * 1024 * 1024
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names below a group version."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse(path: str) -> Target | None:
    """Return what a resource path names; None for any other path."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    own = len(rest) == 3 and rest[2] in ("status", "finalize")
    if rest[0] == "namespaces" and len(rest) >= 3 and not own:
        namespace, rest = rest[1], rest[2:]
    name, subresource = [*rest, "", ""][1:3]
    if len(rest) > 3:
        return None
    return Target(group, version, rest[0], namespace, name, subresource)


class Server:
    """One aiohttp application over a registry."""

    def __init__(self, registry: Registry, authority: Auth, pki_dir: Path) -> None:
        self._registry = registry
        self._auth = authority
        self._handlers = Handlers(registry)
        self._special = Special(registry, authority)
        self._proxy = KubeletProxy(registry, pki_dir)

    def application(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _app: web.Application) -> None:
        await self._proxy.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except errors.ApiError as refusal:
            return answer(refusal.status(), refusal.code)
        except web.HTTPException:
            raise
        except (ConnectionError, TimeoutError):
            raise
        except Exception as failure:
            log.exception("%s %s", request.method, request.path_qs)
            text = f"Internal error occurred: {failure!r}"
            return answer(errors.ApiError(500, "InternalError", text).status(), 500)

    def _user(self, request: web.Request) -> User:
        header = request.headers.get("Authorization", "")
        if header.lower().startswith("bearer "):
            return self._auth.bearer(header[7:].strip())
        transport = request.transport
        peer = transport.get_extra_info("peercert") if transport else None
        return auth.from_certificate(peer) or ANONYMOUS

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        target = parse(request.path)
        if target is None:
            ask = Ask(verb=_VERBS.get(request.method, "get"), path=request.path)
            self._auth.require(user, ask)
            return self._plain(request)
        ask = Ask(
            verb=_verb(request, target),
            group=target.group,
            resource=target.resource,
            subresource=target.subresource,
            namespace=target.namespace,
            name=target.name,
        )
        if target.resource == "namespaces" and target.name:
            ask = Ask(**{**_fields(ask), "namespace": target.name})
        self._auth.require(user, ask)
        resource = self._registry.resource(target.group, target.version, target.resource)
        if target.namespace and not resource.namespaced:
            raise errors.no_resource()
        answered = await self._resource(request, resource, target, ask.verb, user)
        told = [lifecycle.warning(resource, self._registry.minor)]
        if ask.verb in ("create", "update", "patch"):
            told.append(admission.notice(resource))
        for text in filter(None, told if not answered.prepared else ()):
            answered.headers.add("Warning", f'299 - "{text}"')
        return answered

    async def _resource(
        self, request: web.Request, resource: Resource, target: Target, verb: str, user: User
    ) -> web.StreamResponse:
        if target.subresource:
            return await self._sub(request, resource, target)
        if resource.plural in REVIEWS and request.method == "POST":
            return await self._special.review(request, resource, user)
        if verb not in resource.verbs:
            raise errors.method_not_allowed()
        return await self._verb(request, resource, target, verb, user)

    async def _verb(
        self, request: web.Request, resource: Resource, target: Target, verb: str, user: User
    ) -> web.StreamResponse:
        space, name = target.namespace, target.name
        if resource.namespaced and not space and (name or verb == "create"):
            raise errors.method_not_allowed()
        if verb == "watch":
            return await self._handlers.watch(request, resource, space)
        if verb == "list":
            return self._handlers.list(request, resource, space)
        if verb == "get":
            found = self._registry.get(resource, space, name)
            shown: web.Response = self._handlers.show(request, resource, found)
            return shown
        if verb == "create":
            if resource.store == CSRS:
                return await self._create_csr(request, resource, user)
            return await self._handlers.create(request, resource, space)
        if verb == "deletecollection":
            return await self._handlers.delete_all(request, resource, space)
        if verb == "delete":
            return await self._handlers.delete(request, resource, space, name)
        if verb == "patch":
            return await self._handlers.patch(request, resource, space, name, "")
        return await self._handlers.update(request, resource, space, name, "")

    async def _create_csr(
        self, request: web.Request, resource: Resource, user: User
    ) -> web.Response:
        obj = await body(request)
        spec: Obj = obj.setdefault("spec", {})
        spec["username"], spec["groups"] = user.name, list(user.groups)
        if resource.version == "v1beta1":
            spec.setdefault("signerName", "kubernetes.io/kube-apiserver-client-kubelet")
        return answer(self._registry.create(resource, "", obj), 201)

    async def _sub(
        self, request: web.Request, resource: Resource, target: Target
    ) -> web.StreamResponse:
        space, name, sub = target.namespace, target.name, target.subresource
        if sub not in resource.subresources:
            raise errors.no_resource()
        if sub in ("status", "approval"):
            if request.method == "PATCH":
                return await self._handlers.patch(request, resource, space, name, sub)
            if request.method == "PUT":
                return await self._handlers.update(request, resource, space, name, sub)
            found = self._registry.get(resource, space, name)
            shown: web.Response = self._handlers.show(request, resource, found)
            return shown
        if sub == "scale":
            return await self._special.scale(request, resource, space, name)
        if sub == "token":
            return await self._special.token(request, space, name)
        if sub == "finalize":
            return await self._finalize(request, name)
        pod = self._registry.get(resource, space, name)
        if sub == "log":
            return await self._proxy.log(request, pod)
        if sub == "exec":
            return await self._proxy.exec(request, pod)
        if sub == "binding":
            return await self._special.binding(request, space, name)
        return await self._special.eviction(request, space, name)

    async def _finalize(self, request: web.Request, name: str) -> web.Response:
        wanted = (((await body(request)) or {}).get("spec") or {}).get("finalizers") or []

        def change(obj: Obj) -> None:
            obj["spec"]["finalizers"] = wanted

        stored = self._registry.patch(NAMESPACES, "", name, change)
        if stored is None:
            raise errors.not_found("", "namespaces", name)
        return answer(stored)

    def _plain(self, request: web.Request) -> web.Response:
        """Answer the paths that are not resources."""
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        path = request.path.rstrip("/")
        served = self._registry.catalogue
        parts = path.split("/")[1:]
        if path == "/version":
            text = json.dumps(discovery.version(self._registry.settings), indent=2)
            return web.Response(text=text, content_type="application/json")
        if parts[0] in ("healthz", "livez", "readyz"):
            return web.Response(text="ok")
        minor = self._registry.minor
        if path in ("/api", "/apis"):
            accept = request.headers.get("Accept", "")
            found, media = discovery.aggregated(served, minor, accept, core=path == "/api")
            if found:
                body_ = dumps(found).encode()
                return web.Response(body=body_, headers={"Content-Type": media})
        if path == "/api":
            return answer(discovery.core_versions(self._registry.settings))
        if path == "/apis":
            return answer(discovery.groups(served))
        if parts[0] == "api" and len(parts) == 2:
            return answer(discovery.resources(served, "", parts[1], minor))
        if parts[0] == "apis" and len(parts) == 2:
            return answer(discovery.group(served, parts[1]))
        if parts[0] == "apis" and len(parts) == 3:
            return answer(discovery.resources(served, parts[1], parts[2], minor))
        if path == "/openapi/v2":
            return web.Response(body=discovery.OPENAPI_V2, content_type=discovery.OPENAPI_V2_TYPE)
        if path == "/openapi/v3":
            return answer(discovery.openapi_index(served))
        if path.startswith("/openapi/v3/api"):
            group, version = (parts[3], parts[4]) if len(parts) == 5 else ("", parts[-1])
            return answer(discovery.openapi(served, group, version))
        raise errors.no_resource()


def _verb(request: web.Request, target: Target) -> str:
    """Return the API verb of a request."""
    if request.method in ("GET", "HEAD"):
        if truthy(request.query, "watch"):
            return "watch"
        return "get" if target.name else "list"
    if request.method == "DELETE" and not target.name:
        return "deletecollection"
    verb = _VERBS.get(request.method)
    if verb is None:
        raise errors.method_not_allowed()
    return verb


def _fields(ask: Ask) -> dict[str, Any]:
    names = ("verb", "group", "resource", "subresource", "namespace", "name", "path")
    return {name: getattr(ask, name) for name in names}
