"""Which ordered pairs of nodes are measured, and in which order: in turns that share no node.

All pairs follow the schedule of a tournament in which everybody meets everybody (the circle
method): one node stays, the others move round by one place a turn, and who face each other are a
pair. Of more pairs than are wanted a seeded sample is taken, which is as fair to nodes and zones
as whole numbers allow.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Pair", "Schedule", "packed", "sample", "schedule", "turns"]

Pair = tuple[str, str]
"""Source and target."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The pairs that are measured.

    Attributes:
        turns: Turns in order; within one no node occurs twice, so its pairs go side by side.
        of: How many ordered pairs the nodes have.
        seed: What the sample was drawn with, where it is one.
        side_by_side: The most pairs that a turn can have.
    """

    turns: tuple[tuple[Pair, ...], ...]
    of: int
    seed: int
    side_by_side: int

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every pair, in the order of its turn."""
        return tuple(pair for turn in self.turns for pair in turn)

    @property
    def record(self) -> dict[str, int]:
        """What run.json keeps as `pairs`."""
        return {"measured": len(self.pairs), "of": self.of, "seed": self.seed}


def schedule(
    nodes: Sequence[str],
    *,
    most: int = 0,
    seed: int = 1,
    zones: Mapping[str, str] | None = None,
    side_by_side: int = 0,
) -> Schedule:
    """Return all ordered pairs of the nodes, or a sample of them, in turns.

    Args:
        nodes: Different names.
        most: Above so many pairs a sample of that many is taken; 0 takes all.
        seed: The same seed, nodes and zones give the same sample.
        zones: Node -> zone; who has none is of a zone of its own with all others without.
        side_by_side: The most pairs in a turn; 0 is as many as the nodes have room for.
    """
    of = len(nodes) * (len(nodes) - 1)
    room = max(len(nodes) // 2, 1)
    width = min(side_by_side or room, room)
    if most and of > most:
        found = packed(sample(nodes, most, seed=seed, zones=zones), width)
    else:
        found = [part for turn in turns(nodes) for part in _parts(turn, width)]
    return Schedule(tuple(tuple(turn) for turn in found), of, seed, width)


def turns(nodes: Sequence[str]) -> list[list[Pair]]:
    """Return turns of ordered pairs: each pair in exactly one turn, no node twice in a turn.

    n nodes take 2 (n - 1) turns of n / 2 pairs where n is even, else 2 n turns of (n - 1) / 2. The
    two directions of a pair come one right after the other.
    """
    circle: list[str | None] = [*nodes]
    if len(circle) % 2:
        circle.append(None)  # who faces nobody rests
    found: list[list[Pair]] = []
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        facing = zip(circle[:half], reversed(circle[half:]), strict=True)
        pairs = [(one, other) for one, other in facing if one is not None and other is not None]
        found += [pairs, [(other, one) for one, other in pairs]]
        circle.insert(1, circle.pop())
    return [turn for turn in found if turn]


def sample(
    nodes: Sequence[str], size: int, *, seed: int, zones: Mapping[str, str] | None = None
) -> list[Pair]:
    """Return `size` different ordered pairs, drawn evenly.

    No node is source more than once oftener than another one, nor target; and each zone-to-zone
    combination has its share, in proportion to how many pairs it has, within one.

    Args:
        nodes: Different names.
        size: How many pairs, at most all.
        seed: The same seed, nodes and zones give the same pairs.
        zones: Node -> zone; who has none is of a zone of its own with all others without.
    """
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    members: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        members[(zones or {}).get(node, "")].append(node)
    names = sorted(members)
    for name in names:
        chance.shuffle(members[name])
    quotas = _quotas([len(members[name]) for name in names], size, chance)
    wanted = {name: _rows(quotas[a], len(members[name])) for a, name in enumerate(names)}
    found: list[Pair] = []
    for b, target in enumerate(names):
        columns = members[target]
        own = [row[b] for row in wanted[target]]
        found += _within(columns, own, chance)
        # From other zones the columns are filled round and round, who has least so far first.
        had = Counter(node for _, node in found)
        circle, at = sorted(columns, key=lambda node: had[node]), 0
        for name in names:
            if name == target:
                continue
            for source, row in zip(members[name], wanted[name], strict=True):
                for _ in range(row[b]):
                    found.append((source, circle[at % len(circle)]))
                    at += 1
    return found


def packed(pairs: Sequence[Pair], width: int) -> list[list[Pair]]:
    """Return turns of any pairs, no node twice in a turn and no more than `width` pairs.

    Whose nodes have most to come goes first, so that nobody is left over at the end.
    """
    left = list(pairs)
    load = Counter(node for pair in pairs for node in pair)
    found: list[list[Pair]] = []
    while left:
        left.sort(key=lambda pair: -max(load[pair[0]], load[pair[1]]))
        busy: set[str] = set()
        turn: list[Pair] = []
        later: list[Pair] = []
        for pair in left:
            if len(turn) < width and busy.isdisjoint(pair):
                turn.append(pair)
                busy.update(pair)
            else:
                later.append(pair)
        load.subtract(busy)
        found.append(turn)
        left = later
    return found


def _within(circle: Sequence[str], counts: Sequence[int], chance: random.Random) -> list[Pair]:
    """Return for each node of a zone so many targets in it, each node a target equally often.

    Everybody's targets lie at the same distances round the circle. Who has one more than others
    has it at one more distance, and so nobody is the target of two of those.
    """
    distances = chance.sample(range(1, len(circle)), max(counts, default=0))
    return [
        (source, circle[(place + distance) % len(circle)])
        for place, (source, count) in enumerate(zip(circle, counts, strict=True))
        for distance in distances[:count]
    ]


def _rows(quota: Sequence[int], size: int) -> list[list[int]]:
    """Return for each of a zone's nodes how many targets it has in each zone, evenly."""
    rows, at = [[share // size for share in quota] for _ in range(size)], 0
    for zone, share in enumerate(quota):
        for _ in range(share % size):
            rows[at % size][zone] += 1
            at += 1
    return rows


def _quotas(sizes: Sequence[int], size: int, chance: random.Random) -> list[list[int]]:
    """Return how many pairs go from each zone to each: its share, rounded up or down.

    The sums of rows and columns are rounded shares too, so that every node can have its part. It
    is controlled rounding: the fractions, filled up to whole sums, are moved round cycles of cells
    until none is left, by chance one way or the other in proportion.
    """
    total = sum(sizes)
    whole = total * (total - 1)
    share = [
        [size * one * (other - (a == b)) for b, other in enumerate(sizes)]
        for a, one in enumerate(sizes)
    ]
    if not whole:
        return [[0] * len(sizes) for _ in sizes]
    rest = [[cell % whole for cell in row] for row in share]
    rest = [[*row, -sum(row) % whole] for row in rest]
    rest.append([-sum(column) % whole for column in zip(*rest, strict=True)])
    while cycle := _cycle(rest, whole, chance):
        up, down = cycle[::2], cycle[1::2]
        more = min(*(whole - rest[a][b] for a, b in up), *(rest[a][b] for a, b in down))
        less = min(*(rest[a][b] for a, b in up), *(whole - rest[a][b] for a, b in down))
        move = more if chance.randrange(more + less) < less else -less
        for a, b in up:
            rest[a][b] += move
        for a, b in down:
            rest[a][b] -= move
    return [
        [cell // whole + rest[a][b] // whole for b, cell in enumerate(row)]
        for a, row in enumerate(share)
    ]


def _cycle(rest: list[list[int]], whole: int, chance: random.Random) -> list[tuple[int, int]]:
    """Return cells that are fractions, in turn in one row and in one column; none when none are.

    Rows and columns have whole sums, so who has one fraction has another one, and a walk from one
    to the next must come back to where it was.
    """

    def open_cells(a: int) -> list[int]:
        return [b for b, cell in enumerate(rest[a]) if cell % whole]

    start = next((a for a in range(len(rest)) if open_cells(a)), None)
    if start is None:
        return []
    walk: list[tuple[int, int]] = []
    a, came = start, -1
    seen = {a: 0}
    while True:
        b = chance.choice([each for each in open_cells(a) if each != came])
        walk.append((a, b))
        a = chance.choice([c for c, row in enumerate(rest) if c != a and row[b] % whole])
        walk.append((a, b))
        came = b
        if a in seen:
            return walk[seen[a] :]
        seen[a] = len(walk)


def _parts(turn: list[Pair], width: int) -> list[list[Pair]]:
    """Return a turn as equal parts of at most so many pairs."""
    count = -(-len(turn) // width)
    return [turn[part::count] for part in range(count)]
