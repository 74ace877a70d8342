"""Which node has which part of a plugin's pod network: shared out without two getting the same.

Two ways, as plugins have them: a register in one object that every node writes itself into
(`claim`), or an allocator that gives each node its part (`share_out`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused

__all__ = ["Register", "Taken", "claim", "next_free", "share_out"]

Taken = dict[str, IPv4Network]
"""Node name -> its part."""


def next_free(pool: IPv4Network, prefix: int, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first part of the pool, of that prefix length, that overlaps none of `taken`.

    Raises:
        ValueError: There is none left.
    """
    held = list(taken)
    for part in pool.subnets(new_prefix=max(prefix, pool.prefixlen)):
        if not any(part.overlaps(other) for other in held):
            return part
    raise ValueError(f"no address range of /{prefix} is left in {pool}")


def share_out(nodes: Mapping[str, IPv4Network | None], pool: IPv4Network, prefix: int) -> Taken:
    """Return the parts for those nodes that have none yet, in the order given.

    Raises:
        ValueError: The pool is too small.
    """
    taken = [part for part in nodes.values() if part is not None]
    new: Taken = {}
    for name, part in nodes.items():
        if part is None:
            new[name] = next_free(pool, prefix, [*taken, *new.values()])
    return new


def _read(text: str) -> Taken:
    return {name: IPv4Network(part) for name, part in json.loads(text or "{}").items()}


def _write(taken: Taken) -> str:
    return json.dumps({name: str(part) for name, part in taken.items()}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Register:
    """The ConfigMap in whose annotation a plugin keeps who has what.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        annotation: The annotation's key.
        read: The annotation's text (empty at first) to the parts.
        write: The parts to the annotation's text.
    """

    namespace: str
    name: str
    annotation: str
    read: Callable[[str], Taken] = _read
    write: Callable[[Taken], str] = _write


async def claim(
    client: ApiClient, register: Register, node: str, pool: IPv4Network, prefix: int
) -> IPv4Network:
    """Return a node's part of the pool: the one that it has, else the first free one, written down.

    Nodes may claim at the same time: the API takes only a change of what was read.

    Raises:
        ValueError: The pool is too small.
        ApiRefused: The plugin's account may not write the register.
    """
    collection = f"/api/v1/namespaces/{register.namespace}/configmaps"
    while True:
        try:
            found = await client.get(f"{collection}/{register.name}")
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            found = {}
        meta = found.get("metadata") or {"namespace": register.namespace, "name": register.name}
        notes = meta.get("annotations") or {}
        taken = register.read(notes.get(register.annotation, ""))
        own = taken.get(node)
        if own is not None and own.subnet_of(pool):
            return own
        others = [part for name, part in taken.items() if name != node]
        taken[node] = next_free(pool, prefix, others)
        meta["annotations"] = {**notes, register.annotation: register.write(taken)}
        body = {"apiVersion": "v1", "kind": "ConfigMap", **found, "metadata": meta}
        try:
            if found:
                await client.update(f"{collection}/{register.name}", body)
            else:
                await client.create(collection, body)
        except ApiRefused as refused:
            if refused.status != 409:
                raise
            continue
        return taken[node]
