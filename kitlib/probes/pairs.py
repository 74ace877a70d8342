"""In which order every ordered pair of nodes is measured: in turns of pairs that share no node.

It is the schedule of a tournament in which everybody meets everybody (the circle method): one node
stays, the others move round by one place a turn, and who face each other are a pair.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Pair", "turns"]

Pair = tuple[str, str]
"""Source and target."""


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
