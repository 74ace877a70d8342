"""ICMP round trips to many addresses by one process: fping in its counting mode.

fping sends to all addresses in turn, so a sweep of many costs one process and no waiting for those
that are silent. It does not tell why an address is silent in a way that names the packet, so where
ping is there too, ping measures the pairs. Duplicates are told by old releases only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kitlib.command import Cmd
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["command", "parse"]

_REPLY = re.compile(
    r"^(?P<address>[0-9a-fA-F.:]+)\s+: (?P<again>duplicate for )?\[(?P<seq>\d{1,9})\], "
    r"(?:\d+ bytes, (?P<ms>\d+(?:\.\d+)?) ms\b|timed out\b)",
    re.M,
)
_SUMMARY = re.compile(r"^(?P<address>[0-9a-fA-F.:]+)\s+: (?P<cells>(?:-|\d[\d.]*)(?: \S+)*)$", re.M)
_ICMP = re.compile(
    r"^ICMP (?P<why>.+?) (?:\(\S+ \S+\) )?from \S+ for ICMP Echo sent to (?P<address>\S+)", re.M
)


def command(
    addresses: Sequence[str], *, count: int, interval: float = 0.2, timeout: int = 1
) -> Cmd:
    """Return the pings of many addresses, `count` packets each.

    Args:
        addresses: Where to.
        count: How many packets each.
        interval: Seconds between two packets to the same address.
        timeout: Whole seconds to wait for each reply.
    """
    # 1 ms between any two packets: the sweep asks who answers, and must not flood one link.
    longest = count * max(interval, 0.001 * len(addresses)) + timeout * 2 + 10
    return Cmd(
        (
            "fping", "-C", str(count), "-p", f"{interval * 1000:.0f}", "-i", "1",
            "-t", str(timeout * 1000), *addresses,
        ),
        timeout=longest,
        label=f"fping {len(addresses)} addresses",
    )  # fmt: skip


def parse(text: str, *, count: int) -> dict[str, list[Sample]]:
    """Return for each address that was asked its samples, in order of their numbers.

    Args:
        text: Standard output followed by standard error, which ends in one line an address.
        count: How many packets were asked for each.

    Raises:
        ParseError: The text is not fping's, or what it says of an address does not agree.
    """
    arrived: dict[str, list[re.Match[str]]] = {}
    for line in _REPLY.finditer(text):
        arrived.setdefault(line["address"], []).append(line)
    why = {line["address"]: line["why"] for line in _ICMP.finditer(text)}
    found: dict[str, list[Sample]] = {}
    for summary in _SUMMARY.finditer(text):
        address, cells = summary["address"], summary["cells"].split(" ")
        if len(cells) != count:
            raise _strange(f"{address}: {count} packets were asked for, not {len(cells)}")
        found[address] = _samples(arrived.get(address, []), cells, why.get(address, ""))
    if not found:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise _strange(f"not a summary: {last}")
    return found


def _samples(lines: list[re.Match[str]], cells: list[str], why: str) -> list[Sample]:
    """Return an address's samples from its lines in the order of arrival and its summary."""
    late: set[int] = set()
    again: dict[int, list[float]] = {}
    furthest = -1
    for line in lines:
        seq = int(line["seq"])
        if seq >= len(cells):
            raise _strange(f"a reply to a packet that was never sent: {line[0]}")
        if line["ms"] is None:
            continue
        if line["again"]:
            again.setdefault(seq, []).append(float(line["ms"]))
        elif seq < furthest:
            late.add(seq)
        furthest = max(furthest, seq)
    samples: list[Sample] = []
    for seq, cell in enumerate(cells):
        try:
            ms = None if cell == "-" else float(cell)
        except ValueError as error:
            raise _strange(f"not a time: {cell}") from error
        reason = why if ms is None else ""
        samples.append(Sample(seq + 1, ms, reason=reason, reordered=seq in late))
        samples += [Sample(seq + 1, each, duplicate=True) for each in again.get(seq, ())]
    return samples


def _strange(what: str) -> ParseError:
    return ParseError(f"fping: {what}", remedy=BY_HAND)
