"""Whether packets get from pod to pod, and where they end: agents, hosts, routes, tunnel, firewall.

From the wire upwards: what a lower rule explains, no higher one tells again. Routes are judged only
where packets are lost, against the routes of pairs that work and what the catalogue knows; so an
odd network that works is no finding.
"""

from __future__ import annotations

from collections import Counter

from kitlib.diagnosis.blame import Blame, Pair, Part, blame, named, natural
from kitlib.diagnosis.case import Case, Reason, at, between, count, said, target_of
from kitlib.diagnosis.seen import Route, Seen, addresses, routes, seen
from kitlib.model import CLUSTER, Status
from kitlib.plugins import Plugin

__all__ = ["judge_paths", "wrapped_in"]


def judge_paths(case: Case) -> None:
    """Add what there is to say of packets between nodes."""
    _agents(case)
    pods, hosts = _packets(case, "pod"), _packets(case, "host")
    _hosts(case, hosts, pods)
    if not pods.judged:
        why = case.why_not("reach", "ping", otherwise="nothing was sent between pods")
        case.skip(Reason.REACH, why)
        return
    _routes(case, pods)
    _datapath(case, pods)
    _echo(case)
    works = len(pods.works)
    if not pods.fails:
        case.well(Reason.REACH, "pods on every node reach those on every other one",
                  f"{works} of {works} pairs")  # fmt: skip


def wrapped_in(plugin: Plugin | None) -> str:
    """Return what must pass between hosts for the plugin's tunnel, in words; empty: not known.

    The port is the one whose purpose names the encapsulation.
    """
    if plugin is None or not plugin.encapsulation:
        return ""
    wanted = plugin.encapsulation.lower().split()[0]
    ports = [
        f"{each.protocol.upper()} port {each.port}"
        for each in plugin.ports
        if wanted in each.what.lower() and each.protocol == "udp"
    ]
    if ports:
        return f"{plugin.encapsulation}, {' and '.join(ports)}"
    if plugin.encapsulation.upper().startswith("IPIP"):
        return "IPIP, IP protocol 4"
    return plugin.encapsulation


def _agents(case: Case) -> None:
    nodes, missing = case.evidence.nodes, case.evidence.missing
    for node, why in missing.items():
        case.explain(
            ((src, dst) for src in nodes for dst in nodes if src != dst and node in (src, dst)),
            Reason.AGENT,
        )
        case.find(
            Reason.AGENT,
            node,
            f"{node} can be probed",
            got=f"no agent answers there: {why}" if why else "no agent answers there",
            expected="an agent on every node",
            remedy=f"kubectl describe node {node}; kubectl get events -A --field-selector "
            f"involvedObject.kind=Pod | grep -i {node}",
        )
    for node, why in case.evidence.mute.items():
        tried = {pair for path in ("pod", "host") for pair in _tried(case, path)}
        case.explain(
            (pair for pair in ((node, dst) for dst in nodes if dst != node) if pair not in tried),
            Reason.AGENT,
        )
        case.find(
            Reason.AGENT,
            node,
            f"{node} can be asked",
            got=f"its agent runs and takes no commands: {why}",
            expected="commands through the API",
            remedy=f"the API server must reach the kubelet of {node} (TCP port 10250): look at "
            f"firewalls between them, and at the kubelet: kubectl get --raw "
            f"/api/v1/nodes/{node}/proxy/healthz",
        )
    if not missing and not case.evidence.mute:
        case.well(Reason.AGENT, "every node was probed", count(nodes, "node"))


def _tried(case: Case, path: str) -> set[Pair]:
    """Return the pairs of which something is known on a path."""
    all_ways = [seen(case.tables, probe, path) for probe in ("reach", "ping", "tcp_connect")]
    return {pair for each in all_ways for pair in (*each.works, *each.fails)}


