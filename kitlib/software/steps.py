"""One step of preparing a host, as data: a command, or a file with its content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kitlib.command import Cmd

__all__ = ["Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a host.

    Attributes:
        what: What is done and why, one line.
        command: The command; None where a file is written.
        path: The file that is written; empty where a command runs.
        content: What is written.
        mode: The file's mode.
        sends: Files of this machine that are copied first: (file, path on the host).
    """

    what: str
    command: Cmd | None = None
    path: str = ""
    content: str = ""
    mode: int = 0o644
    sends: tuple[tuple[Path, str], ...] = ()
