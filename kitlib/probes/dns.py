"""Name resolution inside a pod, untimed: nslookup of BusyBox (old and new) and of BIND."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from kitlib.command import Cmd
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["Answer", "command", "parse", "sample"]

_SERVER = re.compile(r"^Server:\s*(\S+)", re.M)
_ADDRESS = re.compile(r"^Address(?:es)?(?: \d+)?:\s*(\S+)", re.M)
_NO_MORE = re.compile(r"Server:\s*\S+\s+Address:\s*\S+")
_FAILURES = (
    re.compile(r"^\*\* server can't find .+?: (?P<why>\S+)", re.M),
    re.compile(r"^;; (?P<why>connection timed out; no servers could be reached)", re.M),
    re.compile(r"^;; communications error to \S+: (?P<why>.+)$", re.M),
    re.compile(r"^;; UDP setup with .+? failed: (?P<why>.+?)\.?$", re.M),
    re.compile(r"^\*\*\* Can't find .+?: (?P<why>.+)$", re.M),
    re.compile(r"^nslookup: (?P<why>can't (?:resolve|connect) .+|write to .+)$", re.M),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the resolver said about one name.

    Attributes:
        server: Address of the DNS server that was asked; empty when it was not shown.
        addresses: The name's addresses, in the order of the answer; empty on failure.
        error: The resolver's own words on failure; empty when there are addresses.
    """

    server: str
    addresses: tuple[str, ...]
    error: str = ""

    @property
    def ok(self) -> bool:
        """True when the name has at least one address."""
        return bool(self.addresses)


def command(name: str, *, server: str = "", timeout: float = 15) -> Cmd:
    """Return the lookup of `name`, at `server` or at the one that the pod is set to."""
    return Cmd.of("nslookup", name, *([server] if server else []), timeout=timeout)


def parse(text: str) -> Answer:
    """Return the answer; a name that does not resolve is an answer too (`error` says why).

    Args:
        text: Standard output followed by standard error.

    Raises:
        ParseError: The text is not nslookup's.
    """
    server = _SERVER.search(text)
    # The server's own address comes first; the answer's addresses stand after "Name:".
    _, named, answer = text.partition("\nName:")
    addresses = tuple(
        dict.fromkeys(found for found in _ADDRESS.findall(answer) if _is_address(found))
    )
    where = server[1] if server else ""
    if named and addresses:
        return Answer(where, addresses)
    for failure in _FAILURES:
        if found := failure.search(text):
            return Answer(where, (), found["why"].strip())
    if _NO_MORE.fullmatch(text.strip()):  # BusyBox, on an answer without any
        return Answer(where, (), "no address in the answer")
    last = (text.strip().splitlines() or ["nothing"])[-1]
    raise ParseError(f"nslookup: not an answer: {last}", remedy=BY_HAND)


def sample(answer: Answer) -> Sample:
    """Return the answer as one sample without a time: nslookup does not say how long it took."""
    return Sample(1, None, reason=answer.error, server=answer.server, untimed=answer.ok)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
