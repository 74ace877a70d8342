"""What was probed between nodes, boiled down to whether it works: the last round's word counts.

A cluster that was mended between two rounds is whole, one that broke is not; so of each pair the
newest round speaks, and a pair works where one of that round's tries did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from kitlib.diagnosis.blame import Pair
from kitlib.plugins import Plugin

__all__ = [
    "Asked", "Evidence", "Route", "Seen", "Tables", "addresses", "answers", "newest", "routes",
    "seen",
]  # fmt: skip

Tables = Mapping[str, pd.DataFrame]
"""Probe -> its rows (`samples.PROBES`); what was not probed is missing or has no rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known besides the samples.

    Attributes:
        nodes: Every node that should have been probed.
        missing: Node without an agent that runs -> why.
        mute: Node whose agent runs, can be sent to, and takes no commands -> why.
        dns_servers: Address of a DNS server's pod -> the node that it is on.
        skipped: Probe -> why it was not run.
        plugin: The catalogue's entry; None for a plugin that it does not know.
        plugin_name: How the plugin is called; empty: not known.
        port: The port on which the agents serve.
    """

    nodes: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    dns_servers: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    plugin: Plugin | None = None
    plugin_name: str = ""
    port: int = 0
    mute: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """The plugin in words."""
        return self.plugin.title if self.plugin else self.plugin_name or "the network plugin"


@dataclass(frozen=True, slots=True)
class Seen:
    """How one probe fared between nodes.

    Attributes:
        works: The pairs of which a try succeeded.
        fails: Pair of which none did -> what was said, in the network's words.
    """

    works: frozenset[Pair] = frozenset()
    fails: Mapping[Pair, str] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """True where anything was tried."""
        return bool(self.works or self.fails)

    def ok(self, pair: Pair) -> bool | None:
        """Return whether a pair works; None where it was not tried."""
        return True if pair in self.works else False if pair in self.fails else None

    def reasons(self, pairs: tuple[Pair, ...] | list[Pair]) -> str:
        """Return what was said of these pairs, the most frequent first; empty for nothing."""
        said = Counter(filter(None, (self.fails.get(pair, "") for pair in pairs)))
        return "; ".join(why for why, _ in said.most_common(2))


@dataclass(frozen=True, slots=True)
class Asked:
    """How a node fared that asked a server; `why` is what was said most often of failures."""

    tries: int
    failed: int
    why: str


@dataclass(frozen=True, slots=True)
class Route:
    """The way from a node to an address of another one.

    Attributes:
        node: Who was asked.
        dst: Whose address it is.
        address: The address.
        via: Next hop; empty for none.
        device: The device; empty: there is no route.
        text: What the kernel said.
    """

    node: str
    dst: str
    address: str
    via: str
    device: str
    text: str


def newest(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the rows of the newest round of each group."""
    if table.empty or table["round"].nunique() == 1:
        return table
    last = table.groupby(keys, observed=True)["round"].transform("max")
    return table[table["round"] == last]


def seen(tables: Tables, probe: str, path: str = "pod") -> Seen:
    """Return how a probe fared between nodes on one path."""
    table = tables.get(probe)
    if table is None or table.empty:
        return Seen()
    own = newest(table[table["path"] == path], ["src", "dst"])
    return _boiled(own)


def answers(tables: Tables, probe: str) -> dict[tuple[str, str], Asked]:
    """Return (node, address asked) -> how the newest round fared, of a probe that asks a server."""
    table = tables.get(probe)
    if table is None or table.empty:
        return {}
    own = newest(table, ["src", "dst_ip"])
    said: dict[tuple[str, str], list[tuple[bool, str]]] = {}
    columns = (_words(own["src"]), _words(own["dst_ip"]), own["lost"], _words(own["reason"]))
    for src, address, lost, why in zip(*columns, strict=True):
        said.setdefault((src, address), []).append((bool(lost), why))
    return {
        key: Asked(
            len(tries),
            sum(lost for lost, _ in tries),
            _commonest(why for lost, why in tries if lost),
        )
        for key, tries in sorted(said.items())
    }


def routes(tables: Tables) -> dict[tuple[str, str], Route]:
    """Return (node, address) -> the way there; the last word on each counts."""
    table = tables.get("routes")
    if table is None or table.empty:
        return {}
    columns = ("node", "dst", "dst_ip", "via", "device", "text")
    ordered = table.sort_values("t", kind="stable")
    rows = zip(*(_words(ordered[name]) for name in columns), strict=True)
    return {(row[0], row[2]): Route(*row) for row in rows}


def addresses(tables: Tables, path: str) -> dict[str, str]:
    """Return node -> its pod's (or its own) address, as the samples say."""
    found: dict[str, str] = {}
    for probe in ("ping", "reach", "tcp_connect", "http"):
        table = tables.get(probe)
        if table is None or table.empty:
            continue
        own = table[table["path"] == path].drop_duplicates(["dst", "dst_ip"], keep="last")
        found |= dict(zip(own["dst"].astype(str), own["dst_ip"].astype(str), strict=True))
    return found


def _words(column: pd.Series[Any]) -> list[str]:
    """Return a column's texts; by its categories, since Arrow's are slow to walk one by one."""
    of = column.astype("category").cat
    names = [*map(str, of.categories), ""]
    return [names[code] for code in of.codes.tolist()]


def _boiled(table: pd.DataFrame) -> Seen:
    """Return which pairs work, from codes instead of names: a table may have 40,000 pairs."""
    ends = [table[end].astype("category").cat for end in ("src", "dst")]
    width = max(len(ends[1].categories), 1)
    place = ends[0].codes.to_numpy("int64") * width + ends[1].codes.to_numpy("int64")
    lost, why = table["lost"].to_numpy(), table["reason"].astype("category").cat
    works, fails = set(place[~lost].tolist()), set(place[lost].tolist())
    names = [list(map(str, end.categories)) for end in ends]
    words = list(map(str, why.categories))
    said = dict(zip(place[lost].tolist(), why.codes[lost].tolist(), strict=True))

    def pair(number: int) -> Pair:
        return names[0][number // width], names[1][number % width]

    return Seen(
        frozenset(map(pair, works)),
        {pair(number): words[said[number]] for number in sorted(fails - works)},
    )


def _commonest(said: Iterable[str]) -> str:
    counted = Counter(filter(None, said))
    return counted.most_common(1)[0][0] if counted else ""
