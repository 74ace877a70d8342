"""What the samples say about the network: loss, pairs that stand out, what the plugin costs.

Few rules, and only such as hold on any network: each compares like with like (a pair with the same
pair's host-to-host baseline, with its own other direction, with the run's median pair) and needs
both a ratio and an absolute difference, so that microseconds on a quiet network are no finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import permutations

import pandas as pd

from kitlib.diagnosis.blame import Blame, Pair, Part, blame, lossy_nodes
from kitlib.diagnosis.case import between, target_of
from kitlib.diagnosis.limits import Limits
from kitlib.diagnosis.slow_nodes import checks_of_nodes
from kitlib.model import Check, Status
from kitlib.runs import Drawn

__all__ = ["checks", "overhead", "standing_out"]

OVERHEAD_COLUMNS = ("src", "dst", "pod_p50_ms", "host_p50_ms", "difference_ms", "ratio")
"""`overhead`: the pod path's median beside the host-to-host median of the same ordered pair;
difference_ms and ratio are the summary's own, set against each other round by round."""


FEW = 5
"""More pairs than that which lost a single packet each are one finding."""
MOST = 20
"""Up to so many pairs get a finding each, the worst first; the others are counted in one more."""


def checks(
    summary: pd.DataFrame,
    nodes: Sequence[str],
    limits: Limits | None = None,
    *,
    drawn: Drawn | None = None,
    missing: str = "",
    explained: Mapping[Pair, str] | None = None,
) -> list[Check]:
    """Return what was found, at least one check a rule.

    Pairs with a node that is slow itself are that node's finding and no other rule's.

    Args:
        summary: `frames.latency_summary` of the samples.
        nodes: Every node that should have been measured.
        limits: From where on a difference counts.
        drawn: Which part of the pairs should have been, where it is a sample.
        missing: What a measurement that was broken off did not come to; empty: it was not.
        explained: Pair that gets no reply -> the check that says why: it is not told again here.
    """
    limit = limits or Limits()
    # Rows are walked below, 40,000 pairs of 200 nodes: Python's own words, not Arrow's one by one.
    summary = summary.astype({"src": object, "dst": object})
    of_nodes, slow = checks_of_nodes(summary, nodes, limit)
    others = summary[~summary["src"].isin(slow) & ~summary["dst"].isin(slow)]
    pods = summary[summary["path"] == "pod"]
    if pods.empty:
        return [
            Check(
                "latency.coverage",
                "cluster",
                Status.SKIP,
                "no pod-to-pod latency was measured in this run",
            )
        ]
    return [
        *_coverage(pods, nodes, drawn, missing),
        *_loss(summary, explained or {}),
        *of_nodes,
        *_directions(others[others["path"] == "pod"], limit),
        *_outliers(others[others["path"] == "pod"], limit),
        *_overhead(others, limit),
    ]


def overhead(summary: pd.DataFrame) -> pd.DataFrame:
    """Return what the pod path costs over the host path; columns: OVERHEAD_COLUMNS."""
    keys = ["src", "dst"]
    pods = summary[summary["path"] == "pod"].set_index(keys)
    host = summary[summary["path"] == "host"].set_index(keys)["p50_ms"].rename("host_p50_ms")
    cost = pods[["p50_ms", "difference_ms", "ratio"]].rename(columns={"p50_ms": "pod_p50_ms"})
    both = pd.concat([cost, host], axis=1, join="inner").dropna().reset_index()
    return both[list(OVERHEAD_COLUMNS)]


