"""What the connectivity notebook and the report show of a run: matrix, probes, packet sizes.

All of it is computed from the run directory: the samples, and what the journal says of the probing
(`connectivity.evidence`). A run in which connectivity was not probed has none of it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from kitlib import charts, frames
from kitlib.charts import Picture
from kitlib.diagnosis import pooled
from kitlib.diagnosis.alike import alike, grouped, name_of
from kitlib.diagnosis.blame import Pair, blame
from kitlib.diagnosis.captions import caption
from kitlib.diagnosis.case import between
from kitlib.diagnosis.connectivity import ENDS, Evidence, Judgement, judge
from kitlib.diagnosis.sizes import mtu_pairs, told_too_big
from kitlib.model import Check
from kitlib.runs import Run, load_run
from kitlib.samples import PROBES, read_samples, stamp

__all__ = [
    "EVIDENCE",
    "PROBE_COLUMNS",
    "PROBE_NAMES",
    "connectivity_checks",
    "connectivity_figure",
    "connectivity_table",
    "connectivity_words",
    "explained",
    "mtu_figure",
    "mtu_table",
    "probe_figure",
    "probe_table",
    "probed",
    "throughput_table",
]

EVIDENCE = "connectivity.evidence"
"""The journal's entry with what is known besides the samples."""

NAMED = 16
"""Up to so many rows a matrix has; of more nodes those that behave alike are one."""

PROBE_NAMES: Mapping[str, str] = {
    "ping": "ICMP echo",
    "tcp_connect": "TCP connect",
    "tcp_rr": "TCP request, response",
    "http": "HTTP to a pod",
    "http_service": "HTTP by ClusterIP",
    "dns_cluster_udp": "DNS, cluster name, UDP",
    "dns_cluster_tcp": "DNS, cluster name, TCP",
    "dns_external": "DNS, outside name",
}
"""Probe -> what it is called, in the order in which they are shown."""

PROBE_COLUMNS = ("probe", *pooled.POOLED_COLUMNS)
"""`probe_table`: one row a probe and path; the other columns are those of `pooled.pooled`."""


def probed(run: Run) -> bool:
    """Return whether connectivity was probed in this run."""
    return any(entry.kind == EVIDENCE for entry in run.entries)


def connectivity_checks(run: Run) -> list[Check]:
    """Return what works and what does not, each cause once; empty where it was not probed."""
    return list(_judged(run).checks) if probed(run) else []


def explained(run: Run) -> dict[Pair, str]:
    """Return pair of nodes that gets no reply -> the id of the check that says why."""
    if not probed(run):
        return {}
    silent = {"agent", "host", "route", "tunnel", "forwarding", "reach", "icmp"}
    matrix = _judged(run).matrix
    own = matrix[(matrix["kind"] == "pair") & matrix["reason"].isin(silent)]
    return {
        (str(src), str(dst)): f"connectivity.{reason}"
        for src, dst, reason in zip(own["src"], own["dst"], own["reason"], strict=True)
    }


def connectivity_table(run: Run) -> pd.DataFrame:
    """Return every pair and what each node asks; columns: `connectivity.MATRIX_COLUMNS`."""
    return _judged(run).matrix.copy() if probed(run) else pd.DataFrame()


def connectivity_words(run: Run) -> list[str]:
    """Return in sentences what is to be seen in the matrix."""
    if not probed(run):
        return []
    judgement = _judged(run)
    pairs = judgement.matrix[judgement.matrix["kind"] == "pair"]
    works, fails = ((pairs["state"] == state).sum() for state in ("works", "fails"))
    unknown = len(pairs) - works - fails
    told = [f"{works} of {len(pairs)} ordered pairs work"]
    told += [f"{fails} do not"] if fails else []
    told += [f"{unknown} were not probed"] if unknown else []
    bad = [
        f"{check.target}: {LETTER.get(check.id, '')}{check.got}." for check in judgement.findings
    ]
    more = [f"And {len(bad) - 4} more findings."] if len(bad) > 4 else []
    missing = run.missing.get("connectivity")
    partial = [f"Partial: broken off; missing are {missing}."] if missing else []
    return [", ".join(told) + ".", *bad[:4], *more, *partial]


