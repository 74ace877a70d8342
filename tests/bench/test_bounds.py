"""What `make bench` says of the sizes that it measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import bench_charts
import bench_compare
import bench_scale
from bench_scale import Run
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
