"""What the kit knows of a network plugin, field by field: one YAML file a plugin, read strictly.

The catalogue is knowledge, not code. A new plugin is one new file in `catalogue/`; nothing else in
the kit names a plugin. Names that end in `*` are prefixes (`cali*`); all others are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from kitlib.plugins.entry import Entry as _Entry
from kitlib.plugins.entry import Minor, Supported, minor
from kitlib.plugins.install import (
    Backend,
    Chart,
    Manifest,
    Parameter,
    PerNode,
    Place,
    Release,
    Setting,
)

__all__ = [
    "Cni",
    "Hazards",
    "Interfaces",
    "Leftovers",
    "Needs",
    "Plugin",
    "PodCidr",
    "PodDevice",
    "Port",
    "Trap",
    "Upstream",
    "Workload",
    "matches",
    "minor",
]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether `name` is one of `patterns`; a pattern that ends in `*` is a prefix."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )


class Upstream(_Entry):
    """How the project stands."""

    state: Literal["maintained", "archived", "retired", "commercial"]
    """maintained: its authors release it. archived: read-only, may still work. retired: dead.
    commercial: by contract only."""
    latest: StrictStr
    """The newest release known to the catalogue."""
    released: StrictStr
    """The day of that release, YYYY-MM-DD."""
    note: StrictStr = ""
    """What else a person should know of it: forks, governance, where its images went."""
    instead: tuple[StrictStr, ...] = ()
    """For what is not maintained: living plugins of the catalogue that do the same work."""


class PodCidr(_Entry):
    """The addresses that pods get."""

    default: IPv4Network
    """What upstream's manifest expects, or kubeadm users usually pass where it expects nothing."""
    stated_in: Place | None
    """Where the manifest states it; null when the plugin reads each Node's podCIDR."""
    prefix: StrictInt | None = None
    """The one prefix length that the plugin takes; null for any."""
    block: StrictStr
    """How a node gets its share, in words."""


