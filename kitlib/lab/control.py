"""The client of a running lab's control socket: one JSON line asks, one JSON line answers.

It is an abstract UNIX socket: no file to leave behind, and the box answers its own user alone.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from kitlib.errors import LabError

__all__ = ["ask", "listen"]


def listen(name: str) -> socket.socket:
    """Return the listening, inheritable control socket of that name."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(f"\0{name}")
    sock.listen(16)
    sock.set_inheritable(True)
    return sock


def ask(name: str, request: Mapping[str, Any], *, timeout: float = 10.0) -> dict[str, Any]:
    """Return the lab's answer to one request.

    Raises:
        LabError: The lab refused (its message and remedy), or did not answer in `timeout` seconds.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(f"\0{name}")
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile() as lines:
                answer: dict[str, Any] = json.loads(lines.readline() or "{}")
    except (OSError, ValueError) as error:
        raise LabError(
            f"lab: its control socket does not answer: {error}",
            remedy="see box.log in the lab's state directory; `kit lab down` and `up` start afresh",
        ) from error
    if "error" in answer:
        raise LabError(answer["error"], remedy=answer.get("remedy", ""))
    return answer
