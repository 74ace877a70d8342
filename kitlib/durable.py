"""Changes that outlive their connection: started once on the host, waited for, found again.

The shell side is `kitlib.detached`. Here is the patience: a lost connection is opened again and the
command that runs on is waited for; one that takes too long, or that is interrupted, is ended on the
host. A runner that dies leaves its commands running: the next run waits for them (`settle`).
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from kitlib import detached
from kitlib.command import Cmd
from kitlib.detached import STATE, Answer, Job, Left
from kitlib.errors import CommandError, ConnectError, Interrupted, KitError
from kitlib.fanout import fan_out
from kitlib.model import CommandResult

__all__ = ["Durable", "Runner"]

MARGIN = 30.0
"""Seconds beyond its limit after which a host that does not answer is given up."""
STOP_SECONDS = 30.0
"""How long the end of a command may take: it is asked politely first."""


class Runner(Protocol):
    """What is needed of the door to the hosts (kitlib.ssh.Ssh has it)."""

    def run(self, name: str, cmd: Cmd) -> CommandResult:
        """Return what a command on a host did."""


class Durable:
    """Runs changing commands so that a lost connection or a dead runner does not break them.

    Args:
        ssh: The door to the hosts.
        command_timeout: Seconds for a command that names no timeout of its own.
        patience: Seconds that a host may be out of reach while a command runs on it.
        note: Told (host, text) what is waited for.
        state: The kit's directory on the hosts.
        every: Seconds between two looks after a connection was lost.
        sleep: How to wait; a test passes its own.

    Safe to use from several threads.
    """

    def __init__(
        self,
        ssh: Runner,
        *,
        command_timeout: float,
        patience: float,
        note: Callable[[str, str], None],
        state: str = STATE,
        every: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ssh = ssh
        self._command_timeout = command_timeout
        self._patience = patience
        self._note = note
        self._state = state
        self._every = every
        self._sleep = sleep
        self._lock = threading.Lock()
        self._under_way: list[_Waiting] = []
        self._interrupted_in = 0

    def run(self, host: str, stage: str, cmd: Cmd) -> CommandResult:
        """Return what a changing command did, whatever its exit status.

        The same command that runs on the host already (of this stage, from a run that lost it) is
        waited for instead of being started a second time.

        Raises:
            ConnectError: The host was out of reach for too long, or restarted meanwhile.
            CommandError: The command did not end within its timeout; it was ended on the host.
            Interrupted: `end_all` ended it.
        """
        job = Job.of(stage, host, cmd, state=self._state)
        limit = math.ceil(cmd.timeout or self._command_timeout)
        begin = detached.start(job, cmd, attempt=secrets.token_hex(8), limit=limit)
        started = time.monotonic()
        with self._waiting(host, job.command, job.directory) as waiting:
            answer = self._await(waiting, begin, limit)
            if answer.state == "running":
                self._stop(host, job.directory)
                raise CommandError(
                    host,
                    job.command,
                    None,
                    f"no end within {limit:g} s; it was ended on the host",
                    remedy="look at the host; raise the timeout if it is only slow",
                )
            self._forget(host, job.directory)
        if answer.found:
            self._note(host, f"had been started before, and was waited for: {job.command}")
        return CommandResult(
            host=host,
            command=job.command,
            stdout=answer.stdout,
            stderr=answer.stderr,
            exit_status=answer.exit_status,
            seconds=time.monotonic() - started,
        )

    def settle(self, host: str) -> list[tuple[Left, Answer]]:
        """Return what earlier runs left on a host and how it ended; what runs is waited for.

        One that is over its time is ended. Afterwards no command of the kit runs there and none of
        its files are left; what came of it is for the facts to say.

        Raises:
            KitError: The host cannot be read.
        """
        listing = self._ssh.run(host, detached.jobs(state=self._state))
        found = []
        for left in detached.parse_jobs(listing.stdout):
            directory = left.directory(state=self._state)
            rest = max(0, left.limit - left.age)
            if left.exit_status is None:
                self._note(host, f"waiting for a command that still runs there: {left.command}")
            with self._waiting(host, left.command, directory) as waiting:
                answer = self._await(waiting, detached.find(directory, limit=rest), rest)
                if answer.state == "running":
                    self._stop(host, directory)
                else:
                    self._forget(host, directory)
            found.append((left, answer))
        return found

    def end_all(self) -> None:
        """End every command that is under way, on its host; who waits for one is Interrupted.

        Until `resume` no other thread begins one; the caller's own may: it cleans up.
        """
        with self._lock:
            self._interrupted_in = threading.get_ident()
            pending = list(self._under_way)
            for waiting in pending:
                waiting.ended = True
        # Errors are passed over: a host that is out of reach is looked after by the next run.
        fan_out(lambda waiting: self._stop(waiting.host, waiting.directory), pending)

    def resume(self) -> None:
        """Let every thread begin commands again, after `end_all`."""
        with self._lock:
            self._interrupted_in = 0

    def _await(self, waiting: _Waiting, begin: Cmd, limit: int) -> Answer:
        """Return what became of a job, or that it runs when its time is over."""
        host = waiting.host
        started = heard = time.monotonic()
        ask, wait = begin, limit
        look = detached.find(waiting.directory, limit=0)
        while True:
            try:
                result = self._ssh.run(host, replace(ask, timeout=wait + MARGIN))
            except ConnectError as error:
                waiting.check()
                if not error.transient or time.monotonic() - heard > self._patience:
                    raise _lost(waiting, ask, error) from error
                self._note(host, f"out of reach, trying again; started there: {waiting.command}")
                # From here on short questions: a bad connection may not last for a long one.
                ask, wait = look, 0
                self._sleep(self._every)
                continue
            except CommandError:
                return Answer("running")
            waiting.check()
            heard = time.monotonic()
            answer = detached.parse(result.stdout, result.stderr)
            if answer.state == "gone" and answer.uptime < heard - started:
                raise ConnectError(
                    f"{host}: the host restarted during: {waiting.command}",
                    remedy="run the same command again: it goes on from what is true",
                )
            if answer.state == "gone":
                ask, wait = begin, limit  # the connection was lost before it began
            elif answer.state == "running" and heard - started < limit:
                ask, wait = look, 0
                self._sleep(self._every)
            else:
                return answer

    def _stop(self, host: str, directory: str) -> None:
        self._ssh.run(host, replace(detached.stop(directory), timeout=STOP_SECONDS))

    def _forget(self, host: str, directory: str) -> None:
        # What cannot be removed now, the next run finds finished and removes.
        with contextlib.suppress(KitError):
            self._ssh.run(host, detached.collected(directory))

    @contextmanager
    def _waiting(self, host: str, command: str, directory: str) -> Iterator[_Waiting]:
        waiting = _Waiting(host, command, directory)
        with self._lock:
            if self._interrupted_in not in (0, threading.get_ident()):
                raise Interrupted(f"{host}: {command}: not begun")
            self._under_way.append(waiting)
        try:
            yield waiting
        finally:
            with self._lock:
                self._under_way.remove(waiting)


@dataclass(eq=False, slots=True)
class _Waiting:
    """Somebody waits for a job."""

    host: str
    command: str
    directory: str
    ended: bool = False

    def check(self) -> None:
        """Go on, unless the job was ended by an interrupt."""
        if self.ended:
            raise Interrupted(f"{self.host}: {self.command}: ended on the host")


def _lost(waiting: _Waiting, ask: Cmd, error: ConnectError) -> ConnectError:
    why = error.message.replace(f" during: {ask.brief}", "").removeprefix(f"{waiting.host}: ")
    # Of its own kind: a changed host key stays one.
    return type(error)(
        f"{waiting.host}: out of reach during: {waiting.command}: {why}",
        remedy="check the host, then run the same command again: what still runs there is found "
        "and waited for",
    )
