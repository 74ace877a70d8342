"""The notebooks' form, and running one headless: parameters, errors, what is left behind."""

from __future__ import annotations

import ast
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from kitlib import errors, notebooks
from kitlib.errors import KitError, ParamsError
from kitlib.notebooks import Notebook, execute, find
from kitlib.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(ROOT.rglob("*.ipynb"))
COMMON = {"params": "params/lab.yaml", "run_dir": "", "dry_run": False}
FIRST = ["title", "about", "explain", "parameters", "binding", "setup", "preconditions"]
LAST = ["rollback", "verdict", "verdict-run", "related"]
ABOUT = ["Purpose", "Use when", "Side effects", "Needs", "Takes", "Related"]

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "") -> list[dict]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if not kind or cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_the_notebooks_are_those_that_the_library_knows():
    names = [path.stem for path in PATHS]
    known = [*notebooks.BOOTSTRAP, *notebooks.DIAGNOSE, *notebooks.COMPARISONS]
    assert names == sorted(known)
    stages = [name.partition("_")[2] for name in notebooks.BOOTSTRAP]
    assert stages == [stage.name for stage in STAGES]


@every_notebook
def test_it_is_valid_and_committed_without_results(path):
    text = path.read_text(encoding="utf-8")
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert text.endswith("}\n")
    book = json.loads(text)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["kernelspec"] == {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    assert book["metadata"]["language_info"] == {"name": "python"}
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    for cell in book["cells"]:
        assert set(cell["metadata"]) <= {"tags"}, cell["id"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], cell["id"]
            assert cell["execution_count"] is None, cell["id"]


@every_notebook
def test_its_cells_have_names_that_stay(path):
    ids = [cell["id"] for cell in cells(path)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", each) for each in ids), ids


@every_notebook
def test_its_sections_stand_in_order(path):
    ids = [cell["id"] for cell in cells(path)]
    assert ids[: len(FIRST)] == FIRST
    assert ids[-len(LAST) :] == LAST
    between = [each for each in ids[len(FIRST) + 1 : -len(LAST)] if not each.endswith("-run")]
    if path.stem in notebooks.BOOTSTRAP:
        assert between == ["plan", "apply", "validate"]
    else:
        assert between, "a diagnostic notebook has steps"
    for here, after in zip(ids, [*ids[1:], ""], strict=True):
        if after == f"{here}-run" or here in ("binding", "related", "rollback"):
            cell = next(cell for cell in cells(path) if cell["id"] == here)
            assert source(cell).startswith("## "), f"{here} begins with a heading"


@every_notebook
def test_it_begins_with_a_title_and_the_table(path):
    title, about = cells(path)[:2]
    number = path.stem.partition("_")[0]
    assert source(title).startswith(f"# {number} ")
    assert "\n" not in source(title)
    assert re.findall(r"^\| \*\*(.+?)\*\* \| (?=\S)", source(about), re.MULTILINE) == ABOUT


@every_notebook
def test_its_parameters_are_literal_and_come_first(path):
    first = cells(path, "code")[0]
    assert first["metadata"] == {"tags": ["parameters"]}
    tagged = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert tagged == [first]
    for node in ast.parse(source(first)).body:
        assert isinstance(node, ast.Assign), ast.unparse(node)
        ast.literal_eval(node.value)
    declared = find(path.stem).declared
    assert list(declared.items())[:3] == list(COMMON.items())
    assert all("  # " in line for line in source(first).splitlines()), "each one explained"


@every_notebook
def test_its_code_is_thin(path):
    for cell in cells(path, "code"):
        assert len(source(cell).splitlines()) <= 10, cell["id"]
        for node in ast.walk(ast.parse(source(cell))):
            assert not isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            ), cell["id"]
            if isinstance(node, ast.Import):
                pytest.fail(f"{cell['id']}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom):
                assert ast.unparse(node) == "from kitlib import nb", cell["id"]


@every_notebook
def test_its_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)#\s]+)", source(cell)):
            if "://" not in target:
                assert (path.parent / target).is_file(), f"{cell['id']}: {target}"


@every_notebook
def test_it_is_listed_with_its_purpose(path):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    link = f"[`{path.stem}`]({path.relative_to(ROOT)})"
    assert re.search(rf"^\| {re.escape(link)} \| \S", page, re.MULTILINE), link


# --- running one headless -----------------------------------------------------------------------


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may start: the parameters are wrong."""
    import papermill

    def started(*_: object, **__: object) -> None:
        raise AssertionError("papermill was started")

    monkeypatch.setattr(papermill, "execute_notebook", started)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parms": "x"}, ["parms", "unknown parameter", "did you mean 'params'"]),
        ({"params": 1.3}, ["params: 1.3", "a string", "quoted"]),
        ({"dry_run": "yes"}, ["dry_run: 'yes'", "true or false"]),
        ({"run_dir": False}, ["run_dir: False", "a string"]),
        ({"rounds": 1.5, "nonsense": 1}, ["rounds: 1.5", "whole number", "nonsense"]),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(no_kernel, tmp_path, given, words):
    with pytest.raises(ParamsError) as caught:
        execute(find("pod_latency"), tmp_path / "out.ipynb", given)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.count("21_pod_latency.ipynb: ") == len(given), "all problems at once"
    assert not (tmp_path / "out.ipynb").exists()


def test_an_unknown_notebook_is_told_with_those_that_there_are():
    assert find("init").name == find("04_init").name == "04_init"
    with pytest.raises(ParamsError, match="there are 01_preflight, 02_reset"):
        find("nosuch")


def book(path: Path, *sources: str, declared: str = 'word = ""') -> Notebook:
    """Write a small notebook with a parameters cell and these code cells."""
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "p"}
    made.cells = [nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]})]
    made.cells += [nbformat.v4.new_code_cell(text) for text in sources]
    nbformat.write(made, path)
    return Notebook(path, notebooks._declared(path))


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short directory of this test's, in which kernels get their private ones."""
    with tempfile.TemporaryDirectory(prefix="nb-", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)


def texts(path: Path) -> list[str]:
    outputs = [o for cell in cells(path, "code") for o in cell["outputs"]]
    return ["".join(each.get("text", "")) for each in outputs if each["output_type"] == "stream"]


def test_a_notebook_runs_with_its_parameters_on_private_sockets(tmp_path, sockets):
    asked = book(
        tmp_path / "asked.ipynb",
        "print(word)",
        "import json\n"
        "from ipykernel.connect import get_connection_file\n"
        "with open(get_connection_file()) as file:\n"
        "    told = json.load(file)\n"
        "print(told['transport'], told['ip'])",
    )
    execute(asked, tmp_path / "out.ipynb", {"word": "handed over"})
    said = "".join(texts(tmp_path / "out.ipynb"))
    assert said.startswith("handed over\nipc ")
    assert str(sockets) in said
    assert list(sockets.iterdir()) == [], "the private directory is gone"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("GuardError('reset: a living cluster', remedy='name it')", errors.GuardError),
        ("CommandError('worker-1', 'kubeadm join', 1, 'one\\ntwo', remedy='look')",
         errors.CommandError),
        ("HostLoginError('worker-1: the login was refused')", errors.HostLoginError),
        ("ParamsError('x.yaml: plugin: wrong')", errors.ParamsError),
    ],
)  # fmt: skip
def test_a_notebooks_error_keeps_its_kind_and_words(tmp_path, sockets, raised, kind):
    failing = book(tmp_path / "failing.ipynb", f"from kitlib.errors import *\nraise {raised}", "1")
    out = tmp_path / "out.ipynb"
    with pytest.raises(KitError) as caught:
        execute(failing, out, {})
    original = eval(raised, vars(errors))
    assert type(caught.value) is kind
    assert str(caught.value) == str(original)
    assert caught.value.remedy == original.remedy
    assert caught.value.exit_code == kind.exit_code
    (error,) = [
        output
        for cell in cells(out, "code")
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]
    assert error["ename"] == kind.__name__
    shown = "\n".join(error["traceback"])
    assert shown == f"{kind.__name__}: {original}", "the message, and no frames"
    assert "Traceback" not in out.read_text()
    assert list(sockets.iterdir()) == []


