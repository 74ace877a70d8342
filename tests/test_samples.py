"""Tables of samples: written whole, read back, also by a release that knows more columns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import empty_run

from kitlib import frames
from kitlib.errors import PreconditionError, RecordError
from kitlib.runs import Run, load_run
from kitlib.samples import PROBES, SAMPLE_COLUMNS, Column, read_samples, write_samples

KINDS = {"int64": "int64", "float64": "float64", "bool": "bool", "str": "category"}


def sample(src: str, dst: str, rtt: float | None, **more: object) -> dict[str, object]:
    return {
        "round": 1, "src": src, "dst": dst, "src_ip": "10.0.0.1", "dst_ip": "10.0.0.2",
        "path": "pod", "seq": 1, "rtt_ms": rtt, "lost": rtt is None, "warmup": False, "t": 1.0,
    } | more  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return load_run(empty_run(tmp_path))


def part(run: Run, name: str = "1", probe: str = "ping") -> Path:
    return run.path / "samples" / probe / f"{name}.parquet"


def value(column: Column, number: int) -> Any:
    return {"int64": number, "float64": number / 4, "bool": bool(number % 2), "str": f"n{number}"}[
        column.kind
    ]


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_every_table_is_read_as_it_was_written(run: Run, probe: str) -> None:
    columns = PROBES[probe].columns
    rows = [
        {name: value(column, row + place) for place, (name, column) in enumerate(columns.items())}
        for row in range(3)
    ]
    write_samples(part(run, probe=probe), rows)
    table = read_samples(run, probe)
    assert table.to_dict("records") == rows
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {
        name: KINDS[column.kind] for name, column in columns.items()
    }
    assert [each.name for each in part(run, probe=probe).parent.iterdir()] == ["1.parquet"]


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_a_run_without_samples_has_an_empty_table_with_all_columns(run: Run, probe: str) -> None:
    table = read_samples(run, probe)
    assert table.empty
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {
        name: KINDS[column.kind] for name, column in PROBES[probe].columns.items()
    }


def test_a_lost_packet_has_no_time_and_what_a_row_leaves_out_has_its_value(run: Run) -> None:
    write_samples(part(run), [sample("a", "b", 0.5), sample("a", "b", None, seq=2, reason="cut")])
    table = read_samples(run)
    assert tuple(table.columns) == tuple(SAMPLE_COLUMNS)
    assert list(table["lost"]) == [False, True]
    assert math.isnan(table["rtt_ms"].iloc[1])
    assert list(table["reason"]) == ["", "cut"]
    assert table["side_by_side"].tolist() == [0, 0]
    assert not table["reordered"].any()


def test_a_record_from_before_a_column_is_read_beside_a_new_one(run: Run) -> None:
    """Written as it was: without side_by_side, reordered, server; in one part no duplicate."""
    names = ("src", "dst", "src_ip", "dst_ip", "path", "reason")
    old: dict[str, Any] = {
        name: pa.array(["", ""], type=pa.dictionary(pa.int32(), pa.string())) for name in names
    }
    old |= {"round": [1, 1], "seq": [1, 2], "rtt_ms": [0.5, None], "lost": [False, True]}
    old |= {"warmup": [True, False], "t": [1.0, 2.0]}
    part(run).parent.mkdir(parents=True)
    pq.write_table(pa.table(old), part(run, "1"))
    pq.write_table(pa.table({**old, "duplicate": [False, True]}), part(run, "2"))
    write_samples(part(run, "3"), [sample("a", "b", 0.5, side_by_side=4, server="b", round=3)])
    table = read_samples(run)
    assert tuple(table.columns) == tuple(SAMPLE_COLUMNS)
    assert table["side_by_side"].tolist() == [0, 0, 0, 0, 4]
    assert table["server"].tolist() == ["", "", "", "", "b"]
    assert table["duplicate"].tolist() == [False, False, False, True, False]
    assert not table["reordered"].any()
    assert frames.latency_summary(table)["n"].sum() == 2


def test_a_later_releases_column_is_left_out_and_plain_text_is_read(run: Run) -> None:
    row = {name: [value(column, 1)] for name, column in SAMPLE_COLUMNS.items()}
    part(run).parent.mkdir(parents=True)
    pq.write_table(pa.table({**row, "colour": ["red"]}), part(run))
    table = read_samples(run)
    assert tuple(table.columns) == tuple(SAMPLE_COLUMNS)
    assert str(table["src"].dtype) == "category"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([sample("a", "b", 0.5, colour="red")], "not a column of this probe: colour"),
        ([{"src": "a"}], "a row has no round"),
        ([sample("a", "b", 0.5, lost=None)], "a row has no lost"),
    ],
)
def test_a_bad_row_is_refused_and_keeps_the_old_file(
    run: Run, rows: list[dict[str, object]], says: str
) -> None:
    write_samples(part(run), [sample("a", "b", 0.5)])
    before = part(run).read_bytes()
    with pytest.raises(ValueError, match=says):
        write_samples(part(run), rows)
    assert part(run).read_bytes() == before
    assert list(part(run).parent.iterdir()) == [part(run)]


def test_an_unknown_probe_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="no such probe; there are ping, "):
        write_samples(part(run, probe="sonar"), [])
    with pytest.raises(ValueError, match="no such probe"):
        read_samples(run, "sonar")


def test_what_cannot_be_written_says_where(run: Run) -> None:
    (run.path / "samples").write_text("not a directory")
    with pytest.raises(RecordError, match=r"ping/1\.parquet: cannot be written"):
        write_samples(part(run), [sample("a", "b", 0.5)])


@pytest.mark.parametrize("torn", [b"", b"PAR1 torn", None])
def test_a_file_that_is_no_table_of_samples_is_named(run: Run, torn: bytes | None) -> None:
    part(run).parent.mkdir(parents=True)
    if torn is None:
        pq.write_table(pa.table({"src": ["a"]}), part(run))
    else:
        part(run).write_bytes(torn)
    with pytest.raises(PreconditionError, match=r"1\.parquet: not a table of samples") as caught:
        read_samples(run)
    assert "remove that file" in caught.value.remedy