def _packets(case: Case, path: str) -> Seen:
    """Return which pairs reach each other: by ICMP, or by TCP where that alone passes."""
    echo = _icmp(case, path)
    tcp = [seen(case.tables, probe, path) for probe in ("tcp_connect", "http")]
    works = echo.works.union(*(each.works for each in tcp))
    fails = {**echo.fails}
    if not echo.judged:
        for each in tcp:
            fails = {**each.fails, **fails}
    return Seen(works, {pair: why for pair, why in fails.items() if pair not in works})


def _icmp(case: Case, path: str) -> Seen:
    """Return what the sweep says, and of pairs that it had not what the latencies' pings do."""
    swept, pinged = seen(case.tables, "reach", path), seen(case.tables, "ping", path)
    known = swept.works | set(swept.fails)
    more = {pair: why for pair, why in pinged.fails.items() if pair not in known}
    return Seen(swept.works | (pinged.works - known), {**swept.fails, **more})


def _hosts(case: Case, hosts: Seen, pods: Seen) -> None:
    if not hosts.judged:
        why = case.why_not("host", otherwise="no baseline between the hosts was taken")
        case.skip(Reason.HOST, why)
        return
    left, before = case.left(hosts)
    for cause in blame(left, hosts.works, also_bad=before):
        hurt = [pair for pair in cause.pairs if pods.ok(pair) is False]
        if hurt:
            case.infer(cause.node, cause.part, Reason.HOST, pods.works)
        passes = [pair for pair in cause.pairs if pods.ok(pair)]
        case.explain(hurt, Reason.HOST)
        case.find(
            Reason.HOST,
            target_of(cause),
            "the hosts themselves reach each other",
            got=f"no reply {between(cause)}, host to host{said(hosts, cause)}"
            + (f"; pods on {count(passes)} of them do" if passes else ""),
            expected="a reply: the pods' packets go the same way",
            remedy=f"mend the network below the plugin first: on {at(cause)} look at cable, "
            "address, routes and firewall: ip address; ip route; nft list ruleset",
            status=Status.WARN if passes and not hurt else Status.FAIL,
        )
    if not hosts.fails:
        case.well(Reason.HOST, "the hosts themselves reach each other", count(hosts.works))


def _routes(case: Case, pods: Seen) -> None:
    told = routes(case.tables)
    left, _ = case.left(pods)
    if not told:
        why = case.why_not("routes", otherwise="the hosts were not asked for their routes")
        case.skip(Reason.ROUTE, why)
        return
    ways = _Ways(case, told, pods)
    suspects = {*left, *((dst, src) for src, dst in left)}
    bad = {pair: route for pair in suspects if (route := ways.wrong(pair)) is not None}
    good = {pair for pair in ways.asked if pair not in bad}
    for cause in blame(bad, good):
        hurt = {each for src, dst in cause.pairs for each in ((src, dst), (dst, src))}
        if cause.node:  # of a sample, the way back was perhaps not asked for
            hurt |= {pair for pair in left if cause.node in pair}
        case.explain((pair for pair in left if pair in hurt), Reason.ROUTE)
        case.infer(cause.node, Part.BOTH, Reason.ROUTE, pods.works)
        _one_route(case, cause, bad, told)
    if not bad:
        case.well(Reason.ROUTE, "hosts have a route to the pods of the others",
                  f"{len(ways.asked)} routes asked for")  # fmt: skip


