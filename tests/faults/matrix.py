"""The fault matrix: every fault in the middle of every stage, then the same stages again.

`make faults` runs it on a lab of its own and writes docs/faults.md. One pass a fault: from clean
hosts to a verified cluster, each stage first with the fault in its middle, then, healed, the
stages up to it again as a build runs them. A cell is good when the first run rode through the
fault or ended in one message with a documented exit code, and the second ended in PASS.
"""

from __future__ import annotations

# ruff: noqa: T201 - a program whose output is a table
import argparse
import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/lab"), str(ROOT / "tests/e2e")]

from kit_help import Done, Kit, lines, params_for  # noqa: E402
from lab_help import HOSTS, running_lab  # noqa: E402

from kitlib.doors import HostDoors  # noqa: E402
from kitlib.errors import Interrupted, KitError, exit_codes  # noqa: E402
from kitlib.journal import Journal  # noqa: E402
from kitlib.lab import verbs  # noqa: E402
from kitlib.stages import STAGE_NAMES, observe  # noqa: E402

CONTROL_PLANE, WORKER, _ = HOSTS
TIME_FACTOR = 0.05
API_SECONDS = 15.0
"""How long a stage waits here for an API that does not come back, instead of a minute."""
DISK_KIB = 1024
"""The size of the runner's disk in the pass that fills it."""

Line = dict[str, Any]


def command(words: str) -> Callable[[Line], bool]:
    """Return what tells the line of a command that was just started."""
    return lambda line: line["kind"] == "command.started" and words in line["data"]["command"]


def waiting(words: str) -> Callable[[Line], bool]:
    """Return what tells the line of such a wait."""
    return lambda line: line["kind"] == "progress" and words in line["data"]["text"]


MIDDLE: dict[str, Callable[[Line], bool]] = {
    "preflight": lambda line: line["kind"] == "command.started",
    "reset": command("kubeadm reset"),
    "packages": command("apt-get install"),
    "init": command("kubeadm init"),
    "network": command("kubectl apply"),
    "join": command("kubeadm join"),
    "ready": lambda line: line["kind"] == "note",
    "verify": waiting("pinging"),
}
"""Stage -> the line of its journal at which the fault comes."""

ON = dict.fromkeys(("init", "network", "ready", "verify"), CONTROL_PLANE)
"""Stage -> the host that a host's fault is for; a worker where none is named."""


@dataclass(frozen=True)
class Cell:
    """What came of one fault in one stage."""

    stage: str
    fault: str
    first: str
    again: str
    message: str = ""

    @property
    def good(self) -> bool:
        return "FAIL" not in (self.first, self.again)

    def __str__(self) -> str:
        return f"{self.first}, then {self.again}"


@dataclass
class Matrix:
    """The lab, and what was found in it so far."""

    kit: Kit
    kept: Path | None = None
    cells: list[Cell] = field(default_factory=list)

    def run(self, fault: str, stages: tuple[str, ...]) -> None:
        """Take one fault through the stages."""
        done = {cell.stage for cell in self.cells if cell.fault == fault}
        todo = [stage for stage in stages if stage not in done]
        if todo and STAGE_NAMES.index(todo[0]) in range(2, STAGE_NAMES.index("ready")):
            self.kit.clean()  # gone on with in the middle: what comes before it is done
            self.kit.stand(STAGE_NAMES[STAGE_NAMES.index(todo[0]) - 1])
        elif todo:
            self.kit.stand("join", first="preflight")  # so that there is something to reset
        for stage in todo:
            cell = self._cell(stage, fault)
            self.cells.append(cell)
            if self.kept:
                self.kept.write_text(json.dumps([asdict(each) for each in self.cells], indent=1))
            print(f"{stage} x {fault}: {cell}\n    {cell.message}", flush=True)

    def _cell(self, stage: str, fault: str) -> Cell:
        prepare(self.kit, stage)
        began = time.monotonic()
        done = FAULTS[fault](self.kit, stage)
        verbs.heal(self.kit.state_dir)
        first, message = judged(done, fault)
        took = time.monotonic() - began
        print(f"  first run: {first} after {took:.0f} s", flush=True)
        again, why = build_up_to(self.kit, stage)
        return Cell(stage, fault, first, again, why or message)


def prepare(kit: Kit, stage: str) -> None:
    """See that the stage has something to do; those before it are done."""
    if stage == "packages":
        kit.on(WORKER, "apt-get remove -y --allow-change-held-packages kubelet kubernetes-cni")


def options(stage: str) -> tuple[str, ...]:
    return ("--rebuild",) if stage == "reset" else ()


def build_up_to(kit: Kit, stage: str) -> tuple[str, str]:
    """Run the stages up to this one as the same build does; return the verdict, why it is bad."""
    try:
        with kit.session(rebuild="--rebuild" in options(stage)) as session:
            for name in STAGE_NAMES[: STAGE_NAMES.index(stage) + 1]:
                session.stage(name)
    except Interrupted:
        raise KeyboardInterrupt from None
    except KitError as error:
        return "FAIL", f"again: {error}"
    left = leftovers(kit)
    return ("FAIL", f"left behind: {left}") if left else ("PASS", "")