class Workload(_Entry):
    """One workload that must be available for the plugin to count as healthy."""

    kind: Literal["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]
    """DaemonSet: one pod a node that its selector takes. The others: some pods anywhere."""
    namespace: StrictStr
    """Its namespace."""
    name: StrictStr
    """Its name."""
    selector: dict[StrictStr, StrictStr]
    """The labels that its pods carry."""
    starts_on_not_ready: StrictBool
    """Whether its pods start on nodes that are not Ready yet, as the kit applies it; the others
    wait for the network."""
    nodes: Literal["all", "control_plane", "workers"] = "all"
    """For a DaemonSet: the nodes that its pods run on."""


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
    host_routes: StrictStr = ""
    """The device that the host's own routes to its pods lead through, where it is another one."""


class Interfaces(_Entry):
    """The network devices that the plugin makes on a host."""

    pod: PodDevice
    """The pod-facing device."""
    tunnel: StrictStr = ""
    """The device that packets to other nodes leave through; empty when that is the host's own."""
    owned: tuple[StrictStr, ...]
    """Every name or prefix that, seen on a host, means that this plugin was here; none for one that
    calls another."""


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
    iptables_comments: tuple[StrictStr, ...] = ()
    """Comments of single iptables rules outside of chains of its own."""
    nft_tables: tuple[StrictStr, ...] = ()
    """nftables tables, by name."""
    ovs_bridges: tuple[StrictStr, ...] = ()
    """Open vSwitch bridges to delete with ovs-vsctl, where that is installed."""
    ipsets: tuple[StrictStr, ...] = ()
    """ipsets, or their prefixes."""
    route_protocols: tuple[StrictStr, ...] = ()
    """Protocols of its blackhole routes, as `ip route` shows them: by name or number."""
    renamed_suffixes: tuple[StrictStr, ...] = ()
    """What it appends to the names of other files in /etc/cni/net.d; they get their names back."""
    api_groups: tuple[StrictStr, ...] = ()
    """API groups of CustomResourceDefinitions that its pods make themselves."""
    node_annotations: tuple[StrictStr, ...] = ()
    """Annotations that it writes on Nodes, or their prefixes."""
    route_tables: tuple[StrictStr, ...] = ()
    """Routing tables that its rules lead to, by number and by name."""


class Needs(_Entry):
    """What must be there before the plugin can work."""

    modules: tuple[StrictStr, ...]
    """Kernel modules, for the datapath that the catalogue describes."""
    sysctls: dict[StrictStr, StrictStr] = Field(default={})
    """Kernel settings and their values."""
    node_pod_cidr: StrictBool
    """Whether each Node must have a podCIDR (kubeadm's --pod-network-cidr)."""
    kube_proxy: Literal["required", "optional", "absent"] = "required"
    """absent: it must not run (`kubeadm init --skip-phases=addon/kube-proxy`)."""
    service_cidr: IPv4Network | None = None
    """The one Service range that its manifest is written for; null for any."""
    kernel: StrictStr = ""
    """The oldest kernel, such as 5.10; empty for any that Kubernetes takes."""
    node_labels: dict[StrictStr, StrictStr] = Field(default={})
    """Labels that nodes must carry before it is applied; {node} stands for the Node's name."""
    control_plane_labels: dict[StrictStr, StrictStr] = Field(default={})
    """The same, for control planes alone."""
    delegate: StrictStr = ""
    """For a plugin without a datapath: the plugin of the catalogue that is applied before it, where
    the parameters name no other; it finds it by its name in the name of its file."""


class Hazards(_Entry):
    """What it does to a host that its operator should know beforehand."""

    moves_host_address: StrictBool = False
    """It puts the host's own address on a bridge, which can cut SSH off: guarded by a timer."""
    cni_directory: StrictStr = ""
    """What it does to other plugins' files in /etc/cni/net.d and /opt/cni/bin, in words."""
    private_images: StrictBool = False
    """Its images are in no public registry."""


class Trap(_Entry):
    """One known way in which its manifest does not do what it seems to; shown in the plan."""

    what: StrictStr
    """What goes wrong, and how it shows."""
    handled: StrictStr
    """What the kit does about it."""
    since: Minor | None = None
    """The Kubernetes version from which on it bites; null for every one."""


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
    encapsulation: StrictStr = ""
    """What packets between nodes are wrapped in, in a word or two such as VXLAN; empty: nothing."""
    layer: StrictStr
    """The OSI layers that it works on."""
    overhead_bytes: Annotated[StrictInt, Field(ge=0)]
    """What the datapath takes from the MTU."""
    status: Upstream
    """How the project stands."""
    kubernetes: Supported
    """The Kubernetes versions that some release works on."""
    manifest: Manifest | None = None
    """What `kubectl apply -f` gets; one of manifest, chart and per_node is given."""
    chart: Chart | None = None
    """The Helm chart that is rendered into a manifest."""
    per_node: PerNode | None = None
    """What the kit writes on each host, for a network that has no manifest."""
    mtu: Setting | None = None
    """Where the manifest states the pods' MTU; null when the plugin finds it by itself."""
    backend: Backend | None = None
    """Where the manifest states the encapsulation."""
    parameters: tuple[Parameter, ...] = ()
    """What only its operator can know, such as the addresses of its controllers."""
    pod_cidr: PodCidr
    """The addresses that pods get."""
    workloads: tuple[Workload, ...] = ()
    """What must be available; none for a network that is written on each host."""
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
    hazards: Hazards = Hazards()
    """What it does to a host beyond its own files."""
    traps: tuple[Trap, ...] = ()
    """Known traps of its manifest."""
    network_policy: StrictBool
    """Whether NetworkPolicy objects have an effect."""
    encryption: tuple[StrictStr, ...] = ()
    """How packets between nodes can be encrypted."""
    ipv6: Literal["yes", "no", "not stated"] = "not stated"
    """Whether pods can have IPv6 addresses."""
    node_condition_reason: StrictStr = ""
    """The reason it writes into the Node condition NetworkUnavailable; empty for none."""
    sources: tuple[StrictStr, ...] = Field(min_length=1)
    """Where the facts come from: owner/repository@release:path."""

    @model_validator(mode="after")
    def _installed_one_way(self) -> Plugin:
        if sum(way is not None for way in (self.manifest, self.chart, self.per_node)) != 1:
            raise ValueError("exactly one of manifest, chart and per_node")
        if bool(self.workloads) == bool(self.per_node):
            raise ValueError("workloads: at least one, and none with per_node")
        if self.per_node and not (
            self.needs.node_pod_cidr and self.interfaces.pod.kind == "bridge"
        ):
            raise ValueError("per_node: wants needs.node_pod_cidr, and a bridge as pod device")
        return self

    @model_validator(mode="after")
    def _has_devices(self) -> Plugin:
        if not self.interfaces.owned and not self.needs.delegate:
            raise ValueError("interfaces.owned: at least one, or needs.delegate")
        return self

    def with_backend(self, word: str) -> Plugin:
        """Return the plugin as it is with one of its backend's words; empty for its usual one."""
        way = self.backend.datapaths.get(word) if self.backend else None
        if way is None:
            return self
        devices = self.interfaces.model_copy(update={"tunnel": way.tunnel})
        update = {"encapsulation": way.encapsulation, "overhead_bytes": way.overhead_bytes}
        return self.model_copy(update={**update, "interfaces": devices})

    @property
    def releases(self) -> tuple[Release, ...]:
        """The releases that can be installed, newest first; empty where there is none."""
        source = self.manifest or self.chart
        return source.versions if source else ()

    def release_for(self, kubernetes_version: str, *, nearest: bool = False) -> Release | None:
        """Return the newest release that fits a Kubernetes version, or None.

        A Kubernetes newer than every range gets the newest release of a maintained plugin: the
        ranges end where knowledge ended when the entry was written, and upstream goes on.

        Args:
            kubernetes_version: The version.
            nearest: Return the release whose range is nearest where none fits.
        """
        if not self.releases:
            return None
        newest = self.releases[0]
        beyond = minor(kubernetes_version) > minor(newest.kubernetes.max)
        if beyond and self.status.state == "maintained":
            return newest
        fitting = (each for each in self.releases if each.kubernetes.covers(kubernetes_version))
        return next(
            fitting,
            min(self.releases, key=lambda each: each.kubernetes.distance(kubernetes_version))
            if nearest
            else None,
        )

    def manifest_addresses(
        self, kubernetes_version: str, *, nearest: bool = False
    ) -> tuple[str, ...]:
        """Return the addresses of the release for a Kubernetes version; empty when none fits."""
        fitting = self.release_for(kubernetes_version, nearest=nearest)
        return self.addresses_of(fitting) if fitting else ()

    def addresses_of(self, release: Release) -> tuple[str, ...]:
        """Return the addresses of one release's manifest; empty where it is a chart."""
        if self.manifest is None:
            return ()
        where = release.addresses or self.manifest.addresses
        return tuple(each.format(version=release.version) for each in where)

    @property
    def written_paths(self) -> tuple[str, ...]:
        """Return what the CNI programs keep for a network that is written on each host."""
        return (f"/var/lib/cni/networks/{self.per_node.network}",) if self.per_node else ()

    @property
    def rule_comments(self) -> tuple[str, ...]:
        """Return the comments of its single iptables rules."""
        own = (self.per_node.comment,) if self.per_node else ()
        return (*self.leftovers.iptables_comments, *own)

    def owns_interface(self, name: str) -> bool:
        """Return whether a device of that name is this plugin's."""
        return matches(name, self.interfaces.owned)

    def owns_cni_file(self, name: str) -> bool:
        """Return whether a file of that name in /etc/cni/net.d is this plugin's."""
        return matches(name, (*self.cni.files, *self.cni.extra_files))

    def has_part(self, name: str) -> bool:
        """Return whether a plugin's name is this one's, or that of the one that it calls."""
        return bool(name) and name in (self.name, self.needs.delegate)

    def is_pod_device(self, name: str) -> bool:
        """Return whether a device of that name is the pod-facing one (or one of them)."""
        pod = self.interfaces.pod
        return matches(name, filter(None, (pod.name, pod.host_routes)))
