"""The verbs that build, change and look at a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kitlib.cli.apps import app
from kitlib.cli.terminal import (
    Confirm,
    DryRun,
    Format,
    FormatOption,
    HostsOption,
    Keep,
    ParamsArg,
    Plugin,
    Rebuild,
    ask_password,
    ask_removal,
    ask_unplug,
    followed,
    given,
    opened,
    out,
    print_json,
    say_where,
    show_table,
    unlock,
)
from kitlib.errors import KitError, ParamsError

__all__ = ["run_build_verb"]


@app.command()
def build(
    params: ParamsArg,
    plugin: Plugin = None,
    manifest: Annotated[
        str | None,
        typer.Option(help="One address or file to apply as the plugin.", metavar="WHERE"),
    ] = None,
    dry_run: DryRun = False,
    rebuild: Rebuild = False,
    keep: Keep = False,
) -> None:
    """Build the cluster with the bootstrap notebooks, then measure it with the diagnostic ones.

    Run again, it goes on from what is true on the hosts; what is as wanted is left alone.
    """
    overrides = {"plugin": plugin, "plugin_manifest": manifest}
    run_build_verb(params, overrides, dry_run=dry_run, rebuild=rebuild, keep=keep)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="preflight, reset, packages, init, network, ...")],
    params: ParamsArg,
    plugin: Plugin = None,
    dry_run: DryRun = False,
    rebuild: Rebuild = False,
    keep: Keep = False,
) -> None:
    """Run one stage without its notebook."""
    from kitlib.alone import run_alone
    from kitlib.stages import get_stage

    get_stage(name)
    options = {"plugin": plugin}
    with opened(params, options, dry_run=dry_run, rebuild=rebuild, keep=keep) as session:
        with followed(session):
            outcome = run_alone(session, name)
        for check in outcome.checks:
            out().print(f"  {check}", soft_wrap=True, highlight=False)
    say_where(session.journal.path)
    out().print(f"{name}: {outcome.verdict.value}", highlight=False)


@app.command()
def join(params: ParamsArg, host: HostsOption, dry_run: DryRun = False, keep: Keep = False) -> None:
    """Take hosts that the file has got since into the cluster: preflight to verify, in one run.

    A worker or a control plane. Run again, it goes on from what is true on the hosts.
    """
    from kitlib import membership

    membership.check_names(params, host)
    with (
        opened(params, dry_run=dry_run, keep=keep) as session,
        membership.whole_run(session, "kit join"),
        followed(session),
    ):
        membership.join_hosts(session, host)
    say_where(session.journal.path)
    out().print(f"join {', '.join(host)}: {'PLANNED' if dry_run else 'PASS'}")


@app.command()
def remove(
    params: ParamsArg,
    host: HostsOption,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Let pods go that nothing makes anew, and data on the host; delete what "
            "disruption budgets still hold back after timeouts.drain; forget a host that is down.",
        ),
    ] = False,
    confirm: Confirm = "",
    dry_run: DryRun = False,
    keep: Keep = False,
) -> None:
    """Take hosts out of the cluster: drain, reset, delete the Node; a control plane, if it may go.

    It shows what goes. Unless the parameters (confirm_reset) or --confirm name the cluster, it
    asks; without a terminal it stops. Run again after a failure, it goes on from what is true.
    """
    from kitlib import confirming, membership
    from kitlib.removal import plan_removal, remove_hosts

    membership.check_names(params, host)
    options = {"confirm_reset": confirm or None}
    with (
        opened(params, options, dry_run=dry_run, keep=keep) as session,
        membership.whole_run(session, "kit remove"),
    ):
        removal = plan_removal(session, host, force=force)
        if not dry_run:
            confirming.confirm(removal, ask_removal if sys.stdin.isatty() else None)
        with followed(session):
            remove_hosts(session, removal)
    say_where(session.journal.path)
    out().print(f"remove {', '.join(host)}: {'PLANNED' if dry_run else 'PASS'}")
    for line in () if dry_run else removal.result(params):
        out().print(line, soft_wrap=True)


@app.command()
def unplug(
    params: ParamsArg,
    plugin: Plugin = None,
    confirm: Confirm = "",
    dry_run: DryRun = False,
    keep: Keep = False,
) -> None:
    """Take the network plugin out of the cluster, and what it left off every host.

    Pods are without a network until the next plugin; it shows them. Unless the parameters
    (confirm_reset) or --confirm name the cluster, it asks; without a terminal it stops. Run again
    after a failure, it goes on from what is true.
    """
    from kitlib import confirming, membership
    from kitlib import unplug as unplugging

    options = {"plugin": plugin, "confirm_reset": confirm or None}
    with (
        opened(params, options, dry_run=dry_run, keep=keep) as session,
        membership.whole_run(session, "kit unplug"),
    ):
        planned = unplugging.plan_unplug(session)
        if not dry_run:
            confirming.confirm(planned, ask_unplug if sys.stdin.isatty() else None)
        with followed(session):
            unplugging.take_out(session, planned)
    say_where(session.journal.path)
    name = session.plugin.name
    out().print(f"unplug {name}: {'PLANNED' if dry_run else 'PASS'}", highlight=False)


@app.command()
def preflight(
    params: ParamsArg,
    plugin: Plugin = None,
    format: FormatOption = Format.text,
) -> None:
    """Say everything that would stop or spoil a build, on all hosts at once. Changes nothing.

    Exit code 0: nothing stops it. 8: a check failed. 4: a host cannot be reached; the others are
    judged all the same.
    """
    from kitlib import alone
    from kitlib.hints import explain
    from kitlib.session import Session

    with Session.open(params, overrides=given({"plugin": plugin})) as session:
        unlock(session)
        asked = f"asking {len(session.params.hosts)} host(s)"
        with Console(stderr=True).status(asked):
            found = alone.preflight(session)
        if format is Format.json:
            print_json(found.as_json())
        else:
            found.show(out())
    if found.error:
        # What failed was shown already, whole; the message names the kind and how much, and what
        # all of it together may come from.
        whole, found.error.message = found.error.message, found.error.message.splitlines()[0]
        found.error.remedy = "; ".join(f"{hint.cause}: {hint.remedy}" for hint in explain(whole))
        raise found.error


@app.command()
def hosts(params: ParamsArg) -> None:
    """Show what is found on each host; nothing is changed, and no run is recorded.

    A host that cannot be read has its line all the same, with the reason; the exit code is then 4.
    """
    from kitlib.params import load
    from kitlib.roster import COLUMNS, take_roster
    from kitlib.session import find_params

    ask = ask_password if sys.stdin.isatty() else None
    roster = take_roster(load(find_params(params)), ask=ask)
    table = Table(*COLUMNS)
    for row in roster.rows:
        table.add_row(*row)
    show_table(table)
    roster.raise_first()


@app.command()
def trust(
    params: ParamsArg,
    yes: Annotated[bool, typer.Option("--yes", help="Accept without asking.")] = False,
) -> None:
    """Show the hosts' SSH keys, and remember those that you accept.

    Compare each fingerprint with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on
    the host itself. Jump hosts come first. A key that differs from the remembered one is never
    replaced here.
    """
    from kitlib.params import load
    from kitlib.session import find_params
    from kitlib.trust import trust as trust_hosts

    def show(found: Sequence[Any]) -> None:
        table = Table("host", "address", "key", "fingerprint", "state")
        for each in found:
            key = (each.key.kind, each.key.fingerprint) if each.key else ("", "")
            table.add_row(each.name, each.address, *key, each.state)
        show_table(table)

    def accept(count: int, file: Path) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise ParamsError(
                "trust: no terminal to ask on", remedy="compare the fingerprints, then use --yes"
            )
        return typer.confirm(f"Remember {count} new key(s) in {file}?", abort=True)

    count, file = trust_hosts(load(find_params(params)), show=show, accept=accept)
    if count:
        out().print(f"{count} key(s) remembered in {file}.")
    else:
        out().print(f"Nothing new; the known keys are in {file}.")


@app.command()
def bundle(
    params: ParamsArg,
    directory: Annotated[Path, typer.Argument(help="A new directory.", show_default=False)],
    host: Annotated[
        str, typer.Option(help="The host that collects; empty is the control plane.")
    ] = "",
) -> None:
    """Collect packages, images and the plugin's manifest for hosts without internet.

    One host of the parameter file collects: one with internet, of the same system as the hosts that
    the bundle is for, and with the packages stage behind it. Then name the directory in the
    parameters of those hosts: packages: {source: directory, directory: ...}.
    """
    from kitlib.bundling import bundle as collect
    from kitlib.model import Verdict

    with opened(params) as session:
        try:
            with followed(session):
                made = collect(session, directory, host)
        except KitError as error:
            session.finish(Verdict.FAIL, error.message.splitlines()[0])
            raise
        session.finish(Verdict.PASS, f"bundled into {directory}")
    size = sum(each.size for each in (*made.packages, *made.images)) / 1e6
    out().print(
        f"{directory}: {len(made.packages)} packages and {len(made.images)} images, {size:.1f} MB, "
        f"for Kubernetes {made.kubernetes_version} on {made.system} {made.architecture}",
        soft_wrap=True,
        highlight=False,
    )
    if made.emulated:
        out().print(made.emulated, soft_wrap=True, highlight=False)


def run_build_verb(
    params: Path,
    overrides: dict[str, Any],
    *,
    dry_run: bool = False,
    rebuild: bool = False,
    keep: bool = False,
    quiet: bool = False,
) -> tuple[str, Path]:
    """Build the cluster by the notebooks; return the verdict and the report."""
    from kitlib.pipeline import build as run_build

    with opened(params, overrides, dry_run=dry_run, rebuild=rebuild, keep=keep) as session:
        with followed(session):
            done = run_build(session)
        if not quiet:
            out().print(f"{done.verdict.value}\n{done.report}", soft_wrap=True, highlight=False)
        return done.verdict.value, done.report
