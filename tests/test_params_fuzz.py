"""Thousands of parameter files that nobody wrote: each is read, or refused in the kit's own words.

The small profile runs with the tests, the large one by `make bench` (KIT_FUZZ sets the number of
documents of each kind).
"""

from __future__ import annotations

import copy
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kitlib import cli
from kitlib.errors import ParamsError
from kitlib.params import Params, load

ROOT = Path(__file__).parents[1]
DOCUMENTS = int(os.environ.get("KIT_FUZZ", "40"))
COMMON = settings(
    max_examples=DOCUMENTS,
    deadline=None,  # a loaded machine is slow, not wrong
    derandomize=DOCUMENTS <= 1000,
    database=None,
    suppress_health_check=list(HealthCheck),
)
VALID = [yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
         for name in ("lab", "example")]  # fmt: skip

_WORDS = """
name address port role user hosts ssh labels cluster plugin flannel calico control_plane
worker kubernetes_version 1.22.3 1.30 v1.30.4 10.244.0.0/16 10.96.0.0/12 0.0.0.0/0 ::/0 ../x
~nobody-here/x ~ http:// http://[ https://x.example/y.yaml file:///x sha256: no yes on null
.inf -.nan 1e999 0x10 0o17 1_000 12:30:45 2001-12-14 2001-99-99 !!binary !!python/object:x
!!timestamp << & * ? - : | > % @ ` " ' { } [ ] , #
"""
_SIGNS = ("\t", "\0", "\r", "\x1b[2J", "\u00e9", "\u2028", "\U0001f600")
WORDS = st.sampled_from([*_WORDS.split(), *_SIGNS])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.dates()
    | st.binary(max_size=8)
    | st.text(max_size=20)
    | WORDS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(value: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in inner:
        yield (*key, name)
        if isinstance(item, dict | list):
            yield from places(item, (*key, name))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return a valid file with one to four places changed."""
    data = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(data))
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        part = data
        for step in way:
            part = part[step]
        how = draw(st.sampled_from(("replace", "remove", "rename", "twice")))
        if how == "replace":
            part[last] = draw(VALUES)
        elif how == "remove":
            del part[last]
        elif isinstance(part, list):
            part.append(part[last])
        elif how == "rename":
            part[draw(WORDS)] = part.pop(last)
        else:
            part[f"{last}s"] = copy.deepcopy(part[last])
    return str(yaml.dump(data, allow_unicode=True))


@st.composite
def wild(draw: st.DrawFn) -> str:
    """Return lines of something like YAML: indented words, marks, anchors, tags, halves."""
    lines = draw(st.lists(st.tuples(st.integers(0, 6), st.lists(WORDS, max_size=5)), max_size=12))
    return "\n".join(" " * indent + " ".join(words) for indent, words in lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading parameters reaches nobody and starts nothing, right or wrong as they may be."""

    def refuse(*args: object, **_: object) -> NoReturn:
        raise AssertionError(f"reading parameters reached out: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def check(folder: Path, content: bytes) -> Params | None:
    """Return what the file holds, or None where it was refused as it must be."""
    file = folder / "fuzz.yaml"
    file.write_bytes(content)
    try:
        return load(file)
    except ParamsError as error:
        refused = error
    lines = str(refused).split("\n")
    assert refused.exit_code == 2
    assert lines == [str(problem) for problem in refused.problems]
    for line in lines:
        assert line.startswith(f"{file}: "), line
        assert line.isprintable(), f"not one line for a terminal: {line!r}"
        assert len(line) < 600, line
    return None


@COMMON
@given(mutated())
def test_a_valid_file_with_changes(folder: Path, text: str) -> None:
    params = check(folder, text.encode("utf-8", "replace"))
    if params is not None:
        assert params.control_plane in params.hosts
        yaml.safe_dump(params.masked())


@COMMON
@given(wild())
@example("cluster: !!timestamp")
def test_something_like_yaml(folder: Path, text: str) -> None:
    check(folder, text.encode("utf-8", "replace"))


@COMMON
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_anything_at_all(folder: Path, content: bytes) -> None:
    check(folder, content)


@COMMON
@given(st.dictionaries(st.sampled_from(list(VALID[0])) | st.text(max_size=8), VALUES, max_size=8))
@example({"plugin_manifest": "\x1b"})
def test_right_keys_with_wrong_values(folder: Path, data: dict[str, Any]) -> None:
    check(folder, yaml.dump(data, allow_unicode=True).encode("utf-8", "replace"))


@settings(COMMON, max_examples=max(10, DOCUMENTS // 15))
@given(mutated())
def test_the_command_ends_with_exit_code_2(folder: Path, text: str) -> None:
    """Where the parameters are wrong, the command says so, and not even a run begins."""
    if check(folder, text.encode("utf-8", "replace")) is not None:
        return
    file = folder / "fuzz.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kit", "stage", "preflight", str(file)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 2
    assert [path.name for path in folder.iterdir()] == ["fuzz.yaml"]
    assert not (folder.parent / "runs").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "? [1, 2]\n: x",
        "a: !!binary '='",
        "a: !!python/object/apply:os.system ['true']",
        "a: 2001-99-99",
        "[" * 1000,
        "&x a: *x",
        "---\na: 1\n---\nb: 2\n",
        "a: " + "9" * 6000,
    ],
)
def test_traps_of_yaml(folder: Path, text: str) -> None:
    assert check(folder, text.encode()) is None


def test_the_guard_itself_holds() -> None:
    with pytest.raises(AssertionError, match="reached out"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
