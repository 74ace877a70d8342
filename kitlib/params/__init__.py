"""What is wanted: one YAML file that describes a cluster, checked whole before anything is touched.

Every problem of the file (and of the options given beside it) is reported at once, each as
`file: key: value: rule`. Nothing secret belongs in a parameter file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kitlib import plugins
from kitlib.errors import ParamsError, Problem
from kitlib.inventory import Host, Role, Taint
from kitlib.masking import MASK
from kitlib.params.diagnose import Diagnose, Probe
from kitlib.params.inherit import with_inherited
from kitlib.params.notebook import check_notebook_parameters
from kitlib.params.own import DIRECTORY, catalogue_beside, own_plugins
from kitlib.params.plugin import from_environment, plugin_findings, secret_parameters
from kitlib.params.reading import Document, Key, Written, dotted, read_yaml
from kitlib.params.rules import absolute, cross_checks, is_address
from kitlib.params.schema import HostEntry, Sheet, Ssh, Timeouts, rule_of
from kitlib.params.software import Packages, Proxy, mask_address
from kitlib.plugins import Catalogue, Plugin

__all__ = [
    "Diagnose",
    "Packages",
    "Params",
    "Probe",
    "Proxy",
    "Ssh",
    "Timeouts",
    "catalogue_beside",
    "check_notebook_parameters",
    "load",
]


_LONGEST_SHOWN = 200


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
        """The (first) control plane host; there is one at least."""
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


def load(path: str | Path, overrides: Mapping[str, object] | None = None) -> Params:
    """Return the validated parameters of one file.

    Args:
        path: The parameter file.
        overrides: Values given as options, by top-level key, which replace the file's: `--plugin`
            is {"plugin": ...}. An option that was not given is None, or absent. Paths in them start
            from the current directory, not from the file's.

    Raises:
        ParamsError: The file cannot be read, or anything in it is wrong; all problems at once.
    """
    source = absolute(str(path), Path.cwd())
    shown = str(path)
    document = _read(source, shown)
    if document.data is None and document.problems:
        raise ParamsError(document.problems)
    options = {
        name: _from_here(name, value)
        for name, value in (overrides or {}).items()
        if value is not None
    }
    data = {**document.data, **options} if document.data else dict(options)
    for name in options:
        document.written.pop((name,), None)

    problems = _Problems(shown, document, frozenset(options))
    own, wrong = own_plugins(source.parent / DIRECTORY)
    known = plugins.catalogue().and_own(own)
    sheet = _validate(data, problems)
    for key, value, rule in (
        *cross_checks(data, source.parent, known),
        *plugin_findings(data, known),
    ):
        problems.add(key, value, rule)
    if sheet is None or problems.found or wrong:
        raise ParamsError(wrong + problems.found)
    return _params(sheet, source, known.asking_first(sheet.plugin))


class _Problems:
    """Collects problems as `file: key: value: rule`, an option's as `option --name: ...`."""

    def __init__(self, file: str, document: Document, options: frozenset[str]) -> None:
        self._file = file
        self._written = document.written
        self._options = options
        self.found: list[Problem] = list(document.problems)

    def add(self, key: Key, value: object, rule: str) -> None:
        """Note one problem, once."""
        value = self._written.get(key, value)
        if isinstance(value, (dict, list)):
            value = Written("a mapping" if isinstance(value, dict) else "a list")
        if isinstance(value, str):
            value = type(value)(mask_address(value))
        if len(str(value)) > _LONGEST_SHOWN:
            value = str(value)[:_LONGEST_SHOWN] + "..."
        if key and key[0] in self._options:
            option = str(key[0]).replace("_", "-")
            problem = Problem(f"option --{option}: {value!r}: {rule}")
        else:
            problem = Problem.of(self._file, dotted(key), value, rule)
        if problem not in self.found:
            self.found.append(problem)


def _read(source: Path, shown: str) -> Document:
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{shown}: no such file") from None
    except OSError as error:
        raise ParamsError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{shown}: not a text file in UTF-8: {error.reason}") from error
    document = read_yaml(text, shown)
    if not isinstance(document.data, dict) and not document.problems:
        raise ParamsError(f"{shown}: not a mapping of parameters (key: value)")
    return document


