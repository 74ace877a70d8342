"""Large records: the shape of what is charted, found and written; `make bench` holds the time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import itertools

from make_record import ZONES, make_record

from kitlib import charts, frames
from kitlib.diagnosis import summary
from kitlib.diagnosis.blame import lossy_nodes
from kitlib.diagnosis.latency import FEW, MOST
from kitlib.diagnosis.latency import checks as checks_of
from kitlib.model import Status
from kitlib.runs import Run, load_run
from kitlib.samples import SAMPLE_COLUMNS, read_samples, write_samples


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(make_record(tmp_path_factory.mktemp("record"), 24, 16_000))


def test_a_made_record_has_the_size_and_the_network_that_were_asked_for(
    record: Run, tmp_path: Path
) -> None:
    table = read_samples(record)
    assert tuple(table.columns) == tuple(SAMPLE_COLUMNS)
    assert len(table) == 16_000
    assert set(table["round"]) == {1, 2}
    assert table["rtt_ms"].isna().equals(table["lost"])
    assert table.groupby(["src", "dst", "path"], observed=True).ngroups == 2 * 24 * 23
    again = read_samples(load_run(make_record(tmp_path, 24, 16_000)))
    assert again.equals(table)


def test_each_cause_of_a_made_record_is_one_finding(record: Run) -> None:
    checks = [each for each in summary.latency_checks(record) if each.status != Status.PASS]
    loss = [each for each in checks if each.id == "latency.loss"]
    assert [(each.target, each.status) for each in loss[:2]] == [
        ("worker-1", Status.FAIL),  # its pair with worker-22 is cut
        ("worker-8", Status.WARN),
    ]
    assert "between worker-8 and " in loss[1].got
    assert len(loss) <= 2 + FEW
    assert [each.target for each in checks if each.id == "latency.node"] == ["worker-12"]


def test_of_many_sick_pairs_the_worst_are_named_and_the_others_counted() -> None:
    names = [f"n{number:02}" for number in range(60)]
    pairs = pd.DataFrame(itertools.permutations(names, 2), columns=["src", "dst"])
    pairs = pairs.assign(path="pod", n=20, lost=0, duplicates=0, loss_pct=0.0)
    values = ("min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms", "difference_ms", "ratio")
    table = pairs.assign(**dict.fromkeys(values, 0.2))
    number = pairs["src"].str[1:].astype(int)
    neighbours = (pairs["dst"].str[1:].astype(int) == number + 1) & (number % 2 == 0)
    some = table.assign(lost=neighbours * (2 + (number == 40)))
    loss = [each for each in checks_of(some, names) if each.id == "latency.loss"]
    assert len(loss) == MOST + 1
    assert loss[0].target == "n40"
    assert loss[-1].got.startswith("10 more pairs lost 20 of 200 packets")
    once = table.assign(lost=neighbours * 1)
    (noise,) = [each for each in checks_of(once, names) if each.id == "latency.loss"]
    assert noise.got.startswith("30 pairs lost one packet each, 0.042 % of all")
    # One node loses a tenth of its packets by chance: most of its pairs lose none.
    draw = np.random.default_rng(4)
    ends = (pairs["src"] == "n07") | (pairs["dst"] == "n07")
    sick = table.assign(lost=draw.binomial(4, 0.1, len(pairs)) * ends, n=4)
    (lossy,) = [each for each in checks_of(sick, names) if each.id == "latency.loss"]
    assert (lossy.target, lossy.status) == ("n07", Status.WARN)
    even = zip(pairs["src"], pairs["dst"], draw.binomial(20, 0.1, len(pairs)), strict=True)
    assert lossy_nodes({(src, dst): (int(lost), 20) for src, dst, lost in even}) == []


def test_samples_that_came_since_are_seen(tmp_path: Path) -> None:
    run = load_run(make_record(tmp_path, 6, 600))
    before = summary.latency_table(run)["n"].sum()
    rows = read_samples(run).assign(round=3).to_dict("records")
    write_samples(run.path / "samples" / "ping" / "0003.parquet", rows)
    assert summary.latency_table(run)["n"].sum() == 2 * before


def test_nodes_of_a_zone_stand_beside_each_other_and_the_odd_one_stands_last(record: Run) -> None:
    names = summary.measured_nodes(record)
    table = frames.latency_summary(read_samples(record))
    order = charts.seriated(table, names)
    assert sorted(order) == sorted(names)
    assert order[-1] == "worker-12"
    zones = [names.index(name) % ZONES for name in order[:-1]]
    assert sum(one != other for one, other in itertools.pairwise(zones)) == ZONES - 1
    assert charts.seriated(table.sample(frac=1, random_state=1), names) == order
    nothing = table.assign(p50_ms=float("nan"))
    assert charts.seriated(nothing, names) == names


def test_a_large_heat_map_says_in_words_what_stands_out(record: Run) -> None:
    picture = summary.latency_figure(record)
    assert picture is not None
    beside = " ".join(picture.get_suptitle().split())
    for said in (picture.alt, beside):
        assert "Slowest nodes by p50 (µs): worker-12 " in said
        assert "No reply: worker-1 to worker-22." in said
        assert "Most loss to and from: worker-8 " in said
    table = frames.latency_summary(read_samples(record))
    pods = table[table["path"] == "pod"]
    assert f"{pods['lost'].sum()} of {pods['n'].sum()} packets lost" in picture.alt
    dots, crosses = picture.axes[0].collections
    assert len(crosses.get_offsets()) == int((pods["lost"] == pods["n"]).sum()) == 1
    assert len(dots.get_offsets()) == int(((pods["lost"] > 0) & (pods["lost"] < pods["n"])).sum())
    drawing = charts.svg(picture, "large")
    assert drawing.count("<image") <= 6
    assert drawing.count("<path") + drawing.count("<use") < 24 * 24 * 5


def test_what_stands_out_is_named_on_the_axes_of_many_nodes() -> None:
    names = [f"n{number:03}" for number in range(120)]
    pairs = pd.DataFrame(itertools.permutations(names, 2), columns=["src", "dst"])
    table = pairs.assign(path="pod", n=5, lost=0, p50_ms=0.2)
    marked = ["n119", "n041", "n042", "n000"]
    ax = charts.latency_heatmap(Figure().add_subplot(), table, names, marked=marked)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        shown = {label.get_text(): label.get_fontweight() for label in labels}
        assert {name for name, weight in shown.items() if weight == "bold"} == set(marked) - {
            "n042"  # its name would lie on the one beside it
        }
        rows = sorted(map(names.index, shown))
        assert min(b - a for a, b in itertools.pairwise(rows)) >= 3
        assert max(b - a for a, b in itertools.pairwise(rows)) <= 10
    assert "120 in all" in ax.get_xlabel()
    few = charts.latency_heatmap(Figure().add_subplot(), table, names[:20], marked=marked)
    assert [label.get_text() for label in few.get_yticklabels()] == names[:20]


@pytest.mark.parametrize("nodes", [3, 40])
def test_the_bands_have_the_percentiles_of_each_nodes_packets(nodes: int) -> None:
    draw = np.random.default_rng(3)
    names = [f"n{number:02d}" for number in range(nodes)]
    rows = pd.DataFrame(
        [
            {"src": src, "dst": dst, "path": "pod", "rtt_ms": value, "lost": False}
            for src in names
            for dst in names
            if src != dst
            for value in draw.lognormal(src == "n01" or dst == "n01", 0.2, 5)
        ]
    ).assign(warmup=False, duplicate=False, reordered=False)
    rows.loc[0, ["lost", "rtt_ms"]] = [True, None]
    table = frames.latency_nodes(rows)
    assert tuple(table.columns) == frames.NODE_COLUMNS
    own = rows[(rows["src"] == "n01") | (rows["dst"] == "n01")]
    slow = table.set_index("node").loc["n01"]
    assert (slow["n"], slow["lost"]) == (len(own), int(own["lost"].sum()))
    assert slow["p95_ms"] == pytest.approx(np.nanquantile(own["rtt_ms"], 0.95))
    ax = charts.latency_bands(Figure().add_subplot(), table)
    named = [label.get_text() for label in ax.get_yticklabels()] if nodes == 3 else [
        text.get_text().split()[0] for text in ax.texts
    ]  # fmt: skip
    assert named[0] == "n01"
    assert len(named) == (3 if nodes == 3 else 8)
    assert ax.get_xlabel().startswith("Round-trip time, ms")