def leftovers(kit: Kit) -> str:
    """Return what no run may leave: locks, commands under way, tokens' and probes' remains."""
    state = "/run/cluster-network-kit"
    found = {
        host: kit.on(host, f"ls -d {state}/lock {state}/jobs/* 2>/dev/null || true").split()
        for host in HOSTS
    }
    return "; ".join(f"{host}: {', '.join(what)}" for host, what in found.items() if what)


def judged(done: Done, fault: str) -> tuple[str, str]:
    """Return the first run's outcome in a few words, and its message's first lines."""
    text = done.err.strip()
    message = " / ".join(line.strip() for line in text.splitlines()[1:3])
    if fault == "kill runner" and done.code == -signal.SIGKILL:
        return "killed", "ended by SIGKILL"
    if done.code == 0:
        return "rode through", ""
    bad = done.code == 1 or done.code not in exit_codes() or "Traceback" in done.text or not text
    return ("FAIL" if bad else f"exit {done.code}"), message or done.text[-300:]


# --- the faults --------------------------------------------------------------------------------


def in_the_middle(kit: Kit, stage: str, inject: Callable[[], None]) -> Done:
    """Run the stage in this process; `inject` is called once, when it is in its middle."""
    fired = threading.Event()
    real, started = Journal.event, []

    def event(journal: Journal, kind: str, **data: Any) -> None:
        real(journal, kind, **data)
        shown = {key: value for key, value in data.items() if key not in ("host", "stage")}
        line = {"kind": kind, "stage": journal.stage, "host": data.get("host", ""), "data": shown}
        if journal.stage == stage and not fired.is_set() and MIDDLE[stage](line):
            fired.set()
            thread = threading.Thread(target=lambda: (time.sleep(0.1), inject()))
            started.append(thread)
            thread.start()

    Journal.event = event  # type: ignore[method-assign]
    try:
        done = kit.stage(stage, *options(stage))
    except AssertionError as error:  # a traceback was shown
        done = Done(1, "", str(error), None)
    finally:
        Journal.event = real  # type: ignore[method-assign]
    for thread in started:
        thread.join()
    if not fired.is_set():
        return Done(1, "", f"kit:\nthe middle of {stage} never came: {done.text[-300:]}", None)
    return done


def lab_fault(name: str, *, back_after: float | None = None, host: str = "") -> Any:
    """Return a fault of the lab, on until the stage has ended, or for some seconds."""

    def run(kit: Kit, stage: str) -> Done:
        where = host or ON.get(stage, WORKER)

        def inject() -> None:
            verbs.break_(kit.state_dir, name, where)
            if back_after is not None:
                time.sleep(back_after)
                verbs.heal(kit.state_dir, name, where)

        return in_the_middle(kit, stage, inject)

    return run


def host_disk_full(kit: Kit, stage: str) -> Done:
    """Run it with a host's disk full from its beginning: in the middle installs have had room."""
    verbs.break_(kit.state_dir, "disk-full", ON.get(stage, WORKER))
    return kit.stage(stage, *options(stage))


def kill_runner(kit: Kit, stage: str) -> Done:
    running = kit.start("stage", stage, "{params}", *options(stage))
    wait_for(running.process, lambda: any(map(MIDDLE[stage], lines(running.run_dir))))
    time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    out, err = running.process.communicate()
    return Done(running.process.returncode, out, err, running.run_dir)


def runner_disk_full(kit: Kit, stage: str) -> Done:
    """Run it with its runs on a tiny file system of their own, and fill that up: it is real."""
    runs = kit.home / "runs"
    runs.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={DISK_KIB}k none "$0" && exec "$@"'
    running = kit.start(
        "stage", stage, "{params}", *options(stage),
        wrap=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(runs)),
    )  # fmt: skip
    inside = Path(f"/proc/{running.process.pid}/root{runs}")

    def there() -> bool:
        if not tiny(inside):
            return False  # not mounted yet: this is the machine's own disk
        found = [path.parent for path in inside.glob("*/*/run.json")]
        return any(any(map(MIDDLE[stage], lines(run_dir))) for run_dir in found)

    wait_for(running.process, there)
    filled = tiny(inside) and fill(inside / "filler")
    out, err = running.process.communicate(timeout=300)
    done = Done(running.process.returncode, out, err, None)
    return done if filled else Done(1, "", "kit:\nthe disk was never full", None)


def tiny(directory: Path) -> bool:
    """Return whether the directory is on the tiny file system that was made to be filled."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_blocks * found.f_frsize <= DISK_KIB * 1024


def fill(file: Path) -> bool:
    """Fill the tiny file system to its last byte; return whether it said that it is full."""
    blocks = [4096] * (DISK_KIB // 4) + [1] * 4096  # never more than it can hold
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as handle:
        for size in blocks:
            try:
                handle.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    return False
                if size == 1:
                    return True
    return False


def wait_for(process: subprocess.Popen[str], true: Callable[[], bool]) -> None:
    """Return when it is true, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if true():
                return
        time.sleep(0.02)


