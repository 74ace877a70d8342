"""What `make bench` says of the sizes that it measured."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "lab")]

import bench_charts
import bench_compare
import bench_fidelity
import bench_pairs
import bench_scale
from bench_scale import Run
from fidelity import Round, interval, quantile
from synthetic import compared_run

from kitlib.comparison_page import see


def run(hosts: int, wall: float, cpu: float, ended: str = "PASS") -> Run:
    return Run(hosts, ended, wall, cpu, 0.0, 0.0, 0.0, {}, 0.0)


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        (run(50, 300, 100), [True, True, True]),
        (run(50, 301, 100), [True, True, False]),
        (run(50, 300, 101), [True, False, True]),
        (run(50, 40, 10, "preflight: 50 checks failed"), [False, False, False]),
    ],
)
def test_both_bounds_are_judged_by_the_largest_size(last: Run, wanted: list[bool]) -> None:
    runs = [run(3, 100, 25), run(10, 120, 30), last]
    assert [good for good, _ in bench_scale.bounds(runs)] == wanted
    page = bench_scale.page(runs, 1.0)
    assert page.count("- PASS: ") == sum(wanted)
    assert page.count("- FAIL: ") == len(wanted) - sum(wanted)


def test_a_build_that_failed_on_the_way_is_told() -> None:
    runs = [run(3, 100, 25), run(10, 9, 3, "init: no end within 9 s"), run(50, 200, 90)]
    (good, what), *_ = bench_scale.bounds(runs)
    assert (good, what) == (False, "2 of 3 builds end in PASS")


def test_of_one_size_no_ratio_is_judged() -> None:
    told = bench_scale.bounds([run(50, 400, 68)])
    assert [good for good, _ in told] == [True, True]
    assert not any("wall" in what for _, what in told)


def test_what_is_wanted_of_a_comparison_is_judged_from_its_runs(tmp_path: Path) -> None:
    truth = {"flannel": 0.036, "kubenet": 0.024, "nuage": 0.036}
    paths = [
        compared_run(tmp_path, name, number, pod=pod)
        for name, pod in truth.items()
        for number in (1, 2, 3)
    ]
    told = bench_compare.bounds(see(paths), 0, 9.5)
    assert [good for good, _ in told] == [True] * 4, told
    assert "flannel against kubenet: slower (+5" in told[3][1]
    assert [good for good, _ in bench_compare.bounds(see(paths), 8, 15.5)][:2] == [False, False]
    once = bench_compare.bounds(see([path for path in paths if "20261121T" in path.name]), 0, 9.5)
    assert [good for good, _ in once] == [True, True, False, False], "one round judges nothing"
    page = bench_compare.page(see(paths), told, 0.1)
    assert "| flannel |" in page

    swapped = [path for path in paths if "nuage" not in path.name]
    swapped += [compared_run(tmp_path / "x", "nuage", n, pod=0.024) for n in (1, 2, 3)]
    told = bench_compare.bounds(see(swapped), 0, 9.5)
    assert [good for good, _ in told] == [True, True, False, True], told


@pytest.mark.parametrize(
    ("seconds", "mib", "wanted"),
    [(10.0, 1024.0, [True, True]), (10.1, 900.0, [False, True]), (9.0, 1025.0, [True, False])],
)
def test_time_and_memory_of_a_large_record_are_judged(
    seconds: float, mib: float, wanted: list[bool]
) -> None:
    seen = bench_charts.Seen(200, 1_000_000, seconds, 6.0, mib, 2.0, {"report": seconds})
    assert [good for good, _ in bench_charts.bounds(seen)][:2] == wanted
    assert bench_charts.page(seen).count("- FAIL: ") == wanted.count(False)


def size(nodes: int, wall: float, ended: str = "PASS") -> bench_pairs.Run:
    """Return a size of which the naive loop takes 8.2 s a pair."""
    return bench_pairs.Run(
        nodes=nodes,
        pairs=nodes * (nodes - 1),
        samples=nodes * (nodes - 1) * 42,
        lost=0,
        side_by_side=nodes // 2,
        measuring=wall - 10,
        showing=10,
        kit_cpu=30,
        lab_cpu=60,
        naive=8.2,
        ended=ended,
        load=0.1,
    )


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        (size(50, 1004), [True, True]),
        (size(50, 1005), [True, False]),
        (size(50, 900, "worker-1: no agent"), [False, True]),
        (replace(size(50, 900), pairs=2449), [False, True]),
    ],
)
def test_measuring_is_judged_by_the_largest_size_against_the_naive_loop(
    last: bench_pairs.Run, wanted: list[bool]
) -> None:
    runs = [size(3, 60), last]
    assert [good for good, _ in bench_pairs.bounds(runs)] == wanted
    assert bench_pairs.page(runs).count("- FAIL: ") == wanted.count(False)
    assert len(bench_pairs.bounds(runs[:1])) == 1, "the ratio is that of 50 nodes"


def test_the_interval_of_a_quantile_is_that_of_the_binomial() -> None:
    values = [float(number) for number in range(1, 101)]
    assert quantile(values, 0.5) == 50
    assert interval(values, 0.5) == (40, 61)
    assert interval([*map(float, range(1, 1001))], 0.99) == (983, 997)
    assert interval([*map(float, range(1, 370))], 0.99)[1] == 369
    assert interval([*map(float, range(1, 5001))], 0.99) == (4936, 4964)
    assert interval(values, 0.99)[1] == math.inf, "no one has seen it"


def test_fidelity_is_judged_by_each_rounds_p50_and_by_nine_of_ten_p99s() -> None:
    steady = [0.08 + 0.0001 * number for number in range(400)]
    same = Round(kit=steady, plain=steady)
    near = Round(kit=[each + 0.004 for each in steady], plain=steady)
    far = Round(kit=[each + 0.05 for each in steady], plain=steady)
    assert (near.agrees, far.agrees, far.overlap) == (True, False, False)
    high = Round(kit=[*steady[:380], *[0.9] * 20], plain=steady)
    assert (high.agrees, high.overlap) == (True, False)
    for rounds, wanted in (
        ([same] * 10, [True, True]),
        ([*[same] * 9, high], [True, True]),
        ([*[same] * 8, high, high], [True, False]),
        ([*[same] * 9, far], [False, True]),
    ):
        assert [good for good, _ in bench_fidelity.bounds(rounds)] == wanted
        assert bench_fidelity.page(rounds, 0.1).count("- FAIL: ") == wanted.count(False)
