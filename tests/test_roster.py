"""`kit hosts`: one row a host, whatever state the host is in."""

from __future__ import annotations

import factory

from kitlib.errors import ConnectError
from kitlib.inventory import Host, Role
from kitlib.roster import COLUMNS, row_of


def cells(facts=None, error=None, **host) -> dict[str, str]:
    entry = Host("worker-1", **{"address": "192.0.2.7", **host})
    row = row_of(entry, facts, error)
    assert len(row) == len(COLUMNS)
    return dict(zip(COLUMNS, row, strict=True))


def test_a_host_of_a_cluster():
    row = cells(factory.host_facts(kubeadm="worker"), port=2222)
    assert row["address"] == "192.0.2.7:2222"
    assert row["role"] == "worker"
    assert row["OS"].startswith("Debian")
    assert row["memory"].endswith(" GiB")
    assert int(row["CPUs"]) > 0
    assert row["runtime"].startswith("containerd")
    assert row["kubelet"].startswith("1.")
    assert row["cluster"].startswith("at https://")
    assert row["CA hash"].startswith("sha256:")
    assert len(row["CA hash"]) == 71
    assert row["state"] == "reachable"


def test_a_host_of_none():
    row = cells(factory.host_facts())
    assert (row["cluster"], row["CA hash"]) == ("none", "")
    assert row["address"] == "192.0.2.7", "the port is SSH's"
    half = cells(factory.host_facts(kubeadm="init-killed"))
    assert half["cluster"] != "none"


def test_a_bare_host():
    sections = {"packages": "", "runtime.unit": "inactive\n", "host.uid": "1000\n"}
    row = cells(factory.host_facts(sections=sections))
    assert (row["runtime"], row["kubelet"]) == ("none", "none")
    assert row["state"] == "reachable, not root"


def test_a_host_that_cannot_be_read_says_why():
    error = ConnectError("worker-1 (root@[fd00::7]:22): cannot connect: refused", remedy="look")
    row = cells(error=error, address="fd00::7", port=22, role=Role.CONTROL_PLANE)
    assert row["address"] == "[fd00::7]:22"
    assert row["role"] == "control_plane"
    assert row["state"] == error.message
    assert row["OS"] == row["cluster"] == ""
