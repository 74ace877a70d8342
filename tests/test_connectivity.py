"""Faults of a network on paper are found and named, each once, and a whole one gives no finding."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from connectivitykit import Network

from kitlib.diagnosis import connectivity
from kitlib.diagnosis.blame import Part, blame
from kitlib.diagnosis.connectivity import Judgement
from kitlib.model import Status

CASES = Path(__file__).parent / "data" / "connectivity"


def cases() -> Iterator[Any]:
    for path in sorted(CASES.glob("*.yaml")):
        for name, case in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            yield pytest.param(case, id=f"{path.stem}: {name}")


def judged(**network: Any) -> Judgement:
    made = Network(**network)
    return connectivity.judge(made.tables(), made.evidence())


def found(judgement: Judgement) -> list[tuple[str, str]]:
    return sorted((each.id.removeprefix("connectivity."), each.target)
                  for each in judgement.findings)  # fmt: skip


@pytest.mark.parametrize("case", list(cases()))
def test_what_is_broken_is_found_and_named_once(case: dict[str, Any]) -> None:
    judgement = judged(**case["network"])
    wanted = sorted((each["id"], each["target"]) for each in case["findings"])
    told = "\n".join(map(str, judgement.findings))
    assert found(judgement) == wanted, told
    for each in case["findings"]:
        (check,) = [
            check
            for check in judgement.findings
            if (check.id, check.target) == (f"connectivity.{each['id']}", each["target"])
        ]
        assert check.status == each.get("status", "FAIL"), told
        for field in ("got", "expected", "remedy"):
            said = getattr(check, field)
            assert said, f"{check.id}: no {field}"
            for words in each.get(field, []):
                assert str(words) in said


@pytest.mark.parametrize("plugin", ["flannel", "calico", "cilium", "kube-router", "kubenet", "ovn"])
@pytest.mark.parametrize("nodes", [1, 2, 3, 9])
def test_a_whole_network_gives_no_finding(plugin: str, nodes: int) -> None:
    judgement = judged(plugin=plugin, nodes=nodes)
    assert judgement.findings == []
    pairs = judgement.matrix[judgement.matrix["kind"] == "pair"]
    assert len(pairs) == nodes * (nodes - 1)
    assert set(judgement.matrix["state"]) == {"works"}
    ids = {check.id.removeprefix("connectivity.") for check in judgement.checks}
    assert ids >= {"agent", "host", "reach", "mtu", "tcp", "http", "service", "dns", "policy"}


def test_nothing_probed_is_nothing_judged() -> None:
    judgement = judged(probes=[])
    assert {check.status for check in judgement.checks} == {Status.PASS, Status.SKIP}
    assert set(judgement.matrix["state"]) == {"unknown"}


FAULTS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "cable": ({"host_down": ["n3"]}, ("host", "n3")),
    "route": ({"no_route": [["n4", "all"]]}, ("route", "n4")),
    "port": ({"tunnel_closed": ["n5"]}, ("tunnel", "n5")),
    "firewall": ({"forward_drop": ["n6"]}, ("forwarding", "n6")),
    "hole": ({"hole": {"n7": 1400}}, ("mtu", "n7")),
    "tcp": ({"tcp_dropped": ["n8"]}, ("tcp", "n8")),
    "http": ({"http_broken": ["n9"]}, ("http", "n9")),
    "proxy": ({"proxy_broken": ["n10"]}, ("service", "n10")),
    "dns": ({"dns_dead": [1]}, ("dns", "n2")),
    "agent": ({"no_agent": ["n11"]}, ("agent", "n11")),
}


@pytest.mark.parametrize("pair", list(combinations(FAULTS, 2)), ids=" and ".join)
def test_of_two_faults_each_is_found_and_nothing_else(pair: tuple[str, str]) -> None:
    (first, one), (second, other) = (FAULTS[name] for name in pair)
    judgement = judged(nodes=12, **first, **second)
    assert found(judgement) == sorted([one, other]), "\n".join(map(str, judgement.findings))


def test_the_matrix_says_why_each_pair_fails() -> None:
    judgement = judged(no_route=[["n2", "n4"]], hole={"n3": 1400}, dns_dead=[1])
    why = {(row.src, row.dst): (row.state, row.reason) for row in judgement.matrix.itertuples()}
    assert why["n2", "n4"] == why["n4", "n2"] == ("fails", "route")
    assert why["n3", "n1"] == why["n2", "n3"] == ("fails", "mtu")
    assert why["n1", "n2"] == ("works", "")
    assert why["n2", "DNS"] == ("fails", "dns")
    assert why["n1", "Service"] == ("works", "")


def test_the_newest_round_has_the_word() -> None:
    sick, whole = Network(tunnel_closed=["n2"]), Network()
    tables, later = sick.tables(), whole.tables()
    for probe, table in later.items():
        if "round" in table:
            table["round"] = 1
        table["t"] += 100
        import pandas as pd

        tables[probe] = pd.concat([tables[probe], table], ignore_index=True)
    assert connectivity.judge(tables, whole.evidence()).findings == []


def test_blame_goes_to_the_fewest_nodes() -> None:
    nodes = [f"n{number}" for number in range(6)]
    pairs = {(a, b) for a in nodes for b in nodes if a != b}
    bad = {pair for pair in pairs if {"n1", "n4"} & set(pair)}
    causes = blame(bad, pairs - bad)
    assert sorted((each.node, each.part) for each in causes) == [
        ("n1", Part.BOTH),
        ("n4", Part.BOTH),
    ]
    assert {pair for each in causes for pair in each.pairs} == bad


def test_one_direction_is_told_as_one() -> None:
    nodes = ["a", "b", "c", "d"]
    pairs = {(x, y) for x in nodes for y in nodes if x != y}
    bad = {(x, y) for x, y in pairs if x == "b"}
    (cause,) = blame(bad, pairs - bad)
    assert (cause.node, cause.part) == ("b", Part.SOURCE)


def test_a_lucky_packet_clears_no_node_of_two_hundred() -> None:
    nodes = [f"n{number}" for number in range(60)]
    pairs = {(a, b) for a in nodes for b in nodes if a != b}
    bad = {pair for pair in pairs if "n7" in pair} - {("n7", "n9"), ("n9", "n7")}
    (cause,) = blame(bad, pairs - bad)
    assert (cause.node, cause.part) == ("n7", Part.BOTH)
