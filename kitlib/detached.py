"""The shell side of a change on a host: started once, apart from the connection, and found again.

kubeadm that writes to a dying SSH channel dies half-way; kubeadm whose output goes to a file on the
host runs to its end. So every changing command is a job: a session of its own (`setsid`) whose
output and exit status are files of a private directory. The connection only waits for it.

A job runs exactly as long as its shell holds the lock of `lock`. The kernel lets go of it when that
shell ends, however it ends; so who waits is told at once, no process number is ever mistaken for
another's, and the same command cannot run twice at a time. The directory is in /run: what a
restarted host forgets is right to be forgotten, and a full disk does not lose an exit status.

Pure: this module builds commands and reads their answers; `kitlib.durable` runs them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kitlib.command import Cmd, Secret, script
from kitlib.errors import ParseError

__all__ = [
    "STATE",
    "Answer",
    "Job",
    "Left",
    "collected",
    "find",
    "jobs",
    "parse",
    "parse_jobs",
    "start",
    "stop",
]

STATE = "/run/cluster-network-kit"
"""The kit's own directory on a host, for root alone; gone when the host restarts."""
GRACE = 5
"""Seconds between the polite end of a command (SIGTERM) and the other one."""

_TRAILER = "@@ kit"

# The job's shell. Its standard output and error go nowhere: those of the command are files.
# Descriptor 3 is the lock; the command must not inherit it, a daemon that it starts would keep it.
_BODY = (
    "job=$1; shift; echo $$ >$job/pid;"
    ' "$@" 3>&- </dev/null >$job/out 2>$job/err; echo $? >$job/status'
)

# $1 the job's directory, $2 the attempt, $3 seconds to wait, $4 what to note about it.
_START = f"""job=$1 attempt=$2 limit=$3 about=$4; shift 4
(umask 077 && mkdir -p $job) || exit
exec 3>>$job/lock
how=found
if flock -n 3 && ! {{ [ -e $job/status ] && [ "$(cat $job/attempt)" = $attempt ]; }}; then
  rm -f $job/status $job/pid $job/out $job/err
  # Told in seconds since the host's own start: no clock that is set can move it.
  echo "$(cut -d. -f1 /proc/uptime) $about" >$job/about && echo $attempt >$job/attempt || exit
  how=started
  setsid sh -c '{_BODY}' sh $job "$@" </dev/null >/dev/null 2>&1 &
fi
exec 3>&-
"""
# The umask is for the directory alone: kubeadm's own files have the modes that kubeadm gives them.

# The end of a wait: output and errors of the job on the streams that they belong to, and last on
# standard error a line of our own. A job without a status was killed, its shell with it.
_WAIT = f"""exec 4<$job/lock
if ! flock -s -w $limit 4; then printf '\\n{_TRAILER} running %s\\n' $how >&2; exit; fi
cat $job/out; cat $job/err >&2
printf '\\n{_TRAILER} ended %s %s\\n' $how "$(cat $job/status 2>/dev/null || echo 137)" >&2
"""

_FIND = f"""job=$1 limit=$2 how=found
if ! [ -e $job/attempt ]; then
  printf '\\n{_TRAILER} gone %s\\n' "$(cut -d. -f1 /proc/uptime)" >&2; exit
fi
{_WAIT}"""

# The group, not the shell alone: what ignores the polite signal outlives its shell.
_STOP = f"""job=$1
[ -e $job/lock ] || exit 0
for each in 1 2 3 4 5; do [ -s $job/pid ] && break; sleep 0.1; done
exec 4<$job/lock
if ! flock -n -s 4; then
  group=$(cat $job/pid)
  kill -s TERM -- -$group
  count=0
  while kill -s 0 -- -$group 2>/dev/null && [ $count -lt {GRACE * 10} ]; do
    sleep 0.1; count=$((count + 1))
  done
  kill -s KILL -- -$group 2>/dev/null
fi
rm -rf $job
"""

_COLLECTED = "rm -rf $1"

