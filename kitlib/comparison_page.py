"""The page of a comparison: what its runs say side by side; a single file, no network.

It is computed from run directories alone, so that it can be made of any of them, at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kitlib import __version__
from kitlib.diagnosis.compared import Sight
from kitlib.diagnosis.comparison import gather
from kitlib.errors import ParamsError
from kitlib.model import failed
from kitlib.report import Drawn, Listed, drawn, table_of, utc, write_page
from kitlib.runs import INDEX, load_index, load_run, parse_time, runs_in

__all__ = ["newest_comparison", "see", "write_comparison"]


def see(paths: Sequence[Path]) -> Sight:
    """Return what run directories, or comparisons, hold side by side.

    Raises:
        PreconditionError: One is neither, or runs of a lab and of real hosts are among them.
    """
    return Sight(gather([load_run(path) for path in runs_in(paths)]))


def newest_comparison(runs: Path) -> Path:
    """Return the newest comparison below a directory of runs.

    Raises:
        ParamsError: There is none.
    """
    found = sorted(runs.glob(f"*/comparisons/*/{INDEX}"), key=lambda path: path.parent.name)
    if not found:
        raise ParamsError(
            f"{runs}: no comparison there", remedy="make one with kit compare, or name runs"
        )
    return found[-1].parent


def write_comparison(paths: Sequence[Path], target: Path | None = None) -> Path:
    """Return the path of the page.

    Args:
        paths: Run directories, or comparisons.
        target: The file; None is report.html in the one comparison that is named.

    Raises:
        PreconditionError: There is nothing to compare, or it must not be.
        ParamsError: No file is named, and no comparison alone; or the file cannot be written.
    """
    alone = len(paths) == 1 and (paths[0] / INDEX).is_file()
    if target is None:
        if not alone:
            raise ParamsError("of several runs: name the file that the page is written to")
        target = paths[0] / "report.html"
    index = load_index(paths[0]) if alone else {}
    content = _content(see(paths), index, paths, target)
    try:
        return write_page("comparison.html.j2", target, content)
    except OSError as error:
        raise ParamsError(f"{target}: cannot be written: {error.strerror}") from error


def _content(
    sight: Sight, index: Mapping[str, Any], paths: Sequence[Path], target: Path
) -> dict[str, Any]:
    compared = sight.compared
    bad = failed(sight.checks())
    wanted = sum(map(len, index.get("order", ())))
    missing = wanted - len({(run["round"], run["plugin"]) for run in index.get("runs", ())})
    verdict = str(index.get("verdict") or "") or ("FAIL" if bad else "PASS")
    if index and not index.get("ended"):
        verdict = "UNFINISHED"
    counted = int(compared.runs["counts"].sum())
    said = f"{counted} of {wanted or len(compared.runs)} builds passed and were measured."
    if missing:
        said += f" {missing} were not begun."
    clusters = sorted(set(compared.runs["cluster"]))
    facts = [
        ("Plugins", str(len(compared.subjects))),
        ("Rounds", str(len(index["order"])) if index else ""),
        ("Kubernetes", ", ".join(sorted(set(compared.runs["kubernetes_version"]), key=_version))),
        ("Cluster", ", ".join(clusters)),
        ("Packets", _packets(index)),
        ("Kit", str(index.get("kit_version") or "")),
    ]
    table = sight.table()
    return {
        "title": f"comparison {index['id']}" if index else f"{len(compared.runs)} runs",
        "started": utc(parse_time(index.get("started"))),
        "verdict": verdict,
        "verdict_words": said,
        "facts": [(name, value) for name, value in facts if value],
        "provenance": sight.provenance(),
        "emulated": sight.emulated,
        "words": sight.words(),
        "decision": table_of(list(table.columns), table.to_numpy().tolist()),
        "findings": bad,
        "cost": _picture(sight.cost_figure(), "cost"),
        "distribution": _picture(sight.distribution_figure(), "distribution"),
        "difference": _picture(sight.difference_figure(), "difference"),
        "pairs": _pairs(sight),
        "readiness": _picture(sight.readiness_figure(), "readiness"),
        "order": _order(index),
        "runs": _runs(sight),
        "again": _again(index, paths, target),
        "made": utc(datetime.now(UTC).timestamp()),
        "kit_version": __version__,
    }


def _picture(picture: Any, name: str) -> Drawn | None:
    return None if picture is None else drawn(picture, name)


def _packets(index: Mapping[str, Any]) -> str:
    if not index:
        return ""
    return f"{index['packets']} a pair, path and build, every {index['interval'] * 1000:g} ms"


def _order(index: Mapping[str, Any]) -> str:
    if not index:
        return ""
    rounds = [f"round {n}: {', '.join(each)}" for n, each in enumerate(index["order"], start=1)]
    return f"Drawn with seed {index['seed']}; {'; '.join(rounds)}."


def _runs(sight: Sight) -> Listed:
    titles = ("Plugin", "Kubernetes", "Round", "Verdict", "Counts", "Run", "Reason")
    rows = [
        (
            str(run["plugin"]),
            str(run["kubernetes_version"]),
            str(run["block"]),
            str(run["verdict"]),
            "yes" if run["counts"] else "no",
            str(run["run_id"]),
            str(run["reason"]),
        )
        for run in sight.compared.runs.to_dict("records")
    ]
    return table_of(titles, rows)


def _pairs(sight: Sight) -> Listed:
    titles = ("Plugin", "Against", "#Slower by, %", "#From", "#To", "Which is")
    rows = []
    for each in sight.differences.to_dict("records"):
        said = "a difference" if each["differs"] else "no difference"
        numbers = [f"{each[key]:+.1f}" if each["judged"] else "-" for key in ("low", "high")]
        percent = "-" if each["percent"] != each["percent"] else f"{each['percent']:+.1f}"
        verdict = said if each["judged"] else "not judged"
        rows.append((str(each["first"]), str(each["second"]), percent, *numbers, verdict))
    return table_of(titles, rows)


def _again(index: Mapping[str, Any], paths: Sequence[Path], target: Path) -> str:
    page = ["kit", "compare", "--runs", *map(str, paths)]
    if not index:
        return shlex.join([*page, "--out", str(target)])
    names = [each["plugin"] for each in index["candidates"]]
    bits = ["kit", "compare", index["params_file"], "--plugins", ",".join(names)]
    bits += ["--rounds", str(len(index["order"])), "--seed", str(index["seed"])]
    return f"{shlex.join(bits)}\n{shlex.join(page)}"


def _version(text: str) -> list[int]:
    return [int(part) for part in text.split(".") if part.isdigit()]
