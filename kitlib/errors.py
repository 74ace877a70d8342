"""Every way the kit can fail, with the exit code of its kind.

    KitError                    1   the kit itself failed (a defect)
    |- ParamsError              2   a parameter file, an option or the catalogue is wrong
    |- PreconditionError        3   a condition for going on does not hold
    |  `- GuardError            3   a living cluster would be destroyed and is not named
    |- ConnectError             4   a host cannot be reached, or refuses the login
    |  |- HostKeyError          4   a host key is unknown or has changed
    |  `- HostLoginError        4   the login was refused
    |     `- BecomeError        4   the login is there, and cannot become root
    |- ApiError                 5   the Kubernetes API refused or could not be reached
    |- CommandError             6   a command on a host failed
    |- ParseError               7   a command's output was not what its parser knows
    |- ChecksFailed             8   the stages ran, and the cluster is not as wanted
    |- DeadlineError            9   a wait ended before what it waited for came true
    |- LabError                10   the lab cannot do what was asked of it
    |- RecordError             11   the run's record cannot be written
    `- Interrupted            130   the person (or the scheduler) stopped the run

Exit code 0 is PASS or PLANNED and nothing else. The README's table is generated from this module.
A message reads `<host or object>: <what>: <got>`; the way out of it is the `remedy`.
"""

from __future__ import annotations

from typing import ClassVar

from kitlib.masking import mask_text

__all__ = [
    "ApiError",
    "BecomeError",
    "ChecksFailed",
    "CommandError",
    "ConnectError",
    "DeadlineError",
    "GuardError",
    "HostKeyError",
    "HostLoginError",
    "Interrupted",
    "KitError",
    "LabError",
    "ParamsError",
    "ParseError",
    "PreconditionError",
    "Problem",
    "RecordError",
    "exit_codes",
]


