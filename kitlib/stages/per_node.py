"""A network without a manifest, host by host: its plan, what it writes, and how it is judged.

The podCIDR of a Node is the cluster's to give, so all of this comes after the join, in `ready`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, PreconditionError
from kitlib.facts import HostFacts
from kitlib.fanout import fan_out
from kitlib.kube import Obj
from kitlib.model import CLUSTER, Check
from kitlib.plugins import Plugin
from kitlib.retry import Deadline
from kitlib.software import node_network, units
from kitlib.stages.base import Action, Context, Hands, Plan
from kitlib.stages.observe import in_the_cluster

__all__ = ["check", "plan"]

POD_CIDR_SECONDS = 30.0
"""How long a Node that has joined may be without a podCIDR."""
_LATER = "the podCIDR that the cluster gives its Node"
_FILES = 'for f in "$@"; do echo "@@ $f"; cat "$f" 2>/dev/null; done'
_UNIT = 'systemctl is-enabled "$1" && systemctl is-active "$1"'


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one host should hold.

    Attributes:
        pods: Its podCIDR; empty in a dry run before there is a Node.
        ways: The other nodes' podCIDR -> their address.
        configuration: The CNI file's text.
        script: The text of the program that keeps routes and rule.
        unit: The text of the unit that runs it.
    """

    pods: str
    ways: Mapping[str, str]
    configuration: str
    script: str
    unit: str


