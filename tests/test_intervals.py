"""Intervals on made-up data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kitlib.diagnosis.intervals import (
    Clusters,
    clustered,
    clustered_quantiles,
    contrasts,
    pooled_quantile,
    studentised_range,
    weighted_mean,
)

PAIRS, PACKETS = 6, 40


def draw_cells(
    draw: np.random.Generator, rounds: int, *, build: float
) -> tuple[list[int], np.ndarray]:
    """Return the round of each cell and its packets, around 30 with builds that differ."""
    of = [number for number in range(rounds) for _ in range(PAIRS)]
    centre = 30 + build * draw.standard_normal(rounds)
    pair = np.tile(np.linspace(-1, 1, PAIRS), rounds)
    noise = draw.standard_normal((len(of), PACKETS))
    cell = 0.3 * draw.standard_normal(len(of))
    return of, (centre[of] + pair + cell)[:, None] + noise


@pytest.mark.parametrize("rounds", [3, 5])
@pytest.mark.parametrize("build", [0.2, 2.0])
def test_the_interval_of_a_median_holds_the_truth_as_often_as_it_says(rounds: int, build: float):
    draw = np.random.default_rng(1)
    held = []
    for seed in range(100):
        of, packets = draw_cells(draw, rounds, build=build)
        clusters = Clusters(of, resamples=100, seed=seed)
        cells = np.repeat(np.arange(len(of)), PACKETS)
        median = pooled_quantile(packets.ravel(), cells, 0.5)
        found = clustered(clusters, median, positive=True)
        held.append(found.low <= 30 <= found.high)
    assert np.mean(held) >= 0.90


def test_packets_taken_as_independent_would_hold_it_far_less_often():
    """What the clusters are for: the same data, every packet a cluster of its own."""
    draw = np.random.default_rng(1)
    held = []
    for _ in range(100):
        _, packets = draw_cells(draw, 3, build=2.0)
        flat = packets.ravel()
        half = 1.96 * flat.std(ddof=1) / math.sqrt(len(flat))
        held.append(abs(flat.mean() - 30) <= half)
    assert np.mean(held) < 0.3


def test_an_interval_is_the_same_every_time_and_gets_narrower_with_rounds():
    draw = np.random.default_rng(3)
    widths = []
    for rounds in (3, 12):
        of, packets = draw_cells(draw, rounds, build=1.0)
        first, again = (
            clustered(Clusters(of), weighted_mean(packets.mean(axis=1))) for _ in range(2)
        )
        assert first == again
        widths.append(first.high - first.low)
    assert widths[1] < widths[0] / 2


def test_one_round_alone_has_a_number_and_no_interval():
    found = clustered(Clusters([1] * PAIRS), weighted_mean(np.arange(6.0)))
    assert found.value == 2.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_pooled_quantile_counts_each_cell_as_often_as_it_was_drawn():
    values, cells = np.array([3.0, 1.0, 2.0, 10.0]), np.array([0, 0, 0, 1])
    median = pooled_quantile(values, cells, 0.5)
    assert median(np.array([1, 1])) == 2.0
    assert median(np.array([1, 9])) == 10.0
    assert math.isnan(median(np.array([0, 0])))
    assert math.isnan(pooled_quantile(np.array([]), np.array([], dtype=int), 0.5)(np.array([1])))


def test_a_mean_leaves_out_cells_without_a_value():
    mean = weighted_mean(np.array([1.0, np.nan, 3.0]))
    assert mean(np.array([1, 5, 1])) == 2.0
    assert math.isnan(mean(np.array([0, 1, 0])))


@pytest.mark.parametrize(
    ("groups", "free", "table"),
    [(2, 2, 6.085), (2, 10, 3.151), (3, 4, 5.040), (12, 22, 5.14), (12, 60, 4.81)],
)
def test_the_studentised_range_is_that_of_the_printed_tables(groups: int, free: int, table: float):
    assert studentised_range(groups, free) == pytest.approx(table, rel=0.02)


def builds(
    draw: np.random.Generator, cost: dict[str, float], rounds: int = 3, rest: float = 1.0
) -> dict[tuple[str, object], float]:
    """Return values of plugins in rounds that are slow or fast for all of them alike."""
    slow = 20 * draw.standard_normal(rounds)
    return {
        (name, number): value + slow[number] + rest * float(draw.standard_normal())
        for name, value in cost.items()
        for number in range(rounds)
    }


def test_plugins_that_are_alike_are_rarely_called_different_all_pairs_together():
    draw = np.random.default_rng(4)
    alike = {f"p{number}": 5.0 for number in range(12)}
    wrong = [any(each.differs for each in contrasts(builds(draw, alike))) for _ in range(300)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.035)


def test_a_true_difference_is_in_its_interval_and_is_found_where_it_is_large():
    draw = np.random.default_rng(5)
    held, found = [], []
    for _ in range(100):
        first = contrasts(builds(draw, {"a": 15.0, "b": 5.0, "c": 5.0, "d": 6.0}))[0]
        assert (first.first, first.second) == ("a", "b")
        held.append(first.low <= 10 <= first.high)
        found.append(first.differs)
    assert np.mean(held) >= 0.95
    assert np.mean(found) >= 0.95


def test_a_build_that_failed_is_missing_and_the_rest_is_compared():
    values = builds(np.random.default_rng(6), {"a": 15.0, "b": 5.0, "c": 5.0})
    del values["b", 1]
    values["c", 2] = math.nan
    by_pair = {(each.first, each.second): each for each in contrasts(values)}
    assert by_pair["a", "b"].low < 10 < by_pair["a", "b"].high
    assert by_pair["a", "c"].low < 10 < by_pair["a", "c"].high


def test_what_was_never_in_one_round_with_another_is_not_compared_with_it():
    values = {("a", 1): 1.0, ("b", 1): 2.0, ("a", 2): 1.1, ("b", 2): 2.2, ("c", 3): 9.0}
    by_pair = {(each.first, each.second): each for each in contrasts(values)}
    assert by_pair["a", "b"].judged
    assert math.isnan(by_pair["a", "c"].difference)
    assert not by_pair["a", "c"].differs


def test_one_round_alone_judges_nothing():
    only = contrasts({("a", 1): 1.0, ("b", 1): 9.0})[0]
    assert only.difference == pytest.approx(-8.0)
    assert not only.judged
    assert not only.differs
    assert contrasts({}) == []


def test_quantiles_drawn_at_once_are_those_drawn_one_by_one() -> None:
    draw = np.random.default_rng(4)
    cells = draw.integers(6, size=500)
    values = draw.lognormal(0.1 * cells, 0.3)
    clusters = Clusters(range(6))
    fast = clustered_quantiles(clusters, values, cells, [0.5, 0.99])
    for share, found in zip((0.5, 0.99), fast, strict=True):
        slow = clustered(clusters, pooled_quantile(values, cells, share), positive=True)
        assert (found.value, found.low, found.high) == pytest.approx(
            (slow.value, slow.low, slow.high)
        )


def test_the_interval_of_one_run_holds_the_true_median_as_often_as_it_says() -> None:
    draw = np.random.default_rng(8)
    senders, packets, trials = 10, 40, 200
    cells = np.repeat(np.arange(senders), packets)
    clusters = Clusters(range(senders))
    hits = 0
    for _ in range(trials):
        values = np.exp(draw.normal(0, 1, senders)[cells] + draw.normal(0, 1, len(cells)))
        (found,) = clustered_quantiles(clusters, values, cells, [0.5])
        hits += found.low <= 1 <= found.high
    assert 0.9 <= hits / trials <= 0.99


def test_a_time_has_no_bound_below_zero_however_few_builds_there_are() -> None:
    times = np.array([20.0] * 90 + [400.0] * 10 + [21.0] * 200)
    rounds = np.repeat([0, 1, 2], 100)
    cells = rounds.astype(np.int64)
    clusters = Clusters([0, 1, 2])
    statistic = pooled_quantile(times, cells, 0.99)
    plain, time = (clustered(clusters, statistic, positive=each) for each in (False, True))
    assert plain.low < 0 < time.low < time.value <= time.high
    assert time.low == pytest.approx(400 * (21 / 400) ** clusters.widening)
