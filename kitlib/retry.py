"""Waiting with a deadline: a wait that runs out is a failure that says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from kitlib.errors import DeadlineError, KitError

__all__ = ["Deadline", "retry_transient", "until"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, with what is waited for.

    Args:
        seconds: How long from now.
        what: What is waited for, for the message when it does not come.
        clock: The monotonic clock; a test passes its own.
        sleep: The matching sleep.
    """

    seconds: float
    what: str
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    end: float = field(init=False)

    def __post_init__(self) -> None:
        """Fix the end on the clock."""
        object.__setattr__(self, "end", self.clock() + self.seconds)

    @property
    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.end - self.clock())

    def pause(self, seconds: float, *, got: str = "", remedy: str = "") -> None:
        """Sleep `seconds`, or raise DeadlineError when less than that is left."""
        if self.left < seconds:
            state = f"; last seen: {got}" if got else ""
            raise DeadlineError(f"{self.what}: not within {self.seconds:g} s{state}", remedy=remedy)
        self.sleep(seconds)


def until(
    probe: Callable[[], T | None],
    deadline: Deadline,
    *,
    every: float = 1.0,
    got: Callable[[], str] = lambda: "",
    remedy: str = "",
) -> T:
    """Return the first value of `probe` that is not None.

    Args:
        probe: Called at once and then every `every` seconds.
        deadline: When to give up.
        every: Seconds between two calls.
        got: What was seen last, for the message.
        remedy: What to do when it does not come, for the message.

    Raises:
        DeadlineError: `probe` returned None until the deadline.
    """
    while (value := probe()) is None:
        deadline.pause(every, got=got(), remedy=remedy)
    return value


def retry_transient(
    attempt: Callable[[], T],
    *,
    attempts: int = 3,
    wait: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return `attempt()`, tried again only after errors that are marked transient.

    Args:
        attempt: The call.
        attempts: How often at most.
        wait: Seconds before the second try, doubled each time.
        sleep: How to wait; a test passes its own.

    Raises:
        KitError: The last error, when every attempt failed or one was permanent.
    """
    for number in range(1, attempts + 1):
        try:
            return attempt()
        except KitError as error:
            if not error.transient or number == attempts:
                raise
            sleep(wait * 2 ** (number - 1))
    raise AssertionError("attempts must be at least 1")
