"""What is true on a host, read by one command and parsed from its text.

Every subject is a module with a script and a parser; the command of `command_for` asks for all of
them in one round trip. Nothing here changes a host, and no parser fails because a tool is missing:
the fact is then None, and `unknown` says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kitlib.command import Cmd
from kitlib.errors import CommandError
from kitlib.facts import (
    clock,
    cni,
    containerd,
    host,
    kernel,
    kubeadm,
    leftovers,
    links,
    members,
    names,
    packages,
    ports,
    reach,
    repository,
    routes,
    runtime,
    setup,
)
from kitlib.facts.clock import Clock
from kitlib.facts.cni import Cni, CniFile
from kitlib.facts.containerd import Containerd
from kitlib.facts.host import HostIdentity
from kitlib.facts.kernel import Kernel
from kitlib.facts.kubeadm import Kubeadm
from kitlib.facts.leftovers import Leftovers
from kitlib.facts.links import Link
from kitlib.facts.names import Names
from kitlib.facts.packages import Package
from kitlib.facts.ports import Listener
from kitlib.facts.repository import Repository
from kitlib.facts.routes import Route
from kitlib.facts.runtime import Runtime
from kitlib.facts.sections import command, split
from kitlib.facts.setup import Setup
from kitlib.model import CommandResult
from kitlib.plugins import Catalogue

__all__ = [
    "Clock",
    "Cni",
    "CniFile",
    "Containerd",
    "HostFacts",
    "HostIdentity",
    "Kernel",
    "Kubeadm",
    "Leftovers",
    "Link",
    "Listener",
    "Names",
    "Package",
    "Repository",
    "Route",
    "Runtime",
    "Setup",
    "command_for",
    "gather",
    "members",
    "parse",
    "reach",
]

_SUBJECTS = (
    host,
    links,
    routes,
    kernel,
    ports,
    packages,
    kubeadm,
    cni,
    runtime,
    setup,
    containerd,
    repository,
    names,
    clock,  # last: it takes the time once more
)


def command_for(known: Catalogue) -> Cmd:
    """Return what reads every fact of a host in one round trip.

    Args:
        known: The plugins whose traces are looked for.
    """
    return command(leftovers.script(known), *(subject.SCRIPT for subject in _SUBJECTS))


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is true on one host at one moment.

    Attributes:
        name: The host's name in the inventory.
        host: Who it is.
        links: Its network devices; None when unknown.
        routes: Its main routing table; None when unknown.
        routes6: The same of IPv6.
        kernel: Settings, modules, swap.
        ports: What listens; None when unknown.
        packages: Installed packages of those that matter; None with neither dpkg nor rpm.
        kubeadm: What of a cluster is on it.
        cni: Its CNI configuration.
        runtime: Its container runtime.
        leftovers: Traces of network plugins.
        setup: What its files say of how it comes up again.
        containerd: containerd as it is installed and configured.
        repository: Where its packages come from.
        names: How it resolves names.
        clock: Its time zone, and whether something keeps its time.
        clock_offset: Seconds that its clock is ahead of the asking machine's; None when unknown.
        clock_error: By how many seconds that may be wrong, either way.
        unknown: Section -> why it could not be read.
        known: The plugins by whose marks files and devices are told apart.
    """

    name: str
    host: HostIdentity
    links: tuple[Link, ...] | None
    routes: tuple[Route, ...] | None
    routes6: tuple[Route, ...] | None
    kernel: Kernel
    ports: tuple[Listener, ...] | None
    packages: Mapping[str, Package] | None
    kubeadm: Kubeadm
    cni: Cni
    runtime: Runtime
    leftovers: Leftovers
    setup: Setup
    containerd: Containerd
    repository: Repository
    names: Names
    clock: Clock
    clock_offset: float | None
    clock_error: float
    unknown: Mapping[str, str]
    known: Catalogue

    @property
    def is_lab(self) -> bool:
        """True on a lab host."""
        return bool(self.host.lab)

    def link(self, name: str) -> Link | None:
        """Return the device of that name, or None."""
        return next((link for link in self.links or () if link.name == name), None)

    def version(self, package: str) -> str:
        """Return the installed software version of a package; empty when it is not installed."""
        found = (self.packages or {}).get(package)
        return found.release if found else ""


def parse(
    name: str, text: str, known: Catalogue, *, at: tuple[float, float] | None = None
) -> HostFacts:
    """Return a host's facts, from what the command printed there.

    Args:
        name: The host's name in the inventory.
        text: Standard output of `command_for`'s command.
        known: The plugins by whose marks files and devices are told apart.
        at: The asking machine's time before and after the round trip; None leaves the clock
            offset unknown.

    Raises:
        ParseError: A tool printed something that its parser does not know.
    """
    identity = host.parse(text)
    time_there = clock.parse(text)
    ahead, error = clock.offset(identity.clock, time_there.end, *at) if at else (None, 0.0)
    return HostFacts(
        name=name,
        host=identity,
        links=links.parse(text),
        routes=routes.parse(text),
        routes6=routes.parse6(text),
        kernel=kernel.parse(text),
        ports=ports.parse(text),
        packages=packages.parse(text),
        kubeadm=kubeadm.parse(text),
        cni=cni.parse(text, known),
        runtime=runtime.parse(text),
        leftovers=leftovers.parse(text),
        setup=setup.parse(text),
        containerd=containerd.parse(text),
        repository=repository.parse(text),
        names=names.parse(text),
        clock=time_there,
        clock_offset=ahead,
        clock_error=error,
        unknown={part: each.why for part, each in split(text).items() if each.status},
        known=known,
    )


def gather(name: str, run: Callable[[Cmd], CommandResult], known: Catalogue) -> HostFacts:
    """Return a host's facts, read now.

    Args:
        name: The host's name in the inventory.
        run: Runs a command on that host.
        known: The plugins whose traces are looked for.

    Raises:
        CommandError: The script did not run to its end.
        ParseError: A tool printed something that its parser does not know.
    """
    before = time.time()
    result = run(command_for(known))
    if not result.ok:
        raise CommandError(name, "reading facts", result.exit_status, result.tail())
    return parse(name, result.stdout, known, at=(before, time.time()))
