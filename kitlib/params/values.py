"""The parameters of one cluster, validated: what the rest of the kit sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kitlib.inventory import Host, Role
from kitlib.masking import MASK
from kitlib.params.diagnose import Diagnose, Probe
from kitlib.params.plugin import secret_parameters
from kitlib.params.schema import Ssh, Timeouts
from kitlib.params.software import Packages, Proxy
from kitlib.plugins import Catalogue, Plugin

__all__ = ["Params"]


@dataclass(frozen=True, slots=True)
class Params:
    """What one cluster is wanted to be; made by `load` alone.

    Attributes:
        source: The parameter file, absolute.
        catalogue: The plugins that may be chosen: the kit's, and those of `plugins/` beside the
            file.
        cluster: The cluster's name (kubeadm's clusterName).
        kubernetes_version: Major, minor and patch, without a v: `1.22.3`.
        plugin: The network plugin's name in the catalogue.
        plugin_delegate: The plugin that it calls, for one that calls another; empty for the usual.
        plugin_manifest: An address or an absolute file applied instead; empty for the usual one.
        plugin_source: A base address or an absolute directory that holds `<plugin>.yaml`; or empty.
        plugin_backend: How packets get from node to node, a word that the plugin knows; or empty.
        plugin_parameters: What only the plugin's operator can know; values from the environment
            filled in.
        pod_mtu: The MTU of pods' devices; 0 is what the plugin takes.
        image_registry: The registry, and prefix, that the plugin's images come from; or empty.
        allow_unsupported: Whether to go on with a plugin on a Kubernetes that it is not known to
            work with.
        pod_cidr: The pod CIDR where the file states one; see `effective_pod_cidr`.
        service_cidr: The Service CIDR.
        control_plane_endpoint: `host:port` of the API where there are several control planes; or
            empty.
        confirm_reset: Which living cluster may be destroyed: `sha256:<CA hash>`, a name, or empty.
        defaults: What every host inherits, as the file has it.
        groups: Group -> what its hosts inherit, as the file has it.
        hosts: The hosts, in the file's order, with what they inherit.
        ssh: How hosts are reached.
        api_access: How the Kubernetes API is reached: auto, direct or tunnel.
        probe: What latency is measured with.
        diagnose: How a living cluster is measured.
        timeouts: How long each kind of wait may take, in seconds.
        runs: The directory that run directories are made under, absolute.
        swap: `off` (taken out of use, also in /etc/fstab) or `keep`.
        packages: Where the hosts' packages come from.
        proxy: The proxy between the hosts and the internet.
    """

    source: Path
    catalogue: Catalogue
    cluster: str
    kubernetes_version: str
    plugin: str
    plugin_delegate: str
    plugin_manifest: str
    plugin_source: str
    plugin_backend: str
    plugin_parameters: Mapping[str, str]
    pod_mtu: int
    image_registry: str
    allow_unsupported: bool
    pod_cidr: IPv4Network | None
    service_cidr: IPv4Network
    control_plane_endpoint: str
    confirm_reset: str
    defaults: Mapping[str, Any]
    groups: Mapping[str, Mapping[str, Any]]
    hosts: tuple[Host, ...]
    ssh: Ssh
    api_access: str
    probe: Probe
    diagnose: Diagnose
    timeouts: Timeouts
    runs: Path
    swap: str
    packages: Packages
    proxy: Proxy

    @property
    def control_plane(self) -> Host:
        """The (first) control plane host; a parameter file has one at least."""
        return next(host for host in self.hosts if host.is_control_plane)

    @property
    def workers(self) -> tuple[Host, ...]:
        """The workers."""
        return tuple(host for host in self.hosts if host.role is Role.WORKER)

    @property
    def effective_pod_cidr(self) -> IPv4Network:
        """The pod CIDR: the stated one, or what the plugin's manifest expects."""
        return self.pod_cidr or self.wanted_plugin.pod_cidr.default

    @property
    def wanted_plugin(self) -> Plugin:
        """What the catalogue says of the plugin, together with the one that it calls, if any."""
        return self.catalogue.wanted(self.plugin, self.plugin_delegate, self.plugin_backend)

    @property
    def manifests(self) -> tuple[str, ...]:
        """Where the plugin's manifest is: addresses or absolute files, in the order of applying.

        Those of the plugin that it calls come first. Empty when nothing is stated and no known
        release of the plugin fits the Kubernetes version, or when the plugin has none.
        """
        if self.catalogue.named(self.plugin).per_node is not None:
            return ()
        delegate = self.wanted_plugin.needs.delegate
        names = (delegate, self.plugin) if delegate else (self.plugin,)
        if self.plugin_manifest:
            before = self._usual_manifests(delegate) if delegate else ()
            return (*before, self.plugin_manifest)
        if not self.plugin_source and self.packages.source == "directory":
            names = (self.plugin,)  # a bundle has both in one file
        found = [self._usual_manifests(name) for name in names]
        return tuple(where for each in found for where in each) if all(found) else ()

    def _usual_manifests(self, name: str) -> tuple[str, ...]:
        """Return where one plugin's own manifests are, when the parameters name none for it.

        A user's own plugin whose manifest lies beside it goes before `plugin_source`.
        """
        plugin = self.catalogue.named(name)
        known = plugin.manifest_addresses(self.kubernetes_version, nearest=self.allow_unsupported)
        if self.catalogue.brings_manifest(name):
            return known
        if self.plugin_source:
            return (f"{self.plugin_source.rstrip('/')}/{name}.yaml",)
        if self.packages.source == "directory" and self.packages.directory:
            return (str(self.packages.directory / f"{name}.yaml"),)
        return known

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must be masked wherever something is shown or kept."""
        secret = secret_parameters(self.catalogue)
        own = (value for name, value in self.plugin_parameters.items() if name in secret)
        return (*self.proxy.secrets(), *own)

    def masked(self) -> dict[str, Any]:
        """Return the parameters as plain values for the record; anything secret would be masked.

        Keys and values are those of the file, defaults filled in and paths made absolute.
        """
        return {
            "source": str(self.source),
            "cluster": self.cluster,
            "kubernetes_version": self.kubernetes_version,
            "plugin": self.plugin,
            "plugin_delegate": self.wanted_plugin.needs.delegate,
            "plugin_manifest": self.plugin_manifest,
            "plugin_source": self.plugin_source,
            "plugin_backend": self.plugin_backend,
            "plugin_parameters": {
                name: MASK if name in secret_parameters(self.catalogue) else value
                for name, value in self.plugin_parameters.items()
            },
            "pod_mtu": self.pod_mtu,
            "image_registry": self.image_registry,
            "allow_unsupported": self.allow_unsupported,
            "pod_cidr": str(self.effective_pod_cidr),
            "service_cidr": str(self.service_cidr),
            "control_plane_endpoint": self.control_plane_endpoint,
            "confirm_reset": self.confirm_reset,
            "defaults": dict(self.defaults),
            "groups": {name: dict(values) for name, values in self.groups.items()},
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    "port": host.port,
                    "role": host.role.value,
                    "user": host.user,
                    "identity_file": str(host.identity_file or ""),
                    "labels": dict(host.labels),
                    "taints": [str(taint) for taint in host.taints],
                    "group": list(host.groups),
                    "node_address": host.node_address,
                }
                for host in self.hosts
            ],
            "ssh": self.ssh.model_dump(mode="json"),
            "api_access": self.api_access,
            "probe": self.probe.model_dump(mode="json"),
            "diagnose": self.diagnose.model_dump(mode="json"),
            "timeouts": self.timeouts.model_dump(mode="json"),
            "runs": str(self.runs),
            "swap": self.swap,
            "packages": self.packages.model_dump(mode="json"),
            "proxy": self.proxy.masked(),
        }
