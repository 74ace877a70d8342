"""Whether what rides on the packets works: TCP, HTTP, Services, names, NetworkPolicy.

A request through a Service goes to a pod that nobody chose, a name is asked of any DNS server: so
where some pairs of nodes do not work, these fail now and then too, and that is no finding of its
own. Only what the dead pairs do not explain is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kitlib.diagnosis.blame import Pair, Part, blame, named
from kitlib.diagnosis.case import (
    HARMLESS,
    Case,
    Reason,
    at,
    between,
    count,
    in_brackets,
    said,
    target_of,
)
from kitlib.diagnosis.seen import Asked, Seen, answers, newest, seen
from kitlib.model import CLUSTER, Status

__all__ = ["judge_served"]

CHANCE = 0.01
"""All of a node's requests through a Service may fail by chance with this probability at most."""
PROXY = "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide"
DNS = "kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide"


def judge_served(case: Case) -> None:
    """Add what there is to say of connections, Services, names and policies."""
    _connections(case)
    _requests(case)
    _services(case)
    _names(case)
    _policies(case)


def _connections(case: Case) -> None:
    tcp = seen(case.tables, "tcp_connect", "pod")
    if not tcp.judged:
        case.skip(Reason.TCP, f"TCP: {case.why_not('tcp_connect', otherwise='not probed')}")
        return
    left, before = case.left(tcp, small=True)
    for cause in blame(left, tcp.works, also_bad=before):
        case.explain(cause.pairs, Reason.TCP)
        case.infer(cause.node, cause.part, Reason.TCP, tcp.works)
        refused = "refused" in tcp.reasons(cause.pairs).lower()
        port = case.evidence.port
        case.find(
            Reason.TCP,
            target_of(cause),
            "pods connect to those on other nodes",
            got=f"TCP port {port}: no connection {between(cause)}{said(tcp, cause)}, though "
            "packets pass",
            expected="a connection",
            remedy=f"nothing listens there: look at the agents' pods on {at(cause)}"
            if refused
            else f"a firewall or a policy drops TCP at {at(cause)}: nft list ruleset; iptables -S; "
            "kubectl get networkpolicies -A, and the plugin's own cluster-wide policies",
        )
    if not tcp.fails:
        case.well(Reason.TCP, "pods connect to those on every other node", count(tcp.works))


def _requests(case: Case) -> None:
    http = seen(case.tables, "http", "pod")
    rr = seen(case.tables, "tcp_rr", "pod")
    both = Seen(
        http.works | (rr.works - http.fails.keys()),
        {**{p: w for p, w in rr.fails.items() if p not in http.works}, **http.fails},
    )
    if not both.judged:
        case.skip(Reason.HTTP, f"HTTP: {case.why_not('http', 'tcp_rr', otherwise='not probed')}")
        return
    left, before = case.left(both)
    for cause in blame(left, both.works, also_bad=before):
        case.explain(cause.pairs, Reason.HTTP)
        case.infer(cause.node, cause.part, Reason.HTTP, both.works)
        case.find(
            Reason.HTTP,
            target_of(cause),
            "pods answer requests of those on other nodes",
            got=f"no answer {between(cause)}{said(both, cause)}, though connections are made",
            expected="an answer",
            remedy=f"look at {at(cause)}: a proxy or an application firewall between pods, or "
            "large answers that vanish (see connectivity.mtu)",
        )
    if not both.fails:
        case.well(Reason.HTTP, "pods answer requests of those on every other node",
                  count(both.works))  # fmt: skip


