"""The `kit` command: a thin skin over the library; its exit codes are those of errors.py."""

from __future__ import annotations

import getpass
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from kitlib import __version__
from kitlib.errors import ChecksFailed, Interrupted, KitError, ParamsError, exit_codes

__all__ = ["app", "main"]

LAB_PARAMS = Path("params/lab.yaml")

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

ParamsArg = Annotated[Path, typer.Argument(help="The parameter file.", show_default=False)]
Plugin = Annotated[
    str | None, typer.Option(help="Another network plugin than the file names.", metavar="NAME")
]
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


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out().print(f"kit {__version__}")
        raise typer.Exit


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
    _build(params, overrides, dry_run=dry_run, rebuild=rebuild, keep=keep)


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
    from kitlib.progress import Follower
    from kitlib.session import Session
    from kitlib.stages import get_stage

    get_stage(name)
    given = _given({"plugin": plugin})
    with Session.open(
        params, dry_run=dry_run, rebuild=rebuild, keep=keep, overrides=given
    ) as session:
        _unlock(session)
        try:
            with Follower(session.journal.path, out()):
                outcome = run_alone(session, name)
        except KitError:
            _where(session.journal.path)
            raise
        for check in outcome.checks:
            out().print(f"  {check}", soft_wrap=True, highlight=False)
        _where(session.journal.path)
        out().print(f"{name}: {outcome.verdict.value}", highlight=False)


@app.command()
def join(params: ParamsArg, host: HostsOption, dry_run: DryRun = False, keep: Keep = False) -> None:
    """Take hosts that the file has got since into the cluster: preflight to verify, in one run.

    A worker or a control plane. Run again, it goes on from what is true on the hosts.
    """
    from kitlib import membership
    from kitlib.progress import Follower
    from kitlib.session import Session

    membership.check_names(params, host)
    with Session.open(params, dry_run=dry_run, keep=keep) as session:
        _unlock(session)
        try:
            with membership.whole_run(session, "kit join"), Follower(session.journal.path, out()):
                membership.join_hosts(session, host)
        finally:
            _where(session.journal.path)
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
    confirm: Annotated[
        str, typer.Option(help="Name the cluster: its CA hash.", metavar="HASH")
    ] = "",
    dry_run: DryRun = False,
    keep: Keep = False,
) -> None:
    """Take hosts out of the cluster: drain, reset, delete the Node; a control plane, if it may go.

    It shows what goes. Unless the parameters (confirm_reset) or --confirm name the cluster, it
    asks; without a terminal it stops. Run again after a failure, it goes on from what is true.
    """
    from kitlib import confirming, membership
    from kitlib.progress import Follower
    from kitlib.removal import plan_removal, remove_hosts
    from kitlib.session import Session

    membership.check_names(params, host)
    given = {"confirm_reset": confirm} if confirm else {}
    with Session.open(params, dry_run=dry_run, keep=keep, overrides=given) as session:
        _unlock(session)
        try:
            with membership.whole_run(session, "kit remove"):
                removal = plan_removal(session, host, force=force)
                if not dry_run:
                    confirming.confirm(removal, _ask_removal if sys.stdin.isatty() else None)
                with Follower(session.journal.path, out()):
                    remove_hosts(session, removal)
        finally:
            _where(session.journal.path)
    out().print(f"remove {', '.join(host)}: {'PLANNED' if dry_run else 'PASS'}")
    for line in () if dry_run else removal.result(params):
        out().print(line, soft_wrap=True)


