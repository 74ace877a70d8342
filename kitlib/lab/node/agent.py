"""What the emulated agents of network plugins are made of: files on the host, news of the API.

An agent is a behaviour of `images`. Its datapath is real in the kernel; where the real plugin has
another one, the agent says so with `host.stands_in`, for as long as it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node import overlay
from kitlib.lab.node.images import Program
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import ApiClient, Informer, Obj
from kitlib.lab.node.kubelet_events import now

__all__ = [
    "BRIDGE_NF",
    "CNI_BIN",
    "CNI_DIR",
    "UNDERLAY",
    "configure",
    "install",
    "internal_address",
    "keep",
    "keep_bridged",
    "network_up",
    "other_nodes",
    "standing_in",
]

Peer = TypeVar("Peer")

UNDERLAY = "eth0"
"""The hosts' own interface, which tunnels go over."""
CNI_DIR = Path("/etc/cni/net.d")
CNI_BIN = Path("/opt/cni/bin")
BRIDGE_NF = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def install(names: Iterable[str], whose: str) -> None:
    """Put a plugin's programs into /opt/cni/bin; what they do is the emulated kubelet's."""
    CNI_BIN.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = CNI_BIN / name
        path.write_text(f"#!/bin/sh\n# {whose}'s CNI plugin: emulated by the lab's kubelet\n")
        path.chmod(0o755)


def configure(name: str, data: Mapping[str, Any]) -> None:
    """Write a CNI configuration; from then on it is in force, unless another sorts before it."""
    CNI_DIR.mkdir(parents=True, exist_ok=True)
    path = CNI_DIR / name
    unfinished = CNI_DIR / f".{name}.tmp"
    unfinished.write_text(json.dumps(data, indent=2) + "\n")
    unfinished.rename(path)


def network_up(reason: str, message: str) -> Obj:
    """Return the patch with which a plugin says that the node's network is there."""
    condition = {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
        "lastHeartbeatTime": now(),
    }
    return {"status": {"conditions": [condition]}}


def internal_address(node: Obj) -> str:
    """Return a Node's own address; empty when it has none."""
    for item in (node.get("status") or {}).get("addresses") or []:
        if item["type"] == "InternalIP":
            return str(item["address"])
    return ""


def other_nodes(nodes: Iterable[Obj], own: str) -> dict[str, str]:
    """Return the other nodes' addresses by name."""
    found = {node["metadata"]["name"]: internal_address(node) for node in nodes}
    return {name: address for name, address in found.items() if name != own and address}


@contextlib.contextmanager
def standing_in(host: LabHost, text: str) -> Iterator[None]:
    """Have the host say what stands in for what in its datapath, until the block is left."""
    host.stands_in(text)
    try:
        yield
    finally:
        host.stands_in("")


async def keep(
    program: Program,
    client: ApiClient,
    paths: Sequence[str],
    wanted: Callable[..., Mapping[str, Peer]],
    *,
    learn: Callable[[Peer], str],
    forget: Callable[[Peer], str],
) -> None:
    """Keep the host like what the API says of the other nodes, until cancelled.

    Args:
        program: The agent; a script that fails is written to its log and tried with the next news.
        client: Where to ask.
        paths: The collections to follow.
        wanted: Takes each collection's objects in the order of `paths` and returns the peers.
        learn: A peer to the script (`sh -e`) that makes it reachable.
        forget: A peer to the script that undoes that.
    """
    changed = asyncio.Event()
    informers = [Informer(client, path, changed.set) for path in paths]
    watches = [asyncio.create_task(item.run()) for item in informers]
    known: dict[str, Peer] = {}
    try:
        for item in informers:
            await item.synced.wait()
        while True:
            changed.clear()
            peers = dict(wanted(*(item.objects.values() for item in informers)))
            gone = [peer for name, peer in known.items() if peers.get(name) != peer]
            new = [peer for name, peer in peers.items() if known.get(name) != peer]
            script = "".join([*map(forget, gone), *map(learn, new)])
            if script:
                result = await program.host.run("sh", "-e", check=False, input=script)
                if not result.ok:
                    program.log(klog("E", 1, "peers.go:1", result.tail(1)))
            known = peers
            await changed.wait()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def keep_bridged(program: Program, client: ApiClient, tunnel: overlay.Tunnel) -> None:
    """Keep a bridged tunnel flooding to every other node, until cancelled."""

    def peers(nodes: list[Obj]) -> dict[str, overlay.Far]:
        others = other_nodes(nodes, program.host.name)
        return {name: overlay.Far(address) for name, address in others.items()}

    await keep(
        program,
        client,
        ["/api/v1/nodes"],
        peers,
        learn=lambda far: overlay.bridged_peer(tunnel, far),
        forget=lambda far: overlay.bridged_forget(tunnel, far),
    )