def _validate(data: dict[str, Any], problems: _Problems) -> Sheet | None:
    try:
        return Sheet.model_validate(data)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            problems.add(each["loc"], each["input"], rule_of(dict(each)))
        return None


def _params(sheet: Sheet, source: Path, known: Catalogue) -> Params:
    here = source.parent
    ssh = Ssh(
        user=sheet.ssh.user,
        identity_file=_path(sheet.ssh.identity_file, here),
        config=_path(sheet.ssh.config, here),
        known_hosts=_path(sheet.ssh.known_hosts or "~/.ssh/known_hosts", here),
        connect_timeout=sheet.ssh.connect_timeout,
        keepalive=sheet.ssh.keepalive,
        become=sheet.ssh.become,
        become_password_env=sheet.ssh.become_password_env,
        become_password_file=_path(sheet.ssh.become_password_file, here),
    )
    stated = sheet.model_dump(mode="json", include={"defaults", "groups"}, exclude_unset=True)
    hosts = tuple(_host(host, stated, ssh, here) for host in sheet.hosts)
    return Params(
        source=source,
        catalogue=known,
        cluster=sheet.cluster,
        kubernetes_version=sheet.kubernetes_version,
        plugin=sheet.plugin,
        plugin_delegate=sheet.plugin_delegate,
        plugin_manifest=_place(sheet.plugin_manifest, here),
        plugin_source=_place(sheet.plugin_source, here),
        plugin_backend=sheet.plugin_backend,
        plugin_parameters={
            name: from_environment(str(value)) or ""
            for name, value in sheet.plugin_parameters.items()
        },
        pod_mtu=sheet.pod_mtu,
        image_registry=sheet.image_registry.rstrip("/"),
        allow_unsupported=sheet.allow_unsupported,
        pod_cidr=IPv4Network(sheet.pod_cidr) if sheet.pod_cidr else None,
        service_cidr=IPv4Network(sheet.service_cidr),
        control_plane_endpoint=sheet.control_plane_endpoint,
        confirm_reset=sheet.confirm_reset,
        defaults=stated.get("defaults", {}),
        groups=stated.get("groups", {}),
        hosts=hosts,
        ssh=ssh,
        api_access=sheet.api_access,
        probe=sheet.probe,
        diagnose=sheet.diagnose,
        timeouts=sheet.timeouts,
        runs=_path(sheet.runs, here) or _path("../runs", here) or here,
        swap=sheet.swap,
        packages=Packages(
            **{
                **sheet.packages.model_dump(),
                "directory": _path(sheet.packages.directory, here),
            }
        ),
        proxy=sheet.proxy,
    )


def _host(entry: HostEntry, stated: Mapping[str, Any], ssh: Ssh, here: Path) -> Host:
    """Return one host with what it inherits."""
    own = entry.model_dump(exclude_unset=True)
    host = HostEntry.model_validate(with_inherited(own, stated))
    return Host(
        name=host.name,
        address=host.address,
        port=host.port,
        role=Role(host.role),
        user=host.user or ssh.user,
        identity_file=_path(host.identity_file, here) or ssh.identity_file,
        labels=host.labels,
        node_address=host.node_address or host.address,
        taints=tuple(Taint.parse(text) for text in host.taints),
        groups=tuple(host.group),
    )


def _from_here(name: str, value: object) -> object:
    """Return an option's value, a path in it made absolute from the current directory."""
    if name in ("plugin_manifest", "plugin_source", "runs") and isinstance(value, (str, Path)):
        return _place(str(value), Path.cwd())
    return value


def _path(text: str, here: Path) -> Path | None:
    """Return `text` as an absolute path, seen from `here`; None when it is empty."""
    return absolute(text, here) if text else None


def _place(text: str, here: Path) -> str:
    """Return an address as it is and a path made absolute; empty stays empty."""
    return text if is_address(text) else str(_path(text, here) or "")
