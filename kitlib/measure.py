"""Fresh measurements from a living cluster, written as samples into a run directory.

Each round measures every ordered pair of nodes twice, one right after the other: pod to pod, and
host to host as the baseline. So a plugin's cost is a difference within the same round, and a
machine that is slow for a while is slow for both.

A node takes part in one measurement at a time, so that none waits behind another one's packets on
the same node; pairs that share no node are measured side by side (`probes.pairs`), SIDE_BY_SIDE of
them at most.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from kitlib.checks import device_counters
from kitlib.errors import ChecksFailed, CommandError, PreconditionError
from kitlib.fanout import fan_out
from kitlib.journal import Journal
from kitlib.model import CLUSTER, failed
from kitlib.params import Probe
from kitlib.probes import pairs, ping
from kitlib.samples import write_samples
from kitlib.session import Session
from kitlib.stages.agents import Agents, AgentSet, agents
from kitlib.stages.observe import network_now

__all__ = ["SIDE_BY_SIDE", "STAGE", "measure_latency"]

STAGE = "latency"
"""The name under which the journal keeps what happens here."""
SIDE_BY_SIDE = 4
"""Pairs that are measured at a time: they share this machine and the API, in the lab the cores."""


def measure_latency(
    session: Session, rounds: int, *, packets: int = 0, interval: float = 0.0
) -> int:
    """Return how many samples were taken and written to samples/ping/, one part a round.

    Args:
        session: An open session on a living cluster.
        rounds: How often every pair is measured.
        packets: Packets for each pair, path and round; 0 is what the parameters say.
        interval: Seconds between two packets; 0 is what the parameters say.

    Raises:
        PreconditionError: A probe pod does not run, or `rounds` is less than 1.
        ChecksFailed: The plugin's own device did not count the packets; the samples are kept.
        KitError: The API or a host failed meanwhile; finished rounds are kept, the pods are gone.
    """
    if rounds < 1:
        raise PreconditionError(f"rounds: {rounds}: at least 1 round is needed")
    ctx, journal = session.context, session.journal
    usual = session.params.probe
    probe = usual.model_copy(
        update={"samples": packets or usual.samples, "interval": interval or usual.interval}
    )
    ctx.read_only = session.dry_run
    journal.stage = STAGE
    journal.event("measure.started", rounds=rounds, packets=probe.samples, interval=probe.interval)
    facts = ctx.facts()
    taken = 0
    sent: Counter[str] = Counter()
    wanted = AgentSet.of(ctx, image=session.params.probe.image, server=False)
    with session.exclusive(), agents(ctx, wanted) as found:
        found.require()
        before = network_now(ctx, facts)
        first = _next_round(journal)
        for number in range(first, first + rounds):
            shown = f"{number - first + 1} of {rounds}"
            rows = _round(session, probe, found, number, shown)
            write_samples(journal.path / "samples" / "ping" / f"{number}.parquet", rows)
            taken += len(rows)
            sent.update(str(row["src"]) for row in rows if _left_the_pod(row))
        counted = device_counters(before, network_now(ctx, facts), ctx.plugin, sent)
    ctx.record(counted)
    journal.event("measure.ended", samples=taken)
    bad = failed(counted)
    if bad:
        lines = "\n".join(f"  {check}" for check in bad)
        raise ChecksFailed(f"{STAGE}: {len(bad)} check(s) failed\n{lines}")
    return taken


def _round(
    session: Session,
    probe: Probe,
    found: Agents,
    number: int,
    shown: str,
) -> list[dict[str, object]]:
    """Return the rows of one round, in the order of its turns."""
    hosts = {host.name: host.node_address for host in session.inventory}
    pods = found.addresses()
    schedule = pairs.turns(found.nodes)
    rows: list[dict[str, object]] = []

    def measure(pair: pairs.Pair) -> list[dict[str, object]]:
        return [
            *_samples(session, probe, found, pair, pods, "pod", number),
            *_samples(session, probe, found, pair, hosts, "host", number),
        ]

    for turn, together in enumerate(schedule, start=1):
        whom = ", ".join(f"{source} pings {target}" for source, target in together[:3])
        more = f" and {len(together) - 3} more" if len(together) > 3 else ""
        text = f"round {shown}, turn {turn} of {len(schedule)}: {whom}{more}"
        session.context.waiting(CLUSTER, text)
        measured = fan_out(measure, together, workers=SIDE_BY_SIDE).raise_first()
        rows += [row for each in measured.values() for row in each]
    return rows


def _samples(
    session: Session,
    probe: Probe,
    found: Agents,
    pair: pairs.Pair,
    addresses: Mapping[str, str],
    path: str,
    number: int,
) -> list[dict[str, object]]:
    """Return the rows of one pair on one path (`pod` or `host`).

    Raises:
        CommandError: What was said is not ping's.
    """
    source, target = pair
    cmd = ping.command(addresses[target], count=probe.samples + 1, interval=probe.interval)
    started = time.time()
    result = found.run(source, cmd) if path == "pod" else session.quietly(source, cmd)
    try:
        samples = ping.parse(result.stdout + result.stderr, count=probe.samples + 1)
    except Exception as error:
        raise CommandError(source, str(cmd), result.exit_status, result.tail()) from error
    return ping.rows(
        samples,
        round=number,
        src=source,
        dst=target,
        src_ip=addresses[source],
        dst_ip=addresses[target],
        path=path,
        started=started,
        interval=probe.interval,
    )


def _left_the_pod(row: Mapping[str, object]) -> bool:
    """Return whether a packet was sent by a pod, and not refused on the way out of its host."""
    return row["path"] == "pod" and not row["duplicate"] and not row["reason"]


def _next_round(journal: Journal) -> int:
    done = [int(path.stem) for path in (journal.path / "samples" / "ping").glob("*.parquet")]
    return max(done, default=-1) + 1
