"""Rules that concern several keys at once, or the world outside the file: each says what is wrong.

They read the raw values and pass over what is malformed: that has its own problem already, and the
rest of the file is judged all the same, so that one look at the message is enough.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from kitlib.params.inherit import groups_of, with_inherited
from kitlib.params.reading import Key, printable
from kitlib.params.software import package_findings
from kitlib.plugins import Catalogue, Plugin
from kitlib.plugins.compose import why_not

__all__ = ["Finding", "absolute", "cross_checks", "is_address", "wanted_of"]

Finding = tuple[Key, object, str]
"""A key, its value, and the rule that it breaks."""

DEFAULT_SERVICE_CIDR = "10.96.0.0/12"


def is_address(text: str) -> bool:
    """Return whether a manifest's place is fetched by HTTP, and is not a path."""
    return text.startswith(("http://", "https://"))


def absolute(text: str, here: Path) -> Path:
    """Return a path as seen from `here`; `~` is the home directory, where there is such a one."""
    # os.path: pathlib raises for an unknown user's home, and resolving would follow symlinks.
    return Path(os.path.normpath(here / os.path.expanduser(text)))  # noqa: PTH111


def cross_checks(data: Mapping[str, Any], here: Path, known: Catalogue) -> Iterator[Finding]:
    """Return what is wrong between keys, or with the files that they name.

    Args:
        data: The file's values with the options laid over them.
        here: The directory that relative paths start from.
        known: The plugins that there are.
    """
    yield from _plugin(data, known)
    yield from _manifest(data, here, known)
    yield from _hosts(data)
    yield from _groups(data)
    yield from _ssh(data, here)
    yield from _networks(data, known)
    packages = data.get("packages")
    directory = packages.get("directory") if isinstance(packages, dict) else None
    where = absolute(directory, here) if isinstance(directory, str) and directory else None
    yield from package_findings(data, where)


def _plugin(data: Mapping[str, Any], known: Catalogue) -> Iterator[Finding]:
    for key in ("plugin", "plugin_delegate"):
        name = data.get(key)
        if isinstance(name, str) and name and name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            yield (key,), name, f"unknown plugin, known are {', '.join(known)}{meant}"
    front, delegate = (known.get(str(data.get(key))) for key in ("plugin", "plugin_delegate"))
    if front and front.needs.delegate and delegate and (why := why_not(front, delegate)):
        yield ("plugin_delegate",), delegate.name, why


def wanted_of(data: Mapping[str, Any], known: Catalogue) -> Plugin | None:
    """Return the plugin with the one that it calls; None where that has a problem of its own."""
    name, delegate = str(data.get("plugin")), str(data.get("plugin_delegate") or "")
    if name not in known or (delegate and delegate not in known):
        return None
    return known.wanted(name, delegate)


def _manifest(data: Mapping[str, Any], here: Path, known: Catalogue) -> Iterator[Finding]:
    manifest, source, name = (
        data.get(key) for key in ("plugin_manifest", "plugin_source", "plugin")
    )
    plugin = known.get(name) if isinstance(name, str) else None
    if plugin is not None and plugin.per_node is not None:
        if manifest:
            rule = f"{name} has no manifest: the ready stage writes it on each host"
            yield ("plugin_manifest",), manifest, rule
        return
    if isinstance(manifest, str) and manifest and not is_address(manifest):
        path = absolute(manifest, here)
        if not os.path.isfile(path):  # noqa: PTH113 - false for what cannot be a path at all
            yield ("plugin_manifest",), manifest, f"no such file ({_brief(path)})"
    if isinstance(source, str) and source and not manifest and not is_address(source):
        path = absolute(source, here)
        if not os.path.isdir(path):  # noqa: PTH112
            yield ("plugin_source",), source, f"no such directory ({_brief(path)})"
            return
        wanted = wanted_of(data, known)
        for each in (wanted.needs.delegate if wanted else "", name):
            if not isinstance(each, str) or not each or known.brings_manifest(each):
                continue
            if not os.path.isfile(path / f"{each}.yaml"):  # noqa: PTH113
                yield ("plugin_source",), source, f"holds no {each}.yaml ({path})"