def _services(case: Case) -> None:
    asked = answers(case.tables, "http_service")
    asked = {key: how for key, how in asked.items() if key[0] not in case.evidence.missing}
    if not asked:
        why = case.why_not("http_service", otherwise="not probed")
        case.skip(Reason.SERVICE, f"Service: {why}")
        return
    share = _reachable(case)
    dead: dict[str, str] = {}
    some: dict[str, str] = {}
    for (node, _), how in asked.items():
        by_chance = (1 - share.get(node, 1.0)) ** how.tries
        if how.failed == how.tries and by_chance <= CHANCE:
            dead[node] = how.why
            case.ends[node, "Service"] = Reason.SERVICE
        else:
            case.tried.add((node, "Service"))
            if how.failed and share.get(node, 1.0) == 1.0:
                some[node] = f"{how.failed} of {how.tries} requests{in_brackets(how.why)}"
    nodes = sorted({node for node, _ in asked})
    address = next(iter(asked))[1]
    everywhere = len(dead) == len(nodes) > 1
    for name in [CLUSTER] if everywhere else sorted(dead):
        where = "every node" if everywhere else name
        words = sorted({why for node, why in dead.items() if why and name in (node, CLUSTER)})
        case.find(
            Reason.SERVICE,
            name,
            "a ClusterIP leads to the pods behind it",
            got=f"no request from {where} through {address} was answered"
            + in_brackets(*words)
            + ", though the same pods answer directly",
            expected="an answer",
            remedy=f"kube-proxy (or what the plugin has instead) on {where}: {PROXY}"
            + ("" if everywhere else f" --field-selector spec.nodeName={name}")
            + "; iptables-save | grep -c KUBE-SVC",
        )
    if some:
        case.find(
            Reason.SERVICE,
            next(iter(some)) if len(some) == 1 else CLUSTER,
            "every request through a ClusterIP is answered",
            got="; ".join(f"{node}: {what} failed" for node, what in sorted(some.items())[:5]),
            expected="an answer to every one",
            remedy="compare the Service's endpoints with the pods that run: kubectl get "
            f"endpointslices -A; {PROXY}",
            status=Status.WARN,
        )
    if not dead and not some:
        case.well(Reason.SERVICE, "a ClusterIP leads to the pods behind it from every node",
                  count(nodes, "node"))  # fmt: skip


def _reachable(case: Case) -> dict[str, float]:
    """Return node -> the share of the agents that it can be expected to reach, its own included."""
    nodes = [node for node in case.evidence.nodes if node not in case.evidence.missing]
    dead = dict.fromkeys(nodes, 0)
    serves = dict.fromkeys(nodes, False)
    for src in nodes:
        for dst in nodes:
            why = case.why((src, dst))
            if src != dst and why is not None and why not in HARMLESS:
                dead[src] += 1
            elif src != dst:
                serves[dst] = True
            if why not in (None, Reason.TCP, Reason.HTTP):
                serves[dst] = True  # what keeps others out need not keep its own pod out
    alone = {node for node in nodes if not serves[node] and len(nodes) > 1}
    return {node: 1 - (dead[node] + (node in alone)) / len(nodes) for node in nodes}


@dataclass(frozen=True, slots=True)
class _Ask:
    """How names fared: one protocol, one name, one server, on each node."""

    probe: str
    server: str
    ok: Mapping[str, bool]
    why: Mapping[str, str]


_PROTOCOL = {"dns_cluster_udp": "UDP", "dns_cluster_tcp": "TCP", "dns_external": "UDP"}


def _names(case: Case) -> None:
    asks = [each for probe in _PROTOCOL for each in _asks(case, probe)]
    if not asks:
        why = case.why_not(*_PROTOCOL, otherwise="not probed")
        case.skip(Reason.DNS, f"DNS: {why}")
        return
    before = len(case.checks)
    broken = _servers(case, [each for each in asks if _is_direct(case, each)])
    _by_service(case, [each for each in asks if not _is_direct(case, each)], broken)
    nodes = {node for each in asks for node in each.ok}
    case.tried |= {(node, "DNS") for node in nodes if (node, "DNS") not in case.ends}
    if len(case.checks) == before:
        well = "names resolve on every node"
        if any(not ok for each in asks for ok in each.ok.values()):
            well = "names resolve wherever a DNS server can be reached"
        case.well(Reason.DNS, well, f"{count(nodes, 'node')}, {count(_known(case), 'server')}")


def _known(case: Case) -> list[str]:
    return sorted(case.evidence.dns_servers)


def _is_direct(case: Case, ask: _Ask) -> bool:
    return ask.server in case.evidence.dns_servers


