"""Pairs worked off in turns: what fails, what is given up, what is kept when it ends early."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kitlib import turns
from kitlib.errors import ApiError, CommandError, RecordError
from kitlib.journal import Journal
from kitlib.probes import pairs
from kitlib.probes.pairs import Pair, Schedule
from kitlib.turns import STRIKES, Kept, Missing, NoAgent, Row, Tour, unfinished

NODES = [f"node-{number}" for number in range(6)]
PATHS = ("pod", "host")


class Folder(Kept):
    """Rows kept as one JSON file a part."""

    def __init__(self, folder: Path, number: int = 0) -> None:
        super().__init__(folder, number, self._json)
        self.folder = folder

    @staticmethod
    def _json(path: Path, rows: Sequence[Row]) -> None:
        path.write_text(json.dumps(rows))

    @property
    def found(self) -> list[tuple[str, str, str]]:
        rows = [
            row for part in sorted(self.folder.iterdir()) for row in json.loads(part.read_text())
        ]
        return [(row["src"], row["dst"], row["path"]) for row in rows]


def good(pair: Pair, path: str, _: int = 0) -> list[Row]:
    return [{"src": pair[0], "dst": pair[1], "path": path}]


def tour(measure: Callable[[Pair, str, int], list[Row]] = good, **changes: Any) -> Tour:
    return Tour(**{"paths": PATHS, "measure": measure, "api": list, "tell": len, **changes})


def everything(plan: Schedule) -> list[tuple[str, str, str]]:
    return sorted((*pair, path) for pair in plan.pairs for path in PATHS)


@pytest.fixture
def kept(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("side_by_side", [1, 2, 3])
def test_every_pair_is_measured_on_each_path_one_right_after_the_other(
    kept: Folder, side_by_side: int
) -> None:
    plan = pairs.schedule(NODES, side_by_side=side_by_side)
    busy: Counter[str] = Counter()
    most = 0
    lock = threading.Lock()
    seen: dict[Pair, list[str]] = {}

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        nonlocal most
        with lock:
            busy.update(pair)
            most = max(most, sum(busy.values()) // 2)
            assert max(busy.values()) == 1, "a node in two measurements at a time"
            assert sum(busy.values()) // 2 <= together <= side_by_side
            seen.setdefault(pair, []).append(path)
        threading.Event().wait(0.002)
        with lock:
            busy.subtract(pair)
        return good(pair, path)

    tour(measure).round(plan, kept, "1 of 1")
    assert sorted(kept.found) == everything(plan)
    assert set(map(tuple, seen.values())) == {PATHS}
    assert most == side_by_side
    assert kept.count == len(everything(plan))


def test_what_failed_once_is_measured_behind_the_others(kept: Folder) -> None:
    plan = pairs.schedule(NODES, side_by_side=2)
    failed: list[tuple[Pair, str]] = []

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        if pair[0] == "node-2" and path == "host" and len(failed) < 2:
            failed.append((pair, path))
            raise CommandError("node-2", "ping", None, "no end in 15 s")
        return good(pair, path)

    work = tour(measure)
    work.round(plan, kept, "1 of 1")
    assert not work.missing
    assert sorted(kept.found) == everything(plan), "each once: the pod path was not repeated"
    assert [(*pair, path) for pair, path in failed] == kept.found[-2:]


def test_a_node_that_fails_again_and_again_is_given_up_and_named(kept: Folder) -> None:
    plan = pairs.schedule(NODES, side_by_side=3)
    asked: Counter[str] = Counter()

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        if pair[0] == "node-4" and path == "pod":
            asked[path] += 1
            raise CommandError("node-4", "ping", None, "no end in 15 s\nsecond line")
        return good(pair, path)

    work = tour(measure)
    work.round(plan, kept, "1 of 1")
    assert asked["pod"] == STRIKES, "it does not hold up the others"
    sick = [each for each in everything(plan) if each[0] == "node-4" and each[2] == "pod"]
    assert sorted(kept.found) == sorted(set(everything(plan)) - set(sick))
    assert sorted((*each.pair, each.path) for each in work.missing) == sick
    assert {each.node for each in work.missing} == {"node-4"}
    whys = Counter(each.why for each in work.missing)
    assert sum(whys.values()) == 5
    assert all("\n" not in why for why in whys)
    work.round(plan, kept, "2 of 2")
    assert asked["pod"] == STRIKES, "nor in the next round"
    assert len(work.missing) == 10


def test_a_node_without_agent_is_named_at_either_end_and_not_asked_again(kept: Folder) -> None:
    plan = pairs.schedule(NODES)
    api: list[str] = []

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        if "node-1" in pair and path == "pod":
            raise NoAgent("node-1", "ImagePullBackOff")
        return good(pair, path)

    work = tour(measure, api=lambda: api.append("asked"))
    work.round(plan, kept, "1 of 1")
    assert {each.node for each in work.missing} == {"node-1"}
    assert len(work.missing) == 10
    assert len(kept.found) == len(everything(plan)) - 10
    assert work.missing[0].why == "node-1: no probe pod: ImagePullBackOff"
    assert not api, "nothing speaks against the API"


def test_the_api_is_asked_after_when_it_refuses_and_the_others_go_on(kept: Folder) -> None:
    """A node whose kubelet is away is that node's failure as long as the API answers."""
    plan = pairs.schedule(NODES)
    api: list[str] = []

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        if pair[0] == "node-3":
            raise ApiError("exec: dial tcp 10.77.0.14:10250: connect: no route to host", status=500)
        return good(pair, path)

    work = tour(measure, api=lambda: api.append("asked"))
    work.round(plan, kept, "1 of 1")
    assert api
    assert {each.node for each in work.missing} == {"node-3"}
    assert len(work.missing) == 10
    assert len(kept.found) == len(everything(plan)) - 10


