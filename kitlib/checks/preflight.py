"""Whether the hosts can become the wanted cluster; everything at once, nothing changed by it."""

from __future__ import annotations

from collections.abc import Mapping

from kitlib.checks.clusters import guard
from kitlib.checks.cni import leftover_checks
from kitlib.checks.packages import settled_later
from kitlib.checks.together import Reach, clocks, mutual, no_route_into, unique
from kitlib.facts import HostFacts
from kitlib.facts.ports import Listener
from kitlib.inventory import Host
from kitlib.model import CLUSTER, Check, Status
from kitlib.params import Params
from kitlib.plugins import Plugin
from kitlib.plugins.schema import minor

__all__ = ["preflight"]

CONTROL_PLANE_PORTS = (6443, 2379, 2380, 10250, 10257, 10259)
WORKER_PORTS = (10250,)
MIN_CPUS = 2
MIN_MEMORY = 1700 * 1000 * 1000
MIN_DISK = 100 * 2**20
GOOD_DISK = 5 * 2**30


def preflight(
    facts: Mapping[str, HostFacts], params: Params, plugin: Plugin, reach: Reach | None = None
) -> list[Check]:
    """Return every check that can be made before anything is changed.

    Args:
        facts: Host name -> facts, of every host of the inventory.
        params: The wanted cluster.
        plugin: The wanted plugin.
        reach: Host name -> (other host's address -> whether it answers); None when not tried.
    """
    checks = [_plugin_fits(params, plugin), *no_route_into(facts, params), *guard(facts, params)]
    for host in params.hosts:
        if host.name in facts:
            here = facts[host.name]
            checks += [settled_later(each, params, here) for each in _host(host, here, plugin)]
    checks += unique(facts)
    checks += clocks(facts)
    if reach is not None:
        checks += mutual(params, reach)
    return checks


def _host(host: Host, facts: HostFacts, plugin: Plugin) -> list[Check]:
    leftovers = [
        each if each.status is not Status.FAIL else _downgraded(each)
        for each in leftover_checks(host.name, facts, plugin, id="preflight")
    ]
    return [
        *_identity(host, facts),
        *_size(host, facts),
        *_kernel(host, facts),
        *_ports(host, facts, plugin),
        _runtime(host, facts),
        *leftovers,
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
        got=", ".join(addresses) or "no address known",
        expected=host.node_address,
        remedy="set node_address of this host in the parameters to one of its own IPv4 addresses",
    )
    known = who.os_id in ("debian", "ubuntu")
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
        Check(
            "preflight.os",
            host.name,
            Status.PASS if known else Status.WARN,
            "operating system is one that the kit knows",
            who.os_name or "unknown",
            "" if known else "Debian or Ubuntu",
            "" if known else "packages must be installed by hand there",
        ),
        Check(
            "preflight.hostname",
            host.name,
            Status.PASS if who.hostname == host.name else Status.WARN,
            "host name is the inventory's",
            who.hostname or "unknown",
            host.name,
            f"hostnamectl set-hostname {host.name}" if who.hostname != host.name else "",
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
    small = who.memory is not None and who.memory < MIN_MEMORY
    checks.append(
        Check(
            "preflight.memory",
            host.name,
            Status.WARN if small else Status.PASS,
            "enough memory",
            "unknown" if who.memory is None else f"{who.memory / 1e6:.0f} MB",
            f"at least {MIN_MEMORY / 1e6:.0f} MB" if small else "",
            "the control plane may be killed under load" if small else "",
        )
    )
    free = who.disk_free
    summary, remedy = "space under /var/lib", "free some; images and etcd lie there"
    if free is None:
        checks.append(Check("preflight.disk", host.name, Status.SKIP, summary, "unknown"))
    elif free < MIN_DISK:
        got, want = f"{free / 2**20:.0f} MiB free", f"at least {MIN_DISK / 2**20:.0f} MiB"
        checks.append(Check("preflight.disk", host.name, Status.FAIL, summary, got, want, remedy))
    else:
        tight = free < GOOD_DISK and not facts.is_lab
        status = Status.WARN if tight else Status.PASS
        got, want = f"{free / 2**30:.1f} GiB free", f"{GOOD_DISK / 2**30:.0f} GiB or more"
        checks.append(
            Check(
                "preflight.disk",
                host.name,
                status,
                summary,
                got,
                want if tight else "",
                remedy if tight else "",
            )
        )
    return checks


def _kernel(host: Host, facts: HostFacts) -> list[Check]:
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
            remedy="swapoff -a, and take the swap lines out of /etc/fstab",
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
                remedy=f"modprobe {module}, and put {module} into /etc/modules-load.d/k8s.conf",
            )
        )
    for name in ("net.bridge.bridge-nf-call-iptables", "net.ipv4.ip_forward"):
        value = facts.kernel.sysctls.get(name)
        if value is None and name.startswith("net.bridge.") and facts.kernel.has("br_netfilter"):
            # Only where the module is emulated; on a real host it brings the setting with it.
            got = "br_netfilter is there, its setting cannot be seen"
            which, summary = f"preflight.sysctl.{name}", f"{name} is on"
            checks.append(Check(which, host.name, Status.SKIP, summary, got))
            continue
        checks.append(
            Check.that(
                value == "1",
                f"preflight.sysctl.{name}",
                host.name,
                f"{name} is on",
                got=value or "does not exist",
                expected="1",
                remedy=f"write {name} = 1 into /etc/sysctl.d/k8s.conf and run sysctl --system",
            )
        )
    return checks


