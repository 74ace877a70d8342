"""A whole build by notebooks from clean hosts: what it leaves, and that again it does nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from fidelity import beside_ping
from kit_help import ROOT, Done, Kit, lines, stage_ends, told
from lab_help import HOSTS

from kitlib import notebooks
from kitlib.errors import ParamsError
from kitlib.facts import command_for
from kitlib.model import Verdict
from kitlib.plugins import catalogue
from kitlib.session import Session
from kitlib.stages import STAGES

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

SECRETS = {
    "a token": rb"\b[a-z0-9]{6}\.[a-z0-9]{16}\b",
    "a private key": rb"PRIVATE KEY-----(?!\*+|<)",
    "a key of a kubeconfig": rb"client-key-data\"?:\s*[A-Za-z0-9+/=]{40}",
    "a service account token": rb"\beyJ[A-Za-z0-9_-]{20,}\.eyJ",
}


@pytest.fixture(scope="module")
def built(shared_kit: Kit) -> Done:
    """The end of `kit build` on clean hosts."""
    shared_kit.clean()
    return shared_kit.build()


def test_it_passes_and_says_so_last(built: Done) -> None:
    verdict, report = built.passed().out.strip().splitlines()[-2:]
    assert verdict == "PASS"
    assert Path(report) == built.run_dir / "report.html"
    assert not built.err


def test_run_json_has_verdict_and_provenance(built: Done) -> None:
    record = built.record
    assert record["verdict"] == "PASS"
    assert record["ended"] > record["started"]
    assert record["provenance"]["kind"] == "lab"
    assert record["provenance"]["time_factor"] == 0.02
    assert record["provenance"]["emulated"]
    assert record["api_access"]["way"] == "tunnel", "the lab's addresses mean nothing outside of it"
    said = [line["data"]["text"] for line in lines(built.run_dir) if line["kind"] == "progress"]
    assert any(text.startswith("API: reached through the SSH tunnel") for text in said)


def test_journal_has_every_stage_in_order(built: Done) -> None:
    assert list(stage_ends(built.run_dir)) == [stage.name for stage in STAGES]
    assert {end["verdict"] for end in stage_ends(built.run_dir).values()} == {"PASS"}
    latency = (
        "create namespace kit-diagnose",
        "remove namespace kit-diagnose",
    )  # once more, unplanned
    planned, changed = (told(built.run_dir, kind) for kind in ("planned", "change"))
    assert len([what for _, what in changed if what.startswith(latency)]) == 4
    unplanned = {each for each in changed if "on its host's network" in each[1]}
    assert sorted(set(planned)) == sorted(set(changed) - unplanned)


def test_the_watch_began_before_the_api_answered(built: Done) -> None:
    """The first line is of before the API's first object of its own making."""
    for what in ("nodes", "pods", "events"):
        rows = (built.run_dir / "watch" / f"{what}.jsonl").read_text().splitlines()
        assert rows, what
        assert json.loads(rows[-1])["t"], what
    text = (built.run_dir / "watch" / "nodes.jsonl").read_text()
    nodes = [json.loads(row) for row in text.splitlines()]
    seen = [row["obj"] for row in nodes if "obj" in row]
    assert seen[0]["type"] == "ADDED"
    assert {row["object"]["metadata"]["name"] for row in seen} == set(HOSTS)
    init = next(
        line
        for line in lines(built.run_dir)
        if line["kind"] == "command" and line["data"]["command"].startswith("kubeadm init")
    )
    ended = datetime.fromisoformat(init["t"]).timestamp()
    # Here times are a fiftieth of the recorded ones: init ends in the same second as the API comes.
    assert nodes[0]["t"] < ended + 1, "the watch began well after kubeadm init had ended"


def test_no_stage_reads_a_hosts_facts_more_than_twice(built: Done) -> None:
    """Before it and after it: what is read anew for every other host costs their square."""
    reading = command_for(catalogue()).brief
    read = Counter(
        (line["stage"], line["host"])
        for line in lines(built.run_dir)
        if line["kind"] == "command" and line["data"]["command"] == reading
    )
    assert {host for _, host in read} == set(HOSTS)
    assert {each: times for each, times in read.items() if times > 2} == {}


def test_samples_cover_every_ordered_pair(built: Done) -> None:
    rounds = sorted((built.run_dir / "samples").glob("*/*.parquet"))
    assert rounds
    rows = pd.concat([pd.read_parquet(path) for path in rounds])
    assert set(rows["path"]) == {"pod", "host"}
    for path, part in rows.groupby("path"):
        pairs = part.groupby(["src", "dst"])["seq"].count()
        assert len(pairs) == 6, path
        assert set(pairs) == {11}, path  # the first is to warm up


def test_latencies_are_those_of_a_plain_ping(built: Done, kit: Kit) -> None:
    """In the same pods, one right after the other; how near they are, `make bench` judges."""
    with kit.session() as session:
        (both,) = beside_ping(session, 1, packets=15, interval=0.01, times=2)
    assert len(both.kit) >= 150
    assert len(both.plain) >= 150
    kits, plain = both.p50s
    assert 0.5 < kits / plain < 2.0, "none of them is in other units, or of another path"


