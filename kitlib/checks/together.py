"""What hosts must be to each other: different, in time, in reach, clear of the pods' addresses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from statistics import median

from kitlib.checks.judging import by_system, judged, skipped
from kitlib.facts import HostFacts, Link
from kitlib.facts.reach import Answer
from kitlib.model import CLUSTER, Check, Status
from kitlib.params import Params

__all__ = ["Reach", "clocks", "mutual", "no_route_into", "synchronised", "unique", "zones"]

Reach = Mapping[str, Mapping[str, Answer]]
"""Host name -> (another host's address -> how it answered)."""

MAX_SKEW = 5.0
"""Seconds; beyond it certificates made on one host may not be valid yet on another."""
NOTICED_SKEW = 1.0
"""Seconds; etcd complains from here on."""


def no_route_into(facts: Mapping[str, HostFacts], params: Params) -> list[Check]:
    """Return the checks that no host has a route of its own into the pods' or Services' addresses.

    Routes that a network plugin made are not the host's own.
    """
    hosts = {host.node_address for host in params.hosts}
    checks = []
    for what, network in (
        ("pod-cidr", params.effective_pod_cidr),
        ("service-cidr", params.service_cidr),
    ):
        for name, each in facts.items():
            clashing = [
                f"{route.destination} dev {route.device}"
                for route in (*(each.routes or ()), *(each.routes6 or ()))
                if _overlaps(route.destination, network)
                and not each.known.owner_of_interface(route.device)
                and route.gateway not in hosts
                and route.kind == "unicast"
            ]
            checks.append(
                Check.that(
                    not clashing,
                    f"preflight.{what}",
                    name,
                    f"no route of the host's own into {network}",
                    got=", ".join(clashing),
                    expected="none",
                    remedy=f"choose another {what.replace('-', '_')} in the parameters; pods could "
                    "not be told from what lies behind that route",
                )
            )
    return checks


def _overlaps(destination: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        there = ip_network(destination, strict=False)
    except ValueError:  # `default`
        return False
    # A route to everything (0.0.0.0/1 of a VPN too) is a way out, not a network of its own.
    return there.version == network.version and there.prefixlen > 1 and _touch(there, network)


def _touch(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return bool(one.network_address in other or other.network_address in one)


FILLERS = (
    "00000000-0000-0000-0000-000000000000",
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
)
"""What firmware has as its UUID where nobody ever gave the machine one."""

_ANEW = {
    "hostname": "hostnamectl set-hostname {name}",
    "machine-id": "rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup && "
    "reboot",
    "product-uuid": "give the copied machine an identity of its own, where machines are made: with "
    "libvirt, virt-clone does; else take the <uuid> line out of its definition",
    "mac": "give the copied machine's interface another MAC address, where machines are made, and "
    "reboot",
}


def unique(facts: Mapping[str, HostFacts]) -> list[Check]:
    """Return the checks that no two hosts have the same identity; kubeadm's checklist asks it."""
    identities: dict[str, dict[str, frozenset[str]]] = {
        "hostname": {name: _one(each.host.hostname) for name, each in facts.items()},
        "machine-id": {name: _one(each.host.machine_id) for name, each in facts.items()},
        "product-uuid": {name: _one(each.host.product_uuid) for name, each in facts.items()},
        "mac": {name: _macs(each) for name, each in facts.items()},
    }
    return [_unique(what, values) for what, values in identities.items()]


def _unique(what: str, values: Mapping[str, frozenset[str]]) -> Check:
    holders: dict[str, list[str]] = {}
    for name, held in values.items():
        for value in held:
            holders.setdefault(value, []).append(name)
    shared = {value: names for value, names in sorted(holders.items()) if len(names) > 1}
    which, summary = f"preflight.unique.{what}", f"every host has its own {what}"
    if not holders:
        return skipped(which, CLUSTER, summary, "no host tells it")
    # A firmware that was never given a UUID cannot be mended by its owner, and harms little.
    filler = what == "product-uuid" and set(shared) <= set(FILLERS)
    bad = Status.WARN if filler else Status.FAIL
    value, names = next(iter(shared.items()), ("", ["", ""]))
    # Of two hosts with one name, the one that should have another; of other copies, the second.
    second = next((name for name in names if what == "hostname" and name != value), names[1])
    untold = [name for name, held in values.items() if not held]
    return judged(
        bad if shared else Status.PASS,
        which,
        CLUSTER,
        summary,
        got="; ".join(f"{each} on {', '.join(held)}" for each, held in shared.items())
        or (f"unknown on {', '.join(untold)}" if untold else ""),
        expected="all different",
        remedy="the firmware's filler, which kubeadm does not mind; nothing to do"
        if filler
        else f"on {second}: " + _ANEW[what].format(name=second),
    )


def _one(value: str | None) -> frozenset[str]:
    return frozenset({value}) if value else frozenset()


def _macs(facts: HostFacts) -> frozenset[str]:
    """Return the hardware addresses that other hosts see.

    Those are the device of the default route, whatever its kind, and hardware that carries an
    address of its own. Bridges, tunnels and veth ends may repeat on every host; so does the
    service processor's USB device, which has a link-local address alone.
    """
    routes = (*(facts.routes or ()), *(facts.routes6 or ()))
    uplinks = {each.device for each in routes if each.destination == "default"}
    return frozenset(
        link.mac
        for link in facts.links or ()
        if link.mac.strip("0:") and (link.name in uplinks or (_hardware(link) and _addressed(link)))
    )


def _hardware(link: Link) -> bool:
    return link.kind == "ether"


def _addressed(link: Link) -> bool:
    return any(not ip_interface(each).ip.is_link_local for each in link.addresses)


def clocks(facts: Mapping[str, HostFacts]) -> list[Check]:
    """Return one check a host: its clock agrees with the median of all, not with the kit's own.

    What connecting and the network may have added to a reading counts for the host.
    """
    offsets = {
        name: each.clock_offset for name, each in facts.items() if each.clock_offset is not None
    }
    checks = []
    middle = median(offsets.values()) if offsets else 0.0
    for name, each in facts.items():
        summary = "clock agrees with the other hosts'"
        if name not in offsets:
            checks.append(skipped("preflight.clock", name, summary, "unknown"))
            continue
        skew = offsets[name] - middle
        least = abs(skew) - each.clock_error
        status = Status.PASS
        if least > NOTICED_SKEW:
            status = Status.FAIL if least > MAX_SKEW else Status.WARN
        checks.append(
            judged(
                status,
                "preflight.clock",
                name,
                summary,
                got=f"{round(skew, 1) + 0.0:+.1f} s from the median",
                expected=f"within {NOTICED_SKEW:g} s",
                remedy=_keep_time(each),
            )
        )
    return checks


def _keep_time(facts: HostFacts) -> str:
    return by_system(
        facts,
        apt="timedatectl set-ntp true || "
        "{ apt-get install -y systemd-timesyncd && timedatectl set-ntp true; }",
        dnf="dnf install -y chrony && systemctl enable --now chronyd && chronyc makestep",
    )


def synchronised(facts: Mapping[str, HostFacts]) -> list[Check]:
    """Return one check a host: something keeps its clock right."""
    which, summary = "preflight.time-sync", "its clock is kept by NTP"
    checks = []
    for name, each in facts.items():
        kept = each.clock.synchronised
        if kept is None:
            checks.append(skipped(which, name, summary, "unknown"))
            continue
        checks.append(
            judged(
                Status.PASS if kept else Status.WARN,
                which,
                name,
                summary,
                got="synchronised" if kept else "not synchronised",
                expected="synchronised",
                remedy=_keep_time(each),
            )
        )
    return checks


def zones(facts: Mapping[str, HostFacts]) -> Check:
    """Return the check that all hosts are in one time zone: logs of several are read together."""
    which, summary = "preflight.time-zone", "one time zone on all hosts"
    found: dict[str, list[str]] = {}
    for name, each in facts.items():
        if each.clock.zone:
            found.setdefault(each.clock.zone, []).append(name)
    if not found:
        return skipped(which, CLUSTER, summary, "unknown")
    most = max(found, key=lambda zone: len(found[zone]))
    others = [name for zone, names in found.items() if zone != most for name in names]
    return judged(
        Status.WARN if others else Status.PASS,
        which,
        CLUSTER,
        summary,
        got=most
        if not others
        else "; ".join(f"{zone} on {', '.join(names)}" for zone, names in found.items()),
        expected="the same on all",
        remedy=f"on {', '.join(others)}: timedatectl set-timezone {most}",
    )


def mutual(facts: Mapping[str, HostFacts], params: Params, reach: Reach) -> list[Check]:
    """Return one check a host: every other host answers it at its node address.

    Args:
        facts: Host name -> facts; only these hosts are judged, from each other. That one is out of
            reach of the kit itself is a finding already, and not the fault of those that answer.
        params: All hosts.
        reach: Host name -> (another host's address -> how it answered).
    """
    return [_reaches(name, facts, params, reach.get(name)) for name in facts]


def _reaches(
    name: str,
    among: Mapping[str, HostFacts],
    params: Params,
    heard: Mapping[str, Answer] | None,
) -> Check:
    which, summary = "preflight.reach", "reaches every other host"
    if heard is None:
        return judged(
            Status.FAIL,
            which,
            name,
            summary,
            got="not tried: the command did not end",
            expected="an answer from each",
            remedy="try again",
        )
    others = {
        f"{other.name} ({other.node_address})": heard.get(other.node_address, Answer.NONE)
        for other in params.hosts
        if other.name != name and other.name in among
    }
    deaf = [shown for shown, answer in others.items() if answer is Answer.NONE]
    by_tcp = [shown for shown, answer in others.items() if answer is Answer.TCP]
    untried = [shown for shown, answer in others.items() if answer is Answer.UNTRIED]
    if deaf:
        return judged(
            Status.FAIL,
            which,
            name,
            summary,
            got=f"no answer from {', '.join(deaf)}",
            expected="an answer from each",
            remedy="look at routes and firewalls between them; node_address may be wrong",
        )
    if untried:
        return judged(
            Status.WARN,
            which,
            name,
            summary,
            got="no ping on this host to try it with",
            expected="an answer from each",
            remedy=by_system(
                among[name], apt="apt-get install -y iputils-ping", dnf="dnf install -y iputils"
            ),
        )
    return judged(
        Status.WARN if by_tcp else Status.PASS,
        which,
        name,
        summary,
        got=f"no answer to ping from {', '.join(by_tcp)}, but to TCP" if by_tcp else "",
        expected="an answer to ping too",
        remedy="let ICMP echo pass between the hosts: the way's MTU and latency show in it alone",
    )
