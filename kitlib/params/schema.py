"""The parameter file, key by key: what may stand there, and the defaults of what need not."""

from __future__ import annotations

import re
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt, StrictStr

from kitlib.params.diagnose import Diagnose, Probe
from kitlib.params.software import PackagesEntry, Proxy, Swap
from kitlib.params.words import (
    EFFECTS,
    Part,
    host_name,
    is_label,
    key_problem,
    label,
    value_problem,
)

__all__ = ["HostEntry", "Shared", "Sheet", "Ssh", "SshEntry", "Timeouts", "rule_of"]

VERSION_RULE = 'write it quoted, with major, minor and patch, such as "1.22.3"'
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"1\.\d{1,3}\.\d{1,3}")
PASSWORD_VARIABLE = "KIT_BECOME_PASSWORD"  # noqa: S105 - where it is, not what it is
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,252}[A-Za-z0-9])?")
_REGISTRY = re.compile(
    r"(?=[^/]*[.:]|localhost)[A-Za-z0-9]([-A-Za-z0-9.]{0,252}[A-Za-z0-9])?(:[1-9]\d{0,4})?"
    r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
)
_ENDPOINT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?:([1-9]\d{0,4})")


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        try:
            ip_address(text)  # IPv6: its colons are no part of a name
        except ValueError:
            raise ValueError(
                "an IP address, a DNS name, or a Host of the SSH configuration"
            ) from None
    return text


def _endpoint(text: str) -> str:
    found = _ENDPOINT.fullmatch(text)
    if text and (not found or int(found[2]) > 65535):
        raise ValueError("host:port, with a DNS name or an IPv4 address, or empty")
    return text


def _node_address(text: str) -> str:
    if text:
        try:
            IPv4Address(text)
        except ValueError:
            raise ValueError("an IPv4 address, or empty to use `address`") from None
    return text


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError(VERSION_RULE)
    return text


def _cidr(text: str) -> str:
    try:
        IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"an IPv4 network such as 10.244.0.0/16 ({error})") from None
    return text


def _confirm(text: str) -> str:
    if text == "kubernetes":
        raise ValueError(
            "kubeadm's default name, which any cluster may have: name the cluster by its CA, "
            "sha256:<64 hexadecimal digits>"
        )
    if text and not _HASH.fullmatch(text) and not is_label(text):
        raise ValueError("sha256:<64 hexadecimal digits> of the cluster's CA, or its own name")
    return text


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if problem := key_problem(key) or value_problem(value):
            raise ValueError(f"the label {f'{key}={value}'[:200]!r}: {problem}")
    return labels


def _taint(text: str) -> str:
    pair, colon, effect = text.partition(":")
    key, _, value = pair.partition("=")
    if not colon or effect not in EFFECTS:
        raise ValueError(f"key=value:Effect or key:Effect, with an effect of {', '.join(EFFECTS)}")
    if problem := key_problem(key) or value_problem(value):
        raise ValueError(f"key=value:Effect: {problem}")
    return text


def _group_names(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, (list, tuple)) else [value]
    found = tuple(name for name in names if isinstance(name, str))
    if len(found) < len(names):
        raise ValueError("the name of a group, or a list of names")
    return tuple(name for name in found if name)


def _mtu(number: int) -> int:
    if number and not 576 <= number <= 65535:
        raise ValueError("a whole number from 576 to 65535, or 0 for what the plugin takes")
    return number


def _registry(text: str) -> str:
    if text and not _REGISTRY.fullmatch(text):
        raise ValueError(
            "a registry's name, with its port and a prefix where there is one, such as "
            "registry.example.net:5000/mirror; no https:// before it"
        )
    return text


def _become(text: str) -> str:
    if text not in ("none", "sudo"):
        raise ValueError("none (the login is root) or sudo")
    return text


def _api_access(text: str) -> str:
    if text not in ("auto", "direct", "tunnel"):
        raise ValueError("auto, direct (from this machine) or tunnel (through SSH)")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError("the name of an environment variable; never a password itself")
    return text


Label = Annotated[StrictStr, AfterValidator(label)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=86400, allow_inf_nan=False)]


