"""What the rules on connectivity share: the evidence, what was found so far, how it is worded."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from kitlib.diagnosis.blame import Blame, Pair, Part, named, natural
from kitlib.diagnosis.seen import Evidence, Seen, Tables
from kitlib.model import CLUSTER, Check, Status

__all__ = [
    "HARMLESS",
    "Case",
    "Reason",
    "at",
    "between",
    "count",
    "in_brackets",
    "said",
    "target_of",
]


class Reason(StrEnum):
    """Why something does not work, from the wire upwards; the first that holds is the one told."""

    AGENT = "agent"
    """There is no agent to probe from, or to."""
    HOST = "host"
    """The hosts themselves do not reach each other."""
    ROUTE = "route"
    """A host has no route to the other one's pods, or a wrong one."""
    TUNNEL = "tunnel"
    """Encapsulated packets vanish between the hosts."""
    FORWARDING = "forwarding"
    """Packets of pods reach the host, which does not forward them."""
    REACH = "reach"
    """Pods do not reach each other, and the evidence does not say why."""
    ICMP = "icmp"
    """Echo requests are dropped where TCP passes."""
    MTU = "mtu"
    """Large packets vanish."""
    TCP = "tcp"
    """Connections are not made though packets pass."""
    HTTP = "http"
    """Requests are not answered though connections are made."""
    SERVICE = "service"
    """A ClusterIP does not lead to its pods."""
    DNS = "dns"
    """Names do not resolve."""
    POLICY = "policy"
    """A NetworkPolicy is not honoured."""


HARMLESS = (Reason.ICMP, Reason.MTU, Reason.POLICY)
"""What lets small packets of connections pass."""


@dataclass(slots=True)
class Case:
    """One cluster under judgement.

    Attributes:
        tables: What was probed.
        evidence: What else is known.
        checks: What was found, in the order of the rules.
        reasons: Pair -> why it does not work.
        like: The same for pairs that were not tried themselves, of nodes all of whose pairs fail.
        ends: (node, what it asks) -> why that does not work, of what is no pair of nodes.
        tried: (node, what it asks) that works.
    """

    tables: Tables
    evidence: Evidence
    checks: list[Check] = field(default_factory=list)
    reasons: dict[Pair, Reason] = field(default_factory=dict)
    like: dict[Pair, Reason] = field(default_factory=dict)
    ends: dict[tuple[str, str], Reason] = field(default_factory=dict)
    tried: set[tuple[str, str]] = field(default_factory=set)

    def left(self, seen: Seen, *, small: bool = False) -> tuple[dict[Pair, str], set[Pair]]:
        """Return the failures that nothing explains yet, and those that something does.

        Args:
            seen: How a probe fared.
            small: Its packets are small, so that a black hole for large ones is no explanation.
        """
        known = {
            pair
            for pair in seen.fails
            if (why := self.why(pair)) and not (small and why in HARMLESS)
        }
        return {pair: why for pair, why in seen.fails.items() if pair not in known}, known

    def why(self, pair: Pair) -> Reason | None:
        """Return why a pair does not work, or cannot; None where it does, as far as is known."""
        return self.reasons.get(pair) or self.like.get(pair)

    def explain(self, pairs: Iterable[Pair], reason: Reason) -> None:
        """Note why pairs do not work; what was noted before stays where it lets nothing pass."""
        for pair in pairs:
            if self.reasons.get(pair) in (None, *HARMLESS):
                self.reasons[pair] = reason

    def infer(self, node: str, part: Part, reason: Reason, works: Collection[Pair]) -> None:
        """Take it that a node's other pairs do not work either: a sample has not all of them.

        Args:
            node: The node; none where it is empty.
            part: Whether it is so of what it sends, of what it gets, or of both.
            reason: Why.
            works: The pairs that are known to work.
        """
        for other in self.evidence.nodes if node else ():
            ways = {Part.SOURCE: [(node, other)], Part.TARGET: [(other, node)]}
            for pair in ways.get(part, [(node, other), (other, node)]):
                if other != node and pair not in works:
                    self.like.setdefault(pair, reason)

    def find(
        self,
        reason: Reason,
        target: str,
        summary: str,
        *,
        got: str,
        expected: str,
        remedy: str,
        status: Status = Status.FAIL,
    ) -> None:
        """Add one finding."""
        self.checks.append(
            Check(f"connectivity.{reason}", target, status, summary, got, expected, remedy)
        )

    def well(self, reason: Reason, summary: str, got: str) -> None:
        """Add what was judged and found good."""
        self.checks.append(Check(f"connectivity.{reason}", CLUSTER, Status.PASS, summary, got=got))

    def skip(self, reason: Reason, why: str) -> None:
        """Add what could not be judged, and why."""
        self.checks.append(Check(f"connectivity.{reason}", CLUSTER, Status.SKIP, why))

    def why_not(self, *probes: str, otherwise: str) -> str:
        """Return why a probe was not run."""
        return next(
            (self.evidence.skipped[each] for each in probes if each in self.evidence.skipped),
            otherwise,
        )

    def known(self, reason: Reason) -> bool:
        """Return whether there is a check of that kind already."""
        return any(check.id == f"connectivity.{reason}" for check in self.checks)


def target_of(cause: Blame) -> str:
    """Return whom a finding is about: the node to blame, the one source of all pairs, or all."""
    sources = {src for src, _ in cause.pairs}
    if cause.node:
        return cause.node
    return sources.pop() if len(sources) == 1 else CLUSTER


def between(cause: Blame) -> str:
    """Return in words between which nodes it fails."""
    match cause.part:
        case Part.BOTH:
            return f"between {cause.node} and {_others(cause)}"
        case Part.SOURCE:
            return f"from {cause.node} to {_others(cause)}"
        case Part.TARGET:
            return f"to {cause.node} from {_others(cause)}"
        case Part.GROUPS:
            listed = " and ".join(f"({named(group)})" for group in cause.groups[:3])
            more = len(cause.groups) - 3
            return f"between {listed}" + (f" and {more} more groups" if more > 0 else "")
        case Part.ALL:
            nodes = sorted({node for pair in cause.pairs for node in pair}, key=natural)
            return f"between all of {named(nodes)}" if len(nodes) > 2 else _joined(cause.pairs)
        case Part.PAIRS:
            return _joined(cause.pairs)


def at(cause: Blame) -> str:
    """Return where to look, in words."""
    if cause.node:
        return cause.node
    nodes = list(dict.fromkeys(node for pair in cause.pairs for node in pair))
    return named(nodes, 3)


def said(seen: Seen, cause: Blame) -> str:
    """Return the network's own words, as the end of a sentence; empty where it said nothing."""
    return in_brackets(seen.reasons(cause.pairs))


def in_brackets(*words: str) -> str:
    """Return the first two of the words as the end of a sentence; empty where there are none."""
    told = [each for each in words if each]
    return f" ({'; '.join(told[:2])})" if told else ""


def count(pairs: Collection[object], what: str = "pair") -> str:
    """Return a number of things in words."""
    return f"{len(pairs)} {what}{'' if len(pairs) == 1 else 's'}"


def _others(cause: Blame) -> str:
    others = sorted({node for pair in cause.pairs for node in pair} - {cause.node}, key=natural)
    return named(others)


def _joined(pairs: Collection[Pair]) -> str:
    return named(f"{src} to {dst}" for src, dst in pairs)
