"""Waiting: a wait that runs out is a failure that says what it waited for. No test really waits."""

from __future__ import annotations

import pytest

from kitlib.errors import ConnectError, DeadlineError, HostKeyError, ParamsError
from kitlib.retry import Deadline, retry_transient, until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def deadline(clock: Clock, seconds: float = 5) -> Deadline:
    return Deadline(seconds, "the node", clock=clock, sleep=clock.sleep)


def test_left_counts_down_and_never_below_zero(clock):
    wait = deadline(clock)
    assert wait.left == 5
    clock.now += 2
    assert wait.left == 3
    clock.now += 9
    assert wait.left == 0


def test_until_returns_the_first_value_even_a_false_one(clock):
    values = iter([None, None, 0])
    assert until(lambda: next(values), deadline(clock)) == 0
    assert clock.slept == [1, 1]


def test_until_asks_at_once(clock):
    assert until(lambda: "x", deadline(clock, 0)) == "x"
    assert clock.slept == []


def test_a_wait_that_runs_out_says_what_for_how_long_and_what_was_seen(clock):
    with pytest.raises(DeadlineError) as caught:
        until(lambda: None, deadline(clock), every=2, got=lambda: "NotReady", remedy="look")
    assert str(caught.value) == ("the node: not within 5 s; last seen: NotReady\n  remedy: look")
    assert clock.slept == [2, 2], "what is left is too short for another try"


def test_a_transient_error_is_tried_again_with_growing_pauses(clock):
    tries = []

    def attempt() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise ConnectError("no")
        return "yes"

    assert retry_transient(attempt, attempts=4, sleep=clock.sleep) == "yes"
    assert clock.slept == [1, 2, 4]


@pytest.mark.parametrize("error", [HostKeyError("changed"), ParamsError("wrong")])
def test_a_permanent_error_is_raised_at_once(clock, error):
    def attempt() -> None:
        raise error

    with pytest.raises(type(error)):
        retry_transient(attempt, sleep=clock.sleep)
    assert clock.slept == []


def test_the_last_error_is_raised_when_every_attempt_failed(clock):
    def attempt() -> None:
        raise ConnectError(f"at {clock.now:g}")

    with pytest.raises(ConnectError, match="at 103"):
        retry_transient(attempt, attempts=3, sleep=clock.sleep)
