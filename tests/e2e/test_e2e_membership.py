"""Hosts leave a cluster that goes on, and come to it: `kit remove` and `kit join`."""

from __future__ import annotations

import json
import re

import pytest
from kit_help import Done, Kit, by_killed_runs, stage_ends, told
from lab_help import HOSTS, until

from kitlib import membership, removal
from kitlib.lab import verbs
from kitlib.model import Outcome
from kitlib.session import Session
from kitlib.stages import drain

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL_PLANE, WORKER_1, WORKER_2 = HOSTS
IMAGE = "busybox:1.36"
WEB = {"app": "web"}


def remove(kit: Kit, host: str, *options: str) -> Done:
    return kit.call("remove", "{params}", "--host", host, *options)


def apply(kit: Kit, *objects: dict) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kit.kubectl(f"apply -f - <<'END'\n{json.dumps(listed)}\nEND\n")


def pod_spec(**more: object) -> dict:
    container = {"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}
    return {"terminationGracePeriodSeconds": 0, "containers": [container], **more}


def web(replicas: int) -> dict:
    template = {"metadata": {"labels": WEB}, "spec": pod_spec()}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": WEB}, "template": template},
    }


def on_node(kit: Kit, host: str) -> list[str]:
    words = f"get pods --field-selector spec.nodeName={host},status.phase=Running -o name"
    return [name.removeprefix("pod/") for name in kit.kubectl(words).split()]


def cordoned(kit: Kit, host: str) -> bool:
    return "true" in kit.kubectl(f"get node {host} -o jsonpath='{{.spec.unschedulable}}'")


KILLING = ("evict", "reset kubeadm")
"""The changes behind which a removal is killed, one after another."""


def removed_by_killed_runs(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remove a host by runs that are killed; return all changes that they made."""

    def remove_it(session: Session) -> list[Outcome]:
        planned = removal.plan_removal(session, [WORKER_2])
        return removal.remove_hosts(session, planned)

    done, outcomes = by_killed_runs(kit, monkeypatch, KILLING, remove_it)
    assert [outcome.verdict.value for outcome in outcomes] == ["PASS", "PASS"]
    return [what.partition(":")[0] for what in done]


def test_a_worker_leaves_by_runs_that_are_killed_and_comes_back(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "AGAIN", 0.5)
    kit.stand("join")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "guard", "namespace": "default"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": WEB}},
    }
    alone = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "namespace": "default"},
        "spec": pod_spec(nodeName=WORKER_2, volumes=[{"name": "v", "emptyDir": {}}]),
    }
    apply(kit, web(2), budget, alone)
    until(lambda: len(on_node(kit, WORKER_2)) == 2 and on_node(kit, WORKER_1), 60)
    until(lambda: "2" in kit.kubectl("get pdb guard -o jsonpath='{.status.currentHealthy}'"), 30)

    unnamed = kit.with_params("unnamed", confirm_reset="")
    refused = remove(kit, WORKER_2).failed(3, "nothing makes these pods anew elsewhere: default/al")
    assert "data on the host (emptyDir): default/alone" in refused.err
    assert told(refused.run_dir, "change") == []
    kit.kubectl("delete pod alone")
    remove(unnamed, WORKER_2).failed(3, "without a word", r'--confirm "sha256:', "default/web-")
    short = kit.with_params("short", timeouts={"drain": 2})
    held = remove(short, WORKER_2).failed(
        9, "not drained within 2 s: pod default/web-", "budget guard needs 2 healthy pods"
    )
    assert [what for _, what in told(held.run_dir, "change")][-1].startswith("uncordon")
    assert not cordoned(kit, WORKER_2)
    assert WORKER_2 in kit.kubectl("get nodes -o name")

    kit.kubectl("delete pdb guard")
    planned = remove(kit, WORKER_2, "--dry-run").passed()
    assert told(planned.run_dir, "change") == []
    assert list(stage_ends(planned.run_dir)) == ["drain", "remove"]
    whats = [what.partition(":")[0] for _, what in told(planned.run_dir, "planned")]
    assert removed_by_killed_runs(kit, monkeypatch) == whats, "each change once, in all runs"
    assert WORKER_2 not in kit.kubectl("get nodes -o name")
    assert kit.on(WORKER_2, "ls -A /etc/kubernetes /etc/cni/net.d | grep conf || true") == ""
    until(lambda: len(on_node(kit, WORKER_1)) == 2, 60)
    kit.kubectl("delete deployment web --wait=false")

    back = kit.call("join", "{params}", "--host", WORKER_2).passed()
    assert list(stage_ends(back.run_dir)) == list(membership.JOIN_STAGES)
    joins = [host for host, what in told(back.run_dir, "change") if what.startswith("join ")]
    assert joins == [WORKER_2]
    assert back.record["verdict"] == "PASS"


@pytest.mark.thorough
def test_a_host_that_is_down_is_forgotten_by_force_alone_and_reset_when_it_is_back(
    kit: Kit,
) -> None:
    kit.stand("join")
    verbs.break_(kit.state_dir, "host-down", WORKER_2)
    refused = remove(kit, WORKER_2).failed(4, f"{WORKER_2} .*cannot connect", "--force has the")
    assert told(refused.run_dir, "change") == []
    assert not cordoned(kit, WORKER_2)
    done = remove(kit, WORKER_2, "--force").passed()
    assert f"{WORKER_2}: out of the cluster, and NOT reset" in done.out
    assert [host for host, _ in told(done.run_dir, "change")] == [WORKER_2]
    assert WORKER_2 not in kit.kubectl("get nodes -o name")
    verbs.heal(kit.state_dir)
    again = remove(kit, WORKER_2).passed()
    assert (WORKER_2, "reset kubeadm: it leaves the cluster") in told(again.run_dir, "change")
    assert f"{WORKER_2}: out of the cluster, and clean" in again.out
    assert f"{WORKER_2}: what goes: what it still holds: kubeadm's files" in again.out
    assert again.out.splitlines()[-1].startswith(f"take {WORKER_2} out of")
    assert again.record["verdict"] == "PASS"
    kit.call("report", str(again.run_dir)).passed()
    page = (again.run_dir / "report.html").read_text()
    assert re.search(r"<td[^>]*>remove</td>", page), "a row of its own among the stages"
