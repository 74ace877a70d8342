"""Whether the packages that make a host a node are there, in the wanted version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.params import Params
from kitlib.plugins.schema import minor
from kitlib.software import apt, dnf, proxy
from kitlib.software.containerd import differences
from kitlib.software.settings import SYSCTLS, wanting

__all__ = [
    "VERSIONED",
    "container_runtime",
    "package_sources",
    "packages",
    "settings",
    "settled_later",
]

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
        if each.repository.manager == "apt-get":
            installed = (each.packages.get(package) for package in apt.HELD)
            loose = [package.name for package in installed if package and not package.held]
            checks.append(
                Check.that(
                    not loose,
                    "packages.held",
                    name,
                    "the packages are held",
                    got=f"not held: {', '.join(loose)}" if loose else "held",
                    expected="held, so that no upgrade changes them",
                    remedy=f"apt-mark hold {' '.join(loose)}; the packages stage does it too",
                )
            )
    return checks


def settings(facts: Mapping[str, HostFacts], params: Params) -> list[Check]:
    """Return for each host whether modules, sysctls and swap are as wanted, now and kept."""
    checks = []
    for name, each in facts.items():
        lacks = wanting(each, params.swap)
        for which, summary, missing, expected in (
            ("modules", "the kernel modules are loaded", lacks.load, "loaded"),
            ("modules-kept", "the modules are loaded at each start", lacks.keep_modules, "kept"),
            ("sysctls", "the network settings are on", lacks.set, "1"),
            ("sysctls-kept", "the settings are on at each start", lacks.keep_sysctls, "kept"),
            ("swap", "swap is as the parameters say", lacks.swaps, "off"),
            ("swap-kept", "nothing brings swap back", lacks.swap_lines, "no line in /etc/fstab"),
        ):
            value = each.kernel.sysctls.get
            got = [f"{it} = {value(it, 'absent')}" if it in SYSCTLS else it for it in missing]
            checks.append(
                Check.that(
                    not missing,
                    f"packages.{which}",
                    name,
                    summary,
                    got=("" if not missing else "not so: ") + ", ".join(got),
                    expected=expected,
                    remedy="run the packages stage; if it changed nothing, look what undoes it",
                )
            )
    return checks


def package_sources(facts: Mapping[str, HostFacts], params: Params) -> list[Check]:
    """Return for each host whether the repository's and the proxy's files are as wanted."""
    checks = []
    for name, each in facts.items():
        system = dnf if each.repository.manager == "dnf" else apt
        steps = [*system.repository_steps(each, params, ""), *proxy.steps(each, params)]
        checks.append(
            Check.that(
                not steps,
                "packages.sources",
                name,
                "package source and proxy are as the parameters say",
                got=params.packages.source
                if not steps
                else "not done: " + "; ".join(step.what for step in steps),
                expected="nothing to do",
                remedy="run the packages stage",
            )
        )
    return checks


def container_runtime(facts: Mapping[str, HostFacts], params: Params) -> list[Check]:
    """Return for each host whether its container runtime runs and is configured for a node."""
    checks = []
    for name, each in facts.items():
        found, runtime = each.containerd, each.runtime
        running = runtime.ready is True or runtime.unit == "active"
        checks.append(
            Check.that(
                running,
                "packages.runtime",
                name,
                "a container runtime runs",
                got=(found.version and f"containerd {found.version}") or "running"
                if running
                else f"containerd {found.version or 'not installed'}, {runtime.unit or 'unknown'}",
                expected="running",
                remedy="systemctl status containerd, journalctl -u containerd",
            )
        )
        summary = "containerd is configured for a node"
        if not found.installed:
            why = "another runtime than containerd; its configuration is yours"
            checks.append(Check("packages.containerd", name, Status.SKIP, summary, why))
            continue
        wrong = list(differences(found.config or {}, params.kubernetes_version))
        if runtime.systemd_cgroup is False:
            wrong.append("the running one has SystemdCgroup off")
        checks.append(
            Check.that(
                not wrong,
                "packages.containerd",
                name,
                summary,
                got="; ".join(wrong),
                expected="systemd's cgroups, the CRI plugin, /opt/cni/bin, the sandbox image",
                remedy="run the packages stage; if it changed nothing, look at "
                "`containerd config dump` there",
            )
        )
    return checks


_CONFIGURED = ("preflight.runtime", "preflight.cgroup-driver")
_SETTLED = ("preflight.swap", "preflight.module.", "preflight.sysctl.")


def settled_later(check: Check, params: Params, here: HostFacts) -> Check:
    """Return a failed preflight check as a warning where the packages stage sets that right.

    With `swap: keep` swap is what was asked for, so it is a warning too; but kubeadm before 1.23
    itself refuses a host that swaps.
    """
    if check.status is not Status.FAIL:
        return check
    remedy = "the packages stage sets it, for now and for every start"
    if check.id in _CONFIGURED and here.containerd.installed:
        # With the CRI plugin disabled it runs and does not answer.
        if not differences(here.containerd.config or {}, params.kubernetes_version):
            return check
        remedy = "the packages stage configures containerd and starts it"
    elif not check.id.startswith(_SETTLED):
        return check
    elif check.id == "preflight.swap" and params.swap == "keep":
        if minor(params.kubernetes_version) < (1, 23):
            remedy = "swap: off in the parameters; kubeadm before 1.23 refuses a host that swaps"
            return replace(check, remedy=remedy)
        remedy = "left as it is (swap: keep); the kubelet is told to stand it"
    return replace(check, status=Status.WARN, remedy=remedy)