LETTER = {f"connectivity.{reason}": f"({look[0]}) " for reason, look in charts.LOOKS.items()}


def connectivity_figure(run: Run) -> Picture | None:
    """Return who reaches whom, and why not; None where it was not probed."""
    if not probed(run):
        return None
    matrix, nodes = _judged(run).matrix, list(_evidence(run).nodes)
    groups = alike(matrix, nodes, most=NAMED)
    table = grouped(matrix, groups)
    ends = [end for end in ENDS if ((matrix["dst"] == end) & (matrix["state"] != "unknown")).any()]
    table = table[(table["kind"] == "pair") | table["dst"].isin(ends)]
    names = [name_of(group, groups) for group in groups]
    told = connectivity_words(run)
    used = [reason for reason in charts.LOOKS if reason in set(table["reason"])]
    key = [f"{charts.LOOKS[reason][0]} {charts.LOOKS[reason][3]}" for reason in used]
    folded = len(groups) < len(nodes)
    size = len(names)
    cell = 0.62 if size <= 6 else 0.5 if size <= 11 else 0.42
    margin = 0.5 + 0.075 * max(len(name) for name in names)
    width = max(cell * (size + len(ends) + 0.5) + margin, 6.4)
    lines = [line for each in told for line in textwrap.wrap(each, int(width * 14.5))]
    if key:
        lines += textwrap.wrap("Key: " + "; ".join(key) + ".", int(width * 14.5))
    if folded:
        lines += textwrap.wrap(
            "Nodes that behave alike are one row; numbers in a cell are the pairs that fail of "
            "those that were probed.", int(width * 14.5),
        )  # fmt: skip
    height = cell * size + 0.6 * margin + 0.165 * len(lines) + 1.3
    picture = Picture(
        width, height, caption=caption(run, timing=False),
        alt=f"Matrix of who reaches whom between {len(nodes)} nodes. {' '.join(told)}", square=True,
    )  # fmt: skip
    picture.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5)
    charts.connectivity_matrix(picture.add_subplot(), table, names, ends)
    return picture


def probe_table(run: Run) -> pd.DataFrame:
    """Return what each probe takes on each path, all pairs together; columns: PROBE_COLUMNS.

    Percentiles are of all samples of all pairs and rounds, with 95 % confidence.
    """
    return _probe_table(run.path.resolve(), stamp(run)).copy()


def probe_figure(run: Run) -> Picture | None:
    """Return p50 and p99 of each probe, between pods and between hosts; None without any."""
    table = probe_table(run)
    if table.dropna(subset=["p50_ms"]).empty:
        return None
    said = "; ".join(
        f"{PROBE_NAMES[row['probe']]}, {row['path']}: p50 {row['p50_ms']:.3f} ms, "
        f"p99 {row['p99_ms']:.3f} ms"
        for row in table.dropna(subset=["p50_ms"]).to_dict("records")
    )
    shown = table["probe"].nunique()
    picture = Picture(
        8.8, 1.5 + 0.52 * shown, caption=caption(run, timing=False),
        alt=f"What each probe takes, all pairs together. {said}.",
    )  # fmt: skip
    charts.probe_chart(picture.add_subplot(), table, PROBE_NAMES)
    return picture


