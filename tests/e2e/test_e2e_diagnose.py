"""`kit diagnose` on a lab: by parameters, by nothing but a kubeconfig, and broken off."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from kit_help import KIT, Done, Kit, Running, lines
from lab_help import HOSTS, until

from kitlib import notebooks
from kitlib.lab import verbs
from kitlib.lab.api import pki
from kitlib.rights import ROLE, cluster_role

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

QUICK = ("--rounds", "1", "--set", "probe.samples=10", "--set", "probe.interval=0.02")
CHARTS = ("readiness", "latency")
PREFIX = "kit-diagnose-"


@dataclass(frozen=True)
class Alone:
    """A directory with a kubeconfig in it, and nothing else of the cluster.

    Attributes:
        kit: The lab that the kubeconfig leads to; nothing here asks it over SSH.
        file: The kubeconfig.
    """

    kit: Kit
    file: Path

    def runs(self) -> set[Path]:
        return set(self.file.parent.glob("runs/*/*"))

    @property
    def home(self) -> Path:
        return self.file.parent

    def start(self, *options: str) -> Running:
        """Start `kit diagnose` there; its run directories are below that directory."""
        argv = (*KIT, "diagnose", str(self.file), *QUICK, *options)
        runs = ("--runs", str(self.home / "runs"))
        return Running(self, (*argv, *runs))  # type: ignore[arg-type]

    def namespaces(self) -> list[str]:
        return [name for name in self.kit.namespaces() if name.startswith(PREFIX)]


@pytest.fixture(scope="module")
def standing(shared_kit: Kit) -> Kit:
    """A cluster that works."""
    verbs.heal(shared_kit.state_dir)
    shared_kit.stand("ready")
    return shared_kit


@pytest.fixture
def alone(standing: Kit, tmp_path: Path) -> Iterator[Alone]:
    file = tmp_path / "lab.conf"
    file.write_text(verbs.kubeconfig(standing.state_dir))
    yield Alone(standing, file)
    verbs.heal(standing.state_dir)
    left = [name for name in standing.namespaces() if name.startswith(PREFIX)]
    assert left == []


def whole(done: Done, verdict: str) -> None:
    """Check that all that a diagnosis leaves is there, and says the same."""
    assert done.run_dir is not None
    assert done.record["verdict"] == verdict, done.record
    assert done.record["kind"] == "diagnose"
    page = (done.run_dir / "report.html").read_text()
    assert f"<strong>{verdict}</strong>" in page
    assert "Diagnosis of cluster" in page
    assert f"diagnose: {verdict}" in done.out


def test_a_kubeconfig_in_an_empty_directory_is_enough(alone: Alone) -> None:
    metrics = alone.home / "kit.prom"
    done = alone.start("--metrics", str(metrics)).wait().passed()
    whole(done, "PASS")
    assert {host["name"] for host in done.record["hosts"]} == set(HOSTS)
    assert done.record["plugin"] == "flannel"
    assert done.record["pod_cidr"] == "10.244.0.0/16"
    assert done.record["provenance"]["kind"] == "lab", "the agents' own word, without SSH"
    samples = pd.concat(
        pd.read_parquet(file) for file in (done.run_dir / "samples" / "ping").glob("*.parquet")
    )
    assert set(samples["path"]) == {"pod", "host"}
    assert len(samples.groupby(["src", "dst", "path"])) == 2 * 6
    for name in CHARTS:
        for ending in ("png", "svg", "csv", "parquet"):
            assert (done.run_dir / "charts" / f"{name}.{ending}").stat().st_size > 0, name
    assert "kit_round_trip_seconds" in metrics.read_text()
    assert not alone.namespaces()
    key = yaml.safe_load(alone.file.read_text())["users"][0]["user"]["client-key-data"][:60]
    for file in (each for each in done.run_dir.rglob("*") if each.is_file()):
        assert key.encode() not in file.read_bytes(), file
    again = (done.run_dir / "report.html").read_text()
    assert "kit diagnose" in again


@pytest.mark.thorough
def test_parameters_use_the_hosts_lock_and_their_devices_counters(standing: Kit) -> None:
    done = standing.run("diagnose", "{params}", *QUICK).passed()
    whole(done, "PASS")
    ids = {line["data"]["id"] for line in lines(done.run_dir) if line["kind"] == "check"}
    assert any("counters" in name or "device" in name for name in ids), ids
    ran = sorted(path.stem for path in (done.run_dir / "notebooks").glob("*.ipynb"))
    assert ran == list(notebooks.DIAGNOSE)
    changes = [line["data"]["what"] for line in lines(done.run_dir) if line["kind"] == "change"]
    assert all(f"namespace {PREFIX}" in what for what in changes), changes
    assert not [name for name in standing.namespaces() if name.startswith(PREFIX)]


@pytest.mark.thorough
def test_rights_that_are_missing_are_named_and_the_printed_role_has_them(alone: Alone) -> None:
    ca = pki.KeyPair(
        alone.kit.on(HOSTS[0], "cat /etc/kubernetes/pki/ca.crt"),
        alone.kit.on(HOSTS[0], "cat /etc/kubernetes/pki/ca.key"),
    )
    reader = pki.issue(ca, "reader", ["people"], client=True)
    config = yaml.safe_load(alone.file.read_text())
    config["users"][0]["user"] = pki.kubeconfig(
        "https://x", ca.cert_pem, "reader", cert_pem=reader.cert_pem, key_pem=reader.key_pem
    )["users"][0]["user"]
    admin = alone.file.read_text()
    alone.file.write_text(yaml.safe_dump(config))
    done = (
        alone.start().wait().failed(3, "lacks", "pods/exec", "namespaces", "kit diagnose --rights")
    )
    assert done.run_dir is None, "nothing was begun"
    # What it prints is applied by the administrator, and is enough.
    as_admin = alone.home / "admin.conf"
    as_admin.write_text(admin)
    for words, text in (
        (("apply", "-f", "-"), cluster_role()),
        (("create", "clusterrolebinding", ROLE, f"--clusterrole={ROLE}", "--user=reader"), ""),
    ):
        kubectl(as_admin, *words, stdin=text)
    try:
        whole(alone.start().wait().passed(), "PASS")
    finally:
        kubectl(as_admin, "delete", "clusterrolebinding", ROLE)


def kubectl(config: Path, *words: str, stdin: str = "") -> None:
    from kitlib.lab.machine import find_kubectl

    env = {**os.environ, "HOME": str(config.parent)}
    argv = [find_kubectl(), f"--kubeconfig={config}", *words]
    subprocess.run(argv, input=stdin, text=True, check=True, capture_output=True, env=env)


def measuring(line: dict) -> bool:
    return line["kind"] == "progress" and line["data"].get("text", "").startswith("round ")


def test_ctrl_c_leaves_no_agents_and_a_report_of_what_was_measured(alone: Alone) -> None:
    running = alone.start("--set", "probe.samples=40", "--set", "probe.interval=0.2")
    running.until_line(measuring)
    until(lambda: list(alone.home.glob("runs/*/*/samples/ping/*.parquet")), 60)
    done = running.interrupt()
    assert done.code == 130, done.text
    whole(done, "INTERRUPTED")
    assert done.record["partial"]
    assert "latency" in done.record["missing"]
    assert "Partial." in (done.run_dir / "report.html").read_text()
    assert (done.run_dir / "charts" / "latency.svg").is_file()
    assert not alone.namespaces()


@pytest.mark.thorough
def test_an_api_that_goes_and_comes_back_is_waited_for(alone: Alone) -> None:
    """It is away for some seconds in the middle: the rest is measured, and no agents stay."""
    running = alone.start("--set", "probe.samples=30", "--set", "probe.interval=0.1")
    running.until_line(measuring)
    verbs.break_(alone.kit.state_dir, "api-down", HOSTS[0])
    until(lambda: any("no answer" in json.dumps(line) for line in lines(running.run_dir)), 60)
    verbs.heal(alone.kit.state_dir, "api-down")
    done = running.wait()
    assert done.code in (0, 5, 8), done.text
    verdict = done.record["verdict"]
    whole(done, verdict)
    assert verdict == ("PASS" if done.code == 0 else "FAIL")
    if done.record.get("partial"):
        assert "Partial." in (done.run_dir / "report.html").read_text()


@pytest.mark.thorough
def test_a_host_that_is_down_is_named_first_and_the_others_are_measured(standing: Kit) -> None:
    verbs.break_(standing.state_dir, "host-down", HOSTS[2])
    try:
        done = standing.run("diagnose", "{params}", *QUICK, "--set", "timeouts.verify=10")
    finally:
        verbs.heal(standing.state_dir)
    done.failed(8, "report")
    whole(done, "FAIL")
    first = next(line for line in done.out.splitlines() if line.startswith("FAIL"))
    assert HOSTS[2] in first, done.out
    assert "cannot connect" in first
    samples = pd.concat(
        pd.read_parquet(file) for file in (done.run_dir / "samples" / "ping").glob("*.parquet")
    )
    assert set(zip(samples["src"], samples["dst"], strict=True)) == {HOSTS[:2], HOSTS[1::-1]}
    until(lambda: not [n for n in standing.namespaces() if n.startswith(PREFIX)], 60)
