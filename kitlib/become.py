"""Becoming root on hosts whose login is somebody else's: sudo, with or without a password.

The password goes to sudo's standard input and nowhere else: not into an argument list, not into an
environment on the host, not into a file. The command follows it there, because sudo writes argument
lists into the host's log, and a command may hold a token. A line between the two tells where the
command begins, so that a password which sudo turns out not to want is passed over. What the command
itself can read is /dev/null. `-k` makes sudo ask each time and remember nothing on the host.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from kitlib.command import Secret
from kitlib.errors import BecomeError, ParamsError

__all__ = ["Sudo", "judge", "read_password"]

PROOF = "sh -c 'id -u </dev/null'"
"""The command that shows whether commands run as root: it prints 0."""

_READER = """\
while IFS= read -r line; do [ "$line" = "$1" ] && begun=1 && break; done
[ "$begun" ] || { echo "sudo swallowed the command" >&2; exit 126; }
command=$(cat)
exec </dev/null
eval "exec $command"
"""
"""Run by sudo: takes the command from its standard input, after the line that is $1."""

_BARRED = ("not in the sudoers file", "not allowed to", "may not run", "I'm afraid I can't do that")
_WRONG = ("incorrect password", "incorrect authentication", "Authentication failed", "try again")
_ASKED = ("password", "interactive authentication is required")


class Sudo:
    """How commands become root's on hosts where the login is not root.

    Attributes:
        password: What sudo asks for; None where sudo is expected not to ask.
        variable: The environment variable that may hold it, for the messages.
    """

    def __init__(self, password: Secret | None = None, *, variable: str = "") -> None:
        self.password = password
        self.variable = variable

    def wrap(self, command: str) -> tuple[str, str]:
        """Return a shell line, and what to feed it, that run `command` as root.

        Args:
            command: The shell line of one command: an argument list, quoted.
        """
        mark = secrets.token_hex(16)
        line = f"{self._sudo} sh -c {shlex.quote(_READER)} sh {mark}"
        return line, f"{self._answer}{mark}\n{command}\n"

    def proof(self) -> tuple[str, str]:
        """Return a shell line, and what to feed it, for `judge` to see whether `wrap` will work.

        sudo is asked to speak English, and gets one answer alone: it would take what follows for
        more tries, and accounts are locked after a few.
        """
        return f"env LC_ALL=C {self._sudo} {PROOF}", self._answer

    @property
    def _sudo(self) -> str:
        return "sudo -n -H --" if self.password is None else "sudo -S -k -p '' -H --"

    @property
    def _answer(self) -> str:
        return "" if self.password is None else f"{self.password.value}\n"


def judge(where: str, sudo: Sudo, exit_status: int, stdout: str, stderr: str) -> BecomeError | None:
    """Return why `PROOF` did not run as root; None when it did.

    Args:
        where: The host and login, for the message.
        sudo: How it was run.
        exit_status: How it ended.
        stdout: What it printed.
        stderr: What sudo said, in English.
    """
    if exit_status == 0 and stdout.strip() == "0":
        return None
    said = " ".join(stderr.split())  # two programs are called sudo: the old one, and sudo-rs
    user = where.partition("@")[0].rpartition("(")[2]
    if exit_status == 127 or "command not found" in said:
        return BecomeError(
            f"{where}: sudo is not installed",
            remedy="install sudo on the host, or log in as root: ssh.user: root, ssh.become: none",
        )
    if "must have a tty" in said:
        return BecomeError(
            f"{where}: sudo there wants a terminal (requiretty)",
            remedy=f"put `Defaults:{user} !requiretty` into its sudoers with visudo",
        )
    if any(words in said for words in _BARRED):
        return BecomeError(
            f"{where}: {user} may not become root with sudo: {said}",
            remedy=f"give {user} the right to run every command (on Debian: the group sudo)",
        )
    if sudo.password is not None and any(words in said for words in _WRONG):
        return BecomeError(
            f"{where}: sudo refused the password",
            remedy="check it with `sudo -k -v` on the host; it was tried once",
        )
    if sudo.password is None and any(words in said for words in _ASKED):
        return BecomeError(
            f"{where}: sudo wants a password, and none was given",
            remedy=f"set {sudo.variable or 'the environment variable'}, or name a file of mode "
            "0600 as ssh.become_password_file, or run the kit on a terminal, where it asks",
            password_wanted=True,
        )
    return BecomeError(
        f"{where}: sudo failed with exit status {exit_status}: {said or stdout.strip()}",
        remedy="log in there and try `sudo id -u`: it must print 0",
    )


def read_password(
    variable: str, file: Path | None, environ: Mapping[str, str] = os.environ
) -> Secret | None:
    """Return sudo's password from an environment variable, or else from a file; None for neither.

    Args:
        variable: The variable's name. One that is not set, or empty, counts as none.
        file: A file with the password in its first line, readable by its owner alone.
        environ: The environment.

    Raises:
        ParamsError: The file cannot be read, is empty, or others than its owner may use it.
    """
    if value := environ.get(variable, ""):
        return Secret(value)
    if file is None:
        return None
    try:
        with file.open(encoding="utf-8") as handle:
            mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
            if mode & 0o177:
                raise ParamsError(
                    f"ssh.become_password_file: {file}: mode {mode:04o}: others than its owner may "
                    "use it",
                    remedy=f"chmod 600 {file}",
                )
            first = handle.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise ParamsError(f"ssh.become_password_file: {file}: cannot be read: {reason}") from error
    if not first:
        raise ParamsError(f"ssh.become_password_file: {file}: its first line is empty")
    return Secret(first)
