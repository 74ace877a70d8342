"""The log line head that every Kubernetes program writes to standard error."""

from __future__ import annotations

from kitlib.lab import hostclock

__all__ = ["klog"]


def klog(severity: str, pid: int, source: str, text: str) -> str:
    """Return a log line: `W1122 18:06:40.791699     192 removeetcdmember.go:80] text`.

    Args:
        severity: One letter: I, W or E.
        pid: The process that writes it.
        source: File and line in the program, `reset.go:101`.
        text: The message.
    """
    now = hostclock.utc()
    return f"{severity}{now:%m%d %H:%M:%S.%f} {pid:7d} {source}] {text}"
