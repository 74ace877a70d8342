"""What the notebooks import, and all that they import: a run, its stages, its tables and charts.

Nothing here decides anything: it shows what the library returns. Tables render as HTML in
JupyterLab and as aligned text elsewhere, so that executed copies read well in any viewer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import display

from kitlib.errors import PreconditionError
from kitlib.looking import Looking
from kitlib.model import CLUSTER
from kitlib.past import Past, open_past
from kitlib.progress import Board, describe, read_lines
from kitlib.rows import Rows, Shown, check_rows, frame_rows, judged
from kitlib.session import Session, find_params
from kitlib.stages import StageRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kitlib.diagnosis.compared import Sight

__all__ = [
    "Bound",
    "Comparison",
    "Past",
    "Rows",
    "Step",
    "open_comparison",
    "open_past",
    "open_run",
    "show",
]


def open_run(params: str, *, run_dir: str = "", dry_run: bool = False) -> Bound:
    """Return the run that this notebook is bound to; showing it says to what.

    Args:
        params: The parameter file; a relative one is looked for in the parent folders too.
        run_dir: The run directory to go on in; empty joins the newest run begun by hand with these
            parameters, or begins a new one.
        dry_run: Plan only.

    Raises:
        ParamsError: The parameters or the run directory are wrong; all problems at once.
    """
    return Bound(Session.open(params, run_dir=run_dir, dry_run=dry_run, by_hand=True))


class Bound(Looking):
    """A run, as a notebook sees it."""

    def stage(self, name: str) -> Step:
        """Return one stage, to be taken step by step: preconditions, plan, apply, validate."""
        return Step(self.session, name)

    def live(self) -> _Live:
        """Show progress below the cell while something is under way."""
        return _Live(self.path)

    def _rows(self) -> Rows:
        params = self.session.params
        hosts = ", ".join(f"{host.name} ({host.role.value})" for host in params.hosts)
        facts = (
            ("parameters", str(params.source)),
            ("cluster", params.cluster),
            ("hosts", hosts),
            ("Kubernetes", params.kubernetes_version),
            ("plugin", f"{self.session.plugin.title}, pod CIDR {params.effective_pod_cidr}"),
            ("dry run", "yes: nothing will be changed" if self.session.dry_run else "no"),
            ("run directory", str(self.path)),
        )
        return Rows(("bound to", ""), facts)


class Step:
    """One stage in a notebook; every method shows its result and raises when it failed."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name
        self._run: StageRun | None = None

    def preconditions(self) -> Rows:
        """Judge what must hold first; a failure stops here and nothing was changed."""
        self._run = self._session.begin(self._name)
        with _Live(self._session.journal.path):
            return check_rows(self._run.preconditions())

    def plan(self) -> Rows:
        """Say what would be done, from facts read now."""
        run = self._current()
        with _Live(self._session.journal.path):
            plan = run.plan()
        rows = [(change.target, change.what, str(change.command or "")) for change in plan.changes]
        caption = f"{len(rows)} change(s) planned. {plan.reason}" if rows else plan.reason
        rows = [*((CLUSTER, f"note: {text}", "") for text in plan.notices), *rows]
        return Rows(("where", "what and why", "command"), tuple(rows), caption.strip())

    def apply(self) -> Rows:
        """Do exactly the plan (nothing, in a dry run), with progress while it runs."""
        run = self._current()
        with _Live(self._session.journal.path):
            plan = run.apply()
        if run.dry_run:
            return Rows((), (), "Dry run: nothing was changed.")
        done = f"{len(plan.changes)} change(s) made." if plan.changes else "Nothing to do."
        return Rows((), (), done)

    def validate(self) -> Rows:
        """Judge the state after the stage; a failure raises and tells the remedy."""
        run = self._current()
        with _Live(self._session.journal.path):
            outcome = run.validate()
        rows = check_rows(outcome.checks)
        self._verdict = Rows(
            ("stage", "verdict", "changes", "seconds", "evidence"),
            (
                (
                    outcome.stage,
                    outcome.verdict.value,
                    str(len(outcome.changes)),
                    f"{outcome.seconds:.1f}",
                    str(self._session.journal.path),
                ),
            ),
        )
        return rows

    def verdict(self) -> Rows:
        """Say how the stage ended and where the evidence lies."""
        return self._verdict

    def _current(self) -> StageRun:
        if self._run is None:
            self._run = self._session.begin(self._name)
        return self._run


