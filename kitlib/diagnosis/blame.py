"""Which nodes stand behind failures between nodes: rows, columns and groups instead of pairs.

A table of 2,450 pairs with 98 failures is one sick node, not 98 findings. What is blamed explains
all of a node's failures and none of its successes; what no node explains stays a list of pairs.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Blame", "Pair", "Part", "blame", "lossy_nodes", "named", "natural"]

Pair = tuple[str, str]
"""Source and target."""

SHARE = 0.9
"""So much of a node's pairs must fail: with 200 nodes one lucky packet must not hide a sick one."""
LOST, TIMES = 10, 5.0
"""A node is lossy that loses so many packets, and so many times what the others lose of theirs."""
LEAST = 2
"""With so many other nodes at least: from one pair alone nobody knows which end it is."""


class Part(StrEnum):
    """How a node is in what fails."""

    BOTH = "both"
    """To it and from it."""
    SOURCE = "source"
    """From it."""
    TARGET = "target"
    """To it."""
    ALL = "all"
    """Nothing works, so that no node stands out."""
    GROUPS = "groups"
    """Nodes in groups: all is well within, nothing passes between them."""
    PAIRS = "pairs"
    """Single pairs."""


@dataclass(frozen=True, slots=True)
class Blame:
    """One cause.

    Attributes:
        part: How the node is in it.
        node: The node; empty where it is none in particular.
        pairs: The failures that it explains, sorted.
        groups: The groups, for GROUPS, the smaller one first.
    """

    part: Part
    node: str
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[str, ...], ...] = ()


def blame(
    bad: Collection[Pair], good: Collection[Pair], *, also_bad: Collection[Pair] = ()
) -> list[Blame]:
    """Return the causes that explain the failures, the one that explains most first.

    Args:
        bad: The pairs that fail.
        good: The pairs that work.
        also_bad: Pairs that fail for a reason that is known already: they need no cause, but a node
            all of whose pairs fail is not cleared by them.
    """
    left = set(bad)
    if not left:
        return []
    if not good:
        return [Blame(Part.ALL, "", tuple(sorted(left)))]
    candidates = _candidates(left, set(good), set(also_bad))
    found = []
    while left and candidates:
        covered = {key: left & pairs for key, pairs in candidates.items()}
        key = max(covered, key=lambda each: (len(covered[each]), each[1] is Part.BOTH, each[0]))
        if not covered[key]:
            break
        found.append(Blame(key[1], key[0], tuple(sorted(covered[key]))))
        left -= covered.pop(key)
        del candidates[key]
    if left:
        groups = _groups(left, good)
        part = Part.GROUPS if groups else Part.PAIRS
        found.append(Blame(part, "", tuple(sorted(left)), groups))
    return found


def lossy_nodes(pairs: Mapping[Pair, tuple[int, int]]) -> list[str]:
    """Return the nodes that lose packets of most they talk to by chance, the worst first.

    At a loss of some percent a pair with few packets often loses none, so that no share of a node's
    pairs tells it: its packets do, set against those between the other nodes.

    Args:
        pairs: Pair -> how many packets were lost, and sent.
    """
    left = dict(pairs)
    found: list[str] = []
    while True:
        gone: Counter[str] = Counter()
        sent: Counter[str] = Counter()
        peers: dict[str, set[str]] = defaultdict(set)
        for pair, (lost, n) in left.items():
            for node, peer in (pair, pair[::-1]):
                gone[node] += lost
                sent[node] += n
                if lost:
                    peers[node].add(peer)
        if not gone:
            return found
        worst = max(gone, key=lambda node: (gone[node] / max(sent[node], 1), node))
        others = {pair: count for pair, count in left.items() if worst not in pair}
        lost, n = (sum(count[place] for count in others.values()) for place in (0, 1))
        usual = (lost + 1) / (n + 1)
        if (
            gone[worst] < LOST
            or len(peers[worst]) < LEAST
            or gone[worst] < TIMES * usual * sent[worst]
        ):
            return found
        found.append(worst)
        left = others


def named(names: Iterable[str], most: int = 5) -> str:
    """Return names in words: `a, b and 3 more`."""
    listed = list(names)
    if len(listed) > most:
        return f"{', '.join(listed[:most])} and {len(listed) - most} more"
    return ", ".join(listed)


def natural(name: str) -> tuple[object, ...]:
    """Return what puts worker-2 before worker-10."""
    return tuple(
        (part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name)
    )


def _candidates(
    bad: set[Pair], good: set[Pair], also_bad: set[Pair]
) -> dict[tuple[str, Part], set[Pair]]:
    """Return what could be blamed -> the failures that it would explain."""
    lines: dict[tuple[str, Part], set[Pair]] = defaultdict(set)
    peers: dict[tuple[str, Part], set[str]] = defaultdict(set)
    for pairs in (bad, also_bad):
        for src, dst in pairs:
            for node, part in _parts(src, dst):
                peers[node, part].add(dst if node == src else src)
                if pairs is bad:
                    lines[node, part].add((src, dst))
    sources, targets = Counter(src for src, _ in good), Counter(dst for _, dst in good)
    works = {
        (node, part): sources[node] * (part is not Part.TARGET)
        + targets[node] * (part is not Part.SOURCE)
        for node, part in lines
    }
    return {
        key: pairs
        for key, pairs in lines.items()
        if len(peers[key]) >= LEAST and len(pairs) >= SHARE * (len(pairs) + works[key])
    }


def _parts(src: str, dst: str) -> tuple[tuple[str, Part], ...]:
    return (src, Part.SOURCE), (src, Part.BOTH), (dst, Part.TARGET), (dst, Part.BOTH)


def _groups(bad: Collection[Pair], good: Collection[Pair]) -> tuple[tuple[str, ...], ...]:
    """Return the groups that the failures stand between; none where they also are within one."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    apart = len({node for pair in good for node in pair}) - 1
    for src, dst in good:
        if not apart:
            break  # one group already: 40,000 more pairs change nothing
        if (one := root(src)) != (other := root(dst)):
            parent[one] = other
            apart -= 1
    if any(root(src) == root(dst) for src, dst in bad):
        return ()
    members: dict[str, list[str]] = defaultdict(list)
    for node in sorted({node for pair in bad for node in pair}, key=natural):
        members[root(node)].append(node)
    return tuple(
        sorted((tuple(each) for each in members.values()), key=lambda each: (len(each), each))
    )
