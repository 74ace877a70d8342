"""What the lab's package archive offers, what depends on what, and what a package puts in place."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node import containerd, services
from kitlib.lab.node.state import CONTAINERD_VERSION, state_of
from kitlib.software.releases import NEWEST_PATCH

__all__ = [
    "BASE",
    "CNI_PROGRAMS",
    "DEFAULT_VERSION",
    "Package",
    "candidate",
    "depends",
    "install_files",
    "minor_of",
    "newer",
    "offered",
    "package",
    "remove_files",
    "upstream",
]

DEFAULT_VERSION = "1.22.3"
"""The Kubernetes version that `apt-get install kubelet` takes where no repository is chosen."""

_LEGACY_BELOW = 24
"""Minors below this come from the old repository and carry its `-00` revision."""

_CNI = {24: "1.1.1", 27: "1.2.0", 29: "1.3.0", 30: "1.4.0", 31: "1.5.1", 32: "1.6.0", 34: "1.7.1"}
"""First Kubernetes minor -> the kubernetes-cni version of its repository."""

CNI_PROGRAMS = (
    "bandwidth", "bridge", "dhcp", "firewall", "host-device", "host-local", "ipvlan", "loopback",
    "macvlan", "portmap", "ptp", "sbr", "static", "tuning", "vlan", "vrf",
)  # fmt: skip

BASE = {
    "apt-transport-https": "2.6.1",
    "ca-certificates": "20230311",
    "conntrack": "1:1.4.7-1+b2",
    "containerd": CONTAINERD_VERSION,
    "curl": "7.88.1-10+deb12u12",
    "ebtables": "2.0.11-5",
    "ethtool": "1:6.1-1",
    "gnupg": "2.2.40-1.1",
    "iproute2": "6.1.0-3",
    "iptables": "1.8.9-2",
    "runc": "1.1.5+ds1-1+deb12u1",
    "socat": "1.7.4.4-2",
}
"""What every lab host has installed from the start."""


_SUMMARIES = {
    "apt-transport-https": "transitional package for https support",
    "ca-certificates": "Common CA certificates",
    "conntrack": "Program to modify the conntrack tables",
    "containerd": "open and reliable container runtime",
    "curl": "command line tool for transferring data with URL syntax",
    "ebtables": "Ethernet bridge frame table administration",
    "ethtool": "display or change Ethernet device settings",
    "gnupg": "GNU privacy guard - a free PGP replacement",
    "iproute2": "networking and traffic control tools",
    "iptables": "administration tools for packet filtering and NAT",
    "runc": "Open Container Project - runtime",
    "socat": "multipurpose relay for bidirectional data transfer",
}


@dataclass(frozen=True, slots=True)
class Package:
    """One package as the archive describes it.

    Attributes:
        name: The package's name.
        summary: Its one-line description.
        kilobytes: The size of the archive file.
        installed: Kilobytes on disk.
    """

    name: str
    summary: str
    kilobytes: int
    installed: int


_ADMIN = "Command-line utility for administering a Kubernetes cluster"
_CLIENT = "Command-line utility for interacting with a Kubernetes cluster"
_RUNTIME_CLIENT = "Command-line utility for interacting with a container runtime"
_NETWORK = "Binaries required to provision kubernetes container networking"
_ARCHIVE = {
    found.name: found
    for found in (
        Package("kubelet", "Node agent for Kubernetes clusters", 19_200, 121_000),
        Package("kubeadm", _ADMIN, 8_700, 45_300),
        Package("kubectl", _CLIENT, 9_020, 47_000),
        Package("kubernetes-cni", _NETWORK, 25_000, 47_028),
        Package("cri-tools", _RUNTIME_CLIENT, 18_900, 52_200),
    )
}

_DROP_IN = """\
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# This is a file that the user can use for overrides of the kubelet args as a last resort. Preferably, the user should use
# the .NodeRegistration.KubeletExtraArgs object in the configuration files instead. KUBELET_EXTRA_ARGS should be sourced from this file.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""  # noqa: E501
_DROP_IN_PATH = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"


def package(name: str) -> Package | None:
    """Return what the archive says of a package; None where it has none of that name."""
    if name in BASE:
        return Package(name, _SUMMARIES[name], 500, 1_500)
    return _ARCHIVE.get(name)


def upstream(version: str) -> str:
    """Return the upstream part of a package version: `1.22.3-00` -> `1.22.3`."""
    return version.rpartition(":")[2].partition("-")[0]


def minor_of(version: str) -> int:
    """Return the minor of a Kubernetes version (`1.22.3-00` -> 22)."""
    return int(upstream(version).split(".")[1])


def newer(left: str, right: str) -> bool:
    """Return whether package version `left` is above `right`."""
    return _order(left) > _order(right)


@cache
def offered(name: str) -> tuple[str, ...]:
    """Return every version of a package in the archive, newest first."""
    if name in BASE:
        return (BASE[name],)
    if name in ("kubelet", "kubeadm", "kubectl"):
        found = [
            _revision(f"1.{minor}.{patch}", minor)
            for minor, last in NEWEST_PATCH.items()
            for patch in range(last + 1)
        ]
    elif name == "kubernetes-cni" or name == "cri-tools":
        found = [_companion(name, minor) for minor in NEWEST_PATCH]
    else:
        return ()
    return tuple(sorted(set(found), key=_order, reverse=True))


