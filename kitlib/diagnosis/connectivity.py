"""What fails between which nodes, and why: from what was probed to a matrix and to findings.

One cause is one finding: rules go from the wire upwards (agent, host, route, tunnel, large packets,
TCP, HTTP, Service, names, policy), what one explains the next ones leave out, and failures are
brought home to a node wherever they fill its row or column.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kitlib.diagnosis.case import Case, Reason
from kitlib.diagnosis.paths import judge_paths
from kitlib.diagnosis.seen import Evidence, Tables, seen
from kitlib.diagnosis.served import judge_served
from kitlib.diagnosis.sizes import judge_sizes
from kitlib.model import Check, Status

__all__ = ["ENDS", "MATRIX_COLUMNS", "Evidence", "Judgement", "Reason", "Tables", "judge"]

MATRIX_COLUMNS = ("src", "dst", "kind", "state", "reason")
"""`Judgement.matrix`: one row for each ordered pair of nodes (kind `pair`) and for each node and
what it asks (kind `end`; dst is one of ENDS). state is `works`, `fails` or `unknown` (not probed);
reason is a `Reason`, empty where it works or is unknown."""

ENDS = ("Service", "DNS")
"""What every node asks besides the others."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong, and where.

    Attributes:
        matrix: Every pair; columns: MATRIX_COLUMNS.
        checks: At least one for each kind of thing that is judged: PASS, or SKIP with why not.
    """

    matrix: pd.DataFrame
    checks: list[Check]

    @property
    def findings(self) -> list[Check]:
        """What needs looking at, the worst first."""
        bad = [check for check in self.checks if check.status in (Status.FAIL, Status.WARN)]
        return sorted(bad, key=lambda check: check.status is not Status.FAIL)


def judge(tables: Tables, evidence: Evidence) -> Judgement:
    """Return what the tables say.

    Args:
        tables: Probe -> its rows, with the columns of `samples.PROBES`; any may be missing.
        evidence: What else is known.
    """
    case = Case(tables, evidence)
    judge_paths(case)
    judge_sizes(case)
    judge_served(case)
    return Judgement(_matrix(case), case.checks)


def _matrix(case: Case) -> pd.DataFrame:
    nodes = case.evidence.nodes
    works = set().union(
        *(seen(case.tables, each).works for each in ("reach", "ping", "tcp_connect", "http"))
    )
    rows = []
    for src in nodes:
        for dst in nodes:
            if src == dst:
                continue
            why = case.reasons.get((src, dst))
            state = "fails" if why else "works" if (src, dst) in works else "unknown"
            rows.append((src, dst, "pair", state, str(why or "")))
        for end in ENDS:
            why = case.ends.get((src, end))
            unasked = src in case.evidence.mute and (src, end) not in case.tried and not why
            if src in case.evidence.missing or unasked:
                why = Reason.AGENT
            state = "fails" if why else "works" if (src, end) in case.tried else "unknown"
            rows.append((src, end, "end", state, str(why or "")))
    return pd.DataFrame(rows, columns=list(MATRIX_COLUMNS))
