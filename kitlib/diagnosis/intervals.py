"""How sure a number is: intervals for the latency of a run or plugin, for differences of many.

Packets are no independent witnesses. Those of one ping share what the machine did just then, all
pairs of one build share how that build came out, and a thousand packets of one build know nothing
of the next one. What is drawn independently is the build, one in each round; of those there are
few. Both methods here count builds, not packets:

* `clustered`: a cluster bootstrap in two stages. Each resample draws rounds, and in each drawn
  round pairs of nodes, both with replacement and always with all their packets. Few clusters make
  such intervals too narrow (the spread of R draws is short by (R - 1) / R, and a normal quantile
  stands where Student's belongs), so they are widened by just that.
  Within one run, which has no other to be compared with, the cell is what a node sent in a round:
  such intervals say how the number would move with other nodes and moments, not with other builds.
* `contrasts`: the differences between plugins, by the analysis that belongs to the design, blocks
  of one build each: value = plugin + round + rest. The rest of all plugins together says how much
  builds differ by themselves, which three builds of one plugin could not. The intervals hold for
  all differences at once (Tukey's studentised range): with twelve plugins there are 66, of which
  three would be called different by chance if each were judged alone at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Clusters",
    "Contrast",
    "Interval",
    "clustered",
    "clustered_quantiles",
    "contrasts",
    "pooled_quantile",
    "studentised_range",
    "weighted_mean",
]

RESAMPLES = 1000
SEED = 20
NORMAL = 1.959964
"""The 97.5th percentile of the normal distribution."""
_DRAWS = 200_000
_GRID, _STEP = 4096, 64

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Statistic = Callable[[Counts], float]
"""Gets how often each cell was drawn, gives the number."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and the bounds that hold its true value with 95 % confidence.

    Attributes:
        value: The number.
        low: The lower bound; NaN where nothing can be said (one round alone).
        high: The upper bound.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, slots=True)
class Contrast:
    """How two plugins differ.

    Attributes:
        first: One.
        second: The other.
        difference: The first one's value minus the second one's; NaN where no round has both,
            directly or by way of others.
        low: The lower bound; NaN where nothing can be said.
        high: The upper bound.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float

    @property
    def judged(self) -> bool:
        """True where there are bounds."""
        return not math.isnan(self.low)

    @property
    def differs(self) -> bool:
        """True where the interval does not hold 0."""
        return self.judged and not self.low <= 0 <= self.high


class Clusters:
    """Cells (a round and a pair of nodes) that are drawn together, and a thousand draws of them.

    Args:
        rounds: The round of each cell.
        resamples: How many draws.
        seed: What they are drawn with.
    """

    def __init__(
        self, rounds: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = SEED
    ) -> None:
        names = list(dict.fromkeys(rounds))
        place = {name: number for number, name in enumerate(names)}
        of = np.array([place[each] for each in rounds], dtype=np.int64)
        self.rounds = len(names)
        self.once: Counts = np.ones(len(of), dtype=np.int64)
        self.draws: Counts
        if self.rounds == len(of) > 0:  # nothing is drawn within: all draws at once
            self.draws = _even_draws(len(of), resamples, seed)
            return
        draw = np.random.default_rng(seed)
        members = [np.flatnonzero(of == number) for number in range(self.rounds)]
        self.draws = np.zeros((resamples, len(of)), dtype=np.int64)
        for row in self.draws:
            for number in draw.integers(self.rounds, size=self.rounds):
                cells = members[number]
                np.add.at(row, draw.choice(cells, size=len(cells)), 1)

    @property
    def widening(self) -> float:
        """By how much the spread of the draws falls short of a new experiment's: 2.7 of 3."""
        few = self.rounds / (self.rounds - 1)
        return studentised_range(2, self.rounds - 1) / math.sqrt(2) / NORMAL * math.sqrt(few)


def clustered(clusters: Clusters, statistic: Statistic, *, positive: bool = False) -> Interval:
    """Return a statistic with its interval; one round alone has none.

    Args:
        clusters: What is drawn.
        statistic: The number.
        positive: True for what cannot be 0 or less, such as a time: then its bounds cannot either.
    """
    value = statistic(clusters.once)
    if clusters.rounds < 2 or math.isnan(value):
        return Interval(value)
    drawn = np.array([statistic(each) for each in clusters.draws])
    return _bounded(clusters, value, drawn, positive=positive)


