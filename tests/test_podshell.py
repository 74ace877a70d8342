"""A shell that stays open in a pod: many commands over one exec, and what may happen to it."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import websocket
from podkit import Pod

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, CommandError
from kitlib.podshell import IDLE_SECONDS, PodShell

pytestmark = pytest.mark.timeout(60)


class Clock:
    """The monotonic clock, put forward by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def pod() -> Iterator[Pod]:
    with Pod() as pod:
        yield pod


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shell(pod: Pod, clock: Clock) -> Iterator[PodShell]:
    def open_exec(argv: tuple[str, ...]) -> websocket.WebSocket:
        return websocket.create_connection(pod.url(argv))

    with PodShell("node-1", open_exec, clock=clock) as shell:
        yield shell


def named_sleep() -> Cmd:
    """Return a long sleep that no other process on this machine is called like."""
    return Cmd.of("sleep", f"6{secrets.randbelow(10**9):09}")


def running(cmd: Cmd) -> bool:
    return (
        str(cmd)
        in subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    )


def gone(cmd: Cmd) -> bool:
    end = time.monotonic() + 10
    while running(cmd) and time.monotonic() < end:
        time.sleep(0.05)
    return not running(cmd)


def test_many_commands_over_one_exec(shell, pod):
    for number in range(20):
        result = shell.run(Cmd.of("echo", f"it's {number}"))
        assert (result.stdout, result.stderr, result.exit_status) == (f"it's {number}\n", "", 0)
    assert pod.opened == [["sh"]]
    assert result.host == "node-1"
    assert result.command == """echo 'it'"'"'s 19'"""
    assert 0 < result.seconds < 60


@pytest.mark.parametrize(
    ("text", "stdout", "stderr", "status"),
    [
        ("printf 'no line end'", "no line end", "", 0),
        ("printf 'a\\n\\n'; echo b >&2; exit 3", "a\n\n", "b\n", 3),
        ("printf x >&2; false", "", "x", 1),
        ("cat; echo read", "read\n", "", 0),
        ("printf '\\360\\237\\214\\215 \\377'", "\U0001f30d \N{REPLACEMENT CHARACTER}", "", 0),
        ("kill -9 $$", "", "", 137),
        ("echo 'kit-1 0'; echo 'kit-1 0' >&2", "kit-1 0\n", "kit-1 0\n", 0),
    ],
)
def test_what_a_command_said_comes_back_whole(shell, pod, text, stdout, stderr, status):
    result = shell.run(script(text))
    assert (result.stdout, result.exit_status) == (stdout, status)
    assert result.stderr.startswith(stderr), "a shell may say that it was killed"
    assert shell.run(Cmd.of("echo", "next")).stdout == "next\n"
    assert len(pod.opened) == 1


def test_much_output_and_output_in_pieces(shell):
    much = shell.run(Cmd.of(sys.executable, "-c", "print('x' * 1_000_000)"))
    assert len(much.stdout) == 1_000_001
    slow = "import sys, time\nfor c in 'slow':\n print(c, flush=True); time.sleep(0.02)"
    assert shell.run(Cmd.of(sys.executable, "-c", slow)).stdout == "s\nl\no\nw\n"


def test_words_that_would_end_the_shell_end_their_command_alone(shell, pod):
    assert shell.run(Cmd.of("exit", "4")).exit_status == 4
    assert shell.run(Cmd.of("cd", "/")).exit_status == 0
    assert shell.run(Cmd.of("no-such-tool-here")).exit_status == 127
    assert "no-such-tool-here" in shell.run(Cmd.of("no-such-tool-here")).stderr
    assert len(pod.opened) == 1


def test_a_session_that_was_cut_while_idle_is_opened_anew(shell, pod):
    assert shell.run(Cmd.of("echo", "1")).ok
    pod.cut()
    assert shell.run(Cmd.of("echo", "2")).stdout == "2\n"
    assert len(pod.opened) == 2


def test_a_session_that_was_idle_for_long_is_not_trusted(shell, pod, clock):
    assert shell.run(Cmd.of("echo", "1")).ok
    clock.ahead += IDLE_SECONDS - 5
    assert shell.run(Cmd.of("echo", "2")).ok
    assert len(pod.opened) == 1
    clock.ahead += IDLE_SECONDS + 1
    assert shell.run(Cmd.of("echo", "3")).stdout == "3\n"
    assert len(pod.opened) == 2


def test_a_command_whose_session_is_lost_is_begun_once_more(shell, pod, tmp_path):
    sleep = named_sleep()
    pod.cuts = [1, None]  # the first piece is what a shell is begun with
    once = script("mkdir $1 && exec sleep $2; echo again", f"{tmp_path}/x", str(sleep.argv[1]))
    result = shell.run(once)
    assert result.stdout == "again\n"
    assert len(pod.opened) == 2
    assert gone(sleep), "what the lost shell ran was ended by the next one"


def test_a_session_that_is_lost_twice_is_an_error_of_the_api(shell, pod):
    pod.cuts = [1, 1]
    with pytest.raises(ApiError, match="shell in node-1: broke off") as caught:
        shell.run(Cmd.of("sleep", "5"))
    assert caught.value.retryable
    assert len(pod.opened) == 2
    assert shell.run(Cmd.of("echo", "back")).stdout == "back\n"


def test_what_the_api_says_of_a_shell_that_cannot_start_is_told(shell, pod):
    pod.refusal = "container not running (1234)"
    with pytest.raises(ApiError, match=r"broke off: container not running \(1234\)"):
        shell.run(Cmd.of("true"))


def test_a_command_that_does_not_end_is_ended_and_the_shell_goes_on(shell, pod):
    sleep = named_sleep()
    with pytest.raises(CommandError, match="no end in") as caught:
        shell.run(sleep, timeout=0.3)
    assert caught.value.exit_status is None
    assert gone(sleep)
    assert shell.run(Cmd.of("echo", "next")).stdout == "next\n"


def test_closing_ends_a_command_that_is_under_way_in_a_thread(shell, pod):
    errors: list[Exception] = []

    def work() -> None:
        try:
            shell.run(Cmd.of("sleep", "2"))
        except ApiError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not pod.opened:
        time.sleep(0.01)
    time.sleep(0.1)
    shell.close()
    thread.join(1)
    assert not thread.is_alive()
    assert "it was closed" in str(errors[0])
    with pytest.raises(ApiError, match="it was closed"):
        shell.run(Cmd.of("true"))
    assert len(pod.opened) == 1


def test_threads_take_turns(shell, pod):
    said: dict[int, str] = {}

    def work(number: int) -> None:
        said[number] = shell.run(Cmd.of("echo", str(number))).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: f"{number}\n" for number in range(8)}
    assert len(pod.opened) == 1
