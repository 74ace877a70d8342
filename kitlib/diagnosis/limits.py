"""From where on a difference between latencies counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The ratio and the difference must both be exceeded: microseconds are no finding.

    Attributes:
        ratio: Times as slow.
        difference_ms: And so many milliseconds slower, in the median.
        replies: Fewer replies than this are not judged for speed.
    """

    ratio: float = 3.0
    difference_ms: float = 0.5
    replies: int = 6

    def exceeded(self, value: float, base: float) -> bool:
        """Return whether a time is far slower than another one; both in milliseconds."""
        return value > base * self.ratio and value - base > self.difference_ms

    @property
    def words(self) -> str:
        """What is allowed."""
        return f"within {self.ratio:g} times or {self.difference_ms:g} ms"
