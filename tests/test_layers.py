"""The map holds: a module imports from its own layer or a lower one; each door has one importer."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KITLIB = ROOT / "kitlib"

LAYERS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (name, frozenset(modules.split()))
    for name, modules in (
        ("words", "__init__ command errors masking model"),
        (
            "knowledge",
            "detached facts inventory kubeconfig manifests params plugins probes software",
        ),
        (
            "doors",
            "access become dial durable fanout hostkeys journal kube podshell recorder retry "
            "runlock ssh",
        ),
        ("judgement", "checks hints"),
        ("action", "stages"),
        ("seeing", "cells charts diagnosis frames runs samples"),
        (
            "people",
            "alone bundling cli comparison comparison_page comparison_plan confirming connectivity "
            "diagnosing doors findings in_a_row link living looking measure membership nb "
            "notebooks past pipeline plugin_pages policies probing progress provenance reach "
            "removal report rights roster rows session throughput trust turns unplug",
        ),
    )
)
"""The table of CONTRIBUTING.md, section "The map", from the lowest layer to the highest."""

RANK = {module: rank for rank, (_, modules) in enumerate(LAYERS) for module in modules}

SOLE_IMPORTERS = {
    "fabric": {"dial", "ssh", "hostkeys"},
    "paramiko": {"dial", "ssh", "hostkeys"},
    "invoke": {"ssh"},
    "kubernetes": {"kube"},
    "websocket": {"kube", "podshell"},
    "urllib3": {"kube"},
    "pandas": {"cells", "frames", "charts", "diagnosis"},
    "pyarrow": {"frames", "samples"},
    "matplotlib": {"charts"},
    "papermill": {"notebooks"},
    "jupyter_client": {"notebooks"},
    "nbformat": set(),
    "IPython": {"nb"},
    "typer": {"cli"},
    "jinja2": {"report"},
}
LAB_ONLY = {"aiohttp", "asyncssh", "cryptography"}


@dataclass(frozen=True)
class Import:
    """One import: who, what, and whether it is for the type checker alone."""

    file: str
    line: int
    module: str
    of: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.module} imports {self.of}"


def imports() -> list[Import]:
    """Return every import in kitlib, also those inside functions."""
    found = []
    for path in sorted(KITLIB.rglob("*.py")):
        inside = path.relative_to(KITLIB)
        module = inside.parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            id(child)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for child in ast.walk(node)
        }
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{inside}:{node.lineno}: imports are absolute here"
                # `from kitlib import x` is of the module x.
                names = [
                    f"kitlib.{alias.name}" if node.module == "kitlib" else str(node.module)
                    for alias in node.names
                ]
            found += [
                Import(str(inside), node.lineno, module, name, id(node) in guarded)
                for name in names
            ]
    return found


IMPORTS = imports()


def own(name: str) -> str | None:
    """Return the kitlib module that a dotted name is of; None for others' packages."""
    parts = name.split(".")
    if parts[0] != "kitlib":
        return None
    if len(parts) == 1 or parts[1] == "__version__":
        return "__init__"
    return parts[1]


def test_every_module_stands_in_the_table_and_every_name_of_it_exists():
    there = {
        path.name.removesuffix(".py")
        for path in KITLIB.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"lab"} == set(RANK)


def test_a_module_imports_from_its_own_layer_or_a_lower_one():
    wrong = [
        str(each)
        for each in IMPORTS
        if each.module != "lab"
        and (target := own(each.of)) not in (None, "lab")
        and RANK[str(target)] > RANK[each.module]
    ]
    assert wrong == []


def test_only_the_command_knows_the_lab():
    knowing = {each.module for each in IMPORTS if own(each.of) == "lab"}
    assert knowing == {"lab", "cli"}


def test_the_lab_knows_only_words_and_knowledge():
    allowed = {"lab", *LAYERS[0][1], *LAYERS[1][1]}
    wrong = [
        str(each)
        for each in IMPORTS
        if each.module == "lab" and own(each.of) is not None and own(each.of) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(SOLE_IMPORTERS))
def test_each_package_has_its_sole_importers(package):
    importers = {
        each.module
        for each in IMPORTS
        if each.of.split(".")[0] == package and not each.typing_only and each.module != "lab"
    }
    assert importers == SOLE_IMPORTERS[package]


@pytest.mark.parametrize("package", sorted(LAB_ONLY))
def test_what_serves_the_lab_is_imported_by_nobody_else(package):
    assert {each.module for each in IMPORTS if each.of.split(".")[0] == package} <= {"lab"}


def test_the_pure_layers_do_no_input_or_output():
    """Knowledge and judgement get text and give data; only their own YAML files are read."""
    outside = {"socket", "subprocess", "requests", "urllib.request", "http.client", "threading"}
    wrong = [
        str(each)
        for each in IMPORTS
        if each.module in LAYERS[0][1] | LAYERS[1][1] | LAYERS[3][1] and each.of in outside
    ]
    assert wrong == []


def test_the_table_is_the_documented_one():
    """CONTRIBUTING.md, "The map": a table whose rows are `| layer | modules | ... |`."""
    file = ROOT / "CONTRIBUTING.md"
    assert file.is_file(), "CONTRIBUTING.md is missing; it has the map"
    _, heading, rest = file.read_text(encoding="utf-8").partition("## The map")
    assert heading, 'CONTRIBUTING.md has no section "## The map"'
    section = rest.partition("\n## ")[0]
    for name, modules in LAYERS:
        row = next(
            (
                line
                for line in section.splitlines()
                if line.startswith("|") and re.search(rf"\b{name}\b", line.split("|")[1])
            ),
            "",
        )
        assert row, f"the map has no row for the layer {name!r}"
        written = {word.rstrip("/") for word in re.findall(r"`([a-z_]+/?)`", row.split("|")[2])}
        assert written == modules - {"__init__"}, f"the map's row for {name!r}"
