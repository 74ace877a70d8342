"""What hosts must be to each other: different, in time, in reach, clear of the pods' addresses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from statistics import median

from kitlib.facts import HostFacts
from kitlib.model import CLUSTER, Check, Status
from kitlib.params import Params
from kitlib.plugins import owner_of_interface

__all__ = ["Reach", "clocks", "mutual", "no_route_into", "unique"]

Reach = Mapping[str, Mapping[str, bool]]
"""Host name -> (another host's address -> whether it answered)."""

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
                for route in each.routes or ()
                if _overlaps(route.destination, network)
                and not owner_of_interface(route.device)
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
                    remedy=f"choose another {what.replace('-', '_')} in the parameters",
                )
            )
    return checks


def _overlaps(destination: str, network: IPv4Network) -> bool:
    try:
        return destination != "default" and IPv4Network(destination).overlaps(network)
    except ValueError:
        return False


def unique(facts: Mapping[str, HostFacts]) -> list[Check]:
    """Return the checks that no two hosts have the same identity; kubeadm's checklist asks it."""
    checks = []
    lab = any(each.is_lab for each in facts.values())
    identities = {
        "hostname": {name: each.host.hostname for name, each in facts.items()},
        "machine-id": {name: each.host.machine_id for name, each in facts.items()},
        "product-uuid": {name: each.host.product_uuid for name, each in facts.items()},
        "mac": {name: _uplink_mac(each) for name, each in facts.items()},
    }
    for what, values in identities.items():
        holders: dict[str, list[str]] = {}
        for name, value in values.items():
            if value:
                holders.setdefault(value, []).append(name)
        shared = {value: names for value, names in holders.items() if len(names) > 1}
        summary = f"every host has its own {what}"
        if lab and what in ("machine-id", "product-uuid"):
            got = "lab hosts share one machine"
            checks.append(Check(f"preflight.unique.{what}", CLUSTER, Status.SKIP, summary, got))
            continue
        got = "; ".join(f"{value} on {', '.join(names)}" for value, names in shared.items())
        remedies = {
            "machine-id": "rm /etc/machine-id and systemd-machine-id-setup on the copies",
            "hostname": "hostnamectl set-hostname on one of them",
        }
        checks.append(
            Check.that(
                not shared,
                f"preflight.unique.{what}",
                CLUSTER,
                summary,
                got=got,
                expected="all different",
                remedy=remedies.get(what, "give the cloned machine an identity of its own"),
            )
        )
    return checks


def _uplink_mac(facts: HostFacts) -> str | None:
    """Return the hardware address of the device that the host's default route takes."""
    device = next((each.device for each in facts.routes or () if each.destination == "default"), "")
    link = facts.link(device)
    return link.mac if link else None


def clocks(facts: Mapping[str, HostFacts]) -> list[Check]:
    """Return one check a host: its clock agrees with the median of all, not with the kit's own."""
    offsets = {
        name: each.clock_offset for name, each in facts.items() if each.clock_offset is not None
    }
    checks = []
    middle = median(offsets.values()) if offsets else 0.0
    for name in facts:
        summary = "clock agrees with the other hosts'"
        if name not in offsets:
            checks.append(Check("preflight.clock", name, Status.SKIP, summary, "unknown"))
            continue
        skew = offsets[name] - middle
        status = Status.PASS
        if abs(skew) > NOTICED_SKEW:
            status = Status.FAIL if abs(skew) > MAX_SKEW else Status.WARN
        bad = status is not Status.PASS
        checks.append(
            Check(
                "preflight.clock",
                name,
                status,
                summary,
                f"{skew:+.1f} s from the median",
                f"within {NOTICED_SKEW:g} s" if bad else "",
                "switch on time synchronisation (systemd-timesyncd or chrony)" if bad else "",
            )
        )
    return checks


def mutual(params: Params, reach: Reach) -> list[Check]:
    """Return one check a host: every other host answers it at its node address."""
    checks = []
    for host in params.hosts:
        others = [other for other in params.hosts if other.name != host.name]
        heard = reach.get(host.name, {})
        deaf = [
            f"{other.name} ({other.node_address})"
            for other in others
            if not heard.get(other.node_address, False)
        ]
        checks.append(
            Check.that(
                not deaf,
                "preflight.reach",
                host.name,
                "reaches every other host",
                got=f"no answer from {', '.join(deaf)}" if deaf else "",
                expected="an answer from each",
                remedy="look at routes and firewalls between them; node_address may be wrong",
            )
        )
    return checks
