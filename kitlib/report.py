"""One page about one run: verdict, findings, figures, tables, evidence; a single file, no network.

The page is computed from the run directory alone, so that it can be made again at any time and for
a run that failed at any point: a section without data says why it is empty.
"""

from __future__ import annotations

import math
import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from kitlib import __version__, charts, frames
from kitlib.charts import Picture
from kitlib.checks import UNSUPPORTED
from kitlib.diagnosis import readiness, summary
from kitlib.diagnosis.export import export
from kitlib.diagnosis.metrics import openmetrics
from kitlib.model import Check, Status
from kitlib.runs import Run, load_run
from kitlib.samples import write_whole

__all__ = [
    "Drawn",
    "Listed",
    "drawn",
    "table_of",
    "utc",
    "write_exports",
    "write_metrics",
    "write_page",
    "write_report",
]

_CHECKS_FAILED = re.compile(r"\bchecks?(?:\(s\))? failed$")
"""The end of an error that only counts checks: they are findings themselves."""

NOTHING = "-"
"""What stands in a table for a value that there is not."""

MOST_ROWS = 40
"""Up to so many pairs are listed; of more, those that need looking at."""


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A table of a page."""

    columns: Sequence[_Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of a page; it is shown no wider than `rem` of the page's units."""

    svg: Markup
    alt: str
    rem: int


@dataclass(frozen=True, slots=True)
class _Finding:
    status: str
    target: str
    summary: str
    got: str = ""
    expected: str = ""
    remedy: str = ""
    id: str = ""
    stage: str = ""
    output: str = ""


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


