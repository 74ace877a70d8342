"""Which tool makes which probe, and which of them an image has.

Of several that could, the first of a probe's CHOICES that is there is taken: one that times before
one that only says yes or no, and one that tells more of why a packet was lost before another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND

__all__ = ["CHOICES", "Choice", "choose", "command", "parse", "remedy"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to make a probe.

    Attributes:
        tool: The program.
        module: The module here that has its command and parser.
        timed: False when it only says whether an answer came.
        why: Why it stands where it stands.
    """

    tool: str
    module: str
    timed: bool = True
    why: str = ""


_ECHO = (
    Choice("ping", "ping", why="names why each packet was lost, marks duplicates"),
    Choice("fping", "fping", why="as exact; sweeps of many addresses by one process"),
)
_CURL = Choice("curl", "curl", why="microseconds, several exchanges in one process")
_NC = Choice("nc", "tcp", timed=False, why="says only whether the port can be reached")
_WGET = Choice("wget", "http", timed=False, why="says only whether the page came")
_DIG = Choice("dig", "dig", why="microseconds, UDP and TCP apart, each question asked once")
_NSLOOKUP = Choice("nslookup", "dns", timed=False, why="UDP only, asks again by itself, no times")

CHOICES: Mapping[str, tuple[Choice, ...]] = {
    "ping": _ECHO,
    "reach": _ECHO,
    "reach_gateway": _ECHO,
    "tcp_connect": (_CURL, _NC),
    "tcp_rr": (_CURL,),
    "http": (_CURL, _WGET),
    "http_service": (_CURL, _WGET),
    "dns_cluster_udp": (_DIG, _NSLOOKUP),
    "dns_cluster_tcp": (_DIG,),
    "dns_external": (_DIG, _NSLOOKUP),
    "mtu": (Choice("ping", "mtu", why="iputils' can forbid fragments, BusyBox's cannot"),),
    "throughput": (Choice("iperf3", "iperf3", why="says what the receiver got, as JSON"),),
    "policy": (_CURL, _NC, _WGET),
    "routes": (Choice("ip", "routes", timed=False, why="the kernel's own answer"),),
}
"""Probe (a directory below `samples/`) -> what can make it, the best first."""

_TOOLS = tuple(dict.fromkeys(each.tool for row in CHOICES.values() for each in row))
_SCRIPT = (
    'for t in "$@"; do command -v "$t" >/dev/null 2>&1 && printf \'~ %s\\n\' "$t"; done;'
    " printf '~end\\n'"
)
_LINE = re.compile(r"^~ (\S+)$", re.M)


def command() -> Cmd:
    """Return the question which of the tools are there."""
    return script(_SCRIPT, *_TOOLS, timeout=20, label="which tools are there")


def parse(text: str) -> frozenset[str]:
    """Return the tools that are there, by name.

    Raises:
        ParseError: The text is not what `command` prints, or not whole.
    """
    found = frozenset(_LINE.findall(text))
    if not text.rstrip().endswith("~end") or not found <= set(_TOOLS):
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise ParseError(f"tools: not a list of tools: {last}", remedy=BY_HAND)
    return found


def choose(probe: str, tools: Iterable[str]) -> Choice | None:
    """Return the best way to make a probe with these tools; None when there is none."""
    there = set(tools)
    return next((each for each in CHOICES[probe] if each.tool in there), None)


def remedy(probe: str, image: str) -> str:
    """Return what to do when an image has no tool for a probe.

    Args:
        probe: The probe that was skipped.
        image: An image that has all of them.
    """
    needed = " or ".join(each.tool for each in CHOICES[probe])
    return f"set diagnose.image to one that has {needed}; {image} has all that the kit can use"