def test_executed_notebooks_are_there_without_an_error(built: Done) -> None:
    names = [*notebooks.BOOTSTRAP, *notebooks.DIAGNOSTICS]
    copies = sorted(path.stem for path in (built.run_dir / "notebooks").glob("*.ipynb"))
    assert copies == sorted(names)
    for name in names:
        copy = nbformat.read(built.run_dir / "notebooks" / f"{name}.ipynb", as_version=4)
        nbformat.validate(copy)
        outputs = [out for cell in copy.cells for out in cell.get("outputs", [])]
        assert outputs, name
        bad = [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
        assert not bad, f"{name}: {bad}"
        shown = [
            text
            for out in outputs
            for kind, text in out.get("data", {}).items()
            if not kind.startswith("image/")  # base64 spells any word some day
        ]
        assert "FAIL" not in json.dumps(shown), name


def test_the_report_has_timings_waterfall_and_heat_map(built: Done) -> None:
    page = (built.run_dir / "report.html").read_text()
    for stage in STAGES:
        assert stage.name in page
    words = re.sub(r"<[^>]+>", " ", page).lower()
    for word in ("pass", "stage", "readiness", "latency", "p99", "loss", *HOSTS):
        assert word in words, word
    assert page.count("<svg") + page.count("data:image/") >= 3
    assert not re.search(r"(src|href)=.https?://", page), "it needs the network to be read"


def test_every_stage_left_a_snapshot(built: Done) -> None:
    for stage in STAGES:
        folder = built.run_dir / "raw" / "snapshots" / stage.name
        kept = {path.name for path in folder.iterdir()}
        assert {f"{host}-kubelet.log" for host in HOSTS} <= kept, stage.name
        if stage.name in ("network", "join", "ready", "verify"):
            assert json.loads((folder / "events.json").read_text()), stage.name
            assert any(name.startswith("kube-flannel-ds-") for name in kept), stage.name
    told_of = [line["data"] for line in lines(built.run_dir) if line["kind"] == "snapshot"]
    missed = [data["missed"] for data in told_of if data.get("missed")]
    assert not any(missed), missed


def test_no_secret_is_in_the_record(built: Done) -> None:
    files = [path for path in built.run_dir.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        data = path.read_bytes()
        for what, pattern in SECRETS.items():
            found = re.search(pattern, data)
            assert not found, f"{path}: {what}: {data[found.start() - 80 : found.end()]!r}"
    joins = [
        path.read_text()
        for path in (built.run_dir / "raw").glob("*kubeadm*.txt")
        if "kubeadm join" in path.read_text()
    ]
    assert joins
    for text in joins:
        for token in re.findall(r"--token[ =](\S+)", text):
            assert not re.search(r"[a-z0-9]{6,}", token), text


@pytest.mark.thorough
def test_again_it_changes_nothing_and_says_why(built: Done, shared_kit: Kit) -> None:
    uids = shared_kit.kubectl("get nodes,pods -A -o jsonpath='{.items[*].metadata.uid}'")
    again = shared_kit.build().passed()
    ends = stage_ends(again.run_dir)
    assert {name: end["changes"] for name, end in ends.items() if end["changes"]} == {"verify": 2}
    reasons = {name: end["reason"] for name, end in ends.items()}
    assert all(reason for name, reason in reasons.items() if name != "verify"), reasons
    notes = [line["stage"] for line in lines(again.run_dir) if line["kind"] == "note"]
    assert notes == [name for name in ends if name != "verify"]
    for name in notes:
        assert reasons[name] in re.sub(r"\s+", " ", again.out), f"{name}: {again.out}"
    assert shared_kit.kubectl("get nodes,pods -A -o jsonpath='{.items[*].metadata.uid}'") == uids


def test_papermill_runs_a_notebook_from_the_repository(kit: Kit, tmp_path: Path) -> None:
    """By its own command line; the second notebook goes on in the first one's run."""
    before = kit.runs()
    for name in ("01_preflight", "02_reset"):
        copy = tmp_path / f"{name}.ipynb"
        source = f"notebooks/bootstrap/{name}.ipynb"
        words = f"-m papermill {source} {copy} -p params {kit.file} --no-progress-bar"
        done = subprocess.run(
            [sys.executable, *words.split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        text = json.dumps(nbformat.read(copy, as_version=4).cells)
        assert "PASS" in text
    made = kit.runs() - before
    assert len(made) == 1
    assert set(stage_ends(made.pop())) == {"preflight", "reset"}


def test_a_run_directory_that_is_none_is_refused(kit: Kit, tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ParamsError, match=r"run_dir: .*: no run\.json"):
            Session.open(kit.file, run_dir=bad)
    with kit.session() as session:
        run_dir = session.journal.path
        session.finish(Verdict.PASS)
    other = kit.with_params("other", cluster="other", confirm_reset="")
    with pytest.raises(ParamsError, match="run of cluster 'test'"):
        Session.open(other.file, run_dir=run_dir)
