"""The same work on many hosts at once, bounded: every host gets an outcome, none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Fanned", "fan_out"]

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fanned(Generic[K, T]):
    """What came of each item, in the order the items were given.

    Attributes:
        values: Item -> what the work returned.
        errors: Item -> what the work raised.
    """

    values: dict[K, T]
    errors: dict[K, Exception]

    def raise_first(self) -> dict[K, T]:
        """Return the values, or raise the first item's error."""
        for error in self.errors.values():
            raise error
        return self.values


def fan_out(work: Callable[[K], T], items: Iterable[K], *, workers: int = 32) -> Fanned[K, T]:
    """Return the outcome of `work` for every item, at most `workers` at a time.

    An interrupt (KeyboardInterrupt) is raised at once; work that is under way must be unblocked by
    closing what it waits on, and no further item is started.
    """
    items = list(items)
    values: dict[K, T] = {}
    errors: dict[K, Exception] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, min(workers, len(items) or 1)))
    futures = {pool.submit(work, item): item for item in items}
    try:
        pending = set(futures)
        while pending:
            # Short waits keep the main thread able to take Ctrl-C on every platform.
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if error is None:
                    values[futures[future]] = future.result()
                elif isinstance(error, Exception):
                    errors[futures[future]] = error
                else:
                    raise error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    order = {item: number for number, item in enumerate(items)}
    return Fanned(
        dict(sorted(values.items(), key=lambda pair: order[pair[0]])),
        dict(sorted(errors.items(), key=lambda pair: order[pair[0]])),
    )
