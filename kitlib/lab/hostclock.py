"""A lab host's clock, as everything emulated on it reads it.

No namespace shifts the kernel's wall time, so a clock that is wrong is an offset in a file of the
host: the emulated kubelet, kubeadm and API add it to their stamps, and `date` is a small script in
front of the real one. What really runs (files' times, certificates, a program in a pod) keeps the
machine's time.
"""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

from kitlib.lab.hostroot import LAB_DIR

__all__ = ["ahead", "now", "restore", "set_ahead", "utc"]

_FILE = LAB_DIR / "clock-ahead"
_DATE = Path("/usr/local/sbin/date")
_SCRIPT = f"""#!/bin/sh
# The lab's fault clock-skew: the real date, with this host's offset. Of two --date the later holds.
exec /usr/bin/date --date="$(cat {_FILE}) seconds" "$@"
"""


def ahead() -> float:
    """Return by how many seconds this host's clock is ahead of the machine's."""
    try:
        return float(_FILE.read_text())
    except (OSError, ValueError):
        return 0.0


def now() -> float:
    """Return the host's time, seconds since 1970."""
    return time.time() + ahead()


def utc() -> dt.datetime:
    """Return the host's time in UTC."""
    return dt.datetime.fromtimestamp(now(), dt.UTC)


def set_ahead(seconds: float) -> None:
    """Have this host's clock go ahead by so many seconds."""
    _FILE.write_text(f"{seconds:g}\n")
    _DATE.parent.mkdir(parents=True, exist_ok=True)
    _DATE.write_text(_SCRIPT)
    _DATE.chmod(0o755)


def restore() -> None:
    """Give the host the machine's time again."""
    _FILE.unlink(missing_ok=True)
    _DATE.unlink(missing_ok=True)
