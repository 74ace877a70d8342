"""Makes a run directory of any size up: every pair of nodes, up to millions of latency samples.

The network in it has what charts must show: zones (nodes of one zone are no neighbours by name),
one slow node, one node whose packets get lost, one pair that is cut, packets that pay for the
first contact. The same seed gives the same numbers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from synthetic import START, built

from kitlib.samples import SAMPLE_COLUMNS

ZONES = 4
HOST_MS, ZONE_MS, POD_MS = 0.11, 0.42, 0.035
"""Between hosts of a zone; on top for each zone that lies between; on top between pods."""
SLOW_MS = 6.0
UNANSWERED, RARE, OFTEN = 1.0, 0.0002, 0.06
"""Chances of a loss: of the cut pair, of any packet, of a packet to or from the lossy node."""


def make_record(
    root: Path, nodes: int = 200, samples: int = 1_000_000, *, rounds: int = 2, seed: int = 20
) -> Path:
    """Return a run directory below `root` that was measured on so many nodes.

    Args:
        root: Where `lab/<run id>` is made.
        nodes: At least 6: the slow, the lossy and the cut ones are five of them.
        samples: How many packets in all, both paths together, one for each pair and round at least.
        rounds: Files below `samples/ping/`.
        seed: Of every draw.
    """
    maker = built(root, nodes)
    draw = np.random.default_rng(seed)
    src, dst = (each.ravel() for each in np.meshgrid(range(nodes), range(nodes), indexing="ij"))
    apart = src != dst
    src, dst = src[apart], dst[apart]
    left = samples
    for number in range(1, rounds + 1):
        share = left // (rounds - number + 1)
        left -= share
        rows = _round(draw, src, dst, share, number, nodes)
        _write(maker.path / "samples" / "ping" / f"{number:04d}.parquet", rows, maker.names)
    return maker.write("PASS")


def _round(
    draw: Any, src: Any, dst: Any, count: int, number: int, nodes: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of one round: packet by packet through all pairs, so that any cut fits."""
    cells = 2 * len(src)
    cell = np.arange(count) % cells
    seq = np.arange(count) // cells + 1
    pair, pod = cell // 2, cell % 2 == 1
    at, to = src[pair], dst[pair]
    zones = np.abs(at % ZONES - to % ZONES)
    slow, lossy, cut = nodes // 2, nodes // 3, (1, nodes - 2)
    rtt = HOST_MS + ZONE_MS * zones + POD_MS * pod
    rtt = rtt * draw.lognormal(0, 0.12, count) * draw.lognormal(0, 0.05, cells)[cell]
    rtt = rtt + SLOW_MS * pod * ((at == slow) | (to == slow))
    rtt = np.where(draw.random(count) < 0.004, rtt * 4, rtt)
    rtt = np.where(seq == 1, rtt * 2 + 0.3, rtt)
    chance = np.where(pod & ((at == lossy) | (to == lossy)), OFTEN, RARE)
    chance = np.where(pod & (at == cut[0]) & (to == cut[1]), UNANSWERED, chance)
    lost = draw.random(count) < chance
    return {
        "round": np.full(count, number),
        "src": at,
        "dst": to,
        "path": pod,
        "seq": seq,
        "rtt_ms": np.where(lost, np.nan, rtt),
        "lost": lost,
        "warmup": seq == 1,
        "t": START + 40 * number + seq / 5,
    }


def _write(path: Path, rows: dict[str, np.ndarray[Any, Any]], names: list[str]) -> None:
    """Write a round in the format of `samples.write_samples`, without a dictionary for each row."""
    count = len(rows["seq"])
    addresses = [f"10.77.{i // 250}.{i % 250 + 1}" for i in range(len(names))]

    def coded(codes: Any, words: list[str]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype("int32")), pa.array(words))

    columns = {
        **{name: pa.array(each) for name, each in rows.items()},
        "rtt_ms": pa.array(rows["rtt_ms"], mask=rows["lost"]),
        "src": coded(rows["src"], names),
        "dst": coded(rows["dst"], names),
        "src_ip": coded(rows["src"], addresses),
        "dst_ip": coded(rows["dst"], addresses),
        "path": coded(rows["path"], ["host", "pod"]),
        "duplicate": pa.array(np.zeros(count, dtype=bool)),
        "reordered": pa.array(np.zeros(count, dtype=bool)),
        "side_by_side": pa.array(np.full(count, len(names) // 2)),
        "server": coded(np.zeros(count), [""]),
        "reason": coded(np.zeros(count), [""]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: columns[name] for name in SAMPLE_COLUMNS}), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=20)
    given = parser.parse_args()
    print(make_record(given.root, given.nodes, given.samples, seed=given.seed))  # noqa: T201
