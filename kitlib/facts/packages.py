"""Versions of the packages that make a host a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kitlib.facts.sections import command, lines_of, section, split

__all__ = ["COMMAND", "PACKAGES", "SCRIPT", "Package", "parse"]

PACKAGES = (
    "kubernetes-cni",
    "kubelet",
    "kubeadm",
    "kubectl",
    "cri-tools",
    "containerd",
    "containerd.io",
    "ca-certificates",
)
"""The packages that are asked for."""

SCRIPT = section(
    "packages",
    "if command -v rpm >/dev/null && ! command -v dpkg-query >/dev/null; then"
    " rpm -q --qf '%{NAME}\\t%{VERSION}-%{RELEASE}\\tinstall ok installed\\n' "
    + " ".join(PACKAGES)
    # The exit status is the number of packages that are not there.
    + "; :; else dpkg-query -W -f '${Package}\\t${Version}\\t${Status}\\n' "
    + " ".join(PACKAGES)
    # Its exit status is 1 as soon as one package is unknown; the others are told all the same.
    + " || [ $? -eq 1 ]; fi",
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package.

    Attributes:
        name: Its name.
        version: Its full version, `1.22.3-00`.
        held: Whether it is kept from upgrades.
    """

    name: str
    version: str
    held: bool

    @property
    def release(self) -> str:
        """The version of the software in it: no epoch, no packaging revision."""
        return self.version.rpartition(":")[2].partition("-")[0].partition("~")[0]


def parse(text: str) -> Mapping[str, Package] | None:
    """Return package name -> package of those installed; None without dpkg and rpm."""
    lines = lines_of(split(text), "packages")
    if lines is None:
        return None
    found = {}
    for line in lines:
        words = line.split("\t")
        if len(words) == 3 and words[2].endswith(" installed"):
            found[words[0]] = Package(words[0], words[1], words[2].startswith("hold"))
    return found
