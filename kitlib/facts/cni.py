"""CNI configuration of a host: which file is in force, and what else lies about.

A container runtime takes the first configuration in name order, whoever wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kitlib.facts.sections import command, lines_of, section, split
from kitlib.plugins import Catalogue, cni_types

__all__ = ["COMMAND", "SCRIPT", "Cni", "CniFile", "parse"]

DIRECTORY = "/etc/cni/net.d"
BINARIES = "/opt/cni/bin"

# Some plugins keep credentials in their configuration: such values never leave the host.
_MASK = (
    's/("[^"]*([Tt]oken|[Pp]assword|[Ss]ecret|_key|_cert|Data|-data)[^"]*" *: *")[^"]*"/\\1***"/g'
)

SCRIPT = "".join(
    (
        section("cni.names", f"if [ -d {DIRECTORY} ]; then ls -1A {DIRECTORY}; fi"),
        section(
            "cni.files",
            f"for f in {DIRECTORY}/*.conf {DIRECTORY}/*.conflist {DIRECTORY}/*.json; do"
            f' if [ -f "$f" ]; then echo "## $f"; sed -E \'{_MASK}\' "$f"; echo; fi; done',
        ),
        section("cni.binaries", f"if [ -d {BINARIES} ]; then ls -1A {BINARIES}; fi"),
    )
)
COMMAND = command(SCRIPT)

_HEAD = re.compile(rf"^## {DIRECTORY}/(.+)$")


@dataclass(frozen=True, slots=True)
class CniFile:
    """One network configuration in /etc/cni/net.d.

    Attributes:
        name: The file's name.
        text: Its content, credentials masked.
        types: The CNI types that it calls, in order; empty when it is not a configuration.
        owner: The plugin whose it is; empty when no known one's.
    """

    name: str
    text: str
    types: tuple[str, ...]
    owner: str

    @property
    def loopback_only(self) -> bool:
        """True for a configuration that only makes a pod's `lo`; it is nobody's network."""
        return self.types == ("loopback",)


@dataclass(frozen=True, slots=True)
class Cni:
    """The CNI state of one host.

    Attributes:
        names: Every name in /etc/cni/net.d; None when it could not be read.
        files: The network configurations, in name order.
        binaries: The programs in /opt/cni/bin.
    """

    names: tuple[str, ...] | None
    files: tuple[CniFile, ...]
    binaries: tuple[str, ...] | None

    @property
    def in_force(self) -> CniFile | None:
        """The configuration that the container runtime takes; None when there is none.

        It is the first by name, whatever is in it: a damaged one in front means no network.
        """
        return self.files[0] if self.files else None


def parse(text: str, known: Catalogue) -> Cni:
    """Return the CNI state, from what `COMMAND` printed.

    Args:
        text: What it printed.
        known: The plugins that may own a file.
    """
    sections = split(text)
    contents: dict[str, list[str]] = {}
    body: list[str] = []
    for line in lines_of(sections, "cni.files") or ():
        head = _HEAD.match(line)
        if head:
            body = contents[head[1]] = []
        else:
            body.append(line)
    files = []
    for name in sorted(contents):
        content = "\n".join(contents[name])
        owner = known.owner_of_cni_file(name, content)
        files.append(CniFile(name, content, cni_types(content), owner))
    return Cni(
        names=lines_of(sections, "cni.names"),
        files=tuple(files),
        binaries=lines_of(sections, "cni.binaries"),
    )
