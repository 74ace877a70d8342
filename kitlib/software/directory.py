"""Packages and images from a bundle: which of them a host needs, and how they get there."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.facts import HostFacts
from kitlib.software import apt
from kitlib.software.bundle import Archive, Bundle, sums
from kitlib.software.cni_programs import PACKAGE
from kitlib.software.containerd import needs_containerd
from kitlib.software.steps import Step

__all__ = ["REMOTE", "Here", "installed_command", "missing_images", "steps_after", "steps_before"]

REMOTE = "/var/cache/kubekit"
"""Where the files lie on a host while they are installed; gone afterwards."""

_OFFLINE = (
    "--no-install-recommends",
    # No repository is asked, whatever the host names: all that is needed is on the command line.
    "-o",
    "Dir::Etc::sourcelist=/dev/null",
    "-o",
    "Dir::Etc::sourceparts=/dev/null",
)
_VERIFY = 'cd "$1" && sha256sum --quiet -c SHA256SUMS'
_IMPORT = 'set -e; for f; do ctr -n k8s.io images import "$f"; done'
_IMPORT_SECONDS = 1800
_RUNTIME = ("containerd", "runc")


@dataclass(frozen=True, slots=True)
class Here:
    """What a host has of a bundle.

    Attributes:
        packages: Names of the bundle's packages that are installed.
        images: Names of the images that containerd has.
    """

    packages: Set[str]
    images: Set[str]

    @classmethod
    def parse(cls, text: str) -> Here:
        """Return it from what `installed_command` printed."""
        rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 1]
        return cls(
            frozenset(name for name, state in rows if state == "installed"),
            frozenset(name for kind, name in rows if kind == "image"),
        )


def installed_command(bundle: Bundle) -> Cmd:
    """Return what asks a host which of a bundle's packages and images it has."""
    text = (
        "dpkg-query -W -f '${Package}\\t${db:Status-Status}\\n' \"$@\" 2>/dev/null;"
        " if command -v ctr >/dev/null; then"
        " ctr -n k8s.io images ls -q 2>/dev/null | sed 's/^/image\\t/'; fi; :"
    )
    names = [each.name for each in bundle.packages]
    return script(text, *names, label="ask which packages and images are there")


def missing_images(here: Here, bundle: Bundle) -> list[Archive]:
    """Return the images that a host lacks."""
    return [each for each in bundle.images if each.name not in here.images]


def _missing_packages(
    facts: HostFacts, here: Here, bundle: Bundle, gone: tuple[str, ...]
) -> list[Archive]:
    """Return the packages that a host lacks, or has in another version than a node needs.

    What the host has already of libraries and tools is left: the system's own updates see to it.
    """
    changed = any(facts.version(name) != bundle.kubernetes_version for name in apt.VERSIONED)
    found = []
    for each in bundle.packages:
        if each.name in apt.VERSIONED:
            needed = facts.version(each.name) != bundle.kubernetes_version
        elif each.name in _RUNTIME:
            needed = needs_containerd(facts) and each.name not in here.packages
        elif each.name in ("kubernetes-cni", "cri-tools"):
            known = (facts.packages or {}).get(each.name)
            needed = known is None or (changed and known.version != each.version)
            needed |= bool(gone) and each.name == PACKAGE
        else:
            needed = each.name not in here.packages
        if needed:
            found.append(each)
    return found


def steps_before(
    facts: HostFacts, here: Here, bundle: Bundle, gone: tuple[str, ...] = ()
) -> list[Step]:
    """Return what copies the missing files to a host and installs the packages among them.

    Args:
        facts: What is true on the host.
        here: Which packages and images it has.
        bundle: What was bundled.
        gone: Programs of kubernetes-cni that a plugin took away.
    """
    packages = _missing_packages(facts, here, bundle, gone)
    images = missing_images(here, bundle)
    files = [*packages, *images]
    steps = []
    if files:
        size = sum(each.size for each in files) / 1e6
        what = f"copy {len(packages)} packages and {len(images)} images, {size:.1f} MB, to {REMOTE}"
        sends = tuple((bundle.directory / each.file, _remote(each)) for each in files)
        digests = {_remote(each).removeprefix(f"{REMOTE}/"): each.sha256 for each in files}
        steps += [
            Step(what, path=f"{REMOTE}/SHA256SUMS", content=sums(digests), sends=sends),
            Step(
                "verify the copies",
                script(_VERIFY, REMOTE, mutates=True, label="sha256sum -c of the copies"),
            ),
        ]
    if packages:
        names = ", ".join(f"{each.name} {each.version}" for each in packages)
        paths = [_remote(each) for each in packages]
        what = f"install from these files alone: {names}"
        again = ("--reinstall",) if gone else ()
        steps.append(Step(what, apt.install(*paths, options=(*_OFFLINE, *again))))
    versioned = any(each.name in apt.HELD for each in packages)
    return steps + apt.hold(facts, changed=versioned)


def steps_after(here: Here, bundle: Bundle, *, copied: bool) -> list[Step]:
    """Return what imports the missing images into a running containerd, and removes the copies."""
    steps = []
    images = missing_images(here, bundle)
    if images:
        paths = [_remote(each) for each in images]
        run = script(
            _IMPORT, *paths, mutates=True, timeout=_IMPORT_SECONDS, label="ctr images import"
        )
        names = ", ".join(each.name for each in images)
        steps.append(Step(f"import {len(images)} images: {names}", run))
    if copied:
        steps.append(Step("remove the copies", Cmd.change("rm", "-rf", REMOTE)))
    return steps


def _remote(each: Archive) -> str:
    return f"{REMOTE}/{each.file.rpartition('/')[2]}"
