"""The kit's latencies beside a plain ping's: same pods, same packets, one right after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kitlib.command import Cmd
from kitlib.measure import _Work, planned
from kitlib.probes import ping
from kitlib.runs import load_run
from kitlib.samples import read_samples
from kitlib.session import Session
from kitlib.stages.agents import AgentSet, agents

MOST_MS, MOST_SHARE = 0.005, 0.10
"""The kit's p50 agrees with a plain ping's within 5 us, or 10 %."""


@dataclass
class Round:
    """What both measured in one round, in milliseconds: every reply but each ping's first."""

    kit: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def p50s(self) -> tuple[float, float]:
        return quantile(self.kit, 0.5), quantile(self.plain, 0.5)

    @property
    def agrees(self) -> bool:
        kit, plain = self.p50s
        return abs(kit - plain) <= max(MOST_MS, MOST_SHARE * plain)

    @property
    def p99s(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The 95 % intervals of p99, the kit's and the plain ping's."""
        return interval(self.kit, 0.99), interval(self.plain, 0.99)

    @property
    def overlap(self) -> bool:
        (low, high), (other_low, other_high) = self.p99s
        return low <= other_high and other_low <= high


def beside_ping(
    session: Session, rounds: int, *, packets: int, interval: float, times: int = 1
) -> list[Round]:
    """Return rounds in which the kit and a plain ping measured every pair of pods.

    The kit measures as it always does, pair after pair on both paths. A plain `ping`, run by an
    exec of its own as kubectl would, follows its measurement of the pair's pods or goes before it,
    in turn, so that a machine that is slow for a while is slow for both.

    Args:
        session: A session on a lab's cluster that is Ready.
        rounds: How many.
        packets: Packets of one ping, after its first.
        interval: Seconds between two packets.
        times: How often each pair is measured in a round.
    """
    ctx = session.context
    ctx.read_only = False
    ctx.facts()  # they say whether this is a lab
    probe = session.params.probe.model_copy(update={"samples": packets, "interval": interval})
    found = [Round() for _ in range(rounds)]
    with session.exclusive(), agents(ctx, wanted := _wanted(session)) as running:
        kube = session.kube(wait=10)

        class Beside(_Work):
            done = 0

            def _measure(self, pair: Any, path: str, together: int) -> Any:
                if path != "pod":
                    return super()._measure(pair, path, together)
                self.done += 1
                if (self.done + self._number) % 2:  # each pair now first, now last
                    self._plain(pair)
                    return super()._measure(pair, path, together)
                rows = super()._measure(pair, path, together)
                self._plain(pair)
                return rows

            def _plain(self, pair: Any) -> None:
                address = running.agent(pair[1]).address
                cmd = Cmd.of("ping", "-c", str(packets + 1), "-i", f"{interval:g}", address)
                limit = packets * interval + 30
                said = kube.exec(wanted.namespace, running.agent(pair[0]).pod, cmd, timeout=limit)
                rtts = [each.rtt_ms for each in ping.parse(said.stdout, count=packets + 1)]
                answered = [each for each in rtts[1:] if each is not None]
                found[self._number // times].plain += answered

        work = Beside(session, running, probe)
        assert planned(session, running.nodes).side_by_side == 1, "a ping alone is compared with"
        work.rounds(rounds * times)
        assert not work.missing
    table = read_samples(load_run(session.journal.path))
    kept = table[(table["path"] == "pod") & ~table["warmup"] & ~table["lost"] & ~table["duplicate"]]
    for number, part in kept.groupby("round"):
        found[int(number) // times].kit += part["rtt_ms"].tolist()
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def interval(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the 95 % interval of a quantile: the values at the ranks that the binomial gives.

    Of too few values no one can say how high it may be: then the upper bound is infinite.
    """
    ordered, n = [*sorted(values), math.inf], len(values)
    below, low = 0.0, 0
    for count in range(n + 1):
        ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
        below += math.exp(ways + count * math.log(share) + (n - count) * math.log1p(-share))
        if below <= 0.025:
            low = count + 1
        if below >= 0.975:
            return (ordered[low - 1] if low else -math.inf), ordered[count]
    return -math.inf, math.inf


def _wanted(session: Session) -> AgentSet:
    image = session.params.probe.image
    return AgentSet.of(session.context, host_network=True, image=image, server=False)
