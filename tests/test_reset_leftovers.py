"""What `kubeadm reset` leaves: found, planned by name, and removed by commands that really run."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factory import case, host_facts

from kitlib.errors import PreconditionError
from kitlib.facts import HostFacts, Route
from kitlib.model import Status
from kitlib.plugins import get
from kitlib.stages import without_kubeadm
from kitlib.stages.base import Action
from kitlib.stages.leftovers import Whose, removals
from kitlib.stages.reset import Reset, leftovers

IPVS = {"leftovers": "kube-router-ipvs"}
EVERYONE = Whose(None, IPv4Network("10.244.0.0/16"), frozenset({"192.0.2.1"}))
LINKS = case("links", "worker")["stdout"]


def planned(facts: HostFacts) -> list[Action]:
    situation: Any = SimpleNamespace(wanted=False, reset={}, facts={facts.name: facts})
    return leftovers(facts.name, facts, situation, EVERYONE)


def whats(facts: HostFacts) -> list[str]:
    return [action.what for action in planned(facts)]


def one(facts: HostFacts, word: str) -> Action:
    found = [action for action in planned(facts) if word in action.what]
    assert len(found) == 1, (word, [action.what for action in planned(facts)])
    return found[0]


def with_device(name: str) -> HostFacts:
    """Return facts of a host that has one more device, and IPVS services."""
    text = host_facts(**IPVS)
    assert text.links
    link = type(text.links[0])
    first = text.links[0]
    values = {field: getattr(first, field) for field in first.__dataclass_fields__}
    return type(text)(
        **{
            **{field: getattr(text, field) for field in text.__dataclass_fields__},
            "links": (*text.links, link(**{**values, "name": name})),
        }
    )


def test_after_a_reset_of_flannel_all_that_was_recorded_is_planned() -> None:
    """The recorded host: 10-flannel.conflist, cni0, flannel.1, /run/flannel, 86 chains."""
    text = " ".join(whats(host_facts()))
    for left in ("10-flannel.conflist", "cni0", "flannel.1", "/run/flannel", "iptables chains"):
        assert left in text
    assert not any(word in text for word in ("ipset", "routing table", "IPVS"))


def test_a_plugins_credentials_beside_its_configuration_go_too() -> None:
    names = "10-flannel.conflist\n.kubernetes-cni-keep\ncalico-kubeconfig\nmine.txt\n"
    action = one(host_facts(sections={"cni.names": names}), "CNI configuration")
    assert action.what.endswith("left: 10-flannel.conflist, calico-kubeconfig")
    assert "/etc/cni/net.d/calico-kubeconfig" in str(action.command)


def test_only_what_a_cluster_makes_is_planned() -> None:
    text = " ".join(whats(host_facts(**IPVS)))
    assert "ipsets that were left: KUBE-CLUSTER-IP, kube-router-pod-subnets" in text
    assert "routing tables that were left: 77" in text
    for others in ("f2b-sshd", "main", "default"):
        assert others not in text
    order = [what.split()[0] for what in whats(host_facts(**IPVS))]
    assert order.index("destroy") > max(i for i, word in enumerate(order) if word == "remove")


def test_where_kubeadm_was_removed_the_runtime_removes_its_pods() -> None:
    """A package that is removed stops no container; without crictl nobody can."""
    here = host_facts(sections={"runtime.sockets": "/run/containerd/containerd.sock\n"})
    pods, files = without_kubeadm.actions(here.name, here, "another cluster")
    assert "crictl" in str(pods.command)
    assert "unix:///run/containerd/containerd.sock" in str(pods.command)
    assert "/var/lib/etcd" in str(files.command)
    runtime = replace(here.runtime, installed=False, why="crictl is not installed")
    bare = replace(here, runtime=runtime)
    with pytest.raises(PreconditionError, match=r"kubeadm is not installed.*crictl"):
        without_kubeadm.actions(bare.name, bare, "another cluster")


def test_ipvs_services_are_cleared_where_a_device_says_whose_they_are() -> None:
    assert not [what for what in whats(host_facts(**IPVS)) if "IPVS" in what]
    here = with_device("kube-ipvs0")
    assert str(one(here, "2 IPVS services").command) == "ipvsadm --clear"
    assert "kube-ipvs0" in one(here, "delete the interfaces").what


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tools that keep their state in files: iptables in two flavours, ipset, ip."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for flavour in ("iptables", "ip6tables-legacy"):
        tool(tmp_path, f"{flavour}-save", f"cat {tmp_path}/{flavour}")
        tool(
            tmp_path, f"{flavour}-restore", f"cat > {tmp_path}/{flavour}; echo x >> {tmp_path}/ran"
        )
    tool(
        tmp_path,
        "ipset",
        f'cd {tmp_path}/sets && [ -e "$2" ] || exit 1\n'
        'case $1 in flush) : > "$2";; destroy) grep -q "$2" -- * && exit 1; rm "$2";; esac',
    )
    tool(
        tmp_path,
        "ip",
        f'f={tmp_path}/rules$1; [ "$2 $3" = "rule delete" ] || exit 0\n'
        'grep -q "lookup $5$" "$f" 2>/dev/null || exit 2\n'
        'sed -i "0,/lookup $5\\$/{/lookup $5\\$/d}" "$f"',
    )
    return tmp_path


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def run(action: Action) -> None:
    assert action.command is not None
    assert action.command.mutates
    subprocess.run(action.command.render(), shell=True, check=True)


RULES = """\
*filter
:INPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:FLANNEL-FWD - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
-A INPUT -m comment --comment "kubernetes" -j KUBE-FORWARD
-A KUBE-FORWARD -j ACCEPT
-A FORWARD -j FLANNEL-FWD
COMMIT
"""


def test_chains_go_in_every_flavour_and_the_rest_stays(stubs: Path) -> None:
    (stubs / "iptables").write_text(RULES)
    (stubs / "ip6tables-legacy").write_text("*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    noflush(stubs)
    run(one(host_facts(), "iptables chains"))
    assert (stubs / "restored").read_text() == (
        "*filter\n:KUBE-FORWARD - [0:0]\n:FLANNEL-FWD - [0:0]\n"
        '-D INPUT -m comment --comment "kubernetes" -j KUBE-FORWARD\n-D FORWARD -j FLANNEL-FWD\n'
        "-X KUBE-FORWARD\n-X FLANNEL-FWD\nCOMMIT\n"
    )
    assert "DROP" in (stubs / "ip6tables-legacy").read_text()
    assert not (stubs / "ran").exists(), "a flavour without such chains is not touched"


def test_of_one_plugin_alone_kube_proxys_chains_and_others_traces_stay(stubs: Path) -> None:
    """A plugin leaves a cluster that goes on: kube-proxy is at work meanwhile."""
    (stubs / "iptables").write_text(RULES)
    (stubs / "ip6tables-legacy").write_text("")
    noflush(stubs)
    whose = Whose(get("flannel"), IPv4Network("10.244.0.0/16"), frozenset())
    found = {action.what: action for action in removals("h", host_facts(), whose)}
    (chains,) = [found[what] for what in found if "iptables chains" in what]
    run(chains)
    assert "KUBE" not in (stubs / "restored").read_text()
    assert "-X FLANNEL-FWD" in (stubs / "restored").read_text()
    calico = Whose(get("calico"), None, frozenset())
    assert removals("h", host_facts(), calico) == []


NAT = """\
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.244.0.0/16 -m comment --comment "kubenet: SNAT for outbound traffic from cluster" -j MASQUERADE
COMMIT
"""  # noqa: E501


def noflush(stubs: Path) -> None:
    """Have an iptables-restore that only takes what leaves everything else alone."""
    for flavour in ("iptables", "ip6tables-legacy"):
        tool(stubs, f"{flavour}-restore", f'[ "$1" = --noflush ] && cat > {stubs}/restored')


def test_a_rule_is_told_by_its_comment_and_goes_alone(stubs: Path) -> None:
    (stubs / "iptables").write_text(NAT)
    (stubs / "ip6tables-legacy").write_text("")
    action = one(host_facts(leftovers="kubenet"), "iptables rules")
    noflush(stubs)
    run(action)
    assert (stubs / "restored").read_text() == (
        '*nat\n-D POSTROUTING -s 10.244.0.0/16 -m comment --comment "kubenet: SNAT for outbound '
        'traffic from cluster" -j MASQUERADE\nCOMMIT\n'
    )
    assert not (stubs / "ran").exists(), "a flavour without such a rule is left alone"


def test_the_kits_units_go_first_for_they_would_bring_back_what_they_keep() -> None:
    text = whats(host_facts(leftovers="kubenet"))
    assert text[0] == "stop and remove the kit's units: kubekit-kubenet.service"
    assert "kubekit-kubenet" in next(what for what in text if "nftables" in what)
    assert any("/var/lib/cni/networks/kubenet" in what for what in text)


def test_a_set_of_sets_is_emptied_first(stubs: Path) -> None:
    sets = stubs / "sets"
    sets.mkdir()
    (sets / "KUBE-CLUSTER-IP").write_text("")
    (sets / "kube-router-pod-subnets").write_text("KUBE-CLUSTER-IP\n")
    (sets / "f2b-sshd").write_text("192.0.2.9\n")
    run(one(host_facts(**IPVS), "ipsets"))
    assert [path.name for path in sets.iterdir()] == ["f2b-sshd"]


def test_every_rule_to_a_table_goes(stubs: Path) -> None:
    (stubs / "rules-4").write_text(
        "1: from 10.244.1.0/24 lookup 77\n2: from 10.244.2.0/24 lookup 77\n"
        "3: from all lookup main\n"
    )
    run(one(host_facts(**IPVS), "routing tables"))
    assert (stubs / "rules-4").read_text() == "3: from all lookup main\n"


def test_roots_kubeconfig_stays_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = host_facts(**IPVS)
    situation = SimpleNamespace(wanted=False, reset={}, facts={facts.name: facts})
    monkeypatch.setattr("kitlib.stages.reset.judge", lambda ctx: situation)
    host = SimpleNamespace(name=facts.name, node_address="192.0.2.1")
    params = SimpleNamespace(hosts=[host], effective_pod_cidr=IPv4Network("10.244.0.0/16"))
    ctx: Any = SimpleNamespace(hosts=[host], params=params)
    told = [check for check in Reset().check(ctx) if check.id == "reset.kubeconfig"]
    assert [check.status for check in told] == [Status.WARN]
    assert "/root/.kube/config" in told[0].remedy
    assert not [what for what in whats(facts) if ".kube" in what]


def with_routes(*routes: Route) -> HostFacts:
    return replace(host_facts(), routes=routes)


def test_routes_of_a_dead_network_go_and_the_hosts_own_stay() -> None:
    here = with_routes(
        Route("default", "192.0.2.254", "eth0", "static", "", "unicast"),
        Route("192.0.2.0/24", "", "eth0", "kernel", "192.0.2.9", "unicast"),
        Route("198.51.100.0/24", "192.0.2.1", "eth0", "bird", "", "unicast"),  # by way of a peer
        Route("192.168.7.0/26", "", "", "bird", "", "blackhole"),
        Route("10.244.3.0/24", "203.0.113.9", "eth0", "static", "", "unicast"),
        Route("10.244.4.0/24", "10.244.4.0", "flannel.1", "boot", "", "unicast"),
        Route("10.244.1.0/24", "", "cni0", "kernel", "10.244.1.1", "unicast"),
        Route("172.16.0.0/12", "192.0.2.254", "eth0", "static", "", "unicast"),
        Route("203.0.113.0/24", "", "", "static", "", "blackhole"),
    )
    assert one(here, "routes").what == (
        "delete the routes that were left: 198.51.100.0/24, 192.168.7.0/26, 10.244.3.0/24"
    )


def test_a_program_stays_where_a_package_brought_it() -> None:
    here = host_facts()
    left = "/opt/cni/bin/flannel"
    assert left in here.leftovers.paths
    assert not [what for what in whats(here) if left in what], "nobody knows whose it is"
    ours = replace(here, leftovers=replace(here.leftovers, packaged=()))
    assert [what for what in whats(ours) if left in what]
    theirs = replace(here, leftovers=replace(here.leftovers, packaged=(left,)))
    assert not [what for what in whats(theirs) if left in what]


def test_open_vswitch_bridges_go_by_their_names() -> None:
    here = host_facts()
    here = replace(here, leftovers=replace(here.leftovers, ovs_bridges=("alubr0", "br-lan")))
    assert one(here, "Open vSwitch").what.endswith("left: alubr0")


def test_files_that_a_plugin_renamed_get_their_names_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("87-podman.conflist.cilium_bak", "10-flannel.conflist.cilium_bak", "README"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr("kitlib.stages.leftovers.CNI_DIRECTORY", str(tmp_path))
    names = "".join(f"{path.name}\n" for path in tmp_path.iterdir())
    here = host_facts(sections={"cni.names": names, "cni.files": ""})
    whose = Whose(get("cilium"), None, frozenset())
    (action,) = [a for a in removals("h", here, whose) if "names back" in a.what]
    assert "87-podman.conflist" in action.what
    assert "remove 10-flannel.conflist.cilium_bak of an earlier plugin" in action.what
    run(action)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["87-podman.conflist", "README"]
    assert "87-podman.conflist.cilium_bak" in one(here, "CNI configuration").what
