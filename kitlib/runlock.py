"""One run at a time: a lock on every host, kept fresh while the run lives.

Runners may sit on different machines, so the lock is where the work is done: a file on each host
that names its owner. Its owner touches it every few seconds; one that was not touched for a minute
is nobody's any more. An owner on this very machine whose process is gone is known to be dead at
once. Whoever takes a lock over writes that down.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kitlib.command import Cmd, script
from kitlib.detached import STATE
from kitlib.durable import Runner
from kitlib.errors import KitError, ParseError, PreconditionError
from kitlib.fanout import fan_out

__all__ = ["RENEW_SECONDS", "STALE_SECONDS", "Owner", "RunLock"]

RENEW_SECONDS = 10.0
WHOLE = ("kit build", "kit diagnose")
"""Whose notebooks, processes of their own, work under the lock of the run that started them."""
STALE_SECONDS = 60

# $1 the kit's directory, $2 our key, $3 who we are, $4 the key of an owner that is known to be
# dead. The age is the difference of two times that the file system gave: no clock can be wrong.
_TAKE = f"""dir=$1 lock=$1/lock
(umask 077 && mkdir -p $dir) || exit
exec 3>>$dir/lock.mutex
flock -w 10 3 || exit
touch $dir/lock.mutex
how=taken
if [ -e $lock ]; then
  held=$(head -n 1 $lock)
  age=$(( $(stat -c %Y $dir/lock.mutex) - $(stat -c %Y $lock) ))
  if [ "$held" = "$2" ]; then touch $lock; echo mine 0; exit; fi
  if [ "$held" != "$4" ] && [ $age -le {STALE_SECONDS} ]; then
    echo held $age; sed -n 2p $lock; exit
  fi
  how="over $age"
  had=$(sed -n 2p $lock)
