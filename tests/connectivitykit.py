"""A network on paper, with faults: what the probes would say of it, packet by packet.

It knows nothing of the rules that judge: a packet goes from pod to bridge, by a route, through a
tunnel or not, and comes back or is lost. What comes of it are the tables that the kit records.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pandas as pd

from kitlib import plugins
from kitlib.diagnosis.connectivity import Evidence
from kitlib.samples import PROBES

Pair = tuple[str, str]
WIRE, T = 1500, 1_795_370_800.0
SERVICE, NAMES = "10.96.0.77", "10.96.0.10"


@dataclass
class Network:
    """What there is, and what is broken; node names are n1, n2, ..."""

    nodes: int = 4
    plugin: str = "flannel"
    known: bool = True
    probes: Iterable[str] = tuple(PROBES)
    pairs_share: float = 1.0
    rounds: int = 1
    # The faults.
    host_down: list[str] = field(default_factory=list)
    no_route: list[list[str]] = field(default_factory=list)
    no_default: bool = False
    tunnel_closed: list[str] = field(default_factory=list)
    forward_drop: list[str] = field(default_factory=list)
    split: list[list[str]] = field(default_factory=list)
    dead_pairs: list[list[str]] = field(default_factory=list)
    hole: Mapping[str, int] = field(default_factory=dict)
    pod_hole: Mapping[str, int] = field(default_factory=dict)
    told: bool = False
    pod_mtu: int = 0
    odd_mtu: Mapping[str, int] = field(default_factory=dict)
    icmp_dropped: list[str] = field(default_factory=list)
    tcp_dropped: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    http_broken: list[str] = field(default_factory=list)
    proxy_broken: list[str] = field(default_factory=list)
    stale_endpoint: bool = False
    dns_dead: list[int] = field(default_factory=list)
    dns_tcp_dead: list[int] = field(default_factory=list)
    upstream_dead: bool = False
    port_53_closed: list[str] = field(default_factory=list)
    policy_ignored: list[str] = field(default_factory=list)
    allow_ignored: list[str] = field(default_factory=list)
    no_agent: list[str] = field(default_factory=list)
    mute: list[str] = field(default_factory=list)
    host_icmp_dropped: list[str] = field(default_factory=list)
    seed: int = 5

    def __post_init__(self) -> None:
        self.names = [f"n{number}" for number in range(1, self.nodes + 1)]
        self.entry = plugins.get(self.plugin)
        self.draw = random.Random(self.seed)
        self.servers = {self.pod(node, 2): node for node in self.names[:2]}
        everything = list(permutations(self.names, 2))
        self.measured = [p for p in everything if self.draw.random() < self.pairs_share]
        self.measured = [p for p in self.measured if not set(p) & set(self.no_agent)]
        self.measured = [p for p in self.measured if p[0] not in self.mute]

    # What is there.

    @property
    def wraps(self) -> bool:
        return bool(self.entry.encapsulation and self.entry.interfaces.tunnel)

    def pod(self, node: str, number: int = 5) -> str:
        return f"10.244.{self.names.index(node)}.{number}"

    def host(self, node: str) -> str:
        return f"10.77.0.{self.names.index(node) + 11}"

    def mtu(self, node: str) -> int:
        over = self.entry.overhead_bytes if self.wraps else 0
        return self.odd_mtu.get(node) or self.pod_mtu or WIRE - over

    # What a packet meets.

    def wire(self, a: str, b: str) -> bool:
        apart = any((a in group) != (b in group) for group in self.split)
        return not {a, b} & set(self.host_down) and not apart

    def one_way(self, a: str, b: str, *, forwarded: bool = True) -> bool:
        if a == b:
            return True
        lost = [a, b] in self.dead_pairs or [b, a] in self.dead_pairs
        firewall = forwarded and {a, b} & set(self.forward_drop)
        closed = self.wraps and b in self.tunnel_closed
        return self.routed(a, b) and self.wire(a, b) and not (lost or firewall or closed)

    def routed(self, a: str, b: str) -> bool:
        return not any(f in (a, "all") and t in (b, "all") for f, t in self.no_route)

    def both_ways(self, a: str, b: str) -> bool:
        return self.one_way(a, b) and self.one_way(b, a)

    def largest(self, a: str, b: str, path: str) -> int:
        over = self.entry.overhead_bytes if self.wraps and path == "pod" else 0
        wire = min([WIRE, *(self.hole[node] for node in (a, b) if node in self.hole)]) - over
        ends = [self.pod_hole[node] for node in (a, b) if node in self.pod_hole and path == "pod"]
        return min([wire, *ends])

    def tcp(self, a: str, b: str) -> str:
        """Return why a connection fails; empty where it does not."""
        if not self.both_ways(a, b) or b in self.tcp_dropped:
            return "timed out"
        return "connection refused" if b in self.refused else ""

    # What the probes say.

    def tables(self) -> dict[str, pd.DataFrame]:
        made = {
            probe: pd.DataFrame(getattr(self, f"_{probe}")(), columns=list(PROBES[probe].columns))
            for probe in self.probes
            if hasattr(self, f"_{probe}")
        }
        return {probe: _typed(frame, probe) for probe, frame in made.items()}

    def evidence(self) -> Evidence:
        return Evidence(
            tuple(self.names),
            dict.fromkeys(self.no_agent, "the pod is Pending"),
            dict(self.servers),
            {},
            self.entry if self.known else None,
            self.plugin if self.known else "their-own-net",
            18765,
            dict.fromkeys(self.mute, "error dialing backend"),
        )

    def _row(self, a: str, b: str, path: str, why: str, **more: Any) -> dict[str, Any]:
        address = self.pod(b) if path == "pod" and b in self.names else ""
        if path == "host":
            address = self.host(b)
        lost = why != ""
        row = {
            "round": 0, "src": a, "dst": b, "src_ip": "", "dst_ip": address, "path": path,
            "seq": 1, "rtt_ms": float("nan") if lost else 0.2, "lost": lost, "duplicate": False,
            "reordered": False, "warmup": False, "side_by_side": 1, "server": "",
            "reason": "" if why == "silence" else why, "t": T,
        }  # fmt: skip
        return row | more

    def _reach(self) -> list[dict[str, Any]]:
        rows = []
        for a, b in self.measured:
            filtered = {a, b} & set(self.icmp_dropped)
            rows.append(
                self._row(a, b, "pod", "" if self.both_ways(a, b) and not filtered else "silence")
            )
            hidden = {a, b} & set(self.host_icmp_dropped)
            rows.append(
                self._row(a, b, "host", "" if self.wire(a, b) and not hidden else "silence")
            )
        return rows

    def _reach_gateway(self) -> list[dict[str, Any]]:
        """From the host to the other one's bridge, of pairs that do not answer each other."""
        rows = []
        for a, b in self.measured:
            if not self.both_ways(a, b) and self.wire(a, b):
                ok = self.one_way(a, b, forwarded=False) and self.one_way(b, a, forwarded=False)
                rows.append(self._row(a, b, "host", "" if ok else "silence"))
        return rows

    def _tcp_connect(self) -> list[dict[str, Any]]:
        return [
            row
            for a, b in self.measured
            for row in (self._row(a, b, "pod", self.tcp(a, b)), self._by_host(a, b))
        ]

    def _http(self) -> list[dict[str, Any]]:
        rows = []
        for a, b in self.measured:
            why = self.tcp(a, b) or ("no answer in 5 s" if b in self.http_broken else "")
            rows += [self._row(a, b, "pod", why), self._by_host(a, b)]
        return rows

    def _by_host(self, a: str, b: str) -> dict[str, Any]:
        ok = self.wire(a, b) and not {a, b} & set(self.host_icmp_dropped)
        return self._row(a, b, "host", "" if ok else "timed out")

    def _http_service(self) -> list[dict[str, Any]]:
        rows = []
        for a in self._agents():
            for seq in range(6):
                behind = self.draw.choice([n for n in self.names if n not in self.no_agent])
                why = "timed out" if a in self.proxy_broken else self.tcp(a, behind)
                if self.stale_endpoint and seq == 3:
                    why = "timed out"
                rows.append(
                    self._row(a, "agents", "pod", why, seq=seq, dst_ip=SERVICE,
                              server="" if why else behind)
                )  # fmt: skip
        return rows

    def _dns(self, protocol: str, *, outside: bool = False) -> list[dict[str, Any]]:
        rows = []
        name = "example.org" if outside else "kubernetes.default.svc.cluster.local"
        for a in self._agents():
            for server in (NAMES, *([] if outside else self.servers)):
                for seq in range(3):
                    asked = server if server != NAMES else self.draw.choice(list(self.servers))
                    dead = self._dead(a, asked, protocol) or (outside and self.upstream_dead)
                    if server == NAMES and a in self.proxy_broken:
                        dead = True
                    why = "connection timed out" if dead else ""
                    rows.append(self._row(a, name, "pod", why, seq=seq, dst_ip=server))
        return rows

    def _dead(self, a: str, server: str, protocol: str) -> bool:
        number, on = list(self.servers).index(server), self.servers[server]
        gone = number in self.dns_dead or (protocol == "tcp" and number in self.dns_tcp_dead)
        return gone or a in self.port_53_closed or not self.both_ways(a, on)

    def _dns_cluster_udp(self) -> list[dict[str, Any]]:
        return self._dns("udp")

    def _dns_cluster_tcp(self) -> list[dict[str, Any]]:
        return self._dns("tcp")

    def _dns_external(self) -> list[dict[str, Any]]:
        return self._dns("udp", outside=True)

    def _mtu(self) -> list[dict[str, Any]]:
        rows = []
        for a, b in self.measured:
            for path in ("pod", "host"):
                alive = self.both_ways(a, b) if path == "pod" else self.wire(a, b)
                claims = self.mtu(a) if path == "pod" else WIRE
                passes = min(claims, self.largest(a, b, path)) if alive else 0
                short = passes < claims
                why = "message too long, mtu 1400" if short and alive and self.told else ""
                rows.append(
                    {"round": 0, "src": a, "dst": b, "path": path, "interface_mtu": claims,
                     "passes_bytes": passes, "fails_bytes": passes + 1 if short else 0,
                     "reason": why, "t": T}
                )  # fmt: skip
        return rows

    def _policy(self) -> list[dict[str, Any]]:
        if not self.entry.network_policy:
            return []
        rows = []
        for a, b in self.measured:
            through = self.tcp(a, b) == ""
            for step, expected in (("open", True), ("deny", False), ("allow", True)):
                reached = through
                if step == "deny" and b not in self.policy_ignored:
                    reached = False
                if step == "allow" and b in self.allow_ignored:
                    reached = False
                rows.append({"round": 0, "src": a, "dst": b, "step": step, "expected": expected,
                             "reached": reached, "reason": "", "t": T})  # fmt: skip
        return rows

    def _routes(self) -> list[dict[str, Any]]:
        rows = []
        for a, b in self.measured:
            if not self.routed(a, b):
                via, device = ("", "") if self.no_default else ("10.77.0.1", "eth0")
            elif self.wraps:
                via, device = f"10.244.{self.names.index(b)}.0", self.entry.interfaces.tunnel
            else:
                via, device = self.host(b), "eth0"
            rows += [self._way(a, b, self.pod(b), via, device),
                     self._way(a, b, self.host(b), "", "eth0")]  # fmt: skip
        return rows

    def _way(self, a: str, b: str, address: str, via: str, device: str) -> dict[str, Any]:
        hop = f" via {via}" if via else ""
        text = f"{address}{hop} dev {device} src {self.host(a)}"
        if not device:
            text = "RTNETLINK answers: Network is unreachable"
        return {"node": a, "dst": b, "dst_ip": address, "via": via, "device": device,
                "device_mtu": WIRE, "text": text, "t": T}  # fmt: skip

    def _agents(self) -> list[str]:
        return [node for node in self.names if node not in (*self.no_agent, *self.mute)]


def _typed(frame: pd.DataFrame, probe: str) -> pd.DataFrame:
    """Return the table with the kinds that reading a record gives."""
    kinds = {
        name: "category" if column.kind == "str" else column.kind
        for name, column in PROBES[probe].columns.items()
        if name in frame
    }
    return frame.astype(kinds)
