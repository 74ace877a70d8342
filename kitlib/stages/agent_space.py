"""The namespace of a run's measuring agents: made, marked as in use, removed, swept when left.

Runs may be on several machines, and the API is all that they share: a namespace says whose it is.
One whose owner was a process of this machine that is gone, or that gave no sign of life for long,
was left by a run that was killed.
"""

from __future__ import annotations

import contextlib
import time

from kitlib.errors import ApiError, ConnectError, KitError
from kitlib.journal import utc_text
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER
from kitlib.retry import Deadline, until
from kitlib.runlock import Owner
from kitlib.stages import agent_objects
from kitlib.stages.agent_objects import EXPIRES, LABEL, OWNER
from kitlib.stages.base import Action, Context, Hands

__all__ = [
    "GONE_SECONDS",
    "INTERRUPTED_SECONDS",
    "RENEW_SECONDS",
    "by_hand",
    "forget",
    "is_made",
    "make",
    "prolong",
    "remove",
    "sweep",
]

GONE_SECONDS = 120.0
"""How long a namespace's removal may take, an API that is away meanwhile included."""
INTERRUPTED_SECONDS = 15.0
"""The same when a person wants an end; less than an interrupted notebook gets for it."""
EXPIRES_SECONDS, RENEW_SECONDS = 1800.0, 300.0
"""How long a namespace counts as in use without a sign of life, and how often one is given."""
AGAIN = 1.0
"""Seconds until an API that was away is asked again, and until an interrupted making has come."""

_MINE: dict[str, bool] = {}
"""The namespaces that this process asked for -> whether the API said that they were made."""


def make(namespace: str, run_id: str, kube: Kube) -> None:
    """Make a namespace of this run's, after a try to remove what ended runs left."""
    for name in _stale(kube):
        with contextlib.suppress(KitError):  # it is in nobody's way
            kube.delete(f"/api/v1/namespaces/{name}")
    owner = Owner.here(run_id, "agents", utc_text()).text
    annotations = {OWNER: owner, EXPIRES: _expiry()}
    _MINE[namespace] = False
    kube.create("/api/v1/namespaces", agent_objects.namespace(namespace, annotations))
    _MINE[namespace] = True
    # Pods are admitted once the namespace has its default service account.
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    deadline = Deadline(30, f"the default service account of {namespace}")
    until(lambda: kube.find(path), deadline, every=0.1)


def is_made(namespace: str) -> bool:
    """Return whether this process asked for a namespace, and has not done with it."""
    return namespace in _MINE


def forget(namespace: str) -> None:
    """Be done with a namespace: where it is still there, the next run removes it."""
    _MINE.pop(namespace, None)


def prolong(namespace: str, kube: Kube) -> None:
    """Say that a namespace is in use for EXPIRES_SECONDS from now."""
    path = f"/api/v1/namespaces/{namespace}"
    found = kube.get(path)
    found["metadata"]["annotations"][EXPIRES] = _expiry()
    kube.request("PUT", path, body=found)


def remove(namespace: str, seconds: float, hands: Hands) -> None:
    """Remove a namespace and wait until it is gone; an API that is away is waited for.

    Raises:
        ApiError: It did not come back in time, or refused.
        DeadlineError: The namespace does not go.
    """
    deadline = Deadline(seconds, f"namespace {namespace} gone")
    path = f"/api/v1/namespaces/{namespace}"
    asked, not_there = False, False
    while True:
        try:
            kube = hands.doors.kube(wait=0)
            if not asked:
                kube.delete(path)
                asked = True
            there = kube.find(path)
            if there is None:
                # Its making may have been interrupted, and may come after its removal.
                if not_there or _MINE.get(namespace, True):
                    return
                asked, not_there = False, True
                deadline.sleep(AGAIN)
                continue
        except (ApiError, ConnectError) as error:
            away = error.retryable if isinstance(error, ApiError) else error.transient
            if not away or deadline.left < AGAIN:
                error.message = f"namespace {namespace} is not removed: {error.message}"
                error.remedy = by_hand(namespace)
                raise
            text = f"removing namespace {namespace}: {error.message.splitlines()[0]}"
            hands.journal.event("progress", host=CLUSTER, text=text)
            deadline.sleep(AGAIN)
            continue
        deadline.pause(0.3, got=_why_there(there), remedy=by_hand(namespace))


def _why_there(namespace: Obj | None) -> str:
    """Return what a namespace that is being removed waits for."""
    conditions = ((namespace or {}).get("status") or {}).get("conditions") or []
    told = [str(each.get("message")) for each in conditions if each.get("status") == "True"]
    return "; ".join(told)


def _stale(kube: Kube) -> list[str]:
    """Return the namespaces of agents whose run has ended."""
    now = utc_text()
    found = []
    for item in kube.items("/api/v1/namespaces", labelSelector=LABEL):
        meta = item["metadata"]
        told = meta.get("annotations") or {}
        owner, expires = Owner.parse(told.get(OWNER, "")), str(told.get(EXPIRES, ""))
        if meta["name"] in _MINE or meta.get("deletionTimestamp"):
            continue
        if owner is None or not expires:  # whatever its label says, no run made it
            continue
        if owner.ended or owner.is_this or expires < now:
            found.append(meta["name"])
    return found


def _expiry() -> str:
    return utc_text(time.time() + EXPIRES_SECONDS)


def by_hand(namespace: str) -> str:
    """Return what a person may do about a namespace that could not be removed."""
    return (
        f"kubectl delete namespace {namespace} removes it; so does the next run that makes agents"
    )


def sweep(ctx: Context) -> None:
    """Remove the namespaces that runs left which have ended; those of living runs stay.

    Raises:
        ApiError: There is no API; it is not waited for, as the person wants an end.
    """
    kube = ctx.kube(wait=0)

    def do(hands: Hands) -> None:
        for name in _stale(kube):
            remove(name, INTERRUPTED_SECONDS, hands)

    ctx.read_only = False
    ctx.perform(Action(CLUSTER, "remove namespaces of agents that runs left", do=do))
