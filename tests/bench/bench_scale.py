"""How a build grows with the number of hosts: wall time, the kit's own CPU, the lab's.

Run by `make bench`; writes docs/bench.md. For each size a lab of that many hosts comes up, with the
recorded times unscaled, and the bootstrap notebooks build a cluster on it. The kit's CPU time is
that of one process and all that it started and waited for (its notebook kernels); the lab's is
read from /proc, and is what this machine spends on being the hosts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/e2e", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

import yaml
from kit_help import lines, params_for, stage_ends
from lab_help import running_lab

from kitlib.lab import machine
from kitlib.pipeline import build
from kitlib.session import Session
from kitlib.stages import STAGE_NAMES

SIZES = (3, 10, 25, 50)
LIMITS = {"command": 900, "init": 1800, "join": 1800, "ready": 1800, "verify": 1800}
MOST_RATIO, MOST_CPU = 3.0, 2.0
"""What is wanted: 50 hosts in three times the time of 3, two seconds of the kit's CPU a host."""


@dataclass(frozen=True)
class Run:
    """One build of one size.

    Attributes:
        hosts: How many.
        ended: PASS, or the first line of what failed.
        wall: Seconds of the build.
        kit_cpu: Seconds of CPU of the kit and its kernels.
        lab_cpu: Seconds of CPU of the lab's processes meanwhile.
        lab_memory: Resident megabytes of the lab's processes at the end.
        up: Seconds until the lab was up.
        stages: Stage -> seconds.
        load: The machine's load average before.
    """

    hosts: int
    ended: str
    wall: float
    kit_cpu: float
    lab_cpu: float
    lab_memory: float
    up: float
    stages: dict[str, float]
    load: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sizes that are asked for, print the table, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--time-factor", type=float, default=1.0)
    parser.add_argument("--page", type=Path, help="write the Markdown page there")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.build:
        with Session.open(options.build) as session:
            build(session, diagnostics=())
        return 0
    runs = []
    for size in options.sizes:
        runs.append(measure(size, options.time_factor))
        runs.sort(key=lambda run: run.hosts)
        sys.stdout.write(page(runs, options.time_factor) + "\n")
        sys.stdout.flush()
        if options.page:
            options.page.write_text(page(runs, options.time_factor))
    told = bounds(runs)
    sys.stdout.write(
        "\n".join(f"{'PASS' if good else 'FAIL'}  {what}" for good, what in told) + "\n"
    )
    return 0 if all(good for good, _ in told) else 1


def bounds(runs: Sequence[Run]) -> list[tuple[bool, str]]:
    """Return what is wanted of these runs: whether it holds, and the numbers in words."""
    first, last = runs[0], runs[-1]
    ratio, cpu = last.wall / first.wall, last.kit_cpu / last.hosts
    built = [run for run in runs if run.ended == "PASS"]
    told = [
        (len(built) == len(runs), f"{len(built)} of {len(runs)} builds end in PASS"),
        (
            last.ended == "PASS" and cpu <= MOST_CPU,
            f"{last.hosts} hosts need {cpu:.2f} s of the kit's CPU each; "
            f"at most {MOST_CPU:g} s are wanted",
        ),
    ]
    if last.hosts > first.hosts:  # of one size alone there is no ratio to judge
        within = {first.ended, last.ended} == {"PASS"} and ratio <= MOST_RATIO
        what = f"{last.hosts} hosts take {ratio:.2f} times the wall time of {first.hosts}"
        told.append((within, f"{what}; at most {MOST_RATIO:g} are wanted"))
    return told


