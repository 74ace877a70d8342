"""The part of a plugin's agent that enforces NetworkPolicy: from the API's news to nft rules.

Nodes follow pods and namespaces only while there is a policy: a cluster without one costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kitlib.lab.node.images import Program
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubelet_client import Informer
from kitlib.lab.node.policies import ruleset

__all__ = ["policies_enforced"]

_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_CALM = 0.05  # seconds: pods come in flocks


@contextlib.asynccontextmanager
async def policies_enforced(
    program: Program, table: str, *, stays: bool = True
) -> AsyncIterator[None]:
    """Keep the node's rules like the cluster's policies while the block runs.

    Args:
        program: The agent; it reads the API as the node.
        table: The name of the nft table, in the family inet.
        stays: Whether the rules outlive the agent, as those in kernel tables do.
    """
    task = asyncio.create_task(_enforce(program, table))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not stays:
            gone = f"table inet {table}\ndelete table inet {table}\n"
            await asyncio.shield(program.host.run("nft", "-f", "-", check=False, input=gone))


async def _enforce(program: Program, table: str) -> None:
    client = program.connect_as_node()
    changed = asyncio.Event()
    policies = Informer(client, _POLICIES, changed.set)
    others = [Informer(client, f"/api/v1/{kind}", changed.set) for kind in ("pods", "namespaces")]
    watching = asyncio.create_task(policies.run())
    following: list[asyncio.Task[None]] = []
    told = ruleset(table, program.host.name, [], [], [])  # also of rules that an agent before left
    try:
        await policies.synced.wait()
        if (await program.host.run("nft", "list", "table", "inet", table, check=False)).ok:
            told = ""
        while True:
            changed.clear()
            if policies.objects and not following:
                following = [asyncio.create_task(item.run()) for item in others]
                for item in others:
                    await item.synced.wait()
            elif not policies.objects and following:
                await _end(following)
                following = []
            pods, namespaces = ([*item.objects.values()] for item in others)
            wanted = ruleset(table, program.host.name, policies.objects.values(), pods, namespaces)
            if wanted != told:
                result = await program.host.run("nft", "-f", "-", check=False, input=wanted)
                if not result.ok:
                    program.log(klog("E", 1, "policy.go:1", result.tail(1)))
                told = wanted
            await changed.wait()
            await asyncio.sleep(_CALM)
    finally:
        await _end([watching, *following])


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
