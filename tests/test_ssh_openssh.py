"""The same door against OpenSSH's own server, where it is installed and this user may run it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest
from lab_help import until
from opensshkit import NEEDS_SSHD, Sshd, start_sshd
from sshkit import Door, echo_server, host_line, write_key

from kitlib.command import Cmd, Secret, script
from kitlib.durable import Durable
from kitlib.errors import ConnectError, HostKeyError, HostLoginError
from kitlib.hostkeys import fetch_host_key
from kitlib.ssh import Ssh

pytestmark = NEEDS_SSHD


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with start_sshd() as running:
        yield running


@pytest.fixture
def known(sshd: Sshd, tmp_path: Path) -> Path:
    file = tmp_path / "known_hosts"
    file.write_text(host_line(sshd.port, sshd.host_key))
    return file


def door(sshd: Sshd, known: Path, identity: Path | None = None) -> Ssh:
    target = Door("worker-1", sshd.port, identity or sshd.identity)
    return Ssh({"worker-1": target}, known_hosts=known)


@pytest.fixture
def ssh(sshd: Sshd, known: Path) -> Iterator[Ssh]:
    with door(sshd, known) as opened:
        yield opened


def test_a_command_comes_back_whole(ssh):
    result = ssh.run("worker-1", script('echo "$1"; echo err >&2; exit 7', Secret("s3 cret")))
    assert (result.stdout, result.stderr, result.exit_status) == ("s3 cret\n", "err\n", 7)
    assert "s3 cret" not in result.command


def test_put_replaces_the_file_whole_with_its_mode(ssh, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("old")
    ssh.put("worker-1", "new\n", str(path), mode=0o600)
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.glob("config*")] == ["config.yaml"]


def test_a_forward_carries_data_both_ways(ssh):
    with (
        echo_server() as port,
        ssh.forward("worker-1", "127.0.0.1", port) as here,
        socket.create_connection(("127.0.0.1", here), timeout=10) as client,
    ):
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"


def test_unknown_and_changed_host_keys_are_refused(sshd, tmp_path):
    with door(sshd, tmp_path / "none") as ssh, pytest.raises(HostKeyError, match="is unknown"):
        ssh.run("worker-1", Cmd.of("true"))
    changed = tmp_path / "changed"
    changed.write_text(host_line(sshd.port, asyncssh.generate_private_key("ssh-ed25519")))
    with door(sshd, changed) as ssh, pytest.raises(HostKeyError, match="has changed"):
        ssh.run("worker-1", Cmd.of("true"))
    assert fetch_host_key(Door("x", sshd.port, None)).fingerprint == sshd.host_key.get_fingerprint()


def test_a_refused_login_is_told(sshd, known, tmp_path):
    write_key(tmp_path / "foreign")
    with door(sshd, known, tmp_path / "foreign") as ssh, pytest.raises(HostLoginError):
        ssh.run("worker-1", Cmd.of("true"))


def test_a_connection_lost_during_a_command_is_an_error_of_its_own(ssh):
    with pytest.raises(ConnectError, match="the connection was lost during"):
        ssh.run("worker-1", script("kill -KILL $PPID"))
    with contextlib.suppress(ConnectError):
        assert ssh.run("worker-1", Cmd.of("echo", "back")).stdout == "back\n"


def test_a_change_outlives_the_sshd_of_its_connection(ssh, tmp_path):
    """Its sshd is killed in the middle; it runs to its end, once, and is found there."""
    notes: list[str] = []
    runner = Durable(
        ssh,
        command_timeout=60,
        patience=30,
        every=0.05,
        note=lambda _, text: notes.append(text),
        state=str(tmp_path / "state"),
    )
    started, go = tmp_path / "started", tmp_path / "go"
    text = 'echo started >>"$1"; until [ -e "$2" ]; do sleep 0.02; done; echo whole; exit 5'
    cmd = script(text, str(started), str(go), mutates=True)
    session = int(ssh.run("worker-1", script("echo $PPID")).stdout)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(runner.run, "worker-1", "init", cmd)
        until(started.exists)
        os.kill(session, signal.SIGKILL)
        until(lambda: notes)
        go.touch()
        done = result.result(60)
    assert (done.stdout, done.exit_status) == ("whole\n", 5)
    assert started.read_text() == "started\n"
    assert "out of reach" in notes[0]
