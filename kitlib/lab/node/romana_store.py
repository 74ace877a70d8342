"""What Romana keeps in its etcd: which addresses pods have, and which node has which block.

The real CNI program locks the etcd and writes there by itself; here the emulated etcd hands the
addresses out, at the same Service address. A node gets blocks of eight addresses as it needs them,
and a block that is empty again goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

__all__ = ["Block", "Store", "Unavailable", "ask", "serve"]

_BLOCK_PREFIX = 29
_HOLD = 20.0
"""Seconds that a question for news is held before it is answered all the same."""
_PATIENCE = aiohttp.ClientTimeout(total=3, sock_connect=1)
_WATCH = aiohttp.ClientTimeout(total=_HOLD + 10, sock_connect=1)


class Unavailable(Exception):
    """The store cannot be reached, or refuses; the text says which."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of addresses: the node that has it, and that node's own address."""

    node: str
    underlay: str


@dataclass
class Store:
    """The addresses; every change raises `version`.

    Attributes:
        pool: The network that blocks are parts of; None until it is set.
        blocks: Block -> its node.
        given: Address -> the sandbox that has it.
        version: The number of changes.
    """

    pool: IPv4Network | None = None
    blocks: dict[IPv4Network, Block] = field(default_factory=dict)
    given: dict[IPv4Address, str] = field(default_factory=dict)
    version: int = 0

    def allocate(self, block: Block, owner: str) -> IPv4Address:
        """Return an address for a pod of a node; the same one when it asks again.

        Raises:
            ValueError: There is no network yet, or no block is left in it.
        """
        for address, holder in self.given.items():
            if holder == owner:
                return address
        own = [each for each, who in self.blocks.items() if who == block]
        free = (address for each in own for address in each if address not in self.given)
        address = next(free, None) or self._new_block(block).network_address
        self.given[address] = owner
        self.version += 1
        return address

    def release(self, owner: str) -> None:
        """Take a pod's address back, and its block when that is empty."""
        for address in [each for each, holder in self.given.items() if holder == owner]:
            del self.given[address]
            self.version += 1
        for each in list(self.blocks):
            if not any(address in each for address in self.given):
                del self.blocks[each]

    def _new_block(self, block: Block) -> IPv4Network:
        if self.pool is None:
            raise ValueError("no network: romana-daemon has not set one")
        for each in self.pool.subnets(new_prefix=max(_BLOCK_PREFIX, self.pool.prefixlen)):
            if each not in self.blocks:
                self.blocks[each] = block
                return each
        raise ValueError(f"no block is left in {self.pool}")

    def dump(self) -> str:
        """Return everything as JSON."""
        return json.dumps(
            {
                "pool": str(self.pool or ""),
                "blocks": {str(k): [v.node, v.underlay] for k, v in self.blocks.items()},
                "given": {str(k): v for k, v in self.given.items()},
            }
        )

    @classmethod
    def load(cls, text: str) -> Store:
        """Return what `dump` wrote; an empty store of an empty text."""
        data = json.loads(text or "{}")
        return cls(
            IPv4Network(data["pool"]) if data.get("pool") else None,
            {IPv4Network(k): Block(*v) for k, v in (data.get("blocks") or {}).items()},
            {IPv4Address(k): v for k, v in (data.get("given") or {}).items()},
        )


class _Server:
    def __init__(self, store: Store, file: Path) -> None:
        self._store = store
        self._file = file
        self._news = asyncio.Condition()

    async def _changed(self) -> None:
        self._file.write_text(self._store.dump())
        async with self._news:
            self._news.notify_all()

    async def network(self, request: web.Request) -> web.Response:
        """Set the network; one that is there stays."""
        pool = IPv4Network((await request.json())["cidr"])
        if self._store.pool is None:
            self._store.pool = pool
            self._store.version += 1
            await self._changed()
        return web.json_response({"cidr": str(self._store.pool)})

    async def address(self, request: web.Request) -> web.Response:
        """Hand out an address."""
        told = await request.json()
        try:
            found = self._store.allocate(Block(told["node"], told["underlay"]), told["owner"])
        except ValueError as refused:
            return web.json_response({"error": str(refused)}, status=409)
        await self._changed()
        return web.json_response({"address": str(found)})

    async def release(self, request: web.Request) -> web.Response:
        """Take an address back."""
        self._store.release((await request.json())["owner"])
        await self._changed()
        return web.json_response({})

    async def blocks(self, request: web.Request) -> web.Response:
        """Return the blocks, once there is something newer than the caller knows."""
        known = int(request.query.get("after", "-1"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HOLD), self._news:
                await self._news.wait_for(lambda: self._store.version != known)
        blocks = {str(k): [v.node, v.underlay] for k, v in self._store.blocks.items()}
        pool = str(self._store.pool or "")
        answer = {"version": self._store.version, "pool": pool, "blocks": blocks}
        return web.json_response(answer)


async def serve(file: Path, address: str, port: int) -> web.AppRunner:
    """Serve the store that a file holds, and return what ends it (`cleanup`).

    Raises:
        OSError: The port is taken.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    server = _Server(Store.load(file.read_text() if file.exists() else ""), file)
    app = web.Application()
    app.router.add_put("/network", server.network)
    app.router.add_post("/address", server.address)
    app.router.add_delete("/address", server.release)
    app.router.add_get("/blocks", server.blocks)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


async def ask(method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the store answers.

    Raises:
        Unavailable: It does not answer, or refuses.
    """
    try:
        limit = _WATCH if method == "GET" else _PATIENCE
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.request(method, url, json=body) as answer,
        ):
            data: dict[str, Any] = await answer.json()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failed:
        raise Unavailable(f"{url}: {failed or type(failed).__name__}") from failed
    if "error" in data:
        raise Unavailable(str(data["error"]))
    return data
