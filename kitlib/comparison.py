"""Every plugin on the same hosts, in rounds that mix them: `kit compare`.

A round builds each plugin once, measures it and removes it; the next round does so in another
order. So what slows the machine for a while slows a part of every plugin's runs, and none alone.
Each build is a run directory like any other; the comparison is a small index beside them:

    runs/<cluster>/comparisons/<UTC time>-<short id>/
        comparison.json   what was wanted, the order with its seed, each run and how it ended
        report.html       what came of it

A plugin that fails is a failed run: its hosts are cleaned, and the others go on.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kitlib import __version__
from kitlib.comparison_plan import Candidate, ComparisonPlan, overrides_for
from kitlib.errors import (
    ChecksFailed,
    ConnectError,
    GuardError,
    Interrupted,
    KitError,
    RecordError,
)
from kitlib.journal import utc_text, write_json
from kitlib.measure import STAGE as LATENCY
from kitlib.measure import measure_latency
from kitlib.model import Verdict, failed
from kitlib.params import load
from kitlib.runs import INDEX, load_index
from kitlib.session import Session, fail
from kitlib.stages import STAGE_NAMES
from kitlib.stages.observe import STEADY_SECONDS, Steady
from kitlib.unplug import unplug

__all__ = ["Comparison", "RunOf", "compare", "resume"]

SCHEMA = 1

Follow = Callable[[Path], AbstractContextManager[object]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunOf:
    """One run of a comparison, as its index has it.

    Attributes:
        round: From 1.
        plugin: The plugin.
        kubernetes_version: Built on.
        run_id: The run directory's name, beside the comparisons' directory.
        verdict: How it ended.
        reason: Why, where it did not pass.
        seconds: How long it took, all of it.
    """

    round: int
    plugin: str
    kubernetes_version: str
    run_id: str
    verdict: str
    reason: str
    seconds: float


class Comparison:
    """A comparison's directory, open for writing.

    Args:
        path: The directory; it has an index already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = load_index(path)

    @classmethod
    def create(cls, plan: ComparisonPlan) -> Comparison:
        """Return a new comparison below the cluster's runs.

        Raises:
            RecordError: It cannot be written.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        path = plan.runs / plan.cluster / "comparisons" / name
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise RecordError(f"{path}: cannot be made: {error.strerror}") from error
        index = {
            "schema": SCHEMA,
            "id": name,
            "cluster": plan.cluster,
            "kit_version": __version__,
            "params_file": str(plan.params_file),
            "overrides": dict(plan.overrides),
            "started": utc_text(),
            "ended": None,
            "verdict": None,
            "reason": "",
            "seed": plan.seed,
            "packets": plan.packets,
            "interval": plan.interval,
            "candidates": [asdict(each) for each in plan.candidates],
            "order": [list(each) for each in plan.order],
            "runs": [],
        }
        write_json(path / INDEX, index)
        return cls(path)

    @property
    def index(self) -> Mapping[str, Any]:
        """The index as it stands."""
        return self._index

    @property
    def runs(self) -> list[RunOf]:
        """The runs in the order in which they were made; one that was made again comes twice."""
        return [RunOf(**each) for each in self._index["runs"]]

    def add(self, run: RunOf) -> None:
        """Keep how a run ended."""
        self._index["runs"].append(asdict(run))
        self._write()

    def end(self, verdict: Verdict, reason: str) -> None:
        """Keep how the comparison ended."""
        self._index |= {"ended": utc_text(), "verdict": verdict.value, "reason": reason}
        self._write()

    def _write(self) -> None:
        write_json(self.path / INDEX, self._index)


def resume(path: Path) -> tuple[ComparisonPlan, Comparison]:
    """Return a comparison that did not end, and its plan, to go on with.

    Raises:
        PreconditionError: There is no comparison there.
        ParamsError: Its parameters are wrong by now.
    """
    comparison = Comparison(path)
    index = comparison.index
    plan = ComparisonPlan(
        params_file=Path(index["params_file"]),
        cluster=index["cluster"],
        candidates=tuple(Candidate(**each) for each in index["candidates"]),
        order=tuple(map(tuple, index["order"])),
        seed=index["seed"],
        packets=index["packets"],
        interval=index["interval"],
        overrides=index["overrides"],
        runs=path.parents[2],
    )
    load(plan.params_file, plan.overrides)
    return plan, comparison


def compare(
    plan: ComparisonPlan, comparison: Comparison, *, follow: Follow, tell: Tell
) -> Sequence[RunOf]:
    """Do what the plan says and is not done yet; return the runs that failed.

    Args:
        plan: What is done.
        comparison: Where it is kept.
        follow: Shows a run while it is under way.
        tell: Says one line.

    Raises:
        Interrupted: A person stopped it; the hosts are clean, what was done is kept.
        KitError: Nothing of it can go on: no host is reached, or a living cluster is in the way.
    """
    done = {(run.round, run.plugin) for run in comparison.runs if run.verdict == Verdict.PASS}
    bad: list[RunOf] = []
    try:
        for number, plugins in enumerate(plan.order, start=1):
            for place, plugin in enumerate(plugins, start=1):
                if (number, plugin) in done:
                    continue
                where = f"round {number} of {plan.rounds}, {place} of {len(plugins)}"
                tell(f"{where}: {plugin} on Kubernetes {plan.version_of(plugin)}")
                run = _one(plan, comparison, number, plugin, follow)
                told = f" ({run.reason})" if run.reason else ""
                tell(f"  {plugin}: {run.verdict} in {run.seconds:.1f} s{told}")
                if run.verdict != Verdict.PASS:
                    bad.append(run)
    except (KeyboardInterrupt, Interrupted) as error:
        comparison.end(Verdict.INTERRUPTED, "interrupted")
        raise Interrupted(
            "compare: interrupted; the hosts were reset, what was measured is kept",
            remedy=f"go on with  kit compare --resume {comparison.path}",
        ) from error
    except KitError as error:
        with contextlib.suppress(RecordError):
            comparison.end(Verdict.FAIL, error.message.splitlines()[0])
        raise
    names = ", ".join(f"{run.plugin} in round {run.round}" for run in bad)
    comparison.end(Verdict.FAIL if bad else Verdict.PASS, f"failed: {names}" if bad else "")
    return bad


def _one(
    plan: ComparisonPlan, comparison: Comparison, number: int, plugin: str, follow: Follow
) -> RunOf:
    """Return how one build of one plugin ended; its hosts are clean afterwards.

    Raises:
        KitError: It failed in a way in which each of the others would.
    """
    version = plan.version_of(plugin)
    own = load(plan.params_file, plan.overrides).plugin
    overrides = overrides_for(Candidate(plugin, version), own, plan.overrides)
    begun = time.monotonic()
    error: KitError | None = None
    where = ""
    with Session.open(plan.params_file, rebuild=True, overrides=overrides) as session:
        path = session.journal.path
        session.what = "kit compare"
        session.journal.update(comparison={"id": comparison.path.name, "round": number})
        with follow(path):
            try:
                with session.exclusive():
                    _build_and_measure(session, plan)
            except KeyboardInterrupt as interrupt:
                error = Interrupted.by(interrupt)
            except KitError as failure:
                error = failure
        where = session.journal.stage
        if error is None:
            session.finish(Verdict.PASS)
        elif not isinstance(error, Interrupted):
            with contextlib.suppress(RecordError):
                fail(session, error)
    if isinstance(error, Interrupted):
        _clean_after_interrupt(plan, path, overrides)
    verdict = Verdict.PASS if error is None else Verdict.FAIL
    if isinstance(error, Interrupted):
        verdict = Verdict.INTERRUPTED
    run = RunOf(
        round=number,
        plugin=plugin,
        kubernetes_version=version,
        run_id=path.name,
        verdict=verdict.value,
        reason=error.message.splitlines()[0] if error else "",
        seconds=round(time.monotonic() - begun, 3),
    )
    if not isinstance(error, RecordError):
        comparison.add(run)
    if error is not None and _ends_all(error, where):
        raise error
    return run


def _ends_all(error: KitError, stage: str) -> bool:
    """Return whether the next build would fail of the same.

    A host that is out of reach later than in preflight may be the plugin's own doing.
    """
    if isinstance(error, ConnectError):
        return stage in ("", "preflight")
    return isinstance(error, Interrupted | RecordError | GuardError)


def _build_and_measure(session: Session, plan: ComparisonPlan) -> None:
    """Build, measure, take the plugin out, reset; after a failure the hosts are reset too.

    That nothing of the plugin is left is judged before the reset, which would hide it.

    The plugin's containers are watched for restarts from Ready to the last packet, which is longer
    than each stage would watch them for itself.
    """
    ctx = session.context
    ctx.steady = 0.0
    try:
        for name in STAGE_NAMES[: STAGE_NAMES.index("verify")]:
            session.stage(name)
        steady = Steady(ctx, STEADY_SECONDS)
        session.stage("verify")
        measure_latency(session, 1, packets=plan.packets, interval=plan.interval).passed()
        checks = steady.end()
        session.journal.stage = LATENCY
        ctx.record(checks)
        if failed(checks):
            lines = "\n".join(f"  {check}" for check in failed(checks))
            raise ChecksFailed(f"{LATENCY}: the plugin restarted meanwhile\n{lines}")
        unplug(session)
    except (Interrupted, RecordError):
        raise
    except KitError as error:
        if not _ends_all(error, session.journal.stage):
            _reset_after(session, error)
        raise
    session.recorder.stop()  # what follows is the end of the cluster, which is no gap in its story
    session.stage("reset")


def _reset_after(session: Session, error: KitError) -> None:
    """Reset the hosts after a failure; where that fails too, it is told beside it."""
    session.recorder.stop()
    try:
        session.stage("reset")
    except Interrupted:
        raise
    except KitError as other:
        first = other.message.splitlines()[0]
        error.message += f"\n  and the hosts were not cleaned: {first}"


def _clean_after_interrupt(
    plan: ComparisonPlan, path: Path, overrides: Mapping[str, object]
) -> None:
    """Reset the hosts in the same run, by new connections: the interrupt closed its own."""
    with Session.open(plan.params_file, run_dir=path, rebuild=True, overrides=overrides) as session:
        session.what = "kit compare"
        try:
            session.stage("reset")
        finally:
            session.finish(Verdict.INTERRUPTED, "interrupted")
