"""Ports that something on a host listens on, and who."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kitlib.facts.sections import command, lines_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "Listener", "parse"]

SCRIPT = section("ports", needs("ss", "ss -H -l -t -u -n -p"))
COMMAND = command(SCRIPT)

_USER = re.compile(r'users:\(\("([^"]+)",pid=(\d+)')


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket.

    Attributes:
        protocol: `tcp` or `udp`.
        address: The local address, `*` or `0.0.0.0` for any.
        port: The port.
        process: The program; empty where it cannot be seen.
        pid: Its process id; 0 where it cannot be seen.
    """

    protocol: str
    address: str
    port: int
    process: str
    pid: int = 0


def parse(text: str) -> tuple[Listener, ...] | None:
    """Return the listening sockets, from what `COMMAND` printed; None when it could not be read."""
    lines = lines_of(split(text), "ports")
    if lines is None:
        return None
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 6 or words[0] not in ("tcp", "udp"):
            continue
        address, _, port = words[4].rpartition(":")
        user = _USER.search(line)
        if port.isdigit():
            who = (user[1], int(user[2])) if user else ("", 0)
            found.append(Listener(words[0], address, int(port), *who))
    return tuple(found)
