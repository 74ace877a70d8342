"""What the kit knows of a network plugin, field by field: one YAML file a plugin, read strictly.

The catalogue is knowledge, not code. A new plugin is one new file in `catalogue/`; nothing else in
the kit names a plugin. Names that end in `*` are prefixes (`cali*`); all others are exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

__all__ = [
    "CidrPlace",
    "Cni",
    "Interfaces",
    "Leftovers",
    "Manifest",
    "ManifestVersion",
    "Needs",
    "Plugin",
    "PodCidr",
    "PodDevice",
    "Port",
    "Supported",
    "Upstream",
    "Workload",
    "matches",
    "minor",
]

Minor = Annotated[StrictStr, Field(pattern=r"^1\.\d+$")]
"""A Kubernetes minor version, quoted in YAML: "1.22"."""


def minor(version: str) -> tuple[int, int]:
    """Return (major, minor) of a version such as `1.22.3`, `v1.22` or `1.22`."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if not found:
        raise ValueError(f"not a version: {version!r}")
    return int(found[1]), int(found[2])


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether `name` is one of `patterns`; a pattern that ends in `*` is a prefix."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Upstream(_Entry):
    """How the project stands."""

    state: Literal["maintained", "archived", "retired"]
    """Whether its authors still release it."""
    latest: StrictStr
    """The newest release known to the catalogue."""
    released: StrictStr
    """The day of that release, YYYY-MM-DD."""


class Supported(_Entry):
    """The Kubernetes versions that some release of the plugin works on."""

    min: Minor
    """The oldest minor version."""
    max: Minor
    """The newest minor version that was known to work when this entry was written."""
    note: StrictStr = ""
    """What the range rests on."""

    def covers(self, version: str) -> bool:
        """Return whether a Kubernetes version lies in the range."""
        return minor(self.min) <= minor(version) <= minor(self.max)


class ManifestVersion(_Entry):
    """One release of the plugin and the Kubernetes versions it is meant for."""

    version: StrictStr
    """The release tag, as it stands in the address."""
    kubernetes: Supported
    """The Kubernetes versions that this release fits."""


class Manifest(_Entry):
    """What `kubectl apply -f` gets."""

    address: StrictStr
    """The address of the manifest, `{version}` standing for the release tag."""
    versions: tuple[ManifestVersion, ...] = Field(min_length=1)
    """The releases, newest first; the first that fits the cluster's version is taken."""

    def for_kubernetes(self, version: str) -> ManifestVersion | None:
        """Return the newest release that fits a Kubernetes version, or None.

        A Kubernetes newer than every range gets the newest release: the ranges end where knowledge
        ended when the entry was written, and upstream goes on.
        """
        newest = self.versions[0]
        if minor(version) > minor(newest.kubernetes.max):
            return newest
        return next((each for each in self.versions if each.kubernetes.covers(version)), None)


class CidrPlace(_Entry):
    """Where a manifest states the pod CIDR, found by structure and never by text."""

    kind: StrictStr
    """The object's kind."""
    namespace: StrictStr
    """The object's namespace."""
    name: StrictStr
    """The object's name."""
    key: StrictStr = ""
    """For a ConfigMap: the data key, whose value is JSON."""
    path: StrictStr = ""
    """For a ConfigMap: the field inside that JSON."""
    env: StrictStr = ""
    """For a workload: the environment variable; absent means the plugin's default."""


class PodCidr(_Entry):
    """The addresses that pods get."""

    default: IPv4Network
    """What upstream's manifest expects, or kubeadm users usually pass where it expects nothing."""
    stated_in: CidrPlace | None
    """Where the manifest states it; null when the plugin reads each Node's podCIDR."""
    block: StrictStr
    """How a node gets its share, in words."""


class Workload(_Entry):
    """One workload that must be available for the plugin to count as healthy."""

    kind: Literal["DaemonSet", "Deployment"]
    """DaemonSet: one pod a node. Deployment: some pods anywhere."""
    namespace: StrictStr
    """Its namespace."""
    name: StrictStr
    """Its name."""
    selector: dict[StrictStr, StrictStr]
    """The labels that its pods carry."""
    starts_on_not_ready: StrictBool
    """Whether its pods start on nodes that are not Ready yet; the others wait for the network."""


class Cni(_Entry):
    """What the plugin leaves for the container runtime to find."""

    files: tuple[StrictStr, ...] = Field(min_length=1)
    """Names in /etc/cni/net.d of its network configuration."""
    extra_files: tuple[StrictStr, ...] = ()
    """Other names that it keeps in /etc/cni/net.d."""
    types: tuple[StrictStr, ...] = Field(min_length=1)
    """The CNI types that its configuration calls, the interface-making one first."""
    binaries: tuple[StrictStr, ...]
    """The programs that must be in /opt/cni/bin for it to work."""


