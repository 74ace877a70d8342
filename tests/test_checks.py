"""Each check passes on what is good, fails on what it is for, and then says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factory import case, host_facts

from kitlib import checks
from kitlib.checks.reachability import Heard
from kitlib.facts import HostFacts
from kitlib.facts.reach import Answer
from kitlib.model import Check, Status
from kitlib.params import Params, load
from kitlib.plugins import Plugin, get

FLANNEL, CALICO, KUBE_ROUTER = get("flannel"), get("calico"), get("kube-router")
NAMES = ("control-plane-1", "worker-1", "worker-2")


@pytest.fixture
def params() -> Params:
    return load(Path(__file__).parents[1] / "params/lab.yaml")


def links_of(address: str, mac: str) -> str:
    text = case("links", "worker")["stdout"].split("\n", 1)[1].rsplit("\n", 2)[0]
    return text.replace("10.77.0.12", address).replace("ca:2d:41:22:c8:80", mac)


def healthy(**changes: dict[str, str]) -> dict[str, HostFacts]:
    """Return three good hosts; `changes` are subject cases by host name with _ for -."""
    return {
        name: host_facts(
            name,
            at=(1795370798.9, 1795370799.1),
            sections={"links": links_of(f"10.77.0.1{number}", f"02:00:00:00:00:0{number}")},
            **changes.get(name.replace("-", "_"), {}),
        )
        for number, name in enumerate(NAMES, start=1)
    }


def everyone_answers() -> dict[str, dict[str, Answer]]:
    addresses = [f"10.77.0.1{number}" for number in (1, 2, 3)]
    return {name: dict.fromkeys(addresses, Answer.PING) for name in NAMES}


def by(found: list[Check], id: str, target: str | None = None) -> Check:
    hits = [each for each in found if each.id == id and target in (None, each.target)]
    assert hits, f"no check {id} {target}: {sorted({each.id for each in found})}"
    return hits[0]


def bad(found: list[Check]) -> dict[tuple[str, str], Status]:
    for each in found:
        if each.status in (Status.FAIL, Status.WARN):
            assert each.remedy, each
            assert each.got, each
        else:
            assert not each.remedy, each
    return {
        (each.id, each.target): each.status
        for each in found
        if each.status in (Status.FAIL, Status.WARN)
    }


# preflight


def test_preflight_passes_on_good_hosts(params: Params) -> None:
    answers = everyone_answers()
    assert bad(checks.preflight(healthy(), params, FLANNEL, answers)) == {}


@pytest.mark.parametrize(
    ("cases", "sections", "id", "status"),
    [
        ({"host": "lab-not-root"}, {}, "preflight.root", Status.FAIL),
        ({"host": "lab-not-root"}, {}, "preflight.os", Status.WARN),
        ({"kernel": "fresh"}, {}, "preflight.swap", Status.WARN),
        ({"kernel": "fresh"}, {}, "preflight.module.br_netfilter", Status.WARN),
        ({"kernel": "fresh"}, {}, "preflight.module.overlay", Status.WARN),
        ({"kernel": "fresh"}, {}, "preflight.sysctl.net.ipv4.ip_forward", Status.WARN),
        (
            {"kernel": "fresh"},
            {},
            "preflight.sysctl.net.bridge.bridge-nf-call-iptables",
            Status.WARN,
        ),
        ({}, {"host.cpus": "1"}, "preflight.cpus", Status.FAIL),
        ({}, {"host.memory": "MemTotal: 1000 kB"}, "preflight.memory", Status.FAIL),
        ({}, {"host.disk": "h\n/dev/x 9 9 9 9% /"}, "preflight.disk", Status.FAIL),
        ({}, {"host.disk": "h\n/dev/x 9 9 900000 9% /"}, "preflight.disk", Status.WARN),
        ({}, {"host.hostname": "other"}, "preflight.hostname", Status.WARN),
        ({"ports": "control-plane"}, {}, "preflight.ports", Status.FAIL),
        ({"runtime": "down"}, {}, "preflight.runtime", Status.FAIL),
        ({"runtime": "hangs"}, {}, "preflight.runtime", Status.FAIL),
        ({}, {"links": "[]"}, "preflight.node-address", Status.FAIL),
        ({"cni": "flannel-left-under-kube-router"}, {}, "preflight.no-foreign-file", Status.WARN),
    ],
)
def test_preflight_finds(
    params: Params, cases: dict[str, str], sections: dict[str, str], id: str, status: Status
) -> None:
    good = healthy()["control-plane-1"]
    one = host_facts(
        "control-plane-1",
        sections={"links": links_of("10.77.0.11", "02:00:00:00:00:01"), **sections},
        **cases,
    )
    assert (
        by(checks.preflight({good.name: good}, params, FLANNEL), id, good.name).status
        is Status.PASS
    )
    found = by(checks.preflight({one.name: one}, params, FLANNEL), id, one.name)
    assert found.status is status, found
    assert found.remedy


@pytest.mark.parametrize(("tunnel", "status"), [(True, Status.PASS), (False, Status.FAIL)])
def test_a_tunnel_that_a_broken_off_reset_left_holds_its_port_no_longer_than_itself(
    params: Params, tunnel: bool, status: Status
) -> None:
    links = links_of("10.77.0.12", "02:00:00:00:00:02")  # they have flannel.1
    links = links if tunnel else links.replace('"info_kind":"vxlan"', '"info_kind":"dummy"')
    ports = "udp UNCONN 0 0 0.0.0.0:8472 0.0.0.0:*"
    one = host_facts("worker-1", sections={"ports": ports, "links": links})
    found = checks.preflight({"worker-1": one}, params, FLANNEL)
    assert by(found, "preflight.ports", "worker-1").status is status


def test_ports_of_a_cluster_that_is_there_are_not_judged(params: Params) -> None:
    one = host_facts("worker-1", ports="control-plane", kubeadm="worker")
    found = checks.preflight({"worker-1": one}, params, FLANNEL)
    assert by(found, "preflight.ports", "worker-1").status is Status.SKIP


def test_a_bridge_setting_that_only_an_emulated_module_lacks(params: Params) -> None:
    sections = {"kernel.sysctl": "/proc/sys/net/ipv4/ip_forward 1"}
    facts = {"worker-1": host_facts("worker-1", sections=sections)}
    found = checks.preflight(facts, params, FLANNEL)
    setting = "preflight.sysctl.net.bridge.bridge-nf-call-iptables"
    assert by(found, "preflight.module.br_netfilter").status is Status.PASS
    assert by(found, setting).status is Status.SKIP
    sections["kernel.modules"] = ""
    facts = {"worker-1": host_facts("worker-1", sections=sections)}
    found = checks.preflight(facts, params, FLANNEL)
    assert by(found, "preflight.module.br_netfilter").status is Status.WARN
    assert by(found, setting).status is Status.WARN


@pytest.mark.parametrize(
    ("swap", "version", "status", "remedy"),
    [
        ("off", "1.22.3", Status.WARN, "packages stage"),
        ("keep", "1.22.3", Status.FAIL, "swap: off"),
        ("keep", "1.23.0", Status.WARN, "swap: keep"),
    ],
)
def test_swap_in_preflight_follows_the_parameter(
    params: Params, swap: str, version: str, status: Status, remedy: str
) -> None:
    facts = {"worker-1": host_facts("worker-1", kernel="fresh")}
    wanted = replace(params, swap=swap, kubernetes_version=version)
    found = by(checks.preflight(facts, wanted, FLANNEL), "preflight.swap", "worker-1")
    assert found.status is status
    assert remedy in found.remedy


def test_settings_pass_where_kept_and_in_force_and_fail_one_by_one(params: Params) -> None:
    assert bad(checks.settings(healthy(), params)) == {}
    fresh = {"worker-1": host_facts("worker-1", kernel="fresh", setup="fresh")}
    assert {which for which, _ in bad(checks.settings(fresh, params))} == {
        f"packages.{each}"
        for each in ("modules", "modules-kept", "sysctls", "sysctls-kept", "swap", "swap-kept")
    }
    kept = bad(checks.settings(fresh, replace(params, swap="keep")))
    assert not [which for which, _ in kept if "swap" in which]


def test_no_runtime_yet_is_no_failure(params: Params) -> None:
    one = host_facts("worker-1", runtime="absent")
    found = checks.preflight({"worker-1": one}, params, FLANNEL)
    assert by(found, "preflight.runtime").status is Status.SKIP


def test_cloned_machines(params: Params) -> None:
    facts = healthy()
    first = facts["control-plane-1"]
    facts["worker-1"] = replace(facts["worker-1"], host=first.host, links=first.links)
    found = bad(checks.preflight(facts, params, FLANNEL))
    for what in ("hostname", "machine-id", "product-uuid", "mac"):
        assert found[(f"preflight.unique.{what}", "cluster")] is Status.FAIL


def test_clock_against_the_median(params: Params) -> None:
    facts = healthy()
    offsets = {"control-plane-1": 3600.0, "worker-1": 3600.4, "worker-2": 3590.0}
    facts = {name: replace(each, clock_offset=offsets[name]) for name, each in facts.items()}
    found = bad(checks.preflight(facts, params, FLANNEL))
    assert found == {("preflight.clock", "worker-2"): Status.FAIL}
    facts["worker-2"] = replace(facts["worker-2"], clock_offset=3597.0)
    assert bad(checks.preflight(facts, params, FLANNEL)) == {
        ("preflight.clock", "worker-2"): Status.WARN
    }
    # What a slow connection may have added counts for the host.
    facts["worker-2"] = replace(facts["worker-2"], clock_error=4.0)
    assert bad(checks.preflight(facts, params, FLANNEL)) == {}
    facts["worker-2"] = replace(facts["worker-2"], clock_offset=3585.0)
    assert bad(checks.preflight(facts, params, FLANNEL)) == {
        ("preflight.clock", "worker-2"): Status.FAIL
    }


def test_mutual_reach(params: Params) -> None:
    answers = everyone_answers()
    answers["worker-1"]["10.77.0.13"] = Answer.NONE
    answers.pop("worker-2")
    found = checks.preflight(healthy(), params, FLANNEL, answers)
    assert bad(found) == {
        ("preflight.reach", "worker-1"): Status.FAIL,
        ("preflight.reach", "worker-2"): Status.FAIL,
    }
    assert by(found, "preflight.reach", "worker-1").got == "no answer from worker-2 (10.77.0.13)"
    assert "not tried" in by(found, "preflight.reach", "worker-2").got
    reachable = {name: each for name, each in healthy().items() if name != "worker-2"}
    # A host that is out of reach of the kit itself is no fault of those that answer.
    assert bad(checks.preflight(reachable, params, FLANNEL, answers)) == {}


@pytest.mark.parametrize(
    ("answer", "got", "remedy"),
    [
        (Answer.TCP, "no answer to ping from worker-2 (10.77.0.13), but to TCP", "ICMP"),
        (Answer.UNTRIED, "no ping on this host", "apt-get install -y iputils-ping"),
    ],
)
def test_reach_without_ping_is_told(params: Params, answer: Answer, got: str, remedy: str) -> None:
    answers = everyone_answers()
    answers["worker-1"]["10.77.0.13"] = answer
    found = checks.preflight(healthy(), params, FLANNEL, answers)
    assert bad(found) == {("preflight.reach", "worker-1"): Status.WARN}
    one = by(found, "preflight.reach", "worker-1")
    assert got in one.got
    assert remedy in one.remedy


def test_a_route_of_the_host_inside_the_pod_cidr(params: Params) -> None:
    routes = json.dumps([{"dst": "192.168.1.0/24", "dev": "eth1", "protocol": "kernel"}])
    calico = load(params.source, {"plugin": "calico"})
    facts = {"worker-1": host_facts("worker-1", sections={"routes": routes})}
    found = by(checks.preflight(facts, calico, CALICO), "preflight.pod-cidr")
    assert found.status is Status.FAIL
    assert found.got == "192.168.1.0/24 dev eth1"
    assert by(checks.preflight(facts, params, FLANNEL), "preflight.pod-cidr").status is Status.PASS


def test_routes_of_the_plugins_are_not_the_hosts_own(params: Params) -> None:
    learned = {"dst": "10.244.2.0/24", "gateway": "10.77.0.13", "dev": "eth0", "protocol": "17"}
    own = {"dst": "10.244.1.0/24", "dev": "kube-bridge", "protocol": "kernel"}
    facts = {"worker-1": host_facts("worker-1", sections={"routes": json.dumps([learned, own])})}
    found = by(checks.preflight(facts, params, FLANNEL), "preflight.pod-cidr")
    assert found.status is Status.PASS


@pytest.mark.parametrize(
    ("version", "status"),
    [("1.20.1", Status.FAIL), ("1.30.0", Status.PASS), ("1.99.0", Status.WARN)],
)
def test_plugin_and_kubernetes_version(params: Params, version: str, status: Status) -> None:
    wanted = load(params.source, {"plugin": "calico", "kubernetes_version": version})
    found = by(checks.preflight({}, wanted, CALICO), "preflight.plugin-version")
    assert found.status is status


# clusters

IN_CLUSTER = {
    "control_plane_1": {"kubeadm": "control-plane"},
    "worker_1": {"kubeadm": "worker"},
}


def test_clusters_are_told_apart_by_their_ca(params: Params) -> None:
    (found,) = checks.found_clusters(healthy(**IN_CLUSTER), params)
    assert found.hosts == ("control-plane-1", "worker-1")
    assert found.name == "lab"
    assert not found.orphaned
    assert checks.confirms("lab", found)
    assert checks.confirms(found.ca_hash, found)
    assert not checks.confirms("", found)
    assert not checks.confirms("other", found)


def test_the_wanted_cluster_is_no_obstacle(params: Params) -> None:
    assert bad(checks.guard(healthy(**IN_CLUSTER), params)) == {}


def test_a_foreign_cluster_stops_and_the_message_names_it(params: Params) -> None:
    facts = healthy(**IN_CLUSTER)
    other = replace(params, cluster="mine", confirm_reset="")
    found = checks.guard(facts, other)
    assert set(bad(found)) == {
        ("preflight.cluster", "control-plane-1"),
        ("preflight.cluster", "worker-1"),
    }
    digest = facts["worker-1"].kubeadm.ca_hash
    assert f'confirm_reset: "{digest}"' in by(found, "preflight.cluster", "worker-1").remedy
    assert bad(checks.guard(facts, replace(other, confirm_reset=digest))) == {}
    assert bad(checks.guard(facts, replace(other, confirm_reset="lab"))) == {}


def test_a_worker_of_another_cluster_is_not_confirmed_by_the_labs_name(params: Params) -> None:
    facts = healthy(worker_1={"kubeadm": "worker"})
    kubeadm = replace(facts["worker-1"].kubeadm, server="https://192.0.2.99:6443")
    facts["worker-1"] = replace(facts["worker-1"], kubeadm=kubeadm)
    assert set(bad(checks.guard(facts, params))) == {("preflight.cluster", "worker-1")}


def test_a_worker_whose_control_plane_left_has_nothing_to_lose(params: Params) -> None:
    facts = healthy(worker_1={"kubeadm": "worker"})
    (found,) = checks.found_clusters(facts, params)
    assert found.orphaned
    assert bad(checks.guard(facts, replace(params, confirm_reset=""))) == {}


# packages


def test_packages(params: Params) -> None:
    assert bad(checks.packages({"w": host_facts("w")}, params)) == {}
    newer = load(params.source, {"kubernetes_version": "1.23.0"})
    found = bad(checks.packages({"w": host_facts("w")}, newer))
    assert {which for which, _ in found} == {
        "packages.kubelet",
        "packages.kubeadm",
        "packages.kubectl",
    }
    partly = checks.packages({"w": host_facts("w", packages="partly")}, params)
    assert by(partly, "packages.kubernetes-cni").got == "not installed"
    assert by(partly, "packages.kubeadm").got == "not installed"
    without = checks.packages({"w": host_facts("w", packages="no-dpkg")}, params)
    assert [each.status for each in without] == [Status.SKIP]


# cni


def test_cni_passes_where_only_the_plugin_was() -> None:
    assert bad(checks.cni(healthy(), FLANNEL)) == {}


def test_nothing_applied() -> None:
    found = bad(checks.cni({"w": host_facts("w", cni="clean")}, FLANNEL))
    assert ("cni.config-in-force", "w") in found


def test_kube_router_over_flannels_leftovers() -> None:
    mixed = {"worker_1": {"cni": "flannel-left-under-kube-router"}}
    found = checks.cni({"worker-1": healthy(**mixed)["worker-1"]}, KUBE_ROUTER)
    assert set(bad(found)) == {
        ("cni.config-in-force", "worker-1"),
        ("cni.no-foreign-file", "worker-1"),
        ("cni.no-foreign-interface", "worker-1"),
    }
    assert by(found, "cni.config-in-force").got == "10-flannel.conflist (flannel)"
    assert "10-flannel.conflist" in by(found, "cni.no-foreign-file").remedy
    assert by(found, "cni.no-foreign-interface").got == "flannel.1 (flannel), cni0 (flannel)"


def test_a_damaged_file_in_front_is_in_force() -> None:
    found = checks.cni({"w": host_facts("w", cni="damaged-file-first")}, FLANNEL)
    assert by(found, "cni.config-in-force").got == "00-broken.conf (not a CNI configuration)"
    assert by(found, "cni.config-in-force").status is Status.FAIL


def test_hosts_that_differ() -> None:
    facts = healthy(worker_1={"cni": "clean"})
    found = by(checks.cni(facts, FLANNEL), "cni.same-everywhere")
    assert found.status is Status.FAIL
    assert "none on worker-1" in found.got


def test_unknown_plugins_file_is_foreign_too() -> None:
    text = '## /etc/cni/net.d/05-x.conf\n{"type": "macvlan"}\n'
    facts = {"w": host_facts("w", sections={"cni.files": text})}
    found = checks.cni(facts, FLANNEL)
    assert by(found, "cni.no-foreign-file").got == "05-x.conf (unknown plugin)"


# nodes


def node(name: str, status: str = "True", **spec: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "reason": "KubeletReady", "message": "posting"}
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": "10.244.1.0/24", **spec},
        "status": {"conditions": [ready], "nodeInfo": {"kubeletVersion": "v1.22.3"}},
    }


def test_nodes(params: Params) -> None:
    good = [node(name) for name in NAMES]
    assert bad(checks.nodes(good, params, FLANNEL)) == {}
    assert bad(checks.nodes(good[:2], params, FLANNEL)) == {
        ("nodes.present", "worker-2"): Status.FAIL
    }
    assert bad(checks.nodes([*good, node("old")], params, FLANNEL)) == {
        ("nodes.expected", "old"): Status.WARN
    }
    found = checks.nodes([*good[:2], node("worker-2", "Unknown")], params, FLANNEL)
    assert set(bad(found)) == {("nodes.ready", "worker-2")}
    found = checks.nodes([*good[:2], node("worker-2", podCIDR="")], params, FLANNEL)
    assert set(bad(found)) == {("nodes.pod-cidr", "worker-2")}
    assert bad(checks.nodes([*good[:2], node("worker-2", podCIDR="")], params, CALICO)) == {}
    found = checks.nodes(good, load(params.source, {"kubernetes_version": "1.23.0"}), FLANNEL)
    assert {which for which, _ in bad(found)} == {"nodes.version"}


def test_a_node_without_any_status(params: Params) -> None:
    found = checks.nodes([{"metadata": {"name": "worker-1"}}], params, FLANNEL)
    assert by(found, "nodes.ready", "worker-1").status is Status.FAIL


# workloads


def daemon_set(desired: int, available: int, plugin: Plugin = FLANNEL) -> dict[str, Any]:
    want = plugin.workloads[0]
    return {
        "kind": "DaemonSet",
        "metadata": {"namespace": want.namespace, "name": want.name, "generation": 1},
        "status": {
            "desiredNumberScheduled": desired,
            "updatedNumberScheduled": desired,
            "numberAvailable": available,
            "observedGeneration": 1,
        },
    }


def test_workloads() -> None:
    assert bad(checks.workloads([daemon_set(3, 3)], FLANNEL, nodes=3)) == {}
    assert bad(checks.workloads([daemon_set(3, 2)], FLANNEL, nodes=3))
    assert bad(checks.workloads([daemon_set(2, 2)], FLANNEL, nodes=3))
    assert bad(checks.workloads([daemon_set(0, 0)], FLANNEL))
    stale = daemon_set(3, 3)
    stale["metadata"]["generation"] = 2
    assert bad(checks.workloads([stale], FLANNEL))
    (missing,) = checks.workloads([], FLANNEL)
    assert missing.got == "does not exist"


def test_workloads_of_a_part_of_the_nodes() -> None:
    """contiv: two DaemonSets on all or on control planes, one on workers, and a ReplicaSet."""
    contiv = get("contiv")
    found = [
        {
            **daemon_set(pods, pods),
            "kind": load.kind,
            "metadata": {"namespace": load.namespace, "name": load.name},
        }
        for load, pods in zip(contiv.workloads, (3, 1, 1, 2), strict=True)
    ]
    assert found[1]["kind"] == "ReplicaSet"
    found[1] |= {"spec": {"replicas": 1}, "status": {"replicas": 1, "availableReplicas": 1}}
    assert bad(checks.workloads(found, contiv, nodes=3, planes=1)) == {}
    missing = checks.workloads(found, contiv, nodes=4, planes=2)
    assert {target for _, target in bad(missing)} == {
        "daemonset/contiv-netplugin",
        "daemonset/contiv-etcd",
    }
    found[3]["status"] |= dict.fromkeys(
        ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"), 0
    )
    assert bad(checks.workloads(found, contiv)) == {}, "no worker has joined yet"
    assert bad(checks.workloads(found, contiv, nodes=3, planes=1))
    found[1]["status"] = {"replicas": 1}
    assert bad(checks.workloads(found, contiv))


def test_a_manifest_of_which_only_a_part_was_accepted() -> None:
    found = checks.workloads([daemon_set(3, 3, CALICO)], CALICO)
    assert set(bad(found)) == {("workloads.available", "deployment/calico-kube-controllers")}
    controllers = {
        "kind": "Deployment",
        "metadata": {"namespace": "kube-system", "name": "calico-kube-controllers"},
        "spec": {"replicas": 1},
        "status": {"updatedReplicas": 1, "availableReplicas": 1},
    }
    assert bad(checks.workloads([daemon_set(3, 3, CALICO), controllers], CALICO)) == {}


def agent(restarts: int, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    labels = {"app": "flannel"} if labels is None else labels
    return {
        "metadata": {"namespace": "kube-flannel", "name": "f-1", "labels": dict(labels)},
        "status": {"containerStatuses": [{"name": "kube-flannel", "restartCount": restarts}]},
    }


def test_restarts() -> None:
    before = checks.restart_counts([agent(1), agent(7, {"app": "other"})], FLANNEL)
    assert before == {"kube-flannel/f-1/kube-flannel": 1}
    assert bad(checks.restarts(before, before, 10)) == {}
    (found,) = checks.restarts(before, checks.restart_counts([agent(2)], FLANNEL), 10)
    assert found.status is Status.FAIL
    assert found.remedy == "kubectl -n kube-flannel logs f-1 -c kube-flannel --previous"
    assert bad(checks.restarts(before, {}, 10))


# pods


def pod(address: str, where: str = "worker-1") -> dict[str, Any]:
    return {
        "metadata": {"name": "probe-1"},
        "spec": {"nodeName": where},
        "status": {"podIP": address},
    }


def test_pods_on_the_plugins_bridge(params: Params) -> None:
    facts = {"worker-1": host_facts("worker-1")}
    cidrs = {"worker-1": "10.244.1.0/24"}
    good = checks.pods([pod("10.244.1.7")], facts, params, FLANNEL, node_cidrs=cidrs)
    assert bad(good) == {}
    strange = checks.pods([pod("10.244.2.7")], facts, params, FLANNEL, node_cidrs=cidrs)
    assert set(bad(strange)) == {("pods.address", "probe-1"), ("pods.device", "probe-1")}
    nowhere = checks.pods([pod("")], facts, params, FLANNEL)
    assert set(bad(nowhere)) == {("pods.address", "probe-1")}


def test_pods_on_a_leftover_bridge(params: Params) -> None:
    facts = {"worker-1": host_facts("worker-1")}
    found = checks.pods([pod("10.244.1.7")], facts, params, KUBE_ROUTER)
    assert set(bad(found)) == {("pods.device", "probe-1")}
    assert by(found, "pods.device").got == "worker-1 reaches 10.244.1.7 by cni0 (flannel)"


def test_pods_on_calicos_own_veths(params: Params) -> None:
    calico = load(params.source, {"plugin": "calico"})
    routes = json.dumps(
        [
            {"dst": "default", "gateway": "10.77.0.1", "dev": "eth0"},
            {"type": "blackhole", "dst": "192.168.9.0/26"},
            {"dst": "192.168.9.1", "dev": "cali0a1b2c3d4e5"},
        ]
    )
    facts = {"worker-1": host_facts("worker-1", sections={"routes": routes})}
    assert bad(checks.pods([pod("192.168.9.1")], facts, calico, CALICO)) == {}
    assert bad(checks.pods([pod("192.168.9.2")], facts, calico, CALICO))
    assert bad(checks.pods([pod("192.168.77.2")], facts, calico, CALICO))


def test_device_is_not_judged_without_routes(params: Params) -> None:
    found = checks.pods([pod("10.244.1.7")], {}, params, FLANNEL)
    assert by(found, "pods.device").status is Status.SKIP


# reachability


def test_every_ordered_pair() -> None:
    ends = ["a", "b", "c"]
    heard = {(s, t): Heard(5, 5) for s in ends for t in ends if s != t}
    assert len(checks.reachability(ends, heard)) == 6
    assert bad(checks.reachability(ends, heard)) == {}
    heard[("a", "b")] = Heard(5, 4)
    heard[("b", "a")] = Heard(5, 0, "Destination Host Unreachable")
    del heard[("c", "a")]
    assert bad(checks.reachability(ends, heard)) == {
        ("reachability.pair", "a -> b"): Status.WARN,
        ("reachability.pair", "b -> a"): Status.FAIL,
        ("reachability.pair", "c -> a"): Status.FAIL,
    }


def with_packets(count: int, device: str) -> dict[str, HostFacts]:
    facts = host_facts("w")
    links = tuple(
        replace(link, name=device, tx_packets=count, rx_packets=count)
        if link.name == "flannel.1"
        else link
        for link in facts.links or ()
    )
    return {"w": replace(facts, links=links)}


@pytest.mark.parametrize(
    ("plugin", "device"),
    [(FLANNEL, "flannel.1"), (CALICO, "cali123"), (KUBE_ROUTER, "kube-bridge")],
)
def test_device_counters(plugin: Plugin, device: str) -> None:
    before, after = with_packets(100, device), with_packets(120, device)
    assert bad(checks.device_counters(before, after, plugin, {"w": 40})) == {}
    assert bad(checks.device_counters(before, after, plugin, {"w": 41}))
    elsewhere = with_packets(900, "dummy0")
    assert bad(checks.device_counters(elsewhere, elsewhere, plugin, {"w": 1}))


def test_ids_belong_to_their_subject(params: Params) -> None:
    found = [
        *checks.preflight(healthy(), params, FLANNEL),
        *checks.cni(healthy(), FLANNEL),
        *checks.packages(healthy(), params),
    ]
    assert {each.id.partition(".")[0] for each in found} == {"preflight", "cni", "packages"}
    assert all(str(each) for each in found)
