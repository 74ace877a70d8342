"""A diagnosis: every notebook gets its turn, whatever the others found or what ended it early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kitlib import diagnosing
from kitlib.errors import ApiError, ChecksFailed, Interrupted, KitError
from kitlib.journal import Journal
from kitlib.kubeconfig import Kubeconfig
from kitlib.model import Check, Status, Verdict
from kitlib.params import of_cluster
from kitlib.report import write_report
from kitlib.session import Session

FOUND: dict[str, Any] = {
    "cluster": "prod",
    "kubernetes_version": "1.30.1",
    "plugin": "",
    "plugin_delegate": "",
    "pod_cidr": "",
    "service_cidr": "",
    "hosts": [
        {"name": "a", "address": "10.0.0.1", "role": "worker", "labels": {}},
        {"name": "b", "address": "10.0.0.2", "role": "worker", "labels": {}},
    ],
}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session on a cluster that no one can reach: what the notebooks do is the test's."""
    monkeypatch.chdir(tmp_path)
    config = {"clusters": [{"cluster": {"server": "https://127.0.0.1:1"}}]}
    source = Kubeconfig(tmp_path / "k", "c", "prod", "me", "https://127.0.0.1:1", config)
    params = of_cluster(source.source, FOUND, {"diagnose.rounds": 2}, runs=tmp_path / "runs")
    journal = Journal.create(params.runs, "prod", {"kind": "diagnose", "hosts": FOUND["hosts"]})
    with Session(params, journal, source=source) as session:
        yield session


class Books:
    """What stands in for the notebooks: what each does when it is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
        self.ran: list[str] = []
        self.given: dict[str, Any] = {}
        self.ends: dict[str, BaseException] = {}
        self.cleaned = 0
        self._session = session
        names = dict.fromkeys(("20_node_readiness", "21_pod_latency", "23_connectivity"))
        monkeypatch.setattr(diagnosing.notebooks, "DIAGNOSE", tuple(names))
        subjects = {"20_node_readiness": "node_readiness", "21_pod_latency": "latency"}
        subjects |= {"23_connectivity": "connectivity"}
        monkeypatch.setattr(diagnosing, "_SUBJECTS", subjects)
        monkeypatch.setattr(diagnosing, "run_notebook", self)
        monkeypatch.setattr(diagnosing, "sweep", self.clean)
        monkeypatch.setattr(diagnosing, "write_exports", lambda run_dir: [])

    def __call__(self, session: Session, name: str, given: dict[str, Any]) -> None:
        self.ran.append(name)
        self.given = given
        if name in self.ends:
            raise self.ends[name]

    def clean(self, ctx: object) -> None:
        self.cleaned += 1
        raise ApiError("nobody answers")  # must not hide what is told


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch, session: Session) -> Books:
    return Books(monkeypatch, session)


def test_all_notebooks_run_with_the_parameters_rounds(session, books):
    done = diagnosing.diagnose(session)
    assert books.ran == list(diagnosing.notebooks.DIAGNOSE)
    assert books.given == {"fresh": True, "rounds": 2}
    assert done.verdict is Verdict.PASS
    assert done.failure() is None
    record = session.journal.record()
    assert (record["kind"], record["verdict"], record["missing"]) == ("diagnose", "PASS", {})
    assert books.cleaned == 0


def test_a_finding_does_not_keep_the_next_notebook_from_looking(session, books):
    session.context.record([Check("connectivity.dns", "a", Status.FAIL, "names resolve")])
    books.ends["20_node_readiness"] = ChecksFailed("node readiness: 1 check failed")
    done = diagnosing.diagnose(session)
    assert books.ran == list(diagnosing.notebooks.DIAGNOSE)
    assert done.verdict is Verdict.FAIL
    failure = done.failure()
    assert isinstance(failure, ChecksFailed)
    assert str(done.report) in str(failure)
    assert session.journal.record()["reason"] == "a: names resolve"


@pytest.mark.parametrize("error", [ApiError("no answer"), KitError("the kernel died")])
def test_an_error_of_another_kind_is_a_finding_with_its_own_exit_code(session, books, error):
    books.ends["21_pod_latency"] = error
    done = diagnosing.diagnose(session)
    assert books.ran[-1] == "23_connectivity"
    failure = done.failure()
    assert failure is error
    assert done.verdict is Verdict.FAIL
    assert [check.summary for check in done.checks] == [error.message]
    assert books.cleaned == 1


@pytest.mark.parametrize("error", [Interrupted("interrupted"), KeyboardInterrupt()])
def test_an_interruption_ends_it_and_says_what_was_not_begun(session, books, error):
    books.ends["21_pod_latency"] = error
    done = diagnosing.diagnose(session)
    assert books.ran[-1] == "21_pod_latency"
    assert done.verdict is Verdict.INTERRUPTED
    failure = done.failure()
    assert failure is not None
    assert failure.exit_code == 130
    record = session.journal.record()
    assert record["verdict"] == "INTERRUPTED"
    assert record["missing"] == {"connectivity": "it was not begun"}
    assert record["partial"]
    assert "connectivity: it was not begun" in write_report(session.journal.path).read_text()
    assert books.cleaned == 1
