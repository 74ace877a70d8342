"""Run directories as tables: what is read, what is tolerated, what the numbers mean."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import START, Maker, empty_run, failed_run, utc, whole_run

from kitlib import frames
from kitlib.errors import PreconditionError
from kitlib.runs import load_run, parse_time
from kitlib.samples import SAMPLE_COLUMNS, read_samples, write_samples

RECORDED = Path(__file__).parent / "data" / "recorded-run"


def sample(src: str, dst: str, rtt: float | None, **more: object) -> dict[str, object]:
    return {
        "round": 1, "src": src, "dst": dst, "src_ip": "10.0.0.1", "dst_ip": "10.0.0.2",
        "path": "pod", "seq": 1, "rtt_ms": rtt, "lost": rtt is None, "warmup": False, "t": 1.0,
    } | more  # fmt: skip


def written(tmp_path: Path, rows: list[dict[str, object]]) -> pd.DataFrame:
    run = empty_run(tmp_path)
    write_samples(run / "samples" / "ping" / "0001.parquet", rows)
    return read_samples(load_run(run))


def test_a_torn_last_line_is_counted_and_the_rest_is_read() -> None:
    run = load_run(RECORDED)
    assert run.damaged == 1
    assert run.entries[0].kind == "run.started"
    assert run.entries[-1].kind == "stage.ended"
    assert (run.cluster, run.plugin, run.verdict) == ("recorded", "flannel", "PASS")
    assert [host.role for host in run.hosts] == ["control_plane", "worker", "worker"]
    assert str(run.provenance) == "Measured on real hosts"


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"no run\.json"):
        load_run(tmp_path)


def test_a_run_is_read_from_its_journal_alone(tmp_path: Path) -> None:
    path = failed_run(tmp_path)
    (path / "run.json").write_text('{"torn')
    run = load_run(path)
    assert (run.cluster, run.verdict) == ("lab", "FAIL")
    assert run.reason == "control-plane-1: kubeadm init: exit status 1"
    assert run.started == pytest.approx(START + 0.1)
    assert str(run.provenance) == "Provenance not recorded"


def test_the_caption_says_what_stands_in_for_what(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.meta["provenance"] = {**maker.meta["provenance"], "stands_in": "VXLAN stands in for x"}
    caption = str(load_run(maker.write()).provenance)
    assert caption.startswith("Lab: real packets through kernel namespaces; VXLAN stands in for x;")


def test_stages(tmp_path: Path) -> None:
    table = frames.stages(load_run(whole_run(tmp_path)))
    assert tuple(table.columns) == frames.STAGE_COLUMNS
    assert list(table["stage"]) == [
        "preflight", "reset", "packages", "init", "network", "join", "ready", "verify",
    ]  # fmt: skip
    assert set(table["verdict"]) == {"PASS"}
    init = table[table["stage"] == "init"].iloc[0]
    assert init["seconds"] == 5.4
    assert init["changes"] == 1
    assert init["started"].timestamp() == pytest.approx(START + init["offset_s"])


def test_a_stage_without_an_end_is_unfinished(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.event(1.0, "stage.started", "init")
    maker.event(1.5, "host.started", "init", "control-plane-1")
    maker.event(4.0, "progress", "init", "control-plane-1", text="waits")
    run = load_run(maker.write())
    assert run.verdict == "UNFINISHED"
    stage = frames.stages(run).iloc[0]
    assert (stage["verdict"], stage["seconds"]) == ("UNFINISHED", pytest.approx(3.0))
    host = frames.hosts(run).iloc[0]
    assert host["ok"] is None
    assert host["seconds"] == pytest.approx(2.5)


def test_a_stage_that_was_run_twice_has_two_rows(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.stage("init", 1, 2, "FAIL")
    maker.stage("init", 5, 3)
    table = frames.stages(load_run(maker.write()))
    assert list(table["verdict"]) == ["FAIL", "PASS"]
    assert list(table["changes"]) == [1, 1]


def test_hosts_commands_and_checks(tmp_path: Path) -> None:
    run = load_run(failed_run(tmp_path))
    hosts = frames.hosts(run)
    assert tuple(hosts.columns) == frames.HOST_COLUMNS
    assert list(hosts[hosts["stage"] == "init"]["ok"]) == [False]
    command = frames.commands(run).iloc[-1]
    assert (command["host"], command["exit_status"]) == ("control-plane-1", 1)
    assert command["raw"] == "raw/init-control-plane-1.txt"
    checks = frames.checks(run)
    assert tuple(checks.columns) == frames.CHECK_COLUMNS
    assert list(checks["id"]) == ["preflight.done", "reset.done", "packages.done"]


def test_an_empty_run_has_empty_tables_with_all_columns(tmp_path: Path) -> None:
    run = load_run(empty_run(tmp_path))
    assert tuple(frames.stages(run).columns) == frames.STAGE_COLUMNS
    assert tuple(frames.commands(run).columns) == frames.COMMAND_COLUMNS
    samples = read_samples(run)
    assert tuple(samples.columns) == tuple(SAMPLE_COLUMNS)
    assert samples.empty
    summary = frames.latency_summary(samples)
    assert summary.empty
    assert tuple(summary.columns) == frames.SUMMARY_COLUMNS


def test_the_summary_leaves_out_warm_up_and_duplicates_and_counts_loss(tmp_path: Path) -> None:
    rows = [sample("a", "b", 99.0, warmup=True)]
    rows += [sample("a", "b", value, seq=i) for i, value in enumerate((1.0, 2.0, 3.0), 2)]
    rows[2]["reordered"] = True
    rows += [sample("a", "b", 50.0, seq=4, duplicate=True), sample("a", "b", None, seq=5)]
    rows += [sample("b", "a", None, seq=i) for i in (1, 2)]
    table = frames.latency_summary(written(tmp_path, rows)).set_index(["src", "dst"])
    there, back = table.loc[("a", "b")], table.loc[("b", "a")]
    assert (there["n"], there["lost"], there["loss_pct"], there["duplicates"]) == (4, 1, 25.0, 1)
    assert (there["reordered"], back["reordered"]) == (1, 0)
    assert (there["min_ms"], there["p50_ms"], there["max_ms"]) == (1.0, 2.0, 3.0)
    assert (back["n"], back["lost"], back["loss_pct"]) == (2, 2, 100.0)
    assert math.isnan(back["p50_ms"])
    assert math.isnan(back["p50_low_ms"])


def test_the_percentiles_are_of_all_samples_not_of_rounds(tmp_path: Path) -> None:
    values = [1.0] * 9 + [10.0]
    rows = [sample("a", "b", value, round=1) for value in values]
    rows += [sample("a", "b", 1.0, round=2) for _ in range(90)]
    table = frames.latency_summary(written(tmp_path, rows)).iloc[0]
    assert table["p99_ms"] == pytest.approx(np.quantile(values + [1.0] * 90, 0.99))
    assert table["p90_ms"] == 1.0


def test_the_distribution_has_the_median_and_both_ends_however_many_packets_there_are() -> None:
    random = np.random.default_rng(7)
    for sent in (1, 2, 5, 20_001):
        times = np.sort(random.lognormal(size=sent))
        lost = random.random(sent) < 0.1
        rows = pd.DataFrame({"rtt_ms": np.where(lost, np.nan, times), "lost": lost})
        rows = rows.assign(
            src="a", dst="b", path="pod", duplicate=False, reordered=False, warmup=False
        )
        table = frames.latency_distribution(rows)
        assert tuple(table.columns) == frames.DISTRIBUTION_COLUMNS
        assert len(table) <= 2001
        back = times[~lost]
        for _, row in table.iloc[:: max(len(table) // 50, 1)].iterrows():
            assert row["share_pct"] == pytest.approx(100 * (back <= row["rtt_ms"]).sum() / sent)
        ends = [table["rtt_ms"].min(), table["rtt_ms"].max()] if len(back) else []
        assert ends == [each for each in back[[0, -1]] if len(back)]
        if len(back) > sent // 2:
            assert back[sent // 2] in set(table["rtt_ms"])


@pytest.mark.parametrize(("n", "rank"), [(5, 0), (6, 1), (8, 1), (9, 2), (20, 6), (100, 40)])
def test_the_interval_of_the_median_has_the_ranks_of_the_sign_test(n: int, rank: int) -> None:
    assert frames._median_rank(n) == rank


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    rows = pd.DataFrame(
        [
            sample(str(group), "b", float(value))
            for group in range(400)
            for value in random.exponential(1.0, 31)
        ]
    ).assign(duplicate=False, reordered=False)
    table = frames.latency_summary(rows)
    hits = table["p50_low_ms"].le(math.log(2)) & table["p50_high_ms"].ge(math.log(2))
    assert 0.93 <= hits.mean() <= 0.99


def test_the_percentiles_agree_with_numpy_for_groups_of_every_size() -> None:
    random = np.random.default_rng(5)
    groups = {f"n{size:03}": random.lognormal(0, 1, size) for size in (1, 2, 5, 20, 101)}
    rows = [sample(name, "b", float(v)) for name, values in groups.items() for v in values]
    random.shuffle(rows)
    table = frames.latency_summary(
        pd.DataFrame(rows).assign(duplicate=False, reordered=False)
    ).set_index("src")
    for name, values in groups.items():
        for column, share in frames.PERCENTILES.items():
            assert table.loc[name, column] == pytest.approx(np.quantile(values, share))
    ordered = np.sort(groups["n020"])
    assert table.loc["n020", "p50_low_ms"] == ordered[5]
    assert table.loc["n020", "p50_high_ms"] == ordered[14]


def test_the_tables_of_many_packets_agree_with_the_plain_way_of_counting(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [
        sample(f"n{a}", f"n{b}", None if random.random() < 0.2 else float(random.lognormal()))
        | {"round": int(random.integers(2)), "path": str(random.choice(["pod", "host"]))}
        | {
            "warmup": bool(random.random() < 0.1),
            "duplicate": bool(random.random() < 0.1),
            "reordered": False,
        }
        for a, b in random.integers(5, size=(3000, 2))
    ]
    table = written(tmp_path, rows)  # names are categories; as plain text they give the same
    kept = pd.DataFrame(rows).query("not warmup and not duplicate")
    costs = frames.latency_costs(table)
    pd.testing.assert_frame_equal(
        costs.sort_values(["round", "src", "dst"], ignore_index=True),
        frames.latency_costs(pd.DataFrame(rows)),
    )
    medians = kept.groupby(["path", "round", "src", "dst"])["rtt_ms"].median()
    assert len(costs) == len(medians["pod"].dropna().index.intersection(medians["host"].index))
    for _, row in costs.iterrows():
        key = (row["round"], row["src"], row["dst"])
        assert row["pod_p50_ms"] == pytest.approx(medians["pod"][key])
        assert row["host_p50_ms"] == pytest.approx(medians["host"][key])
    nodes = frames.latency_nodes(table).set_index(["node", "path"])
    assert len(nodes) == 10
    for (node, path), row in nodes.iterrows():
        own = kept[kept["path"] == path]
        ends = pd.concat([own[own["src"] == node], own[own["dst"] == node]])
        assert (row["n"], row["lost"]) == (len(ends), ends["lost"].sum())
        for percent in (5, 50, 99):
            assert row[f"p{percent}_ms"] == pytest.approx(ends["rtt_ms"].quantile(percent / 100))


def test_times_are_read_from_what_the_api_and_the_journal_write() -> None:
    assert parse_time("1970-01-01T00:01:00Z") == 60.0
    assert parse_time("1970-01-01T00:01:00.250000Z") == 60.25
    assert parse_time("1970-01-01T00:01:00") == 60.0
    assert parse_time(utc(START)) == START
    assert parse_time(None) is None
    assert parse_time("soon") is None


def test_reading_a_run_needs_neither_pandas_nor_matplotlib() -> None:
    code = (
        "import sys, kitlib.frames as f; f.load_run(sys.argv[1]); "
        "print(sorted({'pandas', 'matplotlib', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(RECORDED)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]"
