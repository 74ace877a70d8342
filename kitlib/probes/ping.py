"""ICMP round trips: the ping command and what iputils and BusyBox print about it.

Lost packets are rows like any other (`lost` is true, there is no round-trip time), so that loss
is counted from the same data as latency and no sentinel value can slip into a percentile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ParseError

__all__ = ["Sample", "command", "parse", "parse_sweep", "rows", "sweep"]

AT_A_TIME = 8
"""Addresses that a sweep pings side by side: it asks whether they answer, not how fast."""

# Each ping's text is written at once, by its own subshell: short ones never mix in a pipe.
_SWEEP = (
    'count=$1 interval=$2 timeout=$3 most=$4 n=0; shift 4; for a in "$@"; do ('
    ' said=$(ping -c "$count" -i "$interval" -W "$timeout" "$a" 2>&1);'
    ' printf \'# %s\\n%s\\n\' "$a" "$said" ) &'
    " n=$((n + 1)); [ $((n % most)) -ne 0 ] || wait; done; wait; true"
)
_SWEPT = re.compile(r"^# (\S+)$", re.M)
_HEADER = re.compile(r"^PING \S+", re.M)
_REPLY = re.compile(
    r"^\d+ bytes from (?:\S+ \()?[0-9a-fA-F.:]+?\)?: (?P<word>icmp_seq|seq)=(?P<seq>\d+) .*?"
    r"time[=<](?P<ms>[\d.]+) ms(?P<tail>.*)$",
    re.M,
)
_REFUSED = re.compile(r"^From (?P<by>\S+).* icmp_seq=(?P<seq>\d+) (?P<why>.+)$", re.M)
_TOTALS = re.compile(r"^(?P<sent>\d+) packets transmitted, \d+ (?:packets )?received", re.M)
_UNSENT = re.compile(
    r"^ping: (?:(?:connect|sendmsg|sendto): )?"
    r"(?P<why>Network is unreachable|No route to host|Network unreachable"
    r"|Operation not permitted|Invalid argument|Message too long)\s*$",
    re.M,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One packet that was sent.

    Attributes:
        seq: Its number in the run, counted from 1 (BusyBox counts from 0; that is evened out).
        rtt_ms: Round-trip time in milliseconds; None when no reply came.
        duplicate: True for a second reply to a packet that was already answered.
        reason: Why no reply came, where a router or the kernel said so.
    """

    seq: int
    rtt_ms: float | None
    duplicate: bool = False
    reason: str = ""

    @property
    def lost(self) -> bool:
        """True when no reply came."""
        return self.rtt_ms is None


def command(address: str, *, count: int = 20, interval: float = 0.2, timeout: int = 2) -> Cmd:
    """Return the ping of one address, in the form that iputils and BusyBox both take.

    Args:
        address: Where to.
        count: How many packets.
        interval: Seconds between two packets.
        timeout: Whole seconds to wait for the last reply.
    """
    longest = count * interval + timeout * 2 + 10
    return Cmd.of(
        "ping", "-c", str(count), "-i", f"{interval:g}", "-W", str(timeout), address,
        timeout=longest,
    )  # fmt: skip


def sweep(addresses: Sequence[str], *, count: int, interval: float = 0.2, timeout: int = 1) -> Cmd:
    """Return the pings of many addresses, AT_A_TIME of them side by side, as one command.

    Args:
        addresses: Where to, begun in this order.
        count: How many packets each.
        interval: Seconds between two packets.
        timeout: Whole seconds to wait for the last reply of each.
    """
    batches = -(-len(addresses) // AT_A_TIME)
    longest = batches * (count * interval + timeout * 2) + len(addresses) + 10
    return script(
        _SWEEP, str(count), f"{interval:g}", str(timeout), str(AT_A_TIME), *addresses,
        timeout=longest, label=f"ping {len(addresses)} addresses",
    )  # fmt: skip


def parse_sweep(text: str, *, count: int) -> dict[str, list[Sample]]:
    """Return for each address that was pinged its samples, from what `sweep` printed.

    Args:
        text: Standard output.
        count: How many packets were asked for each.

    Raises:
        ParseError: A part of the text is not ping's, or ends before its statistics.
    """
    parts = _SWEPT.split(text)[1:]
    return {
        address: parse(said, count=count)
        for address, said in zip(parts[::2], parts[1::2], strict=True)
    }


def parse(text: str, *, count: int) -> list[Sample]:
    """Return one sample for each packet sent, in order of its number, duplicates after theirs.

    Args:
        text: Standard output followed by standard error.
        count: How many packets were asked for; all of them are lost when none could be sent.

    Raises:
        ParseError: The text is not ping's, or ends before its statistics.
    """
    unsent = _UNSENT.search(text)
    totals = _TOTALS.search(text)
    if totals is None:
        if unsent is None:
            last = (text.strip().splitlines() or ["nothing"])[-1]
            what = "no statistics line" if _HEADER.search(text) else "not the output of ping"
            raise ParseError(f"ping: {what}: {last}", remedy="see the command's raw record")
        return [Sample(seq, None, reason=unsent["why"]) for seq in range(1, count + 1)]
    replies = list(_REPLY.finditer(text))
    shift = 1 if any(reply["word"] == "seq" for reply in replies) else 0
    answers: dict[int, list[Sample]] = {}
    for reply in replies:
        seq = int(reply["seq"]) + shift
        seen = answers.setdefault(seq, [])
        again = bool(seen) or "DUP!" in reply["tail"]
        seen.append(Sample(seq, float(reply["ms"]), duplicate=again))
    refusals = {int(line["seq"]): line["why"].strip() for line in _REFUSED.finditer(text)}
    samples: list[Sample] = []
    for seq in range(1, int(totals["sent"]) + 1):
        why = refusals.get(seq, unsent["why"] if unsent else "")
        samples += answers.get(seq) or [Sample(seq, None, reason=why)]
    return samples


def rows(
    samples: Iterable[Sample],
    *,
    round: int,
    src: str,
    dst: str,
    src_ip: str,
    dst_ip: str,
    path: str,
    started: float,
    interval: float,
    warmup: int = 1,
) -> list[dict[str, object]]:
    """Return the samples as rows for `samples.write_samples`.

    Args:
        samples: What `parse` returned.
        round: The number of the measuring round.
        src: Name of the node that sent.
        dst: Name of the node that was asked.
        src_ip: Address that sent; empty when it is not known.
        dst_ip: Address that was asked.
        path: `pod` (pod to pod) or `host` (host to host, the baseline).
        started: Unix time at which the command started; `t` is computed from it and `interval`.
        interval: Seconds between two packets.
        warmup: So many first packets are marked: they pay for ARP and connection tracking.
    """
    return [
        {
            "round": round,
            "src": src,
            "dst": dst,
            "src_ip": src_ip,
            "dst_ip": dst_ip,
            "path": path,
            "seq": sample.seq,
            "rtt_ms": sample.rtt_ms,
            "lost": sample.lost,
            "duplicate": sample.duplicate,
            "warmup": sample.seq <= warmup,
            "reason": sample.reason,
            "t": started + (sample.seq - 1) * interval,
        }
        for sample in samples
    ]
