"""The `kit` command and its group `lab`, to which the verbs of the other modules belong."""

from __future__ import annotations

from typing import Annotated

import typer

from kitlib import __version__
from kitlib.cli.terminal import out
from kitlib.errors import exit_codes

__all__ = ["app", "lab_app"]

app = typer.Typer(
    help="Build Kubernetes clusters with kubeadm over SSH, and measure their pod network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: "
    + "; ".join(f"{code} {meaning}" for code, meaning in exit_codes().items())
    + ".",
)


lab_app = typer.Typer(
    help="Throw-away hosts on this machine, to practise and test on: no root, no containers.",
    no_args_is_help=True,
)
app.add_typer(lab_app, name="lab")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out().print(f"kit {__version__}")
        raise typer.Exit
