"""Whether the pod network on each host is the wanted plugin's, and no other's.

A node is Ready as soon as any CNI configuration is there, so Ready says nothing about whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from kitlib.facts import CniFile, HostFacts
from kitlib.model import CLUSTER, Check, Status
from kitlib.plugins import Plugin

__all__ = ["cni", "foreign_files", "leftover_checks"]

DIRECTORY = "/etc/cni/net.d"


def cni(facts: Mapping[str, HostFacts], plugin: Plugin) -> list[Check]:
    """Return the checks of every host's pod network, and that it is one and the same everywhere.

    Args:
        facts: Host name -> facts, of the hosts that are nodes.
        plugin: The wanted plugin.
    """
    checks: list[Check] = []
    for name, each in facts.items():
        checks.append(_in_force(name, each, plugin))
        checks.append(_binaries(name, each, plugin))
        checks += leftover_checks(name, each, plugin, id="cni")
    return [*checks, _same(facts)]


def foreign_files(facts: HostFacts, plugin: Plugin) -> tuple[CniFile, ...]:
    """Return the network configurations on a host that are not the plugin's."""
    return tuple(
        each
        for each in facts.cni.files
        if not each.loopback_only and not plugin.has_part(each.owner)
    )


def leftover_checks(name: str, facts: HostFacts, plugin: Plugin, *, id: str) -> list[Check]:
    """Return the checks that no other plugin's file and no other plugin's device is on a host.

    Args:
        name: The host's name.
        facts: Its facts.
        plugin: The wanted plugin.
        id: The first part of the checks' ids.
    """
    files = foreign_files(facts, plugin)
    shown = ", ".join(f"{each.name} ({each.owner or 'unknown plugin'})" for each in files)
    by_file = Check.that(
        not files,
        f"{id}.no-foreign-file",
        name,
        f"no other plugin's file in {DIRECTORY}",
        got=shown,
        expected=f"{plugin.name}'s alone",
        remedy=f"on {name}: rm {' '.join(f'{DIRECTORY}/{each.name}' for each in files)}; pods made "
        "since it was there must be made anew",
    )
    summary = "no other plugin's network device"
    if facts.links is None:
        return [
            by_file,
            Check(f"{id}.no-foreign-interface", name, Status.SKIP, summary, "devices unknown"),
        ]
    foreign = facts.known.foreign_interfaces(plugin, (link.name for link in facts.links))
    return [
        by_file,
        Check.that(
            not foreign,
            f"{id}.no-foreign-interface",
            name,
            summary,
            got=", ".join(f"{device} ({owner})" for device, owner in foreign.items()),
            expected=f"{plugin.name}'s alone",
            remedy=f"on {name}: "
            + "; ".join(f"ip link delete {device}" for device in foreign)
            + ", or build again with --rebuild",
        ),
    ]


def _in_force(name: str, facts: HostFacts, plugin: Plugin) -> Check:
    found = facts.cni.in_force
    owner = (found.owner or "unknown plugin") if found else ""
    if found and not found.types:
        owner = "not a CNI configuration"
    return Check.that(
        found is not None and bool(found.types) and found.owner == plugin.name,
        "cni.config-in-force",
        name,
        f"the first configuration in {DIRECTORY} is {plugin.name}'s",
        got=f"{found.name} ({owner})" if found else f"no configuration in {DIRECTORY}",
        expected=plugin.cni.files[0],
        remedy="remove the file that sorts before it, then delete the pods made meanwhile"
        if found
        else _who_writes_it(plugin),
    )


def _who_writes_it(plugin: Plugin) -> str:
    if not plugin.workloads:
        return "run the ready stage, which writes it"
    return f"wait for the {plugin.workloads[0].name} pod of this node, or read its log"


def _binaries(name: str, facts: HostFacts, plugin: Plugin) -> Check:
    summary = "the plugin's programs are in /opt/cni/bin"
    have = facts.cni.binaries
    if have is None:
        return Check("cni.binaries", name, Status.SKIP, summary, "/opt/cni/bin unknown")
    missing = [each for each in plugin.cni.binaries if each not in have]
    return Check.that(
        not missing,
        "cni.binaries",
        name,
        summary,
        got=f"missing: {', '.join(missing)}" if missing else "",
        expected=", ".join(plugin.cni.binaries),
        remedy="install kubernetes-cni again; the plugin's own pod installs the rest",
    )


def _same(facts: Mapping[str, HostFacts]) -> Check:
    """Return the check that every host's configuration is the same, by name and by CNI types."""
    seen: dict[str, list[str]] = {}
    for name, each in facts.items():
        found = each.cni.in_force
        key = f"{found.name} [{', '.join(found.types)}]" if found else "none"
        seen.setdefault(key, []).append(name)
    return Check.that(
        len(seen) <= 1,
        "cni.same-everywhere",
        CLUSTER,
        "one CNI configuration on all hosts",
        got="; ".join(f"{key} on {', '.join(names)}" for key, names in seen.items()),
        expected="the same on all",
        remedy="clean the hosts that differ and let the plugin write its file again",
    )