def measure(size: int, time_factor: float) -> Run:
    """Return what one build of that size took."""
    hosts = ["control-plane-1", *(f"worker-{number}" for number in range(1, size))]
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as folder:
        home, load, began = Path(folder), os.getloadavg()[0], time.monotonic()
        with running_lab(home / ".lab", hosts=hosts, time_factor=time_factor) as lab:
            up = time.monotonic() - began
            params = home / "params" / "bench.yaml"
            params.parent.mkdir()
            params.write_text(yaml.safe_dump(params_for(lab.spec, timeouts=LIMITS)))
            before, _ = usage(home / ".lab")
            began = time.monotonic()
            code, cpu, said = build_apart(params)
            wall = time.monotonic() - began
            after, memory = usage(home / ".lab")
        records = [*(home / "runs").glob("*/*/run.json")]
        if not records:
            ended = (said.strip().splitlines() or [f"exit status {code}"])[-1]
            return Run(size, ended, wall, cpu, after - before, memory, up, {}, load)
        run_dir = records[0].parent
        ends = stage_ends(run_dir)
        ended = "PASS" if code == 0 else reason(run_dir, said)
        times = {name: float(ends[name]["seconds"]) for name in STAGE_NAMES if name in ends}
        return Run(size, ended, wall, cpu, after - before, memory, up, times, load)


def build_apart(params: Path) -> tuple[int, float, str]:
    """Return exit status, CPU seconds and messages of a build in a process of its own."""
    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, __file__, "--build", str(params)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        return process.returncode, used.ru_utime + used.ru_stime, err.read()


def reason(run_dir: Path, said: str) -> str:
    """Return in one line why a build failed, with the first of the checks that did."""
    errors = [line["data"].get("message", "") for line in lines(run_dir) if line["kind"] == "error"]
    record = json.loads((run_dir / "run.json").read_text())
    text = [*errors, record.get("reason") or "", *said.strip().splitlines()[-1:], "no reason given"]
    return "; ".join(next(each for each in text if each).splitlines()[:2])


def usage(state_dir: Path) -> tuple[float, float]:
    """Return CPU seconds and resident megabytes of a lab's processes, ended ones' CPU included."""
    wanted = f"{machine.STATE_VARIABLE}={state_dir.resolve()}".encode()
    ticks, pages = 0, 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # own and waited-for children's
                pages += int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def page(runs: Sequence[Run], time_factor: float) -> str:
    """Return the Markdown page of the runs."""
    first = runs[0]
    rows = [
        f"| {run.hosts} | {run.ended} | {run.wall:.0f} | {run.wall / first.wall:.2f} | "
        f"{run.kit_cpu:.1f} | {run.kit_cpu / run.hosts:.2f} | {run.lab_cpu:.0f} | "
        f"{run.lab_memory:.0f} | {run.up:.0f} | {run.load:.1f} |"
        for run in runs
    ]
    stages = [
        f"| {run.hosts} | "
        + " | ".join(
            f"{run.stages[name]:.0f}" if name in run.stages else "" for name in STAGE_NAMES
        )
        + " |"
        for run in runs
    ]
    return "\n".join(
        [
            "# How a build grows with the number of hosts",
            "",
            "Written by `make bench`: the eight bootstrap notebooks, headless, on labs of growing "
            f"size, recorded times multiplied by {time_factor:g}.",
            "",
            f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {machine_text()}",
            f"- Wanted: {SIZES[-1]} hosts in at most {MOST_RATIO:g} times the wall time of "
            f"{SIZES[0]}; at most {MOST_CPU:g} s of the kit's own CPU a host.",
            *(f"- {'PASS' if good else 'FAIL'}: {what}." for good, what in bounds(runs)),
            "",
            "| hosts | verdict | wall s | ratio | kit CPU s | kit CPU s/host | lab CPU s | lab MB "
            "| lab up s | load before |",
            "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            "The lab's hosts share this machine's cores with the kit: where `lab CPU s` comes near "
            "`wall s` times the number of cores, the wall time is the emulation's and says nothing "
            "of the kit. `load before` is the average of the minute before, so the size that was "
            "measured before this one is in it.",
            "",
            "Seconds of each stage, as the journal has them; the rest of the wall time is the "
            "start of the notebooks' kernels and the report:",
            "",
            "| hosts | " + " | ".join(STAGE_NAMES) + " |",
            "| ---: |" + " ---: |" * len(STAGE_NAMES),
            *stages,
            "",
        ]
    )


def machine_text() -> str:
    """Return what the numbers were taken on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    kernel = platform.release().partition("-")[0]
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {kernel}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main())
