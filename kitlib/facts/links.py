"""Network devices of a host: their kinds, masters, addresses and packet counters."""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.facts.sections import command, json_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "Link", "parse"]

SCRIPT = section("links", needs("ip", "ip -json -details -statistics address show"))
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Link:
    """One network device.

    Attributes:
        name: Its name, without the `@if7` of a veth end.
        kind: `bridge`, `vxlan`, `veth`, `dummy`, ... or, for hardware, `ether` or `loopback`.
        mac: Its hardware address; empty where it has none.
        mtu: Largest packet in bytes.
        up: Whether it is switched on.
        master: The bridge that it hangs on; empty for none.
        addresses: Its addresses as `10.244.1.1/24`.
        rx_packets: Packets received.
        tx_packets: Packets sent.
    """

    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: str
    addresses: tuple[str, ...]
    rx_packets: int
    tx_packets: int

    @property
    def packets(self) -> int:
        """Packets in both directions."""
        return self.rx_packets + self.tx_packets


def parse(text: str) -> tuple[Link, ...] | None:
    """Return the host's devices in kernel order; None when they could not be read.

    Raises:
        ParseError: `ip` printed something that is not its JSON.
    """
    items = json_of(split(text), "links")
    if items is None:
        return None
    links = []
    for item in filter(None, items):
        count = item.get("stats64", {})
        links.append(
            Link(
                name=item["ifname"],
                kind=item.get("linkinfo", {}).get("info_kind", item.get("link_type", "")),
                mac=item.get("address", ""),
                mtu=item["mtu"],
                up="UP" in item.get("flags", ()),
                master=item.get("master", ""),
                addresses=tuple(
                    f"{each['local']}/{each['prefixlen']}"
                    for each in item.get("addr_info", ())
                    if "local" in each
                ),
                rx_packets=count.get("rx", {}).get("packets", 0),
                tx_packets=count.get("tx", {}).get("packets", 0),
            )
        )
    return tuple(links)
