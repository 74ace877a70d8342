"""Charts and figures as files for other programs: whole, documented, strict in their form."""

from __future__ import annotations

import io
import math
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from connectedkit import connected_run
from connectivitykit import Network
from PIL import Image
from synthetic import empty_run, failed_run, whole_run
from typer.testing import CliRunner

from kitlib.cli import app
from kitlib.diagnosis import metrics, summary
from kitlib.diagnosis.connected import EVIDENCE
from kitlib.diagnosis.export import COLUMNS, EXPORTS, export, write_whole
from kitlib.errors import RecordError
from kitlib.runs import load_run
from kitlib.samples import write_samples

NAME, LABEL = r"[a-z_][a-z0-9_]*", r'[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (\S+)")


def parsed(text: str) -> dict[tuple[str, str], float]:
    """Return (name, labels) -> value of OpenMetrics text; anything out of form is an error."""
    *lines, end, last = text.split("\n")
    assert (end, last) == ("# EOF", "")
    found: dict[tuple[str, str], float] = {}
    family = ""
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert not any(name == family for name, _ in found), "a family stands in one place"
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {family} gauge"
        elif line.startswith("# UNIT "):
            unit = line.removeprefix(f"# UNIT {family} ")
            assert unit in ("seconds", "ratio")
            assert family.endswith(f"_{unit}")
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == family
            assert (match[1], match[2]) not in found
            found[match[1], match[2]] = float(match[3])
    return found


def whole_and_probed(root: Path) -> Path:
    """Return a run with stages and latencies, and with the probes of a network beside them."""
    path = whole_run(root)
    probed = connected_run(root / "probed", Network(plugin="calico", hole={"n2": 1400}))
    for folder in (probed / "samples").iterdir():
        shutil.copytree(folder, path / "samples" / folder.name)
    row = {"round": 0, "src": "n1", "dst": "n2", "path": "pod", "seconds": 3.0,
           "bits_per_second": 1e9, "retransmits": 0.0, "t": 1.0}  # fmt: skip
    write_samples(path / "samples" / "throughput" / "0000.parquet", [row])
    with (path / "journal.jsonl").open("a") as journal:
        journal.writelines(
            line
            for line in (probed / "journal.jsonl").read_text().splitlines(keepends=True)
            if EVIDENCE in line
        )
    return path


def test_every_chart_is_a_picture_and_a_table_with_documented_columns(tmp_path: Path) -> None:
    run = load_run(whole_and_probed(tmp_path))
    made = export(run)
    names = {path.name for path in made}
    wanted = {f"{name}.{end}" for name in EXPORTS for end in ("csv", "parquet", "png", "svg")}
    alone = ("latency_nodes", "latency_all", "throughput")
    tables = {f"{name}.{end}" for name in alone for end in ("png", "svg")}
    assert names == wanted - tables | {"columns.csv"}
    assert {path.name for path in (run.path / "charts").iterdir()} == names
    told = pd.read_csv(run.path / "charts" / "columns.csv")
    for name in EXPORTS:
        plain = pd.read_csv(run.path / "charts" / f"{name}.csv")
        packed = pd.read_parquet(run.path / "charts" / f"{name}.parquet")
        assert list(plain.columns) == list(packed.columns)
        assert len(plain) == len(packed) > 0
        assert list(told[told["file"] == name]["column"]) == list(plain.columns)
    assert set(told["meaning"]) <= set(COLUMNS.values())
    latency = pd.read_parquet(run.path / "charts" / "latency.parquet")
    pd.testing.assert_frame_equal(latency, summary.latency_table(run), check_dtype=False)
    drawing = ElementTree.parse(run.path / "charts" / "latency.svg").getroot()
    title = drawing.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert (title.text or "").startswith("Heat map of median round-trip times")
    image = Image.open(io.BytesIO((run.path / "charts" / "latency.png").read_bytes()))
    assert image.size[0] > 800


def test_a_run_that_measured_nothing_exports_what_it_has(tmp_path: Path) -> None:
    run = load_run(failed_run(tmp_path))
    stale = run.path / "charts" / "latency.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of another day")
    export(run)
    made = {path.name for path in (run.path / "charts").iterdir()}
    assert "stages.png" in made
    assert not any(name.startswith("latency") for name in made)
    nothing = load_run(empty_run(tmp_path / "x"))
    export(nothing)


