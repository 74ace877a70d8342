"""Whether a plugin fits a Kubernetes version; if not why, what would, and what lives instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kitlib.plugins.entry import Supported, minor
from kitlib.plugins.schema import Plugin
from kitlib.software.releases import NEWEST_PATCH, newest_patch

__all__ = ["Fit", "Fits", "fit"]


class Fits(StrEnum):
    """How a plugin and a Kubernetes version go together."""

    YES = "yes"
    UNKNOWN = "not known"
    """Newer than what the catalogue knows, of a plugin that goes on: it may work."""
    NO = "no"


@dataclass(frozen=True, slots=True)
class Fit:
    """The judgement of one plugin on one Kubernetes version.

    Attributes:
        answer: Whether it fits.
        reasons: Why it does not, or is not known to, most telling first; empty where it fits.
        newest: The newest known patch release of Kubernetes that it fits, `1.15.12`; empty where
            none is known.
        instead: Living plugins of the catalogue that fit the version asked for.
    """

    answer: Fits
    reasons: tuple[str, ...] = ()
    newest: str = ""
    instead: tuple[str, ...] = ()


def fit(plugin: Plugin, version: str, known: Mapping[str, Plugin]) -> Fit:
    """Return the judgement of a plugin on a Kubernetes version.

    Args:
        plugin: The plugin.
        version: The Kubernetes version, `1.31` or `1.31.4`.
        known: The catalogue, for what else there is.
    """
    answer, reasons = _judge(plugin, version)
    minors = [f"1.{number}" for number in sorted(NEWEST_PATCH, reverse=True)]
    newest = next((each for each in minors if _judge(plugin, each)[0] is Fits.YES), "")
    instead = tuple(
        name
        for name in plugin.status.instead
        if answer is not Fits.YES and name in known and _judge(known[name], version)[0] != Fits.NO
    )
    return Fit(answer, reasons, newest and newest_patch(newest), instead)


def _judge(plugin: Plugin, version: str) -> tuple[Fits, tuple[str, ...]]:
    span, asked = plugin.kubernetes, minor(version)
    broken = tuple(f"since {each.since}: {each.why}" for each in span.broken_on(version))
    if broken:
        return Fits.NO, broken
    if asked < minor(span.min):
        return Fits.NO, (f"{span.min} is the oldest version that any release of it works on",)
    ranges = [each.kubernetes for each in plugin.releases] or [span]
    if span.covers(version) and any(_within(each, version) for each in ranges):
        return Fits.YES, ()
    if asked <= minor(span.max):
        return Fits.NO, ("none of its releases is for that version",)
    if plugin.status.state == "maintained":
        return Fits.UNKNOWN, (f"{span.max} is the newest version that the catalogue knows of",)
    note = f": {span.note}" if span.note else ""
    why = f"it is {plugin.status.state}, and {span.max} is the newest version that it worked on"
    return Fits.NO, (why + note,)


def _within(span: Supported, version: str) -> bool:
    return span.covers(version) and not span.broken_on(version)
