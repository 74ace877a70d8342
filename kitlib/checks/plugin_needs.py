"""What a plugin needs besides its Kubernetes version: networks, kernel, and kube-proxy or none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kitlib.checks.judging import by_system, judged, skipped
from kitlib.facts import HostFacts
from kitlib.model import CLUSTER, Check, Status
from kitlib.params import Params
from kitlib.plugins import Plugin

__all__ = ["of_cluster", "of_host"]

KUBE_PROXY_CHAIN = "KUBE-SERVICES"
"""The chain that kube-proxy alone makes; the kubelet has KUBE- chains of its own."""


def of_cluster(params: Params, plugin: Plugin) -> Iterator[Check]:
    """Return whether the parameters' networks are such that the plugin can use them.

    A plugin that takes any gets no check.
    """
    services = plugin.needs.service_cidr
    if services is not None:
        yield judged(
            Status.PASS if params.service_cidr == services else Status.FAIL,
            "preflight.plugin-service-cidr",
            CLUSTER,
            f"the Service range is the one that {plugin.name} is written for",
            got=str(params.service_cidr),
            expected=str(services),
            remedy=f'service_cidr: "{services}" in the parameters',
        )
    pods, prefix = params.effective_pod_cidr, plugin.pod_cidr.prefix
    if prefix is not None:
        yield judged(
            Status.PASS if pods.prefixlen == prefix else Status.FAIL,
            "preflight.plugin-pod-cidr",
            CLUSTER,
            f"the pods' network has the size that {plugin.name} takes",
            got=str(pods),
            expected=f"a /{prefix}, such as {plugin.pod_cidr.default}",
            remedy=f"pod_cidr: a /{prefix} in the parameters, or leave it empty for "
            f"{plugin.pod_cidr.default}",
        )


def of_host(name: str, facts: HostFacts, plugin: Plugin, *, stays: bool) -> Iterator[Check]:
    """Return whether one host is such that the plugin can run there.

    Args:
        name: The host's name.
        facts: Its facts.
        plugin: The wanted plugin.
        stays: True when the host belongs to the wanted cluster, and so is not reset.
    """
    if plugin.needs.kernel:
        yield _kernel(name, facts, plugin)
    if plugin.needs.kube_proxy == "absent":
        yield _no_kube_proxy(name, facts, plugin, stays=stays)


def _kernel(name: str, facts: HostFacts, plugin: Plugin) -> Check:
    which, summary = "preflight.plugin-kernel", f"the kernel is new enough for {plugin.name}"
    release = facts.host.kernel or ""
    found = re.match(r"(\d+)\.(\d+)", release)
    if not found:
        return skipped(which, name, summary, "unknown")
    least = tuple(int(part) for part in plugin.needs.kernel.split(".")[:2])
    return judged(
        Status.PASS if (int(found[1]), int(found[2])) >= least else Status.FAIL,
        which,
        name,
        summary,
        got=release,
        expected=f"{plugin.needs.kernel} or newer",
        remedy="install a newer kernel and reboot: "
        + by_system(facts, apt="apt-get update && apt-get dist-upgrade", dnf="dnf upgrade")
        + "; a newer release of the system where that brings none",
    )


def _no_kube_proxy(name: str, facts: HostFacts, plugin: Plugin, *, stays: bool) -> Check:
    """kube-proxy's rules would answer before those of a plugin that does its work."""
    which, summary = "preflight.plugin-kube-proxy", f"no kube-proxy beside {plugin.name}"
    left = facts.leftovers
    if left.chains is None and left.nft_tables is None:
        return skipped(which, name, summary, "its rules cannot be read: no iptables, no nft")
    seen = [
        *(f"iptables chain {each}" for each in left.chains or () if each == KUBE_PROXY_CHAIN),
        *(f"nftables table {each}" for each in left.nft_tables or () if each == "kube-proxy"),
    ]
    bad = Status.FAIL if stays else Status.WARN
    return judged(
        bad if seen else Status.PASS,
        which,
        name,
        summary,
        got=", ".join(seen) or "none of its rules",
        expected="none of its rules",
        remedy="build anew with --rebuild: `kubeadm init` then leaves kube-proxy out"
        if stays
        else "the reset stage removes them",
    )