def write_page(template: str, target: Path, content: Mapping[str, Any]) -> Path:
    """Return the path of a page, written whole or not at all.

    Args:
        template: The template beside this module.
        target: The file.
        content: What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(content)
    part = target.with_name(f".{target.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(target)
    return target


def _content(run: Run) -> dict[str, Any]:
    findings, passed = _findings(run)
    stages = frames.stages(run)
    return {
        "run": run,
        "started": utc(run.started),
        "verdict_words": _verdict_words(run, stages, findings),
        "facts": _facts(run),
        "findings": findings,
        "passed": passed,
        "notices": _notices(run),
        "stages": _stages(run, stages),
        "readiness": _readiness(run),
        "missing_nodes": _why_missing(run, stages, needs="init"),
        "latency": _latency(run),
        "missing_latency": _why_missing(run, stages, needs="verify"),
        "gaps": _gaps(run),
        "notebooks": _notebooks(run.path),
        "failed_commands": _failed_commands(run),
        "again": _again(run),
        "kit_version": __version__,
        "made": utc(datetime.now(UTC).timestamp()),
    }


def _verdict_words(run: Run, stages: Any, findings: Sequence[_Finding]) -> str:
    combination = str(run.meta.get("unsupported") or "")
    note = f" {UNSUPPORTED.capitalize()}: {combination}." if combination else ""
    return _words_of_end(run, stages, findings) + note


def _words_of_end(run: Run, stages: Any, findings: Sequence[_Finding]) -> str:
    if run.reason:
        return run.reason
    done = f"{len(stages)} stage{'' if len(stages) == 1 else 's'} ended as wanted"
    worse = sum(each.status == Status.FAIL for each in findings)
    words = {
        "PASS": f"{done}; the record holds {worse} failed finding(s), see below."
        if worse
        else f"{done}.",
        "PLANNED": "A dry run: this is what would be done; nothing was changed.",
        "INTERRUPTED": "The run was stopped before its end.",
        "FAIL": "See the findings.",
    }
    return words.get(run.verdict, "The run has no end on record: it goes on still, or was killed.")


def _facts(run: Run) -> list[tuple[str, str]]:
    roles = [host.role for host in run.hosts]
    workers = roles.count("worker")
    hosts = f"{len(roles) - workers} control plane, {workers} worker{'' if workers == 1 else 's'}"
    lasted = (run.ended or 0) - (run.started or 0)
    told = [
        ("Kubernetes", str(run.meta.get("kubernetes_version") or "")),
        ("Network plugin", run.plugin),
        ("Pod CIDR", str(run.meta.get("pod_cidr") or "")),
        ("Hosts", hosts if roles else ""),
        ("Lasted", f"{lasted:.0f} s" if lasted > 0 else ""),
        ("Kit", str(run.meta.get("kit_version") or "")),
    ]
    return [(name, value) for name, value in told if value]


def _notices(run: Run) -> list[str]:
    """Return what was said before changes were made, such as each difference to a manifest."""
    said = (str(entry.data.get("text", "")) for entry in run.entries if entry.kind == "notice")
    return list(dict.fromkeys(filter(None, said)))


def _findings(run: Run) -> tuple[list[_Finding], int]:
    """Return what failed or stands out, worst first, and how many checks passed."""
    listed = frames.checks(run).drop_duplicates(["stage", "target", "id"], keep="last")
    told = [
        _Finding(**{str(key): str(value) for key, value in row.items() if key != "t"})
        for row in listed.to_dict("records")
    ]
    for check in (*summary.readiness_checks(run), *summary.latency_checks(run)):
        told.append(_finding(check))
    passed = sum(each.status == Status.PASS for each in told)
    bad = [each for each in told if each.status in (Status.FAIL, Status.WARN)]
    said = " ".join(each.summary for each in bad)
    for entry in run.entries:
        message = str(entry.data.get("message", "")) if entry.kind == "error" else ""
        first, _, rest = message.partition("\n")
        if first and first not in said and not _CHECKS_FAILED.search(first):
            what, _, remedy = rest.partition("remedy: ")
            host = entry.host or "cluster"
            bad.append(
                _Finding(
                    "FAIL",
                    host,
                    first.removeprefix(f"{host}: "),
                    output=textwrap.dedent(what).strip(),
                    remedy=remedy.strip(),
                    id="error",
                    stage=entry.stage,
                )
            )
    return sorted(dict.fromkeys(bad), key=lambda each: each.status != Status.FAIL), passed


def _finding(check: Check) -> _Finding:
    return _Finding(
        check.status.value, check.target, check.summary,
        check.got, check.expected, check.remedy, check.id,
    )  # fmt: skip


def _stages(run: Run, stages: Any) -> Mapping[str, Any] | None:
    picture = summary.stage_figure(run)
    if picture is None:
        return None
    rows = [
        (
            str(row["stage"]),
            str(row["verdict"]),
            _number(row["seconds"], 1),
            str(row["changes"]),
            str(row["reason"]),
        )
        for row in stages.to_dict("records")
    ]
    titles = ("Stage", "Verdict", "#Seconds", "#Changes", "Reason")
    return {"picture": drawn(picture, "stages"), "table": table_of(titles, rows)}


def _readiness(run: Run) -> Mapping[str, Any] | None:
    picture = summary.readiness_figure(run)
    if picture is None:
        return None
    table = summary.readiness_table(run)
    labels = list(readiness.PHASES.values())
    shown = [label for label in labels if table[label].notna().any()]
    rows = [
        (
            str(row["node"]),
            str(row["role"]).replace("_", " "),
            *(_number(row[label], 1) for label in shown),
            str(row["longest_wait"]),
        )
        for row in table.to_dict("records")
    ]
    titles = ("Node", "Role", *(f"#{label}" for label in shown), "Longest wait for")
    moments = [
        (
            str(row["node"]),
            str(row["label"]),
            row["t"].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
            _number(row["waited_s"], 3),
            f"{row['resolution_s']:g} s",
            str(row["source"]),
        )
        for row in readiness.node_phases(run).dropna(subset=["t"]).to_dict("records")
    ]
    heads = ("Node", "Moment", "Time (UTC)", "#After the one before, s", "#Resolution", "Read from")
    return {
        "picture": drawn(picture, "readiness"),
        "table": table_of(titles, rows),
        "moments": table_of(heads, moments),
        "before": summary.ready_before(run),
    }


def _latency(run: Run) -> Mapping[str, Any] | None:
    heatmap, ecdf = summary.latency_figure(run), summary.latency_distribution(run)
    if heatmap is None or ecdf is None:
        return None
    table = summary.latency_table(run)
    factor, unit = charts.unit_of(table["p50_ms"])
    whole = len(table)
    if whole > MOST_ROWS:
        pods = table[table["path"] == "pod"]
        table = pods.sort_values(["loss_pct", "p50_ms"], ascending=False).head(MOST_ROWS)
    digits = 1 if factor > 1 else 3
    values = ("min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms")
    rows = []
    for row in table.to_dict("records"):
        low, high = (_number(row[f"p50_{end}_ms"], digits, factor) for end in ("low", "high"))
        rows.append(
            (
                str(row["src"]),
                str(row["dst"]),
                str(row["path"]),
                str(row["n"]),
                f"{row['loss_pct']:.1f}",
                *(_number(row[value], digits, factor) for value in values),
                f"{low} to {high}" if low != NOTHING else NOTHING,
                _number(row["difference_ms"], digits, factor),
                _number(row["ratio"], 2),
            )
        )
    titles = (
        "From", "To", "Path", "#n", "#Loss, %", f"#min, {unit}", f"#p50, {unit}",
        f"#p90, {unit}", f"#p99, {unit}", f"#max, {unit}", "#p50 interval",
        f"#Difference, {unit}", "#Ratio",
    )  # fmt: skip
    return {
        "heatmap": drawn(heatmap, "latency"),
        "ecdf": drawn(ecdf, "ecdf"),
        "pooled": _pooled(summary.latency_pooled(run), factor, unit, digits),
        "table": table_of(titles, rows),
        "left_out": whole - len(rows),
    }


def _pooled(table: Any, factor: float, unit: str, digits: int) -> Listed:
    """Return each path's numbers, all pairs together, each with its interval."""

    def bounded(row: Mapping[str, Any], name: str, ending: str, digits: int, by: float) -> str:
        value, low, high = (
            _number(row[f"{name}{part}{ending}"], digits, by) for part in ("", "_low", "_high")
        )
        return value if low == NOTHING else f"{value} ({low} to {high})"

    rows = [
        (
            str(row["path"]),
            str(row["pairs"]),
            f"{row['n']:,}",
            f"{row['loss_pct']:.2f}",
            *(
                bounded(row, name, "_ms", digits, factor)
                for name in ("p50", "p90", "p99", "difference")
            ),
            bounded(row, "ratio", "", 2, 1.0),
        )
        for row in table.to_dict("records")
    ]
    percentiles = (f"#{name}, {unit}" for name in ("p50", "p90", "p99", "Difference"))
    return table_of(("Path", "#Pairs", "#n", "#Loss, %", *percentiles, "#Ratio"), rows)