def test_connectivity_has_headline_figures(tmp_path: Path) -> None:
    run = load_run(whole_and_probed(tmp_path))
    found = parsed(metrics.openmetrics(run))
    own = 'cluster="lab",plugin="flannel"'
    assert found["kit_connectivity_pairs", f'{own},state="fails"'] == 6
    assert found["kit_connectivity_pairs", f'{own},state="works"'] == 6
    assert found["kit_connectivity_ends", f'{own},what="DNS",state="works"'] == 4
    of = f'{own},probe="tcp_connect",path="pod",quantile="0.5"'
    assert 0.00005 < found["kit_probe_seconds", of] < 0.0005


def test_the_headline_figures_are_those_of_the_tables(tmp_path: Path) -> None:
    run = load_run(whole_run(tmp_path, loses=[("worker-1", "worker-2", 20)]))
    found = parsed(metrics.openmetrics(run))
    pods = summary.latency_pooled(run).set_index("path").loc["pod"]
    own = 'cluster="lab",plugin="flannel",path="pod"'
    for part in ("", "_low", "_high"):
        at = found[f"kit_round_trip{part}_seconds", f'{own},quantile="0.99"']
        assert at == pytest.approx(pods[f"p99{part}_ms"] / 1000)
    assert found["kit_packet_loss_ratio", own] == pytest.approx(19 / 114)
    assert found["kit_pod_cost_seconds", own] == pytest.approx(pods["difference_ms"] / 1000)
    assert found["kit_pod_cost_ratio", own] == pytest.approx(pods["ratio"])
    assert ("kit_pod_cost_ratio", own.replace("pod", "host")) not in found
    assert found["kit_run_passed", 'cluster="lab",plugin="flannel"'] == 1
    assert found["kit_run_lab", 'cluster="lab",plugin="flannel"'] == 1
    ready = summary.readiness_table(run)["Ready"]
    slowest = found["kit_node_ready_seconds", 'cluster="lab",plugin="flannel",quantile="1"']
    assert slowest == pytest.approx(ready.max())


def test_of_a_failed_run_there_is_the_verdict_and_no_latency(tmp_path: Path) -> None:
    found = parsed(metrics.openmetrics(load_run(failed_run(tmp_path))))
    assert {name for name, _ in found} == {
        "kit_run_passed", "kit_run_lab", "kit_run_end_timestamp_seconds",
    }  # fmt: skip
    assert found["kit_run_passed", 'cluster="lab",plugin="flannel"'] == 0


def test_labels_are_escaped_and_unknown_values_left_out() -> None:
    odd = metrics.Family("kit_odd_ratio", "One \\ of\ntwo.", "ratio")
    odd.samples += [({"plugin": 'a"b\\c\nd'}, 0.5), ({"plugin": "x"}, math.nan)]
    text = metrics.text_of([odd, metrics.Family("kit_none", "Nothing.")])
    assert parsed(text) == {("kit_odd_ratio", r'plugin="a\"b\\c\nd"'): 0.5}
    assert r"# HELP kit_odd_ratio One \\ of\ntwo." in text


def test_a_file_that_cannot_be_written_is_said_and_the_old_one_stays(tmp_path: Path) -> None:
    blocked = tmp_path / "kit.prom"
    blocked.mkdir()
    with pytest.raises(RecordError, match=r"kit\.prom: cannot be written"):
        write_whole(blocked, b"x")
    with pytest.raises(RecordError, match="cannot be written"):
        write_whole(write_whole(tmp_path / "old", b"old") / "below", b"x")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kit.prom", "old"]


def test_the_command_writes_both(tmp_path: Path) -> None:
    path = whole_run(tmp_path)
    target = tmp_path / "collector" / "kit.prom"
    done = CliRunner().invoke(app, ["report", str(path), "--export", "--metrics", str(target)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        str(path / "report.html"), f"{path / 'charts'}: 21 files", str(target),
    ]  # fmt: skip
    assert parsed(target.read_text())
    assert [each.name for each in target.parent.iterdir()] == ["kit.prom"]
