"""The emulated etcd of several control planes: one member leads, the others copy and pass on.

Every control plane runs one API process, which is its member too. The leader's process serves the
API from its store and streams each record to the other members, which write it down and pass
connections to their own port 6443 on to the leader. A member that has not been heard of for
`DEAD` seconds is gone; a leader without a majority steps down, and of the members that reach a
majority the one with the newest data leads. Without a majority no API port is open, as an API
server without etcd is not ready. What real etcd has beyond that (terms, a log of proposals,
learners' promotion by hand) is not emulated; a member counts from its first copy on, as a learner
does. Times here are real seconds and not scaled.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kitlib.lab.api.store import Store, dumps
from kitlib.lab.relay import Relay, connect

__all__ = ["DEAD", "PEER_PORT", "Member", "ask", "member_id"]

PEER_PORT = 2380
DEAD = 4.0
"""Seconds without a word after which a member counts as gone."""
_BEAT = 0.4
_PATIENCE = 2.0
_TRY = 0.3
_LIMIT = 256 * 1024 * 1024
_log = logging.getLogger(__name__)

Obj = dict[str, Any]


def member_id(name: str) -> int:
    """Return a member's number, which etcd makes at random and the lab from its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") | 1


async def ask(address: str, request: Obj) -> Obj:
    """Return a member's answer to one request.

    Raises:
        OSError: It does not answer (a timeout is one too), or answers nonsense.
    """
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_connection(address, PEER_PORT, limit=_LIMIT)
        try:
            writer.write(dumps(request).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
    try:
        answer: Obj = json.loads(line)
    except ValueError:
        raise ConnectionError(f"{address}: no answer") from None
    return answer


@dataclass(slots=True)
class _Follower:
    """A member that copies from this one."""

    records: asyncio.Queue[Obj] = field(default_factory=asyncio.Queue)
    heard: float = field(default_factory=time.monotonic)


class Member:
    """One member of the emulated etcd.

    Args:
        name: Its name, which is its Node's.
        address: Its address in the lab.
        initial: Every member as its manifest names them, name -> address.
        directory: Its data directory.
        port: The API's port.
    """

    def __init__(
        self, name: str, address: str, initial: dict[str, str], directory: Path, port: int
    ) -> None:
        self.name = name
        self.leader = ""
        self.changed: Callable[[], None] = lambda: None
        self._address = address
        self._directory = directory
        self._port = port
        self._store: Store | None = None
        self._followers: dict[str, _Follower] = {}
        self._rv = 0
        self._file = directory / "members.json"
        self._members: dict[str, Obj] = {}
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError, ValueError):
            self._members = json.loads(self._file.read_text())
        if not self._members:
            alone = set(initial) == {name}
            self._members = {
                each: {"address": place, "started": alone} for each, place in initial.items()
            }
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen to the other members."""
        self._server = await asyncio.start_server(
            self._answer, "0.0.0.0", PEER_PORT, limit=_LIMIT, reuse_address=True
        )

    async def close(self) -> None:
        """Stop listening, and cut what is open."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    @property
    def addresses(self) -> dict[str, str]:
        """Every started member's name -> address."""
        return {n: m["address"] for n, m in self._members.items() if m["started"]}

    @property
    def alone(self) -> bool:
        """True when there is no other started member."""
        return set(self.addresses) <= {self.name}

    @property
    def has_majority(self) -> bool:
        """True when more than half of the started members are at hand (asked of the leader)."""
        now = time.monotonic()
        alive = {n for n, each in self._followers.items() if now - each.heard < DEAD}
        return len((alive | {self.name}) & set(self.addresses)) > len(self.addresses) / 2

    async def decide(self) -> str:
        """Return who leads, as soon as that is clear: this member's own name, or another's."""
        self.leader = ""
        self._rv = _last_version(self._directory / "objects.log")
        while True:
            if self.alone and self.name in self.addresses:
                return self.name
            others = {n: m["address"] for n, m in self._members.items() if n != self.name}
            states = await asyncio.gather(
                *(ask(address, {"op": "state"}) for address in others.values()),
                return_exceptions=True,
            )
            seen = {each["name"]: each for each in states if isinstance(each, dict)}
            name: str
            for name, state in seen.items():
                if state["leader"] == name and self.name in state["members"]:
                    self._members = state["members"]
                    return name
            started = self.addresses
            reached = {self.name, *seen} & set(started)
            if self.name in started and len(reached) > len(started) / 2:
                ranks = {name: int(seen[name]["rv"]) for name in reached if name in seen}
                ranks[self.name] = self._rv
                if max(ranks, key=lambda name: (ranks[name], name)) == self.name:
                    return self.name
            await asyncio.sleep(_TRY)

    # --- the leader's side -----------------------------------------------------------------

    async def lead(self, store: Store) -> bool:
        """Take the lead; returns whether a majority copies from this member now."""
        self._store, self.leader = store, self.name
        self._followers.clear()
        store.on_record = self._replicate
        until = time.monotonic() + 2 * DEAD
        while not self.has_majority and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return self.has_majority

    async def lost(self) -> None:
        """Return when this member may not lead any more."""
        while self.name in self._members and self.has_majority:  # noqa: ASYNC110 - time passes too
            await asyncio.sleep(0.1)

    async def step_down(self) -> None:
        """Give the lead up; what was streamed is out first."""
        self.leader = ""
        if self._store is not None:
            self._store.on_record = None
        self._store = None
        await asyncio.sleep(0.1)
        self._followers.clear()

    def _replicate(self, record: Obj) -> None:
        for follower in self._followers.values():
            follower.records.put_nowait(record)

    def _set_members(self, members: dict[str, Obj]) -> None:
        """Take over a list of members, keep it, and stream it."""
        self._members = members
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(dumps(members))
        self._replicate({"m": members})
        self.changed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, ValueError, KeyError):
                request = json.loads(await reader.readline())
                if request["op"] == "follow":
                    await self._lead_one(request["name"], reader, writer)
                else:
                    answer = await self._one(request)
                    writer.write(dumps(answer).encode() + b"\n")
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, request: Obj) -> Obj:
        """Answer one request; what only the leader may do is passed on to it."""
        if request["op"] == "state":
            version = self._store.rv if self._store is not None else self._rv
            return {
                "name": self.name,
                "leader": self.leader,
                "rv": version,
                "members": self._members,
            }
        if not self.leader:
            return {"error": "etcdserver: no leader"}
        if self.leader != self.name:
            return await ask(self._members[self.leader]["address"], request)
        if request["op"] == "add":
            fresh = {"address": request["address"], "started": False}
            self._set_members({**self._members, request["name"]: fresh})
        elif request["op"] == "remove":
            rest = {n: m for n, m in self._members.items() if member_id(n) != request["id"]}
            if len(rest) == len(self._members):
                return {"error": "etcdserver: member not found"}
            if not rest or not self._enough(rest):
                return {
                    "error": "etcdserver: re-configuration failed due to not enough started members"
                }
            self._set_members(rest)
        return {"members": self._members, "leader": self.leader}

    def _enough(self, rest: dict[str, Obj]) -> bool:
        now = time.monotonic()
        alive = {n for n, each in self._followers.items() if now - each.heard < DEAD}
        started = [n for n, m in rest.items() if m["started"]]
        return len([n for n in started if n in alive | {self.name}]) > len(started) / 2

    async def _lead_one(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Stream everything, and then every record, to one member until it is gone."""
        if self._store is None or name not in self._members:
            return
        follower = _Follower()
        first = {"snapshot": self._store.records(), "members": self._members}
        self._followers[name] = follower
        writer.write(dumps(first).encode() + b"\n")

        async def listen() -> None:
            while await reader.readline():
                if not self._members.get(name, {"started": True})["started"]:
                    started = {**self._members[name], "started": True}
                    self._set_members({**self._members, name: started})
                follower.heard = time.monotonic()

        ears = asyncio.create_task(listen())
        try:
            while self._followers.get(name) is follower and not ears.done():
                try:
                    async with asyncio.timeout(_BEAT):
                        record = await follower.records.get()
                except TimeoutError:
                    record = {"beat": 1}
                writer.write(dumps(record).encode() + b"\n")
                if time.monotonic() - follower.heard > DEAD:
                    break
        finally:
            ears.cancel()
            await asyncio.gather(ears, return_exceptions=True)
            if self._followers.get(name) is follower:
                del self._followers[name]

    # --- a follower's side -----------------------------------------------------------------

    async def follow(self, leader: str) -> None:
        """Copy from the leader, and pass API connections on to it, until it is gone."""
        address = self._members[leader]["address"]
        try:
            async with asyncio.timeout(DEAD):
                reader, writer = await asyncio.open_connection(address, PEER_PORT, limit=_LIMIT)
        except OSError:
            return
        try:
            writer.write(dumps({"op": "follow", "name": self.name}).encode() + b"\n")
            first = await _message(reader)
            log = self._directory / "objects.log"
            self._keep(log, first)
            writer.write(b"{}\n")
            self.leader = leader
            with log.open("a", encoding="utf-8") as out:
                async with _passing_on(self._port, address):
                    while self.name in self._members:
                        record = await _message(reader)
                        if "m" in record:
                            self._members = record["m"]
                            self._file.write_text(dumps(self._members))
                        elif "beat" not in record:
                            out.write(dumps(record) + "\n")
                            out.flush()
                            self._rv = _version(record, self._rv)
                        writer.write(b"{}\n")
        except (OSError, ValueError, KeyError) as gone:
            _log.info("%s: the leader %s is gone: %r", self.name, leader, gone)
        finally:
            self.leader = ""
            writer.close()

    def _keep(self, log: Path, first: Obj) -> None:
        """Write the leader's whole data down."""
        self._members = first["members"]
        temporary = log.with_suffix(".new")
        temporary.write_text("".join(dumps(record) + "\n" for record in first["snapshot"]))
        temporary.replace(log)
        self._file.write_text(dumps(self._members))
        for record in first["snapshot"]:
            self._rv = _version(record, self._rv)


async def _message(reader: asyncio.StreamReader) -> Obj:
    """Return the next message of the leader; silence is an end."""
    # Not wait_for: in Python 3.11 it can lose a cancellation.
    async with asyncio.timeout(DEAD):
        line = await reader.readline()
    if not line:
        raise ConnectionError("closed")
    found: Obj = json.loads(line)
    return found


@contextlib.asynccontextmanager
async def _passing_on(port: int, address: str) -> AsyncIterator[None]:
    """Pass every connection to the API's port on to the leader's, while the context lasts."""
    relay = Relay(lambda: connect(address, port))
    server = await asyncio.start_server(relay.serve, "0.0.0.0", port, reuse_address=True)
    try:
        yield
    finally:
        server.close()
        relay.close()


def _version(record: Obj, before: int) -> int:
    """Return the resourceVersion after a record of the log."""
    if "rv" in record:
        return max(before, int(record["rv"]))
    meta = (record.get("o") or {}).get("metadata") or {}
    return max(before, int(meta.get("resourceVersion") or 0))


def _last_version(log: Path) -> int:
    """Return the resourceVersion that a log ends with; 0 where there is none."""
    version = 0
    with contextlib.suppress(OSError, ValueError), log.open(encoding="utf-8") as lines:
        for line in lines:
            version = _version(json.loads(line), version)
    return version
