"""A plugin that calls another one, and that other one, as the one plugin that is wanted.

CNI-Genie has a file in /etc/cni/net.d and workloads, and no network; devices, addresses and ports
are those of the plugin that it calls. To stages and checks the two together are one plugin.
"""

from __future__ import annotations

from collections.abc import Iterable

from kitlib.plugins.entry import Supported, minor
from kitlib.plugins.schema import Cni, Hazards, Interfaces, Leftovers, Needs, Plugin

__all__ = ["over", "why_not"]


def why_not(front: Plugin, delegate: Plugin) -> str:
    """Return why the one cannot call the other; empty when it can."""
    if delegate.needs.delegate:
        return f"calls another plugin itself; {front.name} needs one with a network"
    if delegate.manifest is None:
        return f"has no manifest that could be applied before {front.name}'s"
    if not any(delegate.name in file for file in delegate.cni.files):
        files = ", ".join(delegate.cni.files)
        return f"{front.name} finds a plugin by its name in its file's, and that is {files}"
    return ""


def over(front: Plugin, delegate: Plugin) -> Plugin:
    """Return the plugin that `front` is where it calls `delegate`.

    Args:
        front: One that calls another (`needs.delegate`).
        delegate: The other, which `why_not` has nothing against.

    Returns:
        Name, status and manifest of the front; devices, addresses and ports of the delegate;
        workloads, files, needs and leftovers of both.
    """
    one, two = delegate.interfaces, front.interfaces
    return front.model_copy(
        update={
            "title": f"{front.title} over {delegate.title}",
            "datapath": delegate.datapath,
            "encapsulation": delegate.encapsulation,
            "layer": delegate.layer,
            "overhead_bytes": delegate.overhead_bytes,
            "kubernetes": _both_support(front, delegate),
            "mtu": delegate.mtu,
            "backend": delegate.backend,
            "parameters": (*delegate.parameters, *front.parameters),
            "pod_cidr": delegate.pod_cidr,
            "workloads": (*delegate.workloads, *front.workloads),
            "cni": _both_files(front.cni, delegate.cni),
            "interfaces": Interfaces(
                pod=one.pod, tunnel=one.tunnel, owned=_union(one.owned, two.owned)
            ),
            "ports": (*delegate.ports, *front.ports),
            "leftovers": _both_leave(front.leftovers, delegate.leftovers),
            "needs": _both_need(front.needs, delegate),
            "hazards": _both_endanger(front.hazards, delegate.hazards),
            "traps": (*delegate.traps, *front.traps),
            "network_policy": delegate.network_policy or front.network_policy,
            "encryption": delegate.encryption,
            "ipv6": delegate.ipv6 if front.ipv6 == "not stated" else front.ipv6,
            "node_condition_reason": delegate.node_condition_reason,
            "sources": _union(front.sources, delegate.sources),
        }
    )


def _union(*parts: Iterable[str]) -> tuple[str, ...]:
    """Return what is in any of the parts, each once, in their order."""
    return tuple(dict.fromkeys(each for part in parts for each in part))


def _both_support(front: Plugin, delegate: Plugin) -> Supported:
    ranges = (front.kubernetes, delegate.kubernetes)
    breaks = [each for part in ranges for each in part.breaks]
    return Supported(
        min=max((each.min for each in ranges), key=minor),
        max=min((each.max for each in ranges), key=minor),
        note=f"where both {front.title} and {delegate.title} work",
        breaks=tuple(sorted(breaks, key=lambda each: minor(each.since))),
    )


def _both_files(front: Cni, delegate: Cni) -> Cni:
    """Return the files of both; the front's is in force, the delegate's lies beside it."""
    return Cni(
        files=front.files,
        extra_files=_union(front.extra_files, delegate.files, delegate.extra_files),
        types=_union(front.types, delegate.types),
        binaries=_union(front.binaries, delegate.binaries),
    )


def _both_leave(front: Leftovers, delegate: Leftovers) -> Leftovers:
    return Leftovers(
        **{
            name: _union(getattr(delegate, name), getattr(front, name))
            for name in Leftovers.model_fields
        }
    )


def _both_need(front: Needs, delegate: Plugin) -> Needs:
    needs = delegate.needs
    return needs.model_copy(
        update={
            "modules": _union(needs.modules, front.modules),
            "sysctls": {**needs.sysctls, **front.sysctls},
            "service_cidr": needs.service_cidr or front.service_cidr,
            "node_labels": {**needs.node_labels, **front.node_labels},
            "control_plane_labels": {**needs.control_plane_labels, **front.control_plane_labels},
            "delegate": delegate.name,
        }
    )


def _both_endanger(front: Hazards, delegate: Hazards) -> Hazards:
    words = (delegate.cni_directory, front.cni_directory)
    return Hazards(
        moves_host_address=front.moves_host_address or delegate.moves_host_address,
        cni_directory="; ".join(filter(None, words)),
        private_images=front.private_images or delegate.private_images,
    )