def candidate(host: LabHost, name: str, wanted: str = "", *, minor: int | None = None) -> str:
    """Return the version that apt would install; empty where the archive has none that fits.

    Args:
        host: The host; its Kubernetes repository, where it names one, says which minor it sees.
        name: The package.
        wanted: A version or a pattern (`1.22.3-*`) given behind `=`.
        minor: The Kubernetes minor that a companion package must fit.
    """
    versions = offered(name)
    if wanted:
        return next((found for found in versions if fnmatchcase(found, wanted)), "")
    if name in BASE or not versions:
        return versions[0] if versions else ""
    repository = _repository_minor(host)
    if name in ("kubernetes-cni", "cri-tools"):
        return _companion(name, minor or repository or minor_of(DEFAULT_VERSION))
    if repository is None:
        return _revision(DEFAULT_VERSION, minor_of(DEFAULT_VERSION))
    return _revision(f"1.{repository}.{NEWEST_PATCH[repository]}", repository)


def depends(name: str, version: str) -> tuple[str, ...]:
    """Return the names of the packages that this version of a package needs."""
    if name == "kubelet":
        return (
            "kubernetes-cni",
            "conntrack",
            "ebtables",
            "ethtool",
            "iproute2",
            "iptables",
            "socat",
        )
    if name == "kubeadm":
        minor = minor_of(version)
        tools = ("cri-tools",) if minor < 32 else ()
        return ("kubelet", "kubectl", *(("kubernetes-cni",) if minor < 30 else ()), *tools)
    if name == "containerd":
        return ("runc",)
    return ()


async def install_files(host: LabHost, name: str, version: str) -> None:
    """Put a package's files, commands and services in place; starts the kubelet once installed."""
    state = state_of(host)
    fresh = name not in state.packages
    state.packages[name] = version
    state.removed.pop(name, None)
    if name == "kubernetes-cni":
        _cni_plugins(host, upstream(version))
    elif name == "kubeadm":
        drop_in = state.path(_DROP_IN_PATH)
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(_DROP_IN)
        host.install_command("kubeadm")
    elif name in ("kubelet", "kubectl"):
        host.install_command(name)
    elif name == "cri-tools":
        host.install_command("crictl")
    elif name == "containerd" and fresh:
        host.install_command("containerd")
        host.install_command("ctr")
        containerd.write_package_config(host)
        await services.add_containerd(host)
    if name == "kubelet":
        for folder in ("/etc/kubernetes/manifests", "/var/lib/kubelet"):
            state.path(folder).mkdir(parents=True, exist_ok=True)
        if fresh:
            await services.add_kubelet(host)
        elif state.running("kubelet") or state.services["kubelet"].active == "activating":
            await services.stop(host, "kubelet")
            await services.start(host, "kubelet")


async def remove_files(host: LabHost, name: str, *, purge: bool) -> None:
    """Take a package's files, commands and services away."""
    state = state_of(host)
    version = state.packages.pop(name)
    if not purge and name in ("kubelet", "kubeadm", "containerd"):
        state.removed[name] = version
    if name == "kubelet":
        await services.remove_kubelet(host)
    if name == "kubernetes-cni":
        shutil.rmtree(state.path("/opt/cni"), ignore_errors=True)
    if name == "kubeadm" and purge:
        state.path(_DROP_IN_PATH).unlink(missing_ok=True)
    if name == "containerd":
        await services.stop(host, "containerd")
        state.services.pop("containerd")
        host.remove_command("containerd")
        host.remove_command("ctr")
        if purge:
            shutil.rmtree(state.path("/etc/containerd"), ignore_errors=True)
    if name in ("kubelet", "kubeadm", "kubectl"):
        host.remove_command(name)
    if name == "cri-tools":
        host.remove_command("crictl")


def _cni_plugins(host: LabHost, version: str) -> None:
    folder = state_of(host).path("/opt/cni/bin")
    folder.mkdir(parents=True, exist_ok=True)
    for plugin in CNI_PROGRAMS:
        file = folder / plugin
        file.write_text(
            "#!/bin/sh\n"
            f"echo 'CNI {plugin} plugin v{version}' >&2\n"
            "echo 'CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0' >&2\n"
        )
        file.chmod(0o755)


def _revision(version: str, minor: int) -> str:
    return f"{version}-00" if minor < _LEGACY_BELOW else f"{version}-1.1"


def _companion(name: str, minor: int) -> str:
    """Return the version of kubernetes-cni or cri-tools beside a Kubernetes minor."""
    if minor < _LEGACY_BELOW:
        return "1.1.1-00" if name == "kubernetes-cni" else "1.26.0-00"
    if name == "cri-tools":
        return f"1.{minor}.0-1.1"
    return f"{_CNI[max(first for first in _CNI if first <= minor)]}-1.1"


def _repository_minor(host: LabHost) -> int | None:
    """Return the minor of the Kubernetes repository that the host's sources name."""
    sources = state_of(host).path("/etc/apt/sources.list.d")
    found: Iterable[str] = ()
    for file in sorted(sources.glob("*.list")) + sorted(sources.glob("*.sources")):
        found = re.findall(r"core:/stable:/v1\.(\d+)/deb", file.read_text())
        for minor in found:
            if int(minor) in NEWEST_PATCH:
                return int(minor)
    return None


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(bit) for bit in re.findall(r"\d+", version))
