"""The report stands alone, tells the truth about failed runs, and trusts no text from a host."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from connectedkit import connected_run
from connectivitykit import Network
from synthetic import Maker, empty_run, failed_run, whole_run

from kitlib.diagnosis import readiness
from kitlib.errors import PreconditionError
from kitlib.report import write_report
from kitlib.session import Session

LAB = Path(__file__).parents[1] / "params/lab.yaml"
RECORDED = Path(__file__).parent / "data" / "recorded-run"
VOID = {"meta", "link", "img", "br", "hr", "input", "use", "path", "image"}


class Page(HTMLParser):
    """What a page holds: its tags in order, its text, its links; and whether it nests."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data + " "

    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.tags if attrs.get("id")]


def page(run_dir: Path) -> Page:
    target = write_report(run_dir)
    assert target == run_dir / "report.html"
    return Page(target.read_text(encoding="utf-8"))


def test_a_whole_run(tmp_path: Path) -> None:
    shown = page(whole_run(tmp_path))
    assert "PASS 8 stages ended as wanted." in shown.words
    assert "network plugin flannel" in shown.words
    assert "1 control plane, 2 workers" in shown.words
    assert "Findings None. 17 checks passed" in shown.words
    assert "time factor 0.2" in shown.words
    figures = [attrs for tag, attrs in shown.tags if tag == "figure"]
    assert len(figures) == 4
    assert all(len(attrs["aria-label"] or "") > 40 for attrs in figures)
    assert "kit build params/lab.yaml" in shown.words
    assert sum(tag == "tr" for tag, _ in shown.tags) > 8 + 3 + 12


def test_an_unsupported_combination_is_said_with_the_verdict(tmp_path: Path) -> None:
    wanted = {"plugin": "calico", "kubernetes_version": "1.20.7", "runs": str(tmp_path)}
    for allowed, words in (
        (True, "Unsupported combination: calico on Kubernetes 1.20.7: 1.21 is the oldest version"),
        (False, ""),
    ):
        given = {**wanted, "allow_unsupported": allowed}
        with Session.open(LAB, overrides=given) as session:
            run_dir = session.journal.path
        assert (
            json.loads((run_dir / "run.json").read_text())["params"]["allow_unsupported"] is allowed
        )
        shown = page(run_dir).words
        assert words in shown
        assert ("Unsupported" in shown) == allowed


def test_what_was_said_before_changes_were_made(tmp_path: Path) -> None:
    run = Maker(tmp_path)
    for _ in range(2):
        run.event(1.0, "notice", "network", "cluster", text="DaemonSet x: image: -a +b (<why>)")
    shown = page(run.write())
    assert shown.words.count("DaemonSet x: image: -a +b (<why>)") == 1
    assert "What was said before changes were made" not in page(whole_run(tmp_path / "b")).words