_JOBS = """for job in $1/jobs/*; do
  [ -e $job/attempt ] || continue
  exec 4<$job/lock
  if ! flock -n -s 4; then state=running
  elif [ -e $job/status ]; then state=$(cat $job/status)
  else state=137; fi
  exec 4<&-
  age=$(( $(cut -d. -f1 /proc/uptime) - $(cut -d' ' -f1 $job/about) ))
  echo "${job##*/} $state $age $(cut -d' ' -f2- $job/about)"
done
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One change of a host, by what it means: the same in every run of the kit.

    Attributes:
        id: From stage, host and the masked command: a token that is new each time is not in it.
        command: The masked command.
        directory: Where its files are on the host.
    """

    id: str
    command: str
    directory: str

    @classmethod
    def of(cls, stage: str, host: str, cmd: Cmd, *, state: str = STATE) -> Job:
        """Return the job that this command is in this stage on this host."""
        meaning = "\0".join((stage, host, str(cmd)))
        digest = hashlib.sha256(meaning.encode()).hexdigest()[:12]
        return cls(digest, str(cmd), f"{state}/jobs/{digest}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host said of a job.

    Attributes:
        state: `ended`, `running`, or `gone`: the host knows nothing of it.
        exit_status: The command's own, when it ended; 137 where its shell was killed.
        found: True when it ran or had ended before it was asked for.
        stdout: The command's output, when it ended.
        stderr: Its errors, when it ended.
        uptime: Seconds since the host was started, when the job is gone.
    """

    state: str
    exit_status: int = 0
    found: bool = False
    stdout: str = ""
    stderr: str = ""
    uptime: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    """A job that an earlier run left on a host.

    Attributes:
        id: The job's id.
        exit_status: How it ended; None while it runs.
        age: Seconds since it was started.
        limit: Seconds that it may take in all.
        command: The masked command, on one line.
    """

    id: str
    exit_status: int | None
    age: int
    limit: int
    command: str

    def directory(self, *, state: str = STATE) -> str:
        """Return where its files are on the host."""
        return f"{state}/jobs/{self.id}"


def start(job: Job, cmd: Cmd, *, attempt: str, limit: int) -> Cmd:
    """Return the command that starts a job, or finds it, and waits for its end.

    Args:
        job: The job.
        cmd: Its command.
        attempt: A word that is new for every start: a result of the same attempt is its own, any
            other one is stale and is removed.
        limit: Seconds to wait, whole.
    """
    settings: list[str | Secret] = [
        Secret(f"{name}={value.value}") if isinstance(value, Secret) else f"{name}={value}"
        for name, value in sorted(cmd.env.items())
    ]
    argv = (*(("env", *settings) if settings else ()), *cmd.argv)
    about = f"{limit} {' '.join(job.command.split())}"
    bits = (job.directory, attempt, str(limit), about, *argv)
    return script(_START + _WAIT, *bits, mutates=True, label=job.command)


def find(directory: str, *, limit: int) -> Cmd:
    """Return the command that waits for the end of a job that was started, up to `limit` s."""
    return script(_FIND, directory, str(limit), label="wait for a command that runs on the host")


def stop(directory: str) -> Cmd:
    """Return the command that ends a job with all its processes, and removes its files."""
    return script(_STOP, directory, mutates=True, label="end a command that runs on the host")


def collected(directory: str) -> Cmd:
    """Return the command that removes the files of a job whose result is known."""
    return script(_COLLECTED, directory, mutates=True, label="remove a finished command's files")


def jobs(*, state: str = STATE) -> Cmd:
    """Return the command that lists a host's jobs, one a line; `parse_jobs` reads it."""
    return script(_JOBS, state, label="list the commands that run on the host")


def parse(stdout: str, stderr: str) -> Answer:
    """Return what `start` or `find` said.

    Raises:
        ParseError: The last line is not the kit's own: the shell itself failed.
    """
    before, _, last = stderr.removesuffix("\n").rpartition("\n")
    if last.startswith(f"{_TRAILER} "):
        match last.removeprefix(f"{_TRAILER} ").split():
            case ["gone", uptime] if uptime.isdigit():
                return Answer("gone", uptime=int(uptime))
            case ["running", how]:
                return Answer("running", found=how == "found")
            case ["ended", how, status] if status.isdigit():
                return Answer("ended", int(status), how == "found", stdout, before)
    raise ParseError(
        f"detached command: the host's shell said: {stderr.strip() or stdout.strip() or 'nothing'}",
        remedy=f"the host needs flock and setsid (util-linux) and a writable {STATE}",
    )


def parse_jobs(text: str) -> list[Left]:
    """Return the jobs that a host listed.

    Raises:
        ParseError: A line is not as `jobs` prints it.
    """
    found = []
    for line in text.splitlines():
        words = line.split(maxsplit=4)
        if len(words) != 5 or not (words[2].isdigit() and words[3].isdigit()):
            raise ParseError(f"detached commands: a line that is not understood: {line!r}")
        name, state, age, limit, command = words
        status = None if state == "running" else int(state)
        found.append(Left(name, status, int(age), int(limit), command))
    return found