def standing_out(
    summary: pd.DataFrame, nodes: pd.DataFrame, factor: float, unit: str, most: int = 3
) -> list[str]:
    """Return what is to be seen in a heat map, in sentences: range, slowest, loss, silence.

    Args:
        summary: `frames.latency_summary`.
        nodes: `frames.latency_nodes`.
        factor: From milliseconds to the unit.
        unit: The unit of the numbers.
        most: How many are named of each.
    """

    def number(value: float) -> str:
        return f"{value * factor:.{0 if value * factor >= 100 else 1}f}"

    pods = summary[summary["path"] == "pod"]
    answered = pods.dropna(subset=["p50_ms"]).sort_values("p50_ms", ascending=False)
    lost, sent = int(pods["lost"].sum()), int(pods["n"].sum())
    told = []
    hosts = summary[summary["path"] == "host"].dropna(subset=["p50_ms"])
    if len(answered):
        told.append(
            f"Pod to pod {number(answered['p50_ms'].min())} to {number(answered['p50_ms'].max())} "
            f"{unit}, median pair {number(answered['p50_ms'].median())}; "
            f"{lost} of {sent} packets lost."
        )
    if len(hosts):
        low, high = hosts["p50_ms"].min(), hosts["p50_ms"].max()
        told.append(f"Host to host {number(low)} to {number(high)} {unit}.")
    told = [" ".join(told)] if told else []
    if len(answered):
        ends = nodes[nodes["path"] == "pod"].dropna(subset=["p50_ms"])
        slowest = ends.sort_values(["p50_ms", "node"], ascending=[False, True]).head(most)
        named = ", ".join(
            f"{node} {number(value)}"
            for node, value in zip(slowest["node"], slowest["p50_ms"], strict=True)
        )
        told.append(f"Slowest nodes by p50 ({unit}): {named}.")
    if lost:
        hurt = nodes[(nodes["path"] == "pod") & (nodes["lost"] > 0)]
        share = (100.0 * hurt["lost"] / hurt["n"]).set_axis(hurt["node"])
        worst = share.sort_values(ascending=False, kind="stable").head(most)
        listed = ", ".join(f"{node} {value:.1f} %" for node, value in worst.items())
        told.append(f"Most loss to and from: {listed}.")
    silent = pods[(pods["lost"] == pods["n"]) & (pods["n"] > 0)]
    if len(silent):
        named = _pairs(zip(silent["src"], silent["dst"], strict=True), most)
        told.append(f"No reply: {named}.")
    if len(answered):
        dearest = answered.head(most)
        slow = ", ".join(
            f"{src} to {dst} {number(value)}"
            for src, dst, value in zip(
                dearest["src"], dearest["dst"], dearest["p50_ms"], strict=True
            )
        )
        told.append(f"Slowest pairs by p50 ({unit}): {slow}.")
    return told


def _coverage(
    pods: pd.DataFrame, nodes: Sequence[str], drawn: Drawn | None, missing: str
) -> list[Check]:
    measured = set(zip(pods["src"], pods["dst"], strict=True))
    pairs = f"{len(measured)} pairs"
    if missing:
        return [
            Check(
                "latency.coverage",
                "cluster",
                Status.WARN,
                "the measurement came to its end",
                got=f"{pairs}; it was broken off, missing are {missing}",
                expected=f"{drawn.measured if drawn else len(nodes) * (len(nodes) - 1)} pairs",
                remedy="measure again; what is here is true of the pairs that are here",
            )
        ]
    if drawn:
        ends = {"source": set(pods["src"]), "target": set(pods["dst"])}
        lacking = [
            f"{node} as {end}"
            for end, seen in ends.items()
            if drawn.measured >= len(nodes)
            for node in nodes
            if node not in seen
        ]
        whole = len(measured) >= drawn.measured and not lacking
        said = [pairs, f"without {', '.join(lacking[:5])}"] if lacking else [pairs]
        what = f"every pair was measured of {drawn}"
        got, expected = ", ".join(said), f"{drawn.measured} pairs"
    else:
        left = [pair for pair in permutations(nodes, 2) if pair not in measured]
        whole = not left
        what = "every ordered pair of nodes was measured"
        got = f"not measured: {_pairs(left)}" if left else pairs
        expected = f"{len(nodes) * (len(nodes) - 1)} pairs"
    return [
        Check.that(
            whole,
            "latency.coverage",
            "cluster",
            what,
            got=got,
            expected=expected,
            remedy="look for a node without a probe pod, then measure again",
        )
    ]


