"""The lab fault `route-missing`: a host's routes to one other node's pods vanish and stay away.

They are the routes whose next hop is that node: by its own address, by the far end of a tunnel in
the route, or by the far end that a VXLAN device knows of the next hop's hardware address. Whoever
puts one back (the plugin's agent) sees it vanish again, until the fault is healed.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from kitlib.lab.hostapi import LabHost

__all__ = ["apply", "leading_to"]

_FAR_END = re.compile(r"\bencap ip .*?\bdst (?P<far>\S+)")
_VIA = re.compile(r"\bvia (?P<via>\S+) dev (?P<device>\S+)")
_SHOW = "ip -4 route show; echo --; ip -4 neigh show nud all; echo --; bridge fdb show"


async def apply(host: LabHost) -> Callable[[], Coroutine[Any, Any, None]] | None:
    """Take the routes to the last other node away; return what puts them back."""
    others = [address for name, address in host.peers.items() if name != host.name]
    if not others:
        return None
    peer = others[-1]
    taken: dict[str, str] = {}
    news = await host.spawn("ip", "-4", "monitor", "route", stdout=asyncio.subprocess.PIPE)
    await _take_away(host, peer, taken)
    watcher = asyncio.create_task(_watch(host, peer, taken, news))

    async def undo() -> None:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        if news.returncode is None:
            news.kill()
        await news.communicate()
        for route in taken.values():
            await host.run("ip", "route", "replace", *shlex.split(route), check=False)

    return undo


async def _watch(
    host: LabHost, peer: str, taken: dict[str, str], news: asyncio.subprocess.Process
) -> None:
    while news.stdout is not None and (line := await news.stdout.readline()):
        if not line.startswith(b"Deleted"):
            await _take_away(host, peer, taken)


async def _take_away(host: LabHost, peer: str, taken: dict[str, str]) -> None:
    """Delete every route to the peer's pods that is there, and note it by its destination."""
    for destination, route in leading_to(peer, (await host.run("sh", "-c", _SHOW)).stdout).items():
        taken[destination] = route
        await host.run("ip", "route", "del", *shlex.split(route), check=False)


def leading_to(peer: str, shown: str) -> Mapping[str, str]:
    """Return the routes that lead to a node, by destination, as `ip route` takes them.

    Args:
        peer: The node's address.
        shown: What `ip -4 route`, `ip -4 neigh` and `bridge fdb` show, lines of `--` between them.
    """
    routes, neighbours, forwarding = (part.splitlines() for part in shown.split("--\n"))
    far: dict[tuple[str, str], str] = {}  # (device, hardware address) -> underlay address
    for line in forwarding:
        words = line.split()
        if "dst" in words and "dev" in words:
            device, there = (words[words.index(name) + 1] for name in ("dev", "dst"))
            far[device, words[0]] = there
    behind: dict[tuple[str, str], str] = {}  # (device, next hop) -> underlay address
    for line in neighbours:
        words = line.split()
        if "lladdr" in words and "dev" in words:
            device, mac = (words[words.index(name) + 1] for name in ("dev", "lladdr"))
            behind[device, words[0]] = far.get((device, mac), "")
    found = {}
    for route in routes:
        via, encapsulated = _VIA.search(route), _FAR_END.search(route)
        if route.startswith(("default", "blackhole", "unreachable")) or via is None:
            continue
        next_hop, device = via["via"], via["device"]
        ends = {next_hop, behind.get((device, next_hop), "")}
        if encapsulated:
            ends = {encapsulated["far"]}
        if peer in ends:
            found[route.split()[0]] = " ".join(route.split())
    return found
