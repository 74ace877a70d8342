"""Many commands as one: a node is asked once, not once for each address that it should probe.

Each command's output is kept in a file until it has ended and printed then, whole: those that run
side by side never mix, however much they say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND

__all__ = ["Said", "command", "parse"]

USUAL_SECONDS = 30.0

_SCRIPT = (
    "most=$1; shift; dir=$(mktemp -d) || exit 1; trap 'rm -rf \"$dir\"' EXIT; n=0;"
    ' for c in "$@"; do n=$((n + 1)); ( sh -c "$c" >"$dir/$n" 2>&1; echo $? >"$dir/$n.code" ) &'
    " [ $((n % most)) -ne 0 ] || wait; done; wait; n=0;"
    ' for c in "$@"; do n=$((n + 1)); printf \'~~ %s %s\\n\' "$n" "$(cat "$dir/$n.code")";'
    " cat \"$dir/$n\"; echo; done; printf '~~end\\n'"
)
_PART = re.compile(r"^~~ (\d+) (\d{1,3})$", re.M)


@dataclass(frozen=True, slots=True)
class Said:
    """What one of the commands said: both streams, as they came, and how it ended."""

    text: str
    exit_status: int


def command(cmds: Sequence[Cmd], *, at_a_time: int = 1, label: str = "") -> Cmd:
    """Return commands as one.

    Args:
        cmds: What is run, in this order; none that changes anything, nor has secrets.
        at_a_time: How many of them side by side.
        label: What they are together.
    """
    batches = math.ceil(len(cmds) / at_a_time)
    longest = max((cmd.timeout or USUAL_SECONDS for cmd in cmds), default=0.0)
    return script(
        _SCRIPT, str(at_a_time), *map(str, cmds),
        timeout=batches * longest + 10, label=label or f"{len(cmds)} commands",
    )  # fmt: skip


def parse(text: str, *, count: int) -> list[Said]:
    """Return what each command said, in order.

    Args:
        text: Standard output.
        count: How many there were.

    Raises:
        ParseError: The text is not what `command` prints, or not whole.
    """
    whole, end, _ = text.rpartition("~~end")
    parts = _PART.split(whole)
    numbers = [int(each) for each in parts[1::3]]
    if not end or numbers != list(range(1, count + 1)):
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise ParseError(f"{len(numbers)} of {count} commands: {last}", remedy=BY_HAND)
    return [
        Said(said.strip("\n"), int(code))
        for code, said in zip(parts[2::3], parts[3::3], strict=True)
    ]
