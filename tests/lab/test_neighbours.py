"""Large labs know their neighbours: the kernel's table has no room for all to ask for all."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any

import pytest

from kitlib.lab import neighbours


def peers(count: int) -> dict[str, str]:
    first = IPv4Address("10.77.0.11")
    return {f"worker-{number}": str(first + number) for number in range(count)}


def lines(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    given: list[str] = []

    def run(argv: list[str], *, input: str, **_: Any) -> None:
        assert argv == ["ip", "-batch", "-"]
        given.extend(input.splitlines())

    monkeypatch.setattr(neighbours.subprocess, "run", run)
    neighbours.introduce("10.77.0.11", peers(count))
    return given


def test_every_host_has_a_hardware_address_of_its_own() -> None:
    found = {neighbours.mac(address) for address in peers(50).values()}
    assert len(found) == 50
    for each in found:
        assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", each)
        assert int(each[:2], 16) & 0b11 == 0b10, "one host's, and locally administered"


def test_a_large_lab_is_introduced_each_to_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    said = lines(monkeypatch, 50)
    assert len(said) == 49
    assert not any("10.77.0.11 " in line for line in said), "nobody to itself"
    assert "neighbour replace 10.77.0.12 lladdr 02:4b:0a:4d:00:0c dev eth0 nud permanent" in said


def test_a_small_lab_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, 3) == []
    assert lines(monkeypatch, neighbours.ASKING) == []
    room = 1024 - neighbours.ASKING * (neighbours.ASKING - 1)
    assert room > 10 * neighbours.ASKING, "its pods and bridges ask as well"
