"""Evidence, no measurement: which way a node's kernel would send packets to given addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND

__all__ = ["Way", "command", "parse", "rows"]

# Text and not JSON: BusyBox's ip has no -json, and says the same words.
_SCRIPT = (
    'for a in "$@"; do said=$(ip -o route get "$a" 2>&1 | head -n 1);'
    ' printf \'~way %s %s\\n\' "$a" "$said"; done;'
    " ip -o link show 2>&1 | sed 's/^/~link /'; printf '~end\\n'"
)
_WAY = re.compile(r"^~way (?P<address>[0-9a-fA-F.:]+) (?P<said>.*)$", re.M)
_LINK = re.compile(r"^~link \d+: (?P<name>[^@:\s]+)(?:@\S+)?: .*?\bmtu (?P<mtu>\d{1,6})\b", re.M)
_GOES = re.compile(r"(?:^|\s)(via|dev|src) (\S+)")
_NO_ROUTE = re.compile(
    r"RTNETLINK answers: .+|(?:^| )(?:unreachable|blackhole|prohibit|throw) .*", re.M
)


@dataclass(frozen=True, slots=True)
class Way:
    """The way to one address.

    Attributes:
        address: What was asked for.
        via: The next hop; empty for none.
        device: The device; empty when there is no way.
        device_mtu: Its MTU in bytes; 0 when it is not known.
        source: The address that packets would have; empty when it is not said.
        text: What the kernel said.
    """

    address: str
    via: str
    device: str
    device_mtu: int
    source: str
    text: str

    @property
    def there(self) -> bool:
        """True when packets would leave at all."""
        return bool(self.device)


def command(addresses: Sequence[str]) -> Cmd:
    """Return the questions for the ways to addresses, and for the devices' MTUs."""
    return script(
        _SCRIPT, *addresses, timeout=30, label=f"ip route get, {len(addresses)} addresses"
    )


def parse(text: str) -> dict[str, Way]:
    """Return address -> the way to it.

    Raises:
        ParseError: The text is not what `command` prints, is not whole, or `ip` is missing.
    """
    if not text.rstrip().endswith("~end"):
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise _strange(f"not whole: {last}")
    mtus = {link["name"]: int(link["mtu"]) for link in _LINK.finditer(text)}
    found = {}
    for way in _WAY.finditer(text):
        said = " ".join(way["said"].replace("\\", " ").split())
        goes = {} if _NO_ROUTE.search(said) else dict(_GOES.findall(said))
        if "dev" not in goes and not _NO_ROUTE.search(said):
            raise _strange(f"not a way: {said or 'nothing'}")
        device = goes.get("dev", "")
        found[way["address"]] = Way(
            way["address"],
            via=goes.get("via", ""),
            device=device,
            device_mtu=mtus.get(device, 0),
            source=goes.get("src", ""),
            text=said,
        )
    return found


def rows(
    ways: Mapping[str, Way], *, node: str, owners: Mapping[str, str], started: float
) -> list[dict[str, object]]:
    """Return the ways as rows for `samples.write_samples` (probe `routes`).

    Args:
        ways: What `parse` returned.
        node: Who was asked.
        owners: Address -> the node that it belongs to.
        started: Unix time of the question.
    """
    return [
        {
            "node": node,
            "dst": owners.get(address, ""),
            "dst_ip": address,
            "via": way.via,
            "device": way.device,
            "device_mtu": way.device_mtu,
            "text": way.text,
            "t": started,
        }
        for address, way in ways.items()
    ]


def _strange(what: str) -> ParseError:
    return ParseError(f"ip route get: {what}", remedy=BY_HAND)
