"""What an error text means and what to do about it: the messages that people really meet.

The tables are data. A pattern is matched anywhere in the text, so it names the part of a message
that stays the same between versions and runtimes. Specific entries stand before general ones.
"""

from __future__ import annotations

import re

from kitlib.hints.hint import Hint
from kitlib.hints.host import HOST
from kitlib.hints.kubeadm import KUBEADM
from kitlib.hints.kubectl import KUBECTL
from kitlib.hints.node import NODE

__all__ = ["HINTS", "Hint", "explain"]

LAB: tuple[Hint, ...] = (
    Hint(
        "lab-not-up",
        r"no such private key: .*/\.lab/",
        "the parameters name hosts of the lab on this machine, and it does not run",
        "kit lab up",
    ),
    Hint(
        "lab-host-down",
        r"@127\.0\.0\.1:\d+\)?: cannot connect",
        "a host of the lab on this machine is down (a fault), or the lab does not run at all",
        "kit lab status shows which of the two; kit lab heal takes a host back, kit lab up starts "
        "the lab",
    ),
)
"""The hosts are a lab's, and the lab, or one of them, is not there."""

HINTS = (*LAB, *KUBEADM, *KUBECTL, *NODE, *HOST)
"""The known messages, in the order in which they are told."""

_COMPILED = tuple((re.compile(hint.pattern, re.IGNORECASE | re.MULTILINE), hint) for hint in HINTS)


def explain(text: str) -> list[Hint]:
    """Return what is known of an error text, most specific first; empty when nothing is.

    Args:
        text: What a tool printed: one message or many lines.
    """
    return [hint for pattern, hint in _COMPILED if pattern.search(text)]
