"""What an emulated node remembers that its files do not say: services, packages, modules, images.

One `NodeState` a host, made by `kitlib.lab.node.boot`; every emulated command and the kubelet
read and change the same one. Files are reached through `path`, so that tests can give a node a
root directory of its own.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from kitlib.lab.hostapi import LabHost

__all__ = [
    "CONTAINERD_SOCKET",
    "CONTAINERD_VERSION",
    "NodeState",
    "Service",
    "forget",
    "new_state",
    "state_of",
]

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
"""Where the container runtime listens."""

CONTAINERD_VERSION = "1.6.20~ds1-1+deb12u3"
"""The package version of the container runtime that every lab host has from the start."""


@dataclass(slots=True)
class Service:
    """One systemd unit of the host.

    Attributes:
        name: Without `.service`.
        description: What `systemctl status` shows behind the name.
        active: systemd's word; `activating` is a unit that crashed and waits for its restart.
        enabled: Whether it starts with the host.
        since: When `active` last changed (seconds since the epoch).
        pid: The main process id that status and journal show; 0 when nothing runs.
        exit_status: How the main process last ended; None when it never did.
        file: Its file in /etc/systemd/system; empty for the emulated units of packages.
    """

    name: str
    description: str
    active: Literal["active", "inactive", "activating", "failed"] = "inactive"
    enabled: bool = False
    since: float = field(default_factory=time.time)
    pid: int = 0
    exit_status: int | None = None
    file: str = ""

    @property
    def path(self) -> str:
        """Where its file is."""
        return self.file or f"/lib/systemd/system/{self.name}.service"

    def turn(self, active: Literal["active", "inactive", "activating", "failed"]) -> None:
        """Change the unit's state and remember when."""
        self.active = active
        self.since = time.time()
        if active != "active":
            self.pid = 0


@dataclass(slots=True)
class NodeState:
    """The state of one emulated node.

    Attributes:
        services: Installed units by name; `containerd` from the start, `kubelet` once installed.
        packages: Installed packages, name -> version.
        held: Packages that `apt-mark hold` keeps at their version.
        removed: Packages that are gone but left their configuration (dpkg's `rc`).
        swap: Whether a swap area is in use.
        modules: Loaded kernel modules, as `lsmod` shows them.
        images: Container images that were pulled, by full name.
        containerd_config: The configuration that the running containerd started with.
        root: The directory that stands for `/`.
        dpkg_lock: Held while apt-get changes packages.
        next_pid: The next process id that an emulated process gets.
    """

    services: dict[str, Service] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    removed: dict[str, str] = field(default_factory=dict)
    swap: bool = False
    modules: set[str] = field(default_factory=lambda: {"br_netfilter", "bridge", "overlay"})
    images: set[str] = field(default_factory=set)
    containerd_config: dict[str, Any] = field(default_factory=dict)
    root: Path = Path("/")
    dpkg_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_pid: int = 113

    def path(self, absolute: str) -> Path:
        """Return where an absolute path of the host really is."""
        return self.root / absolute.lstrip("/")

    def running(self, service: str) -> bool:
        """Return whether a unit is installed and active."""
        unit = self.services.get(service)
        return unit is not None and unit.active == "active"

    def pid(self) -> int:
        """Return a process id for one emulated process."""
        self.next_pid += 37
        return self.next_pid


_STATES: WeakKeyDictionary[LabHost, NodeState] = WeakKeyDictionary()


def new_state(host: LabHost, root: Path = Path("/")) -> NodeState:
    """Return the fresh state of a host that has just booted: containerd runs, nothing else."""
    state = NodeState(root=root)
    state.packages["containerd"] = CONTAINERD_VERSION
    state.services["containerd"] = Service("containerd", "containerd container runtime")
    unit = state.services["containerd"]
    unit.enabled = True
    unit.turn("active")
    unit.pid = state.pid()
    _STATES[host] = state
    return state


def state_of(host: LabHost) -> NodeState:
    """Return the state of a host.

    Raises:
        KeyError: The host was never booted.
    """
    return _STATES[host]


def forget(host: LabHost) -> None:
    """Drop the state of a host that is gone."""
    _STATES.pop(host, None)
