"""Run directories with the probes of a network on paper in them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from connectivitykit import Network
from synthetic import Maker

from kitlib.diagnosis.connected import EVIDENCE
from kitlib.samples import PROBES, write_samples

TIMED = {
    "tcp_connect": 0.15, "tcp_rr": 0.3, "http": 0.5, "http_service": 0.6, "dns_cluster_udp": 0.4,
    "dns_cluster_tcp": 0.9,
}  # fmt: skip


def connected_run(root: Path, network: Network, *, seed: int = 3) -> Path:
    """Return a run directory in which a network was probed; times are drawn."""
    maker = Maker(root, 1, seed=seed)
    maker.meta["plugin"] = network.plugin
    maker.meta["params"]["plugin"] = network.plugin
    maker.meta["hosts"] = [
        {"name": name, "address": network.host(name), "role": "worker"} for name in network.names
    ]
    evidence = network.evidence()
    maker.event(
        1.0, EVIDENCE, stage="connectivity",
        nodes=list(evidence.nodes), missing=dict(evidence.missing), skipped={},
        dns_servers=dict(evidence.dns_servers),
        port=evidence.port,
    )  # fmt: skip
    path = maker.write(verdict="PASS")
    draw = np.random.default_rng(seed)
    for probe, table in network.tables().items():
        rows = table.astype({name: "object" for name, column in PROBES[probe].columns.items()
                             if column.kind == "str"}).to_dict("records")  # fmt: skip
        if probe in TIMED:
            rows = _timed(rows, TIMED[probe], draw)
        write_samples(path / "samples" / probe / "0000-0000.parquet", rows)
    return path


def _timed(
    rows: list[dict[str, Any]], base: float, draw: np.random.Generator
) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        for number in range(3):
            took = base * (1.0 if row["path"] == "pod" else 0.6) * float(draw.lognormal(0, 0.4))
            found.append({**row, "round": number, "rtt_ms": math.nan if row["lost"] else took})
    return found
