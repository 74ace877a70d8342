"""A shell that stays open in a pod: many commands over one exec, each at the price of a round trip.

An exec of its own costs a command a TLS handshake, a WebSocket and a new process in the container:
tens of milliseconds and much work of the API server, thousands of times in a measurement.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import threading
import time
from collections.abc import Callable

from websocket import ABNF, WebSocket, WebSocketException

from kitlib.command import Cmd
from kitlib.errors import ApiError, CommandError, KitError
from kitlib.model import CommandResult

__all__ = ["OpenExec", "PodShell"]

OpenExec = Callable[[tuple[str, ...]], WebSocket]
"""Opens an exec of a command (argv) with standard input; `Kube.open_exec` of one pod."""

_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSED = 0, 1, 2, 3, 255
SLICE = 0.25
"""Seconds that a read waits at most before it looks whether the shell was closed meanwhile."""
IDLE_SECONDS = 45.0
"""A session that was silent for this long is opened anew before it is used: load balancers in front
of an API forget such connections, some after a minute, and not all of them tell."""
STUCK_SECONDS = 30.0
"""A peer that neither takes nor finishes what is sent for this long is lost."""
KILL_SECONDS = 10.0

# The command reads nothing of what follows it, and its end is said on both streams, as what was
# printed on one says nothing of the other.
_TURN = """( {command} ) </dev/null
set -- $?
printf '\\n%s %d\\n' {mark} $1
printf '\\n%s %d\\n' {mark} $1 >&2
"""
# A shell whose connection was lost may still be at its command. It leads its own process group.
_FIRST = """[ {old} = 0 ] || [ {old} = $$ ] || kill -9 -{old} 2>/dev/null
printf '%d\\n' $$
"""
_KILL = "kill -9 -$1 || kill -9 $1"
_SEALED = 64
"""The bytes from a mark's beginning to the end of its line, at most."""


class _Lost(Exception):
    """The session is gone; why, in words."""


