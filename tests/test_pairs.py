"""The schedule of latency measurements: every ordered pair once, no node in two at a time."""

from __future__ import annotations

from itertools import permutations

import pytest

from kitlib.probes import pairs


@pytest.mark.parametrize("count", [*range(12), 25, 50])
def test_every_ordered_pair_has_its_turn(count: int) -> None:
    nodes = [f"node-{number}" for number in range(count)]
    turns = pairs.turns(nodes)
    planned = [pair for turn in turns for pair in turn]
    assert sorted(planned) == sorted(permutations(nodes, 2)), "each once, none with itself"
    for turn in turns:
        busy = [node for pair in turn for node in pair]
        assert len(busy) == len(set(busy)), f"a node is in two measurements at a time: {turn}"


@pytest.mark.parametrize(("count", "turns"), [(2, 2), (3, 6), (4, 6), (25, 50), (50, 98)])
def test_there_are_no_more_turns_than_a_node_has_measurements(count: int, turns: int) -> None:
    """With an even number nobody ever rests; with an odd one each rests for one pair."""
    assert len(pairs.turns([str(number) for number in range(count)])) == turns


def test_a_pairs_two_directions_follow_each_other() -> None:
    found = pairs.turns(["a", "b", "c", "d"])
    for there, back in zip(found[::2], found[1::2], strict=True):
        assert [(target, source) for source, target in there] == back
