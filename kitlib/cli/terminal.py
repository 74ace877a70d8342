"""What the verbs share: their usual options, and what they print and ask on a terminal."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from kitlib.progress import Follower
    from kitlib.session import Session

__all__ = [
    "LAB_PARAMS",
    "Confirm",
    "DryRun",
    "Format",
    "FormatOption",
    "HostsOption",
    "Keep",
    "LabParams",
    "ParamsArg",
    "Plugin",
    "Rebuild",
    "TimeFactor",
    "ask_password",
    "ask_removal",
    "ask_unplug",
    "followed",
    "given",
    "opened",
    "out",
    "print_json",
    "say_where",
    "show_table",
    "unlock",
]

LAB_PARAMS = Path("params/lab.yaml")


ParamsArg = Annotated[Path, typer.Argument(help="The parameter file.", show_default=False)]


Plugin = Annotated[
    str | None, typer.Option(help="Another network plugin than the file names.", metavar="NAME")
]


Confirm = Annotated[str, typer.Option(help="Name the cluster: its CA hash.", metavar="HASH")]


DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]


Keep = Annotated[
    bool, typer.Option("--keep", help="Leave what a failed stage made as it is, for a look.")
]


HostsOption = Annotated[
    list[str], typer.Option("--host", help="A host of the file; may be repeated.", metavar="NAME")
]


Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Reset and build anew what is as wanted already.")
]


LabParams = Annotated[
    Path, typer.Option("--params", help="The parameter file whose hosts the lab provides.")
]


class Format(StrEnum):
    """How a verb prints its result."""

    text = "text"
    json = "json"


FormatOption = Annotated[
    Format, typer.Option("--format", help="text for a person, json for a script.")
]


TimeFactor = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="What emulated times are multiplied by; 1 is the recorded time."
    ),
]


def out() -> Console:
    """Return the console for results; a fresh one, so that redirection at run time holds."""
    return Console(highlight=False, markup=False)


def print_json(data: Any) -> None:
    """Print data for a script: no colours, no markup, no width."""
    print(json.dumps(data, indent=2))  # noqa: T201 - data, no markup, no width


def show_table(table: Table) -> None:
    """Print a table whole: a port or a fingerprint that is cut short is of no use."""
    console = out()
    wide = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)


@contextmanager
def opened(
    params: Path,
    overrides: dict[str, Any] | None = None,
    *,
    dry_run: bool = False,
    rebuild: bool = False,
    keep: bool = False,
    context: str = "",
    kind: str = "",
) -> Iterator[Session]:
    """Open a session for a verb, unlocked; when the verb breaks off, say where its record is.

    Args:
        params: The parameter file.
        overrides: The verb's options that stand for parameters; None for one that was not given.
        dry_run: As `Session.open` has it, like the next two.
        rebuild: See there.
        keep: See there.
        context: See there.
        kind: See there.
    """
    from kitlib.session import Session

    with Session.open(
        params,
        dry_run=dry_run,
        rebuild=rebuild,
        keep=keep,
        overrides=given(overrides or {}),
        context=context,
        kind=kind,
    ) as session:
        unlock(session)
        try:
            yield session
        except BaseException:  # Ctrl-C too: what was done until then is on record
            say_where(session.journal.path)
            raise


def followed(session: Session) -> Follower:
    """Return what shows the session's journal on the terminal while it is written."""
    from kitlib.progress import Follower

    return Follower(session.journal.path, out())


def unlock(session: Session) -> None:
    """Ask for sudo's password where a host wants one and there is a terminal to ask on."""
    if sys.stdin.isatty():
        session.unlock(ask_password)


def ask_password() -> str:
    """Return sudo's password, asked for on the terminal."""
    return getpass.getpass("sudo's password on the hosts: ")


def ask_removal(what: str) -> bool:
    """Return whether the person at the terminal agrees that hosts are removed."""
    return _ask(what, "Remove?")


def ask_unplug(what: str) -> bool:
    """Return whether the person at the terminal agrees that the plugin is taken out."""
    return _ask(what, "Unplug?")


def _ask(what: str, question: str) -> bool:
    out().print(what, soft_wrap=True)
    try:
        return typer.confirm(question)
    except typer.Abort:  # Ctrl-C, or the end of the input
        return False


def say_where(run_dir: Path) -> None:
    """Say where the record is."""
    out().print(f"record: {run_dir}", soft_wrap=True, highlight=False)


def given(overrides: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options that were given."""
    return {key: value for key, value in overrides.items() if value is not None}
