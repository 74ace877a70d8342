"""The `kit` command: a thin skin over the library; its exit codes are those of errors.py."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer
from rich.console import Console

# Importing them is what gives the command its verbs, in this order in its help.
from kitlib.cli import clusters, diagnose, lab, pages  # noqa: F401
from kitlib.cli.apps import app, lab_app
from kitlib.errors import Interrupted, KitError, ParamsError

__all__ = ["app", "lab_app", "main"]


def main() -> None:
    """Run the `kit` command; whatever fails ends in one message and the exit code of its kind."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(prog_name="kit", standalone_mode=False)
    except KitError as error:
        _fail(error)
    except KeyboardInterrupt as interrupt:
        _fail(Interrupted.by(interrupt))
    except typer.Abort:
        _fail(Interrupted("nothing was done"))
    except Exception as error:
        shown: Any = getattr(error, "show", None)  # a usage error of the command line
        if shown is None:
            if os.environ.get("KIT_TRACEBACK"):
                raise
            _fail(
                KitError(
                    f"{type(error).__name__}: {error}",
                    remedy="this is a defect: KIT_TRACEBACK=1 shows where; please report it",
                )
            )
        shown()
        sys.exit(ParamsError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _terminate(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _fail(error: KitError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{type(error).kind}:", style="bold red", markup=False)
    console.print(str(error), markup=False)
    for line in _hints(str(error)):
        console.print(line, markup=False)
    if isinstance(error, Interrupted):
        # Python would wait for every thread; one that waits on a host may do so for minutes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code)
    sys.exit(error.exit_code)


def _hints(text: str) -> Iterator[str]:
    from kitlib.hints import explain

    for hint in explain(text):
        yield f"  likely cause: {hint.cause}\n  what to do: {hint.remedy}"
