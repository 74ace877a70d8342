"""The verbs of the lab: `kit demo`, `kit lab ...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.table import Table

from kitlib.cli.apps import app, lab_app
from kitlib.cli.clusters import run_build_verb
from kitlib.cli.terminal import (
    LAB_PARAMS,
    LabParams,
    TimeFactor,
    out,
    show_table,
)
from kitlib.errors import ParamsError


@app.command()
def demo(
    params: LabParams = LAB_PARAMS,
    time_factor: TimeFactor = 0.2,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running.")] = False,
) -> None:
    """Bring the lab up, build a cluster in it, measure it, take the lab down, print the report."""
    from kitlib.lab import verbs

    spec, state_dir = _lab(params)
    was_up = verbs.status(state_dir).running
    out().print(verbs.up(spec, state_dir=state_dir, time_factor=time_factor).summary)
    try:
        verdict, path = run_build_verb(params, {}, quiet=True)
    finally:
        if not keep and not was_up:
            out().print(verbs.down(state_dir).summary)
    out().print(f"{verdict}\n{path}", soft_wrap=True, highlight=False)


@lab_app.command("up")
def lab_up(params: LabParams = LAB_PARAMS, time_factor: TimeFactor = 0.2) -> None:
    """Start the lab's hosts."""
    from kitlib.lab import verbs

    spec, state_dir = _lab(params)
    now = verbs.up(spec, state_dir=state_dir, time_factor=time_factor)
    out().print(now.summary)
    _lab_table(now)


@lab_app.command("down")
def lab_down(params: LabParams = LAB_PARAMS) -> None:
    """End the lab and all that is in it."""
    from kitlib.lab import verbs

    out().print(verbs.down(_lab(params)[1]).summary)


@lab_app.command("status")
def lab_status(params: LabParams = LAB_PARAMS) -> None:
    """Show the lab's hosts and the faults that are switched on."""
    from kitlib.lab import verbs

    now = verbs.status(_lab(params)[1])
    out().print(now.summary)
    if now.running:
        _lab_table(now)


@lab_app.command("ssh")
def lab_ssh(
    host: Annotated[str, typer.Argument(help="The host's name.")],
    command: Annotated[list[str] | None, typer.Argument(help="Run this and return.")] = None,
    params: LabParams = LAB_PARAMS,
) -> None:
    """Log in to a lab host, as root."""
    from kitlib.lab import verbs

    line = " ".join(command) if command else None
    raise typer.Exit(verbs.ssh(_lab(params)[1], host, line))


@lab_app.command("kubeconfig")
def lab_kubeconfig(
    params: LabParams = LAB_PARAMS,
    target: Annotated[
        Path | None,
        typer.Option("--out", help="Write it there, for you alone.", metavar="FILE"),
    ] = None,
) -> None:
    """Print the administrator's kubeconfig of the lab's cluster, as it works outside of the lab."""
    from kitlib.lab import verbs

    text = verbs.kubeconfig(_lab(params)[1])
    if target is None:
        sys.stdout.write(text)
        return
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    target.write_text(text)
    out().print(str(target), soft_wrap=True)


@lab_app.command("break")
def lab_break(
    fault: Annotated[str | None, typer.Argument(help="The fault; none lists them.")] = None,
    host: Annotated[str, typer.Option(help="The host; empty takes a fitting one.")] = "",
    params: LabParams = LAB_PARAMS,
) -> None:
    """Break something on purpose, to see it found."""
    from kitlib.lab import verbs

    if fault is None:
        table = Table("fault", "what it does", "how")
        for name, each in verbs.faults().items():
            table.add_row(name, each.summary, "real" if each.real else "emulated")
        out().print(table)
        return
    where = verbs.break_(_lab(params)[1], fault, host)
    out().print(f"{where}: {fault} is on; `kit lab heal` undoes it")


@lab_app.command("heal")
def lab_heal(
    fault: Annotated[str, typer.Argument(help="The fault; none heals all.")] = "",
    host: Annotated[str, typer.Option(help="The host; empty means all.")] = "",
    params: LabParams = LAB_PARAMS,
) -> None:
    """Undo what `kit lab break` did."""
    from kitlib.lab import verbs

    healed = verbs.heal(_lab(params)[1], fault, host)
    for where, name in healed:
        out().print(f"{where}: {name} is off")
    if not healed:
        out().print("nothing was broken")


def _lab(params: Path) -> tuple[Any, Path]:
    """Return the lab that provides a parameter file's hosts, and its state directory.

    Raises:
        ParamsError: The parameters are wrong, or name hosts that no lab can provide.
    """
    from kitlib.lab.spec import MANIFEST_PORT, build_spec
    from kitlib.params import load
    from kitlib.session import find_params

    loaded = load(find_params(params))
    foreign = [host.name for host in loaded.hosts if host.address not in ("127.0.0.1", "localhost")]
    if foreign:
        raise ParamsError(
            f"{params}: {', '.join(foreign)}: not on 127.0.0.1, so no lab provides them",
            remedy="the lab serves parameter files like params/lab.yaml",
        )
    address = urlsplit(loaded.plugin_source)
    spec = build_spec(
        loaded.cluster,
        [(host.name, host.role.value, host.port or 22) for host in loaded.hosts],
        manifest_port=(address.port if address.hostname else None) or MANIFEST_PORT,
    )
    return spec, loaded.source.parent.parent / ".lab"


def _lab_table(now: Any) -> None:
    table = Table("host", "role", "SSH", "lab address", "state", "faults")
    for host in now.hosts:
        spec = host.spec
        table.add_row(
            spec.name,
            spec.role,
            f"127.0.0.1:{spec.ssh_port}",
            spec.address,
            host.state,
            ", ".join(host.faults),
        )
    show_table(table)