FAULTS: dict[str, Callable[[Kit, str], Done]] = {
    "kill runner": kill_runner,
    "drop SSH": lab_fault("host-down", back_after=0.5),
    "host down": lab_fault("host-down"),
    "API down": lab_fault("api-down", host=CONTROL_PLANE),
    "disk full on the runner": runner_disk_full,
    "disk full on a host": host_disk_full,
}


# --- the table ---------------------------------------------------------------------------------


def table(cells: list[Cell]) -> str:
    """Return the matrix as a Markdown table: a row a stage, a column a fault."""
    faults = list(FAULTS)
    rows = [["stage", *faults], ["---"] * (len(faults) + 1)]
    by_place = {(cell.stage, cell.fault): str(cell) for cell in cells}
    for stage in STAGE_NAMES:
        found = [by_place.get((stage, fault), "") for fault in faults]
        if any(found):
            rows.append([stage, *found])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def document(cells: list[Cell], build: str) -> str:
    """Return docs/faults.md."""
    said = []
    missing = len(STAGE_NAMES) * len(FAULTS) - len(cells)
    count = f"{len(cells)} cells"
    count += f"; {missing} that are empty were not run" if missing else ""
    for cell in cells:
        if (cell.message and cell.first.startswith("exit")) or not cell.good:
            text = re.sub(r"\s+", " ", cell.message).replace("|", "\\|")
            text = re.sub(r"/[^ ]*/(runs|params|\.lab)/", r"\1/", text)
            said.append(f"| {cell.stage} | {cell.fault} | {text[:260]} |")
    return "\n".join(
        [
            "# Faults in the middle of a stage",
            "",
            "Written by `make faults`, which breaks each stage in its middle on a lab, heals, and "
            "runs the stages up to it again as",
            "a build does. A cell tells how the broken run ended (an exit code of the README's "
            "table, or *rode through*) and how the",
            "second one did. `make faults` fails when a cell is not as it must be.",
            "",
            table(cells),
            "",
            f"Afterwards `kit build`: {build}. {count}.",
            "",
            "What was broken, and what is real of it in a lab: *kill runner* is SIGKILL to the "
            "`kit` process; *drop SSH* cuts every",
            "connection of a host and refuses new ones for half a second; *host down* takes the "
            "host's cable out until the stage has",
            "ended; *API down* ends the API server's container until then; *disk full on the "
            "runner* fills the file system of `runs/` to",
            "its last byte (a tmpfs of its own); *disk full on a host* is emulated, from the "
            "stage's beginning: installs fail and the kubelet reports pressure.",
            "",
            "## What the broken runs said",
            "",
            "| stage | fault | message |",
            "| --- | --- | --- |",
            *said,
            "",
        ]
    )


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Wait less than the kit does by itself for an API that is down, and for steady plugins."""
    real, steady = HostDoors.kube, observe.STEADY_SECONDS

    def kube(doors: HostDoors, *, wait: float) -> Any:
        return real(doors, wait=min(wait, API_SECONDS))

    HostDoors.kube, observe.STEADY_SECONDS = kube, 0.5  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        HostDoors.kube, observe.STEADY_SECONDS = real, steady  # type: ignore[method-assign]


def main() -> int:
    """Run the matrix and return the exit code: 0 when every cell is as it must be."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--fault", action="append", choices=list(FAULTS))
    options.add_argument("--stage", action="append", choices=list(STAGE_NAMES))
    options.add_argument("--write", type=Path, help="the document to write")
    options.add_argument("--cells", type=Path, help="keep cells here, and go on from the good ones")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="kit-faults-") as name, impatient():
        home = Path(name)
        with running_lab(home / ".lab", time_factor=TIME_FACTOR) as lab:
            limits = {"init": 60, "join": 60, "ready": 40, "verify": 30, "command": 60}
            params = params_for(lab.spec, timeouts={**limits, "reconnect": 8})
            matrix = Matrix(Kit(home, params, lab), chosen.cells)
            if chosen.cells and chosen.cells.exists():
                found = [Cell(**each) for each in json.loads(chosen.cells.read_text())]
                matrix.cells = [cell for cell in found if cell.good]
            for fault in chosen.fault or FAULTS:
                matrix.run(fault, tuple(chosen.stage or STAGE_NAMES))
                print(f"{table(matrix.cells)}\n", flush=True)
            done = matrix.kit.build()
            build = "PASS" if done.code == 0 else f"FAIL ({done.err.strip()[:300]})"
    print(f"\n{table(matrix.cells)}\n\nkit build afterwards: {build}")
    if chosen.write:
        chosen.write.write_text(document(matrix.cells, build), encoding="utf-8")
    bad = [cell for cell in matrix.cells if not cell.good]
    for cell in bad:
        print(f"{cell.stage} x {cell.fault}: {cell}: {cell.message}")
    return bool(bad) or build != "PASS"


if __name__ == "__main__":
    sys.exit(main())
