"""Large records: the shape of what is charted, found and written; `make bench` holds the time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from make_record import make_record

from kitlib import frames
from kitlib.diagnosis import summary
from kitlib.diagnosis.latency import MOST
from kitlib.model import Status
from kitlib.runs import Run, load_run


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(make_record(tmp_path_factory.mktemp("record"), 24, 16_000))


def test_a_made_record_has_the_size_and_the_network_that_were_asked_for(
    record: Run, tmp_path: Path
) -> None:
    table = frames.samples(record)
    assert tuple(table.columns) == tuple(frames.SAMPLE_COLUMNS)
    assert len(table) == 16_000
    assert set(table["round"]) == {1, 2}
    assert table["rtt_ms"].isna().equals(table["lost"])
    assert table.groupby(["src", "dst", "path"], observed=True).ngroups == 2 * 24 * 23
    again = frames.samples(load_run(make_record(tmp_path, 24, 16_000)))
    assert again.equals(table)


def test_of_many_sick_pairs_the_worst_are_named_and_the_others_counted(record: Run) -> None:
    checks = [each for each in summary.latency_checks(record) if each.status != Status.PASS]
    loss = [each for each in checks if each.id == "latency.loss"]
    assert len(loss) == MOST + 1
    assert loss[0].status is Status.FAIL
    assert loss[0].target == "worker-1"
    assert "worker-8" in loss[-1].got
    lost = frames.latency_summary(frames.samples(record))
    hurt = int(((lost["path"] == "pod") & (lost["lost"] > 0)).sum())
    assert loss[-1].got.startswith(f"{hurt - MOST} more pairs lost ")
    assert [each.target for each in checks if each.id == "latency.slow-node"] == ["worker-12"]


def test_samples_that_came_since_are_seen(tmp_path: Path) -> None:
    run = load_run(make_record(tmp_path, 6, 600))
    before = summary.latency_table(run)["n"].sum()
    rows = frames.samples(run).assign(round=3).to_dict("records")
    frames.write_samples(run.path / "samples" / "ping" / "0003.parquet", rows)
    assert summary.latency_table(run)["n"].sum() == 2 * before
