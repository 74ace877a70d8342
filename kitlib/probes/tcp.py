"""Whether a TCP port can be reached, where no curl can time it: nc of BusyBox, OpenBSD and Nmap."""

from __future__ import annotations

import re

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["command", "parse"]

# -z (connect and hang up) is missing in small builds of BusyBox: there nc becomes `true` (-e) once
# it is connected.
_SCRIPT = (
    'said=$(nc -v -z -w "$3" "$1" "$2" </dev/null 2>&1); code=$?;'
    ' case "$said" in *"invalid option"*|*"unrecognized option"*)'
    ' said=$(nc -w "$3" "$1" "$2" -e true </dev/null 2>&1); code=$?;; esac;'
    ' printf \'%s\\n~ %s\\n\' "$said" "$code"'
)
_END = re.compile(r"^~ (?P<code>\d{1,3})$", re.M)
_WHY = re.compile(
    r"(?P<why>Connection refused|[Tt]imed out|Network (?:is )?unreachable|No route to host"
    r"|Host is unreachable|Operation not permitted|Permission denied|Connection reset by peer"
    r"|bad address .+|[Nn]ame or service not known|TIMEOUT)"
)
_NO_PROGRAM = (126, 127)


def command(address: str, port: int, *, timeout: int = 2) -> Cmd:
    """Return one attempt to connect; it gives up after `timeout` whole seconds."""
    return script(
        _SCRIPT, address, str(port), str(timeout),
        timeout=timeout * 2 + 10, label=f"nc {address} {port}",
    )  # fmt: skip


def parse(text: str) -> Sample:
    """Return the attempt as one sample without a time.

    Raises:
        ParseError: The text is not nc's.
    """
    end = _END.search(text)
    if end is None or int(end["code"]) in _NO_PROGRAM:
        last = (_END.sub("", text).strip().splitlines() or ["nothing"])[-1]
        raise ParseError(f"nc: not an attempt: {last}", remedy=BY_HAND)
    code = int(end["code"])
    if code == 0:
        return Sample(1, None, untimed=True)
    said = text[: end.start()].strip()
    why = _WHY.search(said)
    last = (said.splitlines() or [f"nc: exit status {code}"])[-1]
    return Sample(1, None, reason=why["why"] if why else last)
