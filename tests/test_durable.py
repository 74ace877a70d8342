"""Changes that outlive their connection, on a real shell behind a real SSH server."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sshkit import Server, known_hosts, ssh_to

from kitlib import detached
from kitlib.command import Cmd, Secret, script
from kitlib.detached import Answer, Job
from kitlib.durable import Durable
from kitlib.errors import CommandError, ConnectError, Interrupted, ParseError

HOST = "worker-1"
TOKEN = Secret("abcdef.0123456789abcdef")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What /run/cluster-network-kit is on a host."""
    return tmp_path / "state"


@pytest.fixture
def doors(server: Server, state: Path, tmp_path: Path) -> Iterator[Callable[..., Durable]]:
    """Makes runners: each with a connection and notes of its own."""
    known = known_hosts(tmp_path / "known_hosts", server)
    opened = []

    def make(**options: object) -> Durable:
        door = ssh_to(server, known, connect_timeout=2)
        opened.append(door)
        settings = {"command_timeout": 60, "patience": 20, "every": 0.05, **options}
        notes: list[str] = []
        made = Durable(door, note=lambda _, text: notes.append(text), state=str(state), **settings)
        made.notes = notes  # type: ignore[attr-defined]
        made.door = door  # type: ignore[attr-defined]
        return made

    yield make
    for door in opened:
        door.close()


