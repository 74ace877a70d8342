"""Whether the ports that a host's role and the plugin need are free, and who holds them if not."""

from __future__ import annotations

from kitlib.checks.judging import by_system, judged, skipped
from kitlib.facts import HostFacts, Listener
from kitlib.inventory import Host
from kitlib.model import Check, Status
from kitlib.plugins import Plugin

__all__ = ["needed", "ports"]

KUBELET = {10250: "kubelet"}
CONTROL_PLANE = {
    6443: "API server",
    2379: "etcd",
    2380: "etcd",
    10257: "controller manager",
    10259: "scheduler",
}
_TUNNELS = ("vxlan", "geneve", "wireguard", "gre")


def needed(host: Host, plugin: Plugin) -> dict[tuple[str, int], str]:
    """Return (protocol, port) -> what needs it, of one host in its role.

    Args:
        host: The host.
        plugin: The wanted plugin.
    """
    own = {**KUBELET, **(CONTROL_PLANE if host.is_control_plane else {})}
    wanted = {("tcp", port): what for port, what in own.items()}
    return wanted | {(each.protocol, each.port): each.what for each in plugin.ports}


def ports(host: Host, facts: HostFacts, plugin: Plugin) -> Check:
    """Return the check of one host's ports.

    Args:
        host: The host.
        facts: Its facts.
        plugin: The wanted plugin.
    """
    which, summary = "preflight.ports", "the ports that it needs are free"
    wanted = needed(host, plugin)
    shown = ", ".join(f"{port}/{protocol}" for protocol, port in sorted(wanted))
    if facts.ports is None:
        return skipped(which, host.name, summary, facts.unknown.get("ports", "unknown"))
    if not facts.kubeadm.clean:
        got = "a cluster is on this host; the reset stage frees them where needed"
        return skipped(which, host.name, summary, got)
    taken = {
        (each.port, each.protocol): each
        for each in facts.ports
        if (each.protocol, each.port) in wanted and not _tunnels_own(each, facts)
    }
    return judged(
        Status.FAIL if taken else Status.PASS,
        which,
        host.name,
        summary,
        got="; ".join(
            f"{port}/{protocol} ({wanted[protocol, port]}) is held by {_holder(each)}"
            for (port, protocol), each in sorted(taken.items())
        )
        or f"free: {shown}",
        expected=f"free: {shown}",
        remedy=_remedy(host, facts, [taken[key] for key in sorted(taken)]),
    )


def _tunnels_own(listener: Listener, facts: HostFacts) -> bool:
    """Return whether a tunnel device of the kernel holds the port: it goes with the device."""
    has_tunnel = any(link.kind in _TUNNELS for link in facts.links or ())
    return listener.protocol == "udp" and not listener.process and has_tunnel


def _holder(listener: Listener) -> str:
    if not listener.process:
        return "a process that cannot be seen, or the kernel"
    return listener.process + (f" (pid {listener.pid})" if listener.pid else "")


def _remedy(host: Host, facts: HostFacts, taken: list[Listener]) -> str:
    seen = {each.process for each in taken if each.process}
    if "etcd" in seen and host.is_control_plane:
        return by_system(
            facts,
            apt="systemctl disable --now etcd (Debian's etcd-server package starts one)",
            dnf="systemctl disable --now etcd",
        )
    pids = sorted({each.pid for each in taken if each.pid})
    if pids:
        shown = "; ".join(f"systemctl status {pid}" for pid in pids)
        return f"{shown} names the unit; systemctl disable --now <unit> stops it for good"
    query = " or ".join(f"sport = :{each.port}" for each in taken)
    return f"ss -Hlntup '{query}' as root shows who it is; stop it"
