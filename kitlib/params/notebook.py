"""Notebook parameters, checked before launch: papermill itself lets a misspelt name pass."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from kitlib.errors import Problem

__all__ = ["check_notebook_parameters"]


def check_notebook_parameters(
    declared: Mapping[str, object], given: Mapping[str, object], where: str
) -> list[Problem]:
    """Return what is wrong with the parameters given to a notebook; empty when nothing is.

    Args:
        declared: The notebook's parameters and their default values, which set their types. A
            default of None takes any value.
        given: The values to run it with.
        where: The notebook's name, for the problems.
    """
    problems = []
    for name, value in given.items():
        if name not in declared:
            close = get_close_matches(name, declared, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(declared) or "none"
            rule = f"unknown parameter, known are {known}{meant}"
        else:
            rule = _rule(declared[name], value)
        if rule:
            problems.append(Problem.of(where, name, value, rule))
    return problems


def _rule(default: object, value: object) -> str:
    """Return the rule that `value` breaks beside its default; empty when it breaks none."""
    if default is None:
        return ""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false, not quoted"
    if isinstance(default, str):
        if isinstance(value, str):
            return ""
        if isinstance(value, bool):
            return "a string; YAML reads yes, no, on and off as true and false: write it quoted"
        if isinstance(value, (int, float)):
            return "a string; YAML reads 1.30 as the number 1.3: write it quoted"
        return "a string"
    if isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "a number, not quoted"
        if isinstance(default, int) and isinstance(value, float):
            return "a whole number"
        return ""
    return "" if isinstance(value, type(default)) else f"a {type(default).__name__}"