def _hosts(data: Mapping[str, Any]) -> Iterator[Finding]:
    entries = [(number, with_inherited(host, data)) for number, host in _entries(data)]
    if not entries:
        return
    for number, host in entries:
        if not host.get("role"):
            rule = "required: control_plane or worker, here, in its group or in defaults"
            yield ("hosts", number, "role"), "", rule
        if ":" in str(host.get("address", "")) and not host.get("node_address"):
            rule = "an IPv6 address: state the host's IPv4 address as node_address beside it"
            yield ("hosts", number, "address"), host["address"], rule
    for what, keys in (
        ("name", ("name",)),
        ("address and port", ("address", "port")),
        ("node_address", ("node_address",)),
    ):
        seen: dict[tuple[object, ...], int] = {}
        for number, host in entries:
            value = tuple(host.get(key, 22 if key == "port" else "") for key in keys)
            if not value[0] or not all(isinstance(part, (str, int)) for part in value):
                continue
            if value in seen:
                key: Key = ("hosts", number, keys[0])
                rule = f"the same {what} as hosts[{seen[value]}]"
                yield key, host[keys[0]], rule
            seen.setdefault(value, number)
    planes = sum(host.get("role") == "control_plane" for _, host in entries)
    if not planes:
        yield ("hosts",), data["hosts"], "one host at least must have role: control_plane"
    if planes > 1 and not data.get("control_plane_endpoint"):
        rule = (
            f"required with {planes} control planes: host:port of the DNS name, virtual address or "
            "load balancer in front of them, which you provide"
        )
        yield ("control_plane_endpoint",), data.get("control_plane_endpoint", ""), rule


def _groups(data: Mapping[str, Any]) -> Iterator[Finding]:
    known = [str(name) for name in data["groups"]] if isinstance(data.get("groups"), dict) else []
    for number, host in _entries(data):
        for name in groups_of(host):
            if name not in known:
                close = get_close_matches(name, known, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                rule = f"unknown group, known are {', '.join(known) or 'none'}{meant}"
                yield ("hosts", number, "group"), name, rule


def _ssh(data: Mapping[str, Any], here: Path) -> Iterator[Finding]:
    ssh = data.get("ssh")
    config = ssh.get("config") if isinstance(ssh, dict) else None
    if isinstance(config, str) and config and not os.path.exists(absolute(config, here)):  # noqa: PTH110
        yield ("ssh", "config"), config, f"no such file ({_brief(absolute(config, here))})"


def _networks(data: Mapping[str, Any], known: Catalogue) -> Iterator[Finding]:
    stated = data.get("pod_cidr") or ""
    plugin = wanted_of(data, known)
    pods = _network(stated) if stated else plugin.pod_cidr.default if plugin else None
    services = _network(data.get("service_cidr", DEFAULT_SERVICE_CIDR))
    origin = "pod_cidr" if stated else f"pod_cidr (the default of {data.get('plugin')})"
    if pods and services and pods.overlaps(services):
        key: Key = ("pod_cidr",) if stated else ("service_cidr",)
        other = f"service_cidr {services}" if stated else f"{origin} {pods}"
        yield key, str(pods if stated else services), f"overlaps {other}"
    for number, host in _entries(data):
        for field in ("address", "node_address"):
            address = _ip(host.get(field))
            if address is None:
                continue
            for name, network in ((origin, pods), ("service_cidr", services)):
                if network and address in network:
                    rule = f"lies inside {name} {network}; hosts need addresses outside of it"
                    yield ("hosts", number, field), host[field], rule


def _entries(data: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    hosts = data.get("hosts")
    if not isinstance(hosts, list):
        return []
    return [(number, host) for number, host in enumerate(hosts) if isinstance(host, dict)]


def _network(value: object) -> IPv4Network | None:
    try:
        return IPv4Network(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _ip(value: object) -> IPv4Address | None:
    try:
        return IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _brief(path: Path) -> str:
    return printable(textwrap.shorten(str(path), width=300, placeholder="..."))