class KitError(Exception):
    """Something failed in a way the kit understands. No secret is in its text.

    Args:
        message: What happened, where first: `worker-1: kubeadm join: exit status 1`.
        remedy: What the reader can do about it; empty when there is nothing to say.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "the kit itself failed"
    transient: ClassVar[bool] = False
    """True when trying the same thing again may succeed."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = mask_text(message)
        self.remedy = mask_text(remedy)
        super().__init__(self.message)

    def __str__(self) -> str:
        """Return the message and, on a line of its own, the remedy."""
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback: the message says it all."""
        return [f"{type(self).__name__}: {self}"]


class Problem(str):
    """One thing that is wrong with a parameter file: `file: key: value: rule`."""

    __slots__ = ()

    @classmethod
    def of(cls, file: str, key: str, value: object, rule: str) -> Problem:
        """Return the problem as one line; `value` is shown as YAML users would recognise it."""
        return cls(f"{file}: {key}: {value!r}: {rule}")


class ParamsError(KitError):
    """A parameter file, an option or the catalogue is wrong; all problems are in one message."""

    exit_code = 2
    kind = "wrong parameters, options or files"

    def __init__(self, problems: str | list[Problem], *, remedy: str = "") -> None:
        found = [problems] if isinstance(problems, str) else problems
        self.problems = [Problem(mask_text(problem)) for problem in found]
        super().__init__("\n".join(self.problems), remedy=remedy)


class PreconditionError(KitError):
    """A condition for going on does not hold; nothing was changed."""

    exit_code = 3
    kind = "a precondition does not hold"


class GuardError(PreconditionError):
    """A living cluster would be destroyed and the parameters do not name it."""

    kind = "a living cluster is in the way"


class ConnectError(KitError):
    """A host cannot be reached, or refuses the login."""

    exit_code = 4
    kind = "a host cannot be reached"
    transient = True


class HostKeyError(ConnectError):
    """A host key is unknown or differs from the remembered one. Never retried."""

    kind = "a host key is unknown or has changed"
    transient = False


class HostLoginError(ConnectError):
    """The host refused the login, or the key for it is missing. Never retried."""

    kind = "a host refused the login"
    transient = False


class BecomeError(HostLoginError):
    """The login works and cannot become root. Never retried.

    Args:
        message: The host, the login, and what sudo said.
        remedy: What the reader can do about it.
        password_wanted: True when a password is all that is missing.
    """

    kind = "root rights were refused"

    def __init__(self, message: str, *, remedy: str = "", password_wanted: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.password_wanted = password_wanted


class ApiError(KitError):
    """The Kubernetes API refused a request or could not be reached.

    Args:
        message: What was asked for, and the API's own message.
        status: The HTTP status; 0 when there was no answer at all.
        reason: The API's reason word (`NotFound`, `Forbidden`, ...), where it gave one.
        remedy: What the reader can do about it.
    """

    exit_code = 5
    kind = "the Kubernetes API refused or is out of reach"

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.reason = reason
        self.waited = False
        """True when the API was waited for, and the wait ran out."""

    @property
    def retryable(self) -> bool:
        """True for no answer, 429 and 5xx: the API may be back in a moment."""
        return self.status == 0 or self.status == 429 or self.status >= 500


class CommandError(KitError):
    """A command on a host failed.

    Args:
        host: The host's name in the inventory.
        command: The command, masked and pasteable.
        exit_status: Its exit status; None when it never ended.
        tail: The last lines it printed.
        remedy: What the reader can do about it.
        record: Where the full output is kept; empty where it is not.
    """

    exit_code = 6
    kind = "a command on a host failed"

    def __init__(
        self,
        host: str,
        command: str,
        exit_status: int | None,
        tail: str,
        *,
        remedy: str = "",
        record: str = "",
    ) -> None:
        ended = "did not end" if exit_status is None else f"exit status {exit_status}"
        shown = [f"  | {line}" for line in tail.splitlines()]
        shown += [f"  full output: {record}"] if record else []
        super().__init__("\n".join([f"{host}: {command}: {ended}", *shown]))
        self.remedy = mask_text(remedy)
        self.host = host
        self.command = command
        self.exit_status = exit_status
        self.tail = mask_text(tail)


class ParseError(KitError):
    """A command's output was not what its parser knows: names the parser and the offending text."""

    exit_code = 7
    kind = "output that the kit does not understand"


class ChecksFailed(KitError):
    """The stages ran, and the cluster is not as wanted."""

    exit_code = 8
    kind = "a check failed"


class DeadlineError(KitError):
    """A wait ended before what it waited for came true: a timeout is a failure."""

    exit_code = 9
    kind = "a wait ran out of time"


class LabError(KitError):
    """The lab cannot do what was asked: namespaces refused, a port taken, a tool missing."""

    exit_code = 10
    kind = "the lab cannot do that here"


class RecordError(KitError):
    """The run directory cannot be written: this machine's disk is full, or it is read-only."""

    exit_code = 11
    kind = "the record cannot be written"


class Interrupted(KitError):
    """The person or the scheduler stopped the run (Ctrl-C, SIGTERM)."""

    exit_code = 130
    kind = "interrupted"

    @classmethod
    def by(cls, interrupt: KeyboardInterrupt, what: str = "", *, remedy: str = "") -> Interrupted:
        """Return what a person is told of an interrupt.

        Args:
            interrupt: It; its own text says what could not be put right any more.
            what: What was interrupted.
            remedy: What the reader can do about it.
        """
        head = f"{what}: interrupted" if what else "interrupted"
        return cls("\n  ".join(filter(None, (head, str(interrupt)))), remedy=remedy)


def exit_codes() -> dict[int, str]:
    """Return exit code -> meaning, in order; a shared code has its common ancestor's meaning."""
    table = {0: "PASS, or PLANNED in a dry run"}
    pending: list[type[KitError]] = [KitError]
    while pending:
        cls = pending.pop(0)
        table.setdefault(cls.exit_code, cls.kind)
        pending.extend(cls.__subclasses__())
    return dict(sorted(table.items()))