def _asks(case: Case, probe: str) -> list[_Ask]:
    by_server: dict[str, dict[str, Asked]] = {}
    for (node, server), how in answers(case.tables, probe).items():
        if node not in case.evidence.missing:
            by_server.setdefault(server, {})[node] = how
    return [
        _Ask(
            probe,
            server,
            {node: how.failed < how.tries for node, how in of.items()},
            {node: how.why for node, how in of.items()},
        )
        for server, of in by_server.items()
    ]


def _servers(case: Case, asks: list[_Ask]) -> set[tuple[str, str]]:
    """Judge each DNS server by those who can reach its node; return (server, probe) that fail."""
    failing: dict[str, list[_Ask]] = {}
    for ask in asks:
        host = case.evidence.dns_servers[ask.server]
        able = [node for node in ask.ok if _passes(case, node, host)]
        if able and ask.probe != "dns_external" and not any(ask.ok[node] for node in able):
            failing.setdefault(ask.server, []).append(ask)
    by_host: dict[str, list[str]] = {}
    for server in failing:
        by_host.setdefault(case.evidence.dns_servers[server], []).append(server)
    for host, servers in by_host.items():
        _one_host(case, host, servers, failing, asks)
    _asked_in_vain(case, [ask for ask in asks if ask.server not in failing])
    return {(ask.server, ask.probe) for of in failing.values() for ask in of}


def _one_host(
    case: Case, host: str, servers: list[str], failing: dict[str, list[_Ask]], asks: list[_Ask]
) -> None:
    """Say which DNS servers on a node answer nobody: one finding, as they share what ails them."""
    of = [ask for server in servers for ask in failing[server]]
    protocols = {_PROTOCOL[ask.probe] for ask in of}
    asked = {
        _PROTOCOL[ask.probe]
        for ask in asks
        if ask.server in servers and ask.probe != "dns_external"
    }
    only = f" over {' and '.join(sorted(protocols))}" if protocols != asked else ""
    words = sorted({why for ask in of for why in ask.why.values() if why})
    many = "s" if len(servers) > 1 else ""
    case.ends[host, "DNS"] = Reason.DNS
    case.find(
        Reason.DNS,
        host,
        "each DNS server of the cluster answers",
        got=f"the DNS server{many} {named(servers)} on {host} answer{'' if many else 's'} nobody"
        f"{only}" + in_brackets(*words),
        expected="an answer",
        remedy=f"{DNS} --field-selector spec.nodeName={host}; kubectl -n kube-system logs -l "
        "k8s-app=kube-dns --prefix",
    )


def _asked_in_vain(case: Case, asks: list[_Ask]) -> None:
    """Say which nodes get no answer from servers that answer others, though their pods are met."""
    bad: dict[Pair, str] = {}
    good: set[Pair] = set()
    for ask in asks:
        if ask.probe == "dns_external":
            continue
        host = case.evidence.dns_servers[ask.server]
        for node, ok in ask.ok.items():
            pair = (node, f"{ask.server} on {host} over {_PROTOCOL[ask.probe]}")
            if ok:
                good.add(pair)
            elif _passes(case, node, host):
                bad[pair] = ask.why[node]
    for node in sorted({node for node, _ in bad}):
        servers = sorted(server for who, server in bad if who == node)
        words = sorted({bad[node, server] for server in servers if bad[node, server]})
        case.ends[node, "DNS"] = Reason.DNS
        case.find(
            Reason.DNS,
            node,
            "pods get answers from the DNS servers directly",
            got=f"none on {node} from {named(servers, 3)}"
            + in_brackets(*words)
            + ", which answer others",
            expected="an answer",
            remedy=f"port 53 on the way from {node}: nft list ruleset; iptables -S; kubectl get "
            "networkpolicies -A",
        )


def _by_service(case: Case, asks: list[_Ask], broken: set[tuple[str, str]]) -> None:
    """Judge names asked of the DNS Service, and names outside, where nothing else explains it."""
    blamed: set[str] = set()
    for probe in _PROTOCOL:
        for ask in (each for each in asks if each.probe == probe):
            bad = [
                node
                for node, ok in sorted(ask.ok.items())
                if not ok and node not in blamed and not _explained(case, node, probe, broken)
            ]
            blamed.update(bad)
            if bad:
                _name_finding(case, ask, bad)


