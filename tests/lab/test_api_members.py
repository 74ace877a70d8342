"""The emulated etcd: members copy, a majority answers and a minority does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kitlib.lab.api import members
from kitlib.lab.api.members import Member, ask, member_id
from kitlib.lab.api.store import Store

ADDRESSES = {"a": "127.0.0.11", "b": "127.0.0.12", "c": "127.0.0.13"}


def secret(name: str) -> dict:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "n"}}


class Host:
    """One member with its store, led or following as it decides, until it is killed."""

    def __init__(self, name: str, directory: Path, initial: dict[str, str], port: int) -> None:
        self.name, self.directory = name, directory
        self.member = Member(name, ADDRESSES[name], initial, directory, port)
        self.store: Store | None = None
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # Every member's port is the same: in a test each listens at its own loopback address.
        self.member._server = await asyncio.start_server(
            self.member._answer, ADDRESSES[self.name], members.PEER_PORT, limit=members._LIMIT
        )
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while True:
            leader = await self.member.decide()
            if leader != self.name:
                await self.member.follow(leader)
                continue
            store = Store(self.directory)
            try:
                if await self.member.lead(store):
                    self.store = store
                    await self.member.lost()
                self.store = None
                await self.member.step_down()
            finally:
                store.close()

    async def kill(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.member.leader, self.store = "", None
        self.member._store = None
        self.member._followers.clear()
        await self.member.close()


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict]:
    """Three members: `a` was first, `b` and `c` joined it."""
    monkeypatch.setattr(members, "DEAD", 2.0)
    with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as held:
        monkeypatch.setattr(members, "PEER_PORT", held.getsockname()[1])

    @contextlib.asynccontextmanager
    async def no_api(port: int, address: str) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(members, "_passing_on", no_api)
    hosts = {"a": Host("a", tmp_path / "a", {"a": ADDRESSES["a"]}, 1)}
    await hosts["a"].start()
    await until(lambda: hosts["a"].store)
    for name in ("b", "c"):
        answer = await ask(ADDRESSES["a"], {"op": "add", "name": name, "address": ADDRESSES[name]})
        known = {each: member["address"] for each, member in answer["members"].items()}
        hosts[name] = Host(name, tmp_path / name, known, 1)
        await hosts[name].start()
        await until(lambda name=name: name in hosts["a"].member.addresses)
    yield hosts
    for host in hosts.values():
        await host.kill()
    await until(lambda: not any(host.member._writers for host in hosts.values()))
    await asyncio.sleep(0.05)  # the loop closes the sockets


async def until(condition, seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def leaders(hosts: dict) -> list[str]:
    return [name for name, host in hosts.items() if host.store is not None]


async def test_a_killed_leader_is_followed_by_another_with_all_its_data(cluster: dict) -> None:
    cluster["a"].store.put("/secrets", secret("kept"))
    version = cluster["a"].store.rv
    await until(lambda: cluster["b"].member._rv == cluster["c"].member._rv == version)
    await cluster["a"].kill()
    await until(lambda: leaders(cluster))
    (leader,) = leaders(cluster)
    store = cluster[leader].store
    assert store.get("/secrets", "n", "kept")
    store.put("/secrets", secret("later"))

    back = cluster["a"] = Host("a", cluster["a"].directory, ADDRESSES, 1)
    await back.start()
    await until(lambda: back.member.leader == leader)
    await until(lambda: back.member._rv == store.rv)
    assert leaders(cluster) == [leader]
    copy = Store(back.directory)
    copy.close()
    assert copy.get("/secrets", "n", "later")


async def test_one_of_three_does_not_lead(cluster: dict) -> None:
    await cluster["b"].kill()
    await cluster["c"].kill()
    await until(lambda: not leaders(cluster))
    answer = await ask(ADDRESSES["a"], {"op": "members"})
    assert answer == {"error": "etcdserver: no leader"}
    cluster["b"] = Host("b", cluster["b"].directory, ADDRESSES, 1)
    await cluster["b"].start()
    await until(lambda: leaders(cluster))


async def test_a_removal_that_loses_the_majority_is_refused(cluster: dict) -> None:
    await cluster["c"].kill()
    await until(lambda: "c" not in cluster["a"].member._followers)
    request = {"op": "remove", "id": member_id("b")}
    assert "not enough started members" in (await ask(ADDRESSES["a"], request))["error"]
    gone = await ask(ADDRESSES["b"], {"op": "remove", "id": member_id("c")})
    assert set(gone["members"]) == {"a", "b"}
    again = await ask(ADDRESSES["a"], {"op": "remove", "id": member_id("c")})
    assert again == {"error": "etcdserver: member not found"}
