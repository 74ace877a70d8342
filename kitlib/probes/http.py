"""HTTP from inside a pod: wget of BusyBox and of GNU, to a pod or through a Service."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kitlib.command import Cmd

__all__ = ["Answer", "command", "parse"]

_STATUS = re.compile(r"server returned error: HTTP/\S+ (?P<status>\d{3})(?P<words>.*)")
_SAID = re.compile(r"^wget: (?P<why>.+)$", re.M)
# GNU wget is silent under -q: its exit status is all there is.
_GNU = {4: "network failure", 5: "certificate refused", 7: "protocol error", 8: "error answer"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought.

    Attributes:
        ok: True when the server answered with success.
        body: The answer's text.
        status: The HTTP status where it was shown (only on an error answer).
        error: Why there is no body.
    """

    ok: bool
    body: str = ""
    status: int | None = None
    error: str = ""


def command(url: str, *, timeout: int = 5) -> Cmd:
    """Return the request of `url`; it gives up after `timeout` seconds without an answer."""
    return Cmd.of("wget", "-qO-", "-T", str(timeout), url, timeout=timeout * 4 + 10)


def parse(stdout: str, stderr: str, exit_status: int) -> Answer:
    """Return what the request brought; every text is accepted, the exit status decides."""
    if exit_status == 0:
        return Answer(True, stdout)
    if found := _STATUS.search(stderr):
        words = f"HTTP {found['status']}{found['words']}".rstrip()
        return Answer(False, stdout, int(found["status"]), words)
    said = _SAID.search(stderr)
    known = _GNU.get(exit_status, f"exit status {exit_status}")
    return Answer(False, stdout, None, said["why"].strip() if said else known)
