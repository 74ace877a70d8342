"""What PID 1 of a PID namespace owes to the others in it: collecting the dead.

asyncio wants to collect its own children itself, so the daemons run as a child of this.
"""

from __future__ import annotations

import os
import sys

__all__ = ["stay_behind"]


def stay_behind() -> None:
    """Fork; return in the child alone, while the parent collects the dead as PID 1.

    When that child ends, PID 1 ends with its exit status, and the kernel ends all the rest.
    """
    daemon = os.fork()
    if daemon == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == daemon:
            sys.stderr.flush()
            os._exit(os.waitstatus_to_exitcode(status) % 256)