def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    path = whole_run(tmp_path)
    shown = page(path)
    assert not {tag for tag, _ in shown.tags} & {"script", "link", "iframe", "img"}
    for _, attrs in shown.tags:
        for name in ("src", "href", "xlink:href"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:", "notebooks/")), value
    text = (path / "report.html").read_text()
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert len(shown.ids()) == len(set(shown.ids()))
    assert [file.name for file in path.iterdir() if file.name.startswith(".")] == []


def test_a_failed_run_says_where_it_ended_and_why_sections_are_empty(tmp_path: Path) -> None:
    shown = page(failed_run(tmp_path))
    assert "FAIL control-plane-1: kubeadm init: exit status 1" in shown.words
    assert "No node registered: the run did not come that far; stage init failed." in shown.words
    assert "Not measured: the run did not come that far; stage init failed." in shown.words
    assert "Commands that ended with an error" in shown.words
    assert "raw/init-control-plane-1.txt" in shown.words
    findings = [attrs for tag, attrs in shown.tags if attrs.get("class") == "finding FAIL"]
    assert len(findings) == 1


def test_an_empty_run_is_a_page_too(tmp_path: Path) -> None:
    shown = page(empty_run(tmp_path))
    assert "UNFINISHED The run has no end on record" in shown.words
    assert "No stage was started in this run." in shown.words
    assert "Not measured: stage verify was not part of this run." in shown.words


def test_a_dry_run_measures_nothing(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.stage("preflight", 0.1, 1.0, "PLANNED")
    shown = page(maker.write("PLANNED"))
    assert "PLANNED A dry run" in shown.words
    assert "Not measured: a dry run changes and measures nothing." in shown.words


def test_the_record_of_a_real_cluster(tmp_path: Path) -> None:
    copy = tmp_path / "run"
    (copy / "watch").mkdir(parents=True)
    for file in ("run.json", "journal.jsonl", *(f"watch/{k}.jsonl" for k in ("nodes", "pods"))):
        (copy / file).write_bytes((RECORDED / file).read_bytes())
    shown = page(copy)
    assert "Measured on real hosts" in shown.words
    assert "emulated" not in shown.words.lower()
    assert "1 unreadable" in shown.words


def test_findings_come_worst_first_and_outweigh_the_verdict(tmp_path: Path) -> None:
    loses = [("worker-1", "worker-2", 20), ("worker-2", "worker-1", 1)]
    shown = page(whole_run(tmp_path, loses=loses))
    kinds = [a["class"] for _, a in shown.tags if str(a.get("class")).startswith("finding")]
    assert kinds == ["finding FAIL", "finding WARN"]
    assert "the record holds 1 failed finding(s)" in shown.words
    assert "What to do: the hosts reach each other" in shown.words


def test_the_last_word_of_a_check_holds(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.stage("init", 1.0, 2.0)
    common = {"id": "cni.in-force", "summary": "s", "got": "g", "expected": "e", "remedy": "r"}
    maker.event(1.5, "check", "init", "worker-1", status="FAIL", **common)
    maker.event(2.5, "check", "init", "worker-1", status="PASS", **common)
    assert "Findings None." in page(maker.write("PASS")).words


def test_text_from_hosts_is_not_markup(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.stage("init", 0.1, 1.0, "FAIL")
    maker.event(1.2, "error", "init", "worker-1", message='<script>alert("x")</script>')
    maker.meta["hosts"][1]["name"] = "<b>w</b>"
    path = maker.write("FAIL", "<img src=x onerror=alert(1)>")
    shown = page(path)
    assert not {tag for tag, _ in shown.tags} & {"script", "img", "b"}
    assert "<script>alert" in shown.words


def test_notebooks_and_gaps_are_listed(tmp_path: Path) -> None:
    path = whole_run(tmp_path)
    (path / "notebooks").mkdir()
    (path / "notebooks" / "01 preflight.ipynb").write_text("{}")
    gap = {"t": 1_795_370_812.0, "gap": {"since": 1_795_370_810.0, "why": "API: no answer"}}
    with (path / "watch" / "nodes.jsonl").open("a") as file:
        file.write(json.dumps(gap) + "\n")
    shown = page(path)
    assert ("a", {"href": "notebooks/01%20preflight.ipynb"}) in shown.tags
    assert "API: no answer" in shown.words


def test_many_pairs_are_cut_to_those_that_need_looking_at(tmp_path: Path) -> None:
    shown = page(whole_run(tmp_path, 10, loses=[("worker-8", "worker-9", 5)]))
    assert "more rows are in samples/" in shown.words
    body = shown.words.split("Ratio")[-1]
    assert body.split()[:4] == ["worker-8", "worker-9", "pod", "19"]


def test_a_sample_and_what_was_broken_off_are_said(tmp_path: Path) -> None:
    path = whole_run(tmp_path, 3)
    record = json.loads((path / "run.json").read_text())
    record["pairs"] = {"measured": 6, "of": 39800, "seed": 7}
    record["missing"] = {"latency": "3 of 9 pairs in round 2 of 2", "connectivity": "all"}
    (path / "run.json").write_text(json.dumps(record))
    shown = page(path)
    assert "Measured was a sample of 6 of 39,800 pairs" in shown.words
    assert "(seed 7)" in shown.words
    assert "latency: 3 of 9 pairs in round 2 of 2; connectivity: all" in shown.words
    assert "Partial: the measurement was broken off" in shown.words


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError):
        write_report(tmp_path)


def test_the_nodes_phases_are_computed_once_for_a_report(tmp_path, monkeypatch):
    counted = []
    real = readiness.node_phases
    monkeypatch.setattr(readiness, "node_phases", lambda run: counted.append(run) or real(run))
    assert "Waterfall" in str(page(whole_run(tmp_path)).tags)
    assert len(counted) == 1


def test_a_diagnosis_has_its_findings_first_and_no_stages(tmp_path):
    made = Maker(tmp_path)
    made.meta |= {"kind": "diagnose", "context": "prod", "plugin": ""}
    made.meta |= {"living": {"left_out": {"win-1": "its system is windows"}}}
    made.meta |= {"missing": {"connectivity": "it was not begun"}, "partial": True}
    made.meta |= {"overrides": {"diagnose.rounds": 2}}
    for host, name, status, summary, got in (
        ("a", "dns", "FAIL", "the cluster's DNS answers", "no reply"),
        ("b", "dns", "FAIL", "the cluster's DNS answers", "no reply"),
        ("c", "dns", "FAIL", "the cluster's DNS answers", "no reply"),
        ("a", "http", "SKIP", "HTTP answers", "no curl in the image"),
        ("b", "http", "SKIP", "HTTP answers", "no curl in the image"),
    ):
        told = {"id": name, "status": status, "summary": summary, "got": got}
        made.event(1.0, "check", "connectivity", host, expected="", remedy="", **told)
    shown = page(made.write("FAIL"))
    assert "Diagnosis of cluster" in shown.words
    assert "FAIL a, b, c : the cluster's DNS answers" in shown.words  # one cause, told once
    assert "Partial. connectivity: it was not begun." in shown.words
    assert "the kit knows; what depends on it was not judged" in shown.words
    assert "Nodes without an agent: win-1 (its system is windows)." in shown.words
    assert "a, b HTTP answers no curl in the image" in shown.words
    assert "--context prod --set diagnose.rounds=2" in shown.words
    assert "stages" not in shown.ids()
    assert shown.ids().index("findings") < shown.ids().index("latency")


def test_connectivity_has_a_section_where_it_was_probed(tmp_path: Path) -> None:
    run = connected_run(tmp_path, Network(tunnel_closed=["n2"]))
    shown = page(run)
    assert "Connectivity between nodes 6 of 12 ordered pairs work, 6 do not." in shown.words
    assert "encapsulated packets pass between the hosts" in shown.words
    assert "ip -d link show flannel.1" in shown.words
    assert "TCP connect pod" in shown.words
    assert "Connectivity between nodes" not in page(whole_run(tmp_path / "whole")).words
