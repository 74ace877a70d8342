"""A network without a manifest: what is planned host by host, and what its program really does."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from factory import host_facts
from pydantic import ValidationError

from kitlib import plugins
from kitlib.command import Cmd
from kitlib.errors import PreconditionError
from kitlib.facts import routes
from kitlib.model import CommandResult, Status
from kitlib.plugins import Plugin
from kitlib.software import node_network
from kitlib.stages import get_stage, per_node

KUBENET = plugins.get("kubenet")
PODS = IPv4Network("10.244.0.0/16")
CIDRS = {"cp": "10.244.0.0/24", "w-1": "10.244.1.0/24", "w-2": "10.244.2.0/24"}
INSIDE = ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/admin.conf")
ADDRESSES = {"cp": "192.0.2.1", "w-1": "192.0.2.2", "w-2": "192.0.2.3"}


def node(name: str, cidr: str = "") -> dict[str, Any]:
    address = {"type": "InternalIP", "address": ADDRESSES[name]}
    spec = {"podCIDR": cidr} if cidr else {}
    return {"metadata": {"name": name}, "spec": spec, "status": {"addresses": [address]}}


class Cluster:
    """Three hosts in one cluster, and what lies on them: host -> path -> text."""

    def __init__(self, plugin: Plugin = KUBENET, cidrs: dict[str, str] = CIDRS) -> None:
        self.plugin = plugin
        self.params = SimpleNamespace(effective_pod_cidr=PODS)
        self.read_only = False
        self.nodes = [node(name, cidrs[name]) for name in CIDRS]
        self.files: dict[str, dict[str, str]] = {name: {} for name in CIDRS}
        self.routes: dict[str, tuple[routes.Route, ...]] = dict.fromkeys(CIDRS, ())
        self.ready = dict.fromkeys(CIDRS, False)
        self.hosts = [SimpleNamespace(name=name) for name in CIDRS]
        self.administrator = self.hosts[0]

    def facts(self) -> dict[str, Any]:
        base = host_facts("x").kubeadm
        inside = type(base)(
            **{f: getattr(base, f) for f in base.__dataclass_fields__}
            | {
                "files": ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/admin.conf"),
                "ca_hash": "sha256:1",
            }
        )
        return {
            name: SimpleNamespace(
                name=name, kubeadm=inside, routes=self.routes[name],
                links=[SimpleNamespace(addresses=(f"{ADDRESSES[name]}/24",), mtu=1400)],
            )
            for name in CIDRS
        }  # fmt: skip

    def kube(self) -> Any:
        return SimpleNamespace(items=lambda path: self.nodes)

    def waiting(self, host: str, text: str) -> None:
        self.told = (host, text)

    def read(self, host: str, cmd: Cmd) -> CommandResult:
        assert not cmd.mutates
        out, ok = "", self.ready[host]
        if "pod network's files" in cmd.label:
            paths = cmd.argv[4:]
            out = "".join(f"@@ {p}\n{self.files[host].get(str(p), '')}" for p in paths)
            ok = True
        return CommandResult(host, str(cmd), out, "", 0 if ok else 1)

    def do(self) -> None:
        """Take it that the plan was done."""
        for name in CIDRS:
            ways = {CIDRS[o]: ADDRESSES[o] for o in CIDRS if o != name}
            self.files[name] = {
                f"/etc/cni/net.d/{self.plugin.cni.files[0]}": node_network.cni_configuration(
                    self.plugin, CIDRS[name], 1400
                ),
                node_network.keeper_path(self.plugin): node_network.keeper_script(
                    self.plugin, PODS, ways
                ),
                f"/etc/systemd/system/kubekit-{self.plugin.name}.service": node_network.keeper_unit(
                    self.plugin
                ),
            }
            self.routes[name] = tuple(
                routes.Route(net, via, "eth0", "static", "", "unicast") for net, via in ways.items()
            )
            self.ready[name] = True


def planned(ctx: Any) -> list[tuple[str, str]]:
    return [(action.target, action.what) for action in per_node.plan(ctx).actions]


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_node, "in_the_cluster", lambda ctx: list(CIDRS))


def own_plugin() -> Plugin:
    """What a user's own file would describe."""
    data = yaml.safe_load((Path(plugins.__file__).parent / "catalogue/kubenet.yaml").read_text())
    text = json.dumps(data).replace("kubenet", "mynet").replace("cbr0", "mybr0")
    return Plugin.model_validate(json.loads(text))


@pytest.mark.parametrize("plugin", [KUBENET, own_plugin()], ids=lambda each: each.name)
def test_each_host_gets_routes_rule_unit_and_file_and_then_nothing(plugin: Plugin) -> None:
    cluster = Cluster(plugin)
    told = planned(cluster)
    assert [host for host, _ in told] == ["cp"] * 3 + ["w-1"] * 3 + ["w-2"] * 3
    text = "\n".join(what for host, what in told if host == "w-1")
    for word in (
        "10.244.0.0/24 via 192.0.2.1, 10.244.2.0/24 via 192.0.2.3",
        f"/etc/kubekit/{plugin.name}.sh",
        f"kubekit-{plugin.name}.service",
        f"bridge {plugin.interfaces.pod.name}, pods' addresses from 10.244.1.0/24",
    ):
        assert word in text
    assert per_node.check(cluster).status is Status.FAIL
    cluster.do()
    assert planned(cluster) == []
    assert per_node.check(cluster).status is Status.PASS