def _why_missing(run: Run, stages: Any, *, needs: str) -> str:
    """Return why a section is empty, in a sentence."""
    bad = stages[~stages["verdict"].isin(["PASS", "PLANNED"])]
    if run.verdict == "PLANNED":
        return "a dry run changes and measures nothing."
    if len(bad):
        name, verdict = str(bad["stage"].iloc[-1]), str(bad["verdict"].iloc[-1])
        ended = {"FAIL": "failed", "INTERRUPTED": "was interrupted"}.get(verdict, "did not end")
        return f"the run did not come that far; stage {name} {ended}."
    if needs not in set(stages["stage"]):
        return f"stage {needs} was not part of this run."
    return "nothing was recorded."


def _gaps(run: Run) -> list[dict[str, str]]:
    return [
        {
            "what": what,
            "since": utc(gap.get("since")),
            "until": utc(gap.get("t")),
            "why": str(gap.get("why", "")),
        }
        for what in ("nodes", "pods", "events")
        for gap in run.gaps(what)
    ]


def _notebooks(root: Path) -> list[dict[str, str]]:
    found = sorted((root / "notebooks").rglob("*.ipynb")) + sorted(
        (root / "notebooks").rglob("*.html")
    )
    return [
        {"name": path.name, "href": quote(str(path.relative_to(root)))}
        for path in found
        if ".ipynb_checkpoints" not in path.parts
    ]


def _failed_commands(run: Run) -> Listed | None:
    listed = frames.commands(run)
    bad = listed[listed["exit_status"].notna() & (listed["exit_status"] != 0)]
    rows = [
        (
            str(row["stage"]),
            str(row["host"]),
            f"{row['exit_status']:g}",
            str(row["command"]),
            str(row["raw"]),
        )
        for row in bad.tail(MOST_ROWS).to_dict("records")
    ]
    titles = ("Stage", "Host", "#Exit status", "Command", "Output")
    return table_of(titles, rows) if rows else None


def _again(run: Run) -> str:
    params = str(run.meta.get("params_file") or f"params/{run.cluster}.yaml")
    bits = ["kit", "build", params]
    for name, value in (run.meta.get("overrides") or {}).items():
        bits += [f"--{name.replace('_', '-')}", str(value)]
    page = ["kit", "report", f"runs/{run.cluster}/{run.run_id}"]
    return f"{shlex.join(bits)}\n{shlex.join(page)}"


def drawn(picture: Picture, name: str) -> Drawn:
    """Return a figure for a page; its name makes its ids differ from those of others there."""
    drawing = Markup(charts.svg(picture, name))  # noqa: S704 - our own SVG
    return Drawn(drawing, picture.alt, math.ceil(7.5 * picture.get_figwidth()))


def table_of(titles: Iterable[str], rows: Sequence[Sequence[str]]) -> Listed:
    """Return a table; a title that begins with `#` heads a column of numbers."""
    return Listed(
        [_Column(title.removeprefix("#"), title.startswith("#")) for title in titles], rows
    )


def _number(value: Any, digits: int, factor: float = 1.0) -> str:
    return NOTHING if value is None or value != value else f"{value * factor:.{digits}f}"


def utc(t: object) -> str:
    """Return a Unix time as a person reads it; empty for none."""
    if not isinstance(t, int | float):
        return ""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
