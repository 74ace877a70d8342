"""Whether packets as large as the interfaces claim pass, and who swallows those that do not.

Each pair's largest packet stands against what the sending interface claims, and the pods' against
the hosts' of the same pair: a hole below the plugin is told once, as the hosts' own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from kitlib.diagnosis.blame import Blame, Pair, Part, blame, named
from kitlib.diagnosis.case import Case, Reason, at, between, count, target_of
from kitlib.diagnosis.seen import Tables, newest
from kitlib.model import CLUSTER, Status

__all__ = ["MTU_SEEN", "judge_sizes", "mtu_pairs", "told_too_big"]

MTU_SEEN = ("src", "dst", "path", "interface_mtu", "passes_bytes", "fails_bytes", "reason")
"""`mtu_pairs`: the newest search of each pair and path; see `samples.MTU_COLUMNS`."""


_TOLD = re.compile(r"frag needed|too (?:long|big)", re.I)


@dataclass(frozen=True, slots=True)
class _Size:
    claims: int
    passes: int
    reason: str

    @property
    def told(self) -> str:
        """What the network said; empty where larger packets vanish."""
        return self.reason if told_too_big(self.reason) else ""

    @property
    def short(self) -> bool:
        return 0 < self.passes < self.claims


def told_too_big(reason: str) -> bool:
    """Return whether the network, or the sender's own kernel, said that a packet is too big."""
    return bool(_TOLD.search(reason))


def mtu_pairs(tables: Tables) -> pd.DataFrame:
    """Return the newest search of each ordered pair and path; columns: MTU_SEEN."""
    table = tables.get("mtu")
    if table is None or table.empty:
        return pd.DataFrame(columns=list(MTU_SEEN))
    own = newest(table, ["src", "dst", "path"]).drop_duplicates(["src", "dst", "path"], keep="last")
    return own[list(MTU_SEEN)].reset_index(drop=True)


def judge_sizes(case: Case) -> None:
    """Add what there is to say of large packets."""
    table = mtu_pairs(case.tables)
    pods, hosts = _sizes(table, "pod"), _sizes(table, "host")
    pods = {pair: size for pair, size in pods.items() if case.why(pair) is None}
    judged = {pair: size for pair, size in pods.items() if size.claims and size.passes}
    if not judged:
        otherwise = "no pair that answers was probed" if len(table) else "it was not probed"
        case.skip(Reason.MTU, f"path MTU: {case.why_not('mtu', otherwise=otherwise)}")
        return
    short = {pair for pair, size in judged.items() if size.short}
    for cause in blame(short, judged.keys() - short, also_bad=case.reasons):
        case.explain(cause.pairs, Reason.MTU)
        _too_small(case, cause, judged, hosts)
    claims = _claims(judged)
    if not short and len(claims) > 1:
        _unlike(case, claims)
    elif not short:
        (mtu,) = claims
        case.well(Reason.MTU, "packets as large as the interfaces claim pass",
                  f"{mtu} bytes on {count(judged)}")  # fmt: skip


def _too_small(
    case: Case, cause: Blame, pods: Mapping[Pair, _Size], hosts: Mapping[Pair, _Size]
) -> None:
    own = [pods[pair] for pair in cause.pairs]
    passes, claims = min(each.passes for each in own), max(each.claims for each in own)
    told = {each.told for each in own if each.told}
    below = [hosts[pair] for pair in cause.pairs if pair in hosts and hosts[pair].passes]
    holed = [each for each in below if each.short]
    got = f"at most {passes} of {claims} bytes pass {between(cause)}"
    got += f" ({'; '.join(sorted(told)[:2])})" if told else "; larger packets vanish without a word"
    plugin = case.evidence.plugin
    overhead = plugin.overhead_bytes if plugin else 0
    if holed:
        got += f"; between the hosts themselves {min(each.passes for each in holed)} of "
        got += f"{max(each.claims for each in holed)}"
        remedy = (
            f"a link below the plugin at {at(cause)} takes less than its interfaces claim: mend "
            f"it (switch, tunnel, cloud network), or set the pods' MTU to {passes}"
        )
    elif below and cause.part is Part.ALL:
        wire = min(each.passes for each in below)
        remedy = f"set the pods' MTU to {passes} (parameter mtu): the hosts pass {wire} bytes" + (
            f" and {plugin.encapsulation} takes {overhead}"
            if plugin and plugin.encapsulation and overhead
            else ""
        )
    else:
        remedy = (
            f"on {at(cause)} look for what drops large packets: nft list ruleset; iptables -S; "
            f"ip -d link (the tunnel's and the bridge's mtu); or set the pods' MTU to {passes}"
        )
    case.find(
        Reason.MTU,
        target_of(cause),
        "packets as large as the pods' interfaces claim pass",
        got=got,
        expected=f"{claims} bytes",
        remedy=remedy,
        status=Status.WARN if told else Status.FAIL,
    )


def _unlike(case: Case, claims: Mapping[int, list[str]]) -> None:
    usual = max(claims, key=lambda mtu: (len(claims[mtu]), mtu))
    odd = {mtu: nodes for mtu, nodes in claims.items() if mtu != usual}
    nodes = sorted({node for each in odd.values() for node in each})
    case.find(
        Reason.MTU,
        nodes[0] if len(nodes) == 1 else CLUSTER,
        "pods have the same MTU on every node",
        got="; ".join(f"{mtu} on {named(sorted(of))}" for mtu, of in sorted(odd.items())),
        expected=f"{usual}, as on {count(claims[usual], 'node')}",
        remedy="compare the hosts' interfaces (ip link), then restart the plugin's pod on "
        f"{named(nodes, 3)}",
        status=Status.WARN,
    )


def _claims(judged: Mapping[Pair, _Size]) -> dict[int, list[str]]:
    found: dict[int, set[str]] = {}
    for (src, _), size in judged.items():
        found.setdefault(size.claims, set()).add(src)
    return {mtu: sorted(nodes) for mtu, nodes in found.items()}


def _sizes(table: pd.DataFrame, path: str) -> dict[Pair, _Size]:
    own = table[table["path"] == path]
    columns = ("src", "dst", "interface_mtu", "passes_bytes", "reason")
    return {
        (str(src), str(dst)): _Size(int(claims), int(passes), str(reason))
        for src, dst, claims, passes, reason in zip(*(own[name] for name in columns), strict=True)
    }
