"""The loop that every controller shares: changes become keys, keys are brought in order one by one.

The store is synchronous, so a `sync` sees one consistent state and cannot conflict with anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Iterable
from typing import Any

from kitlib.lab.api import clock
from kitlib.lab.api.errors import ApiError
from kitlib.lab.api.registry import Registry
from kitlib.lab.api.store import Event, Obj

log = logging.getLogger(__name__)

EVENTS = "/events"
_RETRY, _RETRY_LIMIT = 0.5, 30.0


class Controller:
    """A named loop over the kinds that it looks at."""

    name = ""
    kinds: tuple[str, ...] = ()

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.store = registry.store
        self._dirty: dict[Hashable, None] = {}
        self._wake = asyncio.Event()
        self._refused: dict[Hashable, int] = {}
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self._recorder = Recorder(registry)

    def keys(self, event: Event) -> Iterable[Hashable]:
        """Return what to look at after a change."""
        meta = event.obj["metadata"]
        return [(meta.get("namespace", ""), meta["name"])]

    def sync(self, key: Any) -> float | None:
        """Bring one key in order; return the seconds after which to look again, if any."""
        raise NotImplementedError

    def seed(self) -> None:
        """Mark everything that exists when the controller starts."""
        for kind in self.kinds:
            for obj in self.store.items(kind):
                self._mark(Event("ADDED", kind, 0, obj, None))

    def scaled(self, recorded: float) -> float:
        """Return a recorded delay in the lab's seconds."""
        return recorded * self.registry.settings.time_factor

    def record(self, obj: Obj, type_: str, reason: str, message: str, component: str = "") -> None:
        """Record an Event about an object."""
        self._recorder.record(obj, type_, reason, message, component or self.name)

    def enqueue(self, key: Hashable, after: float = 0.0) -> None:
        """Look at a key now, or after some seconds (a later call replaces the earlier)."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if after <= 0:
            self._dirty[key] = None
            self._wake.set()
            return
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(after, self.enqueue, key)

    def _mark(self, event: Event) -> None:
        for key in self.keys(event):
            self._dirty[key] = None
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        cancels = [self.store.subscribe(kind, self._mark) for kind in self.kinds]
        try:
            self.seed()
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._drain()
        finally:
            for cancel in cancels:
                cancel()
            for timer in self._timers.values():
                timer.cancel()

    async def _drain(self) -> None:
        while self._dirty:
            key = next(iter(self._dirty))
            del self._dirty[key]
            try:
                again = self.sync(key)
                self._refused.pop(key, None)
            except ApiError as refusal:
                tries = self._refused[key] = self._refused.get(key, 0) + 1
                log.warning("%s: %s: %s", self.name, key, refusal)
                again = min(_RETRY * 2**tries, _RETRY_LIMIT)
            except Exception:
                log.exception("%s: %s", self.name, key)
                again = _RETRY_LIMIT
            if again is not None:
                self.enqueue(key, max(again, 0.001))
            await asyncio.sleep(0)


class Recorder:
    """Writes Events; the same news about the same object becomes a count, as in client-go."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, ...], str] = {}

    def record(self, obj: Obj, type_: str, reason: str, message: str, component: str) -> None:
        """Write or count one Event."""
        meta = obj["metadata"]
        namespace = meta.get("namespace") or "default"
        when = clock.stamp()
        key = (meta.get("uid", meta["name"]), reason, message, component)

        def count(event: Obj) -> None:
            event["count"] = event.get("count", 1) + 1
            event["lastTimestamp"] = when

        name = self._known.get(key)
        if name and self._registry.patch(EVENTS, namespace, name, count):
            return
        self._known[key] = name = f"{meta['name']}.{time.time_ns():x}"
        involved = {"kind": obj.get("kind"), "name": meta["name"], "apiVersion": obj["apiVersion"]}
        for field in ("namespace", "uid", "resourceVersion"):
            if meta.get(field):
                involved[field] = meta[field]
        self._registry.store.put(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": clock.uid(),
                    "creationTimestamp": when,
                },
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "source": {"component": component},
                "firstTimestamp": when,
                "lastTimestamp": when,
                "count": 1,
                "type": type_,
                "eventTime": None,
                "reportingComponent": "",
                "reportingInstance": "",
            },
        )