class PodDevice(_Entry):
    """The device on the host that a pod's packets pass first."""

    kind: Literal["bridge", "veth"]
    """bridge: pods' veth ends hang on it. veth: each pod has its own."""
    name: StrictStr
    """The bridge's name, or the prefix of the veth names as `cali*`."""


class Interfaces(_Entry):
    """The network devices that the plugin makes on a host."""

    pod: PodDevice
    """The pod-facing device."""
    tunnel: StrictStr = ""
    """The device that packets to other nodes leave through; empty when that is the host's own."""
    owned: tuple[StrictStr, ...] = Field(min_length=1)
    """Every name or prefix that, seen on a host, means that this plugin was here."""


class Port(_Entry):
    """A port that hosts must be able to reach on each other."""

    port: Annotated[StrictInt, Field(ge=1, le=65535)]
    """The number."""
    protocol: Literal["tcp", "udp"]
    """The protocol."""
    what: StrictStr
    """What it is for."""


class Leftovers(_Entry):
    """What stays on a host when the plugin is gone (`kubeadm reset` keeps all of it)."""

    interfaces: tuple[StrictStr, ...]
    """Devices to delete."""
    paths: tuple[StrictStr, ...]
    """Files and directories to delete, absolute."""
    iptables_chains: tuple[StrictStr, ...]
    """iptables chains, or their prefixes."""
    nft_tables: tuple[StrictStr, ...] = ()
    """nftables tables, by name."""
    ipsets: tuple[StrictStr, ...] = ()
    """ipsets, or their prefixes."""
    route_tables: tuple[StrictStr, ...] = ()
    """Routing tables that its rules lead to, by number and by name."""


class Needs(_Entry):
    """What must be there before the plugin can work."""

    modules: tuple[StrictStr, ...]
    """Kernel modules, for the datapath that the catalogue describes."""
    sysctls: dict[StrictStr, StrictStr] = {}
    """Kernel settings and their values."""
    node_pod_cidr: StrictBool
    """Whether each Node must have a podCIDR (kubeadm's --pod-network-cidr)."""


class Plugin(_Entry):
    """One network plugin."""

    name: Annotated[StrictStr, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """The short name used in parameters; equals the file's name."""
    title: StrictStr
    """The name as its authors write it."""
    what: StrictStr
    """What it is, in one or two sentences."""
    datapath: StrictStr
    """How a packet gets from pod to pod on another node."""
    layer: StrictStr
    """The OSI layers that it works on."""
    overhead_bytes: Annotated[StrictInt, Field(ge=0)]
    """What the datapath takes from the MTU."""
    status: Upstream
    """How the project stands."""
    kubernetes: Supported
    """The Kubernetes versions that some release works on."""
    manifest: Manifest
    """What `kubectl apply -f` gets."""
    pod_cidr: PodCidr
    """The addresses that pods get."""
    workloads: tuple[Workload, ...] = Field(min_length=1)
    """What must be available."""
    cni: Cni
    """What it leaves for the container runtime."""
    interfaces: Interfaces
    """The devices that it makes."""
    ports: tuple[Port, ...]
    """The ports that it needs between hosts."""
    leftovers: Leftovers
    """What stays behind."""
    needs: Needs
    """What must be there first."""
    network_policy: StrictBool
    """Whether NetworkPolicy objects have an effect."""
    node_condition_reason: StrictStr = ""
    """The reason it writes into the Node condition NetworkUnavailable; empty for none."""
    sources: tuple[StrictStr, ...] = Field(min_length=1)
    """Where the facts come from: owner/repository@release:path."""

    def manifest_address(self, kubernetes_version: str) -> str:
        """Return the address of the release for a Kubernetes version; empty when none fits."""
        fitting = self.manifest.for_kubernetes(kubernetes_version)
        return self.manifest.address.format(version=fitting.version) if fitting else ""

    def owns_interface(self, name: str) -> bool:
        """Return whether a device of that name is this plugin's."""
        return matches(name, self.interfaces.owned)

    def owns_cni_file(self, name: str) -> bool:
        """Return whether a file of that name in /etc/cni/net.d is this plugin's."""
        return matches(name, (*self.cni.files, *self.cni.extra_files))

    def is_pod_device(self, name: str) -> bool:
        """Return whether a device of that name is the pod-facing one (or one of them)."""
        return matches(name, (self.interfaces.pod.name,))
