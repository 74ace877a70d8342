"""Joining: labels and taints, secrets on the hosts, and what stops a host before kubeadm hangs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kit_help import Kit, lines, stage_ends, told
from lab_help import HOSTS

from kitlib import notebooks
from kitlib.errors import CommandError
from kitlib.lab import verbs
from kitlib.notebooks import Notebook
from kitlib.pipeline import build
from kitlib.stages import STAGES

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL_PLANE, WORKER_1, WORKER_2 = HOSTS


def out_of_the_cluster(kit: Kit, host: str) -> None:
    """Have a cluster without this host, which is clean."""
    kit.stand("join")
    kit.kubectl(f"delete node {host}")
    kit.stand("reset")


def test_labels_and_taints_reach_the_nodes_and_stay_the_only_change(kit: Kit) -> None:
    out_of_the_cluster(kit, WORKER_2)
    hosts = [dict(host) for host in kit.params["hosts"]]
    hosts[1] |= {"labels": {"disk": "ssd"}, "taints": ["dedicated=db:PreferNoSchedule"]}
    hosts[2] |= {"labels": {"disk": "hdd"}, "taints": ["fresh:PreferNoSchedule"]}
    marked = kit.with_params("marked", hosts=hosts)
    done = marked.stage("join").passed()
    assert ("worker-1", "label its Node: disk=ssd") in told(done.run_dir, "change")
    assert kit.kubectl("get nodes -l disk=ssd -o name").split() == [f"node/{WORKER_1}"]
    assert kit.kubectl("get nodes -l disk=hdd -o name").split() == [f"node/{WORKER_2}"]
    taints = "get node -o jsonpath='{.spec.taints[*].key}={.spec.taints[*].value}' "
    assert "dedicated=db" in kit.kubectl(taints + WORKER_1)
    assert "fresh" in kit.kubectl(taints + WORKER_2)
    again = marked.stage("join").passed()
    assert told(again.run_dir, "change") == []
    assert "labels and taints as wanted" in again.record["reason"]
    for host, key in ((WORKER_1, "dedicated"), (WORKER_2, "fresh")):
        kit.kubectl(f"taint node {host} {key}-")
    # A host that joins registers with its taints: no pod comes in between.
    flags = kit.on(WORKER_2, "cat /var/lib/kubelet/kubeadm-flags.env")
    assert "--register-with-taints=fresh=:PreferNoSchedule" in flags
    assert "--node-ip=10.77.0.13" in flags


def test_a_token_is_on_no_host_and_in_no_record_after_the_join(kit: Kit) -> None:
    out_of_the_cluster(kit, WORKER_1)
    done = kit.stage("join").passed()
    assert done.run_dir is not None
    (kept,) = (done.run_dir / "raw").glob("join-*.yaml")
    assert kept.name == f"join-{WORKER_1}.yaml"
    assert "kind: JoinConfiguration" in kept.read_text()
    assert "token: '***'" in kept.read_text() or "token: ***" in kept.read_text()
    for path in done.run_dir.rglob("*"):
        if path.is_file():
            assert not re.search(rb"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", path.read_bytes()), path
    assert kit.on(WORKER_1, "ls -A /etc/kubekit").split() == []
    tokens = kit.kubectl("-n kube-system get secrets -o name")
    described = kit.kubectl("-n kube-system get secrets -o jsonpath='{.items[*].data.description}'")
    assert tokens.count("bootstrap-token-") == len(described.split()) <= 1, "init's own at most"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("token-expired", "the token has expired"), ("wrong-ca-hash", "it is another cluster")],
)
def test_what_would_hang_is_named_before_kubeadm_starts(kit: Kit, fault: str, words: str) -> None:
    out_of_the_cluster(kit, WORKER_2)
    verbs.break_(kit.state_dir, fault)
    done = kit.stage("join").failed(3, f"{WORKER_2}: .*{words}", "remedy")
    started = [x["data"]["command"] for x in lines(done.run_dir) if x["kind"] == "command.started"]
    assert not any(command.startswith("kubeadm join") for command in started)
    verbs.heal(kit.state_dir, fault)
    kit.stage("join").passed()


def test_a_worker_that_fails_is_told_the_others_join_are_judged_and_the_build_fails(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.stand("join")
    kit.kubectl(f"delete node {WORKER_1} {WORKER_2}")
    ran: list[str] = []
    with kit.session() as session:

        def execute(notebook: Notebook, output: Path, given: object, **_: object) -> None:
            stage = notebook.name.partition("_")[2]
            ran.append(stage)
            if stage == "join":  # preflight would have told
                verbs.break_(kit.state_dir, "swap-on", WORKER_1)
            session.stage(stage)

        monkeypatch.setattr(notebooks, "execute", execute)
        with pytest.raises(CommandError, match="kubeadm join") as caught:
            build(session)
        run_dir = session.journal.path
    assert ran == [stage.name for stage in STAGES], "and no diagnostic notebook"
    assert "swap" in str(caught.value)
    assert f"joined all the same: {WORKER_2}" in str(caught.value)
    for stage in ("ready", "verify"):
        assert f"{stage} of the hosts that joined, also FAIL: 1 check" in str(caught.value)
    ends = stage_ends(run_dir)
    assert {stage: ends[stage]["verdict"] for stage in ("join", "ready", "verify")} == {
        "join": "FAIL",
        "ready": "FAIL",
        "verify": "FAIL",
    }
    judged = [
        (x["stage"], x["host"], x["data"]["id"], x["data"]["status"])
        for x in lines(run_dir)
        if x["kind"] == "check"
    ]
    assert [x for x in judged if x[0] in ("ready", "verify") and x[3] == "FAIL"] == [
        ("ready", WORKER_1, "nodes.present", "FAIL"),
        ("verify", WORKER_1, "nodes.present", "FAIL"),
    ]
    assert ("verify", f"{WORKER_2} -> {CONTROL_PLANE}", "reachability.pair", "PASS") in judged
    record = json.loads((run_dir / "run.json").read_text())
    assert record["verdict"] == "FAIL"
    assert "kubeadm join" in record["reason"]
    report = (run_dir / "report.html").read_text()
    assert "swap" in report
    assert "is a node of the cluster" in report
    verbs.heal(kit.state_dir)
    kit.stage("join").passed()
