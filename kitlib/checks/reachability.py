"""Whether pods reach each other, and whether the packets really took the plugin's device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.plugins import Plugin
from kitlib.plugins.schema import matches

__all__ = ["Heard", "device_counters", "reachability"]


@dataclass(frozen=True, slots=True)
class Heard:
    """How one ordered pair fared.

    Attributes:
        sent: Packets sent.
        received: Replies that came back.
        why: What the network said, where nothing came back.
    """

    sent: int
    received: int
    why: str = ""


def reachability(ends: Iterable[str], heard: Mapping[tuple[str, str], Heard]) -> list[Check]:
    """Return one check for each ordered pair: the second answers the first.

    Args:
        ends: The pods (or their nodes) that must all reach each other.
        heard: (from, to) -> how it fared; a pair that is missing was not tried, which is a FAIL.
    """
    checks = []
    for source, target in permutations(ends, 2):
        pair = f"{source} -> {target}"
        found = heard.get((source, target))
        if found is None or not found.received:
            got = f"0 of {found.sent} packets came back" if found else "not tried"
            status = Status.FAIL
        else:
            got = f"{found.received} of {found.sent} packets came back"
            status = Status.PASS if found.received >= found.sent else Status.WARN
        why = f" ({found.why})" if found and found.why else ""
        bad = status is not Status.PASS
        checks.append(
            Check(
                "reachability.pair",
                pair,
                status,
                "pod answers pod",
                got + why,
                "all packets" if bad else "",
                "look at the routes and the plugin's tunnel on both hosts, and whether its ports "
                "are open between them"
                if bad
                else "",
            )
        )
    return checks


def device_counters(
    before: Mapping[str, HostFacts],
    after: Mapping[str, HostFacts],
    plugin: Plugin,
    sent: Mapping[str, int],
) -> list[Check]:
    """Return one check a host: the plugin's device counted at least the packets sent from there.

    Args:
        before: Host name -> facts before the packets.
        after: Host name -> facts after them.
        plugin: The plugin; its tunnel where it has one, else its pod-facing devices.
        sent: Host name -> packets that pods there sent to other nodes.
    """
    device = plugin.interfaces.tunnel or plugin.interfaces.pod.name
    checks = []
    for name, least in sent.items():
        rose = _packets(after.get(name), device) - _packets(before.get(name), device)
        checks.append(
            Check.that(
                rose >= least,
                "reachability.device",
                name,
                f"the packets went through {device}",
                got=f"{rose} packets more",
                expected=f"at least {least}",
                remedy="the pods are wired to another network: see the cni and pods checks",
            )
        )
    return checks


def _packets(facts: HostFacts | None, device: str) -> int:
    links = (facts.links or ()) if facts else ()
    return sum(link.packets for link in links if matches(link.name, (device,)))
