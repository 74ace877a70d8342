"""The values between the layers: how they read, and what counts as failed."""

from __future__ import annotations

import pytest

from kitlib.command import Cmd, Secret
from kitlib.model import Change, Check, CommandResult, Status, failed


def result(stdout="", stderr="", exit_status=0):
    return CommandResult("worker-1", "x", stdout, stderr, exit_status)


def test_a_result_is_ok_only_with_exit_status_0():
    assert result().ok
    assert not result(exit_status=1).ok
    assert not result(exit_status=-1).ok


@pytest.mark.parametrize(
    ("stdout", "stderr", "tail"),
    [("out\n", "err\n", "err"), ("out\n", " \n", "out"), ("", "", ""), ("", "1\n2\n3\n", "2\n3")],
)
def test_the_tail_is_of_stderr_or_else_of_stdout(stdout, stderr, tail):
    assert result(stdout, stderr).tail(2) == tail


def test_a_check_has_a_remedy_only_when_it_failed():
    good = Check.that(True, "a.b", "worker-1", "says", got="1", expected="2", remedy="do")
    bad = Check.that(False, "a.b", "worker-1", "says", got="1", expected="2", remedy="do")
    assert (good.status, good.remedy) == (Status.PASS, "")
    assert (bad.status, bad.remedy) == (Status.FAIL, "do")
    assert str(good) == "PASS worker-1: says: 1"
    assert str(bad) == "FAIL worker-1: says: got 1, want 2; do"


def test_a_failure_that_found_nothing_says_so():
    assert str(Check.that(False, "a", "h", "says")) == "FAIL h: says: got nothing"
    assert str(Check("a", "h", Status.SKIP, "says", got="why")) == "SKIP h: says: why"


def test_only_fail_is_failed():
    checks = [Check("a", "h", status, "s") for status in Status]
    assert [check.status for check in failed(checks)] == [Status.FAIL]


def test_a_change_reads_as_one_plan_line_without_secrets():
    assert str(Change("worker-1", "join")) == "worker-1: join"
    shown = str(Change("worker-1", "join", Cmd.change("kubeadm", "join", Secret("abc"))))
    assert shown == "worker-1: join: kubeadm join ***"
