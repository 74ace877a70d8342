"""What a lab is made of, as data: its hosts, its ports, and how it is found again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from kitlib.errors import LabError

__all__ = ["MANIFEST_PORT", "HostSpec", "HostStatus", "LabSpec", "LabStatus", "build_spec"]

MANIFEST_PORT = 7720
"""Where the lab serves its plugin manifests when nothing else is said."""

_T = TypeVar("_T", int, str)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_FIRST = 11


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One host of a lab.

    Attributes:
        name: The host name, a DNS label.
        role: `control_plane` or `worker`; the lab only shows it.
        ssh_port: The port on 127.0.0.1 where its SSH server answers.
        address: Its IPv4 address inside the lab.
    """

    name: str
    role: str
    ssh_port: int
    address: str


@dataclass(frozen=True, slots=True)
class LabSpec:
    """One lab: the cluster's name, its hosts, and the manifest server's port on 127.0.0.1."""

    cluster: str
    hosts: tuple[HostSpec, ...]
    manifest_port: int = MANIFEST_PORT

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LabSpec:
        """Return the spec that `to_json` gave."""
        hosts = tuple(HostSpec(**host) for host in data["hosts"])
        return cls(data["cluster"], hosts, data["manifest_port"])


@dataclass(frozen=True, slots=True)
class HostStatus:
    """How one lab host is now.

    Attributes:
        spec: The host.
        state: `starting`, `ready`, `dead`, or `unknown` when the lab does not answer.
        faults: The faults switched on for it, sorted.
    """

    spec: HostSpec
    state: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabStatus:
    """How a lab is now.

    Attributes:
        running: True while its processes live.
        summary: One line for people.
        cluster: The cluster's name; empty when there is no lab.
        time_factor: What recorded delays are multiplied by.
        manifest_port: The manifest server's port on 127.0.0.1; 0 when there is no lab.
        hosts: The hosts in order; empty when there is no lab.
        pid: The outermost process; 0 when there is no lab.
    """

    running: bool
    summary: str
    cluster: str = ""
    time_factor: float = 0.0
    manifest_port: int = 0
    hosts: tuple[HostStatus, ...] = ()
    pid: int = 0


def build_spec(
    cluster: str,
    hosts: Iterable[tuple[str, str, int]],
    *,
    manifest_port: int = MANIFEST_PORT,
) -> LabSpec:
    """Return a lab spec for (host name, role, SSH port) triples; addresses count from 10.77.0.11.

    Raises:
        LabError: No hosts, a name that is no DNS label, or a name or port used twice.
    """
    rows = list(hosts)
    names = [name for name, _, _ in rows]
    ports = [manifest_port, *(port for _, _, port in rows)]
    problems = [f"host name {n!r}: not a DNS label" for n in names if not _NAME.fullmatch(n)]
    problems += [f"host name {name!r}: used twice" for name in sorted(_twice(names))]
    problems += [f"port {port}: used twice" for port in sorted(_twice(ports))]
    problems += [f"port {port}: not in 1..65535" for port in ports if not 0 < port < 65536]
    if not 0 < len(rows) <= 200:
        problems.append(f"{len(rows)} hosts: a lab has 1 to 200")
    if problems:
        raise LabError(
            "lab: " + "; ".join(problems), remedy="correct the hosts in the parameter file"
        )
    specs = (
        HostSpec(name, role, port, f"10.77.0.{_FIRST + index}")
        for index, (name, role, port) in enumerate(rows)
    )
    return LabSpec(cluster, tuple(specs), manifest_port)


def _twice(items: list[_T]) -> set[_T]:
    return {item for item in items if items.count(item) > 1}
