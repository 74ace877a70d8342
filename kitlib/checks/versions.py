"""Whether versions fit: Kubernetes and the plugin, the kernel, and a kubelet that is there."""

from __future__ import annotations

import re

from kitlib.checks.judging import by_system, judged, skipped
from kitlib.facts import HostFacts
from kitlib.model import CLUSTER, Check, Status
from kitlib.params import Params
from kitlib.plugins import Plugin
from kitlib.plugins.fit import Fit, Fits, fit
from kitlib.plugins.schema import minor

__all__ = ["UNSUPPORTED", "cgroups", "kernel", "kubelet", "plugin_fits", "unsupported"]

UNSUPPORTED = "unsupported combination"
"""What the record and the report call a plugin on a Kubernetes version that it does not fit."""

OLDEST_KERNEL = (3, 10)
KERNEL_SINCE_1_32 = (4, 19)
"""kubeadm's system verification refuses an older one."""


def plugin_fits(params: Params, plugin: Plugin) -> Check:
    """Return the check that the plugin works on the wanted Kubernetes version.

    Where it does not, that is a failure with the way out; with `allow_unsupported` it is a warning.
    """
    which, summary = "preflight.plugin-version", f"{plugin.name} fits the Kubernetes version"
    version, span = params.kubernetes_version, plugin.kubernetes
    found = fit(plugin, version, params.catalogue)
    if found.answer is Fits.YES:
        release = plugin.release_for(version)
        got = f"{version}, release {release.version}" if release else version
        return judged(Status.PASS, which, CLUSTER, summary, got=got)
    expected = f"{span.min} to {span.max}"
    if found.answer is Fits.UNKNOWN:
        remedy = f"it may work; {found.newest} is the newest version that is known to"
        return judged(
            Status.WARN,
            which,
            CLUSTER,
            summary,
            got=f"{version}: {'; '.join(found.reasons)}",
            expected=expected,
            remedy=remedy,
        )
    allowed = params.allow_unsupported
    out = _ways_out(found, version)
    return judged(
        Status.WARN if allowed else Status.FAIL,
        which,
        CLUSTER,
        summary,
        got=(f"{UNSUPPORTED}, allowed: " if allowed else "")
        + f"{version}: {'; '.join(found.reasons)}",
        expected=expected + (f", such as {found.newest}" if found.newest else ""),
        remedy=f"what fits: {out}"
        if allowed
        else f"{out}; or allow_unsupported: true, which goes on and says so in the record",
    )


def unsupported(params: Params, plugin: Plugin) -> str:
    """Return why a plugin that the parameters allow all the same does not fit; else nothing."""
    found = fit(plugin, params.kubernetes_version, params.catalogue)
    if found.answer is not Fits.NO or not params.allow_unsupported:
        return ""
    return f"{plugin.name} on Kubernetes {params.kubernetes_version}: {'; '.join(found.reasons)}"


def _ways_out(found: Fit, version: str) -> str:
    ways = [f'kubernetes_version: "{found.newest}"'] if found.newest else []
    if found.instead:
        more = f" (or {', '.join(found.instead[1:])})" if found.instead[1:] else ""
        ways.append(f"plugin: {found.instead[0]}{more}, which fits {version}")
    return ", or ".join(ways) or f"another plugin: kit plugins --for {version}"


def kernel(name: str, facts: HostFacts, version: str) -> Check:
    """Return the check that kubeadm of that version accepts the host's kernel.

    Args:
        name: The host's name.
        facts: Its facts.
        version: The Kubernetes version.
    """
    which, summary = "preflight.kernel", "kernel is new enough"
    release = facts.host.kernel or ""
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found:
        return skipped(which, name, summary, "unknown")
    least = KERNEL_SINCE_1_32 if minor(version) >= (1, 32) else OLDEST_KERNEL
    return judged(
        Status.PASS if (int(found[1]), int(found[2])) >= least else Status.FAIL,
        which,
        name,
        summary,
        got=f"{release} {facts.host.arch or ''}".rstrip(),
        expected=f"{least[0]}.{least[1]} or newer for Kubernetes {version}",
        remedy="upgrade the system: "
        + by_system(facts, apt="apt-get update && apt-get dist-upgrade", dnf="dnf upgrade")
        + ", then reboot",
    )


def cgroups(name: str, facts: HostFacts, version: str) -> Check:
    """Return the check that the kubelet of that version accepts the host's control groups.

    Args:
        name: The host's name.
        facts: Its facts.
        version: The Kubernetes version.
    """
    which, summary = "preflight.cgroups", "control groups suit the kubelet"
    found = facts.kernel.cgroups
    if found is None:
        return skipped(which, name, summary, "unknown")
    status = Status.PASS
    if found == 1 and minor(version) >= (1, 31):
        status = Status.FAIL if minor(version) >= (1, 35) else Status.WARN
    grub = "systemd.unified_cgroup_hierarchy=1"
    return judged(
        status,
        which,
        name,
        summary,
        got=f"version {found}",
        expected="version 2"
        + ("; this kubelet does not start with 1" if status is Status.FAIL else ""),
        remedy=by_system(
            facts,
            apt=f"sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{grub} /' /etc/default/grub && update-grub "
            "&& reboot",
            dnf=f"grubby --update-kernel=ALL --args={grub} && reboot",
        ),
    )


def kubelet(name: str, facts: HostFacts, version: str, *, stays: bool) -> Check:
    """Return the check that an installed kubelet fits the wanted version, by kubeadm's own rules.

    A kubelet may not be newer than the control plane; it may be older by one minor version up to
    1.28, and by three from 1.29 on.

    Args:
        name: The host's name.
        facts: Its facts.
        version: The wanted Kubernetes version.
        stays: True when the host belongs to the wanted cluster: its kubelet serves pods now. On
            any other host the packages stage replaces it before anything starts.
    """
    which, summary = "preflight.kubelet-version", "an installed kubelet fits the wanted version"
    got = facts.version("kubelet")
    if facts.packages is None:
        return skipped(which, name, summary, facts.unknown.get("packages", "unknown"))
    if not got:
        return judged(Status.PASS, which, name, summary, got="none is installed yet")
    try:
        there, wanted = minor(got), minor(version)
    except ValueError:
        return skipped(which, name, summary, f"{got} is not a version")
    older = 3 if wanted >= (1, 29) else 1
    ok = wanted[1] - older <= there[1] <= wanted[1]
    status = Status.PASS if ok else Status.FAIL if stays else Status.WARN
    replaced = "" if got == version else "; the packages stage replaces it"
    package = by_system(
        facts,
        apt=f"apt-get install --allow-downgrades --allow-change-held-packages kubelet={version}-*",
        dnf=f"dnf install kubelet-{version}",
    )
    return judged(
        status,
        which,
        name,
        summary,
        got=got + ("" if stays and not ok else replaced),
        expected=f"1.{wanted[1] - older} to 1.{wanted[1]}",
        remedy=f"the kubelet of a node that stays: drain it, then {package} && "
        "systemctl restart kubelet; or build anew with --rebuild"
        if stays
        else f"nothing: the packages stage installs {version} over it",
    )
