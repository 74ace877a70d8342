"""One page about one run: verdict, findings, figures, tables, evidence; a single file, no network.

The page is computed from the run directory alone, so that it can be made again at any time and for
a run that failed at any point: a section without data says why it is empty.
"""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kitlib import __version__, frames
from kitlib.checks import UNSUPPORTED
from kitlib.diagnosis.export import export
from kitlib.diagnosis.metrics import openmetrics
from kitlib.report import sections
from kitlib.report.connected import connectivity
from kitlib.report.findings import Found, Judged, findings
from kitlib.report.page import Drawn, Listed, drawn, table_of, utc, write_page
from kitlib.runs import DIAGNOSIS, Run, load_run
from kitlib.samples import write_whole

__all__ = [
    "Drawn",
    "Found",
    "Judged",
    "Listed",
    "drawn",
    "findings",
    "table_of",
    "utc",
    "write_exports",
    "write_metrics",
    "write_page",
    "write_report",
]


BUILT = ("stages", "readiness", "latency", "connectivity")
DIAGNOSED = ("connectivity", "latency", "readiness")
"""The sections of a build's page and of a diagnosis', in order: the network itself first."""


def write_report(run_dir: Path | str) -> Path:
    """Return the path of report.html, written into the run directory from what is recorded there.

    Raises:
        PreconditionError: The directory is not a run's.
    """
    run = load_run(run_dir)
    return write_page("report.html.j2", run.path / "report.html", _content(run))


def write_exports(run_dir: Path | str) -> list[Path]:
    """Return the files of every chart and its table, written to the run's `charts/`.

    Raises:
        PreconditionError: The directory is not a run's.
        RecordError: They cannot be written.
    """
    return export(load_run(run_dir))


def write_metrics(run_dir: Path | str, target: Path) -> Path:
    """Return the path of the run's headline figures, written whole or not at all.

    Raises:
        PreconditionError: The directory is not a run's.
        RecordError: The file cannot be written.
    """
    return write_whole(target, openmetrics(load_run(run_dir)).encode())


def _content(run: Run) -> dict[str, Any]:
    judged = findings(run)
    stages = frames.stages(run)
    diagnosed = run.kind == DIAGNOSIS
    reached = connectivity(run)
    order = DIAGNOSED if diagnosed else BUILT
    return {
        "run": run,
        "title": "Diagnosis of cluster" if diagnosed else "Cluster",
        "started": utc(run.started),
        "verdict_words": _verdict_words(run, stages, judged),
        "limits": _limits(run),
        "facts": _facts(run),
        "judged": judged,
        "order": [name for name in order if name != "connectivity" or reached or diagnosed],
        "notices": _notices(run),
        "stages": sections.stages_of(run, stages),
        "readiness": sections.readiness_of(run),
        "missing_nodes": sections.why_missing(run, stages, needs="init"),
        "latency": sections.latency(run),
        "missing_latency": sections.why_missing(run, stages, needs="verify"),
        "connectivity": reached,
        "gaps": sections.gaps(run),
        "notebooks": sections.notebooks(run.path),
        "failed_commands": sections.failed_commands(run),
        "again": _again(run),
        "kit_version": __version__,
        "made": utc(datetime.now(UTC).timestamp()),
    }


def _verdict_words(run: Run, stages: Any, judged: Judged) -> str:
    combination = str(run.meta.get("unsupported") or "")
    note = f" {UNSUPPORTED.capitalize()}: {combination}." if combination else ""
    return _words_of_end(run, stages, judged) + note


def _words_of_end(run: Run, stages: Any, judged: Judged) -> str:
    if run.reason:
        return run.reason
    done = f"{len(stages)} stage{'' if len(stages) == 1 else 's'} ended as wanted"
    if run.kind == DIAGNOSIS:
        done = f"What was measured is as it should be: {judged.checks} checks passed"
        warned = len(judged.bad) - judged.failed
        done += f", {warned} thing{'' if warned == 1 else 's'} to know about" if warned else ""
    words = {
        "PASS": f"{done}; the record holds {judged.failed} failed finding(s), see below."
        if judged.failed
        else f"{done}.",
        "PLANNED": "A dry run: this is what would be done; nothing was changed.",
        "INTERRUPTED": "The run was stopped before its end.",
        "FAIL": "See the findings.",
    }
    return words.get(run.verdict, "The run has no end on record: it goes on still, or was killed.")


def _limits(run: Run) -> list[str]:
    """Return what the verdict does not speak of: what was not measured, or not all of it."""
    left = [f"{what}: {text}" for what, text in run.missing.items()]
    told = [f"Partial. {'; '.join(left)}."] if left else []
    if run.drawn:
        told.append(f"Sampled. Measured was {run.drawn}.")
    living = run.meta.get("living") or {}
    if living and not run.plugin:
        told.append(
            "The network plugin is none that the kit knows; what depends on it was not judged."
        )
    out = [f"{node} ({why})" for node, why in (living.get("left_out") or {}).items()]
    return [*told, f"Nodes without an agent: {', '.join(out)}."] if out else told


def _facts(run: Run) -> list[tuple[str, str]]:
    roles = [host.role for host in run.hosts]
    workers = roles.count("worker")
    hosts = f"{len(roles) - workers} control plane, {workers} worker{'' if workers == 1 else 's'}"
    lasted = (run.ended or 0) - (run.started or 0)
    context = str(run.meta.get("context") or "")
    told = [
        ("Kubernetes", str(run.meta.get("kubernetes_version") or "")),
        ("Network plugin", run.plugin),
        ("Pod CIDR", str(run.meta.get("pod_cidr") or "")),
        ("Hosts", hosts if roles else ""),
        ("Known by", f"a kubeconfig alone, context {context}" if context else ""),
        ("Lasted", f"{lasted:.0f} s" if lasted > 0 else ""),
        ("Kit", str(run.meta.get("kit_version") or "")),
    ]
    return [(name, value) for name, value in told if value]


def _notices(run: Run) -> list[str]:
    """Return what was said before changes were made, such as each difference to a manifest."""
    said = (str(entry.data.get("text", "")) for entry in run.entries if entry.kind == "notice")
    return list(dict.fromkeys(filter(None, said)))


def _again(run: Run) -> str:
    params = str(run.meta.get("params_file") or f"params/{run.cluster}.yaml")
    bits = ["kit", run.kind or "build", params]
    bits += ["--context", str(run.meta["context"])] if run.meta.get("context") else []
    for name, value in (run.meta.get("overrides") or {}).items():
        if "." in name:
            bits += ["--set", f"{name}={json.dumps(value)}"]
        else:
            bits += [f"--{name.replace('_', '-')}", str(value)]
    page = ["kit", "report", f"runs/{run.cluster}/{run.run_id}"]
    return f"{shlex.join(bits)}\n{shlex.join(page)}"
