"""Lookups of one name at one DNS server, timed by dig in microseconds, over UDP or TCP.

dig's clock runs from sending the question to having the answer; over TCP that is without the
handshake. One process asks one question after another, each only once (`+tries=1`), so that a lost
one is seen and not covered by the next. Questions are as programs ask them: without EDNS, and over
UDP a truncated answer counts as it is. dig does not walk the search domains: ask for whole names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kitlib.command import Cmd
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["Lookup", "command", "parse", "times"]

_LINE = re.compile(
    r"^;; ->>HEADER<<- opcode: \w+, status: (?P<status>\w+)"
    r"|^;; Query time: (?P<time>\d{1,12}) (?P<unit>usec|msec)"
    r"|^;; SERVER: (?P<server>[0-9a-fA-F.:]+)#"
    r"|^;; MSG SIZE  rcvd: (?P<size>\d+)"
    r"|^\S+\s+\d+\s+IN\s+A(?:AAA)?\s+(?P<address>[0-9a-fA-F.:]+)\s*$"
    r"|^;; communications error to [^:\s]\S*: (?P<failed>.+)$"
    r"|^;; (?:Connection to|UDP setup with) .+? failed: (?P<refused>.+?)\.?$"
    r"|^;; (?P<bad>Got bad packet: .+)$"
    r"|^;; (?P<none>(?:connection timed out; )?no servers could be reached)",
    re.M,
)


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question and what came of it.

    Attributes:
        seq: Its number in the command, counted from 1.
        ms: How long the answer took; None when none came.
        status: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`, ...; empty when no answer came.
        addresses: What the name has; empty for none.
        server: Address of the server that answered; empty when none did.
        error: Why there is no answer, in dig's words; empty when there is one.
    """

    seq: int
    ms: float | None
    status: str = ""
    addresses: tuple[str, ...] = ()
    server: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """True when the name has at least one address."""
        return self.status == "NOERROR" and bool(self.addresses)


def command(
    name: str, server: str, *, tcp: bool = False, count: int = 6, kind: str = "A", timeout: int = 2
) -> Cmd:
    """Return `count` lookups of a name, one after another; the first ones are warm-ups.

    Args:
        name: The whole name, `kubernetes.default.svc.cluster.local`.
        server: Address of the DNS server.
        tcp: True for TCP, else UDP.
        count: How many.
        kind: `A` or `AAAA`.
        timeout: Whole seconds for each of them.
    """
    whole = f"{name.rstrip('.')}."
    return Cmd.of(
        "dig", "-r", "-u", f"@{server}", "+noall", "+comments", "+answer", "+stats", "+noedns",
        "+tcp" if tcp else "+ignore", "+tries=1", f"+time={timeout}", *([whole, kind] * count),
        timeout=count * timeout * 2 + 10,
    )  # fmt: skip


def parse(text: str, *, count: int) -> list[Lookup]:
    """Return the lookups in order.

    Args:
        text: Standard output followed by standard error.
        count: How many were asked for.

    Raises:
        ParseError: The text is not dig's, or not whole.
    """
    lookups: list[Lookup] = []
    status, server, why, ms = "", "", "", None
    addresses: list[str] = []
    for line in _LINE.finditer(text):
        status = line["status"] or status
        server = line["server"] or server
        why = line["failed"] or line["refused"] or why
        if line["address"]:
            addresses.append(line["address"])
        if line["time"]:
            ms = int(line["time"]) / (1000 if line["unit"] == "usec" else 1)
        if not (line["none"] or line["bad"] or line["size"]):
            continue
        seq = len(lookups) + 1
        if failed := line["bad"] or line["none"]:
            lookups.append(Lookup(seq, None, error=(why or failed).strip()))
        elif ms is None or not status:
            raise _strange(f"an answer without its {'status' if ms else 'time'}")
        else:
            lookups.append(Lookup(seq, ms, status, tuple(addresses), server))
        status, server, why, ms, addresses = "", "", "", None, []
    if len(lookups) != count:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise _strange(f"{len(lookups)} of {count} lookups: {last}")
    return lookups


def times(lookups: list[Lookup]) -> list[Sample]:
    """Return the lookups as samples; an answer that has no address counts as lost."""
    return [
        Sample(
            each.seq,
            each.ms if each.ok else None,
            reason="" if each.ok else each.error or _no_address(each.status),
            server=each.server,
        )
        for each in lookups
    ]


def _no_address(status: str) -> str:
    return "no address in the answer" if status == "NOERROR" else status


def _strange(what: str) -> ParseError:
    return ParseError(f"dig: {what}", remedy=BY_HAND)
