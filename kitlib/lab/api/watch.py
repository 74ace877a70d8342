"""Watches: each change is encoded once and handed to every stream that asks for it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kitlib.lab.api import errors
from kitlib.lab.api.defaults import TEMPLATE_GENERATION
from kitlib.lab.api.schema import Resource
from kitlib.lab.api.selectors import Predicate
from kitlib.lab.api.store import Event, Obj, Store, dumps
from kitlib.lab.api.tables import table

if TYPE_CHECKING:
    from aiohttp import web

_BACKLOG = 10_000
_BOOKMARK_SECONDS = 60.0


@dataclass(slots=True)
class Query:
    """What a list or a watch selects, and in which form."""

    resource: Resource
    namespace: str
    matches: Predicate
    as_table: str = ""
    version: str = ""
    send_initial: bool = False
    bookmarks: bool = False
    timeout: float = 1800.0

    def selects(self, obj: Obj) -> bool:
        """Return whether an object belongs to the answer."""
        in_namespace = not self.namespace or obj["metadata"].get("namespace") == self.namespace
        return in_namespace and self.matches(obj)


def present(obj: Obj, resource: Resource) -> Obj:
    """Return an object as this group version shows it."""
    if obj["apiVersion"] == resource.api_version:
        return obj
    shown = {**obj, "apiVersion": resource.api_version}
    annotations = obj["metadata"].get("annotations") or {}
    if resource.group == "extensions" and TEMPLATE_GENERATION in annotations:
        generation = int(annotations[TEMPLATE_GENERATION])
        kept = {key: value for key, value in annotations.items() if key != TEMPLATE_GENERATION}
        shown["metadata"] = {**obj["metadata"], "annotations": kept}
        shown["spec"] = {**obj["spec"], "templateGeneration": generation}
    return shown


def encode(event: Event, type_: str, query: Query) -> bytes:
    """Return one line of the stream; the bytes are shared by all streams of the same form."""
    form = f"{type_} {query.resource.api_version} {query.as_table}"
    line = event.encoded.get(form)
    if line is None:
        line = _line(type_, present(event.obj, query.resource), query)
        event.encoded[form] = line
    return line


def _line(type_: str, obj: Obj, query: Query) -> bytes:
    if query.as_table:
        meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        obj = table(query.resource, [obj], meta, query.as_table)
    return (dumps({"type": type_, "object": obj}) + "\n").encode()


def _bookmark(rv: int, query: Query, *, initial: bool = False) -> bytes:
    meta: Obj = {"resourceVersion": str(rv), "creationTimestamp": None}
    if initial:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    resource = query.resource
    obj: Obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    if query.as_table:
        obj = table(resource, [], {"resourceVersion": str(rv)}, query.as_table)
        if initial:
            row = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
            obj["rows"] = [{"cells": [], "object": {**row, "metadata": meta}}]
    return (dumps({"type": "BOOKMARK", "object": obj}) + "\n").encode()


def select(event: Event, query: Query) -> str:
    """Return the type under which a stream shows a change; empty when it does not."""
    new = event.type != "DELETED" and query.selects(event.obj)
    old = event.old is not None and query.selects(event.old)
    if new:
        return "MODIFIED" if old else "ADDED"
    return "DELETED" if old else ""


async def stream(store: Store, query: Query, response: web.StreamResponse) -> None:
    """Write changes to a prepared response until the timeout, or until the client is gone."""
    pending: deque[bytes] = deque()
    wake = asyncio.Event()
    over = False

    def listen(event: Event) -> None:
        nonlocal over
        if not over and (type_ := select(event, query)):
            pending.append(encode(event, type_, query))
            over = len(pending) > _BACKLOG
            wake.set()

    kind = query.resource.store
    pending.extend(_initial(store, query))
    cancel = store.subscribe(kind, listen)
    try:
        async with asyncio.timeout(query.timeout):
            while not over:
                if pending:
                    wake.clear()
                    chunk = b"".join(pending)
                    pending.clear()
                    await response.write(chunk)
                elif not await _wait(wake) and query.bookmarks:
                    pending.append(_bookmark(store.rv, query))
    except (TimeoutError, ConnectionError):
        pass
    finally:
        cancel()


async def _wait(wake: asyncio.Event) -> bool:
    """Return whether something came before a bookmark is due."""
    try:
        async with asyncio.timeout(_BOOKMARK_SECONDS):
            await wake.wait()
    except TimeoutError:
        return False
    return True


def _initial(store: Store, query: Query) -> Iterable[bytes]:
    """Return what a stream starts with: the present state, or the changes since a version."""
    kind = query.resource.store
    if query.version in ("", "0") or query.send_initial:
        for obj in store.items(kind):
            if query.selects(obj):
                yield _line("ADDED", present(obj, query.resource), query)
        if query.send_initial:
            yield _bookmark(store.rv, query, initial=True)
        return
    try:
        since = int(query.version)
    except ValueError as cause:
        raise errors.bad_request(f'invalid resource version "{query.version}"') from cause
    try:
        events = store.since(kind, since)
    except errors.ApiError as gone:
        yield (json.dumps({"type": "ERROR", "object": gone.status()}) + "\n").encode()
        return
    for event in events:
        if type_ := select(event, query):
            yield encode(event, type_, query)