def _name_finding(case: Case, ask: _Ask, bad: list[str]) -> None:
    outside = ask.probe == "dns_external"
    words = sorted({ask.why[node] for node in bad if ask.why[node]})
    everywhere = len(bad) == len(ask.ok) > 1
    for node in bad:
        case.ends[node, "DNS"] = Reason.DNS
    where = "any node" if everywhere else named(bad)
    what = "a name outside the cluster" if outside else "a name of the cluster"
    server = ask.server or "the DNS Service"
    case.find(
        Reason.DNS,
        bad[0] if len(bad) == 1 else CLUSTER,
        f"{what} resolves",
        got=f"not on {where} over {_PROTOCOL[ask.probe]}, asked at {server}" + in_brackets(*words),
        expected="an address",
        remedy="names of the cluster do resolve: look at where the DNS servers forward to, and "
        "whether that can be reached: kubectl -n kube-system get configmap coredns -o yaml"
        if outside
        else f"{DNS}; kube-proxy on {where}: {PROXY}",
    )


def _explained(case: Case, node: str, probe: str, broken: set[tuple[str, str]]) -> bool:
    """Return whether what was found already leaves a node without names."""
    if case.ends.get((node, "Service")) is Reason.SERVICE or (node, "DNS") in case.ends:
        return True
    servers = case.evidence.dns_servers
    whole = [
        server
        for server, host in servers.items()
        if _passes(case, node, host)
        and (server, probe if probe != "dns_external" else "dns_cluster_udp") not in broken
    ]
    # Asked of the Service, each try may go to a server that is dead or out of reach.
    return bool(servers) and len(whole) < len(servers)


def _passes(case: Case, node: str, host: str) -> bool:
    """Return whether a node's pods reach those on another node, as far as is known."""
    if node == host:
        return True
    ways = (case.why((node, host)), case.why((host, node)))
    return all(why in (None, *HARMLESS) for why in ways) and host not in case.evidence.missing


def _policies(case: Case) -> None:
    plugin, table = case.evidence.plugin, case.tables.get("policy")
    if table is None or table.empty:
        otherwise = "not probed"
        if plugin is not None and not plugin.network_policy:
            otherwise = f"{plugin.title} does not claim that it has an effect"
        why = case.why_not("policy", otherwise=otherwise)
        case.skip(Reason.POLICY, f"NetworkPolicy: {why}")
        return
    own = newest(table, ["src", "dst", "step"])
    columns = ("src", "dst", "step", "expected", "reached")
    rows = [
        (str(src), str(dst), str(step), bool(expected), bool(reached))
        for src, dst, step, expected, reached in zip(*(own[c] for c in columns), strict=True)
    ]
    open_pairs = {(src, dst) for src, dst, step, _, reached in rows if step == "open" and reached}
    worked = 0
    for step, summary, remedy in (
        (
            "deny",
            "a NetworkPolicy that denies all keeps connections out",
            "policies have no effect",
        ),
        (
            "allow",
            "a NetworkPolicy that allows one sender lets it in",
            "what is allowed is dropped",
        ),
    ):
        tried = [row for row in rows if row[2] == step and (row[0], row[1]) in open_pairs]
        bad = {(src, dst) for src, dst, _, expected, reached in tried if expected != reached}
        good = {(src, dst) for src, dst, _, expected, reached in tried if expected == reached}
        worked += len(good)
        for cause in blame(bad, good):
            case.explain(cause.pairs, Reason.POLICY)
            verb = "passed" if step == "deny" else "did not pass"
            where = cause.node if cause.part is Part.TARGET else at(cause)
            case.find(
                Reason.POLICY,
                target_of(cause),
                summary,
                got=f"{count(cause.pairs, 'connection')} {verb} {between(cause)}",
                expected="no connection" if step == "deny" else "a connection",
                remedy=f"{remedy} on {where}: look at {case.evidence.network}'s pods there and at "
                "its logs; does it run with policies switched on?",
            )
    if not case.known(Reason.POLICY):
        if worked:
            case.well(Reason.POLICY, "NetworkPolicy is honoured: deny, then allow",
                      count(range(worked), "connection"))  # fmt: skip
        else:
            case.skip(Reason.POLICY, "NetworkPolicy: no pair connects without one")
