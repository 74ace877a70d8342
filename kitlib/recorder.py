"""Recording the API's own story of a build: nodes, pods and events as they change.

Events live one hour on a real cluster, and a Node says only when its last transition was; the
stream of changes with the time of arrival is what the readiness charts are made of. It starts
before the first answer of the API, survives its restarts, and marks what it may have missed.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from kitlib.errors import ApiError, KitError
from kitlib.journal import Journal, append_line
from kitlib.kube import Kube, Obj, WatchExpired
from kitlib.masking import mask

__all__ = ["KINDS", "Recorder", "write_once"]

KINDS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "events": "/api/v1/events",
    "csrs": "/apis/certificates.k8s.io/v1/certificatesigningrequests",
}
"""File name in watch/ -> path of the API."""

RETRY = 0.2
"""Seconds between two attempts to reach the API."""

NOT_SERVED, ASK_AGAIN = (403, 404), 5.0
"""What an API answers that does not give a kind (csrs before 1.19, or without the right to read
them), and after how many seconds it is asked again."""


class Recorder:
    """Watches a cluster into a run directory until it is stopped.

    Args:
        journal: The run's record.
        connect: Returns a Kube of its own for this recorder; raises KitError while the API is not
            there. Called again after every loss, since a new cluster has new certificates.
        disconnect: Ends what `connect` opened, so that waiting reads end too.

    Only one process records a run: the others' recorders do nothing (the lock dies with its owner).
    """

    def __init__(
        self,
        journal: Journal,
        connect: Callable[[], Kube],
        disconnect: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._connect = connect
        self._disconnect = disconnect
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._link_lock = threading.Lock()
        self._kube: Kube | None = None
        self._lock_file: IO[str] | None = None

    @property
    def recording(self) -> bool:
        """True while this process is the one that records."""
        return bool(self._threads)

    def start(self) -> bool:
        """Start recording; return False where another process already does."""
        if self._threads:
            return True
        handle = (self._journal.path / "watch" / ".lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._lock_file = handle
        for name, path in KINDS.items():
            thread = threading.Thread(
                target=self._follow, args=(name, path), daemon=True, name=f"watch-{name}"
            )
            self._threads.append(thread)
            thread.start()
        return True

    def stop(self) -> None:
        """Stop recording and leave nothing open."""
        self._stop.set()
        self._disconnect()
        for thread in self._threads:
            thread.join(timeout=20)
        self._threads.clear()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _link(self, broken: Kube | None) -> Kube:
        """Return the shared connection, made anew when the given one is known to be broken."""
        with self._link_lock:
            if self._stop.is_set():
                raise KitError("the recorder is stopping")
            if self._kube is None or self._kube is broken:
                self._kube = None
                self._disconnect()
                self._kube = self._connect()
                if self._stop.is_set():  # stop() may have looked before there was a link to end
                    self._disconnect()
                    raise KitError("the recorder is stopping")
            return self._kube

    def _follow(self, name: str, path: str) -> None:
        stream = _Stream(self._journal.path / "watch" / f"{name}.jsonl")
        kube: Kube | None = None
        while not self._stop.is_set():
            try:
                kube = self._link(kube)
                version = stream.relist(kube.get(path))
                while not self._stop.is_set():
                    for event in kube.watch(path, version):
                        version = stream.event(event)
            except WatchExpired as error:
                kube = None  # the link works: only the list is to be read again
                stream.gap(str(error))
            except KitError as error:
                if self._stop.is_set():
                    return
                stream.gap(str(error))
                if isinstance(error, ApiError) and error.status >= 400:
                    kube = None  # an answer, though no success: the link itself works
                away = isinstance(error, ApiError) and error.status in NOT_SERVED
                self._stop.wait(ASK_AGAIN if away and name == "csrs" else RETRY)


def write_once(journal: Journal, kube: Kube) -> None:
    """Write every node, pod, event and CSR as it is now into the run's watch files."""
    for name, path in KINDS.items():
        try:
            listing = kube.get(path)
        except ApiError as error:
            if name == "csrs" and error.status in NOT_SERVED:
                continue
            raise
        _Stream(journal.path / "watch" / f"{name}.jsonl").relist(listing)


class _Stream:
    """One kind's file: what is known of it, and since when something may have been missed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, Obj] = {}
        self._last = 0.0
        self._gap = ""

    def gap(self, why: str) -> None:
        """Note that from the last line on something may be missing."""
        self._gap = self._gap or why

    def relist(self, listing: Obj) -> str:
        """Write what differs from what is known, and return the list's resourceVersion."""
        if self._last and self._gap:
            self._write(gap={"since": self._last, "why": self._gap})
        self._gap = ""
        self._write(relist=True)
        items = {_uid(item): item for item in listing.get("items") or []}
        for uid, item in items.items():
            known = self._seen.get(uid)
            if known is None or _version(known) != _version(item):
                kind = "MODIFIED" if known else "ADDED"
                self._write(listed=True, obj={"type": kind, "object": item})
        for uid, item in self._seen.items():
            if uid not in items:
                self._write(listed=True, obj={"type": "DELETED", "object": item})
        self._seen = {uid: _small(item) for uid, item in items.items()}
        return str(listing.get("metadata", {}).get("resourceVersion", "0"))

    def event(self, event: Obj) -> str:
        """Write one watch event and return its resourceVersion."""
        item = event["object"]
        if event["type"] != "BOOKMARK":
            self._write(obj=event)
            if event["type"] == "DELETED":
                self._seen.pop(_uid(item), None)
            else:
                self._seen[_uid(item)] = _small(item)
        return _version(item)

    def _write(self, **line: Any) -> None:
        self._last = time.time()
        obj = line.get("obj")
        # What a Node's fields were last changed at is wanted of those that were there before.
        if obj and not (line.get("listed") and self._path.stem == "nodes"):
            obj["object"].get("metadata", {}).pop("managedFields", None)
        if obj and self._path.stem == "pods":
            _leave_out_settings(obj["object"])
        append_line(self._path, {"t": round(self._last, 6), **mask(line)})


def _uid(item: Obj) -> str:
    return str(item.get("metadata", {}).get("uid", ""))


def _version(item: Obj) -> str:
    return str(item.get("metadata", {}).get("resourceVersion", "0"))


_OF_CONTAINERS = ("name", "image", "imagePullPolicy", "ports", "resources", "restartPolicy")
"""What a record keeps of a container. Its environment, command line and probes are what programs
are told, passwords among it; and pods of others than the kit's are recorded too."""
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""An annotation that says all of it again."""


def _leave_out_settings(pod: Obj) -> None:
    """Take out of a pod what its containers' programs are told."""
    (pod.get("metadata", {}).get("annotations") or {}).pop(_APPLIED, None)
    spec = pod.get("spec", {})
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        if spec.get(kind):
            spec[kind] = [
                {key: value for key, value in each.items() if key in _OF_CONTAINERS}
                for each in spec[kind]
            ]


def _small(item: Obj) -> Obj:
    """Return what a later DELETED line needs: the identity, not the whole object."""
    keys = ("name", "namespace", "uid", "resourceVersion")
    metadata = item.get("metadata", {})
    return {
        "kind": item.get("kind", ""),
        "metadata": {key: metadata[key] for key in keys if key in metadata},
    }