def open_comparison(params: str, *, run_dir: str = "", runs: str = "") -> Comparison:
    """Return a set of runs, side by side; showing it says which.

    Args:
        params: The parameter file: it says below which directory runs lie.
        run_dir: A comparison's directory; empty takes the newest.
        runs: Run directories with commas between, instead.

    Raises:
        ParamsError: The parameters are wrong, or there is no comparison.
        PreconditionError: A directory is neither a run's nor a comparison's; or runs of a lab and
            of real hosts are among them.
    """
    from kitlib.comparison_page import newest_comparison, see
    from kitlib.params import load

    named = [Path(each.strip()) for each in runs.split(",") if each.strip()]
    if not named:
        named = [Path(run_dir) if run_dir else newest_comparison(load(find_params(params)).runs)]
    return Comparison(named, see(named))


class Comparison(Shown):
    """Runs of several plugins, as a notebook sees them."""

    def __init__(self, paths: Sequence[Path], sight: Sight) -> None:
        self.paths = paths
        self._sight = sight

    def need_runs(self) -> Rows:
        """Say how many builds count.

        Raises:
            PreconditionError: None passed and was measured.
        """
        runs = self._sight.compared.runs
        counted = int(runs["counts"].sum())
        if not counted:
            raise PreconditionError(
                f"{', '.join(map(str, self.paths))}: no run that passed and was measured",
                remedy="look at the runs' own records: kit report RUN_DIR",
            )
        return Rows((), (), f"{counted} of {len(runs)} runs passed and were measured.")

    def table(self) -> Rows:
        """Return the table to decide from, the cheapest plugin first."""
        frame = self._sight.table().replace("\\n", " ", regex=True)
        return frame_rows(frame.rename(columns=lambda head: head.removeprefix("#")), digits=2)

    def words(self) -> Rows:
        """Return what the numbers say and do not say."""
        return Rows(("what the numbers say",), tuple((each,) for each in self._sight.words()))

    def cost_figure(self) -> Figure | None:
        """Return what each plugin costs; None when nothing was measured."""
        return self._sight.cost_figure()

    def distribution_figure(self) -> Figure | None:
        """Return the distribution of each plugin's round trips; None without any."""
        return self._sight.distribution_figure()

    def difference_figure(self) -> Figure | None:
        """Return which plugins differ; None where there are no two."""
        return self._sight.difference_figure()

    def readiness_figure(self) -> Figure | None:
        """Return what workers waited for until they were Ready; None without a record."""
        return self._sight.readiness_figure()

    def verdict(self) -> Rows:
        """Judge the builds.

        Raises:
            ChecksFailed: A build of a plugin failed.
        """
        return judged("plugin comparison", self._sight.checks())

    def _rows(self) -> Rows:
        compared = self._sight.compared
        facts = (
            ("runs of", ", ".join(str(path) for path in self.paths)),
            ("plugins", ", ".join(compared.subjects)),
            ("Kubernetes", ", ".join(sorted(set(compared.runs["kubernetes_version"])))),
            ("where from", self._sight.provenance()),
        )
        return Rows(("compared", ""), facts)


def show(figure: Figure | Sequence[Figure] | None) -> None:
    """Show a figure, or several, below the cell; say so where there is nothing to draw."""
    if isinstance(figure, Sequence):
        for each in figure:
            show(each)
        if figure:
            return
        figure = None
    if figure is None:
        figure_or_word: object = Rows((), (), "Nothing to draw: not measured, or nothing to tell.")
    else:
        figure_or_word = figure
    display(figure_or_word)  # type: ignore[no-untyped-call]


class _Live:
    """Progress below a cell while it works: the last lines, and who is doing what since when."""

    LINES = 12

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "journal.jsonl"
        self._offset = self._path.stat().st_size
        self._board = Board()
        self._lines: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="progress")
        self._handle: Any = None
        self._read_at = time.monotonic()

    def __enter__(self) -> _Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._handle is not None and not self._lines:
            self._handle.update(Rows((), (), ""))

    def _follow(self) -> None:
        last = False
        while True:
            lines, self._offset = read_lines(self._path, self._offset)
            for line in lines:
                self._board.feed(line)
                self._read_at = time.monotonic()
                text = "" if line["kind"] in ("planned", "progress") else describe(line)
                if text:
                    self._lines.append(text)
            self._show(final=last)
            if last:
                return
            last = self._stop.wait(0.5)

    def _show(self, *, final: bool) -> None:
        now = self._board.now + time.monotonic() - self._read_at
        active = [] if final else list(self._board.active.values())
        shown = self._lines[-self.LINES :] + [
            f"  … {item.host}: {item.text[:100]} ({now - item.since:.0f} s)" for item in active
        ]
        if not shown:
            return
        text = _Lines("\n".join(shown))
        if self._handle is None:
            self._handle = display(text, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(text)


@dataclass(frozen=True, slots=True)
class _Lines:
    text: str

    def __repr__(self) -> str:
        return self.text
