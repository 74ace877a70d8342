"""Fresh latencies from a living cluster, written as samples into a run directory.

Every ordered pair of nodes is measured on two paths, one right after the other: pod to pod, and
host to host as the baseline. So a plugin's cost is a difference within the same turn, and a
machine that is slow for a while is slow for both.

A node takes part in one measurement at a time, so that none waits behind another one's packets on
the same node. Pairs that share no node are measured side by side (`probes.pairs`); how many is a
column of each sample, as they share what lies between the nodes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kitlib.checks import device_counters
from kitlib.command import Cmd, script
from kitlib.errors import ChecksFailed, CommandError, ParseError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.fanout import fan_out
from kitlib.living import zone_of
from kitlib.model import CLUSTER, Check, Status, failed
from kitlib.params import Probe
from kitlib.probes import fping, pairs, ping, timed
from kitlib.probes.pairs import Pair, Schedule
from kitlib.probes.timed import Sample
from kitlib.runs import DIAGNOSIS
from kitlib.samples import write_samples
from kitlib.session import Session
from kitlib.stages.agents import Agents, AgentSet, agents
from kitlib.stages.observe import network_now
from kitlib.turns import Kept, Missing, NoAgent, Row, Tour, unfinished

__all__ = ["PATHS", "STAGE", "Measured", "measure_latency", "planned", "wanted_rounds"]

STAGE = "latency"
"""The name under which the journal keeps what happens here."""
PATHS = ("pod", "host")
_WHICH = "command -v ping || command -v fping"
_AT_ONCE = 'said=$("$@" 2>&1); status=$?; printf "%s\\n" "$said"; exit $status'
API_SECONDS = 60
"""So long the API may be away in the middle of a measurement."""


def planned(session: Session, nodes: Sequence[str]) -> Schedule:
    """Return which pairs are measured in which turns, as the parameters and the nodes say.

    In the lab one pair at a time is the default, as its nodes share this machine's cores.
    """
    wanted = session.params.diagnose
    lab = (session.journal.record().get("provenance") or {}).get("kind") == "lab"
    known = session.context.kube().items("/api/v1/nodes")
    return pairs.schedule(
        nodes,
        most=wanted.most_pairs,
        seed=wanted.seed,
        zones={node["metadata"]["name"]: zone_of(node) for node in known},
        side_by_side=wanted.side_by_side or (1 if lab else 0),
    )


def wanted_rounds(session: Session, rounds: int) -> int:
    """Return how often is measured: so often, or for 0 what the parameters say.

    Raises:
        PreconditionError: It is negative.
    """
    if rounds < 0:
        raise PreconditionError(f"rounds: {rounds}: at least 1 round is needed")
    return rounds or session.params.diagnose.rounds


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measurement came to.

    Attributes:
        samples: How many were taken and written.
        rounds: How often every pair was measured.
        checks: What was found on the way: nodes that could not measure, and whether the plugin's
            devices counted the packets.
    """

    samples: int
    rounds: int
    checks: tuple[Check, ...]

    def passed(self) -> int:
        """Return how many samples were taken.

        Raises:
            ChecksFailed: Something failed on the way; the samples are kept.
        """
        bad = failed(self.checks)
        if bad:
            lines = "\n".join(f"  {check}" for check in bad)
            raise ChecksFailed(f"{STAGE}: {len(bad)} check(s) failed\n{lines}")
        return self.samples


