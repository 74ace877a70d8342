"""Readiness phases against a real cluster's record, and the rules on made-up findings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import START, Maker, built, empty_run, failed_run, whole_run

from kitlib import frames
from kitlib.diagnosis import latency, pooled, readiness, summary
from kitlib.diagnosis import moments as moments_of
from kitlib.model import Status
from kitlib.probes.pairs import schedule
from kitlib.runs import WatchLine, load_run
from kitlib.samples import read_samples

RECORDED = Path(__file__).parent / "data" / "recorded-run"


def moments(run_dir: Path, **kwargs: Any) -> dict[tuple[str, str], dict[str, Any]]:
    table = readiness.node_phases(load_run(run_dir), **kwargs).dropna(subset=["t"])
    return {(row["node"], row["phase"]): row for row in table.to_dict("records")}


def test_the_phases_of_a_real_cluster() -> None:
    found = moments(RECORDED)
    at = {key: round(row["t"].timestamp(), 3) for key, row in found.items()}
    assert at["m1", "kubeadm_started"] == 1795370822.878
    assert at["w1", "kubeadm_started"] == 1795370840.959
    assert at["w1", "registered"] == 1795370863.95
    assert at["w1", "plugin_scheduled"] == 1795370887.984
    assert at["w1", "image_pulled"] == 1795370890.142
    assert at["w1", "plugin_running"] == 1795370891.116
    assert at["w1", "ready"] == 1795370894.041
    assert at["m1", "pod_cidr"] == 1795370853.571
    assert at["w1", "pod_cidr"] == 1795370863.985
    assert at["w1", "taint_lifted"] == 1795370894.052
    # CoreDNS waited since before w2 existed, and is the first workload there.
    assert at["w2", "workload_running"] == 1795370903.744
    assert ("m1", "workload_running") not in found
    # The flannel pod's init container writes the configuration: Ready before the pod runs.
    assert at["w2", "ready"] < at["w2", "plugin_running"]
    assert found["w1", "cni_present"]["source"] == "node watch, at the latest"
    assert {row["resolution_s"] for row in found.values()} == {0.001}


def test_a_bound_is_not_what_was_waited_for() -> None:
    found = moments(RECORDED)
    assert found["w1", "ready"]["waited_s"] == pytest.approx(2.925, abs=0.001)
    assert found["w1", "cni_present"]["waited_s"] == 0


def test_a_healthy_real_cluster_gives_no_finding() -> None:
    checks = summary.readiness_checks(load_run(RECORDED))
    assert {check.status for check in checks} == {Status.PASS}
    assert [check.target for check in checks] == ["m1", "w1", "w2"]


def test_the_plugin_is_an_argument() -> None:
    found = moments(RECORDED, plugin=[readiness.PodSelector("kube-flannel", {"app": "other"})])
    assert ("w1", "ready") in found
    assert ("w1", "plugin_running") not in found


def test_what_a_list_brought_has_the_time_of_its_object() -> None:
    line = json.loads((RECORDED / "watch" / "nodes.jsonl").read_text().splitlines()[0])
    late = WatchLine(line["t"] + 300, "ADDED", line["obj"]["object"], listed=True)
    node = moments_of._nodes([late])["m1"]
    created = node.moments["registered"]
    assert created.t == 1795370836.0
    assert (created.resolution, created.source) == (
        1.0,
        "object time stamp (creationTimestamp)",
    )


@pytest.mark.parametrize("deletion_seen", [True, False])
def test_a_node_that_came_back_is_another_node(tmp_path: Path, deletion_seen: bool) -> None:
    maker = Maker(tmp_path, 1)
    maker.node(0, 5.0, 9.0, 6.0)
    seen = maker.watch["nodes"][0][1]["object"]
    if deletion_seen:
        maker.seen("nodes", 20.0, "DELETED", seen)
    again = {**seen, "metadata": {**seen["metadata"], "uid": "second"}}
    maker.seen("nodes", 25.0, "ADDED", again)
    found = moments(maker.write())
    assert set(found) == {("control-plane-1", "registered")}
    assert found["control-plane-1", "registered"]["t"].timestamp() == START + 25


def test_the_configuration_file_s_own_time_goes_before_the_bound(tmp_path: Path) -> None:
    maker = Maker(tmp_path, 1)
    maker.node(0, 5.0, 12.0, 6.0)
    fact = {"path": "/etc/cni/net.d/10-flannel.conflist", "modified": START + 8.25}
    maker.event(13.0, "snapshot", "ready", "control-plane-1", cni_configuration=fact)
    found = moments(maker.write())["control-plane-1", "cni_present"]
    assert found["t"].timestamp() == START + 8.25
    assert found["source"] == "file time on the host"


def test_a_node_that_never_turned_ready_is_named(tmp_path: Path) -> None:
    maker = Maker(tmp_path, 2)
    maker.node(0, 5.0, 9.0, 6.0)
    maker.node(1, 7.0, None, 8.0)
    checks = summary.readiness_checks(load_run(maker.write()))
    bad = [check for check in checks if check.status is Status.FAIL]
    assert [(check.id, check.target) for check in bad] == [("readiness.ready", "worker-1")]
    assert "plugin running" in bad[0].got


def test_ready_before_the_plugin_came_is_a_false_green(tmp_path: Path) -> None:
    maker = Maker(tmp_path, 1)
    maker.node(0, 5.0, 6.0, 9.0)
    (check,) = summary.readiness_checks(load_run(maker.write()))
    assert (check.id, check.status) == ("readiness.ready-by-plugin", Status.FAIL)
    assert "/etc/cni/net.d" in check.remedy


def test_nothing_is_said_of_nodes_that_never_registered(tmp_path: Path) -> None:
    run = load_run(failed_run(tmp_path))
    assert summary.readiness_checks(run) == []
    assert summary.readiness_figure(run) is None
    table = summary.readiness_table(run)
    assert list(table["node"]) == ["control-plane-1", "worker-1", "worker-2"]


def test_nodes_that_were_there_before_the_run_lie_before_zero(tmp_path: Path) -> None:
    maker = Maker(tmp_path, 2)
    maker.node(0, -500.0, -490.0, -495.0)
    maker.node(1, 7.0, 11.0, 8.0)
    found = moments(maker.write())
    assert found["control-plane-1", "ready"]["offset_s"] < 0
    assert found["worker-1", "registered"]["offset_s"] == 0


def test_the_readiness_table_names_the_longest_wait() -> None:
    table = summary.readiness_table(load_run(RECORDED)).set_index("node")
    assert table.loc["w1", "longest_wait"] == "plugin pod scheduled (24.0 s)"
    assert table.loc["w1", "kubeadm started"] == 0
    assert table.loc["w1", "Ready"] == pytest.approx(53.082, abs=0.001)


def judged(tmp_path: Path, nodes: int = 4, **samples: Any) -> dict[str, list[Any]]:
    run = load_run(whole_run(tmp_path, nodes, **samples))
    found: dict[str, list[Any]] = {}
    for check in summary.latency_checks(run):
        found.setdefault(check.id, []).append(check)
    return found


def test_a_healthy_network_gives_no_finding(tmp_path: Path) -> None:
    found = judged(tmp_path)
    assert {check.status for checks in found.values() for check in checks} == {Status.PASS}
    assert set(found) == {
        "latency.coverage", "latency.loss", "latency.directions", "latency.slow-pair",
        "latency.overhead", "latency.node",
    }  # fmt: skip


def test_loss_is_a_failure_when_total_and_a_warning_when_partial(tmp_path: Path) -> None:
    loses = [("worker-1", "worker-2", 20), ("worker-2", "worker-3", 2)]
    total, partial = judged(tmp_path, loses=loses)["latency.loss"]
    assert (total.status, total.target, total.got) == (
        Status.FAIL, "worker-1", "19 of 19 packets lost",
    )  # fmt: skip
    assert (partial.status, partial.target) == (Status.WARN, "worker-2")
    assert "tunnel port" in total.remedy


def test_loss_on_the_hosts_own_path_blames_the_network_below(tmp_path: Path) -> None:
    path = whole_run(tmp_path, 2)
    table = read_samples(load_run(path))
    table.loc[table["src"] == "worker-1", ["lost", "rtt_ms"]] = [True, None]
    checks = latency.checks(frames.latency_summary(table), ["control-plane-1", "worker-1"])
    loss = next(check for check in checks if check.id == "latency.loss")
    assert loss.status is Status.FAIL
    assert "below the plugin" in loss.remedy


def test_a_slow_node_is_named_once(tmp_path: Path) -> None:
    found = judged(tmp_path, 5, slow="worker-2")
    (node,) = found["latency.node"]
    assert (node.target, node.status) == ("worker-2", Status.WARN)
    assert {check.status for check in found["latency.slow-pair"]} == {Status.PASS}


def test_a_pair_that_was_not_measured_is_missing(tmp_path: Path) -> None:
    (check,) = judged(tmp_path, skip=[("worker-1", "worker-3")])["latency.coverage"]
    assert check.status is Status.FAIL
    assert check.got == "not measured: worker-1 to worker-3"


def sampled_run(root: Path, nodes: int, most: int, **meta: Any) -> Path:
    """Return a run in which a sample of the pairs was measured."""
    maker = built(root, nodes)
    plan = schedule(maker.names, most=most)
    maker.samples(skip=set(permutations(maker.names, 2)) - set(plan.pairs))
    maker.meta |= {"pairs": plan.record, **meta}
    return maker.write("PASS")


def test_a_sample_of_the_pairs_is_no_finding(tmp_path: Path) -> None:
    run = load_run(sampled_run(tmp_path, 12, 30))
    found = summary.latency_checks(run)
    assert {check.status for check in found} == {Status.PASS}
    assert found[0].id == "latency.coverage"
    assert "a sample of 30 of 132 pairs" in found[0].summary
    picture = summary.latency_figure(run)
    assert picture
    assert "a sample of 30 of 132 pairs, which covers every node" in picture.alt


def test_a_pair_of_the_sample_that_is_missing_is_one(tmp_path: Path) -> None:
    path = sampled_run(tmp_path, 12, 30, pairs={"measured": 31, "of": 132, "seed": 1})
    check = summary.latency_checks(load_run(path))[0]
    assert (check.status, check.got, check.expected) == (Status.FAIL, "30 pairs", "31 pairs")


def test_a_node_without_a_pair_in_the_sample_is_named(tmp_path: Path) -> None:
    maker = built(tmp_path, 12)
    plan = schedule(maker.names[:-1], most=30)
    maker.samples(skip=set(permutations(maker.names, 2)) - set(plan.pairs))
    maker.meta |= {"pairs": {"measured": 30, "of": 132, "seed": 1}}
    check = summary.latency_checks(load_run(maker.write("PASS")))[0]
    assert check.status is Status.FAIL
    assert check.got == "30 pairs, without worker-11 as source, worker-11 as target"


def test_a_measurement_that_was_broken_off_is_a_warning_with_what_is_missing(
    tmp_path: Path,
) -> None:
    maker = built(tmp_path, 5)
    maker.samples(skip=[("worker-1", "worker-2")])
    maker.meta |= {"partial": True, "missing": {"latency": "1 of 20 pairs in round 1 of 1"}}
    run = load_run(maker.write("PASS"))
    check = summary.latency_checks(run)[0]
    assert check.status is Status.WARN
    assert check.got == "19 pairs; it was broken off, missing are 1 of 20 pairs in round 1 of 1"
    picture = summary.latency_distribution(run)
    assert picture
    assert picture.caption.startswith("Partial: the measurement was broken off")


def pairs(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    hosts = {(src, dst): p50 for src, dst, path, p50 in rows if path == "host"}
    none = float("nan")
    return pd.DataFrame(
        [
            {"src": src, "dst": dst, "path": path, "n": 20, "lost": 0, "p50_ms": p50}
            | {"difference_ms": p50 - hosts.get((src, dst), none)}
            | {"ratio": p50 / hosts.get((src, dst), none)}
            for src, dst, path, p50 in rows
        ]
    )


def test_directions_that_differ_are_reported() -> None:
    table = pairs(("a", "b", "pod", 0.1), ("b", "a", "pod", 2.0))
    found = {check.id: check for check in latency.checks(table, ["a", "b"])}
    assert found["latency.directions"].status is Status.WARN
    assert "b to a 2.000 ms, back 0.100 ms" in found["latency.directions"].got
    assert found["latency.overhead"].status is Status.SKIP


def test_the_overhead_is_judged_pair_by_pair() -> None:
    table = pairs(
        ("a", "b", "pod", 3.0), ("b", "a", "pod", 0.12),
        ("a", "b", "host", 0.1), ("b", "a", "host", 0.1),
    )  # fmt: skip
    cost = latency.overhead(table).set_index(["src", "dst"])
    assert cost.loc[("a", "b"), "ratio"] == pytest.approx(30)
    assert cost.loc[("b", "a"), "difference_ms"] == pytest.approx(0.02)
    found = {check.id: check for check in latency.checks(table, ["a", "b"])}
    assert found["latency.overhead"].status is Status.WARN
    assert "1 of 2 pairs" in found["latency.overhead"].got


def test_microseconds_are_no_finding_however_large_the_ratio() -> None:
    table = pairs(
        ("a", "b", "pod", 0.3), ("b", "a", "pod", 0.03),
        ("a", "b", "host", 0.01), ("b", "a", "host", 0.01),
    )  # fmt: skip
    statuses = {check.status for check in latency.checks(table, ["a", "b"])}
    assert statuses == {Status.PASS, Status.SKIP}  # two nodes: none can be the slow one


def test_without_samples_the_rules_are_skipped(tmp_path: Path) -> None:
    (check,) = summary.latency_checks(load_run(empty_run(tmp_path)))
    assert check.status is Status.SKIP


def test_the_latency_table_has_the_cost_beside_each_pod_pair(tmp_path: Path) -> None:
    table = summary.latency_table(load_run(whole_run(tmp_path)))
    pods, hosts = table[table["path"] == "pod"], table[table["path"] == "host"]
    assert len(pods) == len(hosts) == 6
    assert pods["ratio"].between(1.2, 3).all()
    assert hosts["ratio"].isna().all()


def test_nodes_that_were_all_ready_before_the_run_are_shown_as_they_became_ready(
    tmp_path: Path,
) -> None:
    maker = Maker(tmp_path, 2)
    maker.node(0, -500.0, -490.0, -495.0)
    maker.node(1, -480.0, -470.0, -475.0)
    maker.pod(1, "later", at=30.0, running=31.0, plugin=False)
    path = maker.write()
    run = load_run(path)
    assert summary.ready_before(run)
    found = moments(path)
    assert found["control-plane-1", "registered"]["offset_s"] == 0
    assert found["worker-1", "ready"]["offset_s"] == 30
    picture = summary.readiness_figure(run)
    assert picture is not None
    assert picture.axes[0].get_xlim()[1] < 60
    assert not summary.ready_before(load_run(RECORDED))


def test_a_node_waits_only_for_pods_that_somebody_wants(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "watch").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    node = {"metadata": {"name": "n", "uid": "1"}, "status": ready}
    placed = {"metadata": {"name": "p", "uid": "2"}, "spec": {"nodeName": "n"}}
    state = {"containerStatuses": [{"ready": True, "state": {"running": {}}}]}
    runs = {**placed, "status": {"phase": "Running", "podIP": "10.244.0.2", **state}}
    lines = {
        "nodes": [(100.0, "ADDED", {**node, "status": {}}), (110.0, "MODIFIED", node)],
        "pods": [(150.0, "ADDED", placed), (152.5, "MODIFIED", runs)],
    }
    for name, seen in lines.items():
        text = "".join(
            json.dumps({"t": t, "obj": {"type": kind, "object": item}}) + "\n"
            for t, kind, item in seen
        )
        (run / "watch" / f"{name}.jsonl").write_text(text)
    found = moments(run)
    assert found["n", "ready"]["waited_s"] == 10.0
    assert pd.isna(found["n", "workload_scheduled"]["waited_s"])
    assert found["n", "workload_running"]["waited_s"] == 2.5
    assert summary.readiness_table(load_run(run))["longest_wait"].tolist() == ["Ready (10.0 s)"]


def measured(*rounds: Mapping[tuple[str, str, str], Sequence[float]]) -> pd.DataFrame:
    """Return samples of rounds: (src, dst, path) -> round-trip times, NaN for a lost packet."""
    return pd.DataFrame(
        [
            {"round": number, "src": src, "dst": dst, "path": path, "rtt_ms": rtt}
            for number, each in enumerate(rounds, 1)
            for (src, dst, path), times in each.items()
            for rtt in times
        ]
    ).assign(
        lost=lambda rows: rows["rtt_ms"].isna(), warmup=False, duplicate=False, reordered=False
    )


def test_the_cost_is_set_against_the_hosts_of_the_same_round() -> None:
    """A machine that is slower in one round is no plugin's fault: both paths are."""
    quick = {("a", "b", "host"): [1.0] * 8, ("a", "b", "pod"): [1.5] * 8}
    slow = {("a", "b", "host"): [10.0] * 3, ("a", "b", "pod"): [10.5] * 30}
    table = frames.latency_summary(measured(quick, slow)).set_index("path")
    assert table.loc["pod", "difference_ms"] == pytest.approx(0.5)
    assert table.loc["pod", "ratio"] == pytest.approx((1.5 + 1.05) / 2)
    assert table.loc["host", ["difference_ms", "ratio"]].isna().all()
    (both,) = latency.overhead(table.reset_index()).to_dict("records")
    assert both["difference_ms"] == pytest.approx(0.5)


