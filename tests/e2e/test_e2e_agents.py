"""Measuring agents on a cluster of the lab: what they reach, and an API that goes away."""

from __future__ import annotations

import os
import threading
import time

import pytest
from kit_help import Kit
from lab_help import HOSTS, until

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, PreconditionError
from kitlib.fanout import fan_out
from kitlib.lab import verbs
from kitlib.probes import curl, dig, iperf3, mtu, routes, tools
from kitlib.session import Session
from kitlib.stages import agents as module
from kitlib.stages.agents import Agents, AgentSet, agents

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

CONTROL_PLANE, WORKER_1, WORKER_2 = HOSTS


def page(found: Agents, source: str, address: str, path: str = "pod") -> str:
    fetch = Cmd.of("curl", "-s", "-S", "--max-time", "10", f"http://{address}/", timeout=30)
    return found.run(source, fetch, path).stdout


def spaces(kit: Kit) -> list[str]:
    return [name for name in kit.namespaces() if "kit-diagnose" in name]


def test_agents_on_both_networks(kit: Kit) -> None:
    kit.stand("join")
    with kit.session() as session:
        ctx = session.context
        wanted = AgentSet.of(ctx, host_network=True)
        with agents(ctx, wanted) as found:
            found.require()
            assert spaces(kit) == [f"namespace/{wanted.namespace}"]
            assert found.addresses("host") == {
                host.name: host.node_address for host in session.inventory
            }
            assert all(found.serves(node, path) for node in HOSTS for path in ("pod", "host"))
            for node in HOSTS:
                for target in HOSTS:
                    for path in ("pod", "host"):
                        address = f"{found.addresses(path)[target]}:{found.port}"
                        assert page(found, node, address, path) == f"{target}\n"
                assert page(found, node, found.service_address).strip() in HOSTS

            every_probe(found, session)

            def count(node: str) -> list[str]:
                asked = [script("echo $1 $(hostname)", str(n)) for n in range(20)]
                return [found.run(node, each).stdout for each in asked]

            said = fan_out(count, HOSTS).raise_first()
            assert {len(set(lines)) for lines in said.values()} == {20}
            slow = Cmd.of("sleep", f"{os.getpid()}.125")
            thread = threading.Thread(target=run_until_lost, args=(found, slow))
            thread.start()
            until(lambda: str(slow) in kit.on(WORKER_1, "ps -eo args"), 20)
        thread.join(20)
        assert not thread.is_alive()
        assert spaces(kit) == []
        assert str(slow) not in kit.on(WORKER_1, "ps -eo args"), "it ended with its agent"


def every_probe(found: Agents, session: Session) -> None:
    """Make each probe from a pod, with what the agents' image has, and read it."""
    source, target = HOSTS[1], HOSTS[2]
    address = found.addresses()[target]

    def said(cmd: Cmd, path: str = "pod", node: str = source) -> str:
        done = found.run(node, cmd, path)
        return done.stdout + done.stderr

    there = found.tools(source)
    assert {"ping", "curl", "dig", "ip"} <= there
    assert {name for name in tools.CHOICES if tools.choose(name, there) is None} <= {"throughput"}
    url = f"http://{address}:{found.port}/"
    fresh = curl.parse(said(curl.command(url, count=3)), count=3)
    kept = curl.parse(said(curl.command(url, count=3, kept=True)), count=3)
    for part in (curl.connects(fresh), curl.wholes(fresh), curl.responses(kept)):
        assert [(sample.lost, sample.server) for sample in part] == [(False, target)] * 3
    name, server = "kubernetes.default.svc.cluster.local", session.params.service_cidr[10]
    for over_tcp in (False, True):
        asked = said(dig.command(name, str(server), tcp=over_tcp, count=2))
        assert [each.ok for each in dig.parse(asked, count=2)] == [True, True]
    found_mtu = mtu.parse(said(mtu.command(address)))
    assert found_mtu.exact
    assert found_mtu.claimed == found_mtu.passes > 1000
    ways = routes.parse(said(routes.command([address]), "host"))
    assert ways[address].there
    if "iperf3" in there:
        assert iperf3.parse_server(said(iperf3.server(5301, seconds=30), node=target)) == ""
        assert iperf3.parse(said(iperf3.command(address, 5301, seconds=1))).ok


