"""The emulated etcd: objects by kind, one growing resourceVersion, a watch history, a log on disk.

Stored objects are never changed in place: a write replaces the object, so readers and watchers
may keep what they were given. Everything is synchronous; the server runs in one event loop.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from kitlib.lab.api import errors

Obj = dict[str, Any]
Key = tuple[str, str]

HISTORY = 2000
_LOG_SLACK = 20_000


def copy(value: Any) -> Any:
    """Return a deep copy of JSON data (a good deal faster than `copy.deepcopy`)."""
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(slots=True)
class Event:
    """One change of one object; `kind` is the storage kind (`group/plural`)."""

    type: str
    kind: str
    rv: int
    obj: Obj
    old: Obj | None
    encoded: dict[str, bytes] = field(default_factory=dict)


Listener = Callable[[Event], None]


class Store:
    """Objects of every kind, in memory, with an append log when given a directory."""

    def __init__(self, directory: Path | None = None, history: int = HISTORY) -> None:
        self.rv = 0
        self._objects: dict[str, dict[Key, Obj]] = defaultdict(dict)
        self._history: dict[str, deque[Event]] = defaultdict(lambda: deque(maxlen=history))
        self._floor: dict[str, int] = defaultdict(int)
        self._start = 0
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._log: TextIO | None = None
        self._path: Path | None = None
        self._lines = 0
        self.on_record: Callable[[dict[str, Any]], None] | None = None
        """Told of every record that is written to the log (the other members copy it)."""
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._path = directory / "objects.log"
            self._load(self._path)
            self._compact()

    @property
    def fresh(self) -> bool:
        """True when nothing was ever stored here."""
        return self.rv == 0

    def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return the stored object, or None. It must not be changed: copy it first."""
        return self._objects[kind].get((namespace, name))

    def items(self, kind: str, namespace: str = "") -> list[Obj]:
        """Return the objects of a kind in key order; an empty namespace means all."""
        objects = self._objects[kind]
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def all(self, kind: str) -> list[Obj]:
        """Return the objects of a kind in no particular order."""
        return list(self._objects[kind].values())

    def kinds(self) -> list[str]:
        """Return the kinds that have, or had, objects."""
        return list(self._objects)

    def put(self, kind: str, obj: Obj) -> Obj:
        """Store `obj` under a new resourceVersion (set in place) and tell the watchers."""
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        self.rv += 1
        meta["resourceVersion"] = str(self.rv)
        old = self._objects[kind].get(key)
        self._objects[kind][key] = obj
        self._append({"k": kind, "o": obj})
        self._tell(Event("MODIFIED" if old else "ADDED", kind, self.rv, obj, old))
        return obj

    def remove(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Remove an object; return its last state, or None when it did not exist."""
        old = self._objects[kind].pop((namespace, name), None)
        if old is None:
            return None
        self.rv += 1
        self._append({"k": kind, "d": [namespace, name], "rv": self.rv})
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.rv)}}
        self._tell(Event("DELETED", kind, self.rv, last, old))
        return last

    def since(self, kind: str, rv: int) -> list[Event]:
        """Return the changes of a kind after `rv`.

        Raises:
            ApiError: 410 when part of them was compacted away.
        """
        floor = max(self._floor[kind], self._start)
        if rv < floor:
            raise errors.expired(rv, floor)
        return [event for event in self._history[kind] if event.rv > rv]

    def subscribe(self, kind: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every later change of a kind (`*`: all); return the way out."""
        self._listeners[kind].append(listener)
        return lambda: self._listeners[kind].remove(listener)

    def records(self) -> list[dict[str, Any]]:
        """Return the log that makes this store again: every object, and the version."""
        found: list[dict[str, Any]] = [
            {"k": kind, "o": obj}
            for kind, objects in self._objects.items()
            for obj in objects.values()
        ]
        return [*found, {"rv": self.rv}]

    def leap(self, versions: int = 1000) -> None:
        """Go on from a later version: what an earlier leader gave out last may not be known."""
        self.rv += versions
        self._start = self.rv

    def close(self) -> None:
        """Close the log."""
        if self._log:
            self._log.close()
            self._log = None

    def _tell(self, event: Event) -> None:
        history = self._history[event.kind]
        if len(history) == history.maxlen:
            self._floor[event.kind] = history[0].rv
        history.append(event)
        for listener in [*self._listeners[event.kind], *self._listeners["*"]]:
            listener(event)

    def _append(self, record: dict[str, Any]) -> None:
        if self.on_record is not None:
            self.on_record(record)
        if self._log is None:
            return
        self._log.write(dumps(record) + "\n")
        self._log.flush()
        self._lines += 1
        if self._lines > _LOG_SLACK + 2 * sum(len(found) for found in self._objects.values()):
            self._compact()

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # a torn last line: the process was killed while writing it
                break
            if "d" in record:
                self._objects[record["k"]].pop(tuple(record["d"]), None)
                self.rv = record["rv"]
            elif "o" in record:
                meta = record["o"]["metadata"]
                key = (meta.get("namespace", ""), meta["name"])
                self._objects[record["k"]][key] = record["o"]
                self.rv = max(self.rv, int(meta["resourceVersion"]))
            else:
                self.rv = record["rv"]
        self._start = self.rv

    def _compact(self) -> None:
        if self._path is None:
            return
        self.close()
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as out:
            for kind, objects in self._objects.items():
                for obj in objects.values():
                    out.write(dumps({"k": kind, "o": obj}) + "\n")
            out.write(dumps({"rv": self.rv}) + "\n")
        temporary.replace(self._path)
        self._log = self._path.open("a", encoding="utf-8")
        self._lines = 0
