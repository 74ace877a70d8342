"""How measuring all pairs grows with the number of nodes, and against the naive loop.

Run by `make bench`; writes docs/bench_pairs.md. For each size a lab's cluster comes up, and every
ordered pair is measured on both paths, 20 packets and one to warm up each, with half of the nodes'
number of pairs side by side; charts and report of the record are part of the time. The naive loop,
one pair after another with an exec for each path, is run for some pairs before and after it, in the
same cluster, and extrapolated to all pairs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/e2e", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

from bench_scale import LIMITS, machine_text, usage
from kit_help import lab_kit

from kitlib.measure import PATHS, measure_latency
from kitlib.model import Verdict
from kitlib.probes import pairs, ping
from kitlib.report import write_exports, write_report
from kitlib.runs import load_run
from kitlib.samples import read_samples
from kitlib.session import Session
from kitlib.stages.agents import AgentSet, agents

SIZES = (3, 10, 25, 50)
SAMPLES, INTERVAL = 20, 0.2
NAIVE = 6
"""Pairs that the naive loop measures before, and as many after."""
LEAST_RATIO = 20.0
TIME_FACTOR = 1.0
"""The lab's recorded times unscaled: its kubelets then have the least to do by themselves."""


@dataclass(frozen=True)
class Run:
    """One size.

    Attributes:
        nodes: How many.
        pairs: Ordered pairs that were measured.
        samples: Rows in the record.
        lost: Packets without a reply.
        side_by_side: Pairs at a time.
        measuring: Seconds from the first to the last request, agents included.
        showing: Seconds of charts, their files and the report.
        kit_cpu: Seconds of the kit's CPU of both.
        lab_cpu: Seconds of the lab's CPU while it was measured.
        naive: Seconds that the naive loop took a pair, both paths.
        ended: PASS, or what failed.
        load: The machine's load average before.
    """

    nodes: int
    pairs: int
    samples: int
    lost: int
    side_by_side: int
    measuring: float
    showing: float
    kit_cpu: float
    lab_cpu: float
    naive: float
    ended: str
    load: float

    @property
    def wall(self) -> float:
        """Seconds in all."""
        return self.measuring + self.showing

    @property
    def ratio(self) -> float:
        """How many times as long the naive loop would take for all pairs."""
        return self.naive * self.pairs / self.wall


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the sizes that are asked for, print the page, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--time-factor", type=float, default=TIME_FACTOR)
    parser.add_argument("--page", type=Path, help="write the Markdown page there")
    options = parser.parse_args(argv)
    runs: list[Run] = []
    for size in options.sizes:
        runs.append(measure(size, options.time_factor))
        runs.sort(key=lambda run: run.nodes)
        sys.stdout.write(page(runs) + "\n")
        sys.stdout.flush()
        if options.page:
            options.page.write_text(page(runs))
    return 0 if all(good for good, _ in bounds(runs)) else 1


