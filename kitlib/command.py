"""Commands as argument lists, with quoting and secrets as types."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from kitlib.masking import MASK, remember

__all__ = ["MASK", "Cmd", "Secret", "script"]


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that runs in clear and is shown masked, wherever it is printed.

    From the moment that it is made, its value is masked in everything that this process keeps or
    shows, also where a host's own output repeats it.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        """Remember the value, so that it is known wherever it turns up."""
        remember(self.value)

    def __str__(self) -> str:
        """Return the mask, never the value."""
        return MASK

    def __repr__(self) -> str:
        """Return the mask, never the value."""
        return f"Secret({MASK})"


@dataclass(frozen=True, slots=True)
class Cmd:
    """One command: an argument list, its environment, and whether it changes anything.

    Args:
        argv: The arguments; each is quoted when the command is rendered.
        env: Environment variables set for this command alone.
        mutates: True when running it changes a host or the cluster. A read-only runner refuses it.
        timeout: Seconds after which the command counts as failed; None takes the runner's default.
        label: A few words that stand for a long script where a line is all there is room for.
    """

    argv: tuple[str | Secret, ...]
    env: Mapping[str, str | Secret] = field(default_factory=dict)
    mutates: bool = False
    timeout: float | None = None
    label: str = ""

    @property
    def brief(self) -> str:
        """The label, or else the whole masked line."""
        return f"({self.label})" if self.label else str(self)

    @classmethod
    def of(cls, *argv: str | Secret, timeout: float | None = None) -> Cmd:
        """Return a command that only reads."""
        return cls(tuple(argv), timeout=timeout)

    @classmethod
    def change(
        cls,
        *argv: str | Secret,
        env: Mapping[str, str | Secret] | None = None,
        timeout: float | None = None,
    ) -> Cmd:
        """Return a command that changes something."""
        return cls(tuple(argv), env=dict(env or {}), mutates=True, timeout=timeout)

    def render(self) -> str:
        """Return the shell line that runs, secrets in clear. Never print or record this."""
        return _line(self, clear=True)

    def __str__(self) -> str:
        """Return the pasteable shell line with every secret masked."""
        return _line(self, clear=False)


def script(
    text: str,
    *args: str | Secret,
    mutates: bool = False,
    timeout: float | None = None,
    label: str = "",
) -> Cmd:
    """Return a command that runs `text` with `sh -c`, for what an argument list cannot say.

    `text` is a constant of the kit; values from parameters go in as `args` (`$1`, `$2`, ...),
    never by formatting.
    """
    return Cmd(
        ("sh", "-c", text, "sh", *args) if args else ("sh", "-c", text),
        mutates=mutates,
        timeout=timeout,
        label=label,
    )


def _line(cmd: Cmd, *, clear: bool) -> str:
    def shown(bit: str | Secret) -> str:
        if isinstance(bit, Secret):
            return shlex.quote(bit.value) if clear else MASK
        return shlex.quote(bit)

    settings = [f"{name}={shown(value)}" for name, value in sorted(cmd.env.items())]
    return " ".join([*(["env", *settings] if settings else []), *map(shown, cmd.argv)])