class Shared(Part):
    """What a host may have itself, or inherit from its groups or from `defaults`."""

    role: Annotated[StrictStr, Field(pattern="^(control_plane|worker|)$")] = ""
    """control_plane or worker."""
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = 0
    """The SSH port; left out, the SSH configuration's, or else 22."""
    user: StrictStr = ""
    """The SSH user; empty takes ssh.user."""
    identity_file: StrictStr = ""
    """The private key; empty takes ssh.identity_file."""
    labels: Annotated[dict[StrictStr, StrictStr], AfterValidator(_labels)] = Field(
        default_factory=dict
    )
    """Labels for the Node."""
    taints: tuple[Annotated[StrictStr, AfterValidator(_taint)], ...] = ()
    """Taints for the Node, each `key=value:Effect`."""


class HostEntry(Shared):
    """One host as the file has it."""

    name: Annotated[StrictStr, AfterValidator(host_name)]
    """The host's name, and its Node's."""
    address: Annotated[StrictStr, AfterValidator(_address)]
    """What SSH connects to."""
    node_address: Annotated[StrictStr, AfterValidator(_node_address)] = ""
    """The address that other hosts use; empty takes `address`."""
    group: Annotated[Any, AfterValidator(_group_names)] = ()
    """The group that the host is in, or a list of them; of two the first goes before."""


class SshEntry(Part):
    """How hosts are reached, as the file has it."""

    user: StrictStr = ""
    """The user to log in as; empty is the SSH configuration's, or else root."""
    identity_file: StrictStr = ""
    """The private key; empty leaves the choice to SSH."""
    config: StrictStr = ""
    """The SSH configuration; empty is ~/.ssh/config and /etc/ssh/ssh_config."""
    known_hosts: StrictStr = ""
    """The file of known host keys; empty is ~/.ssh/known_hosts."""
    connect_timeout: Seconds = 10
    """Seconds until a host counts as unreachable."""
    keepalive: Seconds = 15
    """Seconds between two signs of life on an idle connection."""
    become: Annotated[StrictStr, AfterValidator(_become)] = "none"
    """none: the login is root; sudo: the login becomes root."""
    become_password_env: Annotated[StrictStr, AfterValidator(_variable)] = PASSWORD_VARIABLE
    """The environment variable that may hold sudo's password."""
    become_password_file: StrictStr = ""
    """A file of mode 0600 whose first line is sudo's password."""


class Ssh(Part):
    """How hosts are reached, paths made absolute."""

    user: str
    """The user to log in as, unless a host has its own; empty is the SSH configuration's."""
    identity_file: Path | None
    """The private key; None leaves the choice to SSH."""
    config: Path | None
    """The SSH configuration; None is the usual."""
    known_hosts: Path | None
    """The file of known host keys."""
    connect_timeout: float
    """Seconds until a host counts as unreachable."""
    keepalive: float
    """Seconds between two signs of life on an idle connection."""
    become: str
    """none, or sudo."""
    become_password_env: str
    """The environment variable that may hold sudo's password."""
    become_password_file: Path | None
    """The file that holds sudo's password."""


class Timeouts(Part):
    """How long each kind of wait may take, in seconds; running out of time is a failure."""

    command: Seconds = 300
    """Any one command on a host, unless named below."""
    init: Seconds = 600
    """`kubeadm init`."""
    join: Seconds = 420
    """`kubeadm join`; kubeadm itself gives up after 300 s."""
    ready: Seconds = 300
    """All nodes Ready, after the last join."""
    verify: Seconds = 120
    """Probe pods running and every pair reachable."""
    drain: Seconds = 300
    """A node's pods gone, when its host is removed; disruption budgets may hold them back."""
    unplug: Seconds = 300
    """A plugin's objects and pods gone, when it is taken out of the cluster."""
    revert: Seconds = 900
    """A plugin that moves the host's address: how long until the host puts it back by itself."""
    reconnect: Seconds = 60
    """A host out of reach while a command runs on it; the command runs on, and is found again."""


