"""Several commands as one, run by the machine's own shell."""

from __future__ import annotations

import subprocess

import pytest

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import batch


def run(*cmds: Cmd, at_a_time: int = 1) -> list[batch.Said]:
    whole = batch.command(cmds, at_a_time=at_a_time)
    done = subprocess.run(
        [str(bit) for bit in whole.argv], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return batch.parse(done.stdout, count=len(cmds))


def test_each_says_its_own_and_how_it_ended() -> None:
    told = run(Cmd.of("echo", "it's", "$HOME"), script("echo sorry >&2; exit 3"), Cmd.of("true"))
    assert told == [batch.Said("it's $HOME", 0), batch.Said("sorry", 3), batch.Said("", 0)]


def test_much_that_is_said_side_by_side_does_not_mix() -> None:
    loud = [script('seq -f "$1 %g" 1 4000', name) for name in "abcd"]
    told = run(*loud, at_a_time=4)
    for name, said in zip("abcd", told, strict=True):
        assert said.text.splitlines() == [f"{name} {n}" for n in range(1, 4001)]


def test_what_takes_longest_ends_last_and_stands_first() -> None:
    assert [
        each.text for each in run(script("sleep 0.2; echo a"), Cmd.of("echo", "b"), at_a_time=2)
    ] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "sh: not found\n", "~~ 1 0\nhalf\n", "~~ 2 0\nx\n~~end\n"])
def test_a_text_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        batch.parse(text, count=1)


def test_the_time_is_that_of_the_batches() -> None:
    cmds = [Cmd.of("true", timeout=7)] * 5
    assert batch.command(cmds, at_a_time=2).timeout == 3 * 7 + 10
