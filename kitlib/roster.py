"""What is found on each host of a parameter file, one row a host; reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kitlib import facts as host_facts
from kitlib.facts import HostFacts
from kitlib.fanout import fan_out
from kitlib.inventory import Host
from kitlib.params import Params
from kitlib.reach import open_ssh, open_sudo, unlock

__all__ = ["COLUMNS", "Roster", "row_of", "take_roster"]

COLUMNS = (
    "host",
    "address",
    "role",
    "OS",
    "kernel",
    "CPUs",
    "memory",
    "runtime",
    "kubelet",
    "cluster",
    "CA hash",
    "state",
)
"""The columns of the rows."""

_UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Roster:
    """What was found.

    Attributes:
        rows: One a host, in the parameters' order; the cells are those of COLUMNS.
        errors: Host -> why it could not be read.
    """

    rows: tuple[tuple[str, ...], ...]
    errors: Mapping[str, Exception]

    def raise_first(self) -> None:
        """Raise the first host's error, where there is one; the others stand in the rows."""
        for error in self.errors.values():
            raise error


def take_roster(params: Params, *, ask: Callable[[], str] | None = None) -> Roster:
    """Return what is found on each host now; a host that cannot be read has a row all the same.

    Args:
        params: Whose hosts.
        ask: Returns sudo's password from a person; None where there is nobody to ask.
    """
    sudo = open_sudo(params)
    with open_ssh(params, sudo) as ssh:
        if ask is not None:
            unlock(params, ssh, sudo, ask)
        fanned = fan_out(
            lambda name: host_facts.gather(name, lambda cmd: ssh.run(name, cmd), params.catalogue),
            [host.name for host in params.hosts],
        )
    rows = (
        row_of(host, fanned.values.get(host.name), fanned.errors.get(host.name))
        for host in params.hosts
    )
    return Roster(tuple(rows), fanned.errors)


def row_of(host: Host, facts: HostFacts | None, error: Exception | None) -> tuple[str, ...]:
    """Return the cells of one host; `error` says why there are no `facts`."""
    address = host.address if not host.port else f"{_bracketed(host.address)}:{host.port}"
    who = (host.name, address, host.role.value)
    if facts is None:
        reason = getattr(error, "message", None) or str(error)
        return (*who, *[""] * (len(COLUMNS) - len(who) - 1), reason.splitlines()[0])
    seen = facts.host
    packages = facts.packages or {}
    kubelet = packages.get("kubelet")
    return (
        *who,
        seen.os_name or _UNKNOWN,
        seen.kernel or _UNKNOWN,
        str(seen.cpus or _UNKNOWN),
        f"{seen.memory / 2**30:.1f} GiB" if seen.memory else _UNKNOWN,
        _runtime(facts),
        _UNKNOWN if facts.packages is None else kubelet.release if kubelet else "none",
        _cluster(facts),
        facts.kubeadm.ca_hash,
        "reachable" if seen.uid == 0 else "reachable, not root",
    )


def _runtime(facts: HostFacts) -> str:
    packages = facts.packages or {}
    found = packages.get("containerd") or packages.get("containerd.io")
    name = f"containerd {found.release}" if found else "containerd"
    if not found and facts.runtime.unit in ("", "inactive"):
        return "none"
    return name if facts.runtime.unit == "active" else f"{name} ({facts.runtime.unit or _UNKNOWN})"


def _cluster(facts: HostFacts) -> str:
    """Return the cluster's own name and its API server, as far as the host tells them."""
    kubeadm = facts.kubeadm
    if not kubeadm.joined and not kubeadm.initialised:
        return "none" if kubeadm.clean else "remains of one"
    return f"{kubeadm.cluster} at {kubeadm.server}" if kubeadm.cluster else f"at {kubeadm.server}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
