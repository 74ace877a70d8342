"""A cluster's runs over time: a real step is found, healthy noise is not, unlike is never mixed."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from synthetic import START, Maker

from kitlib import nb
from kitlib.diagnosis import histories, history
from kitlib.errors import PreconditionError
from kitlib.model import Status
from kitlib.runs import Run, load_run

REAL = {"kind": "hosts"}


def made(root: Path, number: int, *, slow: float = 1.0, pod: float = 0.04, **meta: Any) -> Run:
    """Return the run of one day: workers Ready some 8 s after their join, times `slow`."""
    draw = random.Random(number)
    maker = Maker(root, seed=number)
    maker.path = root / "lab" / f"run-{number:03}-{meta.get('plugin', 'flannel')}"
    for name, t in (("init", 1.0), ("join", 7.0)):
        maker.stage(name, t, 4.0)
    for index in range(len(maker.names)):
        at = 3.0 if index == 0 else 9.0
        ready = at + 8.0 * slow * draw.lognormvariate(0, 0.05)
        maker.node(index, at, ready, at + 0.5)
    maker.samples(count=30, base={"pod": pod * draw.lognormvariate(0, 0.03), "host": 0.02})
    maker.meta |= {
        "run_id": maker.path.name,
        "started": "2026-11-22T18:06:40Z",
        "provenance": REAL,
        **meta,
    }
    path = maker.write(str(meta.get("verdict", "PASS")))
    run = load_run(path)
    # the moments stay as they are; only the day is another
    return Run(run.path, {**run.meta, "started": START - 1 + number * 1e-3}, run.entries)


def statuses(runs: list[Run]) -> dict[str, Status]:
    return {each.id: each.status for each in history.checks(history.gather(runs))}


def test_a_real_regression_is_flagged_with_what_changed_and_the_phase_that_grew(
    tmp_path: Path,
) -> None:
    runs = [made(tmp_path, n) for n in range(1, 11)]
    assert set(statuses(runs).values()) == {Status.PASS}
    runs.append(made(tmp_path, 11, slow=3.0, pod=0.12, kubernetes_version="1.23.0"))
    found = {each.id: each for each in history.checks(history.gather(runs))}
    assert {each.status for each in found.values()} == {Status.WARN}
    assert set(found) == {"history.ready", "history.p50", "history.p99"}
    got = found["history.ready"].got
    assert "Kubernetes 1.22.3 to 1.23.0" in got
    assert "Ready took" in got
    assert "median of 10" in found["history.p50"].expected


def test_too_few_earlier_runs_are_said_and_not_judged(tmp_path: Path) -> None:
    runs = [made(tmp_path, n) for n in range(1, 5)] + [made(tmp_path, 5, slow=9.0)]
    found = history.checks(history.gather(runs))
    assert {each.status for each in found} == {Status.SKIP}
    assert "4 earlier run(s), 5 are needed to judge" in found[0].got


@pytest.mark.parametrize("metric", list(history.HEADLINES))
def test_twenty_healthy_histories_of_thirty_runs_have_no_regression(metric: str) -> None:
    headline = history.HEADLINES[metric]
    usual = 60.0 if headline.unit == "s" else 0.05
    flagged = 0
    for seed in range(20):
        draw = random.Random(seed)
        values = [usual * draw.lognormvariate(0, 0.06) for _ in range(30)]
        for place, value in enumerate(values):
            _, limit = history.judge(value, values[:place], headline)
            flagged += value > limit
    assert flagged == 0


@pytest.mark.parametrize(("earlier", "times"), [(8, 2.5), (20, 1.7)])
def test_a_step_is_found_in_each_of_twenty_noisy_histories(earlier: int, times: float) -> None:
    for seed in range(20):
        draw = random.Random(seed)
        values = [60 * draw.lognormvariate(0, 0.06) for _ in range(earlier)]
        _, limit = history.judge(60 * times, values, history.HEADLINES["ready"])
        assert 60 * times > limit


def test_one_bad_run_before_hides_nothing() -> None:
    calm = [60.0, 61.0, 59.5, 60.5, 60.2, 59.8, 61.2, 60.1, 59.9, 60.4]
    _, limit = history.judge(90.0, calm, history.HEADLINES["ready"])
    _, after = history.judge(90.0, [*calm, 80.0], history.HEADLINES["ready"])
    assert limit < 75
    assert after == 80.0, "beyond every earlier one, and no more"
    told = [False] * 10 + [True]
    _, still = history.judge(90.0, [*calm, 80.0], history.HEADLINES["ready"], told)
    assert still < 75, "a level that stays bad stays flagged"


def test_what_is_not_there_is_not_judged() -> None:
    ready = history.HEADLINES["ready"]
    assert all(map(math.isnan, history.judge(math.nan, [1.0] * 9, ready)))
    assert all(map(math.isnan, history.judge(9.0, [1.0, math.nan] * 4, ready)))


def test_lab_and_real_runs_plugins_and_sizes_are_never_mixed(tmp_path: Path) -> None:
    runs = [made(tmp_path, n) for n in range(1, 8)]
    runs.append(made(tmp_path, 8, slow=5.0, provenance={"kind": "lab", "time_factor": 0.2}))
    runs.append(made(tmp_path, 9, slow=5.0, plugin="calico"))
    runs.append(made(tmp_path, 10, verdict="FAIL", slow=5.0))
    runs.append(made(tmp_path, 11))
    told = history.gather(runs)
    assert len(told.series) == 3
    assert len(told.runs) == 10, "a run that failed has no numbers of a working cluster"
    by_series = {each.target: each.status for each in history.checks(told)}
    assert by_series == {
        "lab, flannel, 3 hosts, real hosts": Status.PASS,
        "lab, flannel, 3 hosts, lab x0.2": Status.SKIP,
        "lab, calico, 3 hosts, real hosts": Status.SKIP,
    }
    assert told.runs.iloc[-1]["changed"] == "calico in between"


def test_latency_has_an_interval_that_holds_it(tmp_path: Path) -> None:
    values = history.gather([made(tmp_path, 1)]).values.set_index("metric")
    for metric in ("p50", "p99"):
        row = values.loc[metric]
        assert row["low"] <= row["value"] <= row["high"]
        assert row["low"] < row["high"]
    assert math.isnan(values.loc["ready", "low"])


def test_the_figure_marks_the_regression_and_the_new_version(tmp_path: Path) -> None:
    runs = [made(tmp_path, n) for n in range(1, 8)]
    runs.append(made(tmp_path, 8, slow=6.0, kubernetes_version="1.23.0"))
    told = history.gather(runs)
    picture = histories.figure(told, told.series[0])
    assert picture is not None
    assert len(picture.axes) == 4
    said = [text.get_text() for text in picture.axes[0].texts]
    assert "Kubernetes 1.22.3 to 1.23.0" in said
    assert "all nodes Ready was worse than usual in run-008-flannel." in picture.alt
    assert histories.table(told).iloc[0]["worse"].startswith("all nodes Ready")


def test_the_way_to_ready_of_the_newest_runs_stands_side_by_side(tmp_path: Path) -> None:
    told = history.gather([made(tmp_path, n, slow=6.0 if n == 14 else 1.0) for n in range(1, 15)])
    picture = histories.readiness_figure(told, told.series[0])
    assert picture is not None
    (ax,) = picture.axes
    assert len(ax.get_yticklabels()) == 12
    marks = [len(line.get_xdata()) for line in ax.lines]
    assert marks == [2] * 12  # both workers of each run
    newest = told.ways[told.ways["subject"] == "run-014-flannel"]["total"]
    assert list(ax.lines[-1].get_xdata()) == list(newest)
    bars = sum(patch.get_width() for patch in ax.patches if round(patch.get_y() + 0.3) == 11)
    assert bars == pytest.approx(newest.mean())
    assert f"{newest.median():.1f} s." in picture.alt
    assert histories.readiness_figure(history.gather([]), "none") is None


def test_a_notebook_reads_a_directory_of_runs(tmp_path: Path) -> None:
    made(tmp_path, 1)
    past = nb.open_past("", run_dir=str(tmp_path / "lab"))
    assert "lab, flannel, 3 hosts, real hosts" in repr(past)
    assert len(past.figures()) == 2
    assert "run-001-flannel" in repr(past.table())
    assert "5 are needed" in repr(past.verdict())
    with pytest.raises(PreconditionError, match="no such directory of runs"):
        nb.open_past("", run_dir=str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PreconditionError, match="no run that passed"):
        nb.open_past("", run_dir=str(tmp_path / "empty")).need_runs()