def until(true: Callable[[], object]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true")


def alive(file: Path) -> bool:
    """Return whether the process whose number is in the file runs."""
    try:
        os.kill(int(file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def waits_for(go: Path, started: Path) -> Cmd:
    """Return a command that counts its starts and ends when `go` is there."""
    text = 'echo $$ >>"$1"; until [ -e "$2" ]; do sleep 0.02; done; echo done; echo bad >&2; exit 3'
    return script(text, str(started), str(go), mutates=True)


def test_a_command_comes_back_as_it_would_without(doors, state):
    for text, wanted in [
        ("echo out; echo err >&2; exit 7", ("out\n", "err\n", 7)),
        ("printf 'no newline'; printf 'nor here' >&2", ("no newline", "nor here", 0)),
        ("true", ("", "", 0)),
        ("cat; umask", ("0022\n", "", 0)),
        ("kill -9 $$", ("", "Killed\n", 137)),
    ]:
        os.umask(0o022)
        result = doors().run(HOST, "init", script(text, mutates=True))
        assert (result.stdout, result.stderr, result.exit_status) == wanted
        assert result.command == str(script(text))
    assert list((state / "jobs").iterdir()) == []
    assert state.stat().st_mode & 0o777 == 0o700


def test_large_output_and_settings_and_quotes(doors):
    result = doors().run(HOST, "x", script("seq 1 60000; seq 1 60000 >&2", mutates=True))
    assert len(result.stdout.splitlines()) == len(result.stderr.splitlines()) == 60000
    cmd = Cmd.change("sh", "-c", 'echo "$A|$1"', "sh", "it's $HOME", env={"A": Secret("b c")})
    assert doors().run(HOST, "x", cmd).stdout == "b c|it's $HOME\n"


def test_a_lost_connection_is_opened_again_and_the_command_runs_once(doors, server, tmp_path):
    go, started = tmp_path / "go", tmp_path / "started"
    runner = doors()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(runner.run, HOST, "init", waits_for(go, started))
        until(started.exists)
        server.drop()
        until(lambda: any("out of reach" in note for note in runner.notes))
        server.drop()
        go.touch()
        done = result.result()
    assert (done.stdout, done.stderr, done.exit_status) == ("done\n", "bad\n", 3)
    assert len(started.read_text().split()) == 1


def test_a_connection_lost_before_the_command_began_begins_it(doors, server, tmp_path):
    """As when the channel dies under way: the host knows nothing of the job."""
    runner = doors()
    real, calls = runner.door.run, []

    def fails_once(name: str, cmd: Cmd):
        calls.append(cmd)
        if len(calls) == 1:
            raise ConnectError("worker-1: the connection was lost")
        return real(name, cmd)

    runner.door.run = fails_once
    assert runner.run(HOST, "init", script("echo here", mutates=True)).stdout == "here\n"


def test_a_host_that_restarted_is_told(doors):
    runner = doors()
    real, calls = runner.door.run, []

    def restarted(name: str, cmd: Cmd):
        calls.append(cmd)
        if len(calls) == 1:
            raise ConnectError("worker-1: the connection was lost")
        result = real(name, script("printf '\\n@@ kit gone 0\\n' >&2"))
        threading.Event().wait(0.05)
        return result

    runner.door.run = restarted
    with pytest.raises(ConnectError, match="restarted during: do it"):
        runner.run(HOST, "init", Cmd.change("do", "it"))


def test_a_host_that_stays_away_ends_the_wait(doors, server, tmp_path):
    go, started = tmp_path / "go", tmp_path / "started"
    runner = doors(patience=0.3)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(runner.run, HOST, "init", waits_for(go, started))
        until(started.exists)
        runner.door.close()
        with pytest.raises(ConnectError) as failure:
            result.result()
    assert "flock" not in str(failure.value)
    assert alive(started)
    go.touch()


def test_the_next_run_waits_for_what_a_dead_runner_left(doors, tmp_path, state):
    go, started = tmp_path / "go", tmp_path / "started"
    first = doors(patience=0)
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(first.run, HOST, "init", waits_for(go, started))
        until(started.exists)
        first.door.close()
        with pytest.raises(ConnectError):
            lost.result()
        second = doors()
        settled = pool.submit(second.settle, HOST)
        until(lambda: any("still runs there" in note for note in second.notes))
        assert not settled.done()
        go.touch()
        [(left, answer)] = settled.result()
    assert left.exit_status is None
    assert (answer.exit_status, answer.stdout) == (3, "done\n")
    assert len(started.read_text().split()) == 1
    assert second.settle(HOST) == []
    assert list((state / "jobs").iterdir()) == []


def test_the_same_command_finds_the_one_that_runs(doors, tmp_path):
    go, started = tmp_path / "go", tmp_path / "started"
    first, second = doors(patience=0), doors()
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(first.run, HOST, "init", waits_for(go, started))
        until(started.exists)
        first.door.close()
        with pytest.raises(ConnectError):
            lost.result()
        again = pool.submit(second.run, HOST, "init", waits_for(go, started))
        threading.Event().wait(0.2)
        go.touch()
        assert again.result().exit_status == 3
    assert len(started.read_text().split()) == 1
    assert any("had been started before" in note for note in second.notes)


def test_a_finished_result_of_another_start_is_not_taken_for_this_ones(doors, state):
    """A dead runner's command ended; whoever starts it again wants it done now."""
    cmd = script("echo again", mutates=True)
    job = Job.of("init", HOST, cmd, state=str(state))
    runner = doors()
    runner.door.run(HOST, detached.start(job, script("echo old"), attempt="a", limit=5))
    assert runner.run(HOST, "init", cmd).stdout == "again\n"
    runner.door.run(HOST, detached.start(job, script("echo old; exit 4"), attempt="a", limit=5))
    [(left, answer)] = runner.settle(HOST)
    assert (left.exit_status, answer.exit_status, answer.stdout) == (4, 4, "old\n")


def test_the_result_of_the_same_start_is_fetched_and_it_is_not_begun_again(doors, state, tmp_path):
    counts = tmp_path / "counts"
    cmd = script('echo x >>"$1"; echo done', str(counts), mutates=True)
    job = Job.of("init", HOST, cmd, state=str(state))
    runner = doors()
    for _ in range(2):
        got = runner.door.run(HOST, detached.start(job, cmd, attempt="same", limit=5))
        assert detached.parse(got.stdout, got.stderr).stdout == "done\n"
    assert counts.read_text() == "x\n"


def test_a_command_over_its_time_is_ended_on_the_host(doors, tmp_path, state):
    file = tmp_path / "pid"
    text = 'trap "" TERM; echo $$ >"$1"; while :; do sleep 0.1; done'
    slow = script(text, str(file), mutates=True, timeout=1)
    with pytest.raises(CommandError, match="no end within 1 s"):
        doors().run(HOST, "init", slow)
    until(lambda: not alive(file))
    assert list((state / "jobs").iterdir()) == []


def test_an_interrupt_ends_what_runs_and_lets_nothing_new_begin_but_the_clean_up(doors, tmp_path):
    go, started = tmp_path / "never", tmp_path / "started"
    runner = doors()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(runner.run, HOST, "init", waits_for(go, started))
        until(started.exists)
        until(started.read_text)
        runner.end_all()
        with pytest.raises(Interrupted):
            result.result()
        until(lambda: not alive(started))
        with pytest.raises(Interrupted):
            pool.submit(runner.run, HOST, "init", Cmd.change("true")).result()
        assert runner.run(HOST, "init", Cmd.change("true")).ok
        runner.resume()
        assert pool.submit(runner.run, HOST, "init", Cmd.change("true")).result().ok


def test_a_daemon_that_the_command_starts_is_not_waited_for(doors, tmp_path):
    file = tmp_path / "pid"
    text = 'setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! >"$1"'
    assert doors().run(HOST, "init", script(text, str(file), mutates=True)).ok
    os.kill(int(file.read_text()), signal.SIGKILL)


def test_a_secret_is_in_no_file_of_the_host(doors, state, tmp_path):
    go, started = tmp_path / "go", tmp_path / "started"
    cmd = waits_for(go, started)
    cmd = Cmd((*cmd.argv, TOKEN), env={"T": TOKEN}, mutates=True)
    runner = doors()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(runner.run, HOST, "join", cmd)
        until(started.exists)
        kept = [path.read_text() for path in state.rglob("*") if path.is_file()]
        assert any("***" in text for text in kept)
        assert not any(TOKEN.value in text for text in kept)
        go.touch()
        assert TOKEN.value not in repr(result.result())


class TestJob:
    def test_it_is_named_by_what_the_command_means(self):
        def join(token: str, host: str = HOST, stage: str = "join") -> str:
            return Job.of(stage, host, Cmd.change("kubeadm", "join", "--token", Secret(token))).id

        assert join("one") == join("two") != join("one", "worker-2")
        assert join("one") != join("one", stage="init")

    def test_answers(self):
        assert detached.parse("o", "e\n@@ kit ended started 0\n") == Answer(
            "ended", 0, False, "o", "e"
        )
        assert detached.parse("", "\n@@ kit running found\n") == Answer("running", found=True)
        assert detached.parse("", "\n@@ kit gone 12\n") == Answer("gone", uptime=12)
        for text in ("", "sh: 3: flock: not found\n", "@@ kit ended started\n"):
            with pytest.raises(ParseError):
                detached.parse("", text)

    def test_listing(self):
        [left] = detached.parse_jobs("ab12 running 7 600 kubeadm init --config x\n")
        assert (left.exit_status, left.age, left.limit) == (None, 7, 600)
        assert left.command == "kubeadm init --config x"
        with pytest.raises(ParseError):
            detached.parse_jobs("nonsense\n")
