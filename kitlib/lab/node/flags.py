"""Command lines of emulated tools, read the way that Go's pflag library reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["FlagError", "Flags", "parse"]


class FlagError(Exception):
    """The command line is wrong; the text is pflag's own."""


@dataclass(frozen=True, slots=True)
class Flags:
    """A parsed command line.

    Attributes:
        values: Flag name (no dashes) -> the values given, in order; a switch holds `true`.
        rest: The arguments that are no flags.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rest: tuple[str, ...] = ()

    def get(self, name: str, default: str = "") -> str:
        """Return the last value of a flag."""
        given = self.values.get(name)
        return given[-1] if given else default

    def on(self, name: str) -> bool:
        """Return whether a switch is set."""
        return self.get(name) == "true"

    def every(self, name: str) -> list[str]:
        """Return all values of a flag that may be repeated or hold a comma-separated list."""
        return [bit for value in self.values.get(name, ()) for bit in value.split(",") if bit]

    def __contains__(self, name: str) -> bool:
        return name in self.values


def parse(
    args: Iterable[str],
    *,
    takes: Iterable[str] = (),
    switches: Iterable[str] = (),
    short: Mapping[str, str] | None = None,
) -> Flags:
    """Return the flags and the other arguments of a command line.

    Args:
        args: The arguments behind the command's name.
        takes: Flags that need a value (`--x v` or `--x=v`).
        switches: Flags that may stand alone (`--x` or `--x=false`).
        short: One-letter forms, letter -> flag name.

    Raises:
        FlagError: An unknown flag, or a value is missing.
    """
    takes, switches, short = set(takes), set(switches), dict(short or {})
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    queue = list(args)
    while queue:
        arg = queue.pop(0)
        if arg == "--":
            rest.extend(queue)
            break
        if arg == "-" or not arg.startswith("-"):
            rest.append(arg)
            continue
        if arg.startswith("--"):
            name, sep, value = arg[2:].partition("=")
            shown = f"--{name}"
            if name not in takes | switches:
                raise FlagError(f"unknown flag: {shown}")
        else:
            letter, value = arg[1], arg[2:]
            if letter not in short:
                raise FlagError(f"unknown shorthand flag: '{letter}' in {arg}")
            name, shown = short[letter], f"'{letter}' in {arg}"
            if name in switches and value and not value.startswith("="):
                queue.insert(0, "-" + value)
                value = ""
            sep, value = ("=" if value else ""), value.removeprefix("=")
        if name in switches:
            found.setdefault(name, []).append(value if sep else "true")
        elif sep:
            found.setdefault(name, []).append(value)
        elif queue:
            found.setdefault(name, []).append(queue.pop(0))
        else:
            raise FlagError(f"flag needs an argument: {shown}")
    return Flags({name: tuple(values) for name, values in found.items()}, tuple(rest))
