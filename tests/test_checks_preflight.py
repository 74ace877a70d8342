"""Preflight's checks on hosts of many kinds: each case is data, with what must be said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from factory import host_facts, plugin_like

from kitlib import checks
from kitlib.facts import HostFacts, Link
from kitlib.model import Check, Status
from kitlib.params import Params, load
from kitlib.plugins import get

DATA = Path(__file__).parent / "data/preflight"
CASES = {
    f"{path.stem}: {name}": case
    for path in sorted(DATA.glob("*.yaml"))
    for name, case in yaml.safe_load(path.read_text()).items()
}
NAMES = ("control-plane-1", "worker-1", "worker-2")


@pytest.fixture
def params() -> Params:
    return load(Path(__file__).parents[1] / "params/lab.yaml")


def one(found: list[Check], id: str, target: str) -> Check:
    (hit,) = [each for each in found if (each.id, each.target) == (id, target)]
    return hit


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_case(params: Params, case: dict[str, Any]) -> None:
    """One host, described by golden facts and by sections of its answers.

    `got`, `expected` and `remedy` are parts of what is said; a remedy belongs to what is bad, and
    to nothing else.
    """
    name = case.get("host", "worker-1")
    plugin = plugin_like(case.get("plugin", "flannel"), case.get("like"))
    stated = {
        "plugin": plugin.name,
        "kubernetes_version": case.get("version"),
        **case.get("params", {}),
    }
    wanted = load(params.source, stated)
    facts = host_facts(name, sections=case.get("sections"), **case.get("facts", {}))
    found = one(
        checks.preflight({name: facts}, wanted, plugin), case["check"], case.get("target", name)
    )
    assert found.status.value == case["status"], found
    for what in ("got", "expected", "remedy"):
        for part in case.get(what, ()):
            assert part in getattr(found, what), found
    bad = found.status in (Status.FAIL, Status.WARN)
    assert bool(found.remedy) == bad
    assert bool(found.expected) == bad or found.status is Status.PASS


def test_every_check_of_a_host_has_a_case_that_fails() -> None:
    """A check that no case makes fail proves nothing."""
    text = (Path(__file__).parent / "test_checks.py").read_text()
    failing = {each["check"] for each in CASES.values() if each["status"] in ("FAIL", "WARN")}
    lab = load(Path(__file__).parents[1] / "params/lab.yaml")
    hosts = {name: host_facts(name) for name in NAMES}
    made = checks.preflight(hosts, lab, get("flannel"))
    ids = {each.id for each in made if each.target in NAMES}
    assert not [each for each in sorted(ids) if each not in failing and f'"{each}"' not in text]


def test_every_check_of_a_plugins_needs_has_a_case_that_fails(params: Params) -> None:
    """The checks above are those that every plugin gets."""
    needs = {"service_cidr": "10.96.0.0/12", "kernel": "5.10", "kube_proxy": "absent"}
    demanding = plugin_like("flannel", {"needs": needs, "pod_cidr": {"prefix": 16}})
    made = checks.preflight({"worker-1": host_facts()}, params, demanding)
    ids = {each.id for each in made if each.id.startswith("preflight.plugin-")}
    assert len(ids) == 5
    assert ids <= {case["check"] for case in CASES.values() if case["status"] == "FAIL"}


def hosts(**changes: Any) -> dict[str, HostFacts]:
    """Return three good hosts; `changes` go into what is said of who they are."""
    found = {name: host_facts(name) for name in NAMES}
    for number, (name, each) in enumerate(found.items(), start=1):
        who = replace(each.host, **{key: value(number) for key, value in changes.items()})
        found[name] = replace(each, host=who, links=(link("eth0", f"02:00:00:00:00:0{number}"),))
    return found


def link(name: str, mac: str, kind: str = "ether", *addresses: str) -> Link:
    return Link(name, kind, mac, 1500, True, "", addresses or ("10.77.0.11/24",), 0, 0)


UUID = "564d8b3e-7c2a-1f0b-9e5d-3a6c1b2d4e5f"
FILLER = "03000200-0400-0500-0006-000700080009"


@pytest.mark.parametrize(
    ("what", "changes", "status", "remedy"),
    [
        ("hostname", {"hostname": lambda n: "debian" if n < 3 else "x"}, "FAIL", "hostnamectl"),
        ("machine-id", {"machine_id": lambda n: "one"}, "FAIL", "systemd-machine-id-setup"),
        ("product-uuid", {"product_uuid": lambda n: UUID}, "FAIL", "virt-clone"),
        ("product-uuid", {"product_uuid": lambda n: FILLER}, "WARN", "nothing to do"),
        ("product-uuid", {"product_uuid": lambda n: None}, "SKIP", ""),
        ("product-uuid", {"product_uuid": lambda n: UUID if n == 1 else None}, "PASS", ""),
        ("machine-id", {"machine_id": lambda n: str(n)}, "PASS", ""),
    ],
)
def test_identities(
    params: Params, what: str, changes: dict[str, Any], status: str, remedy: str
) -> None:
    found = one(
        checks.preflight(hosts(**changes), params, get("flannel")),
        f"preflight.unique.{what}",
        "cluster",
    )
    assert found.status.value == status
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("extra", "shared"),
    [
        (link("eth1", "02:00:00:00:00:99", "ether", "192.0.2.1/24"), True),
        (link("docker0", "02:42:00:00:00:99", "bridge", "172.17.0.1/16"), False),
        (link("veth1", "02:00:00:00:00:99", "veth", "192.0.2.1/24"), False),
        (link("dummy0", "02:00:00:00:00:99", "dummy", "192.0.2.1/24"), False),
        (link("usb0", "02:00:00:00:00:99", "ether", "169.254.3.1/24"), False),
        (link("usb0", "02:00:00:00:00:99", "ether", "fe80::1/64"), False),
        (link("lo", "00:00:00:00:00:00", "loopback", "127.0.0.1/8"), False),
    ],
)
def test_hardware_addresses_of_virtual_devices_may_repeat(
    params: Params, extra: Link, shared: bool
) -> None:
    facts = {
        name: replace(each, links=(*(each.links or ()), extra)) for name, each in hosts().items()
    }
    found = one(checks.preflight(facts, params, get("flannel")), "preflight.unique.mac", "cluster")
    assert found.status is (Status.FAIL if shared else Status.PASS)
    assert (extra.mac in found.got) == shared


def test_an_uplink_counts_whatever_its_kind(params: Params) -> None:
    """A bond's members carry its address on the same host: that is no duplicate."""
    bond = (link("eth0", "02:00:00:00:00:77", "bond"), link("eth1", "02:00:00:00:00:77", "ether"))
    facts = hosts()
    facts["worker-1"] = replace(facts["worker-1"], links=bond)
    assert (
        one(
            checks.preflight(facts, params, get("flannel")), "preflight.unique.mac", "cluster"
        ).status
        is Status.PASS
    )
    facts["worker-2"] = replace(facts["worker-2"], links=bond[:1])
    found = one(checks.preflight(facts, params, get("flannel")), "preflight.unique.mac", "cluster")
    assert found.status is Status.FAIL
    assert found.got == "02:00:00:00:00:77 on worker-1, worker-2"


