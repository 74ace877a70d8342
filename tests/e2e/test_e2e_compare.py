"""`kit compare` in the lab: what fails is told and cleaned away, the others are compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit_help import ROOT, Kit, lab_kit, lines
from lab_help import HOSTS

from kitlib.errors import Interrupted

pytestmark = [pytest.mark.lab, pytest.mark.thorough, pytest.mark.timeout(600)]

LEFT = (
    "ls -A /etc/cni/net.d /etc/kubernetes/admin.conf /etc/kubernetes/kubelet.conf 2>/dev/null"
    " | grep -v -e '^/' -e '^$'; ls /etc/kubernetes/*.conf 2>/dev/null;"
    " ip -o link | grep -oE '(cni0|flannel\\.1|cali[0-9a-f]+|kube-bridge)'; true"
)
"""Prints what a cluster or a plugin left on a host."""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    home = tmp_path_factory.mktemp("compare")
    with lab_kit(home) as kit:
        yield kit


def index_of(kit: Kit) -> tuple[Path, dict[str, Any]]:
    """Return the newest comparison's directory and its index."""
    path = max((kit.home / "runs").glob("*/comparisons/*/comparison.json"))
    return path.parent, json.loads(path.read_text())


def test_a_plugin_that_fails_is_cleaned_away_and_the_others_are_compared(kit: Kit) -> None:
    source = kit.home / "manifests"
    source.mkdir()
    for name in ("flannel", "calico"):
        shutil.copy(ROOT / "kitlib" / "lab" / "manifests" / f"{name}.yaml", source)
    wrong = "apiVersion: nosuch.example/v1\nkind: Nothing\nmetadata: {name: nothing}\n"
    (source / "kube-router.yaml").write_text(wrong)
    mine = kit.with_params("mine", plugin_source=str(source))
    done = mine.run(
        "compare", "{params}", "--plugins", "flannel,calico,kube-router", "--rounds", "2",
        "--packets", "20",
    )  # fmt: skip
    done.failed(8, "2 of the builds failed", "kube-router")
    home, index = index_of(kit)
    assert index["verdict"] == "FAIL"
    ended = {(run["plugin"], run["round"]): run["verdict"] for run in index["runs"]}
    assert ended == {
        (name, number): "FAIL" if name == "kube-router" else "PASS"
        for name in ("flannel", "calico", "kube-router")
        for number in (1, 2)
    }
    assert set(kit.everywhere(LEFT).values()) == {""}
    for run in index["runs"]:
        record = json.loads((home.parents[1] / run["run_id"] / "run.json").read_text())
        assert record["verdict"] == run["verdict"]
        assert record["comparison"] == {"id": home.name, "round": run["round"]}
        if run["verdict"] == "PASS":
            checks = [
                line["data"]
                for line in lines(home.parents[1] / run["run_id"])
                if line["kind"] == "check" and line["stage"] == "latency"
            ]
            counted = [each for each in checks if each["id"] == "reachability.device"]
            assert len(counted) == 3
            # 20 packets and one to warm up, to each of the two other nodes.
            assert {each["expected"] for each in counted} == {"at least 42"}
            assert {each["status"] for each in checks} == {"PASS"}
    page = (home / "report.html").read_text(encoding="utf-8")
    assert "4 of 6 builds passed" in page
    assert "emulated, time factor 0.02" in page


def test_an_interrupt_leaves_clean_hosts_and_is_gone_on_from(kit: Kit) -> None:
    running = kit.start(
        "compare", "{params}", "--plugins", "flannel,calico", "--rounds", "1", "--packets", "20"
    )
    running.until_line(lambda line: line["kind"] == "measure.started")
    stopped = running.interrupt()
    assert stopped.code == Interrupted.exit_code, stopped.text
    home, index = index_of(kit)
    assert index["verdict"] == "INTERRUPTED"
    assert f"--resume {home}" in stopped.err
    assert set(kit.everywhere(LEFT).values()) == {""}
    kit.run("compare", "--resume", str(home)).passed()
    assert index_of(kit)[1]["verdict"] == "PASS"
    assert set(kit.everywhere(LEFT).values()) == {""}


def test_a_users_own_plugin_is_built_measured_and_removed_like_the_others(kit: Kit) -> None:
    """It is one file beside the parameters; here one that varies flannel."""
    own = kit.file.parent / "plugins"
    (own / "manifests").mkdir(parents=True)
    shutil.copy(ROOT / "kitlib" / "lab" / "manifests" / "flannel.yaml", own / "manifests")
    entry = yaml.safe_load((ROOT / "kitlib/plugins/catalogue/flannel.yaml").read_text())
    entry |= {"name": "ours", "title": "Ours"}
    entry["manifest"] |= {"addresses": ["manifests/flannel.yaml"]}
    entry["leftovers"]["paths"].append("/var/lib/ours")
    (own / "ours.yaml").write_text(yaml.safe_dump(entry))
    for host in HOSTS:
        kit.on(host, "mkdir -p /var/lib/ours")
    done = kit.run(
        "compare", "{params}", "--plugins", "ours", "--rounds", "1", "--packets", "20"
    ).passed()
    assert "ours: PASS" in done.text
    home, index = index_of(kit)
    (run,) = index["runs"]
    record = json.loads((home.parents[1] / run["run_id"] / "run.json").read_text())
    assert record["own_plugins"]["ours"]["title"] == "Ours"
    applied = [
        line["data"]["status"]
        for line in lines(home.parents[1] / run["run_id"])
        if line["kind"] == "check" and line["data"]["id"] == "cni.config-in-force"
    ]
    assert applied
    assert set(applied) == {"PASS"}
    page = (home / "report.html").read_text(encoding="utf-8")
    assert "1 of 1" in page
    assert set(kit.everywhere(LEFT).values()) == {""}
    assert set(kit.everywhere("ls -d /var/lib/ours 2>/dev/null; true").values()) == {""}
