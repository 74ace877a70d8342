"""The same work on many hosts: bounded, in order, none lost, interruptible."""

from __future__ import annotations

import threading

import pytest

from kitlib.fanout import fan_out


def test_every_item_has_an_outcome_in_the_order_given():
    def work(item: int) -> int:
        if item % 3 == 0:
            raise ValueError(item)
        return item * 10

    fanned = fan_out(work, [5, 3, 4, 0, 1])
    assert list(fanned.values.items()) == [(5, 50), (4, 40), (1, 10)]
    assert list(fanned.errors) == [3, 0]
    with pytest.raises(ValueError, match=r"^3$"):
        fanned.raise_first()


def test_without_errors_the_values_come_back():
    assert fan_out(str, [1, 2]).raise_first() == {1: "1", 2: "2"}
    assert fan_out(str, []).raise_first() == {}


def test_items_run_side_by_side():
    together = threading.Barrier(4, timeout=10)
    assert not fan_out(lambda _: together.wait(), range(4)).errors


def test_never_more_than_the_bound_at_a_time():
    lock, now, most = threading.Lock(), 0, 0
    pair = threading.Barrier(2, timeout=10)

    def work(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        pair.wait()
        with lock:
            now -= 1

    assert not fan_out(work, range(8), workers=2).errors
    assert most == 2


def test_an_interrupt_ends_it_at_once_and_starts_nothing_more():
    blocked, started = threading.Event(), []

    def work(item: int) -> None:
        started.append(item)
        if item == 0:
            raise KeyboardInterrupt
        blocked.wait(10)

    try:
        with pytest.raises(KeyboardInterrupt):
            fan_out(work, range(100), workers=2)
    finally:
        blocked.set()
    assert len(started) < 100