@app.command()
def unplug(
    params: ParamsArg,
    plugin: Plugin = None,
    confirm: Annotated[
        str, typer.Option(help="Name the cluster: its CA hash.", metavar="HASH")
    ] = "",
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
    from kitlib.progress import Follower
    from kitlib.session import Session

    given = _given({"plugin": plugin, "confirm_reset": confirm or None})
    with Session.open(params, dry_run=dry_run, keep=keep, overrides=given) as session:
        _unlock(session)
        try:
            with membership.whole_run(session, "kit unplug"):
                planned = unplugging.plan_unplug(session)
                if not dry_run:
                    confirming.confirm(planned, _ask_unplug if sys.stdin.isatty() else None)
                with Follower(session.journal.path, out()):
                    unplugging.take_out(session, planned)
        finally:
            _where(session.journal.path)
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

    with Session.open(params, overrides=_given({"plugin": plugin})) as session:
        _unlock(session)
        asked = f"asking {len(session.params.hosts)} host(s)"
        with Console(stderr=True).status(asked):
            found = alone.preflight(session)
        if format is Format.json:
            _print_json(found.as_json())
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

    ask = _ask_password if sys.stdin.isatty() else None
    roster = take_roster(load(find_params(params)), ask=ask)
    table = Table(*COLUMNS)
    for row in roster.rows:
        table.add_row(*row)
    _show(table)
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
        _show(table)

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
def plugins(
    name: Annotated[str | None, typer.Argument(help="One plugin, whole.")] = None,
    version: Annotated[
        str, typer.Option("--for", help="Judge for this Kubernetes version.", metavar="VERSION")
    ] = "",
    manifest: Annotated[
        bool,
        typer.Option("--manifest", help="Show its manifest as that version would have to get it."),
    ] = False,
    source: Annotated[
        str,
        typer.Option("--from", help="Take this manifest, not upstream's.", metavar="ADDRESS|FILE"),
    ] = "",
    params: Annotated[
        Path, typer.Option("--params", help="The file beside whose plugins/ your own ones lie.")
    ] = LAB_PARAMS,
    format: FormatOption = Format.text,
) -> None:
    """List the network plugins to choose from, or show one whole."""
    from kitlib import plugin_pages as pages
    from kitlib.params import catalogue_beside
    from kitlib.session import find_params

    known = catalogue_beside(find_params(params))
    if (manifest or source) and not (name and manifest):
        raise ParamsError(
            "plugins: --manifest shows the one of a plugin that is named, --from says which",
            remedy="kit plugins romana --manifest --for 1.31",
        )
    if name and manifest:
        sys.stdout.write(pages.manifest(known.named(name), version, source))
    elif name and format is Format.json:
        _print_json(known.named(name).model_dump(mode="json"))
    elif name:
        shown = pages.page(known.named(name), known, out().width, version)
        out().print(shown, soft_wrap=True)
    elif format is Format.json:
        _print_json(pages.as_data(pages.rows(known, version)))
    else:
        found = pages.rows(known, version)
        out().print(pages.overview(found, out().width, version))


@app.command()
def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="The parameter file; with --runs, run directories or a comparison's.",
            metavar="PARAMS | DIR...",
            show_default=False,
        ),
    ],
    plugins: Annotated[
        str, typer.Option(help="Names with commas between, or all.", metavar="NAMES")
    ] = "all",
    rounds: Annotated[int, typer.Option(min=1, help="How often each is built.")] = 3,
    packets: Annotated[
        int, typer.Option(min=10, help="For each ordered pair of nodes, path and round.")
    ] = 100,
    seed: Annotated[int, typer.Option(help="Draws the order of each round.")] = 1,
    kubernetes_version: Annotated[
        str, typer.Option(help="One for all; empty is the newest that each fits.", metavar="V")
    ] = "",
    confirm: Annotated[
        str, typer.Option(help="The cluster's name: all of it may be reset.", metavar="NAME")
    ] = "",
    runs: Annotated[
        bool,
        typer.Option("--runs", help="Build nothing: write the page of the directories named."),
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--out", help="With --runs: the page.", metavar="FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a comparison: name its directory.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Build, measure and remove each plugin on the same hosts, in rounds that mix them.

    Each build is a run directory of its own. Every build resets the cluster of the one before it,
    so the parameters (confirm_reset) or --confirm must name the cluster. In the lab:
    kit lab up --time-factor 0.02 first; what is emulated passes faster, packets do not.
    """
    from kitlib import comparison as comparing
    from kitlib.comparison_page import write_comparison
    from kitlib.comparison_plan import plan_comparison
    from kitlib.runs import INDEX

    if runs:
        alone = len(paths) == 1 and (paths[0] / INDEX).is_file()
        written = write_comparison(paths, page or (None if alone else Path("comparison.html")))
        out().print(str(written), soft_wrap=True)
        return
    if len(paths) != 1:
        raise ParamsError("compare: one parameter file is wanted")
    if resume:
        plan, comparison = comparing.resume(paths[0])
    else:
        plan = plan_comparison(
            paths[0],
            plugins,
            rounds=rounds,
            packets=packets,
            seed=seed,
            kubernetes_version=kubernetes_version,
            confirm=confirm,
        )
        for line in plan.lines():
            out().print(line, soft_wrap=True)
        if dry_run:
            out().print("compare: PLANNED")
            return
        comparison = comparing.Comparison.create(plan)

    def follow(_: Path) -> Any:
        return Console(stderr=True).status("building and measuring")

    try:
        bad = comparing.compare(
            plan, comparison, follow=follow, tell=lambda text: out().print(text, soft_wrap=True)
        )
    finally:
        if comparison.runs:
            out().print(str(write_comparison([comparison.path])), soft_wrap=True)
    if bad:
        lines = "\n".join(
            f"  round {run.round}, {run.plugin}: {run.reason} ({plan.runs / plan.cluster}/"
            f"{run.run_id})"
            for run in bad
        )
        raise ChecksFailed(f"compare: {len(bad)} of the builds failed\n{lines}")
    out().print("compare: PASS")


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
    from kitlib.progress import Follower
    from kitlib.session import Session

    with Session.open(params) as session:
        try:
            with Follower(session.journal.path, out()):
                made = collect(session, directory, host)
        except KitError as error:
            session.finish(Verdict.FAIL, error.message.splitlines()[0])
            _where(session.journal.path)
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


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    export: Annotated[
        bool, typer.Option("--export", help="Write every chart and its table to charts/ too.")
    ] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Write the headline figures there, as OpenMetrics.", show_default=False),
    ] = None,
) -> None:
    """Write a run's report.html again, from its record alone."""
    from kitlib.report import write_exports, write_metrics, write_report

    if not (run_dir / "run.json").is_file():
        raise ParamsError(f"{run_dir}: no run.json in it: a run directory is wanted")
    out().print(str(write_report(run_dir)), soft_wrap=True)
    if export:
        made = write_exports(run_dir)
        out().print(f"{run_dir / 'charts'}: {len(made)} files", soft_wrap=True)
    if metrics is not None:
        out().print(str(write_metrics(run_dir, metrics)), soft_wrap=True)


@app.command()
def notebook(
    params: Annotated[Path, typer.Argument(help="Checked before JupyterLab starts.")] = LAB_PARAMS,
    port: Annotated[int, typer.Option(help="The port of JupyterLab.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open JupyterLab on the notebooks: the same ones, cell by cell, by hand."""
    from kitlib.notebooks import notebook_root
    from kitlib.params import load
    from kitlib.session import find_params

    loaded = load(find_params(params))
    root = notebook_root().parent
    out().print(f"Cluster {loaded.cluster}; begin with notebooks/bootstrap/01_preflight.ipynb")
    arguments = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    first = "/lab/tree/notebooks/bootstrap/01_preflight.ipynb"
    arguments += [f"--port={port}", f"--LabApp.default_url={first}"]
    # Nothing here needs the internet: no question about news, no looking for newer versions.
    paths = [str(Path(__file__).with_name("jupyter")), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    env = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}
    arguments += ["--LabApp.news_url=None"]
    arguments += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    arguments += [] if browser else ["--no-browser"]
    arguments += ["--allow-root"] if os.geteuid() == 0 else []
    sys.stdout.flush()
    os.execve(sys.executable, arguments, env)  # noqa: S606 - Ctrl-C is JupyterLab's own to answer


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
        verdict, path = _build(params, {}, quiet=True)
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


def main() -> None:
    """Run the `kit` command; whatever fails ends in one message and the exit code of its kind."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(prog_name="kit", standalone_mode=False)
    except KitError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(Interrupted("interrupted"))
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


def out() -> Console:
    """Return the console for results; a fresh one, so that redirection at run time holds."""
    return Console(highlight=False, markup=False)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))  # noqa: T201 - data, no markup, no width


def _show(table: Table) -> None:
    """Print a table whole: a port or a fingerprint that is cut short is of no use."""
    console = out()
    wide = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)


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


def _build(
    params: Path,
    overrides: dict[str, Any],
    *,
    dry_run: bool = False,
    rebuild: bool = False,
    keep: bool = False,
    quiet: bool = False,
) -> tuple[str, Path]:
    from kitlib.pipeline import build as run_build
    from kitlib.progress import Follower
    from kitlib.session import Session

    given = _given(overrides)
    with Session.open(
        params, dry_run=dry_run, rebuild=rebuild, keep=keep, overrides=given
    ) as session:
        _unlock(session)
        try:
            with Follower(session.journal.path, out()):
                done = run_build(session)
        except KitError:
            _where(session.journal.path)
            raise
        if not quiet:
            out().print(f"{done.verdict.value}\n{done.report}", soft_wrap=True, highlight=False)
        return done.verdict.value, done.report


def _unlock(session: Any) -> None:
    """Ask for sudo's password where a host wants one and there is a terminal to ask on."""
    if sys.stdin.isatty():
        session.unlock(_ask_password)


def _ask_password() -> str:
    return getpass.getpass("sudo's password on the hosts: ")


def _ask_removal(what: str) -> bool:
    return _ask(what, "Remove?")


def _ask_unplug(what: str) -> bool:
    return _ask(what, "Unplug?")


def _ask(what: str, question: str) -> bool:
    out().print(what, soft_wrap=True)
    try:
        return typer.confirm(question)
    except typer.Abort:  # Ctrl-C, or the end of the input
        return False


def _where(run_dir: Path) -> None:
    out().print(f"record: {run_dir}", soft_wrap=True, highlight=False)


def _given(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if value is not None}


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
    _show(table)


if __name__ == "__main__":
    main()