def run_until_lost(found: Agents, cmd: Cmd) -> None:
    with pytest.raises(ApiError):
        found.run(WORKER_1, cmd)


def lose_the_api(kit: Kit, session: Session) -> None:
    """Return when the API does not answer any more."""
    verbs.break_(kit.state_dir, "api-down", CONTROL_PLANE)

    def is_away() -> bool:
        try:
            session.context.kube(wait=0)
        except ApiError:
            return True
        return False

    until(is_away, 30)


def test_an_api_that_goes_away_and_comes_back_leaves_nothing(kit: Kit) -> None:
    """While a command is to begin, and again while the namespace is to be removed."""
    kit.stand("join")

    def back_soon() -> threading.Timer:
        timer = threading.Timer(2, verbs.heal, (kit.state_dir,))
        timer.start()
        return timer

    with kit.session() as session:
        wanted = AgentSet.of(session.context, server=False)
        with agents(session.context, wanted) as found:
            assert found.run(WORKER_1, Cmd.of("echo", "before")).ok
            lose_the_api(kit, session)
            timer = back_soon()
            assert found.run(WORKER_1, Cmd.of("echo", "after")).stdout == "after\n"
            timer.join()
            lose_the_api(kit, session)
            timer = back_soon()
        timer.join()
        assert spaces(kit) == []


@pytest.mark.thorough
def test_an_api_that_stays_away_is_said_and_the_next_run_sweeps(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.stand("join")
    monkeypatch.setattr(module, "GONE_SECONDS", 3.0)
    with kit.session() as session:
        wanted = AgentSet.of(session.context, server=False)
        with pytest.raises(ApiError) as caught, agents(session.context, wanted):
            lose_the_api(kit, session)
        assert f"kubectl delete namespace {wanted.namespace}" in caught.value.remedy
        verbs.heal(kit.state_dir)
        session.context.kube(wait=60)
        until(lambda: spaces(kit) == [f"namespace/{wanted.namespace}"], 60)
        other = AgentSet.of(session.context, server=False)
        with agents(session.context, other) as found:
            found.require()
        until(lambda: spaces(kit) == [], 60)


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["create namespace", "remove namespace"])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.4])
def test_ctrl_c_leaves_nothing_around_its_making_and_removal(
    kit: Kit, moment: str, seconds: float
) -> None:
    """tests/test_agents.py has every moment; here it is a process, a signal and a real API."""
    kit.stand("join")
    running = kit.start("stage", "verify", "{params}")
    running.until_line(lambda line: line["kind"] == "change" and moment in line["data"]["what"])
    time.sleep(seconds)
    running.interrupt().failed(130, "verify: interrupted")
    assert spaces(kit) == []


@pytest.mark.thorough
def test_a_node_that_cannot_pull_the_image_is_named(kit: Kit) -> None:
    """The others are measured all the same."""
    kit.stand("join")
    verbs.break_(kit.state_dir, "image-pull-fails", WORKER_1)
    impatient = kit.with_params("impatient", timeouts={"verify": 15})
    with impatient.session() as session:
        wanted = AgentSet.of(session.context, image="registry.example/not-there-yet:1")
        with agents(session.context, wanted) as found:
            assert list(found.missing) == [(WORKER_1, "pod")]
            assert set(found.addresses()) == {CONTROL_PLANE, WORKER_2}
            with pytest.raises(PreconditionError, match=f"^{WORKER_1}: .*Pull") as caught:
                found.require()
            assert "diagnose.image" in caught.value.remedy
    assert spaces(kit) == []
