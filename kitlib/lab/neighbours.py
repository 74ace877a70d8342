"""Who has which hardware address in a large lab, known beforehand instead of asked for.

Linux has one table of neighbours for all network namespaces, and 1024 entries that were asked for
are its end (`neighbour: arp_cache: neighbor table overflow!`): 33 hosts that all talk to each
other fill it, and the others hear of nobody. Entries that somebody put there do not count. A small
lab asks, as a real network does: a host that is down is found out so, and not only by a timeout.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

__all__ = ["ASKING", "introduce", "mac"]

ASKING = 24
"""Labs of so many hosts ask: 24 x 23 entries leave half of the table to pods and to others."""


def mac(address: str) -> str:
    """Return the hardware address of the host with a lab address: locally administered, its own."""
    return ":".join(("02:4b", *(f"{int(part):02x}" for part in address.split("."))))


def introduce(address: str, peers: Mapping[str, str]) -> None:
    """Give this host the others' hardware addresses, where they are too many to ask for them.

    Args:
        address: This host's lab address.
        peers: Every lab host's name -> lab address.
    """
    if len(peers) <= ASKING:
        return
    lines = "".join(
        f"neighbour replace {peer} lladdr {mac(peer)} dev eth0 nud permanent\n"
        for peer in peers.values()
        if peer != address
    )
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