class PodShell:
    """One shell in one pod; safe to use from several threads, one command at a time.

    Args:
        name: What its commands' results are said to be of: the pod, or its node.
        open_exec: Opens an exec in the pod.
        clock: The monotonic clock; a test passes its own.
    """

    def __init__(
        self,
        name: str,
        open_exec: OpenExec,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._open_exec = open_exec
        self._clock = clock
        self._lock = threading.Lock()
        self._socket: WebSocket | None = None
        self._pid = 0
        self._used = 0.0
        self._closed = False

    def __enter__(self) -> PodShell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, cmd: Cmd, *, timeout: float = 60) -> CommandResult:
        """Return what a command did; one whose session was lost is begun once more.

        A command that is not in the image ends with status 127, as in any shell.

        Raises:
            ApiError: No session could be opened, or it was lost twice.
            CommandError: The command did not end within `timeout` seconds; it was ended.
        """
        with self._lock:
            started = self._clock()
            for last in (False, True):
                try:
                    stdout, stderr, status = self._turn(cmd, self._clock() + timeout)
                except _Lost as lost:
                    self._drop()
                    if last or self._closed:
                        raise ApiError(f"shell in {self.name}: broke off: {lost}") from lost
                except TimeoutError:
                    self._end_what_runs()
                    raise CommandError(
                        self.name, str(cmd), None, f"no end in {timeout:g} s"
                    ) from None
                except BaseException:
                    self._drop()  # it is in the middle of an answer
                    raise
                else:
                    return CommandResult(
                        host=self.name,
                        command=str(cmd),
                        stdout=stdout,
                        stderr=stderr,
                        exit_status=status,
                        seconds=self._clock() - started,
                    )
            raise AssertionError("unreachable")

    def close(self) -> None:
        """End the shell, and with it what it runs; a command under way in a thread ends too."""
        self._closed = True
        if self._lock.acquire(timeout=4 * SLICE):  # else its thread sees it, and drops the session
            try:
                self._drop()
            finally:
                self._lock.release()

    def _turn(self, cmd: Cmd, end: float) -> tuple[str, str, int]:
        """Return a command's standard output and error and its exit status."""
        if self._socket is not None and self._clock() - self._used > IDLE_SECONDS:
            self._drop()
        socket = self._socket or self._begin(end)
        mark = f"kit-{secrets.token_hex(8)}"
        self._send(socket, _TURN.format(command=cmd.render(), mark=mark))
        seal = f"\n{mark} ".encode()
        said = {_STDOUT: b"", _STDERR: b""}
        while not all(seal in text[-_SEALED:] and text.endswith(b"\n") for text in said.values()):
            stream, came = self._read(socket, end)
            if stream in said:
                said[stream] += came
        self._used = self._clock()
        stdout, _, status = said[_STDOUT].rpartition(seal)
        stderr = said[_STDERR].rpartition(seal)[0]
        return stdout.decode(errors="replace"), stderr.decode(errors="replace"), int(status)

    def _begin(self, end: float) -> WebSocket:
        """Open a session, and learn its process number."""
        if self._closed:
            raise _Lost("it was closed")
        socket = self._socket = self._open_exec(("sh",))
        socket.settimeout(STUCK_SECONDS)
        self._send(socket, _FIRST.format(old=self._pid))
        told = b""
        while not told.endswith(b"\n"):
            stream, came = self._read(socket, end)
            told += came if stream == _STDOUT else b""
        if not told.strip().isdigit():
            raise _Lost(f"its shell said {told[:80]!r}")
        self._pid = int(told)
        return socket

    def _send(self, socket: WebSocket, text: str) -> None:
        try:
            socket.send(bytes([_STDIN]) + text.encode(), opcode=ABNF.OPCODE_BINARY)
        except (WebSocketException, OSError, AttributeError) as error:
            raise _Lost(str(error) or type(error).__name__) from error

    def _read(self, socket: WebSocket, end: float) -> tuple[int, bytes]:
        """Return what came next, as (stream, bytes).

        Raises:
            TimeoutError: `end` has come.
            _Lost: The session is gone.
        """
        while True:
            left = end - self._clock()
            if left <= 0:
                raise TimeoutError
            if self._closed:
                raise _Lost("it was closed")
            try:
                frame = _frame(socket, min(SLICE, left))
            except (WebSocketException, OSError, AttributeError, ValueError) as error:
                raise _Lost(str(error) or type(error).__name__) from error
            if frame is None:
                continue
            if frame[0] == _STATUS:
                raise _Lost(_why(frame[1]))
            return frame

    def _drop(self) -> None:
        """Let the session go; its shell ends as its standard input does."""
        socket, self._socket = self._socket, None
        if socket is not None:
            _close(socket)

    def _end_what_runs(self) -> None:
        """End a shell whose command does not: closing its standard input would wait for that."""
        self._drop()
        with contextlib.suppress(KitError, WebSocketException, OSError, AttributeError, ValueError):
            killer = self._open_exec(("sh", "-c", _KILL, "sh", str(self._pid)))
            try:
                killer.settimeout(KILL_SECONDS)
                while (_frame(killer, KILL_SECONDS) or (_STATUS, b""))[0] != _STATUS:
                    pass
            finally:
                _close(killer)
        self._pid = 0


def _frame(socket: WebSocket, seconds: float) -> tuple[int, bytes] | None:
    """Return the next piece of a stream as (stream, bytes); None where none comes in time.

    Raises:
        OSError: The connection was closed.
        WebSocketException: It broke.
    """
    under = socket.sock
    if under is None:
        raise OSError("the connection was closed")
    # What TLS has decrypted already, no poll shows.
    if not getattr(under, "pending", int)():
        poll = select.poll()
        poll.register(under, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return None
    opcode, frame = socket.recv_data_frame(control_frame=True)
    if opcode == ABNF.OPCODE_CLOSE:
        raise OSError("the connection was closed")
    if opcode not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or len(frame.data) < 2:
        return None
    return (frame.data[0], frame.data[1:]) if frame.data[0] != _CLOSED else None


def _close(socket: WebSocket) -> None:
    """Close an exec; that it is closed or broken already is as good."""
    with contextlib.suppress(WebSocketException, OSError, AttributeError, ValueError):
        socket.close(timeout=1)
    with contextlib.suppress(WebSocketException, OSError, AttributeError, ValueError):
        socket.shutdown()  # type: ignore[no-untyped-call]  # close() leaves it open where the server closed first


def _why(told: bytes) -> str:
    """Return what the API said of the end of a session."""
    try:
        return str(json.loads(told).get("message") or "its shell ended")
    except (ValueError, AttributeError):
        return "its shell ended"
