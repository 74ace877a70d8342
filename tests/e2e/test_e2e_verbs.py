"""The other verbs of `kit`: what they print, what they change, what they return."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from kit_help import Kit, params_for
from lab_help import HOSTS, free_ports, free_spec, processes_of, until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

VERBS = (
    ("build",),
    ("stage",),
    ("preflight",),
    ("hosts",),
    ("trust",),
    ("plugins",),
    ("bundle",),
    ("report",),
    ("notebook",),
    ("diagnose",),
    ("demo",),
    ("lab",),
    ("lab", "up"),
    ("lab", "down"),
    ("lab", "status"),
    ("lab", "ssh"),
    ("lab", "kubeconfig"),
    ("lab", "break"),
    ("lab", "heal"),
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """A lab that `kit lab up` started."""
    kit = Kit(tmp_path_factory.mktemp("own"), params_for(free_spec()))
    try:
        up = kit.run("lab", "up", "--params", "{params}", "--time-factor", "0.02").passed()
        assert all(host in up.out for host in HOSTS)
        yield kit
    finally:
        kit.call("lab", "down", "--params", "{params}").passed()
        assert not processes_of(kit.state_dir)


def lab(kit: Kit, *words: str) -> tuple[str, ...]:
    return ("lab", words[0], *words[1:], "--params", str(kit.file))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help(shared_nothing: Kit, verb: tuple[str, ...]) -> None:
    text = re.sub(r"\s+", " ", shared_nothing.call(*verb, "--help").passed().out)
    assert f"Usage: kit {' '.join(verb)}" in text
    assert "--help" in text


@pytest.fixture
def shared_nothing(tmp_path: Path) -> Kit:
    """Parameters without a lab."""
    return Kit(tmp_path, params_for(free_spec()))


def test_kit_alone_lists_its_verbs_and_exit_codes(shared_nothing: Kit) -> None:
    text = shared_nothing.call("--help").passed().out
    for verb in VERBS:
        assert verb[0] in text
    for code in ("0 ", "130 "):
        assert code in text
    assert re.fullmatch(r"kit \d+\.\d+\S*\n", shared_nothing.call("--version").passed().out)


def test_plugins(shared_nothing: Kit) -> None:
    listing = shared_nothing.call("plugins").passed().out
    for name, cidr in (("flannel", "10.244.0.0/16"), ("calico", "192.168.0.0/16")):
        assert name in listing
        assert cidr in listing
    assert "kube-router" in listing
    assert shared_nothing.call("plugins", "calico").passed().out.startswith("Project Calico")


def test_lab_verbs_without_a_lab(shared_nothing: Kit) -> None:
    assert "not running" in shared_nothing.call(*lab(shared_nothing, "status")).passed().out
    shared_nothing.call(*lab(shared_nothing, "ssh", HOSTS[0], "true")).failed(10, "kit lab up")
    shared_nothing.call(*lab(shared_nothing, "break", "swap-on")).failed(10, "kit lab up")
    shared_nothing.call(*lab(shared_nothing, "down")).passed()


def test_lab_up_and_status(own: Kit) -> None:
    own.call(*lab(own, "up", "--time-factor", "0.02")).passed()
    own.call(*lab(own, "up")).failed(10, "runs already, with time factor 0.02")
    status = own.call(*lab(own, "status")).passed().out
    for host in own.params["hosts"]:
        assert re.search(rf"{host['name']}.*{host['port']}.*{host['node_address']}", status)


def test_lab_ssh(own: Kit) -> None:
    done = own.run(*lab(own, "ssh", HOSTS[1], "hostname"))
    assert (done.code, done.out.strip()) == (0, HOSTS[1])
    assert own.run(*lab(own, "ssh", HOSTS[1], "exit 7")).code == 7
    own.run(*lab(own, "ssh", "worker-9", "hostname")).failed(10, "worker-9", HOSTS[1])


def test_lab_kubeconfig_wants_a_cluster(own: Kit) -> None:
    own.call(*lab(own, "kubeconfig")).failed(10, "there is no cluster in it", "kit build")


def test_lab_break_and_heal(own: Kit) -> None:
    listing = own.call(*lab(own, "break")).passed().out
    assert "host-down" in listing
    assert (
        own.call(*lab(own, "break", "swap-on", "--host", HOSTS[2]))
        .passed()
        .out.startswith(HOSTS[2])
    )
    assert "swap-on" in own.call(*lab(own, "status")).passed().out
    assert "swap-on is off" in own.call(*lab(own, "heal")).passed().out
    assert "nothing was broken" in own.call(*lab(own, "heal")).passed().out
    own.call(*lab(own, "break", "no-such")).failed(10, "no-such", "host-down")


def test_hosts(own: Kit) -> None:
    """A host out of reach has its line too, and nothing is recorded."""
    before = own.runs()
    told = own.call("hosts", "{params}").passed().out
    for host in HOSTS:
        assert re.search(rf"{host} .* reachable", told)
    broken = [dict(host) for host in own.params["hosts"]]
    broken[1] = {**broken[1], "address": "no-such-host.invalid", "node_address": "192.0.2.9"}
    done = own.with_params("broken", hosts=broken).call("hosts", "{params}").failed(4, HOSTS[1])
    assert re.search(rf"{HOSTS[0]} .* reachable", done.out)
    assert re.search(rf"{HOSTS[1]} .* cannot connect", done.out)
    assert own.runs() == before


def test_trust(own: Kit) -> None:
    file = own.home / "trusted" / "known_hosts"
    fresh = own.with_params("trust", ssh={"known_hosts": str(file)})
    fresh.run("trust", "{params}").failed(2, "--yes")
    assert not file.exists()
    done = fresh.call("trust", "{params}", "--yes").passed()
    assert done.out.count("SHA256:") == 3
    assert "3 key(s) remembered" in done.out
    known = sorted((own.state_dir / "known_hosts").read_text().split())
    assert sorted(file.read_text().split()) == known
    assert "Nothing new" in fresh.call("trust", "{params}").passed().out
    fresh.stage("preflight").passed()

    rows = file.read_text().splitlines()
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[1]
    rows[1] = " ".join([*rows[1].split()[:2], other])
    file.write_text("\n".join(rows) + "\n")
    fresh.call("trust", "{params}", "--yes").failed(4, HOSTS[1], "differs")
    assert file.read_text().splitlines() == rows


def test_stage_prints_checks_record_and_verdict(own: Kit) -> None:
    done = own.run("stage", "preflight", "{params}").passed()
    assert done.out.splitlines()[-1] == "preflight: PASS"
    assert f"record: {done.run_dir}" in done.out
    dry = own.call("stage", "packages", "{params}", "--dry-run").passed()
    assert "packages: PLANNED" in dry.out
    assert "apt-get" in dry.out or "install the packages" in dry.out
    assert dry.record["verdict"] == "PLANNED"


def test_report_is_written_again_from_the_record(own: Kit, tmp_path: Path) -> None:
    done = own.stage("preflight").passed()
    moved = tmp_path / "moved"
    shutil.copytree(done.run_dir, moved)
    written = own.call("report", str(moved)).passed().out.strip()
    assert Path(written) == moved / "report.html"
    assert "preflight" in (moved / "report.html").read_text()


def test_dry_run_of_a_build_changes_nothing(own: Kit) -> None:
    done = own.build("--dry-run").passed()
    assert done.record["verdict"] == "PLANNED"
    assert "PLANNED" in done.out.splitlines()
    plan = "read the package lists anew"
    assert plan in done.out
    run = own.run(*lab(own, "ssh", HOSTS[0], "command -v kubeadm || ls /etc/kubekit"))
    assert run.out == ""


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=5):
        return True
    return False


def test_notebook_opens_jupyterlab_on_the_notebooks(tmp_path: Path) -> None:
    """It asks nothing of the internet, not even whether it may; Ctrl-C twice ends it."""
    kit = Kit(tmp_path, params_for(free_spec()))
    [port] = free_ports(1)
    running = kit.start("notebook", "{params}", "--no-browser", "--port", str(port))
    try:
        lines = iter(running.process.stderr.readline, "")
        token = next(filter(None, (re.search(r"[?&]token=(\w+)", line) for line in lines)))[1]

        def get(path: str) -> Any:
            url = f"http://localhost:{port}{path}?token={token}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)

        until(lambda: answers(port))  # its address is told just before
        listed = get("/api/contents/notebooks/bootstrap")["content"]
        assert "01_preflight.ipynb" in [each["name"] for each in listed]
        told = get("/lab/api/settings/@jupyterlab/apputils-extension:notification")["schema"]
        assert told["properties"]["fetchNews"]["default"] == "false"
    finally:
        for _ in range(2):
            os.killpg(running.process.pid, signal.SIGINT)
        running.process.communicate(timeout=60)
    until(lambda: not running.left())
