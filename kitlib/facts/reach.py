"""Which other hosts a host reaches, by one ping each, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kitlib.command import Cmd, script

__all__ = ["command", "parse"]

_SCRIPT = """
for a in "$@"; do
  { ping -n -q -c 2 -i 0.2 -W 2 "$a" >/dev/null 2>&1 && echo "$a yes" || echo "$a no"; } &
done
wait
"""


def command(addresses: Iterable[str]) -> Cmd:
    """Return the command that tries these addresses."""
    return script(_SCRIPT.strip(), *addresses, timeout=30, label="ping the other hosts")


def parse(text: str) -> Mapping[str, bool]:
    """Return address -> whether it answered; an address without a line was not tried."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: pair[1] == "yes" for pair in pairs if len(pair) == 2}
