"""Addresses of one node's pods from one range, kept as files as the CNI plugin host-local does."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

__all__ = ["CniError", "HostLocal"]


class CniError(Exception):
    """A pod could not be given a network; the text is what containerd passes on."""


class HostLocal:
    """Addresses from one range, kept as files so that a restart does not hand one out twice.

    Args:
        directory: Where the network's reservations lie, one file an address.
        subnet: The range; its first address is the gateway.
    """

    def __init__(self, directory: Path, subnet: IPv4Network) -> None:
        self._directory = directory
        self._subnet = subnet
        self.gateway = IPv4Interface((subnet.network_address + 1, subnet.prefixlen))

    def reserve(self, owner: str, first: int = 2) -> IPv4Address:
        """Return a free address and remember its owner, going round from the last one given.

        Args:
            owner: The sandbox's id.
            first: Offset of the range's first usable address.

        Raises:
            CniError: Every address is taken.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        last = self._directory / "last_reserved_ip.0"
        low = int(self._subnet.network_address) + first
        high = int(self._subnet.broadcast_address) - (1 if first else 0)
        count = high - low + 1
        start = low
        if last.exists():
            start = int(IPv4Address(last.read_text().strip())) + 1
        for step in range(count):
            address = IPv4Address(low + (start - low + step) % count)
            try:
                with (self._directory / str(address)).open("x") as reservation:
                    reservation.write(f"{owner}\r\neth0")
            except FileExistsError:
                continue
            last.write_text(str(address))
            return address
        ends = f"{self.gateway.ip}-{IPv4Address(high)}"
        raise CniError(
            f"failed to allocate for range 0: no IP addresses available in range set: {ends}"
        )
