"""What was measured, as Parquet: one row a sample, every column documented, nothing aggregated.

`samples/<probe>/<part>.parquet` of a run directory holds rows; a part is a round, or less of one.
Which columns they have depends on the probe (`PROBES`). Columns that came later have a value for
records from before (`Column.otherwise`), so old records are read like new ones.
pandas and pyarrow are imported when the first table is made: most notebooks act and never make one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kitlib.errors import PreconditionError, RecordError
from kitlib.runs import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MTU_COLUMNS",
    "POLICY_COLUMNS",
    "PROBES",
    "ROUTE_COLUMNS",
    "SAMPLE_COLUMNS",
    "THROUGHPUT_COLUMNS",
    "Column",
    "Probed",
    "read_samples",
    "stamp",
    "write_samples",
    "write_whole",
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of samples.

    Attributes:
        kind: `int64`, `float64`, `bool`, or `str` (a dictionary in the file, a category in pandas).
        meaning: What stands in it, with its unit.
        otherwise: What it is where a row does not say, and in records from before it was there;
            None for a column that every row has.
    """

    kind: str
    meaning: str
    otherwise: object = None


_ROUND = Column("int64", "number of the measuring round; counts on over all measurements of a run")
_SRC = Column("str", "the node that sent")
_DST = Column("str", "the node that was asked")
_PATH = Column("str", "`pod`: between pods; `host`: between the hosts themselves, the baseline")
_REASON = Column("str", "why it failed, in the words of the tool or of the network; else empty", "")
_T = Column("float64", "Unix time, seconds")

SAMPLE_COLUMNS: Mapping[str, Column] = {
    "round": _ROUND,
    "src": _SRC,
    "dst": Column(
        "str", "the node that was asked; of `http_service` the Service, of `dns_*` the name asked"
    ),
    "src_ip": Column("str", "address that sent; empty where it is not known"),
    "dst_ip": Column("str", "address that was asked; of `dns_*` the DNS server's"),
    "path": _PATH,
    "seq": Column("int64", "number of the sample in its command, counted from 1"),
    "rtt_ms": Column(
        "float64",
        "the measured time, milliseconds; NaN where lost, or where the tool does not time",
    ),
    "lost": Column("bool", "no answer came in time, or it was refused"),
    "duplicate": Column("bool", "a further reply to a packet that was already answered", False),
    "reordered": Column("bool", "the reply came after that to a packet sent later", False),
    "warmup": Column("bool", "among the first: it paid for ARP, connection tracking and caches"),
    "side_by_side": Column("int64", "pairs that were measured at a time; 0: not recorded", 0),
    "server": Column(
        "str", "who answered, a node's name or a DNS server's address; empty: not known", ""
    ),
    "reason": _REASON,
    "t": Column("float64", "Unix time at which it was sent, seconds"),
}
"""One row for each packet, connection, request or lookup that was timed."""

MTU_COLUMNS: Mapping[str, Column] = {
    "round": _ROUND,
    "src": _SRC,
    "dst": _DST,
    "path": _PATH,
    "interface_mtu": Column("int64", "what the sending interface claims, bytes; 0: not known", 0),
    "passes_bytes": Column(
        "int64", "largest IP packet that was answered, headers included; 0: none", 0
    ),
    "fails_bytes": Column(
        "int64", "smallest IP packet that was not answered; 0: all that were tried passed", 0
    ),
    "reason": Column(
        "str", "what the first larger packet met, in the network's words; empty: it vanished", ""
    ),
    "t": _T,
}
"""One row for each search of the largest packet that passes."""

THROUGHPUT_COLUMNS: Mapping[str, Column] = {
    "round": _ROUND,
    "src": _SRC,
    "dst": _DST,
    "path": _PATH,
    "seconds": Column("float64", "how long data was received; NaN where it failed"),
    "bits_per_second": Column("float64", "what the receiver got; NaN where it failed"),
    "retransmits": Column("float64", "TCP segments that were sent again; NaN: not told"),
    "reason": _REASON,
    "t": _T,
}
"""One row for each bulk transfer over one TCP connection."""

POLICY_COLUMNS: Mapping[str, Column] = {
    "round": _ROUND,
    "src": _SRC,
    "dst": _DST,
    "step": Column("str", "`open`: no policy; `deny`: all is denied; `allow`: the sender may"),
    "expected": Column("bool", "whether the step lets the connection through"),
    "reached": Column("bool", "whether it came through"),
    "reason": _REASON,
    "t": _T,
}
"""One row for each attempt to connect while a NetworkPolicy is (or is not) in force."""

ROUTE_COLUMNS: Mapping[str, Column] = {
    "node": Column("str", "the node whose routes were asked"),
    "dst": Column("str", "the node that the address belongs to"),
    "dst_ip": Column("str", "the address that was asked for, a pod's or a host's"),
    "via": Column("str", "next hop; empty for none (directly connected, or no route)", ""),
    "device": Column("str", "device it leaves by; empty: there is no route", ""),
    "device_mtu": Column("int64", "that device's MTU, bytes; 0: not known", 0),
    "text": Column("str", "what the kernel said, in its words", ""),
    "t": _T,
}
"""Evidence: one row for each address that a node was asked the way to."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What one directory below `samples/` holds: its columns, and what was measured."""

    columns: Mapping[str, Column]
    meaning: str


