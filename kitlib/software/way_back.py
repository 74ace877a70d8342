"""A host's way back from a plugin that moves its address, as text: two programs and a unit.

The one puts the host's own address, routes and link back as they were before the plugin came. The
other is a timer: when nobody calls it off in time, or the host starts anew with it still armed, it
stops what would move the address again, and runs the first. Neither needs the kit or the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote

from kitlib.command import Cmd, script
from kitlib.facts import Link, Route
from kitlib.facts.leftovers import HOST_NETWORK
from kitlib.plugins import Plugin
from kitlib.software.units import KIT_DIRECTORY, PREFIX, unit_text

__all__ = [
    "BOOT",
    "FIRED",
    "NETWORK",
    "TIMER",
    "UNIT",
    "OwnNetwork",
    "call_off",
    "network_script",
    "own_network",
    "shown",
    "timer_script",
    "timer_unit",
]

WHAT = "way-back"
UNIT = f"{PREFIX}{WHAT}.service"
TIMER = f"{KIT_DIRECTORY}/{WHAT}.sh"
NETWORK = HOST_NETWORK
FIRED = f"{KIT_DIRECTORY}/{WHAT}.fired"
BOOT = f"{KIT_DIRECTORY}/{WHAT}.boot"


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """What of a host's network a plugin may move.

    Attributes:
        device: The device that carries the host's address.
        addresses: Its IPv4 addresses, as 192.0.2.5/24.
        ways: Its routes by way of a gateway: destination -> gateway.
    """

    device: str
    addresses: tuple[str, ...]
    ways: dict[str, str]


def own_network(
    address: str, links: Iterable[Link] | None, routes: Iterable[Route] | None
) -> OwnNetwork | None:
    """Return what carries a host's address; None where no device has it.

    Args:
        address: The address that the other hosts reach it at.
        links: Its devices.
        routes: Its routes of IPv4.
    """
    for link in links or ():
        four = tuple(each for each in link.addresses if ":" not in each)
        if address in (each.partition("/")[0] for each in four):
            found = [r for r in routes or () if r.device == link.name and r.gateway]
            return OwnNetwork(link.name, four, {r.destination: r.gateway for r in found})
    return None


def network_script(own: OwnNetwork) -> str:
    """Return the program that puts a host's own network back; it does no harm where it is there."""
    lines = [
        "#!/bin/sh",
        "# Puts this host's own address, routes and link back as they were before a network plugin",
        "# moved them. Written by the cluster network kit; kit unplug and kit stage reset run it.",
        f"dev={quote(own.device)}",
        "if command -v ovs-vsctl >/dev/null; then",
        '  br=$(ovs-vsctl --timeout=5 port-to-br "$dev" 2>/dev/null) &&',
        '    ovs-vsctl --timeout=5 del-port "$br" "$dev"',
        "fi",
        'ip link set "$dev" nomaster 2>/dev/null',
        'ip link set "$dev" up || exit 1',
        "failed=0",
        "address() {",
        "  ip -4 -o addr show | while read -r _ other _ has _; do",
        '    if [ "$has" = "$1" ] && [ "$other" != "$dev" ]; then',
        '      ip addr del "$1" dev "$other"',
        "    fi",
        "  done",
        '  ip addr replace "$1" brd + dev "$dev" || failed=1',
        "}",
        *(f"address {quote(each)}" for each in own.addresses),
        "way() {",
        '  ip -4 route replace "$1" via "$2" dev "$dev" || failed=1',
        "}",
        *(f"way {quote(net)} {quote(via)}" for net, via in own.ways.items()),
        "exit $failed",
    ]
    return "\n".join(lines) + "\n"


def timer_script(plugin: Plugin, seconds: float) -> str:
    """Return the program of the timer.

    Args:
        plugin: The plugin whose pods are stopped.
        seconds: How long it waits to be called off.
    """
    chosen = [
        f"stop_pods {quote(load.namespace)} "
        + " ".join(f"--label {quote(f'{key}={value}')}" for key, value in load.selector.items())
        for load in plugin.workloads
    ]
    lines = [
        "#!/bin/sh",
        f"# The way back from {plugin.title}, which moves this host's address: if the cluster",
        f"# network kit does not call it off within {seconds:g} s, or the host starts anew before",
        "# that, the plugin is stopped here and the address put back.",
        "now=$(cat /proc/sys/kernel/random/boot_id)",
        f'if [ ! -e {BOOT} ]; then echo "$now" > {BOOT}; fi',
        f'if [ "$(cat {BOOT})" = "$now" ] && [ ! -e {FIRED} ]; then sleep {seconds:g}; fi',
        "echo 'nobody called it off: stopping the plugin, putting the address back'",
        f"date -u +%Y-%m-%dT%H:%M:%SZ > {FIRED}",
        "systemctl stop kubelet",
        "stop_pods() {",
        "  space=$1; shift",
        '  for pod in $(crictl pods --quiet --namespace "$space" "$@"); do',
        '    crictl stopp "$pod"',
        "  done",
        "}",
        "if command -v crictl >/dev/null; then",
        *(f"  {line}" for line in chosen),
        "fi",
        f"sh {NETWORK}",
    ]
    return "\n".join(lines) + "\n"


def timer_unit(plugin: Plugin) -> str:
    """Return the timer's unit: it begins to count when it is started, and fires after a restart."""
    what = f"Way back from {plugin.name}, which moves this host's address (cluster network kit)"
    return unit_text(what, f"/bin/sh {TIMER}", again=False, after="network.target kubelet.service")


def call_off() -> Cmd:
    """Return the command that disarms the timer and removes it."""
    return script(
        f'systemctl disable --now "$1"; rm -f "$2" {TIMER} {BOOT} {FIRED} || exit 1; '
        "systemctl daemon-reload",
        UNIT,
        f"/etc/systemd/system/{UNIT}",
        mutates=True,
        label=f"stop and remove {UNIT}",
    )


def shown(own: OwnNetwork) -> str:
    """Return what is put back, in words."""
    gateways: Sequence[str] = sorted({*own.ways.values()})
    by = f", by way of {', '.join(gateways)}" if gateways else ""
    return f"{', '.join(own.addresses)} on {own.device}{by}"