def _one_route(
    case: Case, cause: Blame, bad: dict[Pair, Route], told: dict[tuple[str, str], Route]
) -> None:
    first = bad[cause.pairs[0]]
    shown = first.text.strip().splitlines()[0] if first.text.strip() else "no route"
    how = f"leads to {first.via or 'no next hop'} on {first.device}" if first.device else shown
    others = sorted({dst for _, dst in cause.pairs}, key=natural)
    own = sorted({src for src, _ in cause.pairs}, key=natural)
    network = case.evidence.network
    if cause.part is Part.TARGET:
        got = f"{named(own)} have no route to the pods of {cause.node} ({first.address}: {how})"
        look = (
            f"{network} on {cause.node} has not told the others of its pods: look at its pod there"
        )
    elif cause.part in (Part.SOURCE, Part.BOTH) or len(own) == 1:
        got = f"no route to the pods of {named(others)} ({first.address}: {how})"
        look = f"look at the pod of {network} on {cause.node or own[0]}, which keeps the routes"
    else:
        got = f"no route from {between(cause)[len('between ') :]} ({first.address}: {how})"
        if cause.part is Part.PAIRS:
            got = f"no route for {count(cause.pairs)}: {between(cause)} ({first.address}: {how})"
        look = f"look at the pods of {network} on {at(cause)}, which keep the routes"
    good = next(
        (r for (node, _), r in told.items() if r.device and (node, r.dst) not in bad
         and node in own and r.address != first.address and r.device != "lo"),
        None,
    )  # fmt: skip
    like = f", such as its route to {good.dst}: {good.text.strip()}" if good else ""
    case.find(
        Reason.ROUTE,
        target_of(cause),
        "the host has a route to the pods of the other nodes",
        got=got,
        expected=f"a route by way of the plugin{like}",
        remedy=f"{look}: ip route get {first.address}; {_pods_of(case, cause.node or own[0])}",
    )


class _Ways:
    """The routes to pods, told apart by how they leave a node."""

    def __init__(self, case: Case, told: dict[tuple[str, str], Route], pods: Seen) -> None:
        self._plugin = case.evidence.plugin
        pod = addresses(case.tables, "pod")
        host = addresses(case.tables, "host")
        self._hosts = set(host.values())
        self.asked = {
            (node, route.dst): route
            for (node, address), route in told.items()
            if node != route.dst and pod.get(route.dst, address) == address
            and address not in self._hosts
        }  # fmt: skip
        uplinks: dict[str, Counter[str]] = {}
        for (node, address), route in told.items():
            if address in self._hosts and route.device and node != route.dst:
                uplinks.setdefault(node, Counter())[route.device] += 1
        self.uplink = {node: most.most_common(1)[0][0] for node, most in uplinks.items()}
        self.usual = {self.form(self.asked[pair]) for pair in pods.works if pair in self.asked} - {
            "none"
        }

    def form(self, route: Route) -> str:
        """Return how a route leaves its node."""
        if not route.device or route.device == "lo":
            return "none"
        if self._plugin and self._plugin.owns_interface(route.device):
            return "plugin's device"
        if route.via in self._hosts:
            return "other host"
        if route.device == self.uplink.get(route.node):
            return "gateway" if route.via else "link"
        return f"device {route.device}"

    def wrong(self, pair: Pair) -> Route | None:
        """Return a pair's route where it cannot be right; None where it may."""
        route = self.asked.get(pair)
        if route is None:
            return None
        form = self.form(route)
        if form == "none":
            return route
        if form in ("plugin's device", "other host") or form in self.usual:
            return None
        # Of a network that is not known and never works, only the way out of the cluster is odd.
        return route if self.usual or self._plugin or form == "gateway" else None