def measure_latency(
    session: Session, rounds: int = 0, *, packets: int = 0, interval: float = 0.0
) -> Measured:
    """Return what was measured; the samples are written to samples/ping/ as they come.

    Args:
        session: An open session on a living cluster.
        rounds: How often every pair is measured; 0 is what the parameters say.
        packets: Packets for each pair, path and round; 0 is what the parameters say.
        interval: Seconds between two packets; 0 is what the parameters say.

    Raises:
        PreconditionError: `rounds` is negative, no agent runs, or their image has neither ping nor
            fping.
        KitError: It was broken off; what was measured until then is kept, the agents are gone.
    """
    rounds = wanted_rounds(session, rounds)
    ctx, journal = session.context, session.journal
    usual = session.params.probe
    probe = usual.model_copy(
        update={"samples": packets or usual.samples, "interval": interval or usual.interval}
    )
    ctx.read_only = session.dry_run
    journal.stage = STAGE
    journal.event("measure.started", rounds=rounds, packets=probe.samples, interval=probe.interval)
    facts = _readable(session)
    wanted = AgentSet.of(ctx, host_network=True, image=_image(session)[1], server=False)
    with session.exclusive(), agents(ctx, wanted) as found:
        session.doors.origins.ask(found)
        before = _devices(session, facts)
        work = _Work(session, found, probe)
        taken = work.rounds(rounds)
        after = _devices(session, {name: facts[name] for name in before})
    sent = {name: work.sent[name] for name in after if work.sent[name]}
    counted = device_counters(before, after, ctx.plugin, sent)
    checks = (*_missing(work.missing, work.schedule, rounds), *counted)
    ctx.record(checks)
    journal.event("measure.ended", samples=taken)
    return Measured(taken, rounds, checks)


@dataclass
class _Work:
    """What one call measures.

    Attributes:
        session: The session.
        agents: The probe pods.
        probe: Packets and interval.
        schedule: The pairs.
        missing: What could not be measured.
        sent: Node -> packets that its pod sent to other nodes.
    """

    session: Session
    agents: Agents
    probe: Probe

    def __post_init__(self) -> None:
        self.schedule = planned(self.session, self.agents.nodes)
        self.missing: list[Missing] = []
        self.sent: Counter[str] = Counter()
        self._addresses = {path: self.agents.addresses(path) for path in PATHS}
        # One reading of the wall clock; from there on the time is that of the monotonic one.
        self._origin = time.time() - time.monotonic()
        self._number = 0

    def rounds(self, count: int) -> int:
        """Return how many samples were taken; they are written however it ends."""
        journal = self.session.journal
        folder = journal.path / "samples" / "ping"
        self._need_ping()
        journal.update(pairs=self.schedule.record)
        tour = Tour(PATHS, self._measure, self._api, self._tell, self.missing)
        total, taken, done = len(self.schedule.pairs), 0, 0
        unfinished(journal, STAGE, f"{count} of {count} rounds of {total} pairs")
        try:
            for done in range(count):
                self._number = Kept.next_round(folder)
                kept = Kept(folder, self._number, write_samples)
                tour.round(self.schedule, kept, f"{done + 1} of {count}")
                taken += kept.count
        except BaseException:
            left = total - tour.ended
            unfinished(
                journal,
                STAGE,
                f"{left} of {total} pairs in round {done + 1} of {count}"
                + (f", and {count - done - 1} whole rounds" if count - done > 1 else ""),
            )
            raise
        unfinished(journal, STAGE, "")
        return taken

    def _measure(self, pair: Pair, path: str, together: int) -> list[Row]:
        """Return the rows of one pair on one path, of so many pairs that are measured at a time.

        Raises:
            NoAgent: One of the nodes has no probe pod there.
            CommandError: It did not end in time, or what was said is not ping's.
            ApiError: The API or the node does not let the command through.
        """
        source, target = pair
        addresses, count = self._addresses[path], self.probe.samples + 1
        for node in pair:
            if not addresses.get(node):
                raise NoAgent(node, self.agents.missing.get((node, path), "it has no address"))
        cmd, parse = self._asks(addresses[target], count)
        started = self._origin + time.monotonic()
        result = self.agents.run(source, cmd, path=path)
        try:
            samples = parse(result.stdout + result.stderr)
        except ParseError as error:
            raise CommandError(source, str(cmd), result.exit_status, result.tail()) from error
        rows: list[Row] = timed.rows(
            samples,
            round=self._number,
            src=source,
            dst=target,
            src_ip=addresses[source],
            dst_ip=addresses[target],
            path=path,
            started=started,
            interval=self.probe.interval,
            side_by_side=together,
        )
        if path == "pod":
            self.sent[source] += sum(_left_the_pod(row) for row in rows)
        return rows

    def _asks(self, address: str, count: int) -> tuple[Cmd, Callable[[str], list[Sample]]]:
        """Return the command of so many packets to an address, and what reads its text."""
        interval = self.probe.interval
        if self._tool == "ping":
            cmd = ping.command(address, count=count, interval=interval)
            return _at_once(cmd), partial(ping.parse, count=count)
        cmd = fping.command([address], count=count, interval=interval)
        return _at_once(cmd), lambda text: next(iter(fping.parse(text, count=count).values()))

    def _need_ping(self) -> None:
        """Find the tool that the agents have; go on, unless nothing could be measured with them.

        Raises:
            PreconditionError: None runs, or their image has no ping and no fping.
        """
        if not self.agents.running:
            self.agents.require()
        first, image = self.agents.running[0], self.agents.wanted.image
        said = self.agents.run(first.node, script(_WHICH), first.path)
        self._tool = said.stdout.strip().rpartition("/")[2]
        if not said.ok:
            key, _ = _image(self.session)
            raise PreconditionError(
                f"{image}: there is no ping in this image, and no fping",
                remedy=f"name one that has it, with the parameter {key}",
            )

    def _api(self) -> None:
        self.session.kube(wait=API_SECONDS)

    def _tell(self, text: str) -> None:
        self.session.context.waiting(CLUSTER, text)


