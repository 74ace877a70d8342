"""Pairs of nodes worked off in turns: side by side, kept as they come, whatever ends it early.

What is measured is on disk within seconds, so that an interrupt, a lost API or a killed process
loses no more than what was under way. A pair that fails is tried once more behind the others; a
node whose measurements fail one after another is given up, so that it does not hold up the rest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitlib.errors import ApiError, KitError, PreconditionError
from kitlib.fanout import fan_out
from kitlib.journal import Journal
from kitlib.probes import pairs
from kitlib.probes.pairs import Pair, Schedule

__all__ = ["KEEP_EVERY", "STRIKES", "Kept", "Missing", "NoAgent", "Row", "Tour", "unfinished"]

Row = dict[str, object]
"""A sample, as its probe's columns document it."""

STRIKES = 3
"""So many failures in a row on one node's path, and the rest of its pairs are not tried."""
KEEP_EVERY = 5.0
"""Seconds after which what was measured is written, at the end of a turn."""
TELL_EVERY = 1.0


class NoAgent(PreconditionError):
    """A node has no probe pod that could take part.

    Attributes:
        node: The node.
    """

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"{node}: no probe pod: {why}")
        self.node = node


@dataclass(frozen=True, slots=True)
class Missing:
    """A pair that could not be measured on a path.

    Attributes:
        pair: Source and target.
        path: `pod` or `host`.
        node: The node to look at.
        why: What it failed of, one line.
    """

    pair: Pair
    path: str
    node: str
    why: str


class Kept:
    """The rows of one probe in one round, written as parts that are never touched again.

    Args:
        folder: `samples/<probe>` of the run.
        number: The round's number.
        write: Writes rows to a file, whole or not at all.
    """

    def __init__(
        self, folder: Path, number: int, write: Callable[[Path, Sequence[Row]], object]
    ) -> None:
        self.count = 0
        self._folder, self._number, self._write = folder, number, write
        self._rows: list[Row] = []
        self._parts = 0
        self._lock = threading.Lock()
        self._written = time.monotonic()

    @staticmethod
    def next_round(folder: Path) -> int:
        """Return the number of the first round that has no file."""
        numbers = [int(path.stem.partition("-")[0]) for path in folder.glob("*.parquet")]
        return max(numbers, default=-1) + 1

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows; any thread may bring some."""
        with self._lock:
            self._rows += rows

    def write(self, *, after: float = 0.0) -> None:
        """Write what there is, where the last writing is so many seconds ago.

        Raises:
            RecordError: It cannot be written.
        """
        with self._lock:
            if not self._rows or time.monotonic() - self._written < after:
                return
            self._write(self._folder / f"{self._number:04}-{self._parts:04}.parquet", self._rows)
            self.count += len(self._rows)
            self._parts += 1
            self._rows = []
            self._written = time.monotonic()


@dataclass
class Tour:
    """How pairs are worked off.

    Attributes:
        paths: What is measured of a pair, one right after the other: `pod`, `host`.
        measure: Returns the rows of a pair on a path, given how many pairs are measured at a time;
            a KitError is that pair's failure.
        api: Returns when the API answers; an ApiError ends the tour.
        tell: Says what is under way.
        missing: What could not be measured so far.
        ended: Pairs that were worked off in this round, well or not.
    """

    paths: Sequence[str]
    measure: Callable[[Pair, str, int], list[Row]]
    api: Callable[[], object]
    tell: Callable[[str], None]
    missing: list[Missing] = field(default_factory=list)
    ended: int = 0
    _strikes: Counter[tuple[str, str]] = field(default_factory=Counter)
    _told: float = 0.0

    def round(self, plan: Schedule, kept: Kept, shown: str) -> None:
        """Work off every pair once; `kept` has all rows, also when it ends early.

        Raises:
            ApiError: The API is gone.
            RecordError: The rows cannot be written.
        """
        self.ended = 0
        again: dict[Pair, list[Missing]] = {}
        try:
            for number, turn in enumerate(plan.turns, start=1):
                self._say(f"round {shown}, turn {number} of {len(plan.turns)}", turn)
                failed = self._turn(dict.fromkeys(turn, self.paths), kept)
                for each in failed:
                    again.setdefault(each.pair, []).append(each)
                self.ended += len(turn)
            for rest in pairs.packed(list(again), plan.side_by_side):
                self._say(f"round {shown}, once more", rest)
                todo = {pair: [each.path for each in again[pair]] for pair in rest}
                self.missing += self._turn(todo, kept)
        finally:
            kept.write()

    def _turn(self, todo: Mapping[Pair, Sequence[str]], kept: Kept) -> list[Missing]:
        """Measure pairs side by side and return what failed."""

        def work(pair: Pair) -> list[tuple[Missing, KitError]]:
            failed = []
            for path in todo[pair]:
                try:
                    if self._strikes[pair[0], path] >= STRIKES:
                        raise NoAgent(pair[0], f"given up after {STRIKES} failures in a row")
                    kept.add(self.measure(pair, path, len(todo)))
                except KitError as error:
                    node = error.node if isinstance(error, NoAgent) else pair[0]
                    line = error.message.splitlines()[0]
                    failed.append((Missing(pair, path, node, line), error))
                else:
                    self._strikes[pair[0], path] = 0
            return failed

        done = fan_out(work, todo, workers=len(todo)).raise_first()
        failures = [each for failed in done.values() for each in failed]
        later = []
        for each, error in failures:
            if isinstance(error, NoAgent):
                self.missing.append(each)  # it will have none later on either
            else:
                later.append(each)
                self._strikes[each.pair[0], each.path] += 1
        kept.write(after=KEEP_EVERY)
        if any(isinstance(error, ApiError) for _, error in failures):
            self.api()
        return later

    def _say(self, where: str, turn: Sequence[Pair]) -> None:
        if time.monotonic() - self._told < TELL_EVERY:
            return
        self._told = time.monotonic()
        whom = ", ".join(f"{source} asks {target}" for source, target in turn[:3])
        more = f" and {len(turn) - 3} more" if len(turn) > 3 else ""
        self.tell(f"{where}: {whom}{more}")


def unfinished(journal: Journal, what: str, text: str) -> None:
    """Write into run.json what is missing of a measurement; nothing is, where the text is empty.

    It is said before the first packet and taken back at the end, so that it stands there also when
    the process was killed.

    Args:
        journal: The run.
        what: The measurement, such as `latency`.
        text: What is missing, in words.
    """
    missing = dict(journal.record().get("missing") or {})
    missing.pop(what, None)
    missing |= {what: text} if text else {}
    journal.update(missing=missing, partial=bool(missing))
