"""Small words for checks: one judged, one that cannot be, and how each system family is told."""

from __future__ import annotations

from kitlib.facts import HostFacts
from kitlib.model import Check, Status

__all__ = ["by_system", "judged", "skipped"]


def judged(
    status: Status,
    id: str,
    target: str,
    summary: str,
    *,
    got: str,
    expected: str = "",
    remedy: str = "",
) -> Check:
    """Return a check of that status; what was wanted and the way out stay with a bad one alone."""
    bad = status in (Status.FAIL, Status.WARN)
    return Check(id, target, status, summary, got, expected if bad else "", remedy if bad else "")


def skipped(id: str, target: str, summary: str, why: str) -> Check:
    """Return a check that does not apply, or cannot be made, and why."""
    return Check(id, target, Status.SKIP, summary, why)


def by_system(facts: HostFacts, *, apt: str, dnf: str) -> str:
    """Return the commands for the host's family of systems; both, named, where it is unknown."""
    known = {"apt": apt, "dnf": dnf}.get(facts.host.packager)
    return known or f"{apt} (or, with dnf: {dnf})"