class Sheet(Part):
    """The whole parameter file."""

    cluster: Label
    """The cluster's name."""
    kubernetes_version: Annotated[StrictStr, AfterValidator(_version)]
    """The Kubernetes version, always quoted."""
    plugin: Annotated[StrictStr, Field(min_length=1)]
    """The network plugin."""
    plugin_delegate: StrictStr = ""
    """The plugin that it calls, where it is one that calls another."""
    plugin_manifest: StrictStr = ""
    """One address or file that is applied instead of the catalogue's."""
    plugin_source: StrictStr = ""
    """Base address or directory that holds <plugin>.yaml."""
    plugin_backend: StrictStr = ""
    """How packets get from node to node, one of the words that the plugin knows; or empty."""
    plugin_parameters: dict[StrictStr, StrictStr | StrictInt] = Field(default_factory=dict)
    """What only the plugin's operator can know, such as the address of its controller."""
    pod_mtu: Annotated[StrictInt, AfterValidator(_mtu)] = 0
    """The MTU of pods' devices; 0 is what the plugin takes."""
    image_registry: Annotated[StrictStr, AfterValidator(_registry)] = ""
    """The registry, and prefix, that the plugin's images come from; empty is their own."""
    allow_unsupported: StrictBool = False
    """Whether to go on with a plugin that this Kubernetes is not known to work with."""
    pod_cidr: Annotated[StrictStr, AfterValidator(lambda text: _cidr(text) if text else text)] = ""
    """The pod CIDR; empty is what the plugin's manifest expects."""
    service_cidr: Annotated[StrictStr, AfterValidator(_cidr)] = "10.96.0.0/12"
    """The Service CIDR."""
    control_plane_endpoint: Annotated[StrictStr, AfterValidator(_endpoint)] = ""
    """host:port at which the API of several control planes answers."""
    confirm_reset: Annotated[StrictStr, AfterValidator(_confirm)] = ""
    """Which living cluster may be destroyed."""
    defaults: Shared = Shared()
    """What every host inherits."""
    groups: dict[Label, Shared] = Field(default_factory=dict)
    """Named sets of hosts, with what their hosts inherit."""
    hosts: Annotated[tuple[HostEntry, ...], Field(min_length=1)]
    """The hosts."""
    ssh: SshEntry = SshEntry()
    """How they are reached."""
    api_access: Annotated[StrictStr, AfterValidator(_api_access)] = "auto"
    """How the Kubernetes API is reached: auto, direct or tunnel."""
    probe: Probe = Probe()
    """What latency is measured with."""
    diagnose: Diagnose = Diagnose()
    """How a living cluster is measured."""
    timeouts: Timeouts = Timeouts()
    """How long to wait."""
    runs: StrictStr = ""
    """Where run directories go; empty is ../runs."""
    swap: Swap = "off"
    """What to do with swap on the hosts: off or keep."""
    packages: PackagesEntry = PackagesEntry()
    """Where the hosts' packages come from."""
    proxy: Proxy = Proxy()
    """The proxy between the hosts and the internet."""


class ClusterSheet(Sheet):
    """The same of a living cluster that was asked: its plugin may be one that nobody knows."""

    plugin: StrictStr = ""
    """The network plugin; empty for one that the catalogue does not know."""


_RULES = {
    "missing": "required",
    "int_type": "a whole number, not quoted",
    "int_from_float": "a whole number",
    "float_type": "a number, not quoted",
    "model_type": "a mapping (key: value)",
    "bool_type": "true or false, not quoted",
    "dict_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "string_too_short": "not empty",
    "too_short": "at least one",
    "finite_number": "a number",
    "string_pattern_mismatch": "control_plane or worker",
}


def rule_of(error: dict[str, Any]) -> str:
    """Return the rule that one pydantic error broke, in the kit's words."""
    kind, key, value = error["type"], error["loc"], error["input"]
    if kind == "extra_forbidden":
        close = get_close_matches(str(key[-1]), _known(key[:-1]), n=1)
        return "unknown key" + (f"; did you mean {close[0]!r}?" if close else "")
    if kind == "string_type":
        return _string_rule(str(key[-1]), value)
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind in _RULES:
        return _RULES[kind]
    return str(error["msg"][:1].lower() + error["msg"][1:])


def _string_rule(name: str, value: object) -> str:
    if name.endswith("version"):
        return VERSION_RULE + ": YAML reads it as a number otherwise"
    if isinstance(value, bool):
        return "a string; YAML reads it as true or false: write it quoted"
    if value is None:
        return 'a string; for nothing write ""'
    if isinstance(value, (dict, list)):
        return "a string"
    return "a string: write it quoted"


def _known(where: tuple[str | int, ...]) -> list[str]:
    """Return the keys that may stand under `where`."""
    parts: dict[str, type[BaseModel]] = {
        "hosts": HostEntry,
        "defaults": Shared,
        "ssh": SshEntry,
        "probe": Probe,
        "diagnose": Diagnose,
        "timeouts": Timeouts,
        "packages": PackagesEntry,
        "proxy": Proxy,
    }
    if where[:1] == ("groups",):
        return list(Shared.model_fields)
    part = parts.get(str(where[0]), Sheet) if where else Sheet
    return list(part.model_fields)