fi
printf '%s\\n%s\\n' "$2" "$3" >$lock.new && mv $lock.new $lock || exit
echo $how 0; echo "$had"
"""

_RELEASE = """lock=$1/lock
[ -e $lock ] || exit 0
exec 3>>$1/lock.mutex
flock -w 10 3 || exit
if [ "$(head -n 1 $lock)" = "$2" ]; then rm -f $lock; fi
"""


_HELD: set[str] = set()
"""The keys of the locks that this very process holds: one of its own that is not here is a lock
that could not be released, because its host was out of reach then."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock.

    Attributes:
        run_id: The run.
        what: `kit build`, `kit diagnose`, `kit stage` or `notebook`.
        user: The person's login name.
        machine: The name of the machine that the run is on.
        pid: The process.
        since: When the lock was taken, UTC.
        process: What tells the process from every other of this machine: the kernel's boot, the
            namespace of process numbers, and the process's own start; empty where unknown.
    """

    run_id: str
    what: str
    user: str
    machine: str
    pid: int
    since: str
    process: str = ""

    @classmethod
    def here(cls, run_id: str, what: str, since: str) -> Owner:
        """Return this process as an owner."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        pid = os.getpid()
        return cls(run_id, what, user, socket.gethostname(), pid, since, _process(pid))

    @property
    def key(self) -> str:
        """What the lock is compared by."""
        return f"{self.run_id}/{self.pid}/{self.process.rpartition(' ')[2]}"

    @property
    def text(self) -> str:
        """The owner as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Return the owner that such a line tells; None for anything else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    @property
    def ended(self) -> bool:
        """True when the owner was a process of this machine that is gone."""
        here = _process(os.getpid()).rpartition(" ")[0]
        there = self.process.rpartition(" ")[0]
        return bool(there) and there == here and _process(self.pid) != self.process

    @property
    def is_this(self) -> bool:
        """True when the owner is this very process."""
        return bool(self.process) and self.process == _process(os.getpid())

    @property
    def dead(self) -> bool:
        """True when the owner was a process of this machine that is gone, or has ended its run."""
        return self.ended or (self.is_this and self.key not in _HELD)

    def __str__(self) -> str:
        """Return who it is, for a message."""
        return (
            f"run {self.run_id} ({self.what}) of {self.user} on {self.machine}, pid {self.pid}, "
            f"since {self.since}"
        )


class RunLock:
    """The lock of one run on all of its hosts.

    Args:
        ssh: The door to the hosts.
        hosts: Their names; the first is asked first, and decides between two that come at a time.
        owner: Who takes it.
        tell: Told (host, text) what is worth writing down: a lock that was taken over.
        state: The kit's directory on the hosts.
        every: Seconds between two signs of life.
    """

    def __init__(
        self,
        ssh: Runner,
        hosts: Sequence[str],
        owner: Owner,
        *,
        tell: Callable[[str, str], None],
        state: str = STATE,
        every: float = RENEW_SECONDS,
    ) -> None:
        self._ssh = ssh
        self._hosts = tuple(hosts)
        self.owner = owner
        self._tell = tell
        self._state = state
        self._every = every
        self._depth = 0
        self._lost = ""

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Hold the lock; yields True when it was free before, False when this run has it already.

        The notebooks of a build find the build's lock and work under it.

        Raises:
            PreconditionError: Another run has it; the message names that run.
            ConnectError: A host cannot be reached.
        """
        if self._depth or not self._take_all():
            self._depth += 1
            try:
                yield False
            finally:
                self._depth -= 1
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._renew, args=(stop,), daemon=True, name="lock")
        thread.start()
        self._depth = 1
        try:
            yield True
        finally:
            self._depth = 0
            _HELD.discard(self.owner.key)
            stop.set()
            thread.join()
            self._release(self._hosts)

    def check(self) -> None:
        """Go on, unless the lock was lost meanwhile.

        Raises:
            PreconditionError: Another run took it over: this one gave no sign of life for too long.
        """
        if self._lost:
            raise PreconditionError(
                self._lost, remedy="wait until the other run has ended, then run this one again"
            )

    def _take_all(self) -> bool:
        """Take the lock everywhere; return False when it is the one of the build around us."""
        self._lost = ""
        _HELD.add(self.owner.key)
        try:
            taken = self._take_each()
        except BaseException:
            _HELD.discard(self.owner.key)
            raise
        if not taken:
            _HELD.discard(self.owner.key)
        return taken

    def _take_each(self) -> bool:
        first, *others = self._hosts
        if not self._take(first):
            return False
        fanned = fan_out(self._take, others)
        if fanned.errors:
            self._release((first, *(host for host, ours in fanned.values.items() if ours)))
            fanned.raise_first()
        return True

    def _take(self, host: str, dead: str = "") -> bool:
        how, age, other = self._ask(host, dead)
        if how == "over":
            why = "its process is gone" if dead else f"no sign of life for {age} s"
            self._tell(host, f"took over the lock of {other or 'an unknown run'}: {why}")
        if how != "held":
            return True
        if other is None:
            raise PreconditionError(
                f"{host}: it is locked by a run that is not understood",
                remedy=f"look at {self._state}/lock on the host; it is taken over when it was not "
                f"touched for {STALE_SECONDS} s",
            )
        if other.run_id == self.owner.run_id and other.what in WHOLE and not other.dead:
            return False
        if other.dead and not dead:
            return self._take(host, other.key)
        raise PreconditionError(
            f"{host}: another run works on this host: {other}; last sign of life {age} s ago",
            remedy="wait until it has ended, or end it; a run that gives no sign of life for "
            f"{STALE_SECONDS} s is taken over",
        )

    def _ask(self, host: str, dead: str = "") -> tuple[str, int, Owner | None]:
        result = self._ssh.run(
            host,
            script(
                _TAKE,
                self._state,
                self.owner.key,
                self.owner.text,
                dead,
                mutates=True,
                timeout=30,
                label="take the run's lock",
            ),
        )
        head, _, rest = result.stdout.partition("\n")
        words = head.split()
        if not result.ok or len(words) < 2 or words[0] not in ("taken", "mine", "over", "held"):
            raise ParseError(
                f"{host}: the run's lock: the host's shell said: {result.tail() or 'nothing'}",
                remedy=f"the host needs flock (util-linux) and a writable {self._state}",
            )
        return words[0], int(words[1]), Owner.parse(rest)

    def _renew(self, stop: threading.Event) -> None:
        """Give signs of life until told to stop; a host that is out of reach is tried again."""

        def sign(host: str) -> None:
            how, _, other = self._ask(host)
            if how == "held" and not (other and other.run_id == self.owner.run_id):
                # (A host that restarted forgot the lock: a notebook of this build may have it now.)
                self._lost = f"{host}: this run's lock was taken over by {other or 'another run'}"

        while not stop.wait(self._every):
            fan_out(sign, self._hosts)

    def _release(self, hosts: Sequence[str]) -> None:
        def let_go(host: str) -> None:
            # A host that is out of reach now: the lock is stale in a minute.
            with contextlib.suppress(KitError):
                self._ssh.run(host, _release(self._state, self.owner.key))

        fan_out(let_go, hosts)


def _release(state: str, key: str) -> Cmd:
    return script(_RELEASE, state, key, mutates=True, timeout=15, label="release the run's lock")


def _process(pid: int) -> str:
    """Return what tells a process from every other one; empty when there is none, or no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    if fields[0] in ("Z", "X"):
        return ""
    return f"{boot} {namespace} {fields[19]}"
