"""The schedule of latency measurements: every ordered pair once, no node in two at a time."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("width", [1, 2, 3, 7, 25, 100])
@pytest.mark.parametrize("count", [2, 5, 10, 50])
def test_a_limit_of_pairs_at_a_time_divides_the_turns_evenly(count: int, width: int) -> None:
    nodes = [str(number) for number in range(count)]
    plan = pairs.schedule(nodes, side_by_side=width)
    assert sorted(plan.pairs) == sorted(permutations(nodes, 2))
    assert len(plan.pairs) == plan.of
    for whole in pairs.turns(nodes):
        parts = [turn for turn in plan.turns if set(turn) <= set(whole)]
        sizes = [len(part) for part in parts]
        assert sum(sizes) == len(whole)
        assert max(sizes) <= width
        assert max(sizes) - min(sizes) <= 1, "no turn that a few pairs hold up"


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[str], dict[str, str], int, int, int]:
    """Nodes, the zones of some or all of them, a sample's size, a seed, a limit of pairs."""
    count = draw(st.integers(2, 40))
    nodes = [f"node-{number}" for number in range(count)]
    zone = st.sampled_from(["", "a", "b", "c", "d"][: draw(st.integers(1, 5))])
    zones = {node: draw(zone) for node in nodes}
    size = draw(st.integers(1, count * (count - 1)))
    return nodes, zones, size, draw(st.integers(0, 99)), draw(st.integers(0, 21))


@given(clusters())
def test_a_sample_is_fair_to_every_node_and_every_zone(
    cluster: tuple[list[str], dict[str, str], int, int, int],
) -> None:
    nodes, zones, size, seed, _ = cluster
    found = pairs.sample(nodes, size, seed=seed, zones=zones)
    assert len(found) == len(set(found)) == size
    assert all(source != target for source, target in found)
    for end in (0, 1):
        times = Counter(pair[end] for pair in found)
        assert max(times[node] for node in nodes) - min(times[node] for node in nodes) <= 1
    of = Counter((zones[a], zones[b]) for a, b in permutations(nodes, 2))
    drawn = Counter((zones[a], zones[b]) for a, b in found)
    for combination, count in of.items():
        share = size * count / (len(nodes) * (len(nodes) - 1))
        assert abs(drawn[combination] - share) < 1, f"{combination}: {drawn[combination]}, {share}"
    assert found == pairs.sample(nodes, size, seed=seed, zones=zones), "the seed says it all"


@given(clusters())
def test_a_samples_turns_share_no_node_and_keep_the_limit(
    cluster: tuple[list[str], dict[str, str], int, int, int],
) -> None:
    nodes, zones, size, seed, width = cluster
    plan = pairs.schedule(nodes, most=size, seed=seed, zones=zones, side_by_side=width)
    assert plan.record == {"measured": size, "of": len(nodes) * (len(nodes) - 1), "seed": seed}
    assert plan.record["measured"] == len(plan.pairs) <= plan.record["of"]
    for turn in plan.turns:
        busy = [node for pair in turn for node in pair]
        assert len(busy) == len(set(busy))
        assert len(turn) <= plan.side_by_side
    most = max(Counter(node for pair in plan.pairs for node in pair).values())
    rounding = len(pairs.turns(nodes)) if len(plan.pairs) == plan.of else 2 * most
    assert len(plan.turns) <= size // plan.side_by_side + rounding, "pairs wait without need"


def test_each_pair_has_the_same_chance_to_be_drawn() -> None:
    """Also across zones of different sizes: nobody is left out by how the sample is built."""
    nodes = [str(number) for number in range(7)]
    zones = dict(zip(nodes, "aaaabbc", strict=True))
    drawn: Counter[pairs.Pair] = Counter()
    for seed in range(4200):
        drawn.update(pairs.sample(nodes, 10, seed=seed, zones=zones))
    assert len(drawn) == 42
    assert all(850 < times < 1150 for times in drawn.values()), drawn  # 1,000 is expected


def test_two_hundred_nodes_are_sampled_in_nearly_as_few_turns_as_can_be() -> None:
    nodes = [f"node-{number}" for number in range(200)]
    zones = {node: f"zone-{number % 3}" for number, node in enumerate(nodes)}
    plan = pairs.schedule(nodes, most=2450, zones=zones)
    assert plan.side_by_side == 100
    assert len(plan.pairs) == 2450
    assert len(plan.turns) <= 30  # a node has 24 or 25 of the pairs, and one at a time
