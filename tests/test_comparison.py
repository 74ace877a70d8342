"""The comparison's plan and its way through failures, without a cluster."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kitlib import comparison, comparison_plan
from kitlib.comparison import Comparison, compare, resume
from kitlib.comparison_plan import Candidate, newest_fitting, overrides_for, plan_comparison
from kitlib.errors import (
    CommandError,
    ConnectError,
    GuardError,
    Interrupted,
    KitError,
    ParamsError,
    PreconditionError,
    RecordError,
)
from kitlib.measure import Measured
from kitlib.model import Verdict
from kitlib.plugins import catalogue
from kitlib.plugins.entry import Supported

PARAMS = Path(__file__).resolve().parents[1] / "params" / "lab.yaml"
THREE = "flannel,calico,kube-router"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    stated = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    file = tmp_path / "params" / "lab.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({**stated, "runs": str(tmp_path / "runs")}))
    return file


def test_all_is_the_whole_catalogue_and_each_on_the_newest_version_it_fits(params: Path):
    stated = yaml.safe_load(params.read_text())
    wanted = {each.name: "x" for plugin in catalogue().values() for each in plugin.parameters}
    given = {**wanted, **stated["plugin_parameters"]}
    params.write_text(yaml.safe_dump({**stated, "plugin_parameters": given}))
    plan = plan_comparison(params)
    assert {each.plugin for each in plan.candidates} == set(catalogue())
    for each in plan.candidates:
        plugin = catalogue()[each.plugin]
        newest = plugin.releases[0].kubernetes if plugin.releases else plugin.kubernetes
        assert newest.covers(each.kubernetes_version)


@pytest.mark.parametrize(
    ("least", "most", "newest"),
    [("1.17", "1.22", "1.22.17"), ("1.17", "1.99", "1.36.5"), ("1.90", "1.99", "")],
)
def test_the_newest_version_of_a_range_is_a_known_one(least: str, most: str, newest: str):
    assert newest_fitting(Supported(min=least, max=most)) == newest


def test_each_round_has_every_plugin_once_in_an_order_of_its_own_that_the_seed_gives(params: Path):
    plan = plan_comparison(params, THREE, rounds=6)
    assert all(sorted(each) == sorted(THREE.split(",")) for each in plan.order)
    assert len(set(plan.order)) > 1
    assert plan_comparison(params, THREE, rounds=6).order == plan.order
    assert plan_comparison(params, THREE, rounds=6, seed=2).order != plan.order


def test_the_plugins_of_a_version_stay_together_and_both_are_shuffled():
    candidates = [Candidate(name, "1.15.12" if name in "ab" else "1.36.5") for name in "abcd"]
    orders = comparison_plan._orders(candidates, 40, 1)
    assert {"".join(each) for each in orders} == {
        *("abcd", "bacd", "abdc", "badc"),
        *("cdab", "cdba", "dcab", "dcba"),
    }


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ("flanel", "did you mean 'flannel'"),
        ("", "no plugin named"),
        ("flannel,calico,flannel", "flannel: named twice"),
    ],
)
def test_a_wrong_list_of_plugins_is_refused(params: Path, plugins: str, words: str):
    with pytest.raises(ParamsError, match=words):
        plan_comparison(params, plugins)


def test_parameters_that_are_wrong_for_one_plugin_are_refused_before_anything(params: Path):
    stated = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**stated, "plugin_source": str(params.parent)}))
    for name in ("flannel", "calico"):
        (params.parent / f"{name}.yaml").write_text("")
    plan_comparison(params, "flannel,calico")
    with pytest.raises(ParamsError, match=r"holds no kube-router\.yaml"):
        plan_comparison(params, THREE)


@pytest.mark.parametrize("stated", ["", "sha256:" + "0" * 64, "other"])
def test_clusters_that_may_not_be_reset_are_not_built_over(params: Path, stated: str):
    values = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**values, "confirm_reset": stated}))
    with pytest.raises(GuardError) as caught:
        plan_comparison(params, THREE)
    assert "--confirm lab" in caught.value.remedy
    assert plan_comparison(params, THREE, confirm="lab").overrides == {"confirm_reset": "lab"}


def test_a_manifest_that_the_file_names_is_its_own_plugins_alone():
    same = overrides_for(Candidate("flannel", "1.36.5"), "flannel", {})
    other = overrides_for(Candidate("calico", "1.36.5"), "flannel", {})
    assert "plugin_manifest" not in same
    assert (other["plugin_manifest"], other["plugin_backend"]) == ("", "")


def test_a_plan_says_what_is_lost_and_how_long_it_takes(params: Path):
    plan = plan_comparison(params, THREE, rounds=2)
    text = "\n".join(plan.lines())
    assert "3 plugins, 2 rounds: 6 builds of cluster lab" in text
    assert "what stands there now is reset" in text
    assert "known after the first one" in text
    earlier = Comparison.create(plan)
    for _ in range(3):
        earlier.add(comparison.RunOf(1, "flannel", "1.36.5", "x", "PASS", "", 20.0))
    assert "roughly 2 minutes: a build took 20 s" in plan.lines()[-1]


# --- the way through it ----------------------------------------------------------------------


class Hosts:
    """What stands on the hosts, and what goes wrong on them: (plugin, stage) -> error."""

    def __init__(self) -> None:
        self.dirty = False
        self.wrong: dict[tuple[str, str], BaseException] = {}
        self.stages: list[tuple[str, str]] = []

    def stage(self, plugin: str, name: str) -> None:
        self.stages.append((plugin, name))
        if (plugin, name) in self.wrong:
            raise self.wrong[plugin, name]
        if name == "init":
            assert not self.dirty, "built over a cluster"
        self.dirty = name != "reset" and (self.dirty or name == "init")


class FakeSession:
    """A session whose stages take no time."""

    def __init__(self, hosts: Hosts, run_dir: Path, plugin: str) -> None:
        self._hosts, self._plugin = hosts, plugin
        self.what = ""
        self.journal = SimpleNamespace(path=run_dir, stage="", update=self._update)
        self.context = SimpleNamespace(steady=None, record=lambda checks: None)
        self.recorder = SimpleNamespace(stop=lambda: None)
        self.fields: dict[str, Any] = {}

    def _update(self, **fields: Any) -> None:
        self.fields |= fields
        (self.journal.path / "run.json").write_text(json.dumps(self.fields))

    def stage(self, name: str) -> None:
        self.journal.stage = name
        self._hosts.stage(self._plugin, name)

    def finish(self, verdict: Verdict, reason: str = "") -> None:
        self._update(verdict=verdict.value, reason=reason)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hosts:
    standing = Hosts()

    def open_session(file: Path, *, overrides: Any, run_dir: Any = "", **_: Any) -> FakeSession:
        path = Path(run_dir or tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}")
        path.mkdir(exist_ok=True)
        return FakeSession(standing, path, overrides["plugin"])

    def measure(session: FakeSession, rounds: int, **_: Any) -> Measured:
        session.stage("latency")
        return Measured(1, rounds, ())

    monkeypatch.setattr(comparison, "Session", SimpleNamespace(open=open_session))
    monkeypatch.setattr(comparison, "measure_latency", measure)
    monkeypatch.setattr(comparison, "unplug", lambda session: session.stage("unplug"))
    monkeypatch.setattr(comparison, "Steady", lambda *_: SimpleNamespace(end=list))
    return standing


Go = Callable[[], Any]


@pytest.fixture
def begun(params: Path) -> tuple[Comparison, Go]:
    plan = plan_comparison(params, THREE, rounds=2)
    made = Comparison.create(plan)

    def go() -> Any:
        return compare(
            plan, made, follow=lambda path: contextlib.nullcontext(), tell=lambda text: None
        )

    return made, go


def test_every_plugin_is_built_measured_and_removed_in_every_round(
    hosts: Hosts, begun: tuple[Comparison, Go], tmp_path: Path
):
    made, go = begun
    assert go() == []
    assert not hosts.dirty
    index = json.loads((made.path / "comparison.json").read_text())
    assert index["verdict"] == "PASS"
    assert [run["plugin"] for run in index["runs"]] == [n for each in index["order"] for n in each]
    runs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("run-*/run.json"))]
    assert {run["comparison"]["id"] for run in runs} == {made.path.name}
    assert [run["comparison"]["round"] for run in runs] == [1, 1, 1, 2, 2, 2]


def test_a_plugin_that_fails_is_cleaned_and_told_and_the_others_go_on(
    hosts: Hosts, begun: tuple[Comparison, Go]
):
    made, go = begun
    hosts.wrong["calico", "network"] = CommandError("cp-1", "kubectl apply", 1, "no such kind")
    bad = go()
    assert [(run.plugin, run.round) for run in bad] == [("calico", 1), ("calico", 2)]
    assert "kubectl apply" in bad[0].reason
    assert not hosts.dirty
    assert [run.verdict for run in made.runs].count("PASS") == 4
    assert made.index["verdict"] == "FAIL"
    assert "calico in round 1" in made.index["reason"]


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("preflight", ConnectError("cp-1: cannot connect")),
        ("reset", GuardError("cp-1: in another cluster")),
        ("join", RecordError("the disk is full")),
    ],
)
def test_what_no_plugin_is_guilty_of_ends_the_comparison(
    hosts: Hosts, begun: tuple[Comparison, Go], stage: str, error: KitError
):
    made, go = begun
    first = made.index["order"][0][0]
    hosts.wrong[first, stage] = error
    with pytest.raises(type(error)):
        go()
    assert {plugin for plugin, _ in hosts.stages} == {first}
    assert made.index["verdict"] == "FAIL"


def test_a_plugin_that_cannot_be_taken_out_cleanly_has_failed(
    hosts: Hosts, begun: tuple[Comparison, Go]
):
    _, go = begun
    hosts.wrong["flannel", "unplug"] = CommandError("cp-1", "ip link delete", 1, "busy")
    assert {run.plugin for run in go()} == {"flannel"}
    assert not hosts.dirty


def test_a_plugin_that_cuts_the_connection_is_that_plugins_failure(
    hosts: Hosts, begun: tuple[Comparison, Go]
):
    _, go = begun
    hosts.wrong["flannel", "join"] = ConnectError("w-1: the connection was lost")
    assert {run.plugin for run in go()} == {"flannel"}
    assert not hosts.dirty


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("init: interrupted")])
def test_an_interrupt_leaves_clean_hosts_and_can_be_gone_on_from(
    hosts: Hosts, begun: tuple[Comparison, Go], error: BaseException
):
    made, go = begun
    hosts.wrong["calico", "latency"] = error
    with pytest.raises(Interrupted) as caught:
        go()
    assert f"--resume {made.path}" in caught.value.remedy
    assert not hosts.dirty
    assert made.index["verdict"] == "INTERRUPTED"

    passed = [run for run in made.runs if run.verdict == "PASS"]
    hosts.wrong.clear()
    plan, again = resume(made.path)
    assert (
        compare(plan, again, follow=lambda path: contextlib.nullcontext(), tell=lambda text: None)
        == []
    )
    assert again.runs[: len(passed)] == passed
    assert sorted((r.round, r.plugin) for r in again.runs if r.verdict == "PASS") == sorted(
        (number, name) for number, names in enumerate(plan.order, start=1) for name in names
    )
    assert again.index["verdict"] == "PASS"


def test_what_is_no_comparison_is_not_gone_on_with(tmp_path: Path):
    with pytest.raises(PreconditionError, match=r"no comparison\.json"):
        resume(tmp_path)
    for text in ("{", "[]", '{"id": 1}'):
        (tmp_path / "comparison.json").write_text(text)
        with pytest.raises(PreconditionError, match="not a comparison's index"):
            resume(tmp_path)
