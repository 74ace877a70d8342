"""How long a large record takes to be seen: read, aggregated, charted and reported, and how much.

A process of its own does what the latency notebook and `kit report` do; its memory is the largest
resident set that the kernel saw of it, the interpreter and the libraries included.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

NODES, SAMPLES = 200, 1_000_000
ALSO = (50, 2 * 50 * 49 * 20)
"""What the lab's largest tournament leaves: twenty packets of all 2,450 pairs, on both paths."""
MOST_SECONDS, MOST_MIB, MOST_PAGE_MB = 10.0, 1024.0, 5.0


@dataclass(frozen=True)
class Seen:
    """What it took; `steps` are seconds in the order in which they were done."""

    nodes: int
    samples: int
    seconds: float
    cpu: float
    mib: float
    page_mb: float
    steps: dict[str, float]


def see(run_dir: Path) -> dict[str, object]:
    """Do it all in this process and return the steps' seconds."""
    steps: dict[str, float] = {}
    at = time.perf_counter()

    def done(name: str) -> None:
        nonlocal at
        now = time.perf_counter()
        steps[name] = round(now - at, 3)
        at = now

    from kitlib.diagnosis import summary
    from kitlib.report import write_report
    from kitlib.runs import load_run

    done("import")
    run = load_run(run_dir)
    table = summary.latency_table(run)
    done("read and aggregate")
    summary.latency_checks(run)
    done("judge")
    for figure in (summary.latency_figure, summary.latency_distribution):
        picture = figure(run)
        assert picture is not None
        picture.png()
    done("charts of the notebook")
    page = write_report(run_dir)
    done("report")
    return {"steps": steps, "pairs": len(table), "page_mb": page.stat().st_size / 1e6}


def measured(nodes: int = NODES, samples: int = SAMPLES) -> Seen:
    """Return what a fresh process needed for a fresh record."""
    from make_record import make_record  # here: the measured process must not pay for it

    with tempfile.TemporaryDirectory() as root:
        run_dir = make_record(Path(root), nodes, samples)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, "--see", str(run_dir)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            raise SystemExit(f"the record could not be charted: exit {process.returncode}")
        told = json.loads(said)
        mib = used.ru_maxrss / 1024
        cpu = used.ru_utime + used.ru_stime
        return Seen(nodes, samples, seconds, cpu, mib, told["page_mb"], told["steps"])


def bounds(seen: Seen) -> list[tuple[bool, str]]:
    """Return what is wanted, and whether it holds."""
    return [
        (
            seen.seconds <= MOST_SECONDS,
            f"{seen.nodes} nodes, {seen.samples:,} samples: seen in {seen.seconds:.1f} s; at most "
            f"{MOST_SECONDS:g} s are wanted ({seen.cpu:.1f} s of CPU)",
        ),
        (
            seen.mib <= MOST_MIB,
            f"in {seen.mib:.0f} MiB of memory; at most {MOST_MIB:g} MiB are wanted",
        ),
        (
            seen.page_mb <= MOST_PAGE_MB,
            f"on a page of {seen.page_mb:.1f} MB; at most {MOST_PAGE_MB:g} MB are wanted",
        ),
    ]


def page(*records: Seen) -> str:
    """Return the Markdown page."""
    from bench_scale import machine_text

    return "\n".join(
        [
            "# How long a large record takes to be seen",
            "",
            "Written by `make bench`: a made-up record of latency samples is read, aggregated, "
            "judged, charted as the latency notebook does and reported, by one fresh process.",
            "",
            f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {machine_text()}; load of the minute before {os.getloadavg()[0]:.1f}",
            *(
                f"- {'PASS' if good else 'FAIL'}: {what}."
                for seen in records
                for good, what in bounds(seen)
            ),
            "",
            f"| step | {' | '.join(f'{seen.nodes} nodes, s' for seen in records)} |",
            f"| --- |{' ---: |' * len(records)}",
            *(
                f"| {step} | {' | '.join(f'{seen.steps[step]:.1f}' for seen in records)} |"
                for step in records[0].steps
            ),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="where the page goes; none is written without")
    parser.add_argument("--see", type=Path, help="see this record in this process; used inside")
    given = parser.parse_args(arguments)
    if given.see:
        print(json.dumps(see(given.see)))  # noqa: T201
        return 0
    records = [measured(), measured(*ALSO)]
    print(json.dumps([asdict(seen) for seen in records], indent=2))  # noqa: T201
    if given.page:
        given.page.write_text(page(*records), encoding="utf-8")
    return 0 if all(good for seen in records for good, _ in bounds(seen)) else 1


if __name__ == "__main__":
    sys.exit(main())
