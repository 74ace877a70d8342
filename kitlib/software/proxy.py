"""A proxy between the hosts and the internet: how apt, containerd and kubeadm come to know it.

What is inside the cluster never goes through it: the hosts, the pod and Service addresses and the
cluster's names are always added to no_proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.params import Params
from kitlib.software.steps import Step

__all__ = [
    "APT_FILE",
    "CONTAINERD_FILE",
    "environment",
    "files",
    "has_password",
    "no_proxy",
    "steps",
]

APT_FILE = "/etc/apt/apt.conf.d/95kubekit-proxy"
CONTAINERD_FILE = "/etc/systemd/system/containerd.service.d/kubekit-proxy.conf"
_WHO = "by the cluster network kit (kit stage packages)"


def no_proxy(params: Params) -> str:
    """Return what is reached without the proxy, separated by commas."""
    own = ["localhost", "127.0.0.1", ".svc", ".cluster.local"]
    for host in params.hosts:
        own += [host.name, host.address, host.node_address]
    own += [str(params.effective_pod_cidr), str(params.service_cidr)]
    given = [each.strip() for each in params.proxy.no_proxy.split(",")]
    return ",".join(dict.fromkeys(each for each in (*given, *own) if each))


def _variables(params: Params) -> dict[str, str]:
    proxy = params.proxy
    if not proxy:
        return {}
    found = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": no_proxy(params)}
    return {name: value for name, value in found.items() if value}


def environment(params: Params) -> Mapping[str, str]:
    """Return the variables for kubeadm, in both spellings; empty without a proxy.

    An address with a password is left out: it would stand in the host's process list, and kubeadm
    copies these variables into the manifests of the control plane's pods. kubeadm can do without:
    its version is stated, and the images are pulled by containerd.
    """
    found: dict[str, str] = {}
    for name, value in _variables(params).items():
        if name == "NO_PROXY" or not has_password(value):
            found |= {name: value, name.lower(): value}
    return found


def files(here: HostFacts, params: Params) -> dict[str, str]:
    """Return path -> content of what a host needs; empty without a proxy."""
    proxy = params.proxy
    if not proxy:
        return {}
    lines = [f"# Written {_WHO}."]
    for name, value in _variables(params).items():
        # systemd takes % for a specifier: a password may hold one, as %40.
        doubled = value.replace("%", "%%")
        lines.append(f'Environment="{name}={doubled}"')
    found = {CONTAINERD_FILE: "\n".join([lines[0], "[Service]", *lines[1:], ""])}
    if here.repository.manager == "apt-get":
        found[APT_FILE] = _apt(params)
    return found


def _apt(params: Params) -> str:
    proxy = params.proxy
    lines = [f"// Written {_WHO}."]
    for kind, value in (("http", proxy.http), ("https", proxy.https)):
        if not value:
            continue
        lines.append(f'Acquire::{kind}::Proxy "{value}";')
        # apt knows no list of exceptions, only single hosts.
        for each in no_proxy(params).split(","):
            if "/" not in each and not each.startswith("."):
                lines.append(f'Acquire::{kind}::Proxy::{each} "DIRECT";')
    return "\n".join([*lines, ""])


def steps(here: HostFacts, params: Params) -> list[Step]:
    """Return what brings a host's proxy settings to what is wanted; nothing where they are so."""
    wanted = files(here, params)
    # Nobody but root may read a password.
    mode = 0o600 if any(map(has_password, (params.proxy.http, params.proxy.https))) else 0o644
    found = [
        Step(f"have the proxy used: {path}", path=path, content=content, mode=mode)
        for path, content in wanted.items()
        if not here.repository.has(path, content)
    ]
    found += [
        Step(f"no proxy is wanted any more: {path}", Cmd.change("rm", "-f", path))
        for path in (APT_FILE, CONTAINERD_FILE)
        if path not in wanted and here.repository.has(path)
    ]
    return found


def has_password(address: str) -> bool:
    """Return whether an address holds a password."""
    return bool(urlsplit(address).password)