PROBES: Mapping[str, Probed] = {
    "ping": Probed(SAMPLE_COLUMNS, "ICMP echo: until the reply came"),
    "reach": Probed(SAMPLE_COLUMNS, "ICMP echo to many nodes at a time: whether they answer"),
    "reach_gateway": Probed(
        SAMPLE_COLUMNS, "the same from a host to another one's own address on the pod network"
    ),
    "tcp_connect": Probed(SAMPLE_COLUMNS, "TCP handshake: until the connection was there"),
    "tcp_rr": Probed(SAMPLE_COLUMNS, "request to first byte of the answer on a TCP connection"),
    "http": Probed(SAMPLE_COLUMNS, "HTTP to a pod or host: connecting, request, whole answer"),
    "http_service": Probed(SAMPLE_COLUMNS, "the same through a Service's ClusterIP"),
    "dns_cluster_udp": Probed(SAMPLE_COLUMNS, "lookup of a name of the cluster over UDP"),
    "dns_cluster_tcp": Probed(SAMPLE_COLUMNS, "lookup of a name of the cluster over TCP"),
    "dns_external": Probed(SAMPLE_COLUMNS, "lookup of a name outside the cluster"),
    "mtu": Probed(MTU_COLUMNS, "largest packet that passes"),
    "throughput": Probed(THROUGHPUT_COLUMNS, "bulk transfer over TCP"),
    "policy": Probed(POLICY_COLUMNS, "whether a NetworkPolicy is honoured"),
    "routes": Probed(ROUTE_COLUMNS, "which way packets leave a node"),
}
"""Name of the directory -> what is in it."""


def write_samples(path: Path | str, rows: Iterable[Mapping[str, object]]) -> Path:
    """Return the path after writing rows there, whole or not at all.

    Args:
        path: `samples/<probe>/<part>.parquet` below the run directory; parents are made.
        rows: Mappings with the columns of the probe; those with an `otherwise` may be absent.

    Raises:
        ValueError: The probe or a column is unknown, or a row lacks one that it must have.
        RecordError: It cannot be written; what was there before is still there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(path)
    columns = _columns(target.parent.name, target)
    cells: dict[str, list[object]] = {name: [] for name in columns}
    for row in rows:
        if strange := sorted(row.keys() - columns.keys()):
            raise ValueError(f"{target}: not a column of this probe: {', '.join(strange)}")
        for name, column in columns.items():
            value = row.get(name, column.otherwise)
            if value is None and column.kind != "float64":
                raise ValueError(f"{target}: a row has no {name}")
            cells[name].append(value)
    table = pa.table(
        {name: pa.array(cells[name], type=_arrow(column)) for name, column in columns.items()}
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return write_whole(target, buffer.getvalue())


def read_samples(
    run: Run, probe: str = "ping", only: Collection[str] | None = None
) -> pd.DataFrame:
    """Return every row of a probe, part after part; columns: those of PROBES[probe], in order.

    A column that a record does not have yet holds its `otherwise`; one that this release does not
    know is left out.

    Args:
        run: The run.
        probe: The directory below `samples/`.
        only: The columns that are wanted; None for all. Of a million rows each takes its time.

    Raises:
        ValueError: The probe is unknown.
        PreconditionError: A file is no table of samples.
    """
    import pyarrow as pa

    folder = run.path / "samples" / probe
    columns = _columns(probe, folder)
    if only is not None:
        columns = {name: column for name, column in columns.items() if name in only}
    schema = pa.schema([(name, _arrow(column)) for name, column in columns.items()])
    parts = [_part(path, columns) for path in sorted(folder.glob("*.parquet"))]
    table = pa.concat_tables(parts) if parts else schema.empty_table()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def stamp(run: Run, probe: str = "*") -> tuple[tuple[str, int, int], ...]:
    """Return what changes when the samples of a run do: each file's probe, time (ns) and size.

    Args:
        run: The run.
        probe: The probe; `*` for all.
    """
    files = sorted((run.path / "samples").glob(f"{probe}/*.parquet"))
    stats = [(each.parent.name, each.stat()) for each in files]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def write_whole(path: Path, data: Any) -> Path:
    """Return the path after writing the file whole or not at all; its directory is made.

    Args:
        path: Where to.
        data: Bytes, or what can be read like them.

    Raises:
        RecordError: It cannot be written; what was there before is still there.
    """
    # Not `.prom` at the end: a collector that looks just now must not read half a file.
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written: {error.strerror or error}",
            remedy="make room there or name another place, then run the same command again",
        ) from error
    return path


def _columns(probe: str, where: Path) -> Mapping[str, Column]:
    if probe not in PROBES:
        raise ValueError(f"{where}: {probe}: no such probe; there are {', '.join(PROBES)}")
    return PROBES[probe].columns


def _part(path: Path, columns: Mapping[str, Column]) -> Any:
    """Return a file's table with exactly these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        there = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in columns if name in there])
        found = {}
        for name, column in columns.items():
            kind = _arrow(column)
            if name in table.column_names:
                found[name] = _as(table[name], kind)
            elif column.otherwise is not None:
                found[name] = _same(column.otherwise, kind, len(table))
            else:
                raise ValueError(f"no column {name}")
        return pa.table(found)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PreconditionError(
            f"{path}: not a table of samples: {error}",
            remedy="remove that file: what the others hold is read without it",
        ) from error


def _same(value: object, kind: Any, rows: int) -> Any:
    """Return a column that holds the same value in all rows."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        codes = pa.array(np.zeros(rows, dtype="int32"))
        return pa.DictionaryArray.from_arrays(codes, pa.array([value], pa.string()))
    return pa.array(np.full(rows, value), type=kind)


def _as(column: Any, kind: Any) -> Any:
    """Return a column as the kind that it should be."""
    import pyarrow as pa

    if not pa.types.is_dictionary(kind) or pa.types.is_dictionary(column.type):
        return column.cast(kind)
    return column.cast(pa.string()).dictionary_encode()


def _arrow(column: Column) -> Any:
    """Return Arrow's type of a column."""
    import pyarrow as pa

    kinds = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "str": pa.dictionary(pa.int32(), pa.string()),
    }
    return kinds[column.kind]
