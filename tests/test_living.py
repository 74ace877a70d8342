"""A cluster that is known by its kubeconfig: what it is, who may look, what a session can do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import apikit
import pytest
import yaml

from kitlib.errors import ParamsError, PreconditionError
from kitlib.kubeconfig import read_kubeconfig
from kitlib.living import ZONE, look_at, recognised
from kitlib.plugins import catalogue
from kitlib.rights import RIGHTS, ROLE, cluster_role
from kitlib.session import Session

NODES = {
    "cp-1": ({"node-role.kubernetes.io/control-plane": ""}, "10.0.0.1", "10.244.0.0/24"),
    "w-1": ({ZONE: "east"}, "10.0.0.2", "10.244.1.0/24"),
    "w-2": ({"failure-domain.beta.kubernetes.io/zone": "west"}, "10.0.0.3", "10.244.5.0/24"),
    "win-1": ({"kubernetes.io/os": "windows"}, "10.0.0.4", ""),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apikit.Api]:
    with apikit.running(tmp_path_factory.mktemp("api")) as api:
        for name, (labels, address, cidr) in NODES.items():
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
                "spec": {"podCIDR": cidr} if cidr else {},
            }
            api.ok("create", "-f", "-", stdin=json.dumps(node))
            addresses = {"addresses": [{"type": "InternalIP", "address": address}]}
            patch = json.dumps({"status": addresses})
            api.ok("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
        yield api


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nodes_are_hosts_and_what_is_no_host_is_said(api):
    found = look_at(read_kubeconfig(api.kubeconfig()))
    assert {host["name"]: host["role"] for host in found["hosts"]} == {
        "cp-1": "control_plane",
        "w-1": "worker",
        "w-2": "worker",
    }
    zones = {host["name"]: host["labels"].get(ZONE) for host in found["hosts"]}
    assert zones == {"cp-1": None, "w-1": "east", "w-2": "west"}
    assert found["left_out"] == {"win-1": "its system is windows"}
    assert found["kubernetes_version"] == "1.22.3"
    assert found["pod_cidr"] == "10.244.0.0/21"
    assert found["plugin"] == ""


def test_a_session_on_it_has_hosts_from_nodes_and_no_way_to_them(api, tmp_path):
    with Session.open(api.kubeconfig(), overrides={"probe.samples": 7}) as session:
        assert session.inventory.names == ("cp-1", "w-1", "w-2")
        assert session.journal.path.parent == tmp_path / "runs" / "kubernetes"
        assert session.params.probe.samples == 7
        ctx = session.context
        assert not ctx.sees_hosts
        assert ctx.facts() == {}
        assert ctx.kube().items("/api/v1/nodes")
        with session.exclusive() as left:
            assert left == ()
        with pytest.raises(PreconditionError, match="no way to the hosts"):
            session.doors.put("w-1", "text", "/etc/motd")
        with pytest.raises(PreconditionError, match="a stage works on hosts"):
            session.begin("verify")
        record = session.journal.record()
        kept = (session.journal.path / "run.json").read_text()
    assert record["plugin"] == ""
    assert record["kind"] == "diagnose"
    key = yaml.safe_load(api.kubeconfig().read_text())["users"][0]["user"]["client-key-data"]
    assert key[:40] not in kept
    # Another process goes on in that run with what was found when it began, without asking again.
    with Session.open(api.kubeconfig(), run_dir=session.journal.path) as again:
        assert again.params.hosts == session.params.hosts
        assert again.params.probe.samples == 7


def test_notebooks_by_hand_share_a_run_of_it(api):
    with Session.open(api.kubeconfig(), by_hand=True) as first:
        assert first.journal.record()["by_hand"]
    with Session.open(api.kubeconfig(), by_hand=True) as second:
        assert second.journal.path == first.journal.path
        assert not second.context.sees_hosts


def test_a_wrong_option_is_named_and_a_context_belongs_to_a_kubeconfig(api):
    with pytest.raises(ParamsError, match=r"option --plugin: 'nonesuch': unknown plugin"):
        Session.open(api.kubeconfig(), overrides={"plugin": "nonesuch"})
    with pytest.raises(ParamsError, match=r"option --set probe.samples: 0: "):
        Session.open(api.kubeconfig(), overrides={"probe.samples": 0})
    params = Path(__file__).parent.parent / "params/lab.yaml"
    with pytest.raises(ParamsError, match="is no kubeconfig"):
        Session.open(params, context="x")


def test_rights_that_are_missing_are_all_named_and_the_role_has_them(api):
    mine = api.kubeconfig("reader", ("people",))
    with pytest.raises(PreconditionError, match="user 'reader' lacks") as caught:
        look_at(read_kubeconfig(mine))
    for kind in ("nodes:", "namespaces:", "daemonsets.apps:", "pods/exec:"):
        assert kind in caught.value.message
    assert "networkpolicies" not in caught.value.message  # less is known without: no reason to stop
    assert "kit diagnose --rights" in caught.value.remedy
    api.ok("create", "-f", "-", stdin=cluster_role())
    api.ok("create", "clusterrolebinding", ROLE, f"--clusterrole={ROLE}", "--user=reader")
    assert look_at(read_kubeconfig(mine))["hosts"]


DAEMONS = "DaemonSet"


@pytest.mark.parametrize(
    ("loads", "plugin", "delegate"),
    [
        ([(DAEMONS, "kube-flannel", "kube-flannel-ds")], "flannel", ""),
        ([(DAEMONS, "flannel", "kube-flannel-ds")], "flannel", ""),  # a chart's own namespace
        ([(DAEMONS, "calico-system", "calico-node")], "calico", ""),  # the operator's
        (
            [
                (DAEMONS, "kube-flannel", "kube-flannel-ds"),
                (DAEMONS, "kube-system", "genie-plugin"),
            ],
            "cni-genie",
            "flannel",
        ),
        ([(DAEMONS, "kube-system", "kube-proxy"), ("Deployment", "a", "web")], "", ""),
        ([], "", ""),
    ],
)
def test_the_plugin_is_recognised_by_its_workloads(loads, plugin, delegate):
    assert recognised(loads, catalogue())[:2] == (plugin, delegate)


@pytest.mark.parametrize("name", [n for n, p in catalogue().items() if p.workloads])
def test_every_plugin_of_the_catalogue_is_recognised_by_all_its_workloads(name):
    plugin = catalogue()[name]
    loads = [(load.kind, load.namespace, load.name) for load in plugin.workloads]
    assert recognised(loads, catalogue())[0] == name


FLANNEL = """
apiVersion: v1
kind: Namespace
metadata: {name: kube-flannel}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-flannel-cfg, namespace: kube-flannel}
data: {net-conf.json: '{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}'}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-flannel-ds, namespace: kube-flannel}
spec:
  selector: {matchLabels: {app: flannel}}
  template:
    metadata: {labels: {app: flannel}}
    spec: {containers: [{name: kube-flannel, image: flannel}]}
"""


def test_how_the_plugin_carries_packets_is_read_from_its_objects(api):
    api.ok("apply", "-f", "-", stdin=FLANNEL)
    try:
        with Session.open(api.kubeconfig()) as session:
            assert session.params.plugin_backend == "host-gw"
            assert session.plugin.interfaces.tunnel == ""
            assert session.journal.record()["living"]["plugin_seen"] == [
                "DaemonSet kube-flannel-ds"
            ]
        with Session.open(api.kubeconfig(), overrides={"plugin": "calico"}) as session:
            assert session.plugin.name == "calico"
            assert session.params.plugin_backend == ""
    finally:
        api.ok("delete", "--ignore-not-found", "-f", "-", stdin=FLANNEL)


def test_the_rights_name_every_config_map_that_says_how_packets_go():
    backends = [plugin.backend for plugin in catalogue().values() if plugin.backend]
    places = [place for each in backends for place in each.places if place.kind == "ConfigMap"]
    (right,) = [each for each in RIGHTS if each.resource == "configmaps"]
    assert {place.name for place in places} < set(right.names)
