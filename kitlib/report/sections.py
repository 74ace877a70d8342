"""The sections of a run's report: what each shows, or why it is empty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kitlib import charts, frames
from kitlib.diagnosis import readiness, summary
from kitlib.report.page import NOTHING, Listed, drawn, number, table_of, utc
from kitlib.runs import DIAGNOSIS, Run

__all__ = [
    "failed_commands",
    "gaps",
    "latency",
    "notebooks",
    "readiness_of",
    "stages_of",
    "why_missing",
]

MOST_ROWS = 40
"""Up to so many pairs are listed; of more, those that need looking at."""


def stages_of(run: Run, stages: Any) -> Mapping[str, Any] | None:
    """Return the stages along the run's time; None where none was started."""
    picture = summary.stage_figure(run)
    if picture is None:
        return None
    rows = [
        (
            str(row["stage"]),
            str(row["verdict"]),
            number(row["seconds"], 1),
            str(row["changes"]),
            str(row["reason"]),
        )
        for row in stages.to_dict("records")
    ]
    titles = ("Stage", "Verdict", "#Seconds", "#Changes", "Reason")
    return {"picture": drawn(picture, "stages"), "table": table_of(titles, rows)}


def readiness_of(run: Run) -> Mapping[str, Any] | None:
    """Return what the nodes waited for; None where no node ever registered."""
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
            *(number(row[label], 1) for label in shown),
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
            number(row["waited_s"], 3),
            f"{row['resolution_s']:g} s",
            str(row["source"]),
        )
        for row in summary.node_phases(run).dropna(subset=["t"]).to_dict("records")
    ]
    heads = ("Node", "Moment", "Time (UTC)", "#After the one before, s", "#Resolution", "Read from")
    return {
        "picture": drawn(picture, "readiness"),
        "table": table_of(titles, rows),
        "moments": table_of(heads, moments),
        "before": summary.ready_before(run),
    }


def latency(run: Run) -> Mapping[str, Any] | None:
    """Return the latencies: figures, all pairs together, pair by pair; None without samples."""
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
        low, high = (number(row[f"p50_{end}_ms"], digits, factor) for end in ("low", "high"))
        rows.append(
            (
                str(row["src"]),
                str(row["dst"]),
                str(row["path"]),
                str(row["n"]),
                f"{row['loss_pct']:.1f}",
                *(number(row[value], digits, factor) for value in values),
                f"{low} to {high}" if low != NOTHING else NOTHING,
                number(row["difference_ms"], digits, factor),
                number(row["ratio"], 2),
            )
        )
    titles = (
        "From", "To", "Path", "#n", "#Loss, %", f"#min, {unit}", f"#p50, {unit}",
        f"#p90, {unit}", f"#p99, {unit}", f"#max, {unit}", "#p50 interval",
        f"#Difference, {unit}", "#Ratio",
    )  # fmt: skip
    return {
        "extent": summary.latency_extent(run),
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
            number(row[f"{name}{part}{ending}"], digits, by) for part in ("", "_low", "_high")
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


def why_missing(run: Run, stages: Any, *, needs: str) -> str:
    """Return why a section is empty, in a sentence."""
    bad = stages[~stages["verdict"].isin(["PASS", "PLANNED"])]
    if run.verdict == "PLANNED":
        return "a dry run changes and measures nothing."
    if len(bad):
        name, verdict = str(bad["stage"].iloc[-1]), str(bad["verdict"].iloc[-1])
        ended = {"FAIL": "failed", "INTERRUPTED": "was interrupted"}.get(verdict, "did not end")
        return f"the run did not come that far; stage {name} {ended}."
    if run.kind == DIAGNOSIS:
        return run.missing.get("latency") or "the measurement did not come that far."
    if needs not in set(stages["stage"]):
        return f"stage {needs} was not part of this run."
    return "nothing was recorded."


def gaps(run: Run) -> list[dict[str, str]]:
    """Return when the watch of the cluster was broken off."""
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


def notebooks(root: Path) -> list[dict[str, str]]:
    """Return the executed notebooks, each with the way to it from the page."""
    found = sorted((root / "notebooks").rglob("*.ipynb")) + sorted(
        (root / "notebooks").rglob("*.html")
    )
    return [
        {"name": path.name, "href": quote(str(path.relative_to(root)))}
        for path in found
        if ".ipynb_checkpoints" not in path.parts
    ]


def failed_commands(run: Run) -> Listed | None:
    """Return the last commands that ended with an error; None where there are none."""
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
