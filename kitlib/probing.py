"""One question to one agent: which tool asks it, and its answer as rows of samples.

Each method is one round trip to an agent, however many addresses it is about. A row says in `probe`
which table it belongs to; `Tables` takes that off and keeps each table's rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from kitlib.command import Cmd
from kitlib.errors import CommandError, ParseError
from kitlib.fanout import fan_out
from kitlib.model import CommandResult
from kitlib.params import Diagnose
from kitlib.probes import batch, curl, dig, dns, fping, http, mtu, ping, routes, tcp, timed, tools
from kitlib.probes.batch import Said
from kitlib.probes.pairs import Pair
from kitlib.probes.routes import Way
from kitlib.probes.timed import Sample
from kitlib.samples import PROBES, write_samples
from kitlib.stages.agent_objects import SERVICE
from kitlib.stages.agents import Agents
from kitlib.turns import Kept, Row

__all__ = ["CLUSTER_NAME", "LOOKUPS", "Prober", "Question", "Tables"]

T = TypeVar("T")

CLUSTER_NAME = "kubernetes.default.svc.cluster.local"
PINGS, PING_SECONDS = 3, 0.2
EXCHANGES, LOOKUPS, REQUESTS = 6, 4, 8
"""So many of each in a round, the first of them a warm-up; connections, lookups, and requests
through a Service, which choose another pod each time."""
LONELY = 3
"""So many requests of a node that reaches no other one."""
AT_A_TIME = 8
"""Searches for the path MTU side by side from one node: they ask how large, not how fast."""
IN_A_BATCH = 24
"""So many commands in one round trip: a command line has an end, and so has patience."""


@dataclass(frozen=True, slots=True)
class Question:
    """A name that is asked of a DNS server.

    Attributes:
        probe: The table.
        name: The name.
        server: The server's address.
        count: How often; once where no answer is expected.
    """

    probe: str
    name: str
    server: str
    count: int = LOOKUPS

    @property
    def tcp(self) -> bool:
        """Whether it is asked over TCP."""
        return self.probe.endswith("tcp")


class Tables(Kept):
    """The rows of several probes, each with its table's next round.

    Args:
        samples: `samples/` of the run.
    """

    def __init__(self, samples: Path) -> None:
        super().__init__(samples, 0, write_samples)
        self._samples, self._before = samples, 0
        self._kept: dict[str, Kept] = {}
        self.next_rounds()

    def next_rounds(self) -> None:
        """Write what there is; what comes from now on is of the next round."""
        self.write()
        self._before += sum(kept.count for kept in self._kept.values())
        self.numbers = {probe: Kept.next_round(self._samples / probe) for probe in PROBES}
        self._kept = {
            probe: Kept(self._samples / probe, number, write_samples)
            for probe, number in self.numbers.items()
        }

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows, each with its `probe`; any thread may bring some."""
        by_probe: dict[str, list[Row]] = {}
        for row in rows:
            own = {name: value for name, value in row.items() if name != "probe"}
            by_probe.setdefault(str(row["probe"]), []).append(own)
        for probe, own_rows in by_probe.items():
            self._kept[probe].add(own_rows)

    def write(self, *, after: float = 0.0) -> None:
        """Write what there is, where the last writing is so many seconds ago.

        Raises:
            RecordError: It cannot be written.
        """
        for kept in self._kept.values():
            kept.write(after=after)
        self.count = self._before + sum(kept.count for kept in self._kept.values())


