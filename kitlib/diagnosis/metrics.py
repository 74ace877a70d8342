"""The headline figures of a run as OpenMetrics text, for a textfile collector or a push gateway.

All are gauges, so that the same text is read by collectors of the older Prometheus format too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kitlib.diagnosis import connected, readiness, summary
from kitlib.runs import Run

__all__ = ["Family", "families", "openmetrics", "text_of"]

QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}


@dataclass(slots=True)
class Family:
    """One metric: its name ends with its unit, where it has one.

    Attributes:
        name: The name.
        help: What it is.
        unit: `seconds` or `ratio`; empty for none.
        samples: Labels and value, each.
    """

    name: str
    help: str
    unit: str = ""
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)


def openmetrics(run: Run) -> str:
    """Return the run's figures as OpenMetrics text; what was not measured is left out."""
    return text_of(families(run))


def families(run: Run) -> list[Family]:
    """Return the run's figures; every sample has the labels `cluster` and `plugin`."""
    labels = {"cluster": run.cluster, "plugin": run.plugin}
    passed = Family("kit_run_passed", "Whether the run's verdict is PASS (1) or another (0).")
    passed.samples.append((labels, float(run.verdict == "PASS")))
    lab = Family("kit_run_lab", "Whether the hosts are a lab's, with emulated times (1), or real.")
    lab.samples.append((labels, float(run.provenance.is_lab)))
    ended = Family("kit_run_end_timestamp_seconds", "When the run ended, Unix time.", "seconds")
    ended.samples.append((labels, math.nan if run.ended is None else run.ended))
    return [
        passed, lab, ended,
        *_latency(run, labels), _ready(run, labels), *_connectivity(run, labels),
    ]  # fmt: skip


def _latency(run: Run, labels: Mapping[str, str]) -> list[Family]:
    trip = Family(
        "kit_round_trip_seconds", "Round-trip time of all packets of all pairs.", "seconds"
    )
    low = Family("kit_round_trip_low_seconds", "Lower bound of it with 95 % confidence.", "seconds")
    high = Family(
        "kit_round_trip_high_seconds", "Upper bound of it with 95 % confidence.", "seconds"
    )
    packets = Family("kit_packets", "Packets sent after warm-up.")
    loss = Family("kit_packet_loss_ratio", "Share of packets without a reply.", "ratio")
    cost = Family(
        "kit_pod_cost_seconds", "Pods' median less the hosts' of the same pair and round.",
        "seconds",
    )  # fmt: skip
    times = Family(
        "kit_pod_cost_ratio", "Pods' median over the hosts' of the same pair and round.", "ratio"
    )
    for row in summary.latency_pooled(run).to_dict("records"):
        own = {**labels, "path": str(row["path"])}
        for name, quantile in QUANTILES.items():
            of = {**own, "quantile": quantile}
            for family, part in ((trip, ""), (low, "_low"), (high, "_high")):
                family.samples.append((of, float(row[f"{name}{part}_ms"]) / 1000))
        packets.samples.append((own, float(row["n"])))
        loss.samples.append((own, float(row["loss_pct"]) / 100))
        cost.samples.append((own, float(row["difference_ms"]) / 1000))
        times.samples.append((own, float(row["ratio"])))
    return [trip, low, high, packets, loss, cost, times]


def _connectivity(run: Run, labels: Mapping[str, str]) -> list[Family]:
    pairs = Family("kit_connectivity_pairs", "Ordered pairs of nodes that work, fail, or unknown.")
    asks = Family("kit_connectivity_ends", "Nodes on which a Service or DNS works or fails.")
    seen: Counter[tuple[str, str]] = Counter()
    for row in connected.connectivity_table(run).to_dict("records"):
        seen[str(row["dst"]) if row["kind"] == "end" else "", str(row["state"])] += 1
    for (end, state), count in sorted(seen.items()):
        family = asks if end else pairs
        of = {**labels, **({"what": end} if end else {}), "state": state}
        family.samples.append((of, float(count)))
    took = Family("kit_probe_seconds", "What a probe takes, all pairs together.", "seconds")
    for row in connected.probe_table(run).to_dict("records"):
        for name, quantile in QUANTILES.items():
            of = {"probe": row["probe"], "path": row["path"], "quantile": quantile}
            took.samples.append(({**labels, **of}, float(row[f"{name}_ms"]) / 1000))
    return [pairs, asks, took]


def _ready(run: Run, labels: Mapping[str, str]) -> Family:
    family = Family(
        "kit_node_ready_seconds", "From a node's first phase to Ready, over the nodes.", "seconds"
    )
    if summary.readiness_figure(run) is None or summary.ready_before(run):
        return family
    took = summary.readiness_table(run)[readiness.PHASES["ready"]].dropna()
    for quantile in (0.5, 1.0) if len(took) else ():
        value = float(took.quantile(quantile))
        family.samples.append(({**labels, "quantile": f"{quantile:g}"}, value))
    return family


def text_of(listed: Iterable[Family]) -> str:
    """Return families as OpenMetrics text, without values that are not known."""
    lines = []
    for family in listed:
        known = [(labels, value) for labels, value in family.samples if math.isfinite(value)]
        if not known:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} gauge")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}")
        for labels, value in known:
            inside = ",".join(f'{name}="{_escaped(each)}"' for name, each in labels.items())
            lines.append(f"{family.name}{{{inside}}} {value!r}")
    return "\n".join([*lines, "# EOF", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
