"""Judgement: facts and parameters in, checks with remedies out. Pure; one module a subject.

Stages and notebooks use the same checks, before a change and after it. A check's id is stable:
people and hints refer to it.
"""

from __future__ import annotations

from kitlib.checks.clusters import FoundCluster, confirms, found_clusters, guard
from kitlib.checks.cni import cni
from kitlib.checks.nodes import nodes
from kitlib.checks.packages import container_runtime, package_sources, packages, settings
from kitlib.checks.pods import pods
from kitlib.checks.preflight import preflight
from kitlib.checks.reachability import device_counters, reachability
from kitlib.checks.versions import UNSUPPORTED, unsupported
from kitlib.checks.workloads import restart_counts, restarts, workloads

__all__ = [
    "UNSUPPORTED",
    "FoundCluster",
    "cni",
    "confirms",
    "container_runtime",
    "device_counters",
    "found_clusters",
    "guard",
    "nodes",
    "package_sources",
    "packages",
    "pods",
    "preflight",
    "reachability",
    "restart_counts",
    "restarts",
    "settings",
    "unsupported",
    "workloads",
]