class Hit(BaseException):
    """What an interrupt is."""


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Hit(), ApiError("no answer", status=0)])
@pytest.mark.parametrize("at", [0, 1, 7, 59])
def test_what_was_measured_is_kept_in_whatever_moment_it_ends(
    kept: Folder, at: int, end: BaseException
) -> None:
    """After any number of measurements: an interrupt, or an API that is gone for good."""
    plan = pairs.schedule(NODES, side_by_side=1)
    measured: list[tuple[str, str, str]] = []
    gone: list[BaseException] = []

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        if len(measured) >= at:
            gone.append(end)
            raise end
        measured.append((*pair, path))
        return good(pair, path)

    def api() -> None:
        raise gone[0]

    work = tour(measure, api=api)
    with pytest.raises(type(end)):
        work.round(plan, kept, "1 of 1")
    assert kept.found == measured
    assert len(measured) == at
    assert work.ended == at // 2, "pairs that are whole"


def test_rows_that_cannot_be_written_end_it(tmp_path: Path) -> None:
    def full(path: Path, _: Sequence[Row]) -> None:
        raise RecordError(f"{path}: cannot be written: No space left on device")

    with pytest.raises(RecordError, match=r"0003-0000\.parquet: cannot be written"):
        tour().round(pairs.schedule(NODES), Kept(tmp_path, 3, full), "1 of 1")


def test_parts_are_written_while_it_goes_on(kept: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses no more than the last seconds."""
    monkeypatch.setattr(turns, "KEEP_EVERY", 0.0)
    seen: list[int] = []

    def measure(pair: Pair, path: str, together: int) -> list[Row]:
        seen.append(len(list(kept.folder.iterdir())))
        return good(pair, path)

    tour(measure).round(pairs.schedule(NODES, side_by_side=1), kept, "1 of 1")
    assert seen == [number // 2 for number in range(60)], "one part a turn"


def test_a_round_is_numbered_behind_every_part_and_every_old_record(tmp_path: Path) -> None:
    assert Kept.next_round(tmp_path / "none") == 0
    for name in ("0000.parquet", "0002-0000.parquet", "0002-0013.parquet", ".0007.parquet.ab"):
        (tmp_path / name).touch()
    assert Kept.next_round(tmp_path) == 3
    (tmp_path / "12.parquet").touch()
    assert Kept.next_round(tmp_path) == 13


def test_the_record_says_what_is_missing_until_nothing_is(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "test", {})
    unfinished(journal, "latency", "30 of 30 pairs")
    unfinished(journal, "connectivity", "12 of 30 pairs")
    assert journal.record()["partial"] is True
    unfinished(journal, "latency", "")
    assert journal.record()["missing"] == {"connectivity": "12 of 30 pairs"}
    assert journal.record()["partial"] is True
    unfinished(journal, "connectivity", "")
    assert journal.record()["partial"] is False
    assert journal.record()["missing"] == {}


def test_what_is_under_way_is_said_with_its_pairs() -> None:
    told: list[str] = []
    work = tour(tell=told.append)
    work.round(pairs.schedule(NODES), Kept(Path(), 0, lambda *_: None), "2 of 3")
    assert told == [
        "round 2 of 3, turn 1 of 10: node-0 asks node-5, node-1 asks node-4, node-2 asks node-3"
    ], "once a second at most"
    assert Missing(("a", "b"), "pod", "a", "x").pair == ("a", "b")