def _loss(summary: pd.DataFrame, explained: Mapping[Pair, str]) -> list[Check]:
    lost = {
        path: {
            (str(src), str(dst)): (int(gone), int(n))
            for src, dst, gone, n in zip(
                *(own[name] for name in ("src", "dst", "lost", "n")), strict=True
            )
        }
        for path, own in summary.groupby("path", observed=True)
    }
    pods = lost["pod"]
    silent = {pair for pair, (gone, n) in pods.items() if gone == n}
    told = silent & explained.keys()
    some = {pair for pair, (gone, _) in pods.items() if gone} - silent
    good = pods.keys() - silent - some
    sick = {pair for pair, (gone, _) in lost.get("host", {}).items() if gone}
    causes = blame(silent - told, good | some, also_bad=told)
    causes += blame(some, good, also_bad=silent)
    found = [_lossy(cause, pods, sick) for cause in causes if cause.part is not Part.PAIRS]
    single = [pair for cause in causes if cause.part is Part.PAIRS for pair in cause.pairs]
    covered = silent.union(*(each.pairs for each in causes if each.part is not Part.PAIRS))
    others = {pair: pods[pair] for pair in pods.keys() - covered} if single else {}
    for node in lossy_nodes(others):
        own = tuple(sorted(pair for pair in single if node in pair))
        if own:
            found.append(_lossy(Blame(Part.BOTH, node, own), pods, sick))
            single = [pair for pair in single if node not in pair]
    once = [pair for pair in single if pods[pair][0] == 1 < pods[pair][1]]
    if len(once) > FEW:
        sent = sum(n for _, n in pods.values())
        found.append(
            Check(
                "latency.loss",
                "cluster",
                Status.WARN,
                "pods get replies from pods on the other nodes",
                got=f"{len(once)} pairs lost one packet each, {100 * len(once) / sent:.2g} % of "
                "all that were sent; no node stands out",
                expected="no loss",
                remedy="send more packets (probe.samples): what stays rare is the network's noise",
            )
        )
        single = [pair for pair in single if pair not in set(once)]
    single.sort(key=lambda pair: (-pods[pair][0] / pods[pair][1], pair))
    for pair in single[:MOST]:
        found.append(_lossy(Blame(Part.PAIRS, "", (pair,)), pods, sick))
    rest = single[MOST:]
    if rest:
        ends = Counter(node for pair in rest for node in pair).most_common(1)
        gone, n = (sum(pods[pair][place] for pair in rest) for place in (0, 1))
        found.append(
            Check(
                "latency.loss",
                "cluster",
                Status.FAIL if silent.intersection(rest) else Status.WARN,
                "pods get replies from pods on the other nodes",
                got=f"{len(rest)} more pairs lost {gone} of {n} packets; most often with "
                f"{ends[0][0]} ({ends[0][1]} of them)",
                expected="no loss",
                remedy=f"begin with {ends[0][0]}; every pair is in the run's samples/",
            )
        )
    if found:
        return sorted(found, key=lambda check: check.status is not Status.FAIL)
    sent = sum(n for _, n in pods.values())
    got, what = f"0 of {sent}", "no packet between pods was lost"
    if told:
        ids = ", ".join(sorted({explained[pair] for pair in told}))
        got = f"but {len(told)} pairs get no reply at all: see {ids}"
        what = "no packet was lost between pods that reach each other"
    return [Check("latency.loss", "cluster", Status.PASS, what, got=got)]


def _lossy(
    cause: Blame, pods: Mapping[Pair, tuple[int, int]], sick_hosts: Collection[Pair]
) -> Check:
    """Return the finding on pairs that lose packets for one cause."""
    gone, n = (sum(pods[pair][place] for pair in cause.pairs) for place in (0, 1))
    where = cause.node or " and ".join(dict.fromkeys(cause.pairs[0]))
    remedy = (
        "the hosts' own path loses packets too: mend the network below the plugin first"
        if cause.pairs[0] in sick_hosts
        else f"the hosts reach each other: look at the plugin's route, its tunnel port and FORWARD "
        f"rules on {where}"
    )
    src, dst = cause.pairs[0]
    one = cause.part is Part.PAIRS
    return Check(
        "latency.loss",
        src if one else target_of(cause),
        Status.FAIL if gone == n else Status.WARN,
        f"pods on {src} get replies from pods on {dst}" if one else "pods get replies from pods",
        got=f"{gone} of {n} packets lost" + ("" if one else f" {between(cause)}"),
        expected="no loss",
        remedy=remedy,
    )


