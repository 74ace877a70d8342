"""Many small questions in one round trip: a script whose answers come back in marked sections.

A host is asked everything by one command, because a round trip costs more than the answers. Each
section carries its own exit status, so that a tool that a host lacks costs one answer and not all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from kitlib.command import Cmd, script
from kitlib.errors import ParseError

__all__ = ["ABSENT", "Section", "command", "json_of", "lines_of", "needs", "section", "split"]

TIMEOUT = 60.0
"""Seconds that reading facts may take."""

_MARK = "@@ "
_END = "@@ = "


@dataclass(frozen=True, slots=True)
class Section:
    """One answer.

    Attributes:
        text: What the section's commands printed, both channels.
        status: Their exit status.
    """

    text: str
    status: int

    @property
    def why(self) -> str:
        """Why there is no answer; empty when there is one."""
        if self.status == 0:
            return ""
        last = (self.text.strip().splitlines() or [""])[-1]
        if self.status == 124:
            return "did not answer in time"
        return last or f"exit status {self.status}"


ABSENT = Section("not asked", 127)


def section(name: str, shell: str) -> str:
    """Return the script lines that answer one question.

    Args:
        name: The section's name.
        shell: POSIX shell; the exit status of its last command is the section's.
    """
    return f"printf '{_MARK}%s\\n' {name}\n{{ {shell}\n}} 2>&1 </dev/null\n" + (
        f"printf '\\n{_END}%s\\n' $?\n"
    )


def needs(tool: str, shell: str) -> str:
    """Return shell that runs `shell` where the tool is installed, and says so where it is not."""
    return (
        f"if command -v {tool} >/dev/null; then {shell}\n"
        f"else echo '{tool} is not installed'; (exit 127); fi"
    )


def command(*scripts: str, label: str = "read the host's facts") -> Cmd:
    """Return the one command that runs these scripts, shown as `label`.

    The answers are sent together at the end. As they come they are hundreds of small packets, each
    of which the SSH client takes apart by itself: most of what reading facts would cost.
    """
    text = "".join(scripts)
    return script(
        f"export LC_ALL=C\nask() {{\n{text}}}\nsaid=$(ask)\nended=$?\n"
        "printf '%s\\n' \"$said\"\nexit $ended",
        timeout=TIMEOUT,
        label=label,
    )


@lru_cache(maxsize=32)
def split(text: str) -> Mapping[str, Section]:
    """Return section name -> section of what such a command printed.

    A section that was cut short (the connection died) is not in the result. Every subject's parser
    asks for the same text, so the last few are remembered.
    """
    found: dict[str, Section] = {}
    name, body = "", list[str]()
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith(_END) and name:
            kept = body[:-1] if body and not body[-1] else body
            found[name] = Section("".join(f"{each}\n" for each in kept), int(line[len(_END) :]))
            name = ""
        elif line.startswith(_MARK):
            name, body = line[len(_MARK) :].strip(), []
        else:
            body.append(line)
    return MappingProxyType(found)


def lines_of(sections: Mapping[str, Section], name: str) -> tuple[str, ...] | None:
    """Return a section's lines that are not empty; None when there is no answer."""
    answer = sections.get(name, ABSENT)
    if answer.status:
        return None
    return tuple(line for line in answer.text.splitlines() if line.strip())


def json_of(sections: Mapping[str, Section], name: str) -> Any:
    """Return a section's JSON value; None when there is no answer.

    Lines before the value (a tool's warnings) are passed over.

    Raises:
        ParseError: The commands succeeded and printed something else.
    """
    answer = sections.get(name, ABSENT)
    if answer.status:
        return None
    lines = answer.text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith(("{", "["))), None)
    if start is None and not answer.text.strip():
        return []
    try:
        return json.loads("\n".join(lines[start or 0 :]))
    except ValueError as error:
        shown = answer.text.strip()[:200]
        raise ParseError(f"facts {name}: not JSON ({error}): {shown}") from error