def measure(size: int, time_factor: float) -> Run:
    """Return what measuring a cluster of that size took."""
    hosts = ["control-plane-1", *(f"worker-{number}" for number in range(1, size))]
    at_a_time = max(size // 2, 1)
    with (
        tempfile.TemporaryDirectory(prefix="kit-bench-") as home,
        lab_kit(
            Path(home),
            hosts,
            time_factor,
            timeouts=LIMITS,
            probe={"samples": SAMPLES, "interval": INTERVAL},
            diagnose={"side_by_side": at_a_time},
        ) as kit,
    ):
        kit.stand("ready")
        load = os.getloadavg()[0]
        with kit.session() as session:
            naive = naive_loop(session, NAIVE, seed=1)
            before, lab_before = cpu(), usage(kit.state_dir)[0]
            began = time.monotonic()
            found = measure_latency(session, 1)
            measured = time.monotonic()
            lab_cpu = usage(kit.state_dir)[0] - lab_before
            session.finish(Verdict.PASS)
            path = session.journal.path
            write_report(path)
            write_exports(path)
            shown = time.monotonic()
            kit_cpu = cpu() - before
        with kit.session() as session:
            naive += naive_loop(session, NAIVE, seed=2)
        rows = read_samples(load_run(path))
        bad = [check for check in found.checks if check.status.value == "FAIL"]
        measured_pairs = len(rows[["src", "dst"]].drop_duplicates())
        return Run(
            nodes=size,
            pairs=measured_pairs,
            samples=len(rows),
            lost=int(rows["lost"].sum()),
            side_by_side=int(rows["side_by_side"].max()),
            measuring=measured - began,
            showing=shown - measured,
            kit_cpu=kit_cpu,
            lab_cpu=lab_cpu,
            naive=sum(naive) / len(naive),
            ended=str(bad[0]) if bad else "PASS",
            load=load,
        )


def naive_loop(session: Session, count: int, *, seed: int) -> list[float]:
    """Return the seconds of so many pairs, measured one after another with an exec for each path.

    The time that its pods take to start is not counted.
    """
    ctx = session.context
    ctx.read_only = False
    image = session.params.probe.image
    wanted = AgentSet.of(ctx, host_network=True, image=image, server=False)
    seconds = []
    with session.exclusive(), agents(ctx, wanted) as running:
        for source, target in pairs.sample(running.nodes, count, seed=seed):
            began = time.monotonic()
            for path in PATHS:
                address = running.agent(target, path).address
                cmd = ping.command(address, count=SAMPLES + 1, interval=INTERVAL)
                pod = running.agent(source, path).pod
                said = session.kube(wait=10).exec(wanted.namespace, pod, cmd, timeout=60)
                ping.parse(said.stdout, count=SAMPLES + 1)
            seconds.append(time.monotonic() - began)
    return seconds


def cpu() -> float:
    """Return the seconds of CPU of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def bounds(runs: Sequence[Run]) -> list[tuple[bool, str]]:
    """Return what is wanted of these runs: whether it holds, and the numbers in words."""
    last = runs[-1]
    whole = [
        run for run in runs if run.ended == "PASS" and run.pairs == run.nodes * (run.nodes - 1)
    ]
    told = [(len(whole) == len(runs), f"{len(whole)} of {len(runs)} sizes have every pair")]
    if last.nodes >= SIZES[-1]:
        told.append(
            (
                last.ratio >= LEAST_RATIO,
                f"{last.pairs:,} pairs of {last.nodes} nodes are measured, charted and reported "
                f"{last.ratio:.1f} times as fast as by the naive loop; at least "
                f"{LEAST_RATIO:g} are wanted",
            )
        )
    return told


def page(runs: Sequence[Run]) -> str:
    """Return the Markdown page of the runs."""
    rows = [
        f"| {run.nodes} | {run.pairs:,} | {run.side_by_side} | {run.samples:,} | {run.lost} | "
        f"{run.measuring:.0f} | {run.showing:.0f} | {run.kit_cpu:.0f} | {run.lab_cpu:.0f} | "
        f"{run.naive:.2f} | {run.naive * run.pairs:.0f} | {run.ratio:.1f} | {run.load:.1f} | "
        f"{run.ended} |"
        for run in runs
    ]
    return "\n".join(
        [
            "# How measuring all pairs grows with the number of nodes",
            "",
            f"Written by `make bench`: every ordered pair of lab nodes on both paths, {SAMPLES} "
            f"packets and one to warm up each, {INTERVAL:g} s apart, half of the nodes' number of "
            "pairs side by side.",
            "",
            f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {machine_text()}",
            *(f"- {'PASS' if good else 'FAIL'}: {what}." for good, what in bounds(runs)),
            "",
            "| nodes | pairs | at a time | samples | lost | measuring s | charts and report s "
            "| kit CPU s | lab CPU s | naive s/pair | naive s, extrapolated | ratio | load before "
            "| ended |",
            "| ---: " * 13 + "| --- |",
            *rows,
            "",
            "`measuring` includes the start and the removal of the agents; `charts and report` are "
            "the HTML page and every chart as PNG, SVG, CSV and Parquet. The naive loop is one "
            "pair after another with an exec for each path. It was not run for all pairs: "
            f"{NAIVE} pairs before and {NAIVE} after the measurement, in the same cluster, give "
            "its seconds for a pair, which are multiplied by the number of pairs; the start of its "
            "pods, charts and a report are not counted for it. Lab hosts share this machine's "
            "cores, so with many pairs side by side latencies are higher than of one at a time.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