def test_percentiles_of_all_pairs_are_of_all_packets_and_no_averages() -> None:
    lost = float("nan")
    rows = measured(
        {
            ("a", "b", "pod"): [1.0] * 90,
            ("b", "a", "pod"): [9.0] * 10 + [lost] * 5,
            ("a", "b", "host"): [0.5] * 10,
            ("b", "a", "host"): [2.0] * 10,
        }
    )
    table = pooled.pooled(rows, frames.latency_costs(rows)).set_index("path")
    assert tuple(table.reset_index().columns) == pooled.POOLED_COLUMNS
    pods, hosts = table.loc["pod"], table.loc["host"]
    assert (pods["p50_ms"], pods["p90_ms"], pods["p99_ms"]) == (1.0, 1.0, 9.0)
    assert (pods["n"], pods["lost"], pods["pairs"], pods["rounds"]) == (105, 5, 2, 1)
    assert pods["difference_ms"] == pytest.approx((0.5 + 7.0) / 2)
    assert pods["ratio"] == pytest.approx((2.0 * 4.5) ** 0.5)
    assert pods["difference_low_ms"] < 3.75 < pods["difference_high_ms"]
    assert math.isnan(hosts["difference_ms"])


def test_one_sender_in_one_round_has_no_interval_and_no_samples_have_no_row() -> None:
    rows = measured({("a", "b", "pod"): [1.0, 2.0, 3.0]})
    (row,) = pooled.pooled(rows, frames.latency_costs(rows)).to_dict("records")
    assert row["p50_ms"] == 2.0
    assert math.isnan(row["p50_low_ms"])
    assert math.isnan(row["ratio"])
    nothing = read_samples(load_run(RECORDED)).iloc[:0]
    assert pooled.pooled(nothing, frames.latency_costs(nothing)).empty
