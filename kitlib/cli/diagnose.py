"""`kit diagnose`: a living cluster, measured and judged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from kitlib.cli.apps import app
from kitlib.cli.terminal import Plugin, followed, opened, out, say_where
from kitlib.errors import ParamsError

_SECTIONS = ("probe", "diagnose", "timeouts")


@app.command()
def diagnose(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="The parameter file, or a kubeconfig.", show_default=False, metavar="PATH"
        ),
    ] = None,
    context: Annotated[
        str, typer.Option(help="The kubeconfig's context; its current one.", metavar="NAME")
    ] = "",
    plugin: Plugin = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="How often every pair is measured.", show_default=False),
    ] = None,
    throughput: Annotated[
        bool | None,
        typer.Option("--throughput", help="Measure it too: it loads the network."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any key of probe, diagnose or timeouts: diagnose.image=..., probe.samples=100.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Write the headline figures there, as OpenMetrics.", show_default=False),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Where the record goes; with a kubeconfig ./runs.",
            metavar="DIRECTORY",
            show_default=False,
        ),
    ] = None,
    rights: Annotated[
        bool,
        typer.Option("--rights", help="Print the ClusterRole that it takes, and do nothing."),
    ] = False,
) -> None:
    """Measure a living cluster's network and judge it; leave one report, and change nothing else.

    A kubeconfig is enough, also for a cluster that the kit did not build. Agents run in a namespace
    of their own meanwhile, which is removed whatever happens.
    """
    from kitlib.diagnosing import diagnose as measure
    from kitlib.findings import show
    from kitlib.model import Status
    from kitlib.rights import cluster_role
    from kitlib.runs import DIAGNOSIS

    if rights:
        sys.stdout.write(cluster_role())
        return
    if path is None:
        raise ParamsError(
            "diagnose: a parameter file or a kubeconfig is wanted",
            remedy="kit diagnose ~/.kube/config",
        )
    overrides: dict[str, Any] = {
        "plugin": plugin,
        "diagnose.rounds": rounds,
        "diagnose.throughput": throughput,
        "runs": None if runs is None else str(runs),
        **_settings(settings or []),
    }
    with opened(path, overrides, context=context, kind=DIAGNOSIS) as session:
        with followed(session):
            done = measure(session, metrics=metrics)
        out().print()
        show(done.checks, out())
        say_where(done.run_dir)
        if done.metrics is not None:
            out().print(f"metrics: {done.metrics}", soft_wrap=True)
        out().print(f"charts: {done.run_dir / 'charts'} ({len(done.charts)} files)", soft_wrap=True)
        out().print(f"report: {done.report}", soft_wrap=True)
        bad = sum(check.status is Status.FAIL for check in done.checks)
        count = f"{bad} finding{'' if bad == 1 else 's'}"
        out().print(f"diagnose: {done.verdict.value} ({count})")
    failure = done.failure()
    if failure is not None:
        raise failure


def _settings(given: list[str]) -> dict[str, Any]:
    """Return what --set states, by key.

    Raises:
        ParamsError: It is not KEY=VALUE with a key of one of the sections.
    """
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        section, dot, name = key.partition(".")
        if not (equals and dot and name) or section not in _SECTIONS:
            raise ParamsError(
                f"option --set: {text!r}: KEY=VALUE, with a key of {', '.join(_SECTIONS)}",
                remedy="--set diagnose.image=registry.example.net/netshoot:v0.13",
            )
        try:
            found[key] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError as error:
            raise ParamsError(f"option --set: {text!r}: the value is not YAML") from error
    return found
