"""The run directory: what happened, append-only, readable with no cluster at hand.

Layout (the contract between doing and looking):

    runs/<cluster>/<UTC time>-<short id>/
        run.json        parameters (secrets masked), versions, plugin, hosts, provenance, verdict
        journal.jsonl   one happening a line: t, mono, stage, host, kind, data
        raw/            each command's masked line, output, exit status
        watch/*.jsonl   nodes, pods, events as the API streamed them
        samples/        probe rows, as Parquet, in parts that are written as they come
        notebooks/      executed copies
        charts/         every chart and its table as files, where they were asked for
        report.html

Several processes append to one run (the build and each notebook's kernel): every line is one
write to a file opened for appending, so lines never mix.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kitlib.command import Cmd
from kitlib.errors import ParamsError, RecordError
from kitlib.masking import mask, mask_text, remember
from kitlib.model import CommandResult

__all__ = ["Journal", "append_line", "latest_run", "mask_text", "utc_text", "write_json"]

SCHEMA = 1


def utc_text(at: float | None = None) -> str:
    """Return a time (Unix seconds; now when None) as UTC with microseconds and a `Z`."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def append_line(path: Path, item: Mapping[str, Any]) -> None:
    """Append one JSON line with a single write, so that writers in other processes never mix."""
    data = (json.dumps(item, separators=(",", ":"), default=str) + "\n").encode()
    with _recording(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(handle, data) < len(data):  # what a disk says that has just filled up
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


@contextmanager
def _recording(path: Path) -> Iterator[None]:
    """Say of what cannot be written that it cannot, with the way out.

    Raises:
        RecordError: The disk is full, or the directory is gone or read-only.
    """
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written: {error.strerror or error}",
            remedy="make room on this machine (or name another directory as `runs`), then run "
            "the same command again: it goes on from what is true on the hosts",
        ) from error


class Journal:
    """One run directory, open for writing.

    The first thing that cannot be written is an error. After it nothing is written any more and
    nothing is said about it: what is under way must be able to come to an orderly end.

    Args:
        path: The run directory, which exists.

    Attributes:
        stage: The stage that is under way in this process; it is written into every line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stage = ""
        self._lock = threading.Lock()
        self._broken = False
        self._mono_start = float(self.record().get("mono_started", 0.0))

    @classmethod
    def create(cls, root: Path, cluster: str, record: Mapping[str, Any]) -> Journal:
        """Return a new run directory below `root`, with `record` as the start of its run.json."""
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        path = root / cluster / run_id
        with _recording(path):
            for name in ("raw", "watch", "samples", "notebooks"):
                (path / name).mkdir(parents=True)
        start = {
            "schema": SCHEMA,
            "cluster": cluster,
            "run_id": run_id,
            "started": utc_text(),
            "mono_started": time.monotonic(),
            "ended": None,
            "verdict": None,
            "reason": "",
            **mask(record),
        }
        write_json(path / "run.json", start)
        journal = cls(path)
        journal.event("run.started", cluster=cluster)
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Return an existing run directory, to go on writing in it."""
        if not (path / "run.json").is_file():
            raise ParamsError(f"run_dir: {path}: no run.json in it: a run directory is wanted")
        return cls(path)

    def record(self) -> dict[str, Any]:
        """Return run.json as it stands."""
        loaded: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        return loaded

    def update(self, **fields: Any) -> None:
        """Set fields of run.json; the file is replaced whole, never half-written."""
        with self._lock:
            record = {**self.record(), **mask(fields)}
            self._write(lambda: write_json(self.path / "run.json", record))

    def event(self, kind: str, *, host: str = "", stage: str | None = None, **data: Any) -> None:
        """Append one happening to journal.jsonl."""
        line = {
            "t": utc_text(),
            "mono": round(time.monotonic() - self._mono_start, 6),
            "stage": self.stage if stage is None else stage,
            "host": host,
            "kind": kind,
            "data": {key: mask(value) for key, value in data.items()},
        }
        self._write(lambda: append_line(self.path / "journal.jsonl", line))

    def command(self, cmd: Cmd, result: CommandResult) -> Path:
        """Keep a command's whole output in raw/, a line about it in the journal; return the file.

        Raises:
            RecordError: It cannot be written.
        """
        program = re.sub(r"[^a-z0-9.-]+", "-", Path(str(cmd.argv[0])).name.lower()) or "command"
        name = f"{datetime.now(UTC):%H%M%S.%f}-{result.host}-{program}-{secrets.token_hex(2)}.txt"
        text = (
            f"$ {result.command}\n"
            f"# host {result.host}, exit status {result.exit_status}, {result.seconds:.3f} s, "
            f"ended {utc_text()}\n--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}\n"
        )
        path = self.keep(name, text)
        self.event(
            "command",
            host=result.host,
            command=cmd.brief,
            exit_status=result.exit_status,
            seconds=round(result.seconds, 6),
            raw=f"raw/{name}",
        )
        return path

    def keep(self, name: str, text: str) -> Path:
        """Write a text (masked) as raw/`name` and return its path: snapshots, manifests, logs."""
        path = self.path / "raw" / name

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(mask_text(text))

        self._write(write)
        return path

    def forget(self, *values: str) -> None:
        """Remember secrets whose values must be masked in everything written from now on."""
        remember(*values)

    def sync(self) -> None:
        """Force the journal to disk (done at stage ends)."""
        for path in (self.path / "journal.jsonl", *(self.path / "watch").glob("*.jsonl")):
            if path.exists():
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())

    def end(self, verdict: str, reason: str = "") -> None:
        """Write the run's verdict, the last line of the record."""
        self.update(ended=utc_text(), verdict=verdict, reason=mask_text(reason))
        self.event("run.ended", stage="", verdict=verdict, reason=reason)
        self.sync()

    def _write(self, work: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            with _recording(self.path):
                work()
        except RecordError:
            self._broken = True
            raise


def latest_run(root: Path, cluster: str) -> Path | None:
    """Return the newest run directory of a cluster; None where there is none."""
    runs = sorted(path.parent for path in (root / cluster).glob("*/run.json"))
    return runs[-1] if runs else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        RecordError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with _recording(path):
        try:
            temporary.write_text(json.dumps(value, indent=2, default=str) + "\n")
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