def _ports(host: Host, facts: HostFacts, plugin: Plugin) -> list[Check]:
    own = CONTROL_PLANE_PORTS if host.is_control_plane else WORKER_PORTS
    wanted = {("tcp", port) for port in own} | {(each.protocol, each.port) for each in plugin.ports}
    summary = "the ports that it needs are free"
    if facts.ports is None:
        return [Check("preflight.ports", host.name, Status.SKIP, summary, "unknown")]
    if not facts.kubeadm.clean:
        got = "a cluster is on this host; the reset stage frees them where needed"
        return [Check("preflight.ports", host.name, Status.SKIP, summary, got)]
    taken = {
        f"{each.port}/{each.protocol}" + (f" ({each.process})" if each.process else "")
        for each in facts.ports
        if (each.protocol, each.port) in wanted and not _tunnels_own(each, facts)
    }
    return [
        Check.that(
            not taken,
            "preflight.ports",
            host.name,
            summary,
            got=", ".join(sorted(taken)),
            expected=", ".join(f"{port}/{protocol}" for protocol, port in sorted(wanted)),
            remedy="stop what listens there",
        )
    ]


def _tunnels_own(listener: Listener, facts: HostFacts) -> bool:
    """Return whether a tunnel device of the kernel holds the port: it goes with the device.

    A reset that was broken off leaves one; the reset stage of the next build deletes it.
    """
    tunnel = any(link.kind == "vxlan" for link in facts.links or ())
    return listener.protocol == "udp" and not listener.process and tunnel


def _runtime(host: Host, facts: HostFacts) -> Check:
    found, summary = facts.runtime, "the container runtime answers"
    if not found.installed and not found.unit.startswith("active"):
        got = "none yet; the packages stage installs it"
        return Check("preflight.runtime", host.name, Status.SKIP, summary, got)
    ok = found.ready is True or (not found.installed and found.unit == "active")
    return Check.that(
        ok,
        "preflight.runtime",
        host.name,
        summary,
        got="ready" if ok else f"{found.unit or 'unknown'}: {found.why or 'not ready'}",
        expected="ready",
        remedy="systemctl start containerd, then journalctl -u containerd",
    )


def _plugin_fits(params: Params, plugin: Plugin) -> Check:
    version, span = params.kubernetes_version, plugin.kubernetes
    status = Status.PASS if span.covers(version) else Status.FAIL
    if minor(version) > minor(span.max):
        status = Status.WARN
    remedy = {
        Status.FAIL: "choose a newer Kubernetes, or another plugin",
        Status.WARN: "newer than what the catalogue knows; it may work",
    }
    return Check(
        "preflight.plugin-version",
        CLUSTER,
        status,
        f"{plugin.name} fits the Kubernetes version",
        version,
        f"{span.min} to {span.max}",
        remedy.get(status, ""),
    )
