"""Notebook parameters are checked before launch."""

from __future__ import annotations

import pytest

from kitlib.params import check_notebook_parameters

DECLARED = {
    "params": "params/lab.yaml",
    "dry_run": False,
    "samples": 20,
    "interval": 0.2,
    "x": None,
}


def test_good_values() -> None:
    given = {"params": "p.yaml", "dry_run": True, "samples": 5, "interval": 1, "x": [1]}
    assert check_notebook_parameters(DECLARED, given, "nb") == []


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("parms", "x", "unknown parameter, known are params, dry_run, samples, interval, x; did"),
        ("params", 1.3, "1.30 as the number 1.3: write it quoted"),
        ("params", False, "reads yes, no"),
        ("params", None, "a string"),
        ("dry_run", "no", "true or false"),
        ("dry_run", 0, "true or false"),
        ("samples", "20", "a number, not quoted"),
        ("samples", True, "a number"),
        ("samples", 2.5, "a whole number"),
        ("interval", "fast", "a number"),
    ],
)
def test_wrong_values(name: str, value: object, part: str) -> None:
    found = check_notebook_parameters(DECLARED, {name: value}, "nb")
    assert len(found) == 1
    assert found[0].startswith(f"nb: {name}: {value!r}: ")
    assert part in found[0]


def test_all_problems_at_once() -> None:
    assert len(check_notebook_parameters(DECLARED, {"params": 1, "zz": 2}, "nb")) == 2
