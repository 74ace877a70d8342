"""HTTP from inside a pod, untimed: wget of BusyBox and of GNU, to a pod or through a Service."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kitlib.command import Cmd
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["Answer", "command", "parse", "sample"]

_STATUS = re.compile(r"server returned error: HTTP/\S+ (?P<status>\d{3})(?P<words>.*)")
_SAID = re.compile(r"^wget: (?P<why>.+)$", re.M)
# GNU wget is silent under -q: its exit status is all there is.
_GNU = {4: "network failure", 5: "certificate refused", 7: "protocol error", 8: "error answer"}
# `timeout` of the GNU tools and of BusyBox.
_SAYS = {124: "timed out", 143: "timed out", **_GNU}
_NO_PROGRAM = (125, 126, 127)


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
    """Return the request of `url`; it is ended after `timeout` seconds."""
    # Not wget's own -T: that of BusyBox 1.35 in Debian 12 crashes with it, and GNU's tries again.
    return Cmd.of("timeout", str(timeout), "wget", "-qO-", url, timeout=timeout + 10)


def parse(stdout: str, stderr: str, exit_status: int) -> Answer:
    """Return what the request brought; the exit status decides.

    Raises:
        ParseError: There is no wget, or it may not be run.
    """
    if exit_status in _NO_PROGRAM:
        last = (stderr.strip().splitlines() or [f"exit status {exit_status}"])[-1]
        raise ParseError(f"wget: did not run: {last}", remedy=BY_HAND)
    if exit_status == 0:
        return Answer(True, stdout)
    if found := _STATUS.search(stderr):
        words = f"HTTP {found['status']}{found['words']}".rstrip()
        return Answer(False, stdout, int(found["status"]), words)
    said = _SAID.search(stderr)
    known = _SAYS.get(exit_status, f"exit status {exit_status}")
    return Answer(False, stdout, None, said["why"].strip() if said else known)


def sample(answer: Answer) -> Sample:
    """Return the answer as one sample without a time: wget does not say how long it took."""
    return Sample(1, None, reason=answer.error, untimed=answer.ok)
