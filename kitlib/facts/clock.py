"""A host's time: its zone, whether something keeps it right, and how far it is from the asker's.

The clock is read at the start of the script (`host.clock`) and once more at its end, here: a slow
answer in between (a runtime that hangs) would otherwise look like a clock that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kitlib.facts.sections import Section, command, lines_of, section, split

__all__ = ["COMMAND", "SCRIPT", "Clock", "offset", "parse", "seconds"]

SCRIPT = "".join(
    (
        # What timedatectl calls the zone is this link; a copied file leaves Debian's other one.
        section(
            "clock.zone",
            "readlink /etc/localtime | sed -n 's,^.*zoneinfo/,,p' | grep ."
            " || cat /etc/timezone 2>/dev/null || date +%Z",
        ),
        section("clock.synchronised", "timedatectl show -p NTPSynchronized --value"),
        section("clock.end", "date +%s.%N"),
    )
)
COMMAND = command(SCRIPT)

_SAME_AS_UTC = ("Etc/UTC", "Etc/UCT", "Etc/Zulu", "Zulu", "UCT", "Etc/Universal", "Universal")


@dataclass(frozen=True, slots=True)
class Clock:
    """A host's time; None stands for what could not be read.

    Attributes:
        zone: Its time zone, `Europe/Berlin`; `UTC` under any of its names.
        synchronised: Whether the system says that its clock is kept by NTP.
        end: Its time at the end of the script, seconds since 1970.
    """

    zone: str | None
    synchronised: bool | None
    end: float | None


def parse(text: str) -> Clock:
    """Return the host's time, from what `COMMAND` printed."""
    sections = split(text)
    zone = _first(sections, "clock.zone")
    kept = _first(sections, "clock.synchronised")
    return Clock(
        zone="UTC" if zone in _SAME_AS_UTC else zone,
        synchronised={"yes": True, "no": False}.get(kept or ""),
        end=seconds(_first(sections, "clock.end")),
    )


def seconds(text: str | None) -> float | None:
    """Return `date`'s answer; one without nanoseconds (BusyBox) leaves `%N`, `N` or nothing."""
    try:
        return float((text or "").removesuffix("%N").removesuffix("N").removesuffix("."))
    except ValueError:
        return None


def offset(
    start: float | None, end: float | None, before: float, after: float
) -> tuple[float | None, float]:
    """Return how far a host's clock is ahead of the asker's, and how wrong that may be (seconds).

    The host read its clock twice between the asker's two looks, so the truth lies between
    `end - after` and `start - before`: connecting and slow networks widen that, slow answers do
    not.

    Args:
        start: The host's clock when the script started; None when unknown.
        end: The same at its end; None takes `start`.
        before: The asker's clock before the round trip.
        after: The same after it.
    """
    if start is None:
        return None, 0.0
    least, most = (start if end is None else end) - after, start - before
    return (least + most) / 2, abs(most - least) / 2


def _first(sections: Mapping[str, Section], name: str) -> str | None:
    lines = lines_of(sections, name)
    return lines[0].strip() if lines else None
