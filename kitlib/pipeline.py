"""A whole build, headless: every notebook in order under papermill, one run directory, one verdict.

The build itself holds no logic of the stages: it hands each notebook the run directory, records
what the API streams meanwhile, and ends the run with a verdict and a report whatever happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kitlib import notebooks
from kitlib.errors import Interrupted, KitError, RecordError
from kitlib.in_a_row import in_a_row
from kitlib.model import Verdict
from kitlib.notebooks import Notebook
from kitlib.report import write_report
from kitlib.session import Session, fail
from kitlib.stages import FIRST_RECORDED, STAGE_NAMES, get_stage
from kitlib.stages.agent_space import sweep

__all__ = ["Build", "build", "run_notebook", "run_notebooks"]


@dataclass(frozen=True, slots=True)
class Build:
    """How a build ended.

    Attributes:
        run_dir: Its record.
        verdict: PASS or PLANNED; anything else is raised as an error.
        report: The HTML report.
    """

    run_dir: Path
    verdict: Verdict
    report: Path


def build(session: Session, *, diagnostics: Sequence[str] = notebooks.DIAGNOSTICS) -> Build:
    """Build the session's cluster with the bootstrap notebooks, then measure it.

    Args:
        session: An open session on a new run.
        diagnostics: The diagnostic notebooks to run when the cluster stands.

    Raises:
        KitError: A notebook failed; the run has its verdict and its report all the same.
    """
    names = [*notebooks.BOOTSTRAP, *(() if session.dry_run else diagnostics)]
    verdict = Verdict.PLANNED if session.dry_run else Verdict.PASS
    try:
        run_notebooks(session, names)
    except KitError as error:
        if isinstance(error, Interrupted):
            with contextlib.suppress(KitError):
                sweep(session.context)
        # Where the record cannot be written, that is what is said already.
        with contextlib.suppress(RecordError, OSError):
            fail(session, error)
            write_report(session.journal.path)
        raise
    session.finish(verdict)
    return Build(session.journal.path, verdict, write_report(session.journal.path))


def run_notebooks(
    session: Session, names: Sequence[str], parameters: Mapping[str, object] | None = None
) -> None:
    """Run notebooks one after another in the session's run; stop at the first that fails.

    Where workers alone failed to join, ready and verify judge the others before that.

    Raises:
        KitError: What ended the notebook, as the kind of error it was there.
    """
    session.what = "kit build"  # so that the notebooks work under this session's lock
    with ExitStack() as until_the_end:
        alone = False

        def work(name: str) -> None:
            nonlocal alone
            notebook = notebooks.find(name)
            if not (alone or session.dry_run or _only_looks(session, notebook)):
                until_the_end.enter_context(session.exclusive())
                alone = True
            if not session.dry_run and notebook.name.endswith(f"_{FIRST_RECORDED}"):
                session.recorder.start()
            run_notebook(session, notebook.name, parameters)

        in_a_row(session.journal, names, work)


def run_notebook(
    session: Session, name: str, parameters: Mapping[str, object] | None = None
) -> None:
    """Run one notebook in the session's run; the executed copy is kept there.

    Args:
        session: An open session.
        name: The notebook.
        parameters: Values beyond the usual three, for those that the notebook declares.

    Raises:
        KitError: What ended the notebook, as the kind of error it was there.
    """
    notebook = notebooks.find(name)
    given = {
        "params": str(session.params.source),
        "run_dir": str(session.journal.path),
        "dry_run": session.dry_run,
        **{key: it for key, it in (parameters or {}).items() if key in notebook.declared},
    }
    session.journal.event("progress", host="notebook", text=f"running {notebook.name}")
    output = session.journal.path / "notebooks" / f"{notebook.name}.ipynb"
    notebooks.execute(notebook, output, given, environment=session.kernel_environment)


def _only_looks(session: Session, notebook: Notebook) -> bool:
    """Return whether a notebook is that of a stage which only looks."""
    stage = notebook.name.partition("_")[2]
    return stage in STAGE_NAMES and get_stage(stage).only_looks(session.context)
