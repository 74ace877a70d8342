"""The hosts of one cluster: who they are, how to reach them, what each is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from kitlib.errors import ParamsError

if TYPE_CHECKING:
    from kitlib.params import Params

__all__ = ["Host", "Inventory", "Role", "Taint"]


class Role(StrEnum):
    """What a host is for."""

    CONTROL_PLANE = "control_plane"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint for a Node, as Kubernetes writes it: `key=value:Effect`, or `key:Effect`.

    Attributes:
        key: Its key, with a prefix or without.
        value: Its value; may be empty.
        effect: NoSchedule, PreferNoSchedule or NoExecute.
    """

    key: str
    value: str
    effect: str

    @classmethod
    def parse(cls, text: str) -> Taint:
        """Return the taint that a validated text states."""
        pair, _, effect = text.partition(":")
        key, _, value = pair.partition("=")
        return cls(key, value, effect)

    def __str__(self) -> str:
        """Return it as Kubernetes writes it."""
        return (
            f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"
        )


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the cluster.

    Attributes:
        name: The host's name, and its Node's.
        address: What SSH connects to: a name, an IP address, or a Host of the SSH configuration.
        port: The SSH port; 0 leaves it to the SSH configuration, or else is 22.
        role: Control plane or worker.
        user: The user that SSH logs in as; empty leaves it to the SSH configuration, or else root.
        identity_file: The private key; None leaves the choice to SSH's own defaults.
        labels: Labels for the Node.
        taints: Taints for the Node.
        groups: The groups that it is in.
        node_address: The IP address that the other hosts reach it at (the Node's InternalIP).
    """

    name: str
    address: str
    port: int = 0
    role: Role = Role.WORKER
    user: str = ""
    identity_file: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    node_address: str = ""
    taints: tuple[Taint, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def is_control_plane(self) -> bool:
        """True for a control plane host."""
        return self.role is Role.CONTROL_PLANE

    def __str__(self) -> str:
        """Return the name."""
        return self.name


@dataclass(frozen=True, slots=True)
class Inventory:
    """The hosts of one cluster, in the order of the parameters.

    Attributes:
        hosts: The hosts.
    """

    hosts: tuple[Host, ...]

    @classmethod
    def from_params(cls, params: Params) -> Inventory:
        """Return the inventory that validated parameters describe."""
        return cls(params.hosts)

    def __iter__(self) -> Iterator[Host]:
        """Iterate over the hosts."""
        return iter(self.hosts)

    def __len__(self) -> int:
        """Return how many hosts there are."""
        return len(self.hosts)

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts' names."""
        return tuple(host.name for host in self.hosts)

    def group(self, name: str) -> tuple[Host, ...]:
        """Return the hosts of a group, in inventory order; none where no host is in it."""
        return tuple(host for host in self.hosts if name in host.groups)

    def select(
        self, *, role: Role | str | None = None, names: Iterable[str] | None = None
    ) -> tuple[Host, ...]:
        """Return the hosts that have the role and one of the names, in inventory order.

        Raises:
            ParamsError: The role is none, or a name is no host's.
        """
        wanted = None if names is None else {self.by_name(name).name for name in names}
        if role is not None and role not in tuple(Role):
            raise ParamsError(f"unknown role {str(role)!r}, known are {', '.join(Role)}")
        return tuple(
            host
            for host in self.hosts
            if (role is None or host.role == role) and (wanted is None or host.name in wanted)
        )

    def by_name(self, name: str) -> Host:
        """Return the host of that name.

        Raises:
            ParamsError: There is none; the message lists those that there are.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        close = get_close_matches(name, self.names, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(self.names) or "none"
        raise ParamsError(f"unknown host {name!r}, known are {known}{meant}")
