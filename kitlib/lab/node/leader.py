"""One of several replicas works at a time: the one that holds a Lease, as client-go has it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
from collections.abc import AsyncIterator

from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable, Obj

__all__ = ["leading"]

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_DURATION = 15.0
_RENEW = 5.0
_RETRY = 0.5


def _stamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextlib.asynccontextmanager
async def leading(client: ApiClient, namespace: str, name: str, me: str) -> AsyncIterator[None]:
    """Wait until this replica is the leader; it is for as long as the block lasts.

    Args:
        client: With an account that may get, create and update leases there.
        namespace: The lease's namespace.
        name: The lease's name.
        me: This replica's identity.
    """
    path = _LEASES.format(namespace)
    while True:
        if await _taken(client, path, name, me):
            break
        await asyncio.sleep(_RETRY)
    renewing = asyncio.create_task(_renew(client, path, name, me))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        with contextlib.suppress(ApiRefused, ApiUnreachable):  # the lease runs out by itself
            await _taken(client, path, name, me, give_up=True)


async def _renew(client: ApiClient, path: str, name: str, me: str) -> None:
    while True:
        await asyncio.sleep(_RENEW)
        with contextlib.suppress(ApiRefused, ApiUnreachable):
            await _taken(client, path, name, me)


async def _taken(
    client: ApiClient, path: str, name: str, me: str, *, give_up: bool = False
) -> bool:
    """Take, renew or give up the lease; returns whether it is this replica's."""
    spec: Obj = {
        "holderIdentity": "" if give_up else me,
        "leaseDurationSeconds": math.ceil(_DURATION),
        "renewTime": _stamp(),
    }
    try:
        found = await client.get(f"{path}/{name}")
    except ApiRefused as refused:
        if refused.status != 404:
            raise
        found = {}
    held = found.get("spec") or {}
    if held.get("holderIdentity") not in (None, "", me) and not _over(held):
        return False
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **found, "spec": spec}
    body.setdefault("metadata", {"name": name})
    try:
        await (client.update(f"{path}/{name}", body) if found else client.create(path, body))
    except ApiRefused as refused:
        if refused.status != 409:
            raise
        return False
    return not give_up


def _over(spec: Obj) -> bool:
    renewed = dt.datetime.fromisoformat(spec["renewTime"])
    return (dt.datetime.now(dt.UTC) - renewed).total_seconds() > _DURATION
