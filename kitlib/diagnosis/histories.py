"""What the notebook shows of a cluster's runs over time: two figures a series, and a table."""

from __future__ import annotations

import pandas as pd

from kitlib import charts
from kitlib.charts import Picture
from kitlib.diagnosis.history import HEADLINES, NEEDED, PHASE, History
from kitlib.diagnosis.ways import TOTAL, mean_waits

__all__ = ["figure", "readiness_figure", "table"]

_NEWEST = 12
"""So many runs have a bar each; what was before is in the chart of all runs."""


def figure(history: History, series: str) -> Picture | None:
    """Return a series' headline numbers over its runs; None when it has none.

    The slowest phase of its nodes' way to Ready is a panel too.
    """
    runs = history.runs[history.runs["series"] == series]
    values = history.values[history.values["series"] == series]
    metrics = [metric for metric in HEADLINES if (values["metric"] == metric).any()]
    waits = values[values["metric"].str.startswith(PHASE)].groupby("metric")["value"].median()
    if len(waits.dropna()):
        metrics.insert(1 if "ready" in metrics else 0, str(waits.idxmax()))
    if not metrics:
        return None
    told = [f"{len(runs)} run(s) of {series}."]
    worse = values[values["regressed"]]
    told += [f"{row.label} was worse than usual in {row.run_id}." for row in worse.itertuples()]
    emulated = str(runs["kind"].iloc[0]).startswith("lab")
    where = "Lab: real packets through kernel namespaces; times to Ready are emulated. "
    caption = (where if emulated else "") + (
        f"{series}. Judged with at least {NEEDED} earlier runs; grey: up to where a run is usual."
    )
    for metric in metrics:
        newest = values[values["metric"] == metric].iloc[-1]
        told.append(f"{newest['label']}: {newest['value']:.3g} {newest['unit']} in the newest run.")
    picture = Picture(9.2, 0.9 + 1.75 * len(metrics), caption=caption, alt=" ".join(told))
    panels = picture.subplots(len(metrics), 1, squeeze=False)[:, 0]
    for place, (ax, metric) in enumerate(zip(panels, metrics, strict=True)):
        own = values[values["metric"] == metric]
        charts.over_runs(ax, own, runs, names=place == len(metrics) - 1, notes=place == 0)
        if metric.startswith(PHASE):
            ax.set_title(
                f"Slowest phase, median node: {own['label'].iloc[0]}", loc="left", fontsize=10.5
            )
    charts.over_runs_key(panels[0], values)
    return picture


def readiness_figure(history: History, series: str) -> Picture | None:
    """Return what the workers of a series' newest runs waited for; None when none was joined."""
    runs = history.runs[history.runs["series"] == series]
    found = history.ways[history.ways["subject"].isin(runs["run_id"])]
    runs = runs[runs["run_id"].isin(found["subject"])].tail(_NEWEST)
    if runs.empty:
        return None
    found = found[found["subject"].isin(runs["run_id"])]
    ready = mean_waits(found)
    whole = ready[ready["phase"] == TOTAL].set_index("subject")["seconds"]
    names = {run: f"{t:%m-%d %H:%M}" for run, t in zip(runs["run_id"], runs["t"], strict=True)}
    told = ", ".join(f"{name} {whole[run]:.1f} s" for run, name in names.items())
    emulated = str(runs["kind"].iloc[0]).startswith("lab")
    picture = Picture(
        9.2, 1.7 + 0.36 * len(names),
        caption=f"{'These times are emulated. ' if emulated else ''}{series}; times in UTC.",
        alt=f"What the workers of each run waited for, the newest last; median of the way from "
        f"kubeadm join to Ready: {told}.",
    )  # fmt: skip
    ax = charts.readiness_bars(picture.add_subplot(), ready, found, ordered=names)
    ax.set_title("What the workers of each run waited for", loc="left", fontsize=11)
    return picture


def table(history: History) -> pd.DataFrame:
    """Return one row a run, the newest first.

    Columns: `run`, `series`, each headline's value with its unit, `changed`, `worse`.
    """
    rows = []
    for run in history.runs[::-1].to_dict("records"):
        own = history.values[history.values["run_id"] == run["run_id"]].set_index("metric")
        row = {"run": run["run_id"], "series": run["series"]}
        for metric, headline in HEADLINES.items():
            name = f"{headline.label}, {headline.unit}"
            row[name] = own["value"].get(metric, float("nan"))
        worse = own.loc[own["regressed"].astype(bool), "label"]
        rows.append({**row, "changed": run["changed"], "worse": ", ".join(worse)})
    columns = ["run", "series", *(f"{h.label}, {h.unit}" for h in HEADLINES.values())]
    return pd.DataFrame(rows, columns=[*columns, "changed", "worse"])
