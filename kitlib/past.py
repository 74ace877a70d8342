"""A cluster's runs over time, as a notebook sees them: what is usual, what got worse, what changed.

Runs are told apart by what must not be compared: plugin, number of hosts, lab or real hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kitlib.errors import PreconditionError
from kitlib.model import Check
from kitlib.rows import Rows, Shown, frame_rows, judged
from kitlib.runs import load_run
from kitlib.session import runs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kitlib.diagnosis.history import History

__all__ = ["Past", "open_past"]


def open_past(params: str, *, run_dir: str = "", runs: str = "") -> Past:
    """Return the runs of a cluster over time; showing it says which.

    Args:
        params: The parameter file, or a kubeconfig: it says below which directory runs lie, and of
            which cluster.
        run_dir: The directory that holds a cluster's runs; empty takes that of the parameters.
        runs: Run directories with commas between, instead.

    Raises:
        ParamsError: The parameters are wrong.
        PreconditionError: There is no such directory, or one that is named is not a run's.
    """
    from kitlib.diagnosis.history import gather

    named = [Path(each.strip()) for each in runs.split(",") if each.strip()]
    if named:
        return Past(named, gather([load_run(path) for path in named]))
    where = Path(run_dir)
    if not run_dir:
        where = runs_of(params)
    if not where.is_dir():
        raise PreconditionError(
            f"{where}: no such directory of runs", remedy="build first: kit build, or name runs"
        )
    found = [path.parent for path in sorted(where.glob("*/run.json"))]
    return Past([where], gather([load_run(path) for path in found]))


class Past(Shown):
    """A cluster's runs over time."""

    def __init__(self, paths: Sequence[Path], history: History) -> None:
        self.paths = paths
        self.history = history

    def need_runs(self) -> Rows:
        """Say how many runs there are of each kind.

        Raises:
            PreconditionError: None passed.
        """
        runs = self.history.runs
        if runs.empty:
            raise PreconditionError(
                f"{', '.join(map(str, self.paths))}: no run that passed",
                remedy="look at the runs' own records: kit report RUN_DIR",
            )
        counts = runs.groupby("series", sort=False).size()
        return Rows(
            ("runs of", "passed"), tuple((str(name), str(many)) for name, many in counts.items())
        )

    def figures(self) -> list[Figure]:
        """Return for each series its headline numbers, and its nodes' way to Ready, run by run."""
        from kitlib.diagnosis.histories import figure, readiness_figure

        drawn = [
            draw(self.history, series)
            for series in self.history.series
            for draw in (figure, readiness_figure)
        ]
        return [each for each in drawn if each is not None]

    def table(self) -> Rows:
        """Return every run's headline numbers, the newest first."""
        from kitlib.diagnosis.histories import table

        return frame_rows(table(self.history), digits=3)

    def checks(self) -> list[Check]:
        """Return what the newest run of each series says against those before it."""
        from kitlib.diagnosis.history import checks

        return checks(self.history)

    def verdict(self) -> Rows:
        """Judge the newest run of each series; too few earlier runs are said, and no failure."""
        return judged("run history", self.checks())

    def _rows(self) -> Rows:
        runs = self.history.runs
        facts = (
            ("runs of", ", ".join(str(path) for path in self.paths)),
            ("passed", str(len(runs))),
            ("told apart", "; ".join(self.history.series) or "nothing"),
        )
        return Rows(("history", ""), facts)
