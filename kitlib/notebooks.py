"""The notebooks as the kit's programs: which there are, what they take, running one headless.

Each run gets a kernel with a private directory for its sockets: papermill's usual TCP ports race
when several start at a time, and a shared socket directory is worse.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib import errors
from kitlib.errors import Interrupted, KitError, ParamsError, RecordError
from kitlib.params import check_notebook_parameters

__all__ = [
    "BOOTSTRAP",
    "COMPARISONS",
    "DIAGNOSE",
    "DIAGNOSTICS",
    "Notebook",
    "execute",
    "find",
    "notebook_root",
]

BOOTSTRAP = (
    "01_preflight",
    "02_reset",
    "03_packages",
    "04_init",
    "05_network",
    "06_join",
    "07_ready",
    "08_verify",
)
DIAGNOSTICS = ("20_node_readiness", "21_pod_latency")
"""Those that a build ends with."""
DIAGNOSE = (*DIAGNOSTICS, "23_connectivity")
"""Those of a diagnosis, in order: what later ones need of the cluster no earlier one changes."""
COMPARISONS = ("22_plugin_comparison", "24_run_history")
"""Those of several runs."""

INTERRUPT_SECONDS = 30.0
"""How long an interrupted notebook may take to clean up; then its kernel is ended."""


@dataclass(frozen=True, slots=True)
class Notebook:
    """One committed notebook.

    Attributes:
        path: The file.
        declared: Parameter name -> default, from its parameters cell.
    """

    path: Path
    declared: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending: `04_init`."""
        return self.path.stem


def notebook_root() -> Path:
    """Return the directory of the notebooks.

    Raises:
        ParamsError: The kit was installed without its notebooks (it runs from its repository).
    """
    root = Path(__file__).resolve().parent.parent / "notebooks"
    if not root.is_dir():
        raise ParamsError(f"{root}: no notebooks there: run the kit from a clone of its repository")
    return root


def find(name: str) -> Notebook:
    """Return a notebook by name (`04_init` or `init`).

    Raises:
        ParamsError: There is none of that name, or its parameters cell is not literal.
    """
    paths = sorted(notebook_root().glob("*/*.ipynb"))
    for path in paths:
        if name in (path.stem, path.stem.partition("_")[2]):
            return Notebook(path, _declared(path))
    known = ", ".join(path.stem for path in paths)
    raise ParamsError(f"unknown notebook {name!r}: there are {known}")


