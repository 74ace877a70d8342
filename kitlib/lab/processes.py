"""Processes named for good: by pid and start time, so that a pid used anew is never mistaken."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from kitlib.errors import LabError

__all__ = ["alive", "child", "kill", "start_time"]


def kill(pid: int, start: int) -> None:
    """SIGKILL a process, if it is the one meant, and wait until it is gone."""
    if not pid:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if alive(pid, start):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], 10.0)
            if alive(pid, start):
                raise LabError(f"lab: process {pid} does not end", remedy="see `ps` and dmesg")
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def alive(pid: int, start: int) -> bool:
    """Return whether the process of that pid and start time lives; collects it if it is ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return start_time(pid) == start


def _stat(pid: int) -> list[str]:
    """Return /proc/<pid>/stat after the name: state, parent, ...; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def start_time(pid: int) -> int | None:
    """Return a living process's start time in clock ticks since boot; None when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def child(pid: int) -> int:
    """Return the pid of a process's first child, 0 when there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and int(fields[1]) == pid:
            return int(entry.name)
    return 0
