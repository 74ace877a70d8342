"""Exchanges over TCP, timed by curl in microseconds: connecting, first byte, whole answer.

One process makes them one after another, so that starting it is in none of the times. `fresh`
exchanges have a connection each; `kept` ones share one where the server keeps it, and else are
fresh too. curl's clock runs from when it begins an exchange, so every time here is a difference:

- connect_ms: until the TCP handshake was done, from when the address was known;
- response_ms: from the connection being there (`kept`: from the exchange's begin) to the first byte
  of the answer. That includes curl's writing of the request, some tens of microseconds, and the
  server's own turn-around (accepting, reading, answering): both are the same on both paths where
  the same server listens on both, so the difference between them is the network's. curl's
  `time_pretransfer` would be nearer, but is taken after the request was sent: on a busy machine the
  answer is there before it, and what is left is a few microseconds too short to be true;
- total_ms: from when the address was known to the last byte.

A lost SYN is sent again by the kernel after 1 s: it shows as a second more, not as a loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["Exchange", "command", "connects", "parse", "responses", "wholes"]

_FORMAT = (
    r"\n~ %{http_code} %{num_connects} %{time_namelookup} %{time_connect} %{time_pretransfer}"
    r" %{time_starttransfer} %{time_total} %{exitcode} %{errormsg}\n"
)
# curl says only that it could not connect (7). Its chatter says why; that is asked for once, and
# only then, because it would be in the times.
_SCRIPT = (
    'url=$1 count=$2 limit=$3 close=$4 format=$5; set --; n=0; while [ "$n" -lt "$count" ]; do'
    ' set -- "$@" "$url"; n=$((n + 1)); done;'
    ' each() { curl -q -g -s --noproxy \'*\' --connect-timeout "$limit" -m "$limit"'
    ' ${close:+-H "$close"} "$@"; };'
    ' said=$(each -w "$format" "$@" 2>&1); printf \'%s\\n\' "$said";'
    ' case "$said" in *" 7 Failed to connect"*) each -v -o /dev/null "$url" 2>&1'
    " | sed -n -e 's/^\\* .*connect to .* failed: \\(.*\\)$/~why \\1/p'"
    " -e 's/^\\* .*mmediate connect fail for .*: \\(.*\\)$/~why \\1/p' | head -n 1;; esac; true"
)
_LINE = re.compile(
    r"^~ (?P<status>\d{3}) (?P<connects>\d{1,6})"
    + "".join(rf" (?P<{name}>\d+\.\d+)" for name in ("name", "connect", "ready", "first", "total"))
    + r" (?P<exit>\d{1,3}) ?(?P<error>.*)$"
)
_WHY = re.compile(r"^~why (?P<why>.+)$", re.M)
_CANNOT_CONNECT, _TIMED_OUT = 7, 28
_WORDY = re.compile(r"Failed to connect to \S+ port \d+ after \d+ ms: ")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it.

    Attributes:
        seq: Its number in the command, counted from 1.
        connect_ms: How long connecting took; None when it failed, or the connection was there.
        response_ms: How long the first byte of the answer took; None when none came.
        total_ms: How long everything took; None when the answer did not come whole.
        status: The HTTP status; None when none came.
        server: The answer's first line where that can be a host's name, else empty.
        error: Why there is no answer; empty when there is one, whatever its status.
        kept: True when it went over the connection of the exchange before it.
    """

    seq: int
    connect_ms: float | None
    response_ms: float | None
    total_ms: float | None
    status: int | None = None
    server: str = ""
    error: str = ""
    kept: bool = False


def command(url: str, *, count: int = 6, kept: bool = False, timeout: int = 2) -> Cmd:
    """Return `count` requests of `url`, one after another; the first ones are warm-ups.

    Args:
        url: `http://<address>:<port>/`.
        count: How many.
        kept: True to let them share a connection; else each has its own.
        timeout: Whole seconds for each of them.
    """
    close = "" if kept else "Connection: close"
    return script(
        _SCRIPT, url, str(count), str(timeout), close, _FORMAT,
        timeout=(count + 1) * timeout + 10, label=f"curl {url} {count} times",
    )  # fmt: skip


