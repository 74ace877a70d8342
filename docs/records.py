"""Writes docs/records.md, the columns of what is measured, from `kitlib/samples.py`.

`make docs` runs it; a test runs it with --check. What it writes depends on nothing but that.
"""

from __future__ import annotations

import sys

from plugins import ROOT, settle, table

from kitlib.samples import PROBES, Column

PAGE = ROOT / "docs/records.md"

_HEAD = """\
# What is measured, column by column

`make docs` writes this page from `kitlib/samples.py`.

`samples/<probe>/<part>.parquet` in a run directory holds what a probe measured, one row a sample;
a part is a round, or less of one. Every number in a report is derived from these rows. They are
plain Parquet:

```python
import pandas as pd

rows = pd.read_parquet("runs/lab/20261122T180640Z-abc123/samples/ping")
```

"""


_TITLES = {"mtu": "Path MTU"}


def page() -> str:
    """Return docs/records.md: which probe has which columns, and each column once a table."""
    tables: list[tuple[str, dict[str, Column], list[tuple[str, str]]]] = []
    for probe, probed in PROBES.items():
        row = (f"`{probe}`", probed.meaning)
        if tables and tables[-1][1] == probed.columns:
            tables[-1][2].append(row)
        else:
            tables.append((probe, dict(probed.columns), [row]))
    parts = []
    for name, columns, probes in tables:
        what = "Times" if len(probes) > 1 else _TITLES.get(name, name.capitalize())
        parts.append(f"## {what}\n\n")
        parts.append(table(("directory", "what one row is of"), probes) + "\n")
        parts.append(
            table(
                ("column", "type", "meaning", "in records from before it"),
                (
                    (f"`{column}`", each.kind, each.meaning, _before(each))
                    for column, each in columns.items()
                ),
            )
        )
    return _HEAD + "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _before(column: Column) -> str:
    """Return what stands in a record that does not have the column yet."""
    if column.otherwise is None:
        return "always there"
    return "empty" if column.otherwise == "" else str(column.otherwise).lower()


if __name__ == "__main__":
    sys.exit(settle({PAGE: page()}, __doc__))
