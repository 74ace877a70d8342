"""The same door against OpenSSH's own server, where it is installed and this user may run it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from lab_help import until
from opensshkit import NEEDS_SSHD, Sshd, relay, start_inner, start_sshd
from sshkit import Door, echo_server, host_line, write_key

from kitlib.command import Cmd, Secret, script
from kitlib.dial import Dialler
from kitlib.durable import Durable
from kitlib.errors import ConnectError, HostKeyError, HostLoginError
from kitlib.hostkeys import fetch_host_key, remember, rounds
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


def test_a_slow_link_is_only_slow(sshd, known, tmp_path):
    """Everything works over a link that holds each piece; the times show that it was used."""
    delay = 0.05
    path = tmp_path / "file"
    with relay(sshd.port, delay) as link:
        known.write_text(replace(sshd, port=link.port).line)
        with (
            door(replace(sshd, port=link.port), known) as ssh,
            echo_server() as port,
            ssh.forward("worker-1", "127.0.0.1", port) as here,
            socket.create_connection(("127.0.0.1", here), timeout=60) as client,
        ):
            result = ssh.run("worker-1", script("seq 1 50000"))
            assert len(result.stdout.splitlines()) == 50000
            assert result.seconds >= 2 * delay
            ssh.put("worker-1", "x" * 300_000, str(path))
            assert path.stat().st_size == 300_000
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"


def test_a_link_cut_in_mid_command_is_an_error_and_the_next_command_works(sshd, known, tmp_path):
    started = tmp_path / "started"
    with relay(sshd.port) as link:
        known.write_text(replace(sshd, port=link.port).line)
        with door(replace(sshd, port=link.port), known) as ssh:
            cutter = threading.Thread(target=lambda: (wait_for(started), link.cut()))
            cutter.start()
            with pytest.raises(ConnectError, match="the connection was lost during"):
                ssh.run("worker-1", script('touch "$1"; exec sleep 60', str(started)))
            cutter.join(60)
            assert ssh.run("worker-1", Cmd.of("echo", "back")).stdout == "back\n"


def wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)


def test_a_host_that_only_its_jump_host_reaches(tmp_path):
    """The host is in a network namespace; what is outside has no way to it but the jump."""
    known = tmp_path / "known"
    with start_inner() as (jump, inner):
        config = tmp_path / "config"
        config.write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {jump.port}\n  User root\n"
            f"  IdentityFile {jump.identity}\n"
            f"Host far\n  HostName 127.0.0.1\n  Port {inner.port}\n  ProxyJump jump\n"
            f"  IdentityFile {inner.identity}\n"
        )
        target = Door("worker-1", 0, None, address="far", user="")
        straight = Door("worker-1", inner.port, inner.identity)
        with pytest.raises(ConnectError):
            fetch_host_key(straight)
        shown = []
        for each in rounds([target], Dialler(known, config)):
            shown.append([(found.name, found.state) for found in each.found])
            remember(known, each.fresh)
        assert shown == [[("jump host jump", "new")], [("worker-1", "new")]]
        assert known.read_text() == jump.line + inner.line
        with Ssh({"worker-1": target}, known_hosts=known, config=config) as ssh:
            (link,) = ssh.run("worker-1", Cmd.of("ip", "-o", "link")).stdout.splitlines()
            assert " lo: " in link, "it is in the namespace"
            path = tmp_path / "file"
            ssh.put("worker-1", "far\n", str(path))
            assert path.read_text() == "far\n"
        known.write_text(jump.line + replace(inner, host_key=jump.host_key).line)
        with (
            Ssh({"worker-1": target}, known_hosts=known, config=config) as ssh,
            pytest.raises(HostKeyError, match="has changed"),
        ):
            ssh.run("worker-1", Cmd.of("true"))


SILENCE = """
import sys, threading, time
from opensshkit import start_sshd
from sshkit import Door
from kitlib.command import script
from kitlib.errors import ConnectError
from kitlib.ssh import Ssh
from pathlib import Path
import subprocess
known, started = Path(sys.argv[1]), Path(sys.argv[2])
with start_sshd() as sshd:
    known.write_text(sshd.line)
    def silence():
        while not started.exists():
            time.sleep(0.01)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    threading.Thread(target=silence, daemon=True).start()
    door = Door("worker-1", sshd.port, sshd.identity)
    with Ssh({"worker-1": door}, known_hosts=known, keepalive=0.2, command_timeout=300) as ssh:
        try:
            ssh.run("worker-1", script('touch "$1"; sleep 30 & wait', str(started)))
        except ConnectError as error:
            print(error.message)
"""


def test_a_host_that_falls_silent_is_noticed_by_the_signs_of_life(tmp_path):
    """No packet says that the link is gone; without them the command's 300 s would pass."""
    where = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [
            *(
                "unshare",
                "--net",
                "--pid",
                "--kill-child",
                "--fork",
                "sh",
                "-c",
                'ip link set lo up && exec "$@"',
                "sh",
            ),
            *(sys.executable, "-c", SILENCE, str(tmp_path / "known"), str(tmp_path / "started")),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(where)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "the connection was lost during" in done.stdout, done.stdout + done.stderr
