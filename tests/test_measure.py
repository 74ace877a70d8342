"""Latency of a cluster whose agents are text: what is measured, kept and said, however it ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from factory import host_facts

from kitlib import measure
from kitlib.command import Cmd
from kitlib.diagnosis import summary
from kitlib.errors import ApiError, ChecksFailed, CommandError, KitError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.fanout import Fanned
from kitlib.journal import Journal
from kitlib.living import ZONE
from kitlib.measure import measure_latency, planned
from kitlib.model import CommandResult, Status
from kitlib.params import Diagnose, Probe
from kitlib.plugins import get
from kitlib.probes import pairs
from kitlib.provenance import Origins
from kitlib.runs import load_run
from kitlib.samples import read_samples
from kitlib.stages.base import Context

NODES = ("cp-1", "w-1", "w-2", "w-3")
SAMPLES = 4
Said = Callable[["Cluster", str, str, str], str | None]


def ping_text(address: str, count: int, rtt: float = 0.05) -> str:
    """What iputils prints of a healthy path."""
    lines = [f"PING {address} ({address}) 56(84) bytes of data."]
    lines += [
        f"64 bytes from {address}: icmp_seq={seq} ttl=64 time={rtt:.3f} ms"
        for seq in range(1, count + 1)
    ]
    totals = f"{count} packets transmitted, {count} received, 0% packet loss, time 9ms"
    return "\n".join([*lines, "", f"--- {address} ping statistics ---", totals, ""])


class Cluster:
    """Stands in for the agents and the doors of a session.

    Attributes:
        says: (source, target's address, path) -> what ping prints; None for a healthy path. It may
            raise what goes wrong.
        missing: (node, path) -> why there is no agent.
        busy: Agents at work.
        made: How often the agents were made and removed.
    """

    def __init__(self, home: Path, **diagnose: Any) -> None:
        self.says: Said = lambda *_: None
        self.missing: dict[tuple[str, str], str] = {}
        self.zones: dict[str, str] = {}
        self.facts: dict[str, HostFacts] = {}
        self.unread: dict[str, Exception] = {}
        self.api_gone: KitError | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.made: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.most = 0
        self.tool = "ping"
        self.lock = threading.Lock()
        self.wanted = SimpleNamespace(image="")
        self.journal = Journal.create(home / "runs", "test", {"provenance": {"kind": "hosts"}})
        self.params = SimpleNamespace(
            probe=Probe(image="busybox:1", samples=SAMPLES, interval=0.01),
            diagnose=Diagnose(**diagnose),
        )
        hosts = tuple(SimpleNamespace(name=node) for node in NODES)
        self.context: Any = Context(
            params=self.params,  # type: ignore[arg-type]
            plugin=get("flannel"),
            inventory=SimpleNamespace(hosts=hosts),  # type: ignore[arg-type]
            journal=self.journal,
            doors=SimpleNamespace(  # type: ignore[arg-type]
                kube=self.kube, facts=lambda *_, **__: Fanned(self.facts, self.unread)
            ),
        )
        self.dry_run = False
        self.doors = SimpleNamespace(origins=Origins(self.journal))

    # --- the session and its doors -----------------------------------------------------------

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        yield

    def kube(self, *, wait: float) -> Cluster:
        if self.api_gone:
            raise self.api_gone
        return self

    def items(self, path: str) -> list[dict[str, Any]]:
        assert path == "/api/v1/nodes"
        return [
            {"metadata": {"name": node, "labels": {ZONE: self.zones.get(node, "")}}}
            for node in NODES
        ]

    def run(self, node: str, cmd: Cmd, path: str = "pod") -> CommandResult:
        """A command in an agent."""
        if self.tool not in cmd.argv:  # whether there is one
            there = f"/usr/bin/{self.tool}\n" if self.tool else ""
            return CommandResult(node, str(cmd), there, "", int(not there), 0.0)
        words = [str(each) for each in cmd.argv]
        address, count = words[-1], int(words[words.index(self.tool) + 2])
        with self.lock:
            self.busy[node] += 1
            self.most = max(self.most, sum(self.busy.values()))
            self.asked.append((node, address, path))
        try:
            text = self.says(self, node, address, path)
        finally:
            with self.lock:
                self.busy[node] -= 1
        return CommandResult(
            node, str(cmd), ping_text(address, count) if text is None else text, "", 0, 0.0
        )

    # --- the agents --------------------------------------------------------------------------

    nodes = NODES

    @property
    def running(self) -> tuple[Any, ...]:
        return tuple(
            SimpleNamespace(node=node, path=path)
            for path in measure.PATHS
            for node in NODES
            if (node, path) not in self.missing
        )

    def require(self) -> None:
        raise PreconditionError("no agent runs: ImagePullBackOff", remedy="name a copy")

    def addresses(self, path: str) -> dict[str, str]:
        of = {"pod": "10.244.0", "host": "10.77.0"}
        return {
            node: f"{of[path]}.{number}"
            for number, node in enumerate(NODES, start=1)
            if (node, path) not in self.missing
        }

    # --- what came of it ---------------------------------------------------------------------

    @property
    def rows(self) -> pd.DataFrame:
        return read_samples(load_run(self.journal.path))

    @property
    def checks(self) -> dict[str, Any]:
        return {
            f"{entry.data['id']} {entry.host}": entry.data
            for entry in load_run(self.journal.path).entries
            if entry.kind == "check"
        }

    def pairs(self, path: str = "pod") -> set[tuple[str, str]]:
        found = self.rows[self.rows["path"] == path]
        return set(zip(found["src"].astype(str), found["dst"].astype(str), strict=True))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def with_agents(**diagnose: Any) -> Cluster:
        cluster = Cluster(tmp_path, **diagnose)

        @contextmanager
        def agents(ctx: Any, wanted: Any) -> Iterator[Cluster]:
            cluster.made["made"] += 1
            try:
                yield cluster
            finally:
                cluster.made["removed"] += 1

        monkeypatch.setattr(measure, "agents", agents)

        def of(ctx: Any, *, image: str, **_: object) -> SimpleNamespace:
            cluster.wanted.image = image
            return cluster.wanted

        monkeypatch.setattr(measure, "AgentSet", SimpleNamespace(of=of))
        return cluster

    return with_agents


EVERY = set(permutations(NODES, 2))


@pytest.mark.parametrize(("wanted", "used"), [(0, 2), (1, 1), (2, 2), (9, 2)])
def test_every_pair_is_measured_on_both_paths_so_many_at_a_time(
    make: Callable[..., Cluster], wanted: int, used: int
) -> None:
    cluster = make(side_by_side=wanted)
    cluster.says = lambda *_: threading.Event().wait(0.005) or None
    assert measure_latency(cluster, 2).passed() == 2 * 2 * len(EVERY) * (SAMPLES + 1)
    rows = cluster.rows
    assert cluster.pairs("pod") == cluster.pairs("host") == EVERY
    assert cluster.most == used
    assert set(rows["side_by_side"]) == {used}
    assert set(rows["round"]) == {0, 1}
    assert set(rows.loc[rows["warmup"], "seq"]) == {1}, "the first packet is kept, and marked"
    assert rows["warmup"].sum() == 2 * 2 * len(EVERY)
    record = cluster.journal.record()
    assert (record["partial"], record["missing"]) == (False, {})
    assert record["pairs"] == {"measured": 12, "of": 12, "seed": 1}
    assert cluster.made == {"made": 1, "removed": 1}
    assert {check.status for check in summary.latency_checks(load_run(cluster.journal.path))} == {
        Status.PASS
    }


def test_a_pairs_baseline_comes_right_behind_it(make: Callable[..., Cluster]) -> None:
    cluster = make(side_by_side=1)
    measure_latency(cluster, 1)
    there, back = cluster.asked[::2], cluster.asked[1::2]
    assert [(node, "host") for node, _, _ in there] == [(node, path) for node, _, path in back]
    assert {path for _, _, path in there} == {"pod"}


def test_rounds_packets_and_interval_are_the_parameters_or_the_callers(
    make: Callable[..., Cluster],
) -> None:
    cluster = make(rounds=2)
    assert measure_latency(cluster).rounds == 2
    assert set(cluster.rows["round"]) == {0, 1}
    assert cluster.rows["seq"].max() == SAMPLES + 1
    measure_latency(cluster, 1, packets=7, interval=0.5)
    rows = cluster.rows
    rows = rows[rows["round"] == 2]
    assert rows["seq"].max() == 8
    gaps = rows.sort_values(["src", "dst", "path", "seq"])["t"].diff()
    assert gaps.median() == pytest.approx(0.5)


def test_in_the_lab_one_pair_at_a_time_is_the_default(make: Callable[..., Cluster]) -> None:
    cluster = make()
    cluster.journal.update(provenance={"kind": "lab"})
    assert planned(cluster, NODES).side_by_side == 1
    cluster.params.diagnose = Diagnose(side_by_side=2)
    assert planned(cluster, NODES).side_by_side == 2


def test_of_more_pairs_than_wanted_a_sample_is_taken_that_knows_the_zones(
    make: Callable[..., Cluster],
) -> None:
    cluster = make(most_pairs=8, seed=4)
    cluster.zones = {"cp-1": "a", "w-1": "a", "w-2": "b", "w-3": "b"}
    measure_latency(cluster, 1)
    assert cluster.journal.record()["pairs"] == {"measured": 8, "of": 12, "seed": 4}
    assert len(cluster.pairs()) == 8
    assert cluster.pairs() == set(pairs.sample(NODES, 8, seed=4, zones=cluster.zones))
    assert cluster.pairs() != set(pairs.sample(NODES, 8, seed=4))
    found = summary.latency_checks(load_run(cluster.journal.path))
    assert not {check.status for check in found} & {Status.WARN, Status.FAIL}
    assert "a sample of 8 of 12 pairs" in found[0].summary


def test_what_the_network_says_stands_in_the_rows(make: Callable[..., Cluster]) -> None:
    """Loss with the router's words, a late and a doubled reply: nothing is smoothed over."""
    odd = """PING 10.244.0.3 (10.244.0.3) 56(84) bytes of data.
64 bytes from 10.244.0.3: icmp_seq=1 ttl=64 time=0.050 ms
64 bytes from 10.244.0.3: icmp_seq=3 ttl=64 time=0.050 ms
64 bytes from 10.244.0.3: icmp_seq=3 ttl=64 time=0.060 ms (DUP!)
64 bytes from 10.244.0.3: icmp_seq=2 ttl=64 time=9.050 ms
From 10.244.0.1 icmp_seq=4 Destination Host Unreachable

--- 10.244.0.3 ping statistics ---
5 packets transmitted, 3 received, +1 duplicates, +1 errors, 40% packet loss, time 40ms
"""
    cluster = make()
    cluster.says = lambda _, node, to, path: odd if (node, to) == ("w-1", "10.244.0.3") else None
    measure_latency(cluster, 1)
    rows = cluster.rows
    rows = rows[(rows["src"] == "w-1") & (rows["dst"] == "w-2") & (rows["path"] == "pod")]
    assert list(rows["seq"]) == [1, 2, 3, 3, 4, 5]
    assert list(rows["duplicate"]) == [False, False, False, True, False, False]
    assert list(rows["lost"]) == [False, False, False, False, True, True]
    assert list(rows["reason"])[4:] == ["Destination Host Unreachable", ""]


def test_a_node_without_agent_is_named_and_the_others_are_measured(
    make: Callable[..., Cluster],
) -> None:
    cluster = make()
    cluster.missing = {("w-2", "pod"): "ImagePullBackOff"}
    with pytest.raises(ChecksFailed, match=r"w-2.*ImagePullBackOff"):
        measure_latency(cluster, 1).passed()
    assert cluster.pairs("pod") == {pair for pair in EVERY if "w-2" not in pair}
    assert cluster.pairs("host") == EVERY, "its host answers"
    assert list(cluster.checks) == ["latency.agent w-2"]
    assert cluster.journal.record()["partial"] is False
    coverage = summary.latency_checks(load_run(cluster.journal.path))[0]
    assert coverage.status is Status.FAIL


@pytest.mark.parametrize(
    "error",
    [
        CommandError("w-3", "ping", None, "no end in 14 s"),
        ApiError("exec: dial tcp 10.77.0.4:10250: connect: no route to host", status=500),
    ],
)
def test_a_half_dead_node_does_not_hold_up_the_others(
    make: Callable[..., Cluster], error: KitError
) -> None:
    """Its kubelet does not let commands through, or they do not end; it is pinged all the same."""
    cluster = make()

    def says(_: Cluster, node: str, to: str, path: str) -> str | None:
        if node == "w-3":
            raise error
        return None

    cluster.says = says
    with pytest.raises(ChecksFailed, match="w-3"):
        measure_latency(cluster, 1).passed()
    assert cluster.pairs("pod") == {pair for pair in EVERY if pair[0] != "w-3"}
    assert list(cluster.checks) == ["latency.agent w-3"]
    assert cluster.made == {"made": 1, "removed": 1}


def test_an_answer_that_is_not_pings_is_that_pairs_failure(make: Callable[..., Cluster]) -> None:
    cluster = make()
    cluster.says = lambda _, node, to, path: "Killed" if node == "w-1" and path == "pod" else None
    with pytest.raises(ChecksFailed, match="w-1"):
        measure_latency(cluster, 1).passed()
    assert cluster.pairs("pod") == {pair for pair in EVERY if pair[0] != "w-1"}
    assert cluster.pairs("host") == EVERY


@pytest.mark.parametrize("api", [False, True])
@pytest.mark.parametrize("at", [0, 1, 13, 24, 40])
def test_what_was_measured_is_kept_and_marked_partial(
    make: Callable[..., Cluster], at: int, api: bool
) -> None:
    """Ctrl-C, and an API that does not come back, in either round and on either path."""
    cluster = make(side_by_side=1)

    def says(_: Cluster, node: str, to: str, path: str) -> str | None:
        if len(cluster.asked) <= at:
            return None
        if not api:
            raise KeyboardInterrupt
        cluster.api_gone = ApiError("no answer from https://10.77.0.11:6443", status=0)
        raise cluster.api_gone

    cluster.says = says
    with pytest.raises(ApiError if api else KeyboardInterrupt):
        measure_latency(cluster, 2)
    record = cluster.journal.record()
    assert record["partial"] is True
    number, left = divmod(at, 24)
    more = ", and 1 whole rounds" if number == 0 else ""
    assert record["missing"] == {
        "latency": f"{12 - left // 2} of 12 pairs in round {number + 1} of 2{more}"
    }
    kept = len(cluster.rows) // (SAMPLES + 1)
    assert kept >= at, "nothing that came back is lost"
    assert cluster.made == {"made": 1, "removed": 1}
    if kept:
        coverage = summary.latency_checks(load_run(cluster.journal.path))[0]
        assert coverage.status is Status.WARN


def test_the_next_measurement_completes_the_record(make: Callable[..., Cluster]) -> None:
    cluster = make()
    cluster.says = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        measure_latency(cluster, 1)
    cluster.says = lambda *_: None
    measure_latency(cluster, 1)
    assert cluster.journal.record()["partial"] is False


def test_an_image_that_has_fping_alone_is_measured_with_it(make: Callable[..., Cluster]) -> None:
    cluster = make()
    cluster.tool = "fping"
    times = ["0.080", "-", *["0.070"] * (SAMPLES - 1)]

    def said(_: Cluster, __: str, address: str, ___: str) -> str:
        replies = [f"{address} : [{seq}], 64 bytes, {ms} ms (0.075 avg, 0% loss)\n"
                   for seq, ms in enumerate(times) if ms != "-"]  # fmt: skip
        return "".join([*replies, f"\n{address} : {' '.join(times)}\n"])

    cluster.says = said
    taken = measure_latency(cluster, 1)
    assert taken.samples == 2 * len(EVERY) * (SAMPLES + 1)
    assert cluster.pairs("pod") == EVERY
    assert cluster.rows["lost"].sum() == 2 * len(EVERY)
    assert cluster.rows["warmup"].sum() == 2 * len(EVERY)


@pytest.mark.parametrize(
    ("kind", "image", "key"),
    [("", "busybox:1", "probe.image"), ("diagnose", "netshoot:1", "diagnose.image")],
)
def test_a_diagnosis_takes_one_image_and_a_build_the_one_that_verify_pulled(
    make: Callable[..., Cluster], kind: str, image: str, key: str
) -> None:
    cluster = make(image="netshoot:1")
    cluster.journal.update(kind=kind)
    measure_latency(cluster, 1)
    assert cluster.wanted.image == image
    cluster.tool = ""
    with pytest.raises(PreconditionError, match=f"{image}: there is no ping") as caught:
        measure_latency(cluster, 1)
    assert key in caught.value.remedy


def test_no_agent_at_all_and_an_image_without_ping_are_said_before_anything(
    make: Callable[..., Cluster],
) -> None:
    cluster = make()
    cluster.tool = ""
    with pytest.raises(PreconditionError, match="busybox:1: there is no ping"):
        measure_latency(cluster, 1)
    cluster.missing = {(node, path): "Pending" for node in NODES for path in measure.PATHS}
    with pytest.raises(PreconditionError, match="no agent runs"):
        measure_latency(cluster, 1)
    with pytest.raises(PreconditionError, match="at least 1 round"):
        measure_latency(cluster, -1)
    assert "partial" not in cluster.journal.record()


def test_devices_count_what_their_pods_sent_where_hosts_can_be_read(
    make: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make()
    cluster.facts = {node: host_facts(node) for node in NODES[:2]}
    cluster.unread = {"w-2": KitError("w-2: no route to host")}
    looks: list[str] = []

    def now(_: Any, facts: dict[str, HostFacts]) -> dict[str, HostFacts]:
        looks.extend(facts)
        return facts

    monkeypatch.setattr(measure, "network_now", now)
    with pytest.raises(ChecksFailed, match="the packets went through"):
        measure_latency(cluster, 1).passed()
    assert sorted(looks) == ["cp-1", "cp-1", "w-1", "w-1"]
    expected = f"at least {3 * (SAMPLES + 1)}"
    assert {data["expected"] for data in cluster.checks.values()} == {expected}
    assert set(cluster.checks) == {"reachability.device cp-1", "reachability.device w-1"}
    assert cluster.pairs("pod") == EVERY