def _datapath(case: Case, pods: Seen) -> None:
    """Judge what has routes and is lost all the same: the tunnel, or a firewall that forbids it."""
    left, before = case.left(pods)
    near = seen(case.tables, "reach_gateway", "host")
    ways = _Ways(case, routes(case.tables), pods)
    for cause in blame(left, pods.works, also_bad=before):
        reason = _where_lost(case, cause, near, ways)
        case.explain(cause.pairs, reason)
        case.infer(cause.node, cause.part, reason, pods.works)
        where, node = between(cause), at(cause)
        hosts = "the hosts reach each other" if case.known(Reason.HOST) else ""
        if reason is Reason.TUNNEL:
            what = wrapped_in(case.evidence.plugin)
            plugin = case.evidence.plugin
            used = [ways.asked[pair].device for pair in cause.pairs if pair in ways.asked]
            device = (plugin.interfaces.tunnel if plugin else "") or next(iter(used), "")
            case.find(
                reason,
                target_of(cause),
                "encapsulated packets pass between the hosts",
                got=f"none passes {where}{f' ({what})' if what else ''}{said(pods, cause)}; "
                "routes are there" + (f" and {hosts}" if hosts else ""),
                expected="a reply from pod to pod",
                remedy=f"open {what or 'the tunnel' + chr(39) + 's port'} in every firewall on "
                f"{node} and on the way to it: nft list ruleset; iptables -S; then "
                + (f"ip -d link show {device}" if device else "look at the tunnel's device"),
            )
        elif reason is Reason.FORWARDING:
            case.find(
                reason,
                target_of(cause),
                "hosts forward the packets of pods",
                got=f"no reply {where}{said(pods, cause)}; routes are there"
                + (f" and {hosts}" if hosts else "")
                + (", also through the tunnel" if _gets_there(near, cause) else ""),
                expected="a reply from pod to pod",
                remedy=f"on {node}: sysctl net.ipv4.ip_forward (1); iptables -S FORWARD and nft "
                "list ruleset (a policy or rule that drops); sysctl -a | grep rp_filter; in a "
                "cloud switch the source/destination check of the machine off",
            )
        else:
            case.find(
                reason,
                target_of(cause),
                "pods reach those on other nodes",
                got=f"no reply {where}{said(pods, cause)}",
                expected="a reply",
                remedy=f"look at routes, tunnel and firewall of {node}: ip route; nft list "
                f"ruleset; {_pods_of(case, cause.node)}",
            )


def _where_lost(case: Case, cause: Blame, near: Seen, ways: _Ways) -> Reason:
    """Return what the evidence says of packets that have a route and do not come back."""
    if _gets_there(near, cause):
        return Reason.FORWARDING
    plugin = case.evidence.plugin
    taken = [ways.asked[pair] for pair in cause.pairs if pair in ways.asked]
    if any(plugin and plugin.owns_interface(route.device) for route in taken):
        return Reason.TUNNEL
    if taken and ways.uplink:
        apart = any(route.device != ways.uplink.get(route.node) for route in taken)
        return Reason.TUNNEL if apart else Reason.FORWARDING
    if plugin is None:
        return Reason.REACH
    return Reason.TUNNEL if plugin.encapsulation else Reason.FORWARDING


def _gets_there(near: Seen, cause: Blame) -> bool:
    """Return whether hosts reach the others' end of the pod network, where pods do not.

    Most pairs must say so: one of them may have another fault at its other end.
    """
    tried = [near.ok(pair) for pair in cause.pairs if near.ok(pair) is not None]
    return sum(map(bool, tried)) * 2 > len(tried)


def _echo(case: Case) -> None:
    """Say where echo requests are dropped though TCP passes: then no router can say "too big"."""
    echo, tcp = _icmp(case, "pod"), seen(case.tables, "tcp_connect", "pod")
    hidden = {pair for pair in echo.fails if tcp.ok(pair) and pair not in case.reasons}
    for cause in blame(hidden, echo.works):
        case.explain(cause.pairs, Reason.ICMP)
        case.find(
            Reason.ICMP,
            target_of(cause),
            "pods answer ICMP echo requests",
            got=f"no reply {between(cause)}, though TCP connects",
            expected="a reply: without ICMP no router can say that a packet is too big",
            remedy=f"let ICMP pass between pods on {at(cause)}: a NetworkPolicy of the plugin's "
            "own kind, or a firewall",
            status=Status.WARN,
        )


def _pods_of(case: Case, node: str) -> str:
    """Return the command that shows the plugin's pods on a node."""
    plugin = case.evidence.plugin
    where = "-A"
    if plugin and plugin.workloads:
        first = plugin.workloads[0]
        labels = ",".join(f"{key}={value}" for key, value in first.selector.items())
        where = f"-n {first.namespace} -l {labels}"
    on = f" --field-selector spec.nodeName={node}" if node and node != CLUSTER else ""
    return f"kubectl get pods {where} -o wide{on}"
