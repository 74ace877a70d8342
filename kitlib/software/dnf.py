"""The RHEL family: the repository file and the dnf commands, from facts and parameters.

Written after the community's own instructions and held by golden cases; no such host was at hand
to try them on.
"""

from __future__ import annotations

from kitlib.command import Cmd
from kitlib.facts import HostFacts
from kitlib.params import Params
from kitlib.software.apt import HELD, VERSIONED
from kitlib.software.cni_programs import PACKAGE, lost
from kitlib.software.containerd import needs_containerd
from kitlib.software.proxy import has_password
from kitlib.software.repository import address, release_line
from kitlib.software.steps import Step

__all__ = ["KEY_FILE", "REPOSITORY_FILE", "repository_steps", "steps"]

KEY_FILE = "/etc/pki/rpm-gpg/kubekit-kubernetes.asc"
REPOSITORY_FILE = "/etc/yum.repos.d/kubekit-kubernetes.repo"
_NAME = "kubekit-kubernetes"
_SECONDS = 900


def _repository(params: Params) -> str:
    through = params.proxy.https or params.proxy.http
    # `exclude` is the hold: an update of the system leaves these packages alone.
    return (
        "# Written by the cluster network kit (kit stage packages).\n"
        f"[{_NAME}]\n"
        f"name=Kubernetes {release_line(params.kubernetes_version)}\n"
        f"baseurl={address(params, 'rpm')}\n"
        "enabled=1\n"
        "gpgcheck=1\n"
        f"gpgkey=file://{KEY_FILE}\n"
        f"exclude={' '.join(HELD)} cri-tools\n" + (f"proxy={through}\n" if through else "")
    )


def repository_steps(here: HostFacts, params: Params, key: str) -> list[Step]:
    """Return what makes the repository known to a host; nothing where it is, or is not wanted."""
    if params.packages.source not in ("community", "mirror"):
        return []
    found = []
    if not here.repository.has(KEY_FILE):
        found.append(Step(f"trust the repository's key: {KEY_FILE}", path=KEY_FILE, content=key))
    content = _repository(params)
    if not here.repository.has(REPOSITORY_FILE, content):
        what = f"use {address(params, 'rpm')}: {REPOSITORY_FILE}"
        mode = 0o600 if has_password(params.proxy.https or params.proxy.http) else 0o644
        found.append(Step(what, path=REPOSITORY_FILE, content=content, mode=mode))
    return found


def steps(here: HostFacts, params: Params, key: str) -> list[Step]:
    """Return every step that gives a host its packages; nothing where it has them.

    Args:
        here: What is true on the host.
        params: What is wanted.
        key: The repository's key, where `repository_steps` needs it.
    """
    version = params.kubernetes_version
    found = repository_steps(here, params, key)
    if needs_containerd(here):
        # RHEL itself has no containerd; Docker's repository, where it is set up, calls it so.
        what = "install containerd: no container runtime"
        found.append(Step(what, _install(params, "containerd.io")))
    missing = [package for package in VERSIONED if here.version(package) != version]
    if missing or not here.version("kubernetes-cni"):
        exact = [f"{package}-{version}" for package in VERSIONED]
        lacks = ", ".join(f"{p} {here.version(p) or 'absent'}" for p in missing)
        found += [
            Step(
                f"install the packages of Kubernetes {version}: {lacks or 'kubernetes-cni absent'}",
                _install(params, "kubernetes-cni", *exact),
            ),
            Step(
                "start the kubelet with the host",
                Cmd.change("systemctl", "enable", "--now", "kubelet"),
            ),
        ]
    if gone := lost(here, params):
        what = f"install {PACKAGE} again: a plugin took {', '.join(gone)} away"
        found.append(Step(what, _install(params, PACKAGE, verb="reinstall")))
    return found


def _install(params: Params, *packages: str, verb: str = "install") -> Cmd:
    own = params.packages.source in ("community", "mirror")
    return Cmd.change(
        "dnf",
        verb,
        "-y",
        *(("--allowerasing",) if verb == "install" else ()),
        f"--disableexcludes={_NAME if own else 'all'}",
        *packages,
        timeout=_SECONDS,
    )
