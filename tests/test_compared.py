"""Plugins beside each other, from runs whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import LAB, compared_run, failed_run

from kitlib.diagnosis import comparison
from kitlib.diagnosis.comparison import differences, gather, latency
from kitlib.diagnosis.ways import mean_waits, ways
from kitlib.errors import PreconditionError
from kitlib.runs import Run, load_run

TRUTH = {"calico": 0.026, "flannel": 0.036, "nuage": 0.036}
"""Plugin -> the round trip between its pods on hosts that need 0.02 ms."""


def runs(root: Path, rounds: int = 3, truth: dict[str, float] = TRUTH, **more: Any) -> list[Run]:
    """Return runs on a machine that is twice as slow in its second round."""
    found = []
    for number in range(1, rounds + 1):
        slow = 2.0 if number == 2 else 1.0
        for name, pod in truth.items():
            path = compared_run(root, name, number, pod=slow * pod, host=slow * 0.02, **more)
            found.append(load_run(path))
    return found


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> comparison.Compared:
    return gather(runs(tmp_path_factory.mktemp("runs")))


def by_pair(found: pd.DataFrame) -> dict[tuple[str, str], Any]:
    return {(row.first, row.second): row for row in found.itertuples()}


def test_each_subjects_numbers_are_near_the_truth_and_inside_their_bounds(
    gathered: comparison.Compared,
):
    table = latency(gathered).set_index("subject")
    assert next(iter(table.index)) == "calico"
    for name, pod in TRUTH.items():
        row = table.loc[name]
        assert row["rounds"] == 3
        assert row["pairs"] == 6
        assert row["n"] == 3 * 6 * 59
        assert row["loss_pct"] == 0
        assert row["ratio"] == pytest.approx(pod / 0.02, rel=0.05)
        assert row["ratio_low"] < pod / 0.02 < row["ratio_high"]
        assert row["cost_ms"] == pytest.approx((pod - 0.02) * 4 / 3, rel=0.1)
        for value in ("p50", "p99", "cost"):
            assert row[f"{value}_low_ms"] <= row[f"{value}_ms"] <= row[f"{value}_high_ms"]
        assert row["p50_ms"] < row["p99_ms"]


def test_plugins_with_one_datapath_show_no_difference_and_others_do(
    gathered: comparison.Compared,
):
    found = by_pair(differences(gathered))
    assert not found["flannel", "nuage"].differs
    assert found["flannel", "nuage"].judged
    assert found["calico", "flannel"].differs
    assert found["calico", "flannel"].percent == pytest.approx(100 * (26 / 36 - 1), abs=4)
    assert found["calico", "flannel"].low < 100 * (26 / 36 - 1) < found["calico", "flannel"].high


def test_the_same_runs_give_the_same_numbers(gathered: comparison.Compared):
    pd.testing.assert_frame_equal(latency(gathered), latency(gathered))


def test_the_way_to_ready_is_the_workers_and_its_waits_add_up(gathered: comparison.Compared):
    table = mean_waits(ways(gathered.moments))
    own = table[table["subject"] == "flannel"].set_index("phase")["seconds"]
    waits = own.drop("total").sum()
    assert own["total"] == pytest.approx(waits, abs=0.01)
    assert own["total"] == pytest.approx(9 + 5 - 7.05, abs=0.1)
    assert set(table["nodes"]) == {6}
    assert "workload_running" not in own


def test_runs_of_a_lab_and_of_real_hosts_are_never_set_beside_each_other(tmp_path: Path):
    lab = load_run(compared_run(tmp_path, "calico", 1))
    real = load_run(compared_run(tmp_path, "flannel", 1, provenance={"kind": "hosts"}))
    with pytest.raises(PreconditionError, match="not compared") as caught:
        gather([lab, real])
    assert str(lab.path) in caught.value.message
    assert "apart" in caught.value.remedy
    assert not gather([real]).provenance.is_lab


def test_runs_that_did_not_pass_are_kept_and_do_not_count(tmp_path: Path):
    bad = load_run(compared_run(tmp_path, "weave", 1, pod=9.0, verdict="FAIL", reason="join: no"))
    never = load_run(failed_run(tmp_path / "other"))
    found = gather([*runs(tmp_path), bad, never])
    assert list(found.runs.loc[~found.runs["counts"], "verdict"]) == ["FAIL", "FAIL"]
    assert "weave" not in set(latency(found)["subject"])
    assert "weave" in found.subjects


def test_nothing_to_compare_is_said(tmp_path: Path):
    with pytest.raises(PreconditionError, match="no runs"):
        gather([])
    found = gather([load_run(failed_run(tmp_path))])
    assert latency(found).empty
    assert differences(found).empty
    assert mean_waits(ways(found.moments)).empty


def test_runs_of_no_comparison_are_counted_as_they_were_made(tmp_path: Path):
    found = gather(runs(tmp_path, rounds=2, comparison=""))
    assert sorted(found.runs["block"]) == ["1", "1", "1", "2", "2", "2"]
    assert by_pair(differences(found))["calico", "flannel"].judged


def test_rounds_of_two_comparisons_are_not_taken_for_one(tmp_path: Path):
    first = runs(tmp_path / "a", rounds=1)
    second = runs(tmp_path / "b", rounds=1, comparison="c2")
    assert set(gather([*first, *second]).runs["block"]) == {"c1, 1", "c2, 1"}


def test_a_plugin_on_two_versions_is_two_subjects(tmp_path: Path):
    old = load_run(compared_run(tmp_path / "a", "calico", 1, kubernetes_version="1.15.12"))
    new = load_run(compared_run(tmp_path / "b", "calico", 1))
    assert gather([old, new]).subjects == ["calico 1.15.12", "calico 1.22.3"]


def test_a_build_that_was_made_again_counts_once(tmp_path: Path):
    early = load_run(compared_run(tmp_path / "a", "calico", 1))
    late = load_run(compared_run(tmp_path / "b", "calico", 1))
    assert list(gather([early, late]).runs["counts"]) == [False, True]


def test_one_round_has_numbers_and_judges_nothing(tmp_path: Path):
    found = gather(runs(tmp_path, rounds=1))
    assert math.isnan(latency(found)["p50_low_ms"].iloc[0])
    assert not differences(found)["judged"].any()


def test_loss_is_counted_and_what_stands_in_is_kept(tmp_path: Path):
    said = {**LAB, "stands_in": "VXLAN stands in for geneve"}
    run = load_run(compared_run(tmp_path, "ovn", 1, provenance=said))
    assert list(gather([run]).runs["stands_in"]) == ["VXLAN stands in for geneve"]
