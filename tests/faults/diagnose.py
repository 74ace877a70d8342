"""Faults of a lab's network, each found and named by the right check, and a healthy lab by none.

`make faults` runs it on a lab of its own and writes docs/diagnose_faults.md. Each fault is switched
on, the cluster is measured as `kit diagnose` does it, and what failed or stands out must be the one
check that it should be, on the node that it should be. In between the lab is healthy, and no check
may say otherwise.
"""

from __future__ import annotations

# ruff: noqa: T201 - a program whose output is a table
import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/lab"), str(ROOT / "tests/e2e")]

from kit_help import Kit, lab_kit  # noqa: E402
from lab_help import HOSTS  # noqa: E402

from kitlib.connectivity import measure_connectivity  # noqa: E402
from kitlib.diagnosis import summary  # noqa: E402
from kitlib.diagnosis.connected import connectivity_checks  # noqa: E402
from kitlib.lab import verbs  # noqa: E402
from kitlib.measure import measure_latency  # noqa: E402
from kitlib.model import Check, Status, Verdict  # noqa: E402
from kitlib.runs import load_run  # noqa: E402

CONTROL_PLANE, WORKER, _ = HOSTS
HEALTHY = 20
ROUNDS = 2
DIAGNOSE: dict[str, Any] = {"rounds": ROUNDS, "external_name": "kubernetes.io"}


@dataclass(frozen=True)
class Wanted:
    """What a fault must be found as."""

    fault: str
    host: str
    check: str
    words: str


FAULTS = (
    Wanted("mtu-blackhole", WORKER, "connectivity.mtu", "1350 of 1450"),
    Wanted("tunnel-closed", WORKER, "connectivity.tunnel", "UDP port 8472"),
    Wanted("route-missing", WORKER, "connectivity.route", "no route"),
    Wanted("dns-broken", CONTROL_PLANE, "connectivity.dns", "nobody"),
    Wanted("slow-node", WORKER, "latency.node", "the node or its link"),
    Wanted("forward-drop", WORKER, "connectivity.forwarding", "routes are there"),
)


@dataclass(frozen=True)
class Case:
    """What came of one measurement."""

    fault: str
    host: str
    good: bool
    found: str
    seconds: float


def findings(kit: Kit) -> list[Check]:
    """Measure the cluster and return what failed or stands out."""
    with kit.session() as session:
        measured = measure_latency(session, ROUNDS)
        measure_connectivity(session, ROUNDS)
        session.finish(Verdict.PASS)
        run = load_run(session.journal.path)
    checks = [*measured.checks, *summary.latency_checks(run), *connectivity_checks(run)]
    return [check for check in checks if check.status in (Status.FAIL, Status.WARN)]


def broken(kit: Kit, wanted: Wanted) -> Case:
    """Return whether a fault is found as what it is, and as nothing else."""
    began = time.monotonic()
    verbs.break_(kit.state_dir, wanted.fault, wanted.host)
    try:
        told = findings(kit)
    finally:
        verbs.heal(kit.state_dir)
    good = (
        [(check.id, check.target) for check in told] == [(wanted.check, wanted.host)]
        and wanted.words in told[0].got
        and bool(told[0].remedy)
    )
    return Case(wanted.fault, wanted.host, good, words(told), time.monotonic() - began)


def healthy(kit: Kit, number: int) -> Case:
    """Return whether a healthy lab gives no finding."""
    began = time.monotonic()
    told = findings(kit)
    return Case(f"none, run {number}", "", not told, words(told), time.monotonic() - began)


def words(told: Sequence[Check]) -> str:
    return "; ".join(f"{check.status} {check.id} on {check.target}: {check.got}" for check in told)


def document(cases: Sequence[Case]) -> str:
    """Return docs/diagnose_faults.md."""
    faults = [case for case in cases if case.host]
    whole = [case for case in cases if not case.host]
    well = sum(case.good for case in whole)
    return "\n".join(
        [
            "# Faults of a network, and what they are found as",
            "",
            "Written by `make faults`: on a lab of three hosts each fault is switched on, and the "
            "cluster is measured as `kit diagnose` does it.",
            "Exactly one check may fail or stand out, the right one, on the right node. Packets "
            "are real, and so is what drops or holds them;",
            "`dns-broken` is a DNS server of the lab's that is told to fail.",
            "",
            "| fault | on | as wanted | found |",
            "| --- | --- | --- | --- |",
            *(
                f"| {case.fault} | {case.host} | {'yes' if case.good else 'NO'} | "
                f"{case.found.replace('|', chr(92) + '|') or 'nothing'} |"
                for case in faults
            ),
            "",
            f"A healthy lab, measured {len(whole)} times: no finding in {well}.",
            *(f"Otherwise: {case.found}" for case in whole if not case.good),
            "",
        ]
    )


def main() -> int:
    """Run the cases and return the exit code: 0 when every one is as it must be."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--fault", action="append", choices=[each.fault for each in FAULTS])
    options.add_argument("--healthy", type=int, default=HEALTHY, help="how often it is measured")
    options.add_argument("--write", type=Path, help="the document to write")
    options.add_argument("--keep", type=Path, help="keep the lab's directory here")
    chosen = options.parse_args()
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="kit-diagnose-") as name:
        home = chosen.keep or Path(name)
        with lab_kit(home, diagnose=DIAGNOSE) as kit:
            kit.stand("join")
            wanted = [each for each in FAULTS if not chosen.fault or each.fault in chosen.fault]
            todo = [*wanted, *range(1, chosen.healthy + 1)]
            for each in todo:
                case = broken(kit, each) if isinstance(each, Wanted) else healthy(kit, each)
                cases.append(case)
                said = "as wanted" if case.good else "NOT AS WANTED"
                print(f"{case.fault}: {said} after {case.seconds:.0f} s\n    {case.found}",
                      flush=True)  # fmt: skip
    if chosen.write:
        chosen.write.write_text(document(cases), encoding="utf-8")
    print(json.dumps([asdict(case) for case in cases if not case.good], indent=1))
    return any(not case.good for case in cases)


if __name__ == "__main__":
    sys.exit(main())