def execute(
    notebook: Notebook,
    output: Path,
    parameters: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a notebook headless; the executed copy is saved after every cell.

    Args:
        notebook: The notebook.
        output: Where the executed copy goes.
        parameters: Values for declared parameters; checked before anything starts.
        environment: Variables that the kernel alone gets: what must not be in the parameters,
            since those are kept in the executed copy.

    Raises:
        ParamsError: A parameter is unknown or of the wrong type.
        KitError: The notebook failed; the error of the kit that ended it, of its own kind.
        Interrupted: Ctrl-C.
    """
    problems = check_notebook_parameters(notebook.declared, parameters, notebook.path.name)
    if problems:
        raise ParamsError(problems)
    sockets = Path(tempfile.mkdtemp(prefix="kit-"))
    kernels: list[Any] = []
    # papermill's own Ctrl-C ends the kernel at once. In a thread of its own it does not see the
    # signal, and the cell that is under way can end its stage: the record, the token, the pods.
    with ThreadPoolExecutor(1, thread_name_prefix="papermill") as pool:
        future = pool.submit(
            _run, notebook.path, output, parameters, sockets, kernels, environment or {}
        )
        try:
            interrupted = _wait(future, kernels)
            error = future.exception()
        finally:
            shutil.rmtree(sockets, ignore_errors=True)
    if interrupted:
        raise Interrupted.by(_interrupt(error), notebook.name) from error
    if error is not None:
        raise _as_kit_error(notebook, output, error) from error


def _run(
    path: Path,
    output: Path,
    parameters: Mapping[str, Any],
    sockets: Path,
    kernels: list[Any],
    environment: Mapping[str, str],
) -> None:
    """Run a notebook; `kernels` gets its kernel's manager as soon as there is one."""
    # Slow to import (1 to 3 s on a small machine), and most verbs run no notebook.
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import ensure_event_loop
    from traitlets.config import Config

    class Manager(AsyncKernelManager):
        def __init__(self, **traits: Any) -> None:
            super().__init__(**traits)
            kernels.append(self)

        async def start_kernel(  # type: ignore[override]  # as jupyter_client's own is
            self, **options: Any
        ) -> None:
            await super().start_kernel(**{**options, "env": {**os.environ, **environment}})

    try:
        papermill.execute_notebook(
            str(path),
            str(output),
            parameters=dict(parameters),
            progress_bar=False,
            log_output=False,
            config=Config(
                KernelManager={"transport": "ipc", "ip": str(sockets / "k")},
                # Nothing is left to do in the kernel then: what counts is in the run directory.
                NotebookClient={"kernel_manager_class": Manager, "shutdown_kernel": "immediate"},
            ),
        )
    finally:
        ensure_event_loop().close()  # this thread's own, made by nbclient


def _wait(future: Future[None], kernels: Sequence[Any]) -> bool:
    """Wait for a notebook's end; return whether it was interrupted meanwhile.

    The first Ctrl-C (or SIGTERM) interrupts the cell that is under way; a second one, or the end
    of INTERRUPT_SECONDS, ends the kernel.
    """
    deadline: float | None = None
    told = False
    while not future.done():
        try:
            wait([future], timeout=0.2)
            if deadline is not None and time.monotonic() > deadline:
                _signal(kernels, signal.SIGKILL)
            elif deadline is not None and not told:
                told = _signal(kernels, signal.SIGINT)  # the kernel may only be starting
        except KeyboardInterrupt:
            deadline = time.monotonic() + INTERRUPT_SECONDS if deadline is None else 0.0
    return deadline is not None


def _signal(kernels: Sequence[Any], number: int) -> bool:
    """Send a signal to the kernel; return whether there was one to send it to."""
    pids = [pid for kernel in kernels if (pid := getattr(kernel.provisioner, "pid", None))]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(pids)


def _interrupt(error: BaseException | None) -> KeyboardInterrupt:
    """Return the interrupt of a notebook, with what it said of what could not be put right."""
    name, text = getattr(error, "ename", ""), str(getattr(error, "evalue", ""))
    if name == Interrupted.__name__:  # a stage's: `stage: interrupted`, then that, then a remedy
        text = text.partition("\n  remedy: ")[0].partition("\n  ")[2]
    return KeyboardInterrupt(*filter(None, [text]))


def _as_kit_error(notebook: Notebook, output: Path, error: BaseException) -> KitError:
    """Return what ended a notebook, as the class (and so the exit code) that it had there."""
    name, value = getattr(error, "ename", ""), str(getattr(error, "evalue", ""))
    if isinstance(error, OSError):
        return RecordError(f"{output}: cannot be written: {error.strerror or error}")
    if type(error).__name__ == "DeadKernelError":
        return KitError(
            f"{notebook.name}: the kernel died; the executed copy is {output}",
            remedy="run the same command again: it goes on from what is true on the hosts",
        )
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, KitError)):
        return KitError(
            f"{notebook.name}: {name or type(error).__name__}: {value or error}",
            remedy=f"the traceback is in {output}",
        )
    known = kind.__new__(kind)
    message, _, remedy = value.partition("\n  remedy: ")
    KitError.__init__(known, message, remedy=remedy)
    return known


def _declared(path: Path) -> dict[str, Any]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            tree = ast.parse("".join(cell["source"]))
            return {
                target.id: ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
    raise ParamsError(f"{path}: no cell is tagged `parameters`")
