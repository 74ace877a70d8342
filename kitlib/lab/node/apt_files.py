"""apt-get without installing: what it would take, package files written and read."""

from __future__ import annotations

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node import debfiles
from kitlib.lab.node.packages import candidate, depends, minor_of, package
from kitlib.lab.node.state import state_of

__all__ = ["AptError", "download", "local", "simulated"]


class AptError(Exception):
    """apt stops with exit status 100; each line goes to stderr behind `E: `."""


async def simulated(host: LabHost, call: Call, names: list[str]) -> int:
    """Show what would be installed where nothing is: the packages with all that they need."""
    wanted: dict[str, str] = {}
    queue = [_found(host, given) for given in names]
    while queue:
        name, version = queue.pop(0)
        if name not in wanted:
            wanted[name] = version
            minor = minor_of(version) if name in ("kubelet", "kubeadm", "kubectl") else None
            queue += [
                (needed, candidate(host, needed, minor=minor)) for needed in depends(name, version)
            ]
    for name, version in wanted.items():
        await call.out(f"Inst {name} ({version} kubernetes:main [amd64])")
    return 0


async def download(host: LabHost, call: Call, names: list[str]) -> int:
    """Write the packages' files into the caller's directory."""
    for name, version in [_found(host, given) for given in names]:
        if "no-route-out" in host.faults:
            raise AptError(f"Failed to fetch {name}: could not connect to 10.77.0.1:80")
        await host.sleep(0.1)
        debfiles.write(state_of(host).path(call.cwd), name, version)
    return 0


def _found(host: LabHost, given: str) -> tuple[str, str]:
    """Return the package and the version that `name` or `name=version` means.

    Raises:
        AptError: It is not in the archive.
    """
    name, _, version = given.partition("=")
    if package(name) is None:
        raise AptError(f"Unable to locate package {name}")
    found = candidate(host, name, version)
    if not found:
        raise AptError(f"Version '{version}' for '{name}' was not found")
    return name, found


def local(host: LabHost, names: list[str]) -> dict[str, str]:
    """Return path -> `name=version` of the package files among the arguments.

    Raises:
        AptError: A file is not there, or is no package.
    """
    try:
        found = {
            name: debfiles.read(state_of(host).path(name))
            for name in names
            if name.startswith(("/", "./"))
        }
    except debfiles.DebFileError as wrong:
        raise AptError(str(wrong)) from None
    return {path: f"{name}={version}" for path, (name, version) in found.items()}
