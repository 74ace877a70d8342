"""The documents agree with the code, and say nothing that only means something elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from kitlib.cli import app, lab_app
from kitlib.errors import exit_codes

ROOT = Path(__file__).resolve().parent.parent
CONDA = {"python-kubernetes": "kubernetes", "types-pyyaml": "types-PyYAML"}
"""conda-forge's name -> the name in pyproject.toml, where they differ."""


def document(name: str) -> str:
    file = ROOT / name
    assert file.is_file(), f"{name} is missing"
    return file.read_text(encoding="utf-8")


def flat(name: str) -> str:
    return re.sub(r"\s+", " ", document(name))


def project() -> dict:
    return tomllib.loads(document("pyproject.toml"))["project"]


def wanted() -> dict[str, str]:
    """Return package -> version rule, of the kit and of all its extras."""
    listed = [*project()["dependencies"]]
    for extra in project()["optional-dependencies"].values():
        listed += extra
    return split(listed)


def split(requirements: list[str]) -> dict[str, str]:
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)\s*(.*)", each) for each in requirements]
    return {match[1]: match[2] for match in pairs if match}


def test_both_environments_name_the_same_packages():
    dependencies = yaml.safe_load(document("environment.yml"))["dependencies"]
    named = [each for each in dependencies if isinstance(each, str)]
    (by_pip,) = [each["pip"] for each in dependencies if isinstance(each, dict)]
    assert "-e ." in by_pip
    found = split([*named, *(each for each in by_pip if each != "-e .")])
    assert found.pop("python") == project()["requires-python"]
    found.pop("pip")
    assert {CONDA.get(name, name): rule for name, rule in found.items()} == wanted()


def test_the_lock_pins_every_wanted_package_and_names_no_address():
    pins = {}
    for line in document("requirements.lock").splitlines():
        if line and not line.startswith("#"):
            name, equals, version = line.partition("==")
            assert equals, f"not a pin: {line}"
            assert re.fullmatch(r"[0-9][\w.+!-]*", version), line
            pins[normal(name)] = version
    assert {normal(name) for name in wanted()} <= set(pins)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_readmes_table_of_exit_codes_is_the_codes_own():
    rows = re.findall(r"^\|\s*(\d+)\s*\|\s*(.*?)\s*\|", document("README.md"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == exit_codes()


def verbs() -> list[str]:
    found = [command.name or command.callback.__name__ for command in app.registered_commands]
    return [
        *(f"kit {name}" for name in found),
        *(f"kit lab {command.name}" for command in lab_app.registered_commands),
    ]


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_is_in_the_readme(verb):
    assert re.search(rf"\b{verb}\b", flat("README.md")), f"README.md does not name `{verb}`"


def test_the_readme_names_no_verb_that_is_not_there():
    named = re.findall(r"`kit ((?:lab )?[a-z]+)\b", document("README.md"))
    named += re.findall(r"^\s*(?:\$ )?kit ((?:lab )?[a-z]+)\b", document("README.md"), re.MULTILINE)
    assert {f"kit {name}" for name in named} <= {*verbs(), "kit lab"}


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*/*.ipynb"))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_every_notebook_is_in_the_readme(path):
    assert path.stem in document("README.md"), f"README.md does not name {path.stem}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "notebooks/README.md"])
def test_links_of_the_documents_lead_somewhere(name):
    broken = []
    text = re.sub(r"```.*?```", "", document(name), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not (ROOT / name).parent.joinpath(target).exists():
            broken.append(target)
    assert broken == []


def test_the_changelog_has_this_version_or_what_is_not_released_yet():
    assert re.search(r"^## \[?(Unreleased|\d+\.\d+\.\d+)", document("CHANGELOG.md"), re.MULTILINE)


def tracked() -> list[Path]:
    """Return the project's own files: those that git has or would take."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("not a git clone, or git is not installed")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_registry_or_a_machine():
    # Written in two halves, so that this file does not name them either.
    forbidden = {
        a + b
        for a, b in [
            ("py", "pi.org"),
            ("files.python", "hosted.org"),
            ("deb.deb", "ian.org"),
            ("registry.npm", "js.org"),
            ("conda.ana", "conda.org"),
            ("/wo", "rk/"),
            ("/tmp/", "venv"),
            ("/ro", "ot/.pyenv"),
        ]
    }
    wrong = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [f"{path.relative_to(ROOT)}: {word}" for word in forbidden if word in text]
    assert wrong == []


@pytest.mark.parametrize("writer", ["plugins", "records"])
def test_what_is_written_from_the_code_is_up_to_date(writer):
    done = subprocess.run(
        [sys.executable, ROOT / f"docs/{writer}.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["plugins", "records"])
def test_every_row_of_that_page_has_its_cells(page):
    """A | in a text would make one more."""
    cells = 0
    for line in document(f"docs/{page}.md").splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        assert found == (cells or found), line
        cells = found
