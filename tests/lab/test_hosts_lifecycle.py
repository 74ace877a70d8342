"""A lab's life: up, up again, down, killed; and what stays behind, which is nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from lab_help import (
    STUB,
    Lab,
    Someone,
    free_spec,
    namespaces,
    processes_of,
    running_lab,
    until,
)

from kitlib.errors import LabError
from kitlib.lab import lifecycle, machine, verbs
from kitlib.lab.spec import LabStatus

pytestmark = pytest.mark.lab

ONE = ("alone",)


def up(spec: verbs.LabSpec, directory: Path, **options: float) -> LabStatus:
    return verbs.up(spec, state_dir=directory, node="lab_node_stub", python_path=[STUB], **options)


def begun(pid: str) -> str:
    """Return when a process began, which tells it from another of its number; empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def test_killed_lab_leaves_nothing_and_up_and_down_just_work(someone: Someone) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    lab = someone.up(free_spec())
    assert lab.run("hostname; id -u").stdout == "worker-1\n0\n"
    lab.run("setsid nohup sleep 1000 >/dev/null 2>&1 </dev/null &")
    lab.close()
    assert len(processes_of(someone.directory)) >= 9
    pids = [line.split()[0] for line in processes_of(someone.directory)]
    theirs = set().union(*map(namespaces, pids)) - namespaces("self")
    assert len(theirs) > len(lab.spec.hosts) * 5
    pid = json.loads((someone.directory / "lab.json").read_text())["pid"]
    # The kernel gives a namespace's number to the next one: only who was in them then counts.
    everybody = [path.name for path in Path("/proc").glob("[0-9]*")]
    inside = [(each, begun(each)) for each in everybody if theirs & namespaces(each)]
    assert len(inside) >= 9
    os.kill(pid, signal.SIGKILL)
    until(lambda: not processes_of(someone.directory), seconds=5)
    until(lambda: not [each for each, start in inside if begun(each) == start], seconds=5)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert verbs.status(someone.directory).summary == "lab: not running; it was ended from outside"
    again = someone.up(lab.spec)
    assert again.run("true").ok
    again.close()
    assert someone.down() == "lab: ended"
    assert processes_of(someone.directory) == []
    assert someone.down() == "lab: not running"


def test_down_after_a_kill_cleans_up(tmp_path: Path) -> None:
    up(free_spec(ONE), tmp_path)
    os.kill(json.loads((tmp_path / "lab.json").read_text())["pid"], signal.SIGKILL)
    assert verbs.down(tmp_path).summary in ("lab: ended", "lab: had ended already; cleaned up")
    assert not (tmp_path / "lab.json").exists()
    assert processes_of(tmp_path) == []


def test_second_up_says_so_and_leaves_it_alone(stub_lab: Lab) -> None:
    pid = verbs.status(stub_lab.state_dir).pid
    again = up(stub_lab.spec, stub_lab.state_dir, time_factor=0.02)
    assert "running already" in again.summary
    assert again.pid == pid


def test_up_with_another_spec_is_refused(stub_lab: Lab) -> None:
    with pytest.raises(LabError, match=r"with hosts .*worker-1") as error:
        up(free_spec(ONE), stub_lab.state_dir, time_factor=0.02)
    assert "kit lab down" in error.value.remedy
    with pytest.raises(LabError, match=r"time factor 0\.02"):
        up(stub_lab.spec, stub_lab.state_dir, time_factor=1.0)


def test_two_ups_at_once_make_one_lab(tmp_path: Path) -> None:
    spec = free_spec(ONE)
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(up(spec, tmp_path).pid)) for _ in "ab"]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pids) == 2
        assert len(set(pids)) == 1
    finally:
        verbs.down(tmp_path)


def test_taken_port_is_named_with_its_holder(stub_lab: Lab, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        spec = free_spec(ONE)
        taken = replace(spec, manifest_port=port)
        with pytest.raises(LabError, match=rf"port {port} .* \(pid {os.getpid()}\)"):
            up(taken, tmp_path)
    ours = replace(spec, manifest_port=stub_lab.port("worker-1"))
    with pytest.raises(LabError) as error:
        up(ours, tmp_path)
    assert str(stub_lab.state_dir) in error.value.message
    assert "kit lab down" in error.value.remedy
    assert not (tmp_path / "lab.json").exists()


def test_host_that_does_not_start_ends_everything_and_shows_the_log(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"(?s)ended while starting.*ModuleNotFoundError"):
        verbs.up(free_spec(ONE), state_dir=tmp_path, node="no_such_node")
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "lab.json").exists()


def test_slow_host_ends_everything(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"alone: no answer over SSH after 0 s"):
        up(free_spec(ONE), tmp_path, timeout=0.0)
    assert processes_of(tmp_path) == []


def test_dead_host_is_said_to_be_dead(tmp_path: Path) -> None:
    with running_lab(
        tmp_path, hosts=("alone", "other"), node="lab_node_stub", python_path=[STUB]
    ) as lab:
        lab.connect("other").client.exec_command("kill -9 $(pgrep -f [k]itlib.lab.hostd | tail -1)")
        until(lambda: verbs.status(tmp_path).hosts[1].state == "dead")
        assert verbs.status(tmp_path).hosts[0].state == "ready"
        assert "other: the host ended with status" in (tmp_path / "box.log").read_text()


def test_keys_are_private_and_the_release_file_tells_the_truth(stub_lab: Lab) -> None:
    assert (stub_lab.state_dir / lifecycle.IDENTITY).stat().st_mode & 0o777 == 0o600
    release = stub_lab.run("cat /etc/lab-release").stdout
    assert 'LAB="1"' in release
    assert 'LAB_TIME_FACTOR="0.02"' in release
    assert "kubeadm" in release


def test_status_of_nothing(tmp_path: Path) -> None:
    assert not verbs.status(tmp_path).running
    with pytest.raises(LabError, match="not running"):
        verbs.ssh(tmp_path, "worker-1", "true")


def test_refused_namespaces_fail_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise machine.why_refused("unshare failed: Operation not permitted", lambda _: "0", 1000)

    monkeypatch.setattr(machine, "check_namespaces", refuse)
    with pytest.raises(LabError, match="max_user_namespaces is 0"):
        up(free_spec(ONE), tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lock"]
