"""Debian and Ubuntu: the repository's files and the apt commands, from facts and parameters."""

from __future__ import annotations

from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.params import Params
from kitlib.software.cni_programs import PACKAGE, lost
from kitlib.software.containerd import needs_containerd
from kitlib.software.repository import address
from kitlib.software.steps import Step

__all__ = ["HELD", "KEY_FILE", "VERSIONED", "files", "install", "repository_steps", "steps"]

VERSIONED = ("kubelet", "kubeadm", "kubectl")
"""These carry the Kubernetes version; kubernetes-cni has one of its own."""
HELD = ("kubernetes-cni", *VERSIONED)
"""Kept from upgrades: a node's version changes when somebody decides it."""

KEY_FILE = "/etc/apt/keyrings/kubekit-kubernetes.asc"
_LIST_FILE = "/etc/apt/sources.list.d/kubekit-kubernetes.list"
_PIN_FILE = "/etc/apt/preferences.d/kubekit-kubernetes"
_WHO = "# Written by the cluster network kit (kit stage packages).\n"
_LOCK_SECONDS = 120
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def files(here: HostFacts, params: Params) -> dict[str, str]:
    """Return path -> content of what makes the repository known; empty for other sources.

    A host that names the same repository already keeps its own file: two that name different keys
    for one address would stop apt.
    """
    if params.packages.source not in ("community", "mirror"):
        return {}
    where = address(params, "deb")
    found = {_PIN_FILE: _pin(params.kubernetes_version)}
    if not any(where.rstrip("/") in line for line in here.repository.others):
        found[_LIST_FILE] = f"{_WHO}deb [signed-by={KEY_FILE}] {where} /\n"
    return found


def _pin(version: str) -> str:
    # Above every other offer (500), below what would force a downgrade (1001).
    names = " ".join(VERSIONED)
    return f"{_WHO}Package: {names}\nPin: version {version}-*\nPin-Priority: 900\n"


def repository_steps(here: HostFacts, params: Params, key: str) -> list[Step]:
    """Return what makes the repository known to a host; nothing where it is.

    Args:
        here: What is true on the host.
        params: What is wanted.
        key: The key's file, checked; it may be empty where the host has one.
    """
    wanted = files(here, params)
    steps = []
    lacks = _LIST_FILE in wanted and not here.version("ca-certificates")
    if lacks and address(params, "deb").startswith("https://"):
        # apt itself speaks https, but a minimal system knows no certificate authority.
        update = Cmd.change("apt-get", "update", "-q", env=_QUIET)
        steps.append(Step("read the package lists, for ca-certificates", update))
        steps.append(Step("install ca-certificates: https needs them", install("ca-certificates")))
    if _LIST_FILE in wanted and not here.repository.has(KEY_FILE):
        steps.append(Step(f"trust the repository's key: {KEY_FILE}", path=KEY_FILE, content=key))
    for path, content in wanted.items():
        if not here.repository.has(path, content):
            about = "pin the version" if path == _PIN_FILE else f"use {address(params, 'deb')}"
            steps.append(Step(f"{about}: {path}", path=path, content=content))
    return steps


def steps(here: HostFacts, params: Params, key: str) -> list[Step]:
    """Return every step that gives a host its packages; nothing where it has them.

    Args:
        here: What is true on the host.
        params: What is wanted.
        key: The repository's key, where `repository_steps` needs it.
    """
    version = params.kubernetes_version
    found = repository_steps(here, params, key)
    missing = [package for package in VERSIONED if here.version(package) != version]
    bare = not here.version(PACKAGE)
    runtime = needs_containerd(here)
    gone = lost(here, params)
    if missing or bare or runtime or gone:
        update = Cmd.change("apt-get", "update", "-q", env=_QUIET)
        found.append(Step("read the package lists anew", update))
    if runtime:
        found.append(Step("install containerd: no container runtime", install("containerd")))
    if missing or bare:
        pinned = [f"{package}={version}-*" for package in VERSIONED]
        lacks = ", ".join(f"{p} {here.version(p) or 'absent'}" for p in missing)
        what = f"install the packages of Kubernetes {version}: {lacks or 'kubernetes-cni absent'}"
        found.append(Step(what, install(PACKAGE, *pinned)))
    if gone:
        what = f"install {PACKAGE} again: a plugin took {', '.join(gone)} away"
        found.append(Step(what, install(PACKAGE, options=("--reinstall",))))
    return found + hold(here, changed=bool(missing or bare))


def hold(here: HostFacts, *, changed: bool) -> list[Step]:
    """Return what keeps the packages from upgrades; nothing where they are held."""
    packages = here.packages or {}
    if not changed and all(packages[name].held for name in HELD if name in packages):
        return []
    return [Step("keep their versions from upgrades", Cmd.change("apt-mark", "hold", *HELD))]


def install(*packages: str, options: tuple[str, ...] = ()) -> Cmd:
    """Return the command that installs packages, or package files, whatever is held."""
    return Cmd.change(
        "apt-get",
        "install",
        "-y",
        "--allow-downgrades",
        "--allow-change-held-packages",
        # A fresh machine often updates itself just then: its lock is waited for.
        "-o",
        f"DPkg::Lock::Timeout={_LOCK_SECONDS}",
        # A configuration file that the kit or somebody else changed is kept, without a question.
        "-o",
        "Dpkg::Options::=--force-confold",
        *options,
        *packages,
        env=_QUIET,
    )
