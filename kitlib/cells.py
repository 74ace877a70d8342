"""Rows in cells, one for each combination of some columns' values, counted and sorted at once.

A million rows are sorted and counted by whole numbers here: by their names it takes ten times as
long. pandas and numpy are imported when the first table is made, as `frames` does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cells", "coded", "quantile", "rising"]


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells that rows belong to.

    Attributes:
        keys: The columns.
        names: The values of each, in the order of the cells.
        cell: Each row's cell.
    """

    keys: Sequence[str]
    names: Sequence[Any]
    cell: Any

    @classmethod
    def of(cls, frame: pd.DataFrame, keys: Sequence[str]) -> Cells:
        """Return the cells of a table's rows."""
        import numpy as np

        codes, names = zip(*(coded(frame[key]) for key in keys), strict=True)
        return cls(keys, names, np.ravel_multi_index(codes, tuple(map(len, names))))

    @property
    def size(self) -> int:
        """How many cells there are, those without rows too."""
        return math.prod(map(len, self.names))

    def counts(self, rows: Any) -> Any:
        """Return how many of these rows are in each cell."""
        import numpy as np

        return np.bincount(self.cell[rows], minlength=self.size)

    def named(self, cells: Any) -> pd.DataFrame:
        """Return the keys of these cells, names as text."""
        import numpy as np
        import pandas as pd

        places = np.unravel_index(cells, tuple(map(len, self.names)))
        taken = [names.take(place) for names, place in zip(self.names, places, strict=True)]
        found = pd.DataFrame(dict(zip(self.keys, taken, strict=True)))
        return found.astype({key: "str" for key in self.keys if found[key].dtype.kind not in "iu"})

    def ordered(self, rows: Any, values: Any) -> tuple[Any, Any, Any]:
        """Return these rows' values by cell and size, and how many and from where each cell has.

        Args:
            rows: Their numbers, in the order of their values (`rising`).
            values: Of all rows.
        """
        import numpy as np

        cell, values = self.cell[rows], values[rows]
        order = np.arange(len(values))
        for shift in range(0, max(self.size - 1, 1).bit_length(), 16):
            digit = (cell[order] >> shift).astype(np.uint16)
            order = order[np.argsort(digit, kind="stable")]  # 16 bits: a radix sort, no comparing
        counts = np.bincount(cell, minlength=self.size)
        return values[order], counts, np.cumsum(counts) - counts


def coded(column: pd.Series[Any]) -> tuple[Any, Any]:
    """Return each row's place among the column's values, and these in their order."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy("int64"), column.cat.categories
    return pd.factorize(column, sort=True)


def rising(rows: Any, values: Any) -> Any:
    """Return the numbers of these rows in the order of their values."""
    import numpy as np

    numbers = np.flatnonzero(rows)
    return numbers[np.argsort(values[numbers])]


def quantile(values: Any, counts: Any, starts: Any, share: float) -> Any:
    """Return each cell's quantile, linear between neighbours; NaN for a cell without values."""
    import numpy as np

    place = np.maximum(counts - 1, 0) * share
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    last = max(len(values) - 1, 0)
    if not len(values):
        return np.full(len(counts), np.nan)
    low = values[np.minimum(starts + below, last)]
    high = values[np.minimum(starts + above, last)]
    return np.where(counts > 0, low + (high - low) * (place - below), np.nan)
