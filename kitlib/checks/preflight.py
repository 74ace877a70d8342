"""Whether the hosts can become the wanted cluster; everything at once, nothing changed by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kitlib.checks.clusters import guard, own_cluster
from kitlib.checks.cni import leftover_checks
from kitlib.checks.judging import by_system, judged, skipped
from kitlib.checks.names import names
from kitlib.checks.packages import settled_later
from kitlib.checks.plugin_needs import of_cluster, of_host
from kitlib.checks.ports import ports
from kitlib.checks.runtime import runtime
from kitlib.checks.together import (
    Reach,
    clocks,
    mutual,
    no_route_into,
    synchronised,
    unique,
    zones,
)
from kitlib.checks.versions import cgroups, kernel, kubelet, plugin_fits
from kitlib.facts import HostFacts
from kitlib.inventory import Host
from kitlib.model import Check, Status
from kitlib.params import Params
from kitlib.plugins import Plugin

__all__ = ["preflight"]

SYSCTLS = {"net.bridge.bridge-nf-call-iptables": "1", "net.ipv4.ip_forward": "1"}
MIN_CPUS = 2
MIN_MEMORY = 1700 * 2**20
"""kubeadm refuses a control plane with fewer processors, or less memory."""
WORKER_MEMORY = 700 * 2**20
MIN_DISK = 100 * 2**20
GOOD_DISK = 5 * 2**30
FREE_SHARE = 0.15
"""Of the file system; below it the kubelet throws images away, and below a tenth pods."""


def preflight(
    facts: Mapping[str, HostFacts],
    params: Params,
    plugin: Plugin,
    reach: Reach | None = None,
    members: Mapping[str, Sequence[str]] | None = None,
) -> list[Check]:
    """Return every check that can be made before anything is changed.

    Args:
        facts: Host name -> facts, of every host of the inventory that answers.
        params: The wanted cluster.
        plugin: The wanted plugin.
        reach: Host name -> (other host's address -> how it answers); None when not tried.
        members: Host name -> the nodes of the cluster that it belongs to, as its API says.
    """
    own = own_cluster(facts, params)
    checks = [
        plugin_fits(params, plugin),
        *of_cluster(params, plugin),
        *no_route_into(facts, params),
        *guard(facts, params, members),
    ]
    for host in params.hosts:
        if host.name in facts:
            here = facts[host.name]
            stays = own is not None and host.name in own.hosts
            found = [
                *_host(host, here, plugin),
                *of_host(host.name, here, plugin, stays=stays),
                *_versions(host.name, here, params, stays=stays),
            ]
            checks += [settled_later(each, params, here) for each in found]
    checks += unique(facts)
    checks += clocks(facts)
    checks += synchronised(facts)
    checks.append(zones(facts))
    if reach is not None:
        checks += mutual(facts, params, reach)
    return checks


def _host(host: Host, facts: HostFacts, plugin: Plugin) -> list[Check]:
    leftovers = [
        each if each.status is not Status.FAIL else _downgraded(each)
        for each in leftover_checks(host.name, facts, plugin, id="preflight")
    ]
    return [
        *_identity(host, facts),
        *names(host, facts),
        *_size(host, facts),
        *_kernel(host, facts, plugin),
        ports(host, facts, plugin),
        *runtime(host.name, facts),
        *leftovers,
    ]


def _versions(name: str, facts: HostFacts, params: Params, *, stays: bool) -> list[Check]:
    version = params.kubernetes_version
    return [
        kernel(name, facts, version),
        cgroups(name, facts, version),
        kubelet(name, facts, version, stays=stays),
    ]


def _downgraded(check: Check) -> Check:
    """Return a leftover as a warning: before the reset stage it is no failure yet."""
    remedy = "the reset stage removes it"
    return Check(
        check.id, check.target, Status.WARN, check.summary, check.got, check.expected, remedy
    )


def _identity(host: Host, facts: HostFacts) -> list[Check]:
    who = facts.host
    addresses = [
        address.partition("/")[0]
        for link in facts.links or ()
        if link.kind != "loopback"
        for address in link.addresses
    ]
    address = Check.that(
        host.node_address in addresses,
        "preflight.node-address",
        host.name,
        "has the address that the other hosts use",
        got=host.node_address
        if host.node_address in addresses
        else ", ".join(addresses) or "no address known",
        expected=host.node_address,
        remedy="set node_address of this host in the parameters to one of its own addresses",
    )
    return [
        Check.that(
            who.uid == 0,
            "preflight.root",
            host.name,
            "commands run as root",
            got=f"uid {who.uid}",
            expected="uid 0",
            remedy="log in as root (ssh.user in the parameters)",
        ),
        judged(
            Status.PASS if who.packager else Status.WARN,
            "preflight.os",
            host.name,
            "operating system is one that the kit knows",
            got=who.os_name or "unknown",
            expected="one of the Debian or the Red Hat family",
            remedy="packages must be installed by hand there",
        ),
        address,
    ]


def _size(host: Host, facts: HostFacts) -> list[Check]:
    who = facts.host
    checks = []
    if host.is_control_plane:
        checks.append(
            Check.that(
                (who.cpus or 0) >= MIN_CPUS,
                "preflight.cpus",
                host.name,
                "enough processors for a control plane",
                got=str(who.cpus),
                expected=f"at least {MIN_CPUS}",
                remedy="kubeadm refuses fewer; give the machine more, or choose another host",
            )
        )
    least = MIN_MEMORY if host.is_control_plane else WORKER_MEMORY
    summary = "enough memory"
    if who.memory is None:
        checks.append(skipped("preflight.memory", host.name, summary, "unknown"))
    else:
        too_little = Status.FAIL if host.is_control_plane else Status.WARN
        checks.append(
            judged(
                Status.PASS if who.memory >= least else too_little,
                "preflight.memory",
                host.name,
                summary,
                got=f"{who.memory / 2**20:.0f} MiB",
                expected=f"at least {least / 2**20:.0f} MiB",
                remedy="kubeadm refuses less; give the machine more, or choose another host"
                if host.is_control_plane
                else "the kubelet, the runtime and the plugin alone need that much",
            )
        )
    return [*checks, _disk(host, facts)]


def _disk(host: Host, facts: HostFacts) -> Check:
    which, summary = "preflight.disk", "space under /var/lib"
    free, size = facts.host.disk_free, facts.host.disk_size
    if free is None:
        return skipped(which, host.name, summary, "unknown")
    status, want = Status.PASS, GOOD_DISK
    if free < MIN_DISK:
        status, want = Status.FAIL, MIN_DISK
    elif not facts.is_lab:
        want = max(GOOD_DISK, int(FREE_SHARE * (size or 0)))
        status = Status.WARN if free < want else Status.PASS
    clean = by_system(facts, apt="apt-get clean", dnf="dnf clean all")
    return judged(
        status,
        which,
        host.name,
        summary,
        got=f"{_size_of(free)} free" + (f" of {_size_of(size)}" if size else ""),
        expected=f"at least {_size_of(want)}; images and etcd lie there",
        remedy=f"du -xhd2 /var | sort -h | tail shows what is large; {clean}; "
        "journalctl --vacuum-size=200M",
    )


def _size_of(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _kernel(host: Host, facts: HostFacts, plugin: Plugin) -> list[Check]:
    swaps = facts.kernel.swaps
    checks = [
        Check("preflight.swap", host.name, Status.SKIP, "swap is off", "unknown")
        if swaps is None
        else Check.that(
            not swaps,
            "preflight.swap",
            host.name,
            "swap is off",
            got=", ".join(swaps),
            expected="none",
            remedy="swapoff -a && sed -i -E '/^[^#].*[[:space:]]swap[[:space:]]/s/^/#/' /etc/fstab",
        )
    ]
    for module in ("br_netfilter", "overlay"):
        has = facts.kernel.has(module)
        summary = f"kernel has {module}"
        if has is None:
            checks.append(
                Check(f"preflight.module.{module}", host.name, Status.SKIP, summary, "unknown")
            )
            continue
        checks.append(
            Check.that(
                has,
                f"preflight.module.{module}",
                host.name,
                summary,
                got="loaded" if has else "not loaded",
                expected="loaded",
                remedy=f"modprobe {module} && echo {module} >> /etc/modules-load.d/k8s.conf",
            )
        )
    for name, wanted in {**SYSCTLS, **plugin.needs.sysctls}.items():
        value = facts.kernel.sysctls.get(name)
        if value is None and name.startswith("net.bridge.") and facts.kernel.has("br_netfilter"):
            # Only where the module is emulated; on a real host it brings the setting with it.
            got = "br_netfilter is there, its setting cannot be seen"
            which, summary = f"preflight.sysctl.{name}", f"{name} is on"
            checks.append(Check(which, host.name, Status.SKIP, summary, got))
            continue
        checks.append(
            Check.that(
                value == wanted,
                f"preflight.sysctl.{name}",
                host.name,
                f"{name} is on",
                got=value or "does not exist",
                expected=wanted,
                remedy=f"echo '{name} = {wanted}' >> /etc/sysctl.d/k8s.conf && sysctl --system",
            )
        )
    return checks
