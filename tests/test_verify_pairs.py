"""Every ordered pair is tried, however many nodes there are, and with one command a node."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from kitlib.command import Cmd
from kitlib.errors import CommandError
from kitlib.model import CommandResult
from kitlib.stages import verify

ONE = """\
PING {0} ({0}) 56(84) bytes of data.

--- {0} ping statistics ---
5 packets transmitted, {1} received, 0% packet loss, time 814ms
"""
REPLY = "64 bytes from {0}: icmp_seq={1} ttl=62 time=0.168 ms\n"


def said(address: str, *, answers: bool = True) -> str:
    head, *rest = ONE.format(address, 5 if answers else 0).splitlines(keepends=True)
    replies = [REPLY.format(address, seq) for seq in range(1, 6)] if answers else []
    return f"# {address}\n" + "".join([head, *replies, *rest])


class Pods:
    """Pods that answer a sweep; some commands fail, some addresses are silent."""

    def __init__(self, count: int) -> None:
        self.nodes = [f"node-{number}" for number in range(count)]
        self.addresses = {node: f"10.244.{n}.2" for n, node in enumerate(self.nodes)}
        self.silent: set[str] = set()
        self.lost: set[str] = set()
        self.cut: dict[str, int] = {}
        self.asked: dict[str, list[str]] = {}

    def run(self, node: str, cmd: Cmd) -> CommandResult:
        targets = [str(word) for word in cmd.argv if str(word).startswith("10.244.")]
        assert node not in self.asked, "one command a node"
        self.asked[node] = targets
        if node in self.lost:
            raise CommandError(node, "ping", None, "no end in 9 s")
        text = "".join(
            said(target, answers=target not in self.silent)
            for target in targets[: self.cut.get(node)]
        )
        return CommandResult(node, str(cmd), text, "", 0)

    def heard(self) -> dict[tuple[str, str], verify.Heard]:
        found: dict[tuple[str, str], verify.Heard] = {}
        for node in self.nodes:
            agents: Any = self
            found |= verify._ping_from(agents, node, self.addresses, self.nodes)
        return found


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_every_ordered_pair(count: int) -> None:
    pods = Pods(count)
    heard = pods.heard()
    assert set(heard) == set(permutations(pods.nodes, 2))
    assert all(how == verify.Heard(5, 5, "") for how in heard.values())


def test_no_two_nodes_begin_with_the_same_one() -> None:
    pods = Pods(31)
    pods.heard()
    for turn in range(30):
        assert len({targets[turn] for targets in pods.asked.values()}) == 31


def test_what_failed_is_said_of_its_own_pairs_alone() -> None:
    pods = Pods(5)
    pods.silent = {pods.addresses["node-1"]}
    pods.lost = {"node-2"}
    pods.cut = {"node-3": 2}
    heard = pods.heard()
    for (source, target), how in heard.items():
        received = 0 if target == "node-1" or source == "node-2" else 5
        assert how.received == received, (source, target)
    assert "did not end" in heard["node-2", "node-4"].why
    missing = set(permutations(pods.nodes, 2)) - set(heard)
    assert missing == {("node-3", "node-1"), ("node-3", "node-2")}, "not tried: a FAIL of its own"
