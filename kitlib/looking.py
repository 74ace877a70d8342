"""What the diagnostic notebooks show of a run: readiness, latencies, connectivity.

Each method measures, returns something to show, or judges; nothing here decides anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kitlib.errors import PreconditionError
from kitlib.model import Check
from kitlib.rows import Rows, Shown, check_rows, frame_rows, judged
from kitlib.runs import Run, load_run
from kitlib.session import Session
from kitlib.turns import Kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Looking"]


class Looking(Shown):
    """A run, and the living cluster behind it, as the diagnostic notebooks see it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._measured: Sequence[Check] = ()

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.session.journal.path

    @abstractmethod
    def live(self) -> AbstractContextManager[object]:
        """Show progress while something is under way."""

    def need_watch(self, *, fresh: bool = False) -> Rows:
        """Say what the run recorded of the nodes; with `fresh` read the living cluster first.

        Raises:
            PreconditionError: The run has no record of nodes.
        """
        if fresh:
            with self.live():
                self.session.read_objects()
        seen = len(self._run().watch("nodes"))
        if not seen:
            raise PreconditionError(
                f"{self.path}: no record of nodes in this run",
                remedy="name the run directory of a build, or set fresh = True",
            )
        return Rows((), (), f"{seen} changes of nodes on record.")

    def readiness_figure(self) -> Figure | None:
        """Return the waterfall of the nodes; None when no node ever registered."""
        from kitlib.diagnosis import summary

        return summary.readiness_figure(self._run())

    def readiness_words(self) -> Rows:
        """Return which phase and which node took longest."""
        from kitlib.diagnosis import summary

        words = summary.readiness_words(self._run())
        return Rows(("what the times say",), tuple((each,) for each in words))

    def readiness_table(self) -> Rows:
        """Return when each node reached each moment, in seconds."""
        from kitlib.diagnosis import summary

        return frame_rows(summary.readiness_table(self._run()), digits=1)

    def readiness_verdict(self) -> Rows:
        """Judge the nodes' way to Ready.

        Raises:
            ChecksFailed: A node is not Ready, or a phase took far too long.
        """
        from kitlib.diagnosis import summary

        return judged("node readiness", summary.readiness_checks(self._run()))

    def need_samples(self, *, fresh: bool) -> Rows:
        """Say whether there is something to chart: a living cluster, or samples in the run.

        Raises:
            ApiError: `fresh`, and the cluster does not answer.
            PreconditionError: Not `fresh`, and the run has no samples.
        """
        if fresh:
            return Rows((), (), f"The API answers at {self.session.kube(wait=10).server}.")
        count = Kept.next_round(self.path / "samples" / "ping")
        if not count:
            raise PreconditionError(
                f"{self.path}: no samples in this run", remedy="set fresh = True to take some"
            )
        return Rows((), (), f"{count} round(s) of samples on record.")

    def measure_latency(self, *, rounds: int, fresh: bool) -> Rows:
        """Take fresh samples of every ordered pair; nothing when not `fresh`.

        What failed on the way counts in `latency_verdict`, behind the charts of what did not.
        """
        if not fresh:
            return Rows((), (), "Not asked for: the samples of the run are charted.")
        from kitlib.measure import measure_latency

        with self.live():
            found = measure_latency(self.session, rounds)
        self._measured = found.checks
        shown = check_rows(found.checks)
        seen = f"{found.samples} samples taken in {found.rounds} round(s)."
        return replace(shown, caption=f"{seen} {shown.caption}")

    def latency_figure(self) -> Figure | None:
        """Return the heat maps of pods and hosts; None without samples."""
        from kitlib.diagnosis import summary

        return summary.latency_figure(self._run())

    def latency_distribution(self) -> Figure | None:
        """Return the distribution of round-trip times; None without samples."""
        from kitlib.diagnosis import summary

        return summary.latency_distribution(self._run())

    def latency_table(self) -> Rows:
        """Return every ordered pair's percentiles (ms) and loss."""
        from kitlib.diagnosis import summary

        return frame_rows(summary.latency_table(self._run()), digits=3)

    def latency_pooled(self) -> Rows:
        """Return all pairs together (ms) and the cost over the hosts, with 95 % intervals."""
        from kitlib.diagnosis import summary

        return frame_rows(summary.latency_pooled(self._run()), digits=3)

    def latency_verdict(self) -> Rows:
        """Judge the latencies.

        Raises:
            ChecksFailed: Packets were lost, or a pair is far slower than the others.
        """
        from kitlib.diagnosis import summary

        found = summary.latency_checks(self._run())
        return judged("pod latency", [*self._measured, *found])

    def need_probes(self, *, fresh: bool) -> Rows:
        """Say whether there is something to judge: a living cluster, or probes in the run.

        Raises:
            ApiError: `fresh`, and the cluster does not answer.
            PreconditionError: Not `fresh`, and connectivity was not probed in the run.
        """
        from kitlib.diagnosis import connected

        if fresh:
            return Rows((), (), f"The API answers at {self.session.kube(wait=10).server}.")
        if not connected.probed(self._run()):
            raise PreconditionError(
                f"{self.path}: connectivity was not probed in this run",
                remedy="set fresh = True to probe it",
            )
        return Rows((), (), "The run has probes on record.")

    def measure_connectivity(self, *, rounds: int, fresh: bool) -> Rows:
        """Probe what works between all nodes; nothing when not `fresh`."""
        if not fresh:
            return Rows((), (), "Not asked for: the probes of the run are judged.")
        from kitlib.connectivity import measure_connectivity

        with self.live():
            taken = measure_connectivity(self.session, rounds)
        return Rows((), (), f"{taken} results on record.")

    def connectivity_figure(self) -> Figure | None:
        """Return the matrix of who reaches whom, and why not; None where it was not probed."""
        from kitlib.diagnosis import connected

        return connected.connectivity_figure(self._run())

    def connectivity_findings(self) -> Rows:
        """Return what does not work, each cause once, with what to do."""
        from kitlib.diagnosis import connected

        bad = [
            check
            for check in connected.connectivity_checks(self._run())
            if check.status.value in ("FAIL", "WARN")
        ]
        rows = [(c.status.value, c.target, c.got, c.expected, c.remedy) for c in bad]
        if not rows:
            return Rows((), (), "Nothing: all that was probed works.")
        return Rows(("status", "where", "got", "wanted", "what to do"), tuple(rows))

    def probe_figure(self) -> Figure | None:
        """Return what each probe takes, between pods beside between hosts; None without any."""
        from kitlib.diagnosis import connected

        return connected.probe_figure(self._run())

    def probe_table(self) -> Rows:
        """Return what each probe takes (ms), all pairs together, with 95 % intervals."""
        from kitlib.diagnosis import connected

        return frame_rows(connected.probe_table(self._run()), digits=3)

    def mtu_figure(self) -> Figure | None:
        """Return where packets as large as the interface claims do not pass; None: all do."""
        from kitlib.diagnosis import connected

        return connected.mtu_figure(self._run())

    def throughput_table(self) -> Rows:
        """Return each transfer; none where throughput was not asked for."""
        from kitlib.diagnosis import connected

        table = connected.throughput_table(self._run())
        if table.empty:
            return Rows((), (), "Not measured: set diagnose.throughput to true for it.")
        return frame_rows(table, digits=1)

    def connectivity_verdict(self) -> Rows:
        """Judge what works between the nodes.

        Raises:
            ChecksFailed: Something does not.
        """
        from kitlib.diagnosis import connected

        return judged("connectivity", connected.connectivity_checks(self._run()))

    def _run(self) -> Run:
        return load_run(self.path)