def _directions(pods: pd.DataFrame, limit: Limits) -> list[Check]:
    """A round trip takes both directions, so the two of a pair must agree."""
    judged = pods[pods["n"] - pods["lost"] >= limit.replies]
    both = list(zip(judged["p50_ms"], _floor(judged), strict=True))
    of = dict(zip(zip(judged["src"], judged["dst"], strict=True), both, strict=True))
    odd = [
        f"{src} to {dst} {_ms(p50)}, back {_ms(of[dst, src][0])}"
        for (src, dst), (p50, floor) in of.items()
        if (dst, src) in of
        and limit.exceeded(p50, of[dst, src][0])
        and limit.exceeded(floor, of[dst, src][1])
    ]
    return [
        Check(
            "latency.directions",
            "cluster",
            Status.WARN if odd else Status.PASS,
            "a pair's two directions take the same time",
            got="; ".join(odd[:5]),
            expected=limit.words,
            remedy="look at the load of the node that sends in the slow direction" if odd else "",
        )
    ]


def _outliers(pods: pd.DataFrame, limit: Limits) -> list[Check]:
    judged = pods[pods["n"] - pods["lost"] >= limit.replies]
    median = float(judged["p50_ms"].median()) if len(judged) else 0.0
    floors = _floor(judged)
    least = float(floors.median()) if len(judged) else 0.0
    slow = judged[
        [
            limit.exceeded(p50, median) and limit.exceeded(floor, least)
            for p50, floor in zip(judged["p50_ms"], floors, strict=True)
        ]
    ]
    if slow.empty:
        return [
            Check(
                "latency.slow-pair",
                "cluster",
                Status.PASS,
                "no pair is much slower than the median pair",
                got=f"median of the pairs' p50 {_ms(median)}" if len(judged) else "nothing judged",
            )
        ]
    others = slow.sort_values(["p50_ms", "src", "dst"], ascending=[False, True, True])
    found = []
    named = others.head(MOST)
    for src, dst, p50 in zip(named["src"], named["dst"], named["p50_ms"], strict=True):
        found.append(
            Check(
                "latency.slow-pair",
                src,
                Status.WARN,
                f"{src} to {dst} is as fast as other pairs",
                got=f"p50 {_ms(p50)}",
                expected=f"near the median pair, {_ms(median)}",
                remedy=f"compare the routes between {src} and {dst} with those of a fast pair",
            )
        )
    rest = others.iloc[MOST:]
    if len(rest):
        found.append(
            Check(
                "latency.slow-pair",
                "cluster",
                Status.WARN,
                "the other pairs are as fast as the median pair",
                got=f"{len(rest)} more pairs with p50 {_ms(rest['p50_ms'].min())} to "
                f"{_ms(rest['p50_ms'].max())}",
                expected=f"near the median pair, {_ms(median)}",
                remedy="look at the heat map: whole rows are nodes, whole blocks are zones",
            )
        )
    return found


def _overhead(summary: pd.DataFrame, limit: Limits) -> list[Check]:
    cost = overhead(summary)
    what = "the pod network costs little over host to host"
    if cost.empty:
        skipped = "no host-to-host baseline to compare with"
        return [Check("latency.overhead", "cluster", Status.SKIP, skipped)]
    dear = cost[
        [
            limit.exceeded(pod, host)
            for pod, host in zip(cost["pod_p50_ms"], cost["host_p50_ms"], strict=True)
        ]
    ]
    typical = (
        f"median {_ms(cost['difference_ms'].median(), sign=True)}, "
        f"{cost['ratio'].median():.1f} times the host path"
    )
    if dear.empty:
        return [Check("latency.overhead", "cluster", Status.PASS, what, got=typical)]
    worst = dear.sort_values("difference_ms", ascending=False).iloc[0]
    return [
        Check(
            "latency.overhead",
            "cluster",
            Status.WARN,
            what,
            got=f"{len(dear)} of {len(cost)} pairs cost more; worst {worst['src']} to "
            f"{worst['dst']}: {_ms(worst['pod_p50_ms'])} against {_ms(worst['host_p50_ms'])}",
            expected=limit.words,
            remedy="look at the plugin's encapsulation, its user-space path and the nodes' load",
        )
    ]


def _floor(pairs: pd.DataFrame) -> pd.Series:
    """Return each pair's fastest reply: a slow path has none that is fast, a busy machine has."""
    return pairs["min_ms"] if "min_ms" in pairs else pairs["p50_ms"]


def _ms(value: float, *, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.3f} ms"


def _pairs(pairs: Iterable[tuple[str, str]], most: int = 5) -> str:
    listed = [f"{src} to {dst}" for src, dst in pairs]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
