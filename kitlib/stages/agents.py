"""Measuring agents: a pod on every node, in a namespace of the run's own that always goes again.

They are made, used and removed within `agents(...)`; commands run in them over one open shell each.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, KitError, PreconditionError
from kitlib.fanout import fan_out
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER, CommandResult
from kitlib.podshell import PodShell
from kitlib.probes import tools
from kitlib.retry import Deadline
from kitlib.stages import agent_objects, agent_space
from kitlib.stages.agent_objects import SERVICE, node_of, path_of, runs, why_not
from kitlib.stages.agent_space import AGAIN, GONE_SECONDS, INTERRUPTED_SECONDS, RENEW_SECONDS
from kitlib.stages.base import Action, Context, Hands

__all__ = ["Agent", "AgentSet", "Agents", "agents"]

Place = tuple[str, str]
"""A node, and the path: `pod` (the pod network) or `host` (the hosts' own, the baseline)."""

EXEC_SECONDS = 60.0
EVERY = 0.3
"""Seconds between two looks at the agents' pods."""
SERVING_SECONDS = 15.0
_LISTENS = """command -v httpd >/dev/null || command -v python3 >/dev/null || exit 1
n=0
until cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ":$1 0*:0000 0A"; do
  n=$((n + 1)); [ $n -lt $2 ] || exit 1
  sleep 0.1 || sleep 1
done
"""


@dataclass(frozen=True, slots=True)
class AgentSet:
    """A namespace with an agent on every node, planned.

    Attributes:
        namespace: Its name, new for every use.
        nodes: The nodes.
        image: The agents' image.
        port: The port of their HTTP server; 0 for none.
        host_network: Whether each node gets a second agent, on the host's own network.
        resources: What an agent asks for and may take.
        tolerations: Which taints the agents tolerate.
        seconds: How long the agents may take to run.
        run_id: Whose they are.
    """

    namespace: str
    nodes: tuple[str, ...]
    image: str
    port: int
    host_network: bool
    resources: Mapping[str, Any]
    tolerations: tuple[Mapping[str, Any], ...]
    seconds: float
    run_id: str

    @classmethod
    def of(
        cls,
        ctx: Context,
        nodes: Sequence[str] = (),
        *,
        host_network: bool = False,
        image: str = "",
        server: bool = True,
    ) -> AgentSet:
        """Return a new set, as the parameters have it.

        Args:
            ctx: The stage's context.
            nodes: The nodes; empty for every host of the inventory.
            host_network: Whether each node gets a second agent, on the host's own network.
            image: Another image than `diagnose.image`.
            server: Whether the agents have an HTTP server, and a Service in front of them.
        """
        wanted = ctx.params.diagnose
        return cls(
            namespace=f"{wanted.namespace}-{secrets.token_hex(3)}",
            nodes=tuple(nodes) or tuple(host.name for host in ctx.hosts),
            image=image or wanted.image,
            port=wanted.port if server else 0,
            host_network=host_network,
            resources=wanted.resources,
            tolerations=wanted.tolerations,
            seconds=ctx.params.timeouts.verify,
            run_id=ctx.journal.path.name,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that there are agents on."""
        return ("pod", "host") if self.host_network else ("pod",)

    @property
    def create(self) -> Action:
        """The action that makes the namespace and the agents."""
        where = "and on its host's network " if self.host_network else ""
        what = f"create namespace {self.namespace} with an agent {where}on each of "
        return Action(CLUSTER, f"{what}{len(self.nodes)} nodes ({self.image})", do=self._create)

    @property
    def remove(self) -> Action:
        """The action that removes them and waits until they are gone."""
        return self.removal(GONE_SECONDS)

    def removal(self, seconds: float) -> Action:
        """Return the action that removes them, within so many seconds."""
        do = partial(agent_space.remove, self.namespace, seconds)
        return Action(CLUSTER, f"remove namespace {self.namespace}", do=do)

    def _create(self, hands: Hands) -> None:
        kube = hands.kube()
        agent_space.make(self.namespace, self.run_id, kube)
        if self.port:
            services = f"/api/v1/namespaces/{self.namespace}/services"
            kube.create(services, agent_objects.service(self.port))
        for each in self.paths:
            kube.create(
                f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets",
                agent_objects.daemon_set(
                    each,
                    self.nodes,
                    self.image,
                    port=self.port,
                    resources=self.resources,
                    tolerations=self.tolerations,
                ),
            )


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent that runs.

    Attributes:
        node: Its node.
        path: Its network: `pod`, or `host`.
        pod: Its pod's name.
        address: Its address.
    """

    node: str
    path: str
    pod: str
    address: str


@dataclass
class Agents:
    """Agents that run, and commands in them. Safe to use from several threads.

    Attributes:
        wanted: What was asked for.
        pods: The agents' pods on the pod network, as the API has them.
        missing: (node, path) -> why no agent runs there.
        service_address: The ClusterIP of the Service in front of those on the pod network, which
            answers on port 80; empty without a server.
    """

    wanted: AgentSet
    pods: list[Obj]
    missing: Mapping[Place, str]
    service_address: str
    _ctx: Context
    _agents: Mapping[Place, Agent]
    _shells: dict[Place, PodShell] = field(default_factory=dict)
    _serving: dict[Place, bool] = field(default_factory=dict)
    _tools: dict[Place, frozenset[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _renewed: float = field(default_factory=time.monotonic)
    _closed: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that agents were asked for on."""
        return self.wanted.nodes

    @property
    def port(self) -> int:
        """The port of the agents' HTTP server; 0 for none."""
        return self.wanted.port

    @property
    def running(self) -> tuple[Agent, ...]:
        """The agents that run."""
        return tuple(self._agents.values())

    def agent(self, node: str, path: str = "pod") -> Agent:
        """Return the agent of a node.

        Raises:
            PreconditionError: None runs there; the message says why.
        """
        if (node, path) not in self._agents:
            raise self._absence({(node, path): self.missing.get((node, path), "not asked for")})
        return self._agents[node, path]

    def addresses(self, path: str = "pod") -> dict[str, str]:
        """Return node -> address of the agents that run."""
        return {agent.node: agent.address for agent in self.running if agent.path == path}

    def require(self) -> None:
        """Go on, unless an agent is missing.

        Raises:
            PreconditionError: One is; the message says of each node why.
        """
        if self.missing:
            raise self._absence(self.missing)

    def run(self, node: str, cmd: Cmd, path: str = "pod") -> CommandResult:
        """Return what a command in a node's agent did; one whose connection was lost runs twice.

        Raises:
            PreconditionError: No agent runs there.
            ApiError: The API cannot be reached, or the connection was lost twice.
            CommandError: The command did not end in time (`cmd.timeout`, or EXEC_SECONDS).
        """
        if cmd.mutates:
            raise KitError(f"{node}: {cmd}: a change in an agent; this is a defect of the kit")
        agent = self.agent(node, path)
        self._give_sign_of_life()
        with self._lock:
            if self._closed:  # a thread of an interrupted measurement must not begin anew
                raise ApiError(f"{node}: the agents are being removed")
            shell = self._shells.get((node, path))
            if shell is None:
                shell = self._shells[node, path] = self._new_shell(agent)
        return shell.run(cmd, timeout=cmd.timeout or EXEC_SECONDS)

    def tools(self, node: str, path: str = "pod") -> frozenset[str]:
        """Return which of the probes' tools the agent's image has; each agent is asked once.

        Raises:
            ParseError: The answer is not understood; beside these, what `run` raises.
        """
        if (node, path) not in self._tools:
            self._tools[node, path] = tools.parse(self.run(node, tools.command(), path).stdout)
        return self._tools[node, path]

    def serves(self, node: str, path: str = "pod") -> bool:
        """Return whether the agent's HTTP server listens; it is waited for once."""
        if not self.port or (node, path) not in self._agents:
            return False
        if (node, path) not in self._serving:
            tries = str(int(SERVING_SECONDS * 10))
            cmd = script(_LISTENS, f"{self.port:04X}", tries, timeout=3 * SERVING_SECONDS)
            self._serving[node, path] = self.run(node, cmd, path).ok
        return self._serving[node, path]

    def close(self) -> None:
        """End every shell, and with it what it runs; none is opened any more."""
        with self._lock:
            self._closed = True
        fan_out(PodShell.close, list(self._shells.values()))

    def _new_shell(self, agent: Agent) -> PodShell:
        ctx, namespace = self._ctx, self.wanted.namespace
        shown = agent.node if agent.path == "pod" else f"{agent.node} (host network)"
        return PodShell(shown, lambda argv: ctx.kube(wait=10).open_exec(namespace, agent.pod, argv))

    def _give_sign_of_life(self) -> None:
        with self._lock:
            if time.monotonic() - self._renewed < RENEW_SECONDS:
                return
            self._renewed = time.monotonic()
        with contextlib.suppress(KitError):  # there is time for many more
            agent_space.prolong(self.wanted.namespace, self._ctx.kube(wait=0))

    def _absence(self, missing: Mapping[Place, str]) -> PreconditionError:
        lines = [
            f"{node}: no agent runs{' on the host network' if path == 'host' else ''}: {why}"
            for (node, path), why in missing.items()
        ]
        pulls = any("Pull" in why or "ImageName" in why for why in missing.values())
        remedy = "run the verify stage: it says why pods do not start"
        if pulls:
            remedy = (
                f"the nodes cannot pull {self.wanted.image}: name a copy in a registry that they "
                "reach, with the parameter diagnose.image (verify's pods: probe.image)"
            )
        return PreconditionError("\n".join(lines), remedy=remedy)


@contextmanager
def agents(ctx: Context, wanted: AgentSet) -> Iterator[Agents]:
    """Yield the agents when they run; their namespace is removed whatever happens meanwhile.

    Agents that do not run within `timeouts.verify` seconds are in `missing`, with the reason. With
    `keep` those of a failure stay, until their owner has ended and the next agents are made.

    Raises:
        ApiError: The API is away, or the namespace could not be removed; the remedy says how to.
    """
    try:
        try:
            ctx.perform(wanted.create)
            with contextlib.closing(_running(ctx, wanted)) as found:
                _let_serve(ctx, found)
                yield found
        except BaseException as error:
            if isinstance(error, ApiError) and error.status == 403 and not error.remedy:
                error.remedy = "kit diagnose --rights prints the rights that agents need"
            if not agent_space.is_made(wanted.namespace):
                raise
            if ctx.keep:
                ctx.journal.event("note", text=f"kept: namespace {wanted.namespace}")
            else:
                _remove_after(ctx, wanted, error)
            raise
        try:
            ctx.perform(wanted.remove)
        except KeyboardInterrupt as error:
            _remove_after(ctx, wanted, error)
            raise
    finally:
        agent_space.forget(wanted.namespace)


def _remove_after(ctx: Context, wanted: AgentSet, error: BaseException) -> None:
    """Remove the agents after an error or an interrupt, which stays what the person hears of."""
    interrupted = not isinstance(error, Exception)
    waited = isinstance(error, ApiError) and error.waited  # the API does not come by waiting again
    brief = interrupted or waited
    action = wanted.removal(INTERRUPTED_SECONDS) if brief else wanted.remove
    try:
        ctx.perform(action)
    except KitError as left:
        ctx.journal.event("error", host=CLUSTER, message=str(left))
        told = f"{left.message}; {left.remedy}" if left.remedy else left.message
    except KeyboardInterrupt:
        remedy = agent_space.by_hand(wanted.namespace)
        told = f"namespace {wanted.namespace} may still be there: {remedy}"
    else:
        return
    if isinstance(error, KitError):
        error.remedy = f"{error.remedy}\n  {told}" if error.remedy else told
    elif interrupted:
        raise KeyboardInterrupt(told) from error


def _running(ctx: Context, wanted: AgentSet) -> Agents:
    """Return the agents when all run, or when their time is over."""
    deadline = Deadline(wanted.seconds, "agents running")
    places = [(node, path) for path in wanted.paths for node in wanted.nodes]
    found: dict[Place, Obj] = {}
    missing: dict[Place, str] = {}
    while True:
        try:
            pods = ctx.kube(wait=0).items(f"/api/v1/namespaces/{wanted.namespace}/pods")
        except ApiError as error:
            if not error.retryable or deadline.left < AGAIN:
                raise
            ctx.waiting(CLUSTER, f"agents: {error.message.splitlines()[0]}")
            deadline.sleep(AGAIN)
            continue
        found = {(node_of(pod), path_of(pod)): pod for pod in pods}
        missing = {at: why_not(found.get(at)) for at in places if not runs(found.get(at))}
        if not missing or deadline.left < EVERY:
            break
        _say(ctx, missing, len(places))
        deadline.sleep(EVERY if len(places) < 50 else 1)
    kube = ctx.kube()
    if any(at not in found for at in missing):
        missing |= {at: _why_none(kube, wanted.namespace, at[0]) for at in missing
                    if at not in found}  # fmt: skip
    services = f"/api/v1/namespaces/{wanted.namespace}/services/{SERVICE}"
    address = kube.get(services)["spec"].get("clusterIP", "") if wanted.port else ""
    return Agents(
        wanted=wanted,
        pods=[pod for (_, path), pod in found.items() if path == "pod"],
        missing=missing,
        service_address=address,
        _ctx=ctx,
        _agents={
            (node, path): Agent(node, path, pod["metadata"]["name"], pod["status"]["podIP"])
            for (node, path), pod in found.items()
            if runs(pod)
        },
    )


def _let_serve(ctx: Context, found: Agents) -> None:
    """Wait until the agents' servers listen: a connection before that would be a false finding."""
    if not found.port:
        return
    ctx.waiting(CLUSTER, "agents: their HTTP servers")
    fan_out(lambda agent: found.serves(agent.node, agent.path), found.running)


def _say(ctx: Context, missing: Mapping[Place, str], total: int) -> None:
    if len(missing) <= 6:
        for name in dict.fromkeys(node for node, _ in missing):
            told = [f"{path} agent: {why}" for (node, path), why in missing.items() if node == name]
            ctx.waiting(name, "; ".join(told))
        return
    (node, _), why = next(iter(missing.items()))
    ctx.waiting(CLUSTER, f"agents: {len(missing)} of {total} do not run yet; {node}: {why}")


def _why_none(kube: Kube, namespace: str, node: str) -> str:
    """Return why a node got no pod at all."""
    if kube.find(f"/api/v1/nodes/{node}") is None:
        return "there is no Node of that name"
    events = kube.items(f"/api/v1/namespaces/{namespace}/events")
    refused = [str(event.get("message")) for event in events
               if event.get("reason") == "FailedCreate"]  # fmt: skip
    return refused[-1] if refused else "no pod was made: do diagnose.tolerations fit its taints?"
