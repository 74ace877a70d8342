"""Sockets in a pod's network namespace, held by this process.

A socket stays in the namespace that it was made in: a thread enters the namespace, makes the
socket and ends, and the event loop serves it from outside. So a DNS or web server in a pod costs
no process.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

__all__ = ["listen"]

_CLONE_NEWNET = 0x40000000


def listen(netns: str, kind: socket.SocketKind, port: int) -> socket.socket:
    """Return a non-blocking socket bound to a port of a namespace; a TCP one listens.

    Args:
        netns: Its name under /run/netns; empty for the host's own.
        kind: `SOCK_STREAM` or `SOCK_DGRAM`.
        port: Port on every address.

    Raises:
        OSError: The namespace is gone or the port is taken.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            if netns:
                _enter(netns)
            sock = socket.socket(socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(128)
            sock.setblocking(False)
            made.append(sock)
        except OSError as problem:
            failed.append(problem)

    # A thread of its own and not a pool's: it stays in the namespace until it ends.
    thread = threading.Thread(target=make, name=f"netns {netns}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _enter(netns: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(Path("/run/netns") / netns, os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)
