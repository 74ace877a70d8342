"""Hosts are found by name and by role, and a wrong name is answered with the right ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib.errors import ParamsError
from kitlib.inventory import Inventory, Role
from kitlib.params import load

LAB = Path(__file__).parents[1] / "params/lab.yaml"


@pytest.fixture
def inventory() -> Inventory:
    return Inventory.from_params(load(LAB))


def test_select_by_role(inventory: Inventory) -> None:
    assert [str(host) for host in inventory.select(role=Role.CONTROL_PLANE)] == ["control-plane-1"]
    assert [host.name for host in inventory.select(role="worker")] == ["worker-1", "worker-2"]
    assert inventory.select() == tuple(inventory)
    assert len(inventory) == 3


def test_select_by_name_keeps_the_order(inventory: Inventory) -> None:
    chosen = inventory.select(names=["worker-2", "control-plane-1"])
    assert [host.name for host in chosen] == ["control-plane-1", "worker-2"]
    assert inventory.select(role="worker", names=["control-plane-1"]) == ()


def test_wrong_name(inventory: Inventory) -> None:
    with pytest.raises(ParamsError, match=r"known are .*worker-2; did you mean 'worker-1'"):
        inventory.by_name("worker1")
    with pytest.raises(ParamsError, match="unknown host 'zz'"):
        inventory.select(names=["zz"])


def test_wrong_role(inventory: Inventory) -> None:
    with pytest.raises(ParamsError, match="unknown role 'master', known are control_plane, worker"):
        inventory.select(role="master")


def test_hosts_can_be_keys(inventory: Inventory) -> None:
    assert len(dict.fromkeys(inventory, 1)) == 3