def clustered_quantiles(
    clusters: Clusters, values: Floats, cells: Counts, shares: Sequence[float]
) -> list[Interval]:
    """Return quantiles of all values together with their intervals, fast for a million values.

    All draws are made at once, on a grid of the values' own ranks: each bound is one of the
    values, exact for a few thousand of them and within a four-thousandth of the ranks for more.

    Args:
        clusters: What is drawn.
        values: One for each packet that came back; times, which are above 0.
        cells: The cell of each.
        shares: 0.5 for the median.
    """
    if not len(values):
        return [Interval(math.nan) for _ in shares]
    order = np.argsort(values)
    values, cells = values[order], cells[order]
    exact = [float(each) for each in np.quantile(values, shares, method="inverted_cdf")]
    if clusters.rounds < 2:
        return [Interval(value) for value in exact]
    ranks = np.unique(np.linspace(0, len(values) - 1, _GRID).round().astype(int))
    grid = np.unique(values[ranks])
    each = np.diff(np.searchsorted(values, grid, side="right"), prepend=0)
    place = cells * len(grid) + np.repeat(np.arange(len(grid)), each)
    counts = np.bincount(place, minlength=len(clusters.once) * len(grid))
    passed = np.cumsum(counts.reshape(len(clusters.once), len(grid)), axis=1, dtype=float)
    draws = clusters.draws.astype(float)
    back = draws @ passed[:, -1:]
    coarse = draws @ passed[:, ::_STEP]
    found = []
    for share, value in zip(shares, exact, strict=True):
        wanted = share * back - 1e-9
        # The draws' quantiles lie near each other: only that part of the grid is looked at.
        short = np.count_nonzero(coarse < wanted, axis=1)
        first = max(int(short.min()) - 1, 0) * _STEP
        part = slice(first, int(short.max()) * _STEP + 1)
        at = first + np.argmax(draws @ passed[:, part] >= wanted, axis=1)
        drawn = np.where(back[:, 0] > 0, grid[at], math.nan)
        found.append(_bounded(clusters, value, drawn, positive=True))
    return found


def _bounded(
    clusters: Clusters, value: float, drawn: Floats, *, positive: bool = False
) -> Interval:
    """Return the bounds that the draws give, widened for their being few.

    What is positive is widened as a ratio: three builds would put a time below 0 otherwise.
    """
    low, high = (float(each) for each in np.nanquantile(drawn, [0.025, 0.975]))
    wider = clusters.widening
    if positive and low > 0:
        return Interval(
            value,
            value * min(low / value, 1.0) ** wider,
            value * max(high / value, 1.0) ** wider,
        )
    return Interval(
        value,
        value - wider * max(value - low, 0.0),
        value + wider * max(high - value, 0.0),
    )


def pooled_quantile(values: Floats, cells: Counts, share: float) -> Statistic:
    """Return the quantile of all values together, as a statistic.

    Args:
        values: One for each packet that came back.
        cells: The cell of each.
        share: 0.5 for the median.
    """
    order = np.argsort(values, kind="stable")
    ordered, cell_of = values[order], cells[order]

    def quantile(counts: Counts) -> float:
        passed = np.cumsum(counts[cell_of])
        if not len(passed) or not passed[-1]:
            return math.nan
        return float(ordered[np.searchsorted(passed, share * passed[-1])])

    return quantile


def weighted_mean(values: Floats) -> Statistic:
    """Return the mean of one value a cell, as a statistic; cells without one are left out."""
    known = ~np.isnan(values)
    there = np.where(known, values, 0.0)

    def mean(counts: Counts) -> float:
        weight = float(counts[known].sum())
        return float(counts @ there) / weight if weight else math.nan

    return mean


def contrasts(values: Mapping[tuple[str, Hashable], float]) -> list[Contrast]:
    """Return every difference between two plugins, with intervals that hold for all at once.

    Args:
        values: (plugin, round) -> its value in that build; builds that failed are missing.
    """
    cells = [key for key, value in values.items() if not math.isnan(value)]
    names = list(dict.fromkeys(name for name, _ in values))
    blocks = list(dict.fromkeys(block for _, block in cells))
    columns = len(names) + len(blocks)
    design = np.zeros((len(cells), columns))
    for row, (name, block) in enumerate(cells):
        design[row, names.index(name)] = 1
        design[row, len(names) + blocks.index(block)] = 1
    seen = np.array([values[key] for key in cells])
    inverse = np.linalg.pinv(design.T @ design)
    fitted = inverse @ design.T @ seen
    free = len(cells) - int(np.linalg.matrix_rank(design)) if cells else 0
    rest = seen - design @ fitted
    variance = float(rest @ rest) / free if free > 0 else math.nan
    wide = studentised_range(len(names), free) / math.sqrt(2) if free > 0 else math.nan
    reach = inverse @ (design.T @ design)  # what the builds can tell apart, projected on itself
    found = []
    for one, other in combinations(range(len(names)), 2):
        contrast = np.zeros(columns)
        contrast[one], contrast[other] = 1, -1
        if not np.allclose(contrast @ reach, contrast, atol=1e-8):
            found.append(Contrast(names[one], names[other], math.nan, math.nan, math.nan))
            continue
        difference = float(contrast @ fitted)
        half = wide * math.sqrt(variance * float(contrast @ inverse @ contrast))
        found.append(
            Contrast(names[one], names[other], difference, difference - half, difference + half)
        )
    return found


@lru_cache(maxsize=2)
def _even_draws(cells: int, resamples: int, seed: int) -> Counts:
    """Return how often each cell is drawn, all being alike: the same for both paths of a run."""
    draws = np.random.default_rng(seed).multinomial(
        cells, np.full(cells, 1 / cells), size=resamples
    )
    draws.flags.writeable = False
    return draws


@lru_cache(maxsize=256)
def studentised_range(groups: int, free: int) -> float:
    """Return the 95th percentile of the studentised range: drawn, with the same seed every time.

    Args:
        groups: How many means are compared; of 2 it is Student's t times the root of 2.
        free: Degrees of freedom of the spread that they are measured with.
    """
    draw: Any = np.random.default_rng(SEED)
    normal = draw.standard_normal((_DRAWS, groups))
    spread = np.sqrt(draw.chisquare(free, _DRAWS) / free)
    return float(np.quantile((normal.max(axis=1) - normal.min(axis=1)) / spread, 0.95))