@dataclass
class Prober:
    """Asks agents, with what their image has.

    Attributes:
        agents: The agents.
        numbers: Probe -> the round's number.
        tools: Node -> the tools that its agent has.
        ways: (node, address) -> the way there, as far as was asked.
    """

    agents: Agents
    numbers: Mapping[str, int]
    tools: dict[str, frozenset[str]] = field(default_factory=dict)
    ways: dict[tuple[str, str], Way] = field(default_factory=dict)
    # One reading of the wall clock; from there on the time is that of the monotonic one.
    _origin: float = field(default_factory=lambda: time.time() - time.monotonic())

    def __post_init__(self) -> None:
        self.pods, self.hosts = self.agents.addresses("pod"), self.agents.addresses("host")

    def look(self) -> Mapping[str, Exception]:
        """Find out what each agent has; return node -> why not, of those that do not say."""
        found = fan_out(self.agents.tools, self.pods)
        self.tools = found.values
        return found.errors

    def lacks(self, probe: str) -> str:
        """Return why a probe cannot be made anywhere; empty where it can be somewhere."""
        if any(tools.choose(probe, each) for each in self.tools.values()):
            return ""
        image, known = self.agents.wanted.image, Diagnose().image
        lacking = f"no tool for it in {image}"
        return lacking if image == known else f"{lacking}: {tools.remedy(probe, known)}"

    def addresses(self, path: str) -> dict[str, str]:
        """Return node -> address on a path."""
        return self.pods if path == "pod" else self.hosts

    def reach(
        self, node: str, path: str, targets: Mapping[str, str], probe: str = "reach"
    ) -> list[Row]:
        """Return whether addresses answer a node.

        Args:
            node: Who asks.
            path: Its agent's path.
            targets: Node -> address.
            probe: The table.
        """
        if not targets:
            return []
        started, owned = self._now(), {address: name for name, address in targets.items()}
        addresses = list(owned)
        if "ping" in self.tools.get(node, ()):
            cmd = ping.sweep(addresses, count=PINGS, interval=PING_SECONDS)
            told = ping.parse_sweep(self._run(node, cmd, path).stdout, count=PINGS)
        elif "fping" in self.tools.get(node, ()):
            cmd = fping.command(addresses, count=PINGS, interval=PING_SECONDS)
            result = self._run(node, cmd, path)
            told = fping.parse(result.stdout + result.stderr, count=PINGS)
        else:
            return []
        return [
            row
            for address, samples in told.items()
            for row in self._rows(
                probe, samples, node, owned[address], address, path, started,
                interval=PING_SECONDS,
            )
        ]  # fmt: skip

    def routes(self, node: str, owners: Mapping[str, str]) -> list[Row]:
        """Return the ways from a node to addresses (address -> whose it is)."""
        if "ip" not in self.tools.get(node, ()):
            return []
        started = self._now()
        ways = routes.parse(self._run(node, routes.command(list(owners)), "host").stdout)
        self.ways |= {(node, address): way for address, way in ways.items()}
        rows = routes.rows(ways, node=node, owners=owners, started=started)
        return [{**row, "probe": "routes"} for row in rows]

    def gateway(self, node: str) -> str:
        """Return a node's own address on the pod network; empty where it has none of its own."""
        way = self.ways.get((node, self.pods.get(node, "")))
        known = way.source if way else ""
        return known if known not in self.hosts.values() else ""

    def sizes(self, node: str, path: str, targets: Mapping[str, str]) -> list[Row]:
        """Return the largest packets that pass from a node to others."""
        if tools.choose("mtu", self.tools.get(node, ())) is None:
            return []
        rows: list[Row] = []
        names = list(targets)
        for first in range(0, len(names), IN_A_BATCH):
            some, started = names[first : first + IN_A_BATCH], self._now()
            cmds = [mtu.command(targets[name]) for name in some]
            for name, said in zip(some, self._batch(node, cmds, path, AT_A_TIME), strict=True):
                row = mtu.row(
                    _read(node, cmds[0], lambda text: mtu.parse(text), said),
                    round=self.numbers["mtu"], src=node, dst=name, path=path, started=started,
                )  # fmt: skip
                rows.append({**row, "probe": "mtu"})
        return rows

    def exchange(self, pair: Pair, path: str, together: int, *, once: bool = False) -> list[Row]:
        """Return how long a pair takes to connect, to answer on a connection, and for a page.

        Args:
            pair: Source and target.
            path: `pod` or `host`.
            together: How many pairs are measured at a time.
            once: Try each once, as nothing is expected to come of it.
        """
        node, target = pair
        address, port = self.addresses(path)[target], self.agents.port
        count, started = 1 if once else EXCHANGES, self._now()

        def rows(probe: str, samples: Sequence[Sample]) -> list[Row]:
            return self._rows(
                probe, samples, node, target, address, path, started,
                together=together, warmup=0 if once else 1,
            )  # fmt: skip

        own = self.tools.get(node, frozenset())
        if "curl" in own:
            url = f"http://{address}:{port}/"
            cmds = [curl.command(url, count=count)]
            cmds += [] if once else [curl.command(url, count=count, kept=True)]
            fresh, *kept = (
                _read(node, cmd, lambda text: curl.parse(text, count=count), said)
                for cmd, said in zip(cmds, self._batch(node, cmds, path), strict=True)
            )
            return [
                *rows("tcp_connect", curl.connects(fresh)),
                *rows("http", curl.wholes(fresh)),
                *(row for each in kept for row in rows("tcp_rr", curl.responses(each))),
            ]
        found: list[Row] = []
        if "nc" in own:
            cmd = tcp.command(address, port)
            found += rows("tcp_connect", [tcp.parse(_both(self._run(node, cmd, path)))])
        if "wget" in own:
            cmd = http.command(f"http://{address}:{port}/")
            found += rows("http", [_page(self._run(node, cmd, path))])
        return found

    def service(self, node: str, together: int, *, lonely: bool = False) -> list[Row]:
        """Return how requests through the agents' Service fare from a node.

        Args:
            node: Who asks.
            together: How many nodes ask at a time.
            lonely: It reaches no other node: each request is likely to wait in vain.
        """
        address, started = self.agents.service_address, self._now()
        own, count = self.tools.get(node, frozenset()), LONELY if lonely else REQUESTS
        if "curl" in own:
            cmd = curl.command(f"http://{address}:80/", count=count)
            samples = curl.wholes(curl.parse(_both(self._run(node, cmd, "pod")), count=count))
        elif "wget" in own:
            cmds = [http.command(f"http://{address}:80/") for _ in range(count)]
            told = [_page(self._run(node, cmd, "pod")) for cmd in cmds]
            samples = [_numbered(each, seq) for seq, each in enumerate(told, 1)]
        else:
            return []
        return self._rows(
            "http_service", samples, node, SERVICE, address, "pod", started, together=together
        )

    def names(self, node: str, questions: Sequence[Question], together: int) -> list[Row]:
        """Return how names resolve on a node.

        Args:
            node: Who asks.
            questions: What is asked of whom.
            together: How many nodes ask at a time.
        """
        own, started = self.tools.get(node, frozenset()), self._now()
        if "dig" in own:
            cmds = [
                dig.command(each.name, each.server, tcp=each.tcp, count=each.count)
                for each in questions
            ]
        elif "nslookup" in own:
            questions = [each for each in questions if not each.tcp]
            cmds = [dns.command(each.name, server=each.server) for each in questions]
        else:
            return []
        rows: list[Row] = []
        for each, cmd, said in zip(questions, cmds, self._batch(node, cmds, "pod"), strict=True):
            read = partial(_lookups, each.count) if "dig" in own else _answers
            rows += self._rows(
                each.probe, _read(node, cmd, read, said), node, each.name, each.server, "pod",
                started, together=together,
            )  # fmt: skip
        return rows

    def connects(self, node: str, targets: Mapping[str, str]) -> dict[str, str]:
        """Return target -> why a pod cannot connect to it; empty where it can. One try each."""
        port, own = self.agents.port, self.tools.get(node, frozenset())
        names = list(targets)
        if "curl" in own:
            cmds = [curl.command(f"http://{targets[name]}:{port}/", count=1) for name in names]
        elif "nc" in own:
            cmds = [tcp.command(targets[name], port) for name in names]
        else:
            cmds = [http.command(f"http://{targets[name]}:{port}/", timeout=2) for name in names]
        found = {}
        for name, cmd, said in zip(
            names, cmds, self._batch(node, cmds, "pod", AT_A_TIME), strict=True
        ):
            if "curl" in own:
                (sample,) = curl.connects(
                    _read(node, cmd, lambda text: curl.parse(text, count=1), said)
                )
            elif "nc" in own:
                sample = _read(node, cmd, tcp.parse, said)
            else:
                sample = http.sample(http.parse("", said.text, said.exit_status))
            found[name] = (sample.reason or "no connection") if sample.lost else ""
        return found

    def _rows(
        self,
        probe: str,
        samples: Sequence[Sample],
        src: str,
        dst: str,
        address: str,
        path: str,
        started: float,
        *,
        together: int = 0,
        interval: float = 0.0,
        warmup: int = 1,
    ) -> list[Row]:
        found = timed.rows(
            samples, round=self.numbers[probe], src=src, dst=dst,
            src_ip=self.addresses(path).get(src, ""), dst_ip=address, path=path, started=started,
            interval=interval, warmup=warmup if len(samples) > 1 else 0, side_by_side=together,
        )  # fmt: skip
        return [{**row, "probe": probe} for row in found]

    def _batch(self, node: str, cmds: Sequence[Cmd], path: str, at_a_time: int = 1) -> list[Said]:
        if not cmds:
            return []
        whole = batch.command(cmds, at_a_time=at_a_time)
        result = self._run(node, whole, path)
        try:
            return batch.parse(result.stdout, count=len(cmds))
        except ParseError as error:
            raise CommandError(node, whole.brief, result.exit_status, result.tail()) from error

    def _run(self, node: str, cmd: Cmd, path: str) -> CommandResult:
        return self.agents.run(node, cmd, path)

    def _now(self) -> float:
        return self._origin + time.monotonic()


def _read(node: str, cmd: Cmd, parse: Callable[[str], T], said: Said) -> T:
    """Return what a command's text says.

    Raises:
        CommandError: The text is not the tool's.
    """
    try:
        return parse(said.text)
    except ParseError as error:
        last = "\n".join(said.text.strip().splitlines()[-10:])
        raise CommandError(node, cmd.brief, said.exit_status, last) from error


def _lookups(count: int, text: str) -> list[Sample]:
    return dig.times(dig.parse(text, count=count))


def _answers(text: str) -> list[Sample]:
    return [dns.sample(dns.parse(text))]


def _both(result: CommandResult) -> str:
    return result.stdout + result.stderr


def _page(result: CommandResult) -> Sample:
    return http.sample(http.parse(result.stdout, result.stderr, result.exit_status))


def _numbered(sample: Sample, seq: int) -> Sample:
    return replace(sample, seq=seq)
