"""A pod network without a manifest: what the kit writes on each host, as text.

A bridge with host-local addresses is wired by the CNI programs that every node has; what they do
not do is to tell hosts the way to each other's pods, and to hide pods behind their host where they
leave the cluster. A small unit does that: routes of static files would be lost when the system's
own network service starts anew, and rules when it loads its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from shlex import quote

from kitlib.command import Cmd, script
from kitlib.plugins import Plugin
from kitlib.software.units import KIT_DIRECTORY, unit_name, unit_text

__all__ = [
    "CNI_DIRECTORY",
    "cni_configuration",
    "keeper_path",
    "keeper_script",
    "keeper_unit",
    "rule_is_there",
]

CNI_DIRECTORY = "/etc/cni/net.d"
CNI_VERSION = "0.3.1"
"""The oldest version of the format that has lists: every container runtime reads it."""
EVERY = 10
"""Seconds between two looks of the unit at the host's routes and rule."""

_RULE = '-s "$1" ! -d "$1" -m comment --comment "$2" -j MASQUERADE'
_IS_THERE = (
    f"if command -v iptables >/dev/null; then iptables -w -t nat -C POSTROUTING {_RULE}; "
    'else nft list chain ip "$3" postrouting | grep -qF "ip saddr $1"; fi'
)
"""$1 is the pod network, $2 the comment, $3 the nft table of a host without iptables."""


def cni_configuration(plugin: Plugin, pods: str, mtu: int) -> str:
    """Return the file in /etc/cni/net.d of one host.

    Args:
        plugin: A plugin with `per_node`.
        pods: The Node's podCIDR.
        mtu: Largest packet of pods in bytes; 0 leaves it to the kernel.
    """
    assert plugin.per_node is not None  # noqa: S101 - said above
    bridge = {
        "type": "bridge",
        "bridge": plugin.interfaces.pod.name,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        **({"mtu": mtu} if mtu else {}),
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    chained = [
        {"type": kind, **({"capabilities": {"portMappings": True}} if kind == "portmap" else {})}
        for kind in plugin.cni.types
        if kind != "bridge"
    ]
    document = {
        "cniVersion": CNI_VERSION,
        "name": plugin.per_node.network,
        "plugins": [bridge, *chained],
    }
    return json.dumps(document, indent=2) + "\n"


def keeper_path(plugin: Plugin) -> str:
    """Return where a host keeps the program that its unit runs."""
    return f"{KIT_DIRECTORY}/{plugin.name}.sh"


def keeper_script(plugin: Plugin, pod_cidr: IPv4Network, ways: Mapping[str, str]) -> str:
    """Return the program that puts a host's routes and masquerade rule there, and keeps them.

    `once` does it once and ends with the exit status of what failed; without a word it does it
    for ever, from the file as it is then.

    Args:
        plugin: A plugin with `per_node`.
        pod_cidr: The whole pod network.
        ways: The other nodes' podCIDR -> address of that node.
    """
    lines = [
        "#!/bin/sh",
        f"# {plugin.title}: routes to the other nodes' pods, and masquerading of what leaves",
        "# the pod network. Written by the cluster network kit (kit stage ready).",
        'if [ "$1" != once ]; then',
        f'  while :; do sh "$0" once; sleep {EVERY}; done',
        "fi",
        "failed=0",
        "way() {",
        '  ip -4 route replace "$1" via "$2" proto static || failed=1',
        "}",
        *(f"way {net} {via}" for net, via in ways.items()),
        *_put_rule(plugin, pod_cidr),
        "exit $failed",
    ]
    return "\n".join(lines) + "\n"


def keeper_unit(plugin: Plugin) -> str:
    """Return the systemd unit that runs the program from the host's start on."""
    what = f"Routes and masquerading of the pod network {plugin.name} (cluster network kit)"
    return unit_text(what, f"/bin/sh {keeper_path(plugin)}")


def rule_is_there(plugin: Plugin, pod_cidr: IPv4Network) -> Cmd:
    """Return the command that ends with 0 where the masquerade rule is there; it only reads."""
    assert plugin.per_node is not None  # noqa: S101 - a plugin with per_node, as the callers say
    words = (str(pod_cidr), plugin.per_node.comment, unit_name(plugin.name))
    return script(_IS_THERE, *words, label="look for the masquerade rule")


def _put_rule(plugin: Plugin, pod_cidr: IPv4Network) -> list[str]:
    """Return the script lines for the rule: iptables', or nft's on a host that has no iptables."""
    assert plugin.per_node is not None  # noqa: S101 - a plugin with per_node, as the caller says
    table, comment = unit_name(plugin.name), plugin.per_node.comment
    return [
        f"set -- {pod_cidr} {quote(comment)} {table}",
        f"if ! {{ {_IS_THERE}; }} >/dev/null 2>&1; then",
        "  if command -v iptables >/dev/null; then",
        f"    iptables -w -t nat -A POSTROUTING {_RULE} || failed=1",
        "  else",
        "    nft -f - <<END || failed=1",
        "table ip $3",
        "delete table ip $3",
        "table ip $3 {",
        "  chain postrouting {",
        "    type nat hook postrouting priority 100; policy accept;",
        '    ip saddr $1 ip daddr != $1 masquerade comment "$2"',
        "  }",
        "}",
        "END",
        "  fi",
        "fi",
    ]