def parse(text: str, *, count: int) -> list[Exchange]:
    """Return the exchanges in order.

    Args:
        text: Standard output followed by standard error.
        count: How many were asked for.

    Raises:
        ParseError: The text is not curl's, is not whole, or its times cannot be.
    """
    exchanges: list[Exchange] = []
    why = _WHY.search(text)
    body: list[str] = []
    for line in text.splitlines():
        said = _LINE.match(line)
        if said is None:
            body.append(line)
            continue
        exchanges.append(_exchange(len(exchanges) + 1, said, body, why["why"] if why else ""))
        body = []
    if len(exchanges) != count:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise _strange(f"{len(exchanges)} of {count} exchanges: {last}")
    return exchanges


def connects(exchanges: Sequence[Exchange]) -> list[Sample]:
    """Return how long each connection took; those that were there already are left out."""
    return _samples([e for e in exchanges if not e.kept], lambda e: e.connect_ms)


def responses(exchanges: Sequence[Exchange]) -> list[Sample]:
    """Return how long the first byte of each answer took, whatever its HTTP status."""
    return _samples(exchanges, lambda e: e.response_ms)


def wholes(exchanges: Sequence[Exchange]) -> list[Sample]:
    """Return how long everything took; an answer with an HTTP error counts as lost."""
    return _samples(exchanges, lambda e: e.total_ms if (e.status or 0) < 400 else None)


def _samples(
    exchanges: Sequence[Exchange], measured: Callable[[Exchange], float | None]
) -> list[Sample]:
    samples = []
    for each in exchanges:
        ms = measured(each)
        reason = "" if ms is not None else each.error or f"HTTP status {each.status}"
        samples.append(Sample(each.seq, ms, reason=reason, server=each.server))
    return samples


def _exchange(seq: int, said: re.Match[str], body: list[str], why: str) -> Exchange:
    name, connect, ready, first, total = (
        _seconds(said[each]) for each in ("name", "connect", "ready", "first", "total")
    )
    done, status = said["exit"] == "0", int(said["status"])
    kept = said["connects"] == "0" and ready > 0  # it could send, and did not connect
    connected, answered = said["connects"] != "0" and connect > 0, status > 0 and first > 0
    ordered = (name <= connect or not connected) and (max(name, connect) <= first or not answered)
    if not ordered or total < max(connect, ready, first):
        raise _strange(f"times that run backwards: {said[0]}")
    if done and not (answered and (connected or kept)):
        raise _strange(f"an exchange that went well without an answer: {said[0]}")
    error = _WORDY.sub("", said["error"].strip()) or f"curl: exit status {said['exit']}"
    if int(said["exit"]) == _CANNOT_CONNECT and why:
        error = why.strip()
    elif int(said["exit"]) == _TIMED_OUT:
        error = f"timed out {'waiting for the answer' if connected or kept else 'connecting'}"
    first_line = next((line.strip() for line in body if line.strip()), "")
    return Exchange(
        seq,
        connect_ms=_ms(connect - name) if connected else None,
        response_ms=_ms(first - (name if kept else connect)) if answered else None,
        total_ms=_ms(total - name) if done else None,
        status=status or None,
        server=first_line if answered and _NAME.fullmatch(first_line) else "",
        error="" if done else error,
        kept=kept,
    )


def _seconds(text: str) -> float:
    if len(text.partition(".")[2]) < _DIGITS:
        raise _strange(f"{text}: this curl does not print microseconds (7.61 and later do)")
    return float(text)


def _ms(seconds: float) -> float:
    """Return milliseconds, without the noise of the subtraction below a microsecond."""
    return round(seconds * 1000, 3)


def _strange(what: str) -> ParseError:
    return ParseError(f"curl: {what}", remedy=BY_HAND)
