"""What a comparison would do, known before anything is touched: plugins, versions, order."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitlib.errors import GuardError, ParamsError
from kitlib.model import Verdict
from kitlib.params import load
from kitlib.plugins import Catalogue, Plugin
from kitlib.plugins.entry import Supported
from kitlib.runs import INDEX
from kitlib.session import find_params
from kitlib.software.releases import NEWEST_PATCH, newest_patch

__all__ = [
    "ALL",
    "Candidate",
    "ComparisonPlan",
    "newest_fitting",
    "overrides_for",
    "plan_comparison",
]

ALL = "all"
PACKETS = 100
"""Packets for each ordered pair of pods, and as many between the hosts, in each round: of one
pair's 100 packets one is slower than its 99th percentile, and the pairs and rounds add up."""
INTERVAL = 0.005
"""Seconds between two of them: far more than a round trip takes, so that none waits for another."""
SEED = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin and the Kubernetes version that it is built on."""

    plugin: str
    kubernetes_version: str


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What a comparison does, all of it known before anything is touched.

    Attributes:
        params_file: The parameter file, absolute.
        cluster: The cluster's name.
        candidates: What is compared.
        order: For each round the plugins in their order.
        seed: What the order was drawn with.
        packets: Packets for each ordered pair, path and round.
        interval: Seconds between two packets.
        overrides: Further parameters that hold in every run.
        runs: The directory that run directories are made under.
    """

    params_file: Path
    cluster: str
    candidates: tuple[Candidate, ...]
    order: tuple[tuple[str, ...], ...]
    seed: int
    packets: int
    interval: float
    overrides: Mapping[str, object]
    runs: Path

    @property
    def rounds(self) -> int:
        """How often each plugin is built."""
        return len(self.order)

    def version_of(self, plugin: str) -> str:
        """Return the Kubernetes version that a plugin is built on."""
        return next(c.kubernetes_version for c in self.candidates if c.plugin == plugin)

    def lines(self) -> list[str]:
        """Return what is done in which order, for a person."""
        versions = sorted({c.kubernetes_version for c in self.candidates}, key=_order_of)
        builds = self.rounds * len(self.candidates)
        told = [
            f"{_counted(len(self.candidates), 'plugin')}, {_counted(self.rounds, 'round')}: "
            f"{_counted(builds, 'build')} of cluster "
            f"{self.cluster}, each measured and removed; what stands there now is reset",
            f"Kubernetes {', '.join(versions)}"
            + (": packages change between them" if len(versions) > 1 else ""),
        ]
        for number, plugins in enumerate(self.order, start=1):
            shown = ", ".join(f"{name} ({self.version_of(name)})" for name in plugins)
            told.append(f"round {number}: {shown}")
        told.append(
            f"order drawn with seed {self.seed}: the versions in each round, and the plugins of "
            "each version"
        )
        told.append(
            f"measured: each ordered pair of nodes, {self.packets} packets pod to pod and as many "
            f"host to host, every {self.interval:g} s"
        )
        return [*told, self._duration(builds)]

    def _duration(self, builds: int) -> str:
        known = _earlier_seconds(self.runs / self.cluster)
        if not known:
            return "how long a build takes here is known after the first one"
        each = sorted(known)[len(known) // 2]
        return f"roughly {builds * each / 60:.0f} minutes: a build took {each:.0f} s here before"


def newest_fitting(supported: Supported) -> str:
    """Return the newest known Kubernetes release in a range; empty where there is none."""
    known = (newest_patch(f"1.{number}") for number in sorted(NEWEST_PATCH, reverse=True))
    return next((each for each in known if supported.covers(each)), "")


def plan_comparison(
    params: str | Path,
    plugins: str = ALL,
    *,
    rounds: int = 3,
    packets: int = PACKETS,
    seed: int = SEED,
    kubernetes_version: str = "",
    confirm: str = "",
) -> ComparisonPlan:
    """Return what a comparison would do; nothing is reached, nothing is written.

    Args:
        params: The parameter file; its `plugin` and `kubernetes_version` do not count here.
        plugins: Names with commas between, or ALL of the catalogue.
        rounds: How often each is built.
        packets: Packets for each ordered pair, path and round.
        seed: Draws the order.
        kubernetes_version: One version for all; empty is the newest that each plugin fits.
        confirm: The cluster's name, where the parameters do not say it as `confirm_reset`.

    Raises:
        ParamsError: The parameters are wrong for one of the plugins; all of them are named.
        GuardError: Nobody said that the clusters of this name may be reset.
    """
    file = find_params(params)
    base: dict[str, object] = {"confirm_reset": confirm} if confirm else {}
    stated = load(file, base)
    candidates = tuple(
        _candidate(each, kubernetes_version) for each in _named(plugins, stated.catalogue)
    )
    problems = []
    for each in candidates:
        try:
            load(file, overrides_for(each, stated.plugin, base))
        except ParamsError as error:
            problems += error.problems
    if problems:
        raise ParamsError(list(dict.fromkeys(problems)))
    if stated.confirm_reset != stated.cluster:
        raise GuardError(
            f"compare: each build resets the cluster that the one before it made: {stated.source}: "
            f"confirm_reset does not name it",
            remedy=f"say that any cluster {stated.cluster!r} on these hosts may be reset: "
            f"--confirm {stated.cluster}, or confirm_reset: {stated.cluster} in the file",
        )
    return ComparisonPlan(
        params_file=stated.source,
        cluster=stated.cluster,
        candidates=candidates,
        order=_orders(candidates, rounds, seed),
        seed=seed,
        packets=packets,
        interval=min(INTERVAL, stated.probe.interval),
        overrides=base,
        runs=stated.runs,
    )


def overrides_for(candidate: Candidate, own: str, base: Mapping[str, object]) -> dict[str, object]:
    """Return what holds in a candidate's runs instead of the file's values.

    Args:
        candidate: The plugin and its version.
        own: The plugin of the file: a manifest or backend that the file names is that one's.
        base: What holds in every run.
    """
    mine = {"plugin": candidate.plugin, "kubernetes_version": candidate.kubernetes_version}
    other = {} if candidate.plugin == own else {"plugin_manifest": "", "plugin_backend": ""}
    return {**base, **mine, **other}


def _named(plugins: str, known: Catalogue) -> list[Plugin]:
    if plugins == ALL:
        return list(known.values())
    names = [name.strip() for name in plugins.split(",") if name.strip()]
    if not names:
        raise ParamsError(f"option --plugins: {plugins!r}: no plugin named; {ALL} means every one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ParamsError(f"option --plugins: {', '.join(twice)}: named twice")
    return [known.named(name) for name in names]


def _candidate(plugin: Plugin, version: str) -> Candidate:
    newest = plugin.releases[0].kubernetes if plugin.releases else plugin.kubernetes
    found = version or newest_fitting(newest)
    if not found:
        raise ParamsError(
            f"{plugin.name}: no Kubernetes version is known between {newest.min} and {newest.max}",
            remedy="name one with --kubernetes-version",
        )
    return Candidate(plugin.name, found)


def _orders(candidates: Sequence[Candidate], rounds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Return an order for each round: versions shuffled, and the plugins of each version.

    The plugins of a version stay together, because between versions every host gets other packages;
    which version comes first and which plugin is drawn anew for each round.
    """
    draw = random.Random(seed)  # noqa: S311 - an order, no secret
    groups: dict[str, list[str]] = {}
    for each in candidates:
        groups.setdefault(each.kubernetes_version, []).append(each.plugin)
    found = []
    for _ in range(rounds):
        versions = draw.sample(list(groups), len(groups))
        found.append(
            tuple(
                name
                for version in versions
                for name in draw.sample(groups[version], len(groups[version]))
            )
        )
    return tuple(found)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _order_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _earlier_seconds(cluster: Path) -> list[float]:
    """Return how long the passed runs of the newest comparison took."""
    for path in sorted((cluster / "comparisons").glob(f"*/{INDEX}"), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError):
            runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
            known = [run["seconds"] for run in runs if run["verdict"] == Verdict.PASS]
            if known:
                return known
    return []