def _image(session: Session) -> tuple[str, str]:
    """Return the agents' image, behind the key of the parameter that names it.

    A diagnosis pulls one image for all that it does; after a build verify's is on the nodes.
    """
    if session.journal.record().get("kind") == DIAGNOSIS:
        return "diagnose.image", session.params.diagnose.image
    return "probe.image", session.params.probe.image


def _at_once(cmd: Cmd) -> Cmd:
    """Return the command so that what it prints is sent when it has ended.

    Sent line by line, each reply would be relayed by the node, its kubelet and the API while the
    next packets are under way.
    """
    return replace(script(_AT_ONCE, *cmd.argv), timeout=cmd.timeout)


def _readable(session: Session) -> dict[str, HostFacts]:
    """Return what is true on the hosts that can be looked into; none need be."""
    ctx = session.context
    found = ctx.doors.facts([host.name for host in ctx.hosts], fresh=False)
    for name, error in found.errors.items():
        session.journal.event("error", host=name, message=str(error))
    return dict(found.values)


def _devices(session: Session, facts: Mapping[str, HostFacts]) -> dict[str, HostFacts]:
    """Return the hosts' facts with what their devices counted, of those that answer."""

    def look(name: str) -> HostFacts:
        return network_now(session.context, {name: facts[name]})[name]

    return fan_out(look, facts).values


def _missing(missing: Sequence[Missing], plan: Schedule, rounds: int) -> list[Check]:
    """Return one check for each node on which measurements failed."""
    by_node: dict[str, list[Missing]] = {}
    for each in missing:
        by_node.setdefault(each.node, []).append(each)
    return [
        Check(
            "latency.agent",
            node,
            Status.FAIL,
            f"the probe pods on {node} measure",
            got=f"{len(found)} of {len(plan.pairs) * len(PATHS) * rounds} measurements failed: "
            + "; ".join(dict.fromkeys(f"{each.path}: {each.why}" for each in found[:3])),
            expected="every measurement",
            remedy=f"kubectl describe node {node}; kubectl get pods -A -o wide "
            f"--field-selector spec.nodeName={node}",
        )
        for node, found in by_node.items()
    ]


def _left_the_pod(row: Mapping[str, object]) -> bool:
    """Return whether a packet was sent, and not refused on the way out of its host."""
    return not row["duplicate"] and not row["reason"]
