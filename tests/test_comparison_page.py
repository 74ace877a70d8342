"""What a comparison's page and notebook show, from runs whose truth is known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic import compared_run
from test_compared import TRUTH

from kitlib import nb
from kitlib.comparison_page import newest_comparison, see, write_comparison
from kitlib.diagnosis.compared import Sight
from kitlib.errors import ChecksFailed, ParamsError, PreconditionError
from kitlib.runs import runs_in

REAL = {"kind": "hosts"}


def a_comparison(root: Path, *, bad: str = "", **meta: Any) -> Path:
    """Return the directory of a comparison in three rounds; `bad` failed in the last one."""
    runs = []
    for number in (1, 2, 3):
        for name, pod in TRUTH.items():
            ended = {"verdict": "FAIL"} if (name, number) == (bad, 3) else {}
            path = compared_run(root, name, number, pod=pod, **ended, **meta)
            runs.append({"round": number, "plugin": name, "run_id": path.name})
    home = root / "lab" / "comparisons" / "20261122T180640Z-c1"
    home.mkdir(parents=True)
    index = {
        "id": home.name, "started": "2026-11-22T18:06:40Z", "ended": "2026-11-22T18:10:40Z",
        "verdict": "FAIL" if bad else "PASS", "seed": 7, "packets": 59, "interval": 0.005,
        "order": [list(TRUTH)] * 3, "runs": runs, "params_file": "params/lab.yaml",
        "candidates": [{"plugin": name, "kubernetes_version": "1.22.3"} for name in TRUTH],
        "kit_version": "0.1.0",
    }  # fmt: skip
    (home / "comparison.json").write_text(json.dumps(index))
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_comparison(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def sight(home: Path) -> Sight:
    return see([home])


def test_the_page_says_what_to_decide_from_and_shows_every_chart(home: Path):
    page = write_comparison([home]).read_text(encoding="utf-8")
    assert page.count("<figure role=") == 4
    assert all(f">{name}<" in page for name in TRUTH)
    assert "9 of 9 builds passed" in page
    assert "Drawn with seed 7; round 1: calico, flannel, nuage" in page
    assert "kit compare params/lab.yaml --plugins calico,flannel,nuage --rounds 3 --seed 7" in page
    assert len(re.findall(r'id="([^"]+)"', page)) == len(set(re.findall(r'id="([^"]+)"', page)))
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", page), "a page needs no network"


def test_a_lab_is_named_as_one_wherever_its_times_are_shown(home: Path, sight: Sight):
    page = write_comparison([home]).read_text(encoding="utf-8")
    assert "emulated, time factor 0.2" in page
    assert "rank nothing" in page
    readiness = sight.readiness_figure()
    assert readiness is not None
    assert "emulated, time factor 0.2" in readiness.caption
    labels = [text.get_text() for text in readiness.axes[0].get_yticklabels()]
    assert labels == sorted(TRUTH), "by name, not by time"
    assert any("emulated" in column for column in sight.table().columns)


def test_on_real_hosts_nothing_is_emulated_and_readiness_is_ranked(tmp_path: Path):
    sight = see([a_comparison(tmp_path, provenance=REAL)])
    readiness = sight.readiness_figure()
    assert readiness is not None
    assert "Measured on real hosts" in readiness.caption
    assert "emulated" not in f"{readiness.caption} {sight.words()} {list(sight.table().columns)}"


def test_what_stands_in_for_what_is_in_every_caption_and_in_the_table(tmp_path: Path):
    said = {"kind": "lab", "time_factor": 0.2, "stands_in": "VXLAN stands in for geneve"}
    paths = [
        compared_run(tmp_path, "calico", number, **({"provenance": said} if number else {}))
        for number in (1, 2)
    ] + [compared_run(tmp_path, "flannel", number) for number in (1, 2)]
    sight = see(paths)
    for figure in (
        sight.cost_figure(),
        sight.distribution_figure(),
        sight.difference_figure(),
        sight.readiness_figure(),
    ):
        assert figure is not None
        assert "calico: VXLAN stands in for geneve" in figure.caption
    datapath = sight.table().set_index("Plugin")["Datapath"]
    assert "VXLAN stands in for geneve" in datapath["calico"]
    assert "stands in" not in datapath["flannel"]


def test_the_table_and_the_words_call_the_same_datapath_no_difference(sight: Sight):
    table = sight.table().set_index("Plugin")
    assert table.index[0] == "calico"
    assert table.loc["flannel", "No difference from"] == "nuage"
    assert table.loc["calico", "No difference from"] == "-"
    assert table.loc["calico", "Builds passed"] == "3 of 3"
    words = " ".join(sight.words())
    assert "Cheapest over its hosts: calico" in words
    assert "Of 3 pairs of plugins 2 differ; in the others there is no difference" in words


def test_charts_name_the_plugins_at_the_data_and_say_it_in_words(sight: Sight):
    cost = sight.cost_figure()
    assert cost is not None
    assert [text.get_text() for text in cost.axes[0].get_yticklabels()] == list(
        sight.latency["subject"]
    )
    assert cost.axes[0].get_legend() is None
    assert "calico" in cost.alt
    matrix = sight.difference_figure()
    assert matrix is not None
    shown = [text.get_text() for text in matrix.axes[0].texts]
    assert shown.count("=") == 2
    assert sum(bool(re.fullmatch(r"[+-]\d+", text)) for text in shown) == 4
    panels = sight.distribution_figure()
    assert panels is not None
    titles = [axes.get_title(loc="left") for axes in panels.axes if axes.get_visible()]
    assert titles == list(sight.latency["subject"])


def test_a_failed_build_is_a_finding_and_the_others_are_compared(tmp_path: Path):
    home = a_comparison(tmp_path, bad="nuage")
    page = write_comparison([home]).read_text(encoding="utf-8")
    assert "8 of 9 builds passed" in page
    assert '<div class="verdict FAIL"' in page
    sight = see([home])
    assert [check.target for check in sight.checks() if check.status == "FAIL"] == ["nuage"]
    assert sight.table().set_index("Plugin").loc["nuage", "Builds passed"] == "2 of 3"


def test_the_page_of_runs_that_all_failed_says_so(tmp_path: Path):
    path = compared_run(tmp_path, "calico", 1, verdict="FAIL", reason="join: no")
    page = write_comparison([path], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No build that passed was measured" in page
    assert "join: no" in page


def test_runs_alone_need_a_name_for_the_page(home: Path):
    runs = runs_in([home])
    with pytest.raises(ParamsError, match="name the file"):
        write_comparison(runs)
    with pytest.raises(ParamsError, match="cannot be written"):
        write_comparison(runs, home / "no" / "page.html")
    page = write_comparison(runs, home / "page.html").read_text(encoding="utf-8")
    assert "9 of 9 builds passed" in page


def test_a_comparison_whose_runs_are_gone_is_not_half_shown(tmp_path: Path):
    home = a_comparison(tmp_path)
    index = json.loads((home / "comparison.json").read_text())
    index["runs"][0]["run_id"] = "gone"
    (home / "comparison.json").write_text(json.dumps(index))
    with pytest.raises(PreconditionError, match="gone"):
        see([home])


def test_the_notebook_takes_the_newest_comparison(tmp_path: Path, home: Path):
    assert newest_comparison(home.parents[2]) == home
    with pytest.raises(ParamsError, match="no comparison"):
        newest_comparison(tmp_path)


def test_the_notebook_shows_the_same(home: Path):
    seen = nb.open_comparison("unused", run_dir=str(home))
    assert "calico, flannel, nuage" in repr(seen)
    assert "9 of 9" in repr(seen.need_runs())
    assert "calico" in repr(seen.table())
    assert "3 of 3 checks pass" in repr(seen.verdict())
    assert "Cheapest" in repr(seen.words())
    pair = ",".join(map(str, runs_in([home])[:2]))
    assert "2 of 2 runs" in repr(nb.open_comparison("unused", runs=pair).need_runs())


def test_the_notebook_fails_where_a_build_failed(tmp_path: Path):
    seen = nb.open_comparison("unused", run_dir=str(a_comparison(tmp_path, bad="nuage")))
    with pytest.raises(ChecksFailed, match="nuage"):
        seen.verdict()
    bad = compared_run(tmp_path / "x", "calico", 1, verdict="FAIL")
    with pytest.raises(PreconditionError, match="no run that passed"):
        nb.open_comparison("unused", runs=str(bad)).need_runs()


def test_one_round_is_said_to_judge_nothing(tmp_path: Path):
    paths = [compared_run(tmp_path, name, 1, pod=pod) for name, pod in TRUTH.items()]
    words = " ".join(see(paths).words())
    assert "Not judged: 3 pairs" in words
    assert "there is no interval" in words
    assert "differ;" not in words
