"""The verbs that show: the catalogue, a comparison, a report, the notebooks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kitlib.cli.apps import app
from kitlib.cli.terminal import (
    LAB_PARAMS,
    DryRun,
    Format,
    FormatOption,
    out,
    print_json,
)
from kitlib.errors import ChecksFailed, ParamsError


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
        print_json(known.named(name).model_dump(mode="json"))
    elif name:
        shown = pages.page(known.named(name), known, out().width, version)
        out().print(shown, soft_wrap=True)
    elif format is Format.json:
        print_json(pages.as_data(pages.rows(known, version)))
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
    params: Annotated[
        Path,
        typer.Argument(
            help="Checked before JupyterLab starts; a kubeconfig for the diagnostic ones."
        ),
    ] = LAB_PARAMS,
    port: Annotated[int, typer.Option(help="The port of JupyterLab.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open JupyterLab on the notebooks: the same ones, cell by cell, by hand."""
    from kitlib.notebooks import notebook_root
    from kitlib.session import runs_of

    where = runs_of(params)
    root = notebook_root().parent
    out().print(f"Cluster {where.name}; begin with notebooks/bootstrap/01_preflight.ipynb")
    arguments = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    first = "/lab/tree/notebooks/bootstrap/01_preflight.ipynb"
    arguments += [f"--port={port}", f"--LabApp.default_url={first}"]
    # Nothing here needs the internet: no question about news, no looking for newer versions.
    paths = [str(Path(__file__).parents[1] / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    env = {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}
    arguments += ["--LabApp.news_url=None"]
    arguments += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    arguments += [] if browser else ["--no-browser"]
    arguments += ["--allow-root"] if os.geteuid() == 0 else []
    sys.stdout.flush()
    os.execve(sys.executable, arguments, env)  # noqa: S606 - Ctrl-C is JupyterLab's own to answer
