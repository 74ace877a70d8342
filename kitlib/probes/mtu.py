"""Path MTU by probing: the largest packet that is answered, against what the interface claims.

One script tries a small packet, then the largest that the interface claims to take (a healthy path
is done after these two), and else narrows down between them by halves; where a router says which
size it takes, that one and the next larger are tried at once. A size passes when one of COUNT
packets of it is answered, so that a single loss does not look like a limit.

Packets must not be cut on the way. The ping of iputils forbids it (`-M do`). BusyBox's cannot: the
kernel forbids it until a router answers "too big", and cuts from then on; so with BusyBox only
black holes are seen (nobody answers "too big", which is what breaks connections), and a result is
not `exact`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ParseError
from kitlib.probes import BY_HAND, ping

__all__ = ["Attempt", "PathMtu", "command", "parse", "row"]

COUNT = 2
"""Packets of each size."""
SMALL = 128
"""Size of the packet that says whether there is a path at all."""
USUAL = 1500
"""The largest that is tried where the interface does not say what it takes."""
LARGEST = 65_535
_SEARCH = 20
"""At most so many sizes are tried: two ends, 16 halves, two that a router named."""

_SCRIPT = (
    "a=$1 head=$2 count=$3 wait=$4 small=$5 usual=$6 most=$7 left=$8 df='-M do' hint=0;"
    ' way=$(ip -o route get "$a" 2>/dev/null | head -n 1); printf \'~route %s\\n\' "$way";'
    ' case "$way" in *" dev "*) dev=${way#* dev }; dev=${dev%% *};;'
    " *) dev=$(awk '$2 == \"00000000\" { print $1; exit }' /proc/net/route 2>/dev/null);; esac;"
    " top=$(ip -o link show dev \"$dev\" 2>/dev/null | sed -n 's/.* mtu \\([0-9]*\\).*/\\1/p');"
    ' [ -n "$top" ] || top=$(cat "/sys/class/net/$dev/mtu" 2>/dev/null);'
    ' printf \'~interface %s %s\\n\' "${dev:--}" "${top:-0}"; top=${top:-$usual};'
    ' [ "$top" -le "$most" ] || top=$most;'
    ' try() { left=$((left - 1)); said=$(ping $df -c "$count" -i 0.2 -W "$wait"'
    ' -s $(($1 - head)) "$a" 2>&1); code=$?;'
    ' case "$said" in *"invalid option"*|*"unrecognized option"*) [ -n "$df" ] && {'
    ' df=; try "$1"; return; };; esac;'
    ' printf \'~try %s %s\\n%s\\n\' "$1" "${df:-none}" "$said"; hint=0;'
    ' [ "$code" -eq 0 ] && return; hint=$(printf \'%s\\n\' "$said"'
    " | sed -n 's/.*mtu *= *\\([0-9][0-9]*\\).*/\\1/p' | head -n 1); hint=${hint:-0}; return 1; };"
    ' if try "$small"; then low=$small;'
    ' if [ "$top" -gt "$small" ] && ! try "$top"; then high=$top;'
    ' while [ $((high - low)) -gt 1 ] && [ "$left" -gt 0 ]; do next=$(((low + high) / 2)) named=;'
    ' [ "$hint" -le "$low" ] || [ "$hint" -ge "$high" ] || { next=$hint named=1; };'
    ' if try "$next"; then low=$next; if [ -n "$named" ] && [ $((high - low)) -gt 1 ]; then'
    " if try $((low + 1)); then low=$((low + 1)); else high=$((low + 1)); fi; fi;"
    " else high=$next; fi; done; fi; fi; printf '~end\\n'"
)
_PART = re.compile(r"^~(route|interface|try|end)\b ?(.*)$", re.M)
_INTERFACE = re.compile(r"(?P<name>\S{1,64}) (?P<mtu>\d{1,6})")
_TRY = re.compile(r"(?P<size>\d{1,6}) (?P<how>-M do|none)")
_ROUTE_MTU = re.compile(r"\bmtu (?:lock )?(?P<mtu>\d{1,6})\b")
_UNSURE = "this ping cannot forbid fragments (BusyBox): a smaller limit would not be seen"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One size that was tried: IP packet in bytes, whether it was answered, and else why not."""

    size: int
    passed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PathMtu:
    """What a search found.

    Attributes:
        interface: The device that packets leave by; empty when it is not known.
        claimed: What it takes, or what the route over it allows where that is less; 0: not known.
        attempts: The sizes in the order in which they were tried.
        exact: False when packets may have been cut on the way (see the module's text).
    """

    interface: str
    claimed: int
    attempts: tuple[Attempt, ...]
    exact: bool

    @property
    def passes(self) -> int:
        """Largest IP packet that was answered, bytes; 0 for none."""
        return max((each.size for each in self.attempts if each.passed), default=0)

    @property
    def fails(self) -> int:
        """Smallest IP packet above it that was not answered, bytes; 0 for none."""
        return self._failed.size if self._failed else 0

    @property
    def reason(self) -> str:
        """What that one met, in the network's words; empty when it vanished.

        Where the sender's kernel refused it because it had learnt so, the router's words count.
        """
        own = self._failed.reason if self._failed else ""
        routers = [each.reason for each in self.attempts if "Frag needed" in each.reason]
        return routers[0] if routers and own.startswith("local error") else own

    @property
    def _failed(self) -> Attempt | None:
        above = [each for each in self.attempts if not each.passed and each.size > self.passes]
        return min(above, key=lambda each: each.size, default=None)


