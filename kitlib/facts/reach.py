"""Which other hosts a host reaches: by ping, or else by TCP, some of them side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from kitlib.command import Cmd, script

__all__ = ["Answer", "command", "parse"]


class Answer(StrEnum):
    """How an address answered a host."""

    PING = "ping"
    TCP = "tcp"
    """Not to ping, but a TCP connection was accepted or refused: a firewall holds ICMP back."""
    NONE = "none"
    UNTRIED = "untried"
    """The host has no ping, and no bash to try TCP with."""


# A refused connection is an answer too: the other host itself refuses.
_SCRIPT = """
try() {
  if command -v ping >/dev/null; then
    ping -n -q -c 2 -i 0.2 -W 2 "$1" >/dev/null 2>&1 && { echo "$1 ping"; return; }
  elif ! command -v bash >/dev/null; then
    echo "$1 untried"; return
  fi
  if command -v bash >/dev/null; then
    said=$(LC_ALL=C timeout 3 bash -c ': <"/dev/tcp/$0/$1"' "$1" "$PORT" 2>&1)
    case "$?$said" in 0*|*refused*) echo "$1 tcp"; return;; esac
  fi
  echo "$1 none"
}
PORT=$1 most=$2 n=0; shift 2
for a in "$@"; do
  try "$a" & n=$((n + 1))
  [ $((n % most)) -ne 0 ] || wait
done
wait
"""
_AT_A_TIME = 8
"""Addresses that are tried side by side. All hosts ask at once, and fifty that each tried all the
others at a time would begin two thousand pings in the same second."""
_LONGEST = 6
"""Seconds that an address takes which answers to nothing."""


def command(addresses: Iterable[str], *, port: int = 22) -> Cmd:
    """Return the command that tries these addresses.

    Args:
        addresses: What to try.
        port: The TCP port for an address that does not answer to ping.
    """
    addresses = tuple(addresses)
    batches = -(-len(addresses) // _AT_A_TIME)
    return script(
        _SCRIPT.strip(), str(port), str(_AT_A_TIME), *addresses,
        timeout=30 + batches * _LONGEST, label="reach the other hosts",
    )  # fmt: skip


def parse(text: str) -> Mapping[str, Answer]:
    """Return address -> how it answered; an address without a line was not tried."""
    known = set(Answer)
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: Answer(pair[1]) for pair in pairs if len(pair) == 2 and pair[1] in known}
