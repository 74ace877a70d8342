"""Whether the kit's latencies are those of a plain ping: ten rounds beside each other, in the lab.

Run by `make bench`; writes docs/bench_fidelity.md. On three lab nodes the kit measures every pair
as it always does, and a plain `ping` by an exec of its own, in the same pods, goes before or after
each of its measurements. The first packet of each ping is left out of both.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/e2e", "tests/lab"):
    sys.path.insert(0, str(ROOT / folder))

from bench_scale import machine_text
from fidelity import MOST_MS, MOST_SHARE, Round, beside_ping
from kit_help import lab_kit

ROUNDS, PACKETS, TIMES, INTERVAL = 10, 20, 5, 0.02
LEAST = 9
"""Of ten rounds, in so many the intervals of p99 must overlap."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the page, write it; the exit status says whether what is wanted holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, help="write the Markdown page there")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as home, lab_kit(Path(home)) as kit:
        kit.stand("ready")
        with kit.session() as session:
            rounds = beside_ping(
                session, options.rounds, packets=PACKETS, interval=INTERVAL, times=TIMES
            )
    text = page(rounds, load)
    sys.stdout.write(text)
    if options.page:
        options.page.write_text(text)
    return 0 if all(good for good, _ in bounds(rounds)) else 1


def bounds(rounds: Sequence[Round]) -> list[tuple[bool, str]]:
    """Return what is wanted of these rounds: whether it holds, and the numbers in words."""
    agree = sum(each.agrees for each in rounds)
    overlap = sum(each.overlap for each in rounds)
    count = len(rounds)
    return [
        (
            agree == count,
            f"p50 agrees within {MOST_MS * 1000:g} us or {MOST_SHARE:.0%} in {agree} of {count} "
            f"rounds; all are wanted",
        ),
        (
            overlap * 10 >= count * LEAST,
            f"the 95 % intervals of p99 overlap in {overlap} of {count} rounds; at least "
            f"{LEAST} of 10 are wanted",
        ),
    ]


def page(rounds: Sequence[Round], load: float) -> str:
    """Return the Markdown page of the rounds."""
    rows = []
    for number, each in enumerate(rounds, start=1):
        kit, plain = each.p50s
        kits, plains = each.p99s
        rows.append(
            f"| {number} | {len(each.kit)} | {len(each.plain)} | {us(kit)} | {us(plain)} | "
            f"{1000 * (kit - plain):+.1f} | {100 * (kit / plain - 1):+.1f} | "
            f"{' to '.join(map(us, kits))} | {' to '.join(map(us, plains))} | "
            f"{'yes' if each.overlap else 'no'} |"
        )
    return "\n".join(
        [
            "# The kit's latencies beside a plain ping's",
            "",
            "Written by `make bench`: three lab nodes, every ordered pair of pods. In each round "
            f"each pair is measured {TIMES} times by the kit as it always does (pod path, then "
            f"host path) and as often by `ping -c {PACKETS + 1} -i {INTERVAL:g}`, run by an exec "
            "of its own in the same pod, now before and now after it. The first packet of each "
            "ping is left out of both.",
            "",
            f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {machine_text()}; load average before: {load:.1f}",
            *(f"- {'PASS' if good else 'FAIL'}: {what}." for good, what in bounds(rounds)),
            "",
            "| round | kit's replies | ping's replies | kit p50 us | ping p50 us | difference us "
            "| difference % | kit p99 us, 95 % | ping p99 us, 95 % | overlap |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |",
            *rows,
            "",
            "The interval of a p99 is that between the replies at the ranks that the binomial "
            "distribution gives; it takes packets as independent, which makes it rather too narrow "
            "than too wide, so an overlap is harder to have.",
            "",
        ]
    )


def us(value: float) -> str:
    """Return milliseconds as microseconds."""
    return f"{1000 * value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