def mtu_figure(run: Run) -> Picture | None:
    """Return where packets as large as the interface claims do not pass; None where all do."""
    table = mtu_table(run)
    pods = table[(table["path"] == "pod") & (table["passes_bytes"] > 0)]
    short = pods[pods["passes_bytes"] < pods["interface_mtu"]]
    if short.empty:
        return None
    bars = _bars(pods, short)
    said = "; ".join(
        f"{row['label']}: {row['passes_bytes']} of {row['interface_mtu']} bytes"
        for row in bars.to_dict("records")
    )
    longest = max(len(str(label)) for label in bars["label"])
    picture = Picture(
        7.4 + 0.06 * min(longest, 60), 1.3 + 0.32 * len(bars), caption=caption(run, timing=False),
        alt=f"Largest packet that passes between pods. {said}.",
    )  # fmt: skip
    charts.mtu_bars(picture.add_subplot(), bars)
    return picture


def mtu_table(run: Run) -> pd.DataFrame:
    """Return the newest search of each pair and path; columns: `sizes.MTU_SEEN`."""
    return mtu_pairs({"mtu": read_samples(run, "mtu")})


def throughput_table(run: Run) -> pd.DataFrame:
    """Return each transfer; columns: `samples.THROUGHPUT_COLUMNS` without the time."""
    return read_samples(run, "throughput").drop(columns="t")


_MOST_BARS = 20


def _bars(pods: pd.DataFrame, short: pd.DataFrame) -> pd.DataFrame:
    """Return one line for each short pair, of many for each cause and size."""
    rows: list[dict[str, Any]] = []
    sized = short.assign(told=[told_too_big(str(each)) for each in short["reason"]])
    if len(short) <= _MOST_BARS:
        sized = sized.assign(
            label=sized["src"].astype(str) + " to " + sized["dst"].astype(str)
        ).sort_values(["passes_bytes", "label"])
        return sized[["label", "passes_bytes", "interface_mtu", "told"]]
    bad = set(zip(short["src"].astype(str), short["dst"].astype(str), strict=True))
    good = set(zip(pods["src"].astype(str), pods["dst"].astype(str), strict=True)) - bad
    for cause in blame(bad, good):
        own = sized[[pair in cause.pairs for pair in zip(sized["src"], sized["dst"], strict=True)]]
        for (passes, claims), same in own.groupby(["passes_bytes", "interface_mtu"]):
            label = textwrap.shorten(between(cause), 56, placeholder=" ...")
            rows.append(
                {"label": label, "passes_bytes": passes, "interface_mtu": claims,
                 "told": bool(same["told"].all())}
            )  # fmt: skip
    return pd.DataFrame(rows[:_MOST_BARS])


def _evidence(run: Run) -> Evidence:
    """Return what the journal says besides the samples; the last word counts."""
    told = [entry.data for entry in run.entries if entry.kind == EVIDENCE][-1]

    def words(key: str) -> dict[str, str]:
        return {str(name): str(text) for name, text in (told.get(key) or {}).items()}

    plugin = run.wanted_plugin
    return Evidence(
        tuple(map(str, told.get("nodes") or ())),
        words("missing"),
        words("dns_servers"),
        words("skipped"),
        plugin if plugin and plugin.name else None,
        run.plugin,
        int(told.get("port") or 0),
        words("mute"),
    )


def _judged(run: Run) -> Judgement:
    number = sum(entry.kind == EVIDENCE for entry in run.entries)
    return _judge(run.path.resolve(), (number, stamp(run)))


@lru_cache(maxsize=2)
def _judge(path: Path, _: object) -> Judgement:
    run = load_run(path)
    return judge({probe: read_samples(run, probe) for probe in PROBES}, _evidence(run))


@lru_cache(maxsize=2)
def _probe_table(path: Path, _: object) -> pd.DataFrame:
    parts = []
    for probe in PROBE_NAMES:
        samples = read_samples(Run(path), probe)
        samples = samples[samples["lost"] | samples["rtt_ms"].notna()]  # else it was not timed
        if samples.empty:
            continue
        costs = frames.latency_costs(samples)
        parts.append(pooled.pooled(samples, costs).assign(probe=probe))
    if not parts or set(pd.concat(parts)["probe"]) == {"ping"}:  # that alone is the latency chart
        return pd.DataFrame(columns=list(PROBE_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(PROBE_COLUMNS)]
