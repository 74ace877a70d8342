"""Ctrl-C: the run says INTERRUPTED, nothing is left running, and the same command goes on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from kit_help import Kit, stage_ends, told
from lab_help import HOSTS

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

Line = dict[str, Any]

SOME_NOTEBOOKS = """
import sys
from kitlib import notebooks
wanted = sys.argv.pop(1).split(",")
for name in ("BOOTSTRAP", "DIAGNOSTICS"):
    setattr(notebooks, name, tuple(each for each in getattr(notebooks, name) if each in wanted))
from kitlib.cli import main
main()
"""
"""`kit build` as it is, of some notebooks alone: the others would only take their time."""


def build_of(*names: str) -> tuple[str, ...]:
    return (sys.executable, "-c", SOME_NOTEBOOKS, ",".join(names))


def command(words: str) -> Callable[[Line], bool]:
    """Return what tells the journal's line of a command that has just been started."""
    return lambda line: line["kind"] == "command.started" and words in line["data"]["command"]


def waiting(words: str) -> Callable[[Line], bool]:
    """Return what tells the journal's line of such a wait."""
    return lambda line: line["kind"] == "progress" and words in line["data"]["text"]


MOMENTS = {
    "preflight": command("read the host's facts"),
    "packages": command("apt-get install"),
    "init": command("kubeadm init"),
    "network": command("kubectl apply"),
    "join": command("kubeadm join"),
    "ready": waiting("restart counts"),
    "verify": waiting("pinging"),
    "reset": command("kubeadm reset"),
}
IN_MAKE_TEST = ("init", "join", "verify")
OPTIONS = {"reset": ("--rebuild",)}
"""Without it there would be nothing to reset: the cluster is the wanted one."""


def before(kit: Kit, name: str) -> None:
    """Have the hosts such that the stage has something to do."""
    if name == "preflight":
        return
    if name == "packages":
        kit.clean()
        kit.on(HOSTS[1], "apt-get remove -y --allow-change-held-packages kubelet kubernetes-cni")
    elif name == "init":
        kit.clean()
        kit.stand("packages")
    else:
        upto = {"network": "init", "join": "network"}.get(name, "join")
        kit.stand(upto)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_MAKE_TEST else pytest.mark.thorough)
        for name in MOMENTS
    ],
)
def test_a_stage_is_interrupted_and_goes_on(kit: Kit, name: str) -> None:
    """One after another they build a cluster, each interrupted and then done."""
    before(kit, name)
    running = kit.start("stage", name, "{params}", *OPTIONS.get(name, ()))
    running.until_line(MOMENTS[name])
    done = running.interrupt().failed(130, f"{name}: interrupted", "run the build again")
    done.kept("INTERRUPTED")
    assert stage_ends(done.run_dir)[name]["verdict"] == "INTERRUPTED"
    nothing_is_left_in_the_cluster(kit, name)
    if name == "join":
        planned, changed = (told(done.run_dir, kind) for kind in ("planned", "change"))
        assert ("cluster", "delete the token") in planned
        assert ("cluster", "delete the token") in changed
    if name in ("init", "join"):  # kubeadm refuses what it wrote before it was ended
        kit.stage("reset").passed()
    kit.stage(name, *OPTIONS.get(name, ())).passed()


def nothing_is_left_in_the_cluster(kit: Kit, name: str) -> None:
    for host in HOSTS:
        left = [
            line
            for line in kit.on(host, "ps -eo args || true").splitlines()
            if line.startswith(("kubeadm ", "apt-get ", "kubectl "))
        ]
        assert not left, f"{host}: {left}"
    if name in ("ready", "verify"):
        assert not [space for space in kit.namespaces() if "kit-diagnose" in space]


@pytest.mark.parametrize(
    "signum",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="sigterm", marks=pytest.mark.thorough),
    ],
)
def test_a_notebook_is_interrupted(kit: Kit, signum: int) -> None:
    """In the middle of the latency measurement: kernel, pods and sockets go."""
    kit.stand("ready")
    program = build_of("21_pod_latency")
    slow = kit.with_params("slow", probe={"samples": 100, "interval": 0.2})
    running = slow.start("build", "{params}", program=program)
    running.until_line(waiting("round 1 of 1"))
    done = running.interrupt(signum).failed(130, "interrupted").kept("INTERRUPTED")
    assert (done.record["partial"], list(done.record["missing"])) == (True, ["latency"])
    assert "latency: 6 of 6 pairs in round 1 of 1" in (done.run_dir / "report.html").read_text()
    nothing_is_left_in_the_cluster(kit, "verify")


@pytest.mark.thorough
def test_a_build_is_interrupted_and_built_again(kit: Kit) -> None:
    """In the init notebook; the same command then ends in PASS."""
    kit.clean()
    kit.stand("packages")
    program = build_of("02_reset", "04_init")
    running = kit.start("build", "{params}", program=program)
    running.until_line(MOMENTS["init"])
    done = running.interrupt().failed(130, "interrupted").kept("INTERRUPTED")
    assert "INTERRUPTED" in (done.run_dir / "report.html").read_text()
    again = kit.start("build", "{params}", program=program).wait().passed()
    assert again.record["verdict"] == "PASS"
    assert stage_ends(again.run_dir)["init"]["verdict"] == "PASS"
