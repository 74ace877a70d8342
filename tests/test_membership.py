"""Who may come to a cluster that stands, and that every such run has its verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factory import host_facts

from kitlib import membership
from kitlib.errors import (
    Interrupted,
    KitError,
    ParamsError,
    PreconditionError,
)
from kitlib.fanout import Fanned
from kitlib.inventory import Host, Inventory, Role
from kitlib.journal import Journal
from kitlib.plugins import catalogue
from kitlib.plugins import get as get_plugin
from kitlib.stages import situation
from kitlib.stages.situation import Situation

PARAMS = Path(__file__).resolve().parent.parent / "params/lab.yaml"
CA, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def facts(name: str, *, joined: bool = True, admin: bool = False, ca: str = CA) -> Any:
    """Return a host's facts: in a cluster (with an administrator's kubeconfig), or clean."""
    files = ["/etc/kubernetes/kubelet.conf"] if joined else []
    files += ["/etc/kubernetes/admin.conf"] if admin else []
    here = host_facts(name)
    state = replace(here.kubeadm, files=tuple(files), ca_hash=ca if files else "", cluster="lab")
    nothing = replace(here.leftovers, paths=(), nft_tables=(), chains=(), kubeconfig="")
    clean = replace(here.cni, files=(), names=())
    return replace(here, kubeadm=state, leftovers=nothing, cni=clean, links=(), routes=())


class FakeSession:
    """A session whose hosts are as the test says."""

    def __init__(self, *found: Any, roles: dict[str, Role] | None = None) -> None:
        self.found = {each.name: each for each in found}
        self.errors: dict[str, Exception] = {}
        self.left_out: list[str] = []
        hosts = [Host(n, n, role=(roles or {}).get(n, Role.WORKER)) for n in self.found]
        self.inventory = Inventory(tuple(hosts))
        home = next((n for n, f in self.found.items() if f.kubeadm.initialised), hosts[0].name)
        self.context: Any = SimpleNamespace(
            doors=SimpleNamespace(facts=self._facts),
            inventory=self.inventory,
            hosts=self.inventory.hosts,
            control_planes=[h for h in hosts if h.is_control_plane],
            administrator=self.inventory.by_name(home),
            params=SimpleNamespace(hosts=hosts, effective_pod_cidr=IPv4Network("10.244.0.0/16")),
            absent={},
        )
        self.context.facts = self._read

    def _read(self, *, fresh: bool = False) -> dict[str, Any]:
        return self.found

    def _facts(self, names: Any, *, fresh: bool) -> Fanned[str, Any]:
        return Fanned({n: self.found[n] for n in names if n not in self.errors}, self.errors)

    def leave_out(self, names: Any) -> None:
        self.left_out = list(names)


def a_cluster(*more: Any) -> Any:
    planes = {"cp-1": Role.CONTROL_PLANE}
    return FakeSession(facts("cp-1", admin=True), *more, roles=planes)


def judged(monkeypatch: pytest.MonkeyPatch, why: str = "") -> None:
    found = Situation({}, not why, {"cp-1": why} if why else {})
    monkeypatch.setattr(membership, "judge", lambda ctx: found)
    monkeypatch.setattr(membership, "in_the_cluster", in_it)


def in_it(ctx: Any) -> list[str]:
    return [n for n, f in ctx.facts().items() if f.kubeadm.joined and f.kubeadm.ca_hash == CA]


def test_a_host_that_is_in_no_cluster_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch)
    session = a_cluster(facts("w-1"), facts("new-7", joined=False))
    assert membership._ready_for(session, ["new-7"]) == []
    assert membership._ready_for(session, ["w-1", "new-7"]) == ["w-1"]


def test_there_has_to_be_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch)
    planes = {"cp-1": Role.CONTROL_PLANE}
    session: Any = FakeSession(facts("cp-1", joined=False), facts("w-1"), roles=planes)
    with pytest.raises(PreconditionError, match="no control plane of the parameters has a cluster"):
        membership._ready_for(session, ["w-1"])


@pytest.mark.parametrize("other", [facts("w-2", joined=False), facts("w-2", ca=OTHER)])
def test_a_host_that_is_not_in_it_and_not_named_stops_it(
    other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch)
    session = a_cluster(other, facts("new-7", joined=False))
    with pytest.raises(PreconditionError, match=r"^w-2: in the parameters, but not in the cluster"):
        membership._ready_for(session, ["new-7"])


def test_a_cluster_that_the_file_does_not_describe_is_not_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged(monkeypatch, "its network plugin is calico, wanted is flannel")
    with pytest.raises(PreconditionError, match=r"not the one .* plugin is calico"):
        membership._ready_for(a_cluster(facts("new-7", joined=False)), ["new-7"])


def test_a_name_that_no_host_has_is_told_before_a_run_begins() -> None:
    membership.check_names(PARAMS, ["worker-1"])
    with pytest.raises(ParamsError, match=r"unknown host 'worker-9', known are control-plane-1"):
        membership.check_names(PARAMS, ["worker-1", "worker-9"])


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, "PASS"),
        (PreconditionError("no cluster"), "FAIL"),
        (Interrupted("no"), "INTERRUPTED"),
        (KeyboardInterrupt(), "INTERRUPTED"),
    ],
)
def test_a_run_has_its_verdict_however_it_ends(
    error: BaseException | None, verdict: str, tmp_path: Path
) -> None:
    journal = Journal.create(tmp_path, "lab", {})
    session: Any = SimpleNamespace(
        what="",
        dry_run=False,
        journal=journal,
        finish=lambda verdict, reason="": journal.end(verdict.value, reason),
    )

    def whole() -> None:
        with membership.whole_run(session, "kit remove"):
            if error:
                raise error

    if error:
        with pytest.raises(type(error) if isinstance(error, KitError) else KeyboardInterrupt):
            whole()
    else:
        whole()
    assert json.loads((journal.path / "run.json").read_text())["verdict"] == verdict
    assert session.what == "kit remove"


def test_what_lies_on_a_host_outside_says_nothing_of_the_cluster() -> None:
    """A new host that had another plugin once must not make a build want to reset the cluster."""
    outside = host_facts("new-7", cni="flannel")
    inside = replace(outside, kubeadm=facts("w-1").kubeadm)
    params = SimpleNamespace(catalogue=catalogue())
    ctx: Any = SimpleNamespace(plugin=get_plugin("kube-router"), params=params)
    kube: Any = SimpleNamespace(items=lambda path: [])
    assert situation._other_plugin(ctx, {"new-7": outside}, kube) == ""
    assert "of flannel, wanted is kube-router" in situation._other_plugin(
        ctx, {"w-1": inside}, kube
    )
