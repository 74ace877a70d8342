"""What is going on right now: which stage, on which host, since when, waiting for what.

Everything shown comes from the journal, so the terminal, a notebook and a second terminal that
follows the same run all see the same.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["Activity", "Board", "Follower", "describe", "read_lines"]

WIDTH = 100
"""Characters of a command that are shown; the whole of it is in the record."""

_STYLES = {"PASS": "green", "PLANNED": "cyan", "FAIL": "bold red", "INTERRUPTED": "bold yellow"}


@dataclass(frozen=True, slots=True)
class Activity:
    """What one host is doing.

    Attributes:
        host: The host, or `cluster`.
        text: What it does or waits for.
        since: Seconds on the journal's clock when that began.
    """

    host: str
    text: str
    since: float


@dataclass
class Board:
    """The state that a journal's lines add up to.

    Attributes:
        stage: The stage under way; empty between stages.
        active: Host -> what it does.
        now: The journal clock of the newest line.
    """

    stage: str = ""
    active: dict[str, Activity] = field(default_factory=dict)
    now: float = 0.0

    def feed(self, line: Mapping[str, Any]) -> None:
        """Take one journal line into account."""
        kind, host, data = line["kind"], line["host"], line["data"]
        self.now = float(line["mono"])
        if kind == "stage.started":
            self.stage = line["stage"]
            self.active.clear()
        elif kind == "stage.ended":
            self.stage = ""
            self.active.clear()
        elif kind == "command.started":
            self.active[host] = Activity(host, data["command"], self.now)
        elif kind in ("command", "host.ended"):
            self.active.pop(host, None)
        elif kind == "progress":
            known = self.active.get(host)
            same = known is not None and _head(known.text) == _head(data["text"])
            since = known.since if known is not None and same else self.now
            self.active[host] = Activity(host, data["text"], since)


def describe(line: Mapping[str, Any]) -> str:
    """Return one journal line as a line for a person; empty for what is not worth one."""
    kind, host, data = line["kind"], line["host"], line["data"]
    where = f"{host}: " if host else ""
    match kind:
        case "stage.started":
            return f"{line['stage']}: {data['title']}"
        case "stage.ended":
            reason = f" ({data['reason']})" if data.get("reason") else ""
            return f"{line['stage']}: {data['verdict']} in {data['seconds']:.1f} s{reason}"
        case "change":
            return f"  {where}{data['what']}"
        case "lock" | "notice":
            return f"  {where}{data['text']}"
        case "planned" | "progress":
            return f"  {where}{data.get('what') or data.get('text')}"
        case "error":
            first = str(data["message"]).partition("\n")[0]
            return f"  {where}FAILED: {first.removeprefix(where)}"
        case "check" if data["status"] in ("FAIL", "WARN"):
            return f"  {where}{data['status']}: {data['summary']}: got {data['got']}"
    return ""


class Follower:
    """Shows a run's journal while it is written, until it is left.

    Args:
        path: The run directory.
        console: Where to show it; a console that is no terminal gets plain lines.
    """

    def __init__(self, path: Path, console: Console) -> None:
        self._path = path / "journal.jsonl"
        self._console = console
        self._board = Board()
        self._stop = threading.Event()
        self._read_at = time.monotonic()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="progress")
        self._live: Live | None = None
        self._dry_run = False
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Follower:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()

    def _follow(self) -> None:
        offset, last = 0, False
        while True:
            lines, offset = read_lines(self._path, offset)
            for line in lines:
                self._take(line)
            if last:
                return
            last = self._stop.wait(0.2)  # once more after the end: the last lines count most

    def _take(self, line: Mapping[str, Any]) -> None:
        self._board.feed(line)
        self._read_at = time.monotonic()
        if line["kind"] == "stage.started":
            self._dry_run = bool(line["data"].get("dry_run"))
            self._shown.clear()
        if line["kind"] == "planned" and not self._dry_run:
            return  # it is shown when it is done
        text = describe(line)
        if line["kind"] == "progress":
            # A terminal shows progress in the live board; elsewhere each new state once.
            if self._live is not None or self._shown.get(line["host"]) == _head(text):
                return
            self._shown[line["host"]] = _head(text)
        if text:
            self._console.print(_styled(text), soft_wrap=True)

    def _render(self) -> Group:
        now = self._board.now + time.monotonic() - self._read_at
        table = Table.grid(padding=(0, 2))
        for item in list(self._board.active.values()):
            shown = item.text if len(item.text) <= WIDTH else item.text[: WIDTH - 1] + "…"
            table.add_row(f"  {item.host}", f"{now - item.since:4.0f} s", Text(shown, style="dim"))
        return Group(table)


def read_lines(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole journal lines after a byte offset, and the offset after them."""
    with path.open("rb") as handle:
        handle.seek(offset)
        whole = handle.read().rpartition(b"\n")[0]
    lines = []
    for line in whole.splitlines():
        with contextlib.suppress(ValueError):  # torn by a crash, and written on after it
            lines.append(json.loads(line))
    return lines, offset + (len(whole) + 1 if whole else 0)


def _head(text: str) -> str:
    """Return a progress text without its counted seconds: the same wait keeps its start."""
    return text.rsplit(", ", 1)[0] if text.endswith(" s") else text


def _styled(text: str) -> Text:
    styled = Text(text)
    for word, style in _STYLES.items():
        styled.highlight_words([f" {word} "], style)
    styled.highlight_words(["FAILED:"], "bold red")
    return styled
