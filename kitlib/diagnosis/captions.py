"""What stands below every figure: where its numbers come from."""

from __future__ import annotations

from kitlib.runs import Run

__all__ = ["caption"]


def caption(run: Run, *, timing: bool) -> str:
    """Return where a figure's numbers come from; with `timing`, that a lab's times are emulated."""
    where = f"{run.provenance}. {run.cluster} {run.run_id}"
    if run.plugin:
        where += f", {run.plugin}"
    if timing and run.provenance.is_lab:
        where = f"These times are emulated. {where}"
    return where
