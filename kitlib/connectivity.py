"""What works between the nodes of a living cluster and what does not, as rows in the run directory.

First what says yes or no, of all nodes at a time: whether pods and hosts answer, which routes there
are, how large packets get. Then what takes its time, pair by pair in turns, pods and hosts one
right after the other, as the latencies are. Then what every node asks: the Service, the names.
Then, where the plugin claims it, whether policies hold; and throughput where it is asked for.
`diagnosis.connectivity` judges it from the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from kitlib.diagnosis.connected import EVIDENCE
from kitlib.errors import ApiError, KitError
from kitlib.fanout import fan_out
from kitlib.kube import Obj
from kitlib.measure import API_SECONDS, PATHS, planned, wanted_rounds
from kitlib.model import CLUSTER
from kitlib.policies import try_policies
from kitlib.probes.pairs import Pair
from kitlib.probing import CLUSTER_NAME, LOOKUPS, Prober, Question, Tables
from kitlib.session import Session
from kitlib.stages.agents import Agents, AgentSet, agents
from kitlib.throughput import transfers
from kitlib.turns import NoAgent, Row, Tour, unfinished

__all__ = ["STAGE", "measure_connectivity"]

STAGE = "connectivity"
"""The name under which the journal keeps what happens here."""
SWEEPERS = 8
"""So many nodes sweep at a time: each asks many others, and in a lab they share the cores."""
DNS_SELECTOR = "k8s-app=kube-dns"
DNS_PROBES = ("dns_cluster_udp", "dns_cluster_tcp", "dns_external")


def measure_connectivity(session: Session, rounds: int = 0) -> int:
    """Return how many rows were written below samples/.

    Args:
        session: An open session on a living cluster.
        rounds: How often what takes its time is measured; 0 is what the parameters say.

    Raises:
        PreconditionError: `rounds` is negative, or no agent runs.
        KitError: It was broken off; what was measured until then is kept, the agents are gone.
    """
    rounds = wanted_rounds(session, rounds)
    ctx, journal = session.context, session.journal
    ctx.read_only = session.dry_run
    journal.stage = STAGE
    journal.event("measure.started", rounds=rounds)
    with session.exclusive(), agents(ctx, AgentSet.of(ctx, host_network=True)) as found:
        session.doors.origins.ask(found)
        taken = _Work(session, found).all(rounds)
    journal.event("measure.ended", samples=taken)
    return taken


@dataclass
class _Work:
    """What one call probes."""

    session: Session
    agents: Agents
    skipped: dict[str, str] = field(default_factory=dict)
    mute: dict[str, str] = field(default_factory=dict)
    _again: bool = False
    _swept: bool = False
    _works: set[tuple[str, str, str]] = field(default_factory=set)
    _dns_service: str = ""
    _dns_servers: dict[str, str] = field(default_factory=dict)

    def all(self, rounds: int) -> int:
        """Return how many rows were written; they are written however it ends."""
        if not self.agents.running:
            self.agents.require()
        journal = self.session.journal
        self.schedule = planned(self.session, self.agents.nodes)
        self.tables = Tables(journal.path / "samples")
        self.prober = Prober(self.agents, self.tables.numbers)
        self.nodes = [node for node in self.agents.nodes if node in self.prober.pods]
        journal.update(pairs=self.schedule.record)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("what answers, routes and packet sizes", self._sweep)
        ]
        for number in range(1, rounds + 1):
            shown = f"{number} of {rounds}"
            what = f"round {shown} of connections, Services and names"
            steps.append((what, partial(self._round, shown)))
        steps += [("NetworkPolicy", self._policies), ("throughput", self._throughput)]
        self._note(self.prober.look())
        self._find_names()
        self._say_evidence()
        try:
            for place, (_, step) in enumerate(steps):
                unfinished(journal, STAGE, "; ".join(what for what, _ in steps[place:]))
                step()
        finally:
            self.tables.write()
            self._say_evidence()
        unfinished(journal, STAGE, "")
        return self.tables.count

    # What says yes or no.

    def _sweep(self) -> None:
        self._tell("which pods and hosts answer, and by which routes")
        for path in PATHS:
            self._each(partial(self._reach, path), path)
        self._each(self._routes, "host")
        answered = self._answered()
        self._tell("how large packets get")
        for path in PATHS:
            self._each(partial(self._sizes, path, answered[path]), path)
        self._gateways(answered)
        for probe in ("reach", "mtu", "routes"):
            self._skip(probe, self.prober.lacks("ping" if probe == "reach" else probe))
        self.tables.write()

    def _sizes(self, path: str, answered: Mapping[str, list[str]], node: str) -> list[Row]:
        return self.prober.sizes(node, path, self._of(path, answered.get(node, ())))

    def _reach(self, path: str, node: str) -> list[Row]:
        rows = self.prober.reach(node, path, self._of(path, self._targets(node)))
        self._swept = self._swept or bool(rows)
        self._works |= {(path, str(row["src"]), str(row["dst"])) for row in rows if not row["lost"]}
        return rows

    def _answered(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {path: {} for path in PATHS}
        for path, src, dst in sorted(self._works):
            found[path].setdefault(src, []).append(dst)
        return found

    def _routes(self, node: str) -> list[Row]:
        """Return the ways to whom a node asks and to whom it answers, and to its own pod."""
        others = {*self._targets(node), *(src for src, dst in self.schedule.pairs if dst == node)}
        owners = {
            self.prober.addresses(path)[name]: name
            for path in PATHS
            for name in [node, *sorted(others)]
            if name in self.prober.addresses(path) and (path == "pod" or name != node)
        }
        return self.prober.routes(node, owners)

    def _gateways(self, answered: Mapping[str, Mapping[str, list[str]]]) -> None:
        """Of pairs whose pods do not answer, though the hosts do: does the pod network's end?"""
        near = {node: address for node in self.nodes if (address := self.prober.gateway(node))}

        def ask(node: str) -> list[Row]:
            silent = [
                name
                for name in self._targets(node)
                if name not in answered["pod"].get(node, ())
                and name in answered["host"].get(node, ())
                and name in near
            ]
            targets = {name: near[name] for name in silent}
            return self.prober.reach(node, "host", targets, "reach_gateway")

        self._each(ask, "host")

    # What takes its time.

    def _round(self, shown: str) -> None:
        self.prober.numbers = self.tables.numbers
        served = fan_out(
            lambda agent: self.agents.serves(agent.node, agent.path), self.agents.running
        )
        self._note({agent.node: error for agent, error in served.errors.items()})
        serving = {(agent.node, agent.path) for agent, yes in served.values.items() if yes}
        if not serving:
            for probe in ("tcp_connect", "tcp_rr", "http", "http_service", "policy"):
                self._skip(probe, f"no HTTP server in {self.agents.wanted.image}")
        else:
            for probe in ("tcp_connect", "tcp_rr", "http", "http_service"):
                self._skip(probe, self.prober.lacks(probe))

            def exchange(pair: Pair, path: str, together: int) -> list[Row]:
                for node in pair:
                    if node not in self.prober.addresses(path):
                        raise NoAgent(node, "it has no address")
                if (pair[1], path) not in serving:
                    return []
                silent = self._swept and (path, *pair) not in self._works
                if silent and self._again:
                    return []  # it was tried, and every try waits its time out
                rows = self.prober.exchange(pair, path, together, once=silent)
                if silent and any(not row["lost"] for row in rows):
                    self._works.add((path, *pair))  # echo requests alone are dropped
                return rows

            tour = Tour(PATHS, exchange, self._api, self._tell)
            tour.round(self.schedule, self.tables, shown)
            for each in tour.missing:
                self.mute.setdefault(each.node, each.why)
        together = self.schedule.side_by_side
        self._tell("Services and names")

        def ask(node: str) -> list[Row]:
            lonely = self._swept and not any(
                path == "pod" and src == node for path, src, _ in self._works
            )
            rows: list[Row] = []
            if serving and not (lonely and self._again):
                rows = self.prober.service(node, together, lonely=lonely)
            return rows + self.prober.names(node, self._questions(node), together)

        self._each(ask, "pod", workers=together)
        for probe in DNS_PROBES:
            self._skip(probe, self.prober.lacks(probe))
        self.tables.next_rounds()
        self._again = True

    def _questions(self, node: str) -> list[Question]:
        """Return what a node asks of the DNS Service and of each of its servers."""
        if not self._dns_service:
            return []
        silent = {
            address
            for address, host in self._dns_servers.items()
            if self._swept
            and host in self._targets(node)
            and ("pod", node, host) not in self._works
        }
        servers = [self._dns_service, *self._dns_servers]
        if silent and self._dns_servers.keys() == silent:
            silent.add(self._dns_service)
        asked = [
            Question(probe, CLUSTER_NAME, server, 1 if server in silent else LOOKUPS)
            for server in servers
            for probe in ("dns_cluster_udp", "dns_cluster_tcp")
        ]
        if external := self.session.params.diagnose.external_name:
            count = 1 if self._dns_service in silent else LOOKUPS
            asked.append(Question("dns_external", external, self._dns_service, count))
        return [each for each in asked if not (self._again and each.server in silent)]

    # What changes the cluster for a while, or loads it.

    def _policies(self) -> None:
        plugin = self.session.plugin
        if not plugin.name:
            self._skip("policy", "nobody knows whether this plugin claims that it has an effect")
        elif not plugin.network_policy:
            self._skip("policy", f"{plugin.title} does not claim that it has an effect")
        elif "policy" not in self.skipped:
            self._tell("whether NetworkPolicies are honoured")
            nodes = [node for node in self.nodes if node not in self.mute]
            try:
                rows = try_policies(
                    self.session.context, self.agents, self.prober, nodes, self._failed
                )
            except ApiError as error:
                if error.retryable:
                    raise
                self._skip("policy", error.message.splitlines()[0])
            else:
                self.tables.add(rows)
                self.tables.write()

    def _throughput(self) -> None:
        wanted = self.session.params.diagnose
        if not wanted.throughput:
            self._skip("throughput", "not asked for (diagnose.throughput)")
            return
        if lacks := self.prober.lacks("throughput"):
            self._skip("throughput", lacks)
            return
        self._tell("throughput")
        number, seconds = self.tables.numbers["throughput"], wanted.throughput_seconds
        for rows in transfers(self.agents, self.schedule, number, seconds, self._tell):
            self.tables.add(rows)
            self.tables.write(after=5.0)
        self.tables.write()

    # What they share.

    def _targets(self, node: str) -> list[str]:
        return [dst for src, dst in self.schedule.pairs if src == node]

    def _of(self, path: str, names: Iterable[str]) -> dict[str, str]:
        known = self.prober.addresses(path)
        return {name: known[name] for name in names if name in known}

    def _each(self, ask: Callable[[str], list[Row]], path: str, *, workers: int = SWEEPERS) -> None:
        """Ask every node that has an agent on a path; one that fails is noted, the others go on."""
        nodes = [node for node in self.nodes if node in self.prober.addresses(path)]

        def one(node: str) -> None:
            self.tables.add(ask(node))
            self.tables.write(after=5.0)

        self._failed(fan_out(one, nodes, workers=workers).errors)

    def _failed(self, errors: Mapping[str, Exception]) -> None:
        """Note which agents could not be asked; go on where the API answers."""
        self._note(errors)
        if any(isinstance(error, ApiError) for error in errors.values()):
            self._api()

    def _note(self, errors: Mapping[str, Exception]) -> None:
        """Note which agents could not be asked; what is no failure of theirs is raised."""
        for node, error in errors.items():
            if not isinstance(error, KitError):
                raise error
            self.session.journal.event("error", host=node, message=str(error))
            self.mute.setdefault(node, error.message.splitlines()[0])

    def _find_names(self) -> None:
        """Find the DNS Service and its pods."""
        kube = self.session.context.kube()
        try:
            services = kube.items("/api/v1/services", labelSelector=DNS_SELECTOR)
            pods = kube.items("/api/v1/pods", labelSelector=DNS_SELECTOR)
        except ApiError as error:
            if error.retryable:
                raise
            for probe in DNS_PROBES:
                self._skip(probe, error.message.splitlines()[0])
            return
        addresses = [str(each["spec"].get("clusterIP") or "") for each in services]
        self._dns_service = next((each for each in addresses if each not in ("", "None")), "")
        self._dns_servers = {
            str(pod["status"]["podIP"]): str(pod["spec"].get("nodeName") or "")
            for pod in pods
            if _runs(pod)
        }
        if not self._dns_service:
            for probe in DNS_PROBES:
                self._skip(probe, f"the cluster has no DNS Service ({DNS_SELECTOR})")
        elif not self.session.params.diagnose.external_name:
            self._skip("dns_external", "no name was given (diagnose.external_name)")

    def _say_evidence(self) -> None:
        missing = {node: why for (node, path), why in self.agents.missing.items() if path == "pod"}
        self.session.journal.event(
            EVIDENCE,
            nodes=list(self.agents.nodes),
            missing=missing,
            mute={node: why for node, why in self.mute.items() if node not in missing},
            dns_servers=self._dns_servers,
            dns_service=self._dns_service,
            skipped=self.skipped,
            port=self.agents.port,
        )

    def _skip(self, probe: str, why: str) -> None:
        if why:
            self.skipped.setdefault(probe, why)

    def _api(self) -> None:
        self.session.kube(wait=API_SECONDS)

    def _tell(self, text: str) -> None:
        self.session.context.waiting(CLUSTER, text)


def _runs(pod: Obj) -> bool:
    status = pod.get("status", {})
    return status.get("phase") == "Running" and bool(status.get("podIP"))
