"""Three control planes: built, one of them killed, the API still answers, and it is taken back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit_help import Kit, lab_kit, told
from lab_help import until

from kitlib.lab import verbs
from kitlib.stages import etcd, observe

pytestmark = [pytest.mark.lab, pytest.mark.thorough, pytest.mark.timeout(600)]

PLANES = ("control-plane-1", "control-plane-2", "control-plane-3")
HOSTS = (*PLANES, "worker-1")


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    home = tmp_path_factory.mktemp("planes")
    with lab_kit(home, HOSTS, 0.05, control_plane_endpoint="10.77.0.1:6443") as kit:
        yield kit


def kubectl(kit: Kit, host: str, words: str) -> str:
    return kit.on(host, f"kubectl --kubeconfig /etc/kubernetes/admin.conf {words}")


def ready(kit: Kit, host: str) -> set[str]:
    rows = kubectl(kit, host, "get nodes --no-headers").splitlines()
    return {row.split()[0] for row in rows if row.split()[1] == "Ready"}


def test_three_are_built_one_is_killed_and_taken_back(
    planes: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = planes
    monkeypatch.setattr(observe, "STEADY_SECONDS", 0.5)
    kit.stand("network")
    joined = kit.stage("join").passed()
    joins = [host for host, what in told(joined.run_dir, "change") if what.startswith("join ")]
    assert joins == [*PLANES[1:], "worker-1"], "one after another, before the worker"
    until(lambda: ready(kit, PLANES[0]) == set(HOSTS), 60)
    pods = kubectl(kit, PLANES[2], "-n kube-system get pods -l tier=control-plane -o name")
    for component in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        for plane in PLANES:
            assert f"pod/{component}-{plane}\n" in f"{pods}\n"
    certs = kubectl(kit, PLANES[0], "-n kube-system get secrets -o name")
    assert "kubeadm-certs" not in certs, "shared for the time of the joins only"
    for plane in PLANES:
        assert "join.yaml" not in kit.on(plane, "ls -A /etc/kubekit")
        assert "upload-certs" not in kit.on(plane, "ls -A /etc/kubekit")

    verbs.break_(kit.state_dir, "host-down", PLANES[0])
    until(lambda: "control-plane-1" not in ready_or_empty(kit, PLANES[1]) != set(), 90)
    kit.stage("verify").failed(4, "control-plane-1 .*cannot connect")
    kubectl(kit, PLANES[2], "create configmap written-without-it --from-literal=a=b")
    with kit.session() as session:
        assert session.kube(wait=30).find(
            "/api/v1/namespaces/default/configmaps/written-without-it"
        )
        assert session.context.administrator.name == "control-plane-2"

    verbs.heal(kit.state_dir, "host-down")
    until(lambda: ready_or_empty(kit, PLANES[0]) == set(HOSTS), 90)
    assert "written-without-it" in kubectl(kit, PLANES[0], "get configmaps -o name")
    again = kit.stage("join").passed()
    assert told(again.run_dir, "change") == []

    # The first one leaves: it is drained, reset, out of etcd, and forgotten; then it comes back.
    left = kit.call("remove", "{params}", "--host", PLANES[0]).passed()
    whats = [what.partition(":")[0] for _, what in told(left.run_dir, "change")]
    assert whats[0] == f"cordon {PLANES[0]}"
    assert whats.index("reset kubeadm") < whats.index("delete its Node") == len(whats) - 1
    with kit.session() as session:
        members = etcd.members(session.kube(wait=30))
        assert sorted((m.name, m.healthy) for m in members) == [(n, True) for n in PLANES[1:]]
    rest = ("--host", PLANES[1], "--host", PLANES[2])
    kit.call("remove", "{params}", *rest).failed(3, "control-plane-3: not removed: it is the last")
    back = kit.call("join", "{params}", "--host", PLANES[0]).passed()
    joins = [host for host, what in told(back.run_dir, "change") if what.startswith("join ")]
    assert joins == [PLANES[0]]


def ready_or_empty(kit: Kit, host: str) -> set[str]:
    """Return the Ready nodes; none while the API changes hands."""
    try:
        return ready(kit, host)
    except AssertionError:
        return set()
