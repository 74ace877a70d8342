"""ICMP round trips: the ping command and what iputils and BusyBox print about it.

Round-trip times are ping's own, from the moment of sending to that of the kernel's receipt. Replies
stand in the text in the order of their arrival: one whose number is lower than one before it was
overtaken on the way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND
from kitlib.probes.timed import Sample

__all__ = ["Sample", "command", "parse", "parse_sweep", "sweep"]

AT_A_TIME = 8
"""Addresses that a sweep pings side by side: it asks whether they answer, not how fast."""

# Each ping's text is written at once, by its own subshell: short ones never mix in a pipe.
_SWEEP = (
    'count=$1 interval=$2 timeout=$3 most=$4 n=0; shift 4; for a in "$@"; do ('
    ' said=$(ping -c "$count" -i "$interval" -W "$timeout" "$a" 2>&1);'
    ' printf \'# %s\\n%s\\n\' "$a" "$said" ) &'
    " n=$((n + 1)); [ $((n % most)) -ne 0 ] || wait; done; wait; true"
)
_SWEPT = re.compile(r"^# (\S+)$", re.M)
_HEADER = re.compile(r"^PING \S+", re.M)
_REPLY = re.compile(
    r"^\d+ bytes from (?:\S+ \()?[0-9a-fA-F.:]+?(?:%[^\s:]+)?\)?: "
    r"(?P<word>icmp_seq|seq)=(?P<seq>\d{1,9}) .*?time[=<](?P<ms>\d+(?:\.\d+)?) ms(?P<tail>.*)$",
    re.M,
)
_REFUSED = re.compile(r"^From (?P<by>\S+).* icmp_seq=(?P<seq>\d{1,9}) (?P<why>.+)$", re.M)
_TOTALS = re.compile(
    r"^(?P<sent>\d{1,9}) packets transmitted, (?P<received>\d{1,9}) (?:packets )?received", re.M
)
_UNSENT = re.compile(
    r"^ping: (?:(?:connect|sendmsg|sendto): )?"
    r"(?P<why>Network is unreachable|No route to host|Network unreachable"
    r"|Operation not permitted|Permission denied|Invalid argument|Message too long"
    r"|Do you want to ping broadcast\?.*"
    r"|local error: [Mm]essage too long, mtu=\d+)\s*$",
    re.M,
)


def command(address: str, *, count: int = 20, interval: float = 0.2, timeout: int = 2) -> Cmd:
    """Return the ping of one address, in the form that iputils and BusyBox both take.

    Args:
        address: Where to.
        count: How many packets.
        interval: Seconds between two packets.
        timeout: Whole seconds to wait for the last reply.
    """
    longest = count * interval + timeout * 2 + 10
    return Cmd.of(
        "ping", "-c", str(count), "-i", f"{interval:g}", "-W", str(timeout), address,
        timeout=longest,
    )  # fmt: skip


def sweep(addresses: Sequence[str], *, count: int, interval: float = 0.2, timeout: int = 1) -> Cmd:
    """Return the pings of many addresses, AT_A_TIME of them side by side, as one command.

    Args:
        addresses: Where to, begun in this order.
        count: How many packets each.
        interval: Seconds between two packets.
        timeout: Whole seconds to wait for the last reply of each.
    """
    batches = -(-len(addresses) // AT_A_TIME)
    longest = batches * (count * interval + timeout * 2) + len(addresses) + 10
    return script(
        _SWEEP, str(count), f"{interval:g}", str(timeout), str(AT_A_TIME), *addresses,
        timeout=longest, label=f"ping {len(addresses)} addresses",
    )  # fmt: skip


def parse_sweep(text: str, *, count: int) -> dict[str, list[Sample]]:
    """Return for each address that was pinged its samples, from what `sweep` printed.

    Args:
        text: Standard output.
        count: How many packets were asked for each.

    Raises:
        ParseError: A part of the text is not ping's, or ends before its statistics.
    """
    parts = _SWEPT.split(text)[1:]
    return {
        address: parse(said, count=count)
        for address, said in zip(parts[::2], parts[1::2], strict=True)
    }


def parse(text: str, *, count: int) -> list[Sample]:
    """Return one sample for each packet sent, in order of its number, duplicates after theirs.

    Args:
        text: Standard output followed by standard error.
        count: How many packets were asked for; all of them are lost when none could be sent.

    Raises:
        ParseError: The text is not ping's, ends before its statistics, or its statistics do not
            agree with its replies.
    """
    unsent = _UNSENT.search(text)
    totals = _TOTALS.search(text)
    if totals is None:
        if unsent is None:
            last = (text.strip().splitlines() or ["nothing"])[-1]
            what = "no statistics line" if _HEADER.search(text) else "not the output of ping"
            raise _strange(f"{what}: {last}")
        return [Sample(seq, None, reason=unsent["why"]) for seq in range(1, count + 1)]
    sent = int(totals["sent"])
    if sent > count:
        raise _strange(f"{count} packets were asked for, not {sent}")
    replies = list(_REPLY.finditer(text))
    shift = 1 if any(reply["word"] == "seq" for reply in replies) else 0
    answers: dict[int, list[Sample]] = {}
    furthest, spoilt = 0, dict[int, str]()
    for reply in replies:
        seq = int(reply["seq"]) + shift
        if not 1 <= seq <= sent:
            raise _strange(f"a reply to a packet that was never sent: {reply[0]}")
        if "BAD CHECKSUM" in reply["tail"]:  # ping does not count it either
            spoilt[seq] = "bad checksum"
            continue
        seen = answers.setdefault(seq, [])
        again = bool(seen) or "DUP!" in reply["tail"]
        late = seq < furthest and not again
        furthest = max(furthest, seq)
        seen.append(Sample(seq, float(reply["ms"]), duplicate=again, reordered=late))
    if int(totals["received"]) != len(answers):
        raise _strange(f"{totals['received']} replies were counted, {len(answers)} are in the text")
    refusals = {int(line["seq"]): line["why"].strip() for line in _REFUSED.finditer(text)}
    samples: list[Sample] = []
    for seq in range(1, sent + 1):
        why = refusals.get(seq) or spoilt.get(seq) or (unsent["why"] if unsent else "")
        samples += answers.get(seq) or [Sample(seq, None, reason=why)]
    return samples


def _strange(what: str) -> ParseError:
    return ParseError(f"ping: {what}", remedy=BY_HAND)
