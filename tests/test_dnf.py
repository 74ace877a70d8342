"""The RHEL family, as golden lists: no such host was at hand, so the commands are what is held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from factory import host_facts

from kitlib.facts import HostFacts
from kitlib.params import Packages, Params, Proxy, load
from kitlib.software import dnf

LAB = Path(__file__).parents[1] / "params/lab.yaml"
INSTALL = "dnf install -y --allowerasing"
FRESH = host_facts(
    repository="fedora-like", packages="no-dpkg", containerd="absent", runtime="absent"
)


def wanted(version: str = "1.34.2", **packages: Any) -> Params:
    return replace(load(LAB), kubernetes_version=version, packages=Packages(**packages))


def shown(here: HostFacts, params: Params) -> list[str]:
    return [
        str(step.command) if step.command else f"{step.path}\n{step.content}"
        for step in dnf.steps(here, params, "KEY")
    ]


def test_a_fresh_host_from_the_community() -> None:
    assert shown(FRESH, wanted(source="community")) == [
        "/etc/pki/rpm-gpg/kubekit-kubernetes.asc\nKEY",
        "/etc/yum.repos.d/kubekit-kubernetes.repo\n"
        "# Written by the cluster network kit (kit stage packages).\n"
        "[kubekit-kubernetes]\n"
        "name=Kubernetes v1.34\n"
        "baseurl=https://pkgs.k8s.io/core:/stable:/v1.34/rpm/\n"
        "enabled=1\n"
        "gpgcheck=1\n"
        "gpgkey=file:///etc/pki/rpm-gpg/kubekit-kubernetes.asc\n"
        "exclude=kubernetes-cni kubelet kubeadm kubectl cri-tools\n",
        f"{INSTALL} --disableexcludes=kubekit-kubernetes containerd.io",
        f"{INSTALL} --disableexcludes=kubekit-kubernetes kubernetes-cni kubelet-1.34.2 "
        "kubeadm-1.34.2 kubectl-1.34.2",
        "systemctl enable --now kubelet",
    ]


def test_the_hosts_own_repositories_and_a_runtime_that_is_there() -> None:
    here = host_facts(repository="fedora-like", packages="no-dpkg")
    assert shown(here, wanted("1.30.1")) == [
        f"{INSTALL} --disableexcludes=all kubernetes-cni kubelet-1.30.1 kubeadm-1.30.1 "
        "kubectl-1.30.1",
        "systemctl enable --now kubelet",
    ]


def test_a_mirror_behind_a_proxy() -> None:
    proxy = Proxy(http="http://p:1", https="", no_proxy="")
    params = replace(wanted(source="mirror", mirror="http://m/k"), proxy=proxy)
    lines = shown(FRESH, params)
    assert "baseurl=http://m/k/core:/stable:/v1.34/rpm/" in lines[1]
    assert "\nproxy=http://p:1\n" in lines[1]
    secret = replace(params, proxy=Proxy(http="", https="http://me:pw@p:1", no_proxy=""))
    modes = {step.path: step.mode for step in dnf.steps(FRESH, secret, "KEY") if step.path}
    assert modes == {dnf.KEY_FILE: 0o644, dnf.REPOSITORY_FILE: 0o600}


def test_programs_that_a_plugin_took_away_come_back() -> None:
    node = host_facts(repository="fedora-like")
    gone = replace(node, cni=replace(node.cni, binaries=("loopback", "flannel", "portmap")))
    assert shown(gone, wanted("1.22.3")) == [
        "dnf reinstall -y --disableexcludes=all kubernetes-cni"
    ]


def test_a_node_needs_nothing() -> None:
    here = host_facts(repository="fedora-like", packages="rpm")
    assert shown(here, wanted("1.34.2")) == []
    assert shown(here, wanted("1.34.3"))[0].endswith("kubelet-1.34.3 kubeadm-1.34.3 kubectl-1.34.3")
