"""Probing a cluster whose agents are text: what is asked, kept and said, however it ends."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kitlib import connectivity
from kitlib.command import Cmd
from kitlib.connectivity import measure_connectivity
from kitlib.diagnosis import connected
from kitlib.errors import ApiError, CommandError, KitError, PreconditionError
from kitlib.journal import Journal
from kitlib.model import CommandResult, Status
from kitlib.params import Diagnose
from kitlib.plugins import get
from kitlib.probes import tools
from kitlib.provenance import Origins
from kitlib.runs import load_run
from kitlib.samples import read_samples
from kitlib.stages.agents import Agent
from kitlib.stages.base import Context

NODES = ("cp-1", "w-1", "w-2")
ALL = frozenset(each.tool for row in tools.CHOICES.values() for each in row)
SERVICE, NAMES = "10.96.0.77", "10.96.0.10"


def ping_text(address: str, count: int = 3) -> str:
    lines = [f"PING {address} ({address}) 56(84) bytes of data."]
    lines += [f"64 bytes from {address}: icmp_seq={seq} ttl=63 time=0.05 ms"
              for seq in range(1, count + 1)]  # fmt: skip
    return "\n".join([*lines, "", f"{count} packets transmitted, {count} received, 0% packet loss"])


def silent_text(address: str, count: int = 3) -> str:
    return f"PING {address} 56 bytes\n\n{count} packets transmitted, 0 received, 100% packet loss"


class Cluster:
    """Stands in for the agents and the doors of a session.

    Attributes:
        dead: (source, address) that gets no reply.
        mute_echo: Whether all echo requests are dropped.
        missing: (node, path) -> why there is no agent.
        hook: Called with each command's node and words; may raise.
        forbidden: Paths that the API refuses.
    """

    def __init__(self, home: Path, *, plugin: str = "flannel", **diagnose: Any) -> None:
        self.dead: set[tuple[str, str]] = set()
        self.mute_echo = False
        self.missing: dict[tuple[str, str], str] = {}
        self.hook: Callable[[str, str], None] = lambda *_: None
        self.forbidden: set[str] = set()
        self.policies: list[str] = []
        self.tools_there = ALL
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.port = 18765
        self.service_address = SERVICE
        self.nodes = NODES
        self.wanted = SimpleNamespace(image="tools:1", namespace="kit-diagnose-1")
        self.journal = Journal.create(
            home / "runs", "test",
            {"provenance": {"kind": "hosts"}, "plugin": plugin, "params": {"plugin": plugin}},
        )  # fmt: skip
        self.plugin = get(plugin)
        self.params = SimpleNamespace(diagnose=Diagnose(**diagnose))
        self.context: Any = Context(
            params=self.params,  # type: ignore[arg-type]
            plugin=self.plugin,
            inventory=SimpleNamespace(hosts=()),  # type: ignore[arg-type]
            journal=self.journal,
            doors=SimpleNamespace(kube=self.kube, forget_facts=lambda: None),  # type: ignore[arg-type]
        )
        self.dry_run = False
        self.doors = SimpleNamespace(origins=Origins(self.journal))
        self.api_gone: KitError | None = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        yield

    # --- the API -----------------------------------------------------------------------------

    def kube(self, *, wait: float) -> Cluster:
        if self.api_gone:
            raise self.api_gone
        return self

    def items(self, path: str, **_: str) -> list[dict[str, Any]]:
        if path in self.forbidden:
            raise ApiError(f"GET {path}: forbidden", status=403)
        if path == "/api/v1/services":
            return [{"spec": {"clusterIP": NAMES}}]
        if path == "/api/v1/pods":
            return [{"spec": {"nodeName": "cp-1"},
                     "status": {"phase": "Running", "podIP": "10.244.0.2"}}]  # fmt: skip
        return [{"metadata": {"name": node}} for node in NODES]

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path in self.forbidden:
            raise ApiError(f"POST {path}: forbidden", status=403)
        self.policies.append(body["metadata"]["name"])
        return body

    def delete(self, path: str) -> None:
        self.policies.remove(path.rpartition("/")[2])

    # --- the agents --------------------------------------------------------------------------

    def addresses(self, path: str = "pod") -> dict[str, str]:
        net = "10.244" if path == "pod" else "10.77"
        return {node: f"{net}.{place}.5" for place, node in enumerate(NODES)
                if (node, path) not in self.missing}  # fmt: skip

    @property
    def running(self) -> list[Any]:
        return [
            Agent(node, path, f"agent-{path}-{node}", address)
            for path in ("pod", "host")
            for node, address in self.addresses(path).items()
        ]

    def require(self) -> None:
        raise PreconditionError("no agent runs")

    def tools(self, node: str) -> frozenset[str]:
        return self.tools_there

    def serves(self, node: str, path: str = "pod") -> bool:
        return True

    def run(self, node: str, cmd: Cmd, path: str = "pod") -> CommandResult:
        words = [str(bit) for bit in cmd.argv]
        self.hook(node, cmd.label or words[0])
        with self.lock:
            self.asked[re.sub(r"\d+", "N", cmd.label or words[0])] += 1
        return CommandResult(node, str(cmd), self._text(node, cmd, words), "", 0, 0.0)

    def _text(self, node: str, cmd: Cmd, words: list[str]) -> str:
        if re.fullmatch(r"ping \d+ addresses", cmd.label):
            return "\n".join(f"# {a}\n{self._ping(node, a)}" for a in words[8:])
        if cmd.label.startswith("ip route get"):
            ways = [f"~way {a} {a} dev flannel.1 src 10.244.9.1" for a in words[4:]]
            return "\n".join([*ways, "~link 3: flannel.1: <UP> mtu 1450 qdisc", "~end"])
        if re.fullmatch(r"\d+ commands", cmd.label):
            said = [f"~~ {n} 0\n{self._one(node, line)}\n" for n, line in enumerate(words[5:], 1)]
            return "".join([*said, "~~end\n"])
        if "/etc/lab-release" in str(cmd):
            return "LAB_TIME_FACTOR=0.2 LAB_EMULATED=kubelet"
        return self._one(node, str(cmd))

    def _ping(self, node: str, address: str) -> str:
        silent = self.mute_echo or (node, address) in self.dead
        return (silent_text if silent else ping_text)(address)

    def _one(self, node: str, line: str) -> str:
        """What one command says, by its words."""
        addresses = re.findall(r"\d+\.\d+\.\d+\.\d+", line)
        if line.startswith("dig"):
            one = (
                ";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1\n"
                f"kubernetes. 5 IN A 10.96.0.1\n;; Query time: 310 usec\n"
                f";; SERVER: {addresses[0]}#53({addresses[0]})\n;; MSG SIZE  rcvd: 70\n"
            )
            return one * line.count(" A")
        if "~interface" in line:
            tries = "\n".join(f"~try {size} -M do\n{ping_text(addresses[-1], 2)}"
                              for size in (128, 1450))  # fmt: skip
            return f"~route {addresses[-1]} dev eth0\n~interface eth0 1450\n{tries}\n~end"
        count = int(re.search(r"/ (\d+) 2 ", line)[1])  # type: ignore[index]
        address = addresses[-1]
        denied = self.policies == ["kit-deny"] and self.plugin.network_policy
        if (node, address) in self.dead or denied:
            return "\n~ 000 0 0.000001 0.000000 0.000000 0.000000 2.000000 28 timed out\n" * count
        return "w-1\n~ 200 1 0.000010 0.000110 0.000150 0.000400 0.000450 0 \n" * count


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return standing(Cluster(tmp_path, rounds=2, side_by_side=1), monkeypatch)


def standing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    @contextmanager
    def made(*_: Any) -> Iterator[Cluster]:
        yield cluster

    monkeypatch.setattr(connectivity, "agents", made)
    monkeypatch.setattr(connectivity.AgentSet, "of", lambda *_, **__: cluster.wanted)
    return cluster


def findings(cluster: Cluster) -> list[tuple[str, str]]:
    checks = connected.connectivity_checks(load_run(cluster.journal.path))
    return [(check.id, check.target) for check in checks
            if check.status in (Status.FAIL, Status.WARN)]  # fmt: skip


def test_a_whole_cluster_is_probed_in_all_ways_and_gives_no_finding(cluster: Cluster) -> None:
    taken = measure_connectivity(cluster)
    run = load_run(cluster.journal.path)
    assert findings(cluster) == []
    rows = {probe: len(read_samples(run, probe)) for probe in (
        "reach", "routes", "mtu", "tcp_connect", "tcp_rr", "http", "http_service",
        "dns_cluster_udp", "dns_cluster_tcp", "reach_gateway", "policy", "throughput")}  # fmt: skip
    assert rows == {
        "reach": 36, "routes": 15, "mtu": 12, "tcp_connect": 144, "tcp_rr": 144, "http": 144,
        "http_service": 48, "dns_cluster_udp": 48, "dns_cluster_tcp": 48, "reach_gateway": 0,
        "policy": 0, "throughput": 0,
    }  # fmt: skip
    assert taken == sum(rows.values())
    times = read_samples(run, "tcp_connect")
    assert set(times["round"]) == {0, 1}
    assert set(times["side_by_side"]) == {1}
    assert times[times["seq"] == 1]["warmup"].all()
    assert not times[times["seq"] > 1]["warmup"].any()
    assert run.missing == {}
    told = {check.id: check.summary for check in connected.connectivity_checks(run)}
    assert "Flannel does not claim" in told["connectivity.policy"]


def test_an_agent_is_asked_a_few_times_and_not_once_for_each_address(cluster: Cluster) -> None:
    measure_connectivity(cluster, 1)
    assert cluster.asked["ping N addresses"] == 2 * 3
    assert sum(cluster.asked.values()) <= 3 * (2 + 1 + 2 + 2) + 2 * 6


def test_what_does_not_answer_is_tried_once_and_its_gateway_asked(cluster: Cluster) -> None:
    cluster.dead = {("w-2", "10.244.0.5"), ("w-2", "10.244.1.5"), ("cp-1", "10.244.2.5"),
                    ("w-1", "10.244.2.5")}  # fmt: skip
    measure_connectivity(cluster, 3)
    times = read_samples(load_run(cluster.journal.path), "tcp_connect")
    lost = times[times["lost"]]
    assert len(lost) == 4, "in the first round alone"
    assert set(lost["reason"]) == {"timed out connecting"}
    assert findings(cluster) == [("connectivity.forwarding", "w-2")]


def test_pairs_that_drop_echo_requests_alone_are_measured_all_the_same(cluster: Cluster) -> None:
    cluster.mute_echo = True
    measure_connectivity(cluster, 2)
    times = read_samples(load_run(cluster.journal.path), "tcp_connect")
    assert not times["lost"].any()
    assert times.groupby("round", observed=True).size().to_dict() == {0: 12, 1: 72}
    assert findings(cluster) == [("connectivity.icmp", "cluster")]


def test_policies_are_tried_where_the_plugin_has_them_and_are_gone_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = standing(Cluster(tmp_path, plugin="calico", rounds=1, side_by_side=1), monkeypatch)
    measure_connectivity(cluster)
    table = read_samples(load_run(cluster.journal.path), "policy")
    assert len(table) == 3 * 2 * 3
    assert (table["expected"] == table["reached"]).all()
    assert cluster.policies == []
    changes = [entry.data["what"] for entry in load_run(cluster.journal.path).entries
               if entry.kind == "change"]  # fmt: skip
    assert changes == [
        "create NetworkPolicy kit-deny, which selects the agents alone",
        "create NetworkPolicy kit-allow, which selects the agents alone",
        "remove NetworkPolicy kit-deny",
        "remove NetworkPolicy kit-allow",
    ]


def test_what_a_right_does_not_allow_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = standing(Cluster(tmp_path, plugin="calico", rounds=1, side_by_side=1), monkeypatch)
    path = "/apis/networking.k8s.io/v1/namespaces/kit-diagnose-1/networkpolicies"
    cluster.forbidden = {"/api/v1/services", path}
    measure_connectivity(cluster)
    checks = connected.connectivity_checks(load_run(cluster.journal.path))
    told = {check.id: check for check in checks}
    assert findings(cluster) == []
    for name in ("policy", "dns"):
        assert told[f"connectivity.{name}"].status is Status.SKIP
        assert "forbidden" in told[f"connectivity.{name}"].summary


def test_an_image_without_tools_is_said_to_have_none(cluster: Cluster) -> None:
    cluster.tools_there = frozenset({"ping"})
    measure_connectivity(cluster, 1)
    told = {c.id: c for c in connected.connectivity_checks(load_run(cluster.journal.path))}
    assert findings(cluster) == []
    assert told["connectivity.reach"].status is Status.PASS
    assert "tools:1" in told["connectivity.dns"].summary
    assert "dig or nslookup; docker.io/nicolaka/netshoot" in told["connectivity.dns"].summary
    assert told["connectivity.tcp"].status is Status.SKIP


def test_an_interrupt_keeps_what_was_measured_and_says_what_is_missing(cluster: Cluster) -> None:
    def interrupt(node: str, what: str) -> None:
        if "commands" in what and cluster.asked["N commands"] > 8:
            raise KeyboardInterrupt

    cluster.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        measure_connectivity(cluster)
    run = load_run(cluster.journal.path)
    assert len(read_samples(run, "reach")) == 36
    assert run.meta["partial"] is True
    assert "round 1 of 2 of connections" in run.missing["connectivity"]
    assert "Partial: broken off" in " ".join(connected.connectivity_words(run))
    assert findings(cluster) == []


def test_a_node_that_is_lost_is_named_and_the_others_are_probed(cluster: Cluster) -> None:
    def lose(node: str, what: str) -> None:
        if node == "w-2":
            raise CommandError("w-2", what, 1, "gone")

    cluster.hook = lose
    measure_connectivity(cluster, 1)
    assert ("connectivity.agent", "w-2") in findings(cluster)
    table = read_samples(load_run(cluster.journal.path), "tcp_connect")
    assert set(table["src"]) == {"cp-1", "w-1"}


def test_an_interrupt_while_policies_are_tried_leaves_their_removal_to_the_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = standing(Cluster(tmp_path, plugin="calico", rounds=1, side_by_side=1), monkeypatch)

    def interrupt(_: str, __: str) -> None:
        if cluster.policies:
            raise KeyboardInterrupt

    cluster.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        measure_connectivity(cluster)
    run = load_run(cluster.journal.path)
    assert cluster.policies == ["kit-deny"], "no request to an API that may be away"
    assert run.missing["connectivity"].startswith("NetworkPolicy")


def test_a_node_that_is_lost_while_policies_are_tried_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = standing(Cluster(tmp_path, plugin="calico", rounds=1, side_by_side=1), monkeypatch)

    def lose(node: str, what: str) -> None:
        if node == "w-2" and cluster.policies:
            raise CommandError("w-2", what, 1, "gone")

    cluster.hook = lose
    measure_connectivity(cluster)
    run = load_run(cluster.journal.path)
    table = read_samples(run, "policy")
    rows = table.groupby("step")["src"].unique().map(set).to_dict()
    others = {"cp-1", "w-1"}
    assert rows == {"open": {*others, "w-2"}, "deny": others, "allow": others}
    assert cluster.policies == []
    assert run.missing == {}
    assert findings(cluster) == [("connectivity.agent", "w-2")]


def test_the_agents_say_where_the_numbers_come_from(cluster: Cluster) -> None:
    cluster.journal.update(provenance={})
    measure_connectivity(cluster, 1)
    assert load_run(cluster.journal.path).provenance.kind == "lab"


def test_a_node_without_an_agent_is_one_finding(cluster: Cluster) -> None:
    cluster.missing = {("w-1", "pod"): "ImagePullBackOff", ("w-1", "host"): "ImagePullBackOff"}
    measure_connectivity(cluster, 1)
    assert findings(cluster) == [("connectivity.agent", "w-1")]


def test_without_any_agent_it_says_so(cluster: Cluster) -> None:
    cluster.missing = {(node, path): "Pending" for node in NODES for path in ("pod", "host")}
    with pytest.raises(PreconditionError):
        measure_connectivity(cluster, 1)
    with pytest.raises(PreconditionError, match="at least 1"):
        measure_connectivity(cluster, -1)