def command(address: str, *, wait: int = 1) -> Cmd:
    """Return the search for the largest packet that an address answers.

    Args:
        address: Where to, IPv4 or IPv6.
        wait: Whole seconds to wait for the last reply of each size.
    """
    header = 48 if ":" in address else 28  # IP and ICMP
    return script(
        _SCRIPT, address, str(header), str(COUNT), str(wait),
        str(SMALL), str(USUAL), str(LARGEST), str(_SEARCH),
        timeout=_SEARCH * (wait * 2 + 1) + 10, label=f"path MTU to {address}",
    )  # fmt: skip


def parse(text: str) -> PathMtu:
    """Return what a search found.

    Raises:
        ParseError: The text is not the search's, or not whole.
    """
    parts = _PART.split(text)
    found = list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))
    route, interface, claimed, exact = "", "", 0, True
    attempts: list[Attempt] = []
    for kind, what, said in found:
        if kind == "route":
            route = what
        elif kind == "interface":
            seen = _INTERFACE.fullmatch(what)
            if seen is None:
                raise _strange(f"not an interface: {what}")
            interface, claimed = seen["name"].strip("-"), int(seen["mtu"])
        elif kind == "try":
            seen = _TRY.fullmatch(what)
            if seen is None:
                raise _strange(f"not a size: {what}")
            exact = exact and seen["how"] != "none"
            attempts.append(_attempt(int(seen["size"]), said))
    if not attempts or found[-1][0] != "end":
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise _strange(f"not a whole search: {last}")
    # A route's own MTU is a claim like the interface's; one that was learnt from a router is not.
    allowed = _ROUTE_MTU.search(route)
    if allowed and "expires" not in route and (not claimed or int(allowed["mtu"]) < claimed):
        claimed = int(allowed["mtu"])
    return PathMtu(interface, claimed, tuple(attempts), exact)


def row(
    found: PathMtu, *, round: int, src: str, dst: str, path: str, started: float
) -> dict[str, object]:
    """Return the result as a row for `samples.write_samples` (probe `mtu`).

    Its reason also says where a limit, of which none was found, could not have been seen.
    """
    return {
        "round": round,
        "src": src,
        "dst": dst,
        "path": path,
        "interface_mtu": found.claimed,
        "passes_bytes": found.passes,
        "fails_bytes": found.fails,
        "reason": found.reason or ("" if found.exact or found.fails else _UNSURE),
        "t": started,
    }


def _attempt(size: int, said: str) -> Attempt:
    samples = ping.parse(said, count=COUNT)
    passed = any(not sample.lost for sample in samples)
    reasons = [sample.reason for sample in samples if sample.reason]
    return Attempt(size, passed, "" if passed or not reasons else reasons[0])


def _strange(what: str) -> ParseError:
    return ParseError(f"mtu: {what}", remedy=BY_HAND)
