"""Charts are drawn on what they are given, say where their numbers are from, and hide nothing."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from synthetic import Maker, empty_run, failed_run, whole_run

from kitlib import charts, frames
from kitlib.charts import Picture
from kitlib.charts.drawing import CIVIDIS
from kitlib.diagnosis import readiness, summary
from kitlib.runs import Run, load_run
from kitlib.samples import read_samples

RECORDED = Path(__file__).parent / "data" / "recorded-run"
FIGURES = (
    summary.stage_figure,
    summary.readiness_figure,
    summary.latency_figure,
    summary.latency_distribution,
)


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def drawn(run: Run) -> list[Picture]:
    return [picture for figure in FIGURES if (picture := figure(run)) is not None]


def test_every_function_draws_on_its_ax_and_returns_it(tmp_path: Path) -> None:
    run = load_run(whole_run(tmp_path))
    ax = Figure().add_subplot()
    assert charts.stage_timeline(ax, frames.stages(run), frames.hosts(run)) is ax
    ax = Figure().add_subplot()
    assert charts.readiness_waterfall(ax, readiness.node_phases(run)) is ax
    table = read_samples(run)
    names = summary.measured_nodes(run)
    ax = Figure().add_subplot()
    assert charts.latency_heatmap(ax, frames.latency_summary(table), names) is ax
    ax = Figure().add_subplot()
    assert charts.latency_ecdf(ax, frames.latency_distribution(table)) is ax
    assert ax.get_xlabel().startswith("Round-trip time, µs")
    assert ax.get_ylabel() == "Share of packets back, %"


def test_every_figure_of_a_lab_run_says_what_is_emulated(tmp_path: Path) -> None:
    pictures = drawn(load_run(whole_run(tmp_path)))
    assert len(pictures) == 4
    for picture in pictures:
        assert "Lab: real packets through kernel namespaces" in picture.caption
        assert "emulated (time factor 0.2)" in picture.caption
        label = picture.get_supxlabel()
        assert " ".join(label.split()) == " ".join(picture.caption.split())
    assert [picture.caption.startswith("These times are emulated.") for picture in pictures] == [
        True, True, False, False,
    ]  # fmt: skip


def test_figures_of_real_hosts_and_of_unknown_ones_say_so(tmp_path: Path) -> None:
    (picture,) = [summary.readiness_figure(load_run(RECORDED))]
    assert picture is not None
    assert picture.caption.startswith("Measured on real hosts. recorded ")
    maker = Maker(tmp_path)
    maker.meta["provenance"] = {}
    maker.stage("preflight", 0.1, 1.0)
    unknown = summary.stage_figure(load_run(maker.write()))
    assert unknown is not None
    assert unknown.caption.startswith("Provenance not recorded.")


def test_the_heat_map_shows_numbers_loss_silence_and_what_was_not_measured(tmp_path: Path) -> None:
    path = whole_run(
        tmp_path, 4,
        loses=[("worker-1", "worker-2", 20), ("worker-2", "worker-3", 3)],
        skip=[("worker-3", "worker-1")],
    )  # fmt: skip
    run = load_run(path)
    table = frames.latency_summary(read_samples(run))
    ax = charts.latency_heatmap(Figure().add_subplot(), table, summary.measured_nodes(run))
    shown = words(ax)
    assert shown.count("no\nreply") == 1
    assert shown.count("3 lost") == 1
    assert len([word for word in shown if word.replace(".", "").isdigit()]) == 12 - 2
    hatched = [patch for patch in ax.patches if patch.get_hatch()]
    assert [patch.get_xy() for patch in hatched] == [(1.5, 0.5)]
    grid = ax.images[0].get_array()
    assert grid is not None
    assert grid.mask[3, 1]


def test_both_panels_have_one_scale(tmp_path: Path) -> None:
    picture = summary.latency_figure(load_run(whole_run(tmp_path)))
    assert picture is not None
    pod, host = (ax.images[0] for ax in picture.axes[:2])
    assert pod.norm is host.norm
    assert pod.norm.vmin == 0


def test_lost_packets_keep_the_distribution_below_all(tmp_path: Path) -> None:
    run = load_run(whole_run(tmp_path, 2, loses=[("worker-1", "control-plane-1", 20)]))
    ax = charts.latency_ecdf(Figure().add_subplot(), frames.latency_distribution(read_samples(run)))
    tops = {str(line.get_label())[:3]: max(line.get_ydata()) for line in ax.lines[::2]}
    assert tops == {"hos": 100.0, "pod": 50.0}


def test_the_waterfall_says_who_was_not_ready(tmp_path: Path) -> None:
    maker = Maker(tmp_path, 4)
    maker.node(0, -500.0, -490.0, -495.0)
    maker.node(1, 7.0, 11.0, 8.0)
    maker.node(2, 7.5, None, 8.0)
    phases = readiness.node_phases(load_run(maker.write()))
    ax = charts.readiness_waterfall(Figure().add_subplot(), phases)
    notes = [word for word in words(ax) if not word.endswith(" s") or word.startswith("Ready")]
    assert notes == ["Ready before this run", "Ready at 4.0 s", "not Ready", "not registered"]


def test_many_nodes_are_a_distribution_and_the_slowest_by_name(tmp_path: Path) -> None:
    run = load_run(whole_run(tmp_path, 50))
    picture = summary.readiness_figure(run)
    assert picture is not None
    above, below = picture.axes
    phases = readiness.node_phases(run)
    ready = phases[phases["phase"] == "ready"].sort_values("offset_s")
    last = list(ready["node"][::-1][:12])
    assert [label.get_text() for label in below.get_yticklabels()] == last
    assert "images pulled" in [label.get_text() for label in above.get_yticklabels()]
    assert any(word.startswith("median") for word in words(above))
    assert picture.alt.startswith("What 50 nodes waited for. Slowest phase: ")
    assert f"Last to be Ready: {last[0]}, " in picture.alt


def test_the_slowest_phase_and_node_are_named() -> None:
    said = summary.readiness_words(load_run(RECORDED))
    assert said == [
        "Slowest phase: plugin pod scheduled, 24.0 s in the median of 3 node(s), at most 34.5 s "
        "on m1.",
        "Last to be Ready: m1, after 71.6 s; it waited longest for plugin pod scheduled (34.5 s).",
    ]


def test_nodes_that_never_came_are_first_among_the_slowest(tmp_path: Path) -> None:
    maker = Maker(tmp_path, 45)
    for index in range(45):
        maker.node(index, 7.0 + index / 10, None if index == 3 else 11.0 + index / 5, 8.0)
    run = load_run(maker.write())
    picture = summary.readiness_figure(run)
    assert picture is not None
    assert picture.axes[1].get_yticklabels()[0].get_text() == "worker-3"
    assert "Not Ready: 1 of 45 node(s)." in summary.readiness_words(run)


def test_a_failed_stage_is_hatched_and_named(tmp_path: Path) -> None:
    run = load_run(failed_run(tmp_path))
    ax = charts.stage_timeline(Figure().add_subplot(), frames.stages(run))
    assert words(ax)[-1] == "3.2 s  FAIL"
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, False, False, True]


@pytest.mark.parametrize("nodes", [2, 3, 50])
def test_figures_are_drawn_for_small_and_large_clusters(tmp_path: Path, nodes: int) -> None:
    run = load_run(whole_run(tmp_path, nodes))
    pictures = drawn(run)
    assert len(pictures) == 4
    heat = pictures[2]
    labels = [label for label in heat.axes[0].get_xticklabels() if label.get_text()]
    assert len(labels) <= charts.ALL_NAMED
    assert bool(words(heat.axes[0])) == (nodes <= charts.LABELLED)
    image = Image.open(io.BytesIO(heat.png(60)))
    assert image.size[0] > 400
    # in grey, the fast and the slow end of the scale differ clearly
    dark, light = (sum(CIVIDIS(end)[:3]) / 3 for end in (0.0, 1.0))
    assert light - dark > 0.4


def test_runs_without_data_have_no_figures(tmp_path: Path) -> None:
    assert drawn(load_run(empty_run(tmp_path))) == []


def test_a_picture_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    picture = summary.stage_figure(load_run(whole_run(tmp_path)))
    assert picture is not None
    formatter = InteractiveShell().display_formatter
    assert formatter is not None
    data, metadata = formatter.format(picture)
    image = Image.open(io.BytesIO(data["image/png"]))
    assert image.size[0] == 2 * metadata["image/png"]["width"]
    assert data["text/plain"].startswith("Timeline of the stages: preflight 0.9 s")


def test_the_svg_is_repeatable_scales_and_has_ids_of_its_own(tmp_path: Path) -> None:
    run = load_run(whole_run(tmp_path))
    texts = []
    for name in ("one", "one", "two"):
        picture = summary.latency_figure(run)
        assert picture is not None
        texts.append(charts.svg(picture, name))
    assert texts[0] == texts[1]
    root = ElementTree.fromstring(texts[0])
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    ids = [{el.attrib["id"] for el in ElementTree.fromstring(t).iter() if "id" in el.attrib}
           for t in texts[1:]]  # fmt: skip
    assert not ids[0] & ids[1]


def test_drawing_chooses_no_backend_and_needs_no_pyplot() -> None:
    code = "import sys, kitlib.diagnosis.summary; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.strip() == "False"
