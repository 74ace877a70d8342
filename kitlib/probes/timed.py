"""What every probe of times gives: one sample for each packet, connection, request or lookup.

Lost ones are samples like any other (`lost` is true, there is no time), so that loss is counted
from the same data as latency and no sentinel value can slip into a percentile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Sample", "rows"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing that was sent, and what came of it.

    Attributes:
        seq: Its number in the command, counted from 1.
        rtt_ms: The measured time in milliseconds; None when no answer came, or it was not timed.
        duplicate: True for a further reply to a packet that was already answered.
        reason: Why no answer came, where the tool, a router or the kernel said so.
        reordered: True when its reply came after the reply to a packet that was sent later.
        server: Who answered (a node's name, a DNS server's address); empty when it is not known.
        untimed: True when an answer came and the tool does not say how fast (nc, wget, nslookup).
    """

    seq: int
    rtt_ms: float | None
    duplicate: bool = False
    reason: str = ""
    reordered: bool = False
    server: str = ""
    untimed: bool = False

    @property
    def lost(self) -> bool:
        """True when no answer came."""
        return self.rtt_ms is None and not self.untimed


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
    interval: float = 0.0,
    warmup: int = 1,
    side_by_side: int = 0,
) -> list[dict[str, object]]:
    """Return the samples as rows for `samples.write_samples`.

    Args:
        samples: What a probe's `parse` returned.
        round: The number of the measuring round.
        src: Name of the node that sent.
        dst: Name of what was asked: a node, a Service, a DNS name.
        src_ip: Address that sent; empty when it is not known.
        dst_ip: Address that was asked.
        path: `pod` (pod to pod) or `host` (host to host, the baseline).
        started: Unix time at which the command started; `t` is computed from it and `interval`.
        interval: Seconds between two samples; 0 where each one waits for the one before: then `t`
            is the command's start.
        warmup: So many first samples are marked: they pay for ARP, connection tracking and caches.
        side_by_side: How many pairs are measured at a time; 0 when it is not known.
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
            "reordered": sample.reordered,
            "warmup": sample.seq <= warmup,
            "side_by_side": side_by_side,
            "server": sample.server,
            "reason": sample.reason,
            "t": started + (sample.seq - 1) * interval,
        }
        for sample in samples
    ]