def test_a_defect_in_a_notebook_is_a_failure_of_the_kit_with_its_traceback_kept(tmp_path, sockets):
    broken = book(tmp_path / "broken.ipynb", "1 / 0")
    with pytest.raises(KitError, match="broken: ZeroDivisionError") as caught:
        execute(broken, tmp_path / "out.ipynb", {})
    assert type(caught.value) is KitError
    assert str(tmp_path / "out.ipynb") in caught.value.remedy
    assert "ZeroDivisionError" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KeyboardInterrupt", "", ""),
        ("KeyboardInterrupt", "x is still there", "x is still there"),
        ("Interrupted", "verify: interrupted\n  remedy: run it again", ""),
        ("Interrupted", "verify: interrupted\n  x is there\n  remedy: run it again", "x is there"),
        ("ApiError", "no answer", "no answer"),
    ],
)
def test_an_interrupted_notebook_says_what_could_not_be_put_right(name, value, told):
    error = SimpleNamespace(ename=name, evalue=value)
    assert str(notebooks._interrupt(error)) == told
    assert str(notebooks._interrupt(None)) == ""


def test_a_kernel_that_dies_is_told(tmp_path, sockets):
    dying = book(tmp_path / "dying.ipynb", "import os\nos._exit(1)")
    with pytest.raises(KitError, match="the kernel died"):
        execute(dying, tmp_path / "out.ipynb", {})
    assert list(sockets.iterdir()) == []
