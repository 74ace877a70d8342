"""Commands: quoting that survives a shell, secrets that never show."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess

import pytest

from kitlib.command import MASK, Cmd, Secret, script
from kitlib.masking import mask_text

NASTY = [
    "plain",
    "two words",
    "a'b",
    'a"b',
    "$HOME",
    "`id`",
    "a;b",
    "*",
    "",
    "\\",
    "new\nline",
    "é",
]


def test_every_argument_arrives_as_it_is():
    cmd = Cmd.of("printf", r"%s\0", *NASTY)
    done = subprocess.run(cmd.render(), shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == NASTY


def test_the_environment_is_set_for_the_command_alone_and_quoted():
    cmd = Cmd.change("sh", "-c", 'printf %s "$A|$B"', env={"B": "x y", "A": "it's"})
    done = subprocess.run(cmd.render(), shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "it's|x y"
    assert str(cmd).startswith("env A=")


def test_a_secret_runs_in_clear_and_shows_masked():
    cmd = Cmd.change("kubeadm", "join", "--token", Secret("s3 cret"), env={"T": Secret("t0p")})
    assert "'s3 cret'" in cmd.render()
    assert "T=t0p" in cmd.render()
    for shown in (str(cmd), repr(cmd), str(cmd.argv), f"{cmd.argv[3]}", repr(Secret("x9"))):
        assert "s3 cret" not in shown
        assert "t0p" not in shown
        assert "x9" not in shown
        assert MASK in shown
    assert mask_text("it said s3 cret") == f"it said {MASK}"


def test_an_empty_secret_is_not_a_text_to_mask():
    assert str(Secret("")) == MASK
    assert mask_text("a b") == "a b"


def test_only_change_and_marked_scripts_mutate():
    assert not Cmd.of("cat", "x").mutates
    assert Cmd.change("rm", "x").mutates
    assert not script("cat x").mutates
    assert script("rm x", mutates=True).mutates


def test_a_script_takes_values_as_arguments_never_as_text():
    cmd = script('printf %s "$1-$2"', "a; echo no", "$(id)")
    done = subprocess.run(cmd.render(), shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "a; echo no-$(id)"
    assert shlex.split(script("true").render()) == ["sh", "-c", "true"]


def test_a_command_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Cmd.of("x").timeout = 3  # type: ignore[misc]
    assert Cmd.of("x", timeout=3) == Cmd(("x",), timeout=3)
