"""Which nodes are slow themselves, so that the many slow pairs with them are one finding.

A pair is as slow as the slower of its ends, so a node is judged by its fastest pair: a whole node
has a fast one wherever another whole node is, a slow node has none. That holds from three nodes on;
with two, or with a single whole node among slow ones, nobody can say whose fault it is, and nothing
is said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median

import pandas as pd

from kitlib.diagnosis.limits import Limits
from kitlib.model import CLUSTER, Check, Status

__all__ = ["checks_of_nodes", "fastest_pairs", "slow_nodes"]

SPREAD = 5.0
"""So many typical deviations of the other nodes at least: where zones lie apart, nodes differ."""
LEAST = 3
"""Of fewer nodes none can be told from the others."""


def fastest_pairs(summary: pd.DataFrame, path: str, limit: Limits) -> dict[str, float]:
    """Return each node's fastest pair: its p50 in ms; of nodes with two judged peers or more."""
    own = summary[(summary["path"] == path) & (summary["n"] - summary["lost"] >= limit.replies)]
    ends = pd.concat(
        [
            own.rename(columns={end: "node", other: "peer"})[["node", "peer", "p50_ms"]]
            for end, other in (("src", "dst"), ("dst", "src"))
        ]
    ).dropna()
    of = ends.groupby("node", observed=True)
    enough = of["peer"].nunique() >= LEAST - 1
    fastest = of["p50_ms"].min()[enough]
    return {str(node): float(value) for node, value in fastest.items()}


def slow_nodes(fastest: dict[str, float], limit: Limits) -> list[str]:
    """Return the nodes whose fastest pair is far slower than the other nodes', the slowest first.

    The ratio, the difference and the others' own spread must all be exceeded, against the median of
    the others, which stays where it is with up to half of the nodes slow.
    """
    if len(fastest) < LEAST:
        return []
    found = []
    for node, value in fastest.items():
        others = [each for name, each in fastest.items() if name != node]
        middle = median(others)
        spread = 1.4826 * median(abs(each - middle) for each in others)
        if limit.exceeded(value, middle) and value - middle > SPREAD * spread:
            found.append(node)
    return sorted(found, key=lambda node: (-fastest[node], node))


def checks_of_nodes(
    summary: pd.DataFrame, nodes: Sequence[str], limit: Limits
) -> tuple[list[Check], Collection[str]]:
    """Return one check for each slow node (one for all where there is none), and the slow nodes."""
    pods, hosts = (fastest_pairs(summary, path, limit) for path in ("pod", "host"))
    summary_words = "no node is much slower than the others on all its pairs"
    if len(pods) < LEAST:
        why = f"slow nodes: {LEAST} nodes that answer are needed to tell one from the others"
        return [Check("latency.node", CLUSTER, Status.SKIP, why)], ()
    slow, below = slow_nodes(pods, limit), set(slow_nodes(hosts, limit))
    slow = [node for node in slow if node in set(nodes)]
    if not slow:
        typical = f"median of the nodes' fastest pairs {_ms(median(pods.values()))}"
        return [Check("latency.node", CLUSTER, Status.PASS, summary_words, got=typical)], ()
    found = []
    for node in slow:
        middle = median(value for name, value in pods.items() if name != node)
        got = f"even the fastest pair with it has p50 {_ms(pods[node])}"
        remedy = f"look at the plugin's agent and the load of {node}: kubectl top node {node}"
        if node in below:
            got += f", host to host {_ms(hosts[node])}: the node or its link, not the plugin"
            remedy = (
                f"look at the load and the network interface of {node}: uptime; ip -s link; "
                "tc qdisc; ethtool -S"
            )
        elif node in hosts:
            got += f", host to host only {_ms(hosts[node])}: the plugin's part of the node"
        found.append(
            Check(
                "latency.node",
                node,
                Status.WARN,
                f"{node} is as fast as the other nodes",
                got=got,
                expected=f"near the others' {_ms(middle)}",
                remedy=remedy,
            )
        )
    return found, slow


def _ms(value: float) -> str:
    return f"{value:.3f} ms"
