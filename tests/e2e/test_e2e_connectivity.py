"""What works between the nodes of a lab: a healthy one has no finding, a broken one exactly one."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit_help import Kit, lab_kit
from lab_help import HOSTS

from kitlib.connectivity import measure_connectivity
from kitlib.diagnosis import connected, summary
from kitlib.lab import verbs
from kitlib.measure import measure_latency
from kitlib.model import Check, Status, Verdict
from kitlib.runs import Run, load_run
from kitlib.samples import read_samples

# A healthy lab's connectivity is part of what `kit diagnose` does in test_e2e_diagnose.
pytestmark = [
    pytest.mark.lab, pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(300),
]  # fmt: skip

CONTROL_PLANE, WORKER, _ = HOSTS


def probed(kit: Kit, *, latency: bool = False) -> tuple[Run, list[Check]]:
    """Return the run, and what failed or stands out."""
    checks: list[Check] = []
    with kit.session() as session:
        if latency:
            checks += measure_latency(session, 1).checks
        measure_connectivity(session, 1)
        session.finish(Verdict.PASS)
        run = load_run(session.journal.path)
    checks += connected.connectivity_checks(run)
    checks += summary.latency_checks(run) if latency else []
    return run, [check for check in checks if check.status in (Status.FAIL, Status.WARN)]


@pytest.fixture
def whole(kit: Kit) -> Kit:
    kit.stand("join")
    return kit.with_params("connectivity", diagnose={"external_name": "kubernetes.io"})


def test_a_closed_port_is_found_and_mended(whole: Kit) -> None:
    verbs.break_(whole.state_dir, "tunnel-closed", WORKER)
    _, (check,) = probed(whole)
    assert (check.id, check.target) == ("connectivity.tunnel", WORKER), check
    assert "UDP port 8472" in check.got
    assert "flannel.1" in check.remedy
    verbs.heal(whole.state_dir)
    run, bad = probed(whole)
    assert bad == []
    table = connected.connectivity_table(run)
    assert set(table["state"]) == {"works"}
    assert len(table) == 6 + 2 * 3
    for probe in (
        "reach", "routes", "mtu", "tcp_connect", "tcp_rr", "http", "http_service",
        "dns_cluster_udp", "dns_cluster_tcp", "dns_external",
    ):  # fmt: skip
        assert len(read_samples(run, probe)), probe
    sizes = connected.mtu_table(run).set_index("path")
    assert set(sizes.loc["pod", "passes_bytes"]) == {1450}
    assert set(sizes.loc["host", "passes_bytes"]) == {1500}
    assert not [name for name in whole.namespaces() if "kit-diagnose" in name]


@pytest.mark.parametrize(
    ("fault", "host", "wanted"),
    [
        ("mtu-blackhole", WORKER, "connectivity.mtu"),
        ("route-missing", WORKER, "connectivity.route"),
        ("dns-broken", CONTROL_PLANE, "connectivity.dns"),
        ("slow-node", WORKER, "latency.node"),
    ],
)
def test_a_fault_is_found_and_nothing_else(whole: Kit, fault: str, host: str, wanted: str) -> None:
    verbs.break_(whole.state_dir, fault, host)
    _, bad = probed(whole, latency=True)
    assert [(check.id, check.target) for check in bad] == [(wanted, host)], bad


def test_throughput_is_measured_where_it_is_asked_for(whole: Kit) -> None:
    loud = whole.with_params("loud", diagnose={"throughput": True, "throughput_seconds": 1})
    run, bad = probed(loud)
    assert bad == []
    table = read_samples(run, "throughput")
    if not len(table):
        pytest.skip("this machine has no iperf3")
    assert len(table) == 2 * 6
    assert (table["bits_per_second"] > 1e6).all()


@pytest.mark.parametrize("plugin", ["calico", "cilium", "kube-router"])
def test_policies_are_honoured_where_the_plugin_has_them(tmp_path: Path, plugin: str) -> None:
    with lab_kit(tmp_path, plugin=plugin) as kit:
        kit.stand("join")
        run, bad = probed(kit)
        assert bad == []
        table = read_samples(run, "policy")
        assert len(table) == 3 * 6
        assert (table["expected"] == table["reached"]).all()
