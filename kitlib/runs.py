"""A run directory, read back: the journal, run.json and the watches, with no cluster at hand.

Reading is tolerant (a torn last journal line, a missing watch, a run that died before its first
stage), because the runs that people look at hardest are the ones that went wrong.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kitlib.errors import ParamsError, PreconditionError
from kitlib.plugins import Catalogue, Plugin, catalogue

__all__ = [
    "DIAGNOSIS",
    "INDEX",
    "Drawn",
    "Entry",
    "Provenance",
    "Run",
    "RunHost",
    "WatchLine",
    "load_index",
    "load_run",
    "parse_time",
    "runs_in",
]

log = logging.getLogger(__name__)

DIAGNOSIS = "diagnose"
"""The kind of a run that measured a cluster which stands, and built nothing."""
INDEX = "comparison.json"
"""What makes a directory a comparison's: which runs it has, and in which order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal line; `t` is Unix time, `mono` the monotonic offset from the journal's start."""

    t: float
    mono: float
    stage: str
    host: str
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WatchLine:
    """One happening of a watch.

    Attributes:
        t: Unix time at which it was received.
        type: ADDED, MODIFIED or DELETED.
        object: The object as it was then.
        listed: True when it comes from a list that was read at `t`, so that it happened before.
    """

    t: float
    type: str
    object: Mapping[str, Any]
    listed: bool = False


@dataclass(frozen=True, slots=True)
class RunHost:
    """A host as the run knew it; `role` is `control_plane` or `worker`."""

    name: str
    address: str
    role: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a run's numbers come from; every figure carries it in words.

    Attributes:
        kind: `lab` or `hosts`; empty where it was not recorded.
        time_factor: What a lab's emulated delays are multiplied by.
        emulated: What a lab emulates, in words.
        stands_in: What stands in for what in the pods' datapath of a lab; empty for nothing.
    """

    kind: str = ""
    time_factor: float | None = None
    emulated: str = ""
    stands_in: str = ""

    @property
    def is_lab(self) -> bool:
        """True when the hosts said that they are a lab's."""
        return self.kind == "lab"

    def __str__(self) -> str:
        """Return the caption that belongs on every figure of the run."""
        if self.is_lab:
            what = self.emulated or "Kubernetes API, kubeadm, kubelet and package times"
            factor = f" (time factor {self.time_factor:g})" if self.time_factor else ""
            datapath = f"; {self.stands_in}" if self.stands_in else ""
            packets = "Lab: real packets through kernel namespaces"
            return f"{packets}{datapath}; {what} emulated{factor}"
        return "Measured on real hosts" if self.kind == "hosts" else "Provenance not recorded"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample of ordered pairs: how many, of how many, and the seed it was drawn with."""

    measured: int
    of: int
    seed: int

    def __str__(self) -> str:
        return (
            f"a sample of {self.measured:,} of {self.of:,} pairs, which covers every node and "
            f"zone evenly (seed {self.seed})"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory, read.

    Attributes:
        path: The directory.
        meta: `run.json` as it stands; empty when there is none.
        entries: The journal in order.
        damaged: How many lines of the journal could not be read.
    """

    path: Path
    meta: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    damaged: int = 0

    def _text(self, key: str, otherwise: str = "") -> str:
        return str(self.meta.get(key) or otherwise)

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self._text("cluster", self.path.parent.name)

    @property
    def kind(self) -> str:
        """What began it, where it was no build: `diagnose`; else empty."""
        return self._text("kind")

    @property
    def run_id(self) -> str:
        """The run's name, `<UTC time>-<short id>`."""
        return self._text("run_id", self.path.name)

    @property
    def plugin(self) -> str:
        """The network plugin's name; empty when the run died before it was known."""
        return self._text("plugin")

    @property
    def catalogue(self) -> Catalogue:
        """The plugins as this run knew them: the kit's, and the user's own that took part."""
        own = self.meta.get("own_plugins")
        found = {}
        for name, entry in own.items() if isinstance(own, dict) else ():
            with contextlib.suppress(ValidationError):  # of another release of the kit
                found[str(name)] = Plugin.model_validate(entry)
        return catalogue().and_own(found)

    @property
    def wanted_plugin(self) -> Plugin | None:
        """The plugin, together with the one that it calls and on its backend; None: not known."""
        params = self.meta.get("params") or {}
        backend = str(params.get("plugin_backend") or "")
        with contextlib.suppress(ParamsError):
            return self.catalogue.wanted(self.plugin, self.plugin_delegate, backend)
        return None

    @property
    def plugin_delegate(self) -> str:
        """The plugin that it calls; empty for one that calls none."""
        return str((self.meta.get("params") or {}).get("plugin_delegate") or "")

    @property
    def verdict(self) -> str:
        """PASS, FAIL, PLANNED, INTERRUPTED; UNFINISHED when the run never said."""
        ends = [e.data.get("verdict") for e in self.entries if e.kind == "run.ended"]
        return self._text("verdict", str(ends[-1]) if ends else "UNFINISHED")

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, in one sentence or so."""
        ends = [e.data.get("reason") for e in self.entries if e.kind == "run.ended"]
        return self._text("reason", str(ends[-1] or "") if ends else "")

    @property
    def started(self) -> float | None:
        """Unix time of the start; the first journal line where `run.json` has none."""
        stated = parse_time(self.meta.get("started"))
        return stated if stated is not None else (self.entries[0].t if self.entries else None)

    @property
    def ended(self) -> float | None:
        """Unix time of the end; the last journal line where `run.json` has none."""
        stated = parse_time(self.meta.get("ended"))
        return stated if stated is not None else (self.entries[-1].t if self.entries else None)

    @property
    def hosts(self) -> tuple[RunHost, ...]:
        """The hosts, in the order of the parameters."""
        return tuple(
            RunHost(str(h.get("name", "")), str(h.get("address", "")), str(h.get("role", "")))
            for h in self.meta.get("hosts") or ()
        )

    @property
    def provenance(self) -> Provenance:
        """Where the numbers come from."""
        stated = self.meta.get("provenance") or {}
        factor = stated.get("time_factor")
        return Provenance(
            kind=str(stated.get("kind") or ""),
            time_factor=None if factor is None or math.isnan(factor) else float(factor),
            emulated=str(stated.get("emulated") or ""),
            stands_in=str(stated.get("stands_in") or ""),
        )

    @property
    def drawn(self) -> Drawn | None:
        """Which part of the pairs was measured, where it was a sample of them; else None."""
        stated = self.meta.get("pairs") or {}
        try:
            drawn = Drawn(int(stated["measured"]), int(stated["of"]), int(stated["seed"]))
        except (KeyError, TypeError, ValueError):
            return None
        return drawn if drawn.measured < drawn.of else None

    @property
    def missing(self) -> Mapping[str, str]:
        """What was to be measured and was not, as measurement -> words: it was broken off."""
        return {str(key): str(text) for key, text in (self.meta.get("missing") or {}).items()}

    def watch(self, what: str) -> tuple[WatchLine, ...]:
        """Return the recorded watch of `nodes`, `pods` or `events`; empty when there is none."""
        lines, _ = _json_lines(self.path / "watch" / f"{what}.jsonl")
        return tuple(
            WatchLine(
                t=float(line["t"]),
                type=str(line["obj"]["type"]),
                object=line["obj"].get("object") or {},
                listed=bool(line.get("listed")),
            )
            for line in lines
            if isinstance(line.get("obj"), dict) and "type" in line["obj"] and "t" in line
        )

    def gaps(self, what: str) -> tuple[Mapping[str, Any], ...]:
        """Return the marked gaps of a watch: what happened in them is known only in its result."""
        lines, _ = _json_lines(self.path / "watch" / f"{what}.jsonl")
        return tuple({"t": line.get("t"), **line["gap"]} for line in lines if line.get("gap"))


def load_run(path: Path | str) -> Run:
    """Return the run in a directory; whatever is missing or torn in it is left out.

    Raises:
        PreconditionError: There is no such directory, or it holds neither run.json nor a journal.
    """
    root = Path(path)
    about, record = root / "run.json", root / "journal.jsonl"
    if not about.is_file() and not record.is_file():
        raise PreconditionError(
            f"{root}: no run.json and no journal.jsonl here",
            remedy="name a run directory: runs/<cluster>/<time>-<id>",
        )
    meta: dict[str, Any] = {}
    if about.is_file():
        try:
            meta = json.loads(about.read_text(encoding="utf-8"))
        except ValueError as error:
            log.warning("%s: not readable, its facts are left out: %s", about, error)
    lines, damaged = _json_lines(record)
    entries = []
    for line in lines:
        t = parse_time(line.get("t"))
        if t is None or "kind" not in line:
            damaged += 1
            continue
        entries.append(
            Entry(
                t=t,
                mono=float(line.get("mono") or 0.0),
                stage=str(line.get("stage") or ""),
                host=str(line.get("host") or ""),
                kind=str(line["kind"]),
                data=line.get("data") or {},
            )
        )
    return Run(root, meta, tuple(entries), damaged)


def load_index(path: Path) -> dict[str, Any]:
    """Return the index of a comparison's directory.

    Raises:
        PreconditionError: There is none, or it cannot be read.
    """
    file = path / INDEX
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for key in ("id", "order", "runs", "candidates", "seed"):
            index[key]
    except FileNotFoundError:
        raise PreconditionError(
            f"{path}: no {INDEX} in it: a comparison's directory is wanted",
            remedy="they lie in runs/<cluster>/comparisons/",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreconditionError(f"{file}: not a comparison's index: {error!r}") from error
    return index


def runs_in(paths: Iterable[Path]) -> list[Path]:
    """Return run directories: those that are named, and those of the comparisons that are named.

    Raises:
        PreconditionError: One is neither, or a run of a comparison is gone.
    """
    found: list[Path] = []
    for path in paths:
        if not (path / INDEX).is_file():
            load_run(path)  # says what is wrong with it
            found.append(path)
            continue
        runs = [path.resolve().parents[1] / run["run_id"] for run in load_index(path)["runs"]]
        gone = [run.name for run in runs if not run.is_dir()]
        if gone:
            raise PreconditionError(
                f"{path}: {', '.join(gone)}: runs of this comparison are gone from {runs[0].parent}"
            )
        found += runs
    return list(dict.fromkeys(found))


def parse_time(value: object) -> float | None:
    """Return Unix time from an ISO 8601 text or a number; None for anything else."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value:
        try:
            stamp = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    return None


def _json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the objects of a JSON-lines file, and how many lines were not one."""
    found: list[dict[str, Any]] = []
    damaged = 0
    for text in _lines(path):
        try:
            value = json.loads(text)
        except ValueError:
            damaged += 1
            continue
        if isinstance(value, dict):
            found.append(value)
        else:
            damaged += 1
    return found, damaged


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.strip())
