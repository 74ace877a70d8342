"""The workers' way from kubeadm join to Ready, beside that of other plugins or of other runs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kitlib.diagnosis import readiness

__all__ = ["READY_COLUMNS", "TOTAL", "WAY_COLUMNS", "mean_waits", "ways"]

TOTAL = "total"

WAY_COLUMNS = ("subject", "block", "node", TOTAL)
"""`ways`: one row for each worker that came from join to Ready, total in seconds; then a column for
each phase between, with the seconds that this worker waited for it (NaN for one that never came).
"""

READY_COLUMNS = ("subject", "phase", "label", "seconds", "nodes")
"""`mean_waits`: for each subject and phase on a worker's way from kubeadm join to Ready, the mean
wait; the row `total` has the median of the whole way."""


def ways(moments: pd.DataFrame) -> pd.DataFrame:
    """Return every worker's way; columns: WAY_COLUMNS and the phases, in their usual order.

    Args:
        moments: `readiness.node_phases` of several runs, with `subject` (what is compared: a plugin
            or a run) and `block` (which of the subject's builds).
    """
    rows: list[dict[str, Any]] = []
    workers = moments[moments["role"] == "worker"]
    for (subject, block, node), own in workers.groupby(["subject", "block", "node"], sort=False):
        if way := _way(own):
            about = {"subject": str(subject), "block": block, "node": str(node)}
            rows.append({**about, TOTAL: sum(way.values()), **way})
    waited = {phase for row in rows for phase in row}
    phases = [phase for phase in readiness.PHASES if phase in waited]
    return pd.DataFrame(rows, columns=[*WAY_COLUMNS, *phases])


def mean_waits(found: pd.DataFrame) -> pd.DataFrame:
    """Return each subject's mean waits; columns: READY_COLUMNS.

    Args:
        found: `ways`.
    """
    rows: list[tuple[str, str, str, float, int]] = []
    for subject, own in found.groupby("subject", sort=True):
        for phase in found.columns[len(WAY_COLUMNS) :]:
            if own[phase].notna().any():
                mean = float(own[phase].fillna(0).mean())
                rows.append((str(subject), phase, readiness.PHASES[phase], mean, len(own)))
        whole = float(own[TOTAL].median())
        rows.append((str(subject), TOTAL, "join to Ready", whole, len(own)))
    return pd.DataFrame(rows, columns=list(READY_COLUMNS))


def _way(node: pd.DataFrame) -> dict[str, float]:
    """Return phase -> seconds waited for it, between kubeadm's start and Ready; empty without."""
    times = node.set_index("phase")["t"].dropna()
    if "kubeadm_started" not in times or "ready" not in times:
        return {}
    begin, end = times["kubeadm_started"], times["ready"]
    between = times[(times > begin) & (times <= end)].drop("ready", errors="ignore")
    inside = [*between.sort_values(kind="stable").items(), ("ready", end)]
    way: dict[str, float] = {}
    for phase, at in inside:
        way[str(phase)] = (at - begin).total_seconds()
        begin = at
    return way
