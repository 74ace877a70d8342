"""What stands on the hosts: judged from a control plane that runs an API, or not waited for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from factory import host_facts

from kitlib.facts import HostFacts
from kitlib.fanout import Fanned
from kitlib.inventory import Inventory
from kitlib.journal import Journal
from kitlib.params import load
from kitlib.plugins import get as get_plugin
from kitlib.stages import Context
from kitlib.stages.init import Init
from kitlib.stages.situation import judge, missing_of_init

PARAMS = Path(__file__).resolve().parent.parent / "params/lab.yaml"
PLANES = ("control-plane-1", "control-plane-2")
LOGIN, MEMBER = "/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf"
SERVER = "/etc/kubernetes/manifests/kube-apiserver.yaml"


class Doors:
    """Hosts with these files of kubeadm's, and no API."""

    def __init__(self, files: dict[str, tuple[str, ...]]) -> None:
        self.found: dict[str, HostFacts] = {}
        for name, theirs in files.items():
            here = host_facts(name)
            self.found[name] = replace(here, kubeadm=replace(here.kubeadm, files=theirs))

    def facts(self, hosts: Any, *, fresh: bool) -> Fanned[str, HostFacts]:
        return Fanned({name: self.found[name] for name in hosts if name in self.found}, {})

    def kube(self, *, wait: float) -> Any:
        raise AssertionError("an API that nobody starts was waited for")


def context(tmp_path: Path, **files: tuple[str, ...]) -> Context:
    """Return the context of two control planes that have these files."""
    params = yaml.safe_load(PARAMS.read_text())
    hosts = [{"name": name, "address": f"10.0.0.{n}", "role": "control_plane"}
             for n, name in enumerate(PLANES, start=1)]  # fmt: skip
    file = tmp_path / "params.yaml"
    ssh = {**params["ssh"], "identity_file": "id", "known_hosts": "known"}
    file.write_text(
        yaml.safe_dump(
            {**params, "hosts": hosts, "ssh": ssh, "control_plane_endpoint": "10.0.0.9:6443"}
        )
    )
    wanted = load(file)
    journal = Journal.create(tmp_path, wanted.cluster, {})
    doors: Any = Doors({name.replace("_", "-"): theirs for name, theirs in files.items()})
    plugin = get_plugin(wanted.plugin)
    return Context(wanted, plugin, Inventory.from_params(wanted), journal, doors)


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ((LOGIN, MEMBER, SERVER), (LOGIN, MEMBER, SERVER), PLANES[0]),
        ((LOGIN, MEMBER), (LOGIN, MEMBER, SERVER), PLANES[1]),
        ((), (LOGIN, MEMBER), PLANES[1]),
        ((), (), PLANES[0]),
    ],
    ids=["both", "a join that was broken off", "the other one alone", "none"],
)
def test_the_cluster_is_judged_from_a_control_plane_that_runs_an_api(
    tmp_path, first, second, chosen
):
    ctx = context(tmp_path, control_plane_1=first, control_plane_2=second)
    assert ctx.administrator.name == chosen


def test_an_init_without_an_api_servers_manifest_is_not_waited_for(tmp_path):
    """Ctrl-C between kubeadm's kubeconfig and control-plane phases: no kubelet will start one."""
    found = judge(context(tmp_path, control_plane_1=(LOGIN, MEMBER), control_plane_2=()))
    assert not found.wanted
    assert found.reset == {PLANES[0]: "a kubeadm init that did not end"}


class _Cluster:
    """An API that has these DaemonSets and every other object."""

    def __init__(self, *daemons: str) -> None:
        self.daemons = daemons

    def find(self, path: str) -> Any:
        return (
            None if "/daemonsets/" in path and path.rsplit("/", 1)[-1] not in self.daemons else {}
        )


def test_an_init_ended_without_kube_proxy_where_the_plugin_does_its_work() -> None:
    bare: Any = _Cluster()
    flannel, ovn = get_plugin("flannel"), get_plugin("ovn")
    assert missing_of_init(bare, ovn) == ()
    assert missing_of_init(bare, flannel) == ("DaemonSet kube-proxy",)


def test_init_leaves_kube_proxy_out_for_a_plugin_that_does_its_work(tmp_path: Path) -> None:
    ctx = context(tmp_path, **{PLANES[0].replace("-", "_"): ()})
    with_proxy = [str(action.command) for action in Init().plan(ctx).actions]
    ovn = replace(ctx, plugin=get_plugin("ovn"))
    _, started = Init().plan(ovn).actions
    assert not any("skip-phases" in command for command in with_proxy)
    assert "--skip-phases=addon/kube-proxy" in str(started.command)
    assert "no kube-proxy: OVN-Kubernetes" in started.what
