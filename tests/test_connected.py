"""What people see of connectivity: the matrix from 2 to 200 nodes, the probes, the packet sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from connectedkit import connected_run
from connectivitykit import Network
from synthetic import whole_run

from kitlib import charts
from kitlib.diagnosis import connected, summary
from kitlib.diagnosis.alike import alike, grouped, name_of
from kitlib.diagnosis.connectivity import judge
from kitlib.model import Status
from kitlib.runs import Run, load_run

FEW = ("reach", "reach_gateway", "routes", "mtu")


def made(root: Path, **network: object) -> Run:
    return load_run(connected_run(root, Network(**network)))


def letters(run: Run) -> list[str]:
    picture = connected.connectivity_figure(run)
    assert picture is not None
    (ax,) = picture.axes
    return [text.get_text() for text in ax.texts if len(text.get_text()) == 1]


def test_a_run_without_probes_shows_nothing(tmp_path: Path) -> None:
    run = load_run(whole_run(tmp_path))
    assert not connected.probed(run)
    assert connected.connectivity_checks(run) == []
    assert connected.connectivity_figure(run) is None
    assert connected.mtu_figure(run) is None
    assert connected.explained(run) == {}


def test_the_matrix_bears_the_letters_of_the_reasons(tmp_path: Path) -> None:
    run = made(tmp_path, no_route=[["n2", "n4"]], hole={"n3": 1400}, dns_dead=[1])
    assert sorted(letters(run)) == ["D", *["M"] * 6, *["R"] * 2]
    picture = connected.connectivity_figure(run)
    assert picture is not None
    assert "4 of 12 ordered pairs work, 8 do not." in picture.alt
    assert "n2: (R) no route to the pods of n4" in picture.alt


@pytest.mark.parametrize("nodes", [2, 16, 17, 200])
def test_a_whole_network_has_no_letter_at_any_size(tmp_path: Path, nodes: int) -> None:
    run = made(tmp_path, nodes=nodes, probes=FEW, pairs_share=1.0 if nodes < 20 else 0.1)
    assert letters(run) == []
    assert not [check for check in connected.connectivity_checks(run)
                if check.status not in (Status.PASS, Status.SKIP)]  # fmt: skip


def test_of_two_hundred_nodes_the_sick_ones_have_rows_of_their_own() -> None:
    network = Network(nodes=200, tunnel_closed=["n77"], hole={"n150": 1400}, probes=FEW,
                      pairs_share=0.3)  # fmt: skip
    matrix = judge(network.tables(), network.evidence()).matrix
    groups = alike(matrix, network.names, most=16)
    assert [name_of(group, groups) for group in groups] == ["198 others", "n77", "n150"]
    table = grouped(matrix, groups).set_index(["src", "dst"])
    assert table.loc[(0, 1), "reason"] == table.loc[(1, 0), "reason"] == "tunnel"
    assert table.loc[(0, 2), "reason"] == "mtu"
    assert table.loc[(0, 0), "state"] == "works"
    assert table.loc[(0, 1), "fails"] == table.loc[(0, 1), "of"] > 30


def test_no_matrix_has_more_rows_than_fit() -> None:
    dead = [[f"n{number}", f"n{number + 1}"] for number in range(1, 60, 2)]
    network = Network(nodes=60, dead_pairs=dead, hole={f"n{n}": 1300 + n for n in range(1, 40)},
                      probes=FEW)  # fmt: skip
    matrix = judge(network.tables(), network.evidence()).matrix
    groups = alike(matrix, network.names, most=16)
    assert len(groups) <= 16
    assert sorted(node for group in groups for node in group) == sorted(network.names)


def test_each_reason_has_a_look_of_its_own() -> None:
    assert len({look[0] for look in charts.LOOKS.values()}) == len(charts.LOOKS)
    for reason in connected.LETTER:
        assert reason.startswith("connectivity.")


def test_the_probes_are_shown_with_their_baseline(tmp_path: Path) -> None:
    run = made(tmp_path)
    table = connected.probe_table(run).set_index(["probe", "path"])
    assert 0.1 < table.loc[("tcp_connect", "pod"), "p50_ms"] < 0.2
    assert (
        table.loc[("tcp_connect", "host"), "p50_ms"] < table.loc[("tcp_connect", "pod"), "p50_ms"]
    )
    assert table["p99_ms"].ge(table["p50_ms"]).all()
    picture = connected.probe_figure(run)
    assert picture is not None
    assert "TCP connect, host: p50" in picture.alt


def test_short_packets_are_shown_pair_by_pair_and_of_many_by_cause(tmp_path: Path) -> None:
    few = connected.mtu_figure(made(tmp_path / "few", hole={"n2": 1400}))
    assert few is not None
    assert "n1 to n2: 1350 of 1450 bytes" in few.alt
    many = connected.mtu_figure(made(tmp_path / "many", nodes=30, hole={"n2": 1400}, probes=FEW))
    assert many is not None
    assert many.alt.count("bytes") == 1
    assert "between n2 and n1, n3" in many.alt
    assert connected.mtu_figure(made(tmp_path / "none")) is None


def test_what_connectivity_explains_is_left_to_it(tmp_path: Path) -> None:
    path = whole_run(tmp_path, 4, loses=[("worker-1", "worker-2", 20)])
    assert [c for c in summary.latency_checks(load_run(path)) if c.status is Status.FAIL]
    run = made(tmp_path, tunnel_closed=["n2"])
    told = connected.explained(run)
    assert told["n2", "n1"] == told["n3", "n2"] == "connectivity.tunnel"
    assert ("n1", "n3") not in told


def test_of_a_plugin_that_nobody_knows_the_routes_tell(tmp_path: Path) -> None:
    path = connected_run(tmp_path, Network(no_route=[["n3", "all"]]))
    meta = json.loads((path / "run.json").read_text())
    meta["plugin"] = meta["params"]["plugin"] = ""
    (path / "run.json").write_text(json.dumps(meta))
    (check,) = [check for check in connected.connectivity_checks(load_run(path))
                if check.status is Status.FAIL]  # fmt: skip
    assert (check.id, check.target) == ("connectivity.route", "n3")
    assert "look at the pod of the network plugin on n3" in check.remedy