def test_only_what_changed_is_planned_anew() -> None:
    cluster = Cluster()
    cluster.do()
    old = routes.Route("10.244.7.0/24", "192.0.2.9", "eth0", "static", "", "unicast")
    cluster.routes["w-2"] = (*cluster.routes["w-2"][1:], old)
    cluster.files["cp"].popitem()
    told = planned(cluster)
    assert [host for host, _ in told] == ["cp", "w-2", "w-2"]
    assert told[1][1] == "delete routes that lead to no node's pods: 10.244.7.0/24"
    found = per_node.check(cluster)
    assert found.status is Status.FAIL
    assert "w-2: route 10.244.7.0/24 leads elsewhere; no route to 10.244.0.0/24 via" in found.got


def test_a_dry_run_before_there_is_a_cluster_shows_every_host(monkeypatch: Any) -> None:
    cluster = Cluster()
    cluster.read_only = True
    empty = host_facts("x").kubeadm
    facts = cluster.facts()
    for each in facts.values():
        each.kubeadm = empty
    monkeypatch.setattr(cluster, "facts", lambda: facts)
    assert len(planned(cluster)) == 9
    assert "the podCIDR that the cluster gives its Node" in planned(cluster)[2][1]


def test_a_node_without_a_pod_cidr_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(per_node, "POD_CIDR_SECONDS", 0.9)
    cluster = Cluster(cidrs={**CIDRS, "w-2": ""})
    with pytest.raises(PreconditionError, match="w-2: the cluster gives it no podCIDR"):
        per_node.plan(cluster)  # type: ignore[arg-type]


def test_ready_may_change_something_for_such_a_network_alone() -> None:
    ready, preflight = get_stage("ready"), get_stage("preflight")
    ctx: Any = SimpleNamespace(plugin=plugins.get("flannel"))
    assert ready.only_looks(ctx)
    ctx.plugin = KUBENET
    assert not ready.only_looks(ctx)
    assert preflight.only_looks(ctx)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ip` and an `iptables` that write down what they were asked to change."""
    (tmp_path / "bin").mkdir()
    for name, text in {
        "ip": f'echo "ip $*" >> {tmp_path}/done; [ "$4" != 10.244.9.0/24 ]',
        "iptables": f'case "$*" in *" -C "*) grep -q MASQ {tmp_path}/done;; '
        f'*) echo "iptables $*" >> {tmp_path}/done;; esac',
    }.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path


def test_the_program_sets_routes_and_one_rule_however_often_it_runs(tools: Path) -> None:
    ways = {"10.244.1.0/24": "192.0.2.2", "10.244.2.0/24": "192.0.2.3"}
    file = tools / "x.sh"
    file.write_text(node_network.keeper_script(KUBENET, PODS, ways))
    for _ in range(2):
        subprocess.run(["sh", file, "once"], check=True, env=os.environ)
    done = (tools / "done").read_text().splitlines()
    assert done.count("ip -4 route replace 10.244.1.0/24 via 192.0.2.2 proto static") == 2
    rules = [line for line in done if line.startswith("iptables")]
    assert rules == [
        "iptables -w -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -m comment "
        "--comment kubenet: SNAT for outbound traffic from cluster -j MASQUERADE"
    ]
    file.write_text(node_network.keeper_script(KUBENET, PODS, {"10.244.9.0/24": "192.0.2.9"}))
    assert subprocess.run(["sh", file, "once"], env=os.environ).returncode == 1


def test_the_configuration_is_what_the_bridge_program_takes() -> None:
    read = json.loads(node_network.cni_configuration(KUBENET, "10.244.1.0/24", 1400))
    bridge, portmap = read["plugins"]
    assert read["name"] == "kubenet"
    assert (bridge["bridge"], bridge["mtu"], portmap["type"]) == ("cbr0", 1400, "portmap")
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]
    assert plugins.catalogue().owner_of_cni_file("x.conflist", json.dumps(read)) == "kubenet"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"needs": {"modules": [], "node_pod_cidr": False}}, "per_node: wants needs.node_pod_cidr"),
        ({"per_node": {"file": "a/b.conflist", "network": "n", "comment": "c"}}, "per_node.file"),
        ({"per_node": {"file": "b.conflist", "network": "n", "comment": '"'}}, "per_node.comment"),
        ({"workloads": [{"kind": "DaemonSet", "namespace": "a", "name": "b", "selector": {},
                         "starts_on_not_ready": True}]}, "none with per_node"),
    ],
)  # fmt: skip
def test_an_entry_that_contradicts_itself_is_refused(changes: dict[str, Any], part: str) -> None:
    data = KUBENET.model_dump(mode="json")
    with pytest.raises(ValidationError) as caught:
        Plugin.model_validate_json(json.dumps({**data, **changes}))
    assert part in str(caught.value)
