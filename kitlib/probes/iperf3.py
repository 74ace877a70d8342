"""Throughput over one TCP connection: iperf3's client and a server that serves once.

The first second is left out (`-O 1`): TCP is finding its speed. What counts is what the receiver
got. Both ends load their nodes' cores and links: never two of them on one node at a time.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND

__all__ = ["Transfer", "command", "parse", "parse_server", "row", "server"]

WARM_UP = 1
"""Seconds that are left out at the beginning."""
CONNECT_MS = 3000

# `timeout`: a server whose client never comes must not stay. It says when it listens: the client
# does not try twice.
_SERVER = (
    "hex=$(printf ':%04X ' \"$1\"); there() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null"
    ' | grep -q "$hex[0-9A-F]*:0000 0A "; }; command -v iperf3 >/dev/null || {'
    " echo 'iperf3: not found'; exit 127; }; there && { echo 'port in use'; exit 1; };"
    ' timeout "$2" iperf3 -s -1 -p "$1" </dev/null >/dev/null 2>&1 & n=0;'
    ' while [ "$n" -lt 50 ]; do there && { echo listening; exit 0; }; n=$((n + 1));'
    " sleep 0.1; done; echo 'does not listen'; exit 1"
)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one transfer brought.

    Attributes:
        bits_per_second: What the receiver got; NaN when it failed.
        seconds: How long it received; NaN when it failed.
        retransmits: Segments that were sent again; None when the sender cannot tell.
        error: iperf3's own words on failure; else empty.
    """

    bits_per_second: float
    seconds: float
    retransmits: int | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """True when it was measured."""
        return not self.error


def server(port: int, *, seconds: int) -> Cmd:
    """Return the start of a server for one transfer; it ends with it, or after `seconds`.

    It prints `listening` once it does (`parse_server`).
    """
    return script(_SERVER, str(port), str(seconds), timeout=20, label=f"iperf3 server on {port}")


def parse_server(text: str) -> str:
    """Return why the server does not listen; empty when it does."""
    said = text.strip()
    return "" if said.endswith("listening") else (said.splitlines() or ["nothing said"])[-1]


def command(address: str, port: int, *, seconds: int = 3) -> Cmd:
    """Return the transfer to a server, `seconds` of it measured."""
    return Cmd.of(
        "iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-O", str(WARM_UP), "-J",
        "--connect-timeout", str(CONNECT_MS),
        timeout=(seconds + WARM_UP) * 2 + CONNECT_MS / 1000 + 10,
    )  # fmt: skip


def parse(text: str) -> Transfer:
    """Return what the transfer brought; one that failed is a result too (`error` says why).

    Args:
        text: Standard output.

    Raises:
        ParseError: The text is not iperf3's JSON, or its numbers cannot be.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise _strange(f"not its JSON: {last}") from error
    if not isinstance(told, dict):
        raise _strange("not its JSON: no object")
    if failed := told.get("error"):
        return Transfer(math.nan, math.nan, None, str(failed).removeprefix("error - "))
    received, sent = _sum(told, "sum_received"), _sum(told, "sum_sent")
    bits, seconds = (_number(received.get(key), key) for key in ("bits_per_second", "seconds"))
    if seconds <= 0:
        raise _strange(f"seconds: {seconds}")
    again = sent.get("retransmits")
    return Transfer(bits, seconds, None if again is None else int(_number(again, "retransmits")))


def row(
    transfer: Transfer, *, round: int, src: str, dst: str, path: str, started: float
) -> dict[str, object]:
    """Return the transfer as a row for `samples.write_samples` (probe `throughput`)."""
    return {
        "round": round,
        "src": src,
        "dst": dst,
        "path": path,
        "seconds": transfer.seconds,
        "bits_per_second": transfer.bits_per_second,
        "retransmits": math.nan if transfer.retransmits is None else float(transfer.retransmits),
        "reason": transfer.error,
        "t": started,
    }


def _sum(told: dict[str, Any], name: str) -> dict[str, Any]:
    end = told.get("end")
    found = end.get(name) if isinstance(end, dict) else None
    if not isinstance(found, dict):
        raise _strange(f"no end.{name}")
    return found


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _strange(f"{name}: not a number: {value!r}")
    if not 0 <= value < 1e18:
        raise _strange(f"{name}: {value}")
    return float(value)


def _strange(what: str) -> ParseError:
    return ParseError(f"iperf3: {what}", remedy=BY_HAND)
