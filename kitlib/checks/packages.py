"""Whether the packages that make a host a node are there, in the wanted version."""

from __future__ import annotations

from collections.abc import Mapping

from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.params import Params

__all__ = ["VERSIONED", "packages"]

VERSIONED = ("kubelet", "kubeadm", "kubectl")
"""The packages whose version is the Kubernetes version."""


def packages(facts: Mapping[str, HostFacts], params: Params) -> list[Check]:
    """Return one check a host and package: installed, and in the wanted version."""
    checks = []
    for name, each in facts.items():
        if each.packages is None:
            why = each.unknown.get("packages", "no answer from dpkg-query")
            summary = "packages are installed"
            checks.append(Check("packages.installed", name, Status.SKIP, summary, why))
            continue
        for package in (*VERSIONED, "kubernetes-cni"):
            found = each.packages.get(package)
            wanted = params.kubernetes_version if package in VERSIONED else ""
            checks.append(
                Check.that(
                    found is not None and (not wanted or found.release == wanted),
                    f"packages.{package}",
                    name,
                    f"{package} is installed",
                    got=found.version if found else "not installed",
                    expected=wanted or "any version",
                    remedy="run the packages stage; if it cannot find that version, see "
                    f"`apt-cache madison {package}`",
                )
            )
    return checks