@dataclass(frozen=True, slots=True)
class _Lacks:
    """What a host lacks of it, each in words; all empty where all is well.

    Attributes:
        stale: Routes into the pod network that lead to the wrong node.
        keeper: What is wrong with routes, rule and the program that keeps them.
        unit: What is wrong with the unit.
        file: What is wrong with the CNI file.
    """

    stale: tuple[str, ...] = ()
    keeper: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    file: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return all of it."""
        stale = tuple(f"route {net} leads elsewhere" for net in self.stale)
        return "; ".join((*stale, *self.keeper, *self.unit, *self.file))


def plan(ctx: Context) -> Plan:
    """Return what has to be written on each host; none where all have it.

    Raises:
        PreconditionError: The cluster gives a Node no podCIDR.
    """
    wanted = _wanted(ctx)
    lacks = _all_lacks(ctx, wanted)
    actions = [a for name in wanted for a in _actions(ctx.plugin, name, wanted[name], lacks[name])]
    files = "routes, masquerade rule and CNI file"
    return Plan(tuple(actions), "" if actions else f"every host has its {files} as they should be")


def check(ctx: Context) -> Check:
    """Return whether every host that is in the cluster has what it should. Reads only."""
    wanted = _wanted(ctx, wait=False)
    lacks = {name: str(each) for name, each in _all_lacks(ctx, wanted).items()}
    bad = [f"{name}: {text}" for name, text in lacks.items() if text]
    return Check.that(
        not bad,
        "network.applied",
        CLUSTER,
        f"every host has {ctx.plugin.title}'s routes, masquerade rule and CNI file",
        got="; ".join(bad) or "all",
        expected="all of them",
        remedy=f"run the ready stage; journalctl -u {units.unit_name(ctx.plugin.name)} on the host "
        "says what its unit met",
    )


def _wanted(ctx: Context, *, wait: bool = True) -> dict[str, _Wanted]:
    """Return host -> what it should hold."""
    nodes = _nodes(ctx, wait=wait)
    known = nodes is not None
    facts = ctx.facts()
    names = in_the_cluster(ctx) if known else list(facts)
    found = {}
    for name in names:
        node = (nodes or {}).get(name)
        if known and node is None:
            continue  # that a host has no Node is another check's finding
        pods = _pods(node) if node else ""
        ways = {
            _pods(other): _address(other)
            for who, other in (nodes or {}).items()
            if who != name and _pods(other) and _address(other)
        }
        found[name] = _Wanted(
            pods,
            ways,
            node_network.cni_configuration(ctx.plugin, pods, _mtu(facts[name], node)),
            node_network.keeper_script(ctx.plugin, ctx.params.effective_pod_cidr, ways),
            node_network.keeper_unit(ctx.plugin),
        )
    return found


def _nodes(ctx: Context, *, wait: bool) -> dict[str, Obj] | None:
    """Return the Nodes by name, each with its podCIDR; None where a dry run finds no cluster yet.

    Raises:
        PreconditionError: A Node got no podCIDR in that time.
    """
    if not ctx.facts()[ctx.administrator.name].kubeadm.initialised:
        return None
    deadline = Deadline(POD_CIDR_SECONDS, "a podCIDR of every Node")
    while True:
        try:
            nodes = {node["metadata"]["name"]: node for node in ctx.kube().items("/api/v1/nodes")}
        except ApiError:
            if ctx.read_only:
                return None
            raise
        without = [name for name, node in nodes.items() if not _pods(node)]
        if not without or not wait or ctx.read_only:
            return nodes
        if deadline.left < 1:
            raise PreconditionError(
                f"{', '.join(without)}: the cluster gives it no podCIDR",
                remedy="was the cluster made with a pod CIDR (kubeadm's podSubnet), and is it "
                "large enough? the log of kube-controller-manager says why",
            )
        for name in without:
            ctx.waiting(name, "a podCIDR from kube-controller-manager")
        deadline.sleep(0.5)


def _all_lacks(ctx: Context, wanted: Mapping[str, _Wanted]) -> dict[str, _Lacks]:
    facts = ctx.facts()

    def look(name: str) -> _Lacks:
        return _lacks(ctx, wanted[name], facts[name])

    return fan_out(look, wanted).raise_first()


def _lacks(ctx: Context, wanted: _Wanted, here: HostFacts) -> _Lacks:
    plugin, pod_cidr = ctx.plugin, ctx.params.effective_pod_cidr
    files = _paths(plugin)
    read = ctx.read(
        here.name, script(_FILES, *files.values(), label="read the pod network's files")
    )
    texts = dict(part.split("\n", 1) for part in read.stdout.split("@@ ")[1:])
    there = {r.destination: r.gateway for r in here.routes or () if r.gateway}
    missing = [net for net, via in wanted.ways.items() if there.get(net) != via]
    stale = [n for n in there if _inside(n, pod_cidr) and n not in wanted.ways]
    keeper = [f"no route to {net} via {wanted.ways[net]}" for net in missing]
    if texts.get(files["script"]) != wanted.script:
        keeper.append(f"{files['script']} is not as it should be")
    if not ctx.read(here.name, node_network.rule_is_there(plugin, pod_cidr)).ok:
        keeper.append("no masquerade rule")
    unit = []
    name = f"{units.unit_name(plugin.name)}.service"
    if texts.get(files["unit"]) != wanted.unit:
        unit.append(f"{files['unit']} is not as it should be")
    elif not ctx.read(here.name, script(_UNIT, name, label=f"is {name} at work")).ok:
        unit.append(f"{name} does not run, or not from the host's start on")
    file = [f"{files['configuration']} is not as it should be"]
    same = texts.get(files["configuration"]) == wanted.configuration
    return _Lacks(tuple(stale), tuple(keeper), tuple(unit), () if same else tuple(file))


def _actions(plugin: Plugin, name: str, wanted: _Wanted, lacks: _Lacks) -> list[Action]:
    files = _paths(plugin)
    actions = []
    if lacks.stale:
        command = script(
            'for r in "$@"; do ip -4 route delete "$r" || exit 1; done', *lacks.stale, mutates=True
        )
        what = f"delete routes that lead to no node's pods: {', '.join(lacks.stale)}"
        actions.append(Action(name, what, command))
    if lacks.keeper:
        ways = ", ".join(f"{net} via {via}" for net, via in wanted.ways.items())
        ways = ways or "one to each other node's podCIDR, as the cluster gives them"
        once = Cmd.change("sh", files["script"], "once")
        what = (
            f"routes: {ways}; masquerade what leaves the pod network: {files['script']}, "
            "and run it once"
        )
        actions.append(
            Action(name, what, once, do=_writer(name, wanted.script, files["script"], once))
        )
    if lacks.unit:
        start = units.start_unit(plugin.name)
        what = f"write {files['unit']}, which keeps them there, also after a restart; start it"
        actions.append(
            Action(name, what, start, do=_writer(name, wanted.unit, files["unit"], start))
        )
    if lacks.file:
        what = (
            f"write {files['configuration']}: bridge {plugin.interfaces.pod.name}, pods' addresses "
            f"from {wanted.pods or _LATER}"
        )
        actions.append(
            Action(name, what, do=_writer(name, wanted.configuration, files["configuration"]))
        )
    return actions


def _writer(name: str, text: str, path: str, after: Cmd | None = None) -> Callable[[Hands], None]:
    """Return what writes a file on a host, and then runs what goes with it."""

    def do(hands: Hands) -> None:
        hands.run(name, Cmd.change("mkdir", "-p", path.rpartition("/")[0]))
        hands.put(name, text, path)
        if after is not None:
            hands.run(name, after)

    return do


def _paths(plugin: Plugin) -> dict[str, str]:
    assert plugin.per_node is not None  # noqa: S101 - its callers ask for such plugins alone
    return {
        "configuration": f"{node_network.CNI_DIRECTORY}/{plugin.per_node.file}",
        "script": node_network.keeper_path(plugin),
        "unit": units.unit_path(plugin.name),
    }


def _pods(node: Obj) -> str:
    return str(node.get("spec", {}).get("podCIDR") or "")


def _address(node: Obj) -> str:
    addresses = node.get("status", {}).get("addresses") or []
    return next((str(a["address"]) for a in addresses if a["type"] == "InternalIP"), "")


def _mtu(here: HostFacts, node: Obj | None) -> int:
    """Return the MTU of the device that leads to the other nodes; 0 where it is not known."""
    own = _address(node) if node else ""
    for link in here.links or ():
        if own and own in (address.partition("/")[0] for address in link.addresses):
            return link.mtu
    return 0


def _inside(destination: str, network: IPv4Network) -> bool:
    try:
        return IPv4Network(destination).subnet_of(network)
    except ValueError:  # `default`
        return False
