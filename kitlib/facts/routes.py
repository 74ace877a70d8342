"""The main routing tables of a host, of IPv4 and of IPv6."""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.facts.sections import command, json_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "Route", "parse", "parse6"]

SCRIPT = "".join(
    (
        section("routes", needs("ip", "ip -json -4 route show table main")),
        section("routes6", needs("ip", "ip -json -6 route show table main")),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        destination: The network, or `default`; a single address has no `/32` or `/128`.
        gateway: The next hop; empty for none.
        device: The device; empty for a blackhole.
        protocol: Who made it: `kernel`, `static`, `bird`, a number.
        source: The preferred source address; empty for none.
        kind: `unicast`, `blackhole`, ...
    """

    destination: str
    gateway: str
    device: str
    protocol: str
    source: str
    kind: str


def parse(text: str) -> tuple[Route, ...] | None:
    """Return the main table in kernel order; None when it could not be read.

    Raises:
        ParseError: `ip` printed something that is not its JSON.
    """
    return _parsed(text, "routes")


def parse6(text: str) -> tuple[Route, ...] | None:
    """Return the main table of IPv6 in kernel order; None when it could not be read.

    Raises:
        ParseError: `ip` printed something that is not its JSON.
    """
    return _parsed(text, "routes6")


def _parsed(text: str, name: str) -> tuple[Route, ...] | None:
    items = json_of(split(text), name)
    if items is None:
        return None
    return tuple(
        Route(
            destination=item["dst"],
            gateway=item.get("gateway", ""),
            device=item.get("dev", ""),
            protocol=str(item.get("protocol", "")),
            source=item.get("prefsrc", ""),
            kind=item.get("type", "unicast"),
        )
        for item in items
    )
