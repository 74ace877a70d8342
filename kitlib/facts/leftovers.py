"""What network plugins left on a host besides devices and CNI files: paths, packet filters."""

from __future__ import annotations

from dataclasses import dataclass

from kitlib import plugins
from kitlib.facts.sections import command, lines_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "Leftovers", "parse"]

_PATHS = " ".join(plugins.leftover_paths())

SCRIPT = "".join(
    (
        section(
            "leftovers.paths",
            f'for f in {_PATHS}; do if [ -e "$f" ]; then echo "$f"; fi; done',
        ),
        section(
            "leftovers.chains",
            needs("iptables-save", "iptables-save | sed -n -E 's/^:([^ ]+) .*/\\1/p' | sort -u"),
        ),
        section("leftovers.nft", needs("nft", "nft list tables")),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Traces of network plugins; None stands for what could not be read.

    Attributes:
        paths: Known plugins' files and directories that exist.
        chains: iptables chains of every table.
        nft_tables: nftables tables, by name.
    """

    paths: tuple[str, ...]
    chains: tuple[str, ...] | None
    nft_tables: tuple[str, ...] | None


def parse(text: str) -> Leftovers:
    """Return the traces, from what `COMMAND` printed."""
    sections = split(text)
    tables = lines_of(sections, "leftovers.nft")
    return Leftovers(
        paths=lines_of(sections, "leftovers.paths") or (),
        chains=lines_of(sections, "leftovers.chains"),
        nft_tables=None if tables is None else tuple(line.split()[-1] for line in tables),
    )
