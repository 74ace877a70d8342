"""Throughput between pods and between hosts: short, in turns, never two on one node at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from kitlib.errors import KitError
from kitlib.fanout import fan_out
from kitlib.probes import iperf3
from kitlib.probes.iperf3 import Transfer
from kitlib.probes.pairs import Pair, Schedule
from kitlib.stages.agents import Agents
from kitlib.turns import Row

__all__ = ["transfers"]

SERVER_SECONDS = 15


def transfers(
    agents: Agents, schedule: Schedule, number: int, seconds: int, tell: Callable[[str], None]
) -> Iterator[list[Row]]:
    """Yield each turn's rows: of every pair between the pods, then between the hosts.

    Args:
        agents: The agents.
        schedule: The pairs; those of a turn share no node.
        number: The round's number.
        seconds: How long is measured.
        tell: Says what is under way.
    """
    for place, turn in enumerate(schedule.turns, 1):
        tell(f"throughput, turn {place} of {len(schedule.turns)}")
        for path in ("pod", "host"):
            there = agents.addresses(path)
            pairs = [pair for pair in turn if pair[0] in there and pair[1] in there]
            measure = partial(_transfer, agents, path, number, seconds)
            done = fan_out(measure, pairs)
            yield list(done.raise_first().values())


def _transfer(agents: Agents, path: str, number: int, seconds: int, pair: Pair) -> Row:
    source, target = pair
    port = agents.port + 1
    started = time.time()
    try:
        serve = iperf3.server(port, seconds=seconds + SERVER_SECONDS)
        said = agents.run(target, serve, path)
        why = iperf3.parse_server(said.stdout + said.stderr)
        if why:
            found = _failed(f"the server: {why}")
        else:
            cmd = iperf3.command(agents.addresses(path)[target], port, seconds=seconds)
            found = iperf3.parse(agents.run(source, cmd, path).stdout)
    except KitError as error:
        found = _failed(error.message.splitlines()[0])
    row = iperf3.row(found, round=number, src=source, dst=target, path=path, started=started)
    return {**row, "probe": "throughput"}


def _failed(why: str) -> Transfer:
    return Transfer(float("nan"), float("nan"), None, why)