def test_time_zones_that_differ_are_told(params: Params) -> None:
    facts = hosts()
    there = host_facts("worker-2", clock="berlin")
    facts["worker-2"] = replace(there, links=facts["worker-2"].links)
    found = one(checks.preflight(facts, params, get("flannel")), "preflight.time-zone", "cluster")
    assert found.status is Status.WARN
    assert found.got == "UTC on control-plane-1, worker-1; Europe/Berlin on worker-2"
    assert found.remedy == "on worker-2: timedatectl set-timezone UTC"
    facts["worker-2"] = replace(facts["worker-2"], clock=host_facts(clock="busybox").clock)
    assert (
        one(
            checks.preflight(facts, params, get("flannel")), "preflight.time-zone", "cluster"
        ).status
        is Status.PASS
    )


def test_who_is_in_a_cluster_that_is_in_the_way(params: Params) -> None:
    """By the API's word where it answered, else by what the hosts' files say."""
    other = replace(params, cluster="mine", confirm_reset="")
    facts = {
        "control-plane-1": host_facts("control-plane-1", kubeadm="control-plane"),
        "worker-1": host_facts("worker-1", kubeadm="worker"),
    }
    members = {"control-plane-1": ("m1", "w1", "w9")}
    told = checks.preflight(facts, other, get("flannel"), None, members)
    assert one(told, "preflight.cluster", "worker-1").got.endswith(", nodes m1, w1, w9")
    told = checks.preflight(facts, other, get("flannel"))
    found = one(told, "preflight.cluster", "worker-1")
    assert found.got.endswith(", with control-plane-1, worker-1 in it")
    assert found.status is Status.FAIL


def test_a_kubelet_that_stays_must_fit(params: Params) -> None:
    """On a host of the wanted cluster nothing replaces it before pods run beside it."""
    wanted = replace(params, kubernetes_version="1.20.0")
    facts = {"control-plane-1": host_facts("control-plane-1", kubeadm="control-plane")}
    found = one(
        checks.preflight(facts, wanted, get("flannel")),
        "preflight.kubelet-version",
        "control-plane-1",
    )
    assert found.status is Status.FAIL
    assert "drain" in found.remedy
