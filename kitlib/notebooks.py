"""The notebooks as the kit's programs: which there are, what they take, running one headless.

Each run gets a kernel with a private directory for its sockets: papermill's usual TCP ports race
when several start at a time, and a shared socket directory is worse.
"""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib import errors
from kitlib.errors import Interrupted, KitError, ParamsError
from kitlib.params import check_notebook_parameters

__all__ = ["BOOTSTRAP", "DIAGNOSTICS", "Notebook", "execute", "find", "notebook_root"]

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

INTERRUPT_SECONDS = 10.0
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


def execute(notebook: Notebook, output: Path, parameters: Mapping[str, Any]) -> None:
    """Run a notebook headless; the executed copy is saved after every cell.

    Args:
        notebook: The notebook.
        output: Where the executed copy goes.
        parameters: Values for declared parameters; checked before anything starts.

    Raises:
        ParamsError: A parameter is unknown or of the wrong type.
        KitError: The notebook failed; the error of the kit that ended it, of its own kind.
        Interrupted: Ctrl-C.
    """
    problems = check_notebook_parameters(notebook.declared, parameters, notebook.path.name)
    if problems:
        raise ParamsError(problems)
    # Slow to import (1 to 3 s on a small machine), and most verbs run no notebook.
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    sockets = Path(tempfile.mkdtemp(prefix="kit-"))
    try:
        papermill.execute_notebook(
            str(notebook.path),
            str(output),
            parameters=dict(parameters),
            progress_bar=False,
            log_output=False,
            config=Config(
                KernelManager={
                    "transport": "ipc",
                    "ip": str(sockets / "k"),
                    # At Ctrl-C the cell ends its stage: the record, the token, the probe pods.
                    "shutdown_wait_time": 2 * INTERRUPT_SECONDS,  # a SIGTERM comes at half of it
                },
                # A kernel that is shut down while idle says so as an error on the terminal.
                NotebookClient={"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]},
            ),
        )
    except papermill.PapermillExecutionError as error:
        raise _as_kit_error(notebook, output, error.ename, error.evalue) from error
    except DeadKernelError as error:
        raise KitError(
            f"{notebook.name}: the kernel died; the executed copy is {output}",
            remedy="run the same command again: it goes on from what is true on the hosts",
        ) from error
    except KeyboardInterrupt:
        raise Interrupted(f"{notebook.name}: interrupted") from None
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _as_kit_error(notebook: Notebook, output: Path, name: str, value: str) -> KitError:
    """Return the error that ended a notebook, as the class (and so the exit code) it had there."""
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, KitError)):
        return KitError(
            f"{notebook.name}: {name}: {value}",
            remedy=f"the traceback is in {output}",
        )
    error = kind.__new__(kind)
    message, _, remedy = value.partition("\n  remedy: ")
    KitError.__init__(error, message, remedy=remedy)
    return error


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
