"""Every plugin of the catalogue compared in the lab, as a person would: `kit compare`.

Run by `make compare`; writes docs/comparison.md and its pictures, and says whether what is wanted
of a comparison holds: all plugins pass, within a quarter of an hour, two of the same datapath show
no difference, and one that wraps packets up is slower than one that does not.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/e2e", "tests/lab", "tests/bench"):
    sys.path.insert(0, str(ROOT / folder))

import yaml
from bench_scale import machine_text
from kit_help import params_for
from lab_help import running_lab

from kitlib.comparison_page import see
from kitlib.diagnosis.compared import Sight

TIME_FACTOR = 0.02
MOST_MINUTES = 15.0
ALIKE = ("flannel", "nuage")
"""Two of one datapath in the lab: a bridge and VXLAN."""
SLOWER = ("flannel", "kubenet")
"""The first wraps packets up, the second does not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print what is wanted and whether it holds, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugins", default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, help="keep the runs there")
    parser.add_argument("--page", type=Path, help="write the Markdown page there")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kit-compare-") as folder:
        home = Path(folder)
        runs = (options.runs or home / "runs").resolve()
        load = os.getloadavg()[0]
        code, minutes = compare(home, runs, options.plugins, options.rounds)
        found = max(runs.glob("*/comparisons/*"))
        sight = see([found])
        told = bounds(sight, code, minutes)
        text = page(sight, told, load)
        sys.stdout.write(f"{text}\n")
        if options.page:
            options.page.write_text(text, encoding="utf-8")
            for name, figure in (
                ("comparison", sight.cost_figure()),
                ("comparison-differences", sight.difference_figure()),
            ):
                if figure is not None:
                    options.page.with_name(f"{name}.png").write_bytes(figure.png(110))
    return 0 if all(good for good, _ in told) else 1


def compare(home: Path, runs: Path, plugins: str, rounds: int) -> tuple[int, float]:
    """Return the exit status of `kit compare` on a lab of three hosts, and its minutes."""
    with running_lab(home / ".lab", time_factor=TIME_FACTOR) as lab:
        params = home / "params" / "lab.yaml"
        params.parent.mkdir()
        params.write_text(yaml.safe_dump(params_for(lab.spec, runs=str(runs))))
        began = time.monotonic()
        command = ["compare", str(params), "--plugins", plugins, "--rounds", str(rounds)]
        done = subprocess.run([sys.executable, "-m", "kitlib.cli", *command], cwd=ROOT, check=False)
        return done.returncode, (time.monotonic() - began) / 60


def bounds(sight: Sight, code: int, minutes: float) -> list[tuple[bool, str]]:
    """Return what is wanted of a comparison: whether it holds, and the numbers in words."""
    runs = sight.compared.runs
    counted, subjects = int(runs["counts"].sum()), sight.compared.subjects
    told = [
        (
            code == 0,
            f"{counted} of {len(runs)} builds of {len(subjects)} plugins applied, Ready, "
            "reachable, measured, removed; each device counted its packets",
        ),
        (minutes <= MOST_MINUTES, f"{minutes:.1f} minutes; at most {MOST_MINUTES:g} are wanted"),
    ]
    if set(ALIKE) <= set(subjects):
        differs, words = difference(sight, *ALIKE)
        told.append((differs is False, f"{words}; no difference is wanted"))
    if set(SLOWER) <= set(subjects):
        differs, words = difference(sight, *SLOWER)
        told.append((bool(differs) and "slower" in words, f"{words}; slower is wanted"))
    return told


def difference(sight: Sight, one: str, other: str) -> tuple[bool | None, str]:
    """Return whether two plugins differ (None: not judged), and how, in words."""
    for row in sight.differences.to_dict("records"):
        if {row["first"], row["second"]} != {one, other}:
            continue
        if not row["judged"]:
            break
        ends = [row[key] for key in ("percent", "low", "high")]
        if row["first"] == other:
            ends = [100 * (100 / (100 + end) - 1) for end in ends]
        value, low, high = ends[0], min(ends[1:]), max(ends[1:])
        how = ("slower" if value > 0 else "faster") if row["differs"] else "no difference"
        told = f"{one} against {other}: {how} ({value:+.0f} %, {low:+.0f} to {high:+.0f})"
        return bool(row["differs"]), told
    return None, f"{one} against {other}: not judged, too few builds together"


def page(sight: Sight, told: Sequence[tuple[bool, str]], load: float) -> str:
    """Return the Markdown page of a comparison."""
    table = sight.table()
    heads = [str(head).removeprefix("#") for head in table.columns]
    rules = ["---:" if str(head).startswith("#") else "---" for head in table.columns]
    rows = [
        [str(cell).replace("\n", " ").replace("|", "/") for cell in row]
        for row in table.to_numpy().tolist()
    ]
    return "\n".join(
        [
            "# Every plugin compared in the lab",
            "",
            "Written by `make compare`: `kit compare --plugins all` on a lab of three hosts. "
            f"{sight.provenance()}.",
            "",
            f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {machine_text()}, load average {load:.1f} before",
            *(f"- {'PASS' if good else 'FAIL'}: {what}." for good, what in told),
            "",
            *(f"{sentence}\n" for sentence in sight.words()),
            "![What each plugin costs, and its percentiles](comparison.png)",
            "",
            *(f"| {' | '.join(line)} |" for line in (heads, rules, *rows)),
            "",
            "Cost: the median between pods less the median between their hosts, of the same pair "
            "in the same build. In brackets: 95 % confidence. Whether two plugins differ is judged "
            "on the ratio of the two, for all pairs at once:",
            "",
            "![Which plugins differ, and by how many percent](comparison-differences.png)",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
