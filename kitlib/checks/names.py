"""Whether a host's name can be a Node's, resolves, and leaves CoreDNS a server to ask."""

from __future__ import annotations

import re
from ipaddress import ip_address

from kitlib.checks.judging import judged, skipped
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.model import Check, Status

__all__ = ["names"]

_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def names(host: Host, facts: HostFacts) -> list[Check]:
    """Return the checks of one host's own name and its name servers.

    Args:
        host: The host.
        facts: Its facts.
    """
    return [_hostname(host, facts), _resolves(host, facts), _no_loop(host, facts)]


def _hostname(host: Host, facts: HostFacts) -> Check:
    """Judge the host name: the kit names the Node itself, but kubeadm by hand takes the host's."""
    got = facts.host.hostname
    which, summary = "preflight.hostname", "host name is the inventory's"
    if got is None:
        return skipped(which, host.name, summary, "unknown")
    # The kubelet takes the name in lower case, and refuses what is no DNS name then.
    valid = bool(_NODE_NAME.fullmatch(got.lower())) and len(got) <= 253
    shown = got or "an empty name"
    if not valid:
        shown += ", which the kubelet refuses as a Node's name where nobody gives it another"
    elif got != host.name and got.lower() == host.name:
        shown = f"{got}; the kubelet takes it in lower case"
    return judged(
        Status.PASS if got == host.name else Status.WARN,
        which,
        host.name,
        summary,
        got=shown,
        expected=host.name,
        remedy=f"hostnamectl set-hostname {host.name}",
    )


def _resolves(host: Host, facts: HostFacts) -> Check:
    which, summary = "preflight.resolves-itself", "its own name resolves to itself"
    found, name = facts.names.own, facts.host.hostname or host.name
    if found is None:
        why = facts.unknown.get("names.own", "unknown")
        return skipped(which, host.name, summary, why)
    own = {host.node_address} | {
        address.partition("/")[0] for link in facts.links or () for address in link.addresses
    }
    strange = [each for each in found if each not in own and not _loopback(each)]
    ok = bool(found) and not strange
    line, dot = f"{host.node_address} {name}", "[.]"
    return judged(
        Status.PASS if ok else Status.WARN,
        which,
        host.name,
        summary,
        got=", ".join(found) if ok or strange else f"{name} does not resolve",
        expected=host.node_address,
        remedy=f"sed -i -E '/[[:space:]]{name.replace('.', dot)}([[:space:]]|$)/d' /etc/hosts && "
        f"echo '{line}' >> /etc/hosts"
        if strange
        else f"echo '{line}' >> /etc/hosts",
    )


def _no_loop(host: Host, facts: HostFacts) -> Check:
    """Judge that pods get name servers that they can ask: a loopback address is the pod itself."""
    which, summary = "preflight.name-servers", "its name servers can be asked from pods"
    servers = facts.names.servers
    if servers is None:
        return skipped(which, host.name, summary, "/etc/resolv.conf cannot be read")
    local = [each for each in servers if _loopback(each)]
    ok = facts.names.resolved or not local
    return judged(
        Status.PASS if ok else Status.WARN,
        which,
        host.name,
        summary,
        got=", ".join(servers) or "none: the host resolves by /etc/hosts alone",
        expected="addresses outside of the host: CoreDNS would ask itself, and end with `Loop`",
        remedy="write the real servers into /etc/resolv.conf, or have systemd-resolved keep them: "
        "systemctl enable --now systemd-resolved",
    )


def _loopback(text: str) -> bool:
    try:
        return ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False
