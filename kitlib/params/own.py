"""A user's own plugins: one YAML file each in `plugins/`, the directory beside the parameter file.

A file there is read as strictly as the kit's own entries, and what is wrong with it is told in the
form in which the parameter file's problems are. A name of the kit's catalogue is refused: whoever
reads `calico` in a record must be able to trust that it is the kit's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kitlib import plugins
from kitlib.errors import ParamsError, Problem
from kitlib.params.reading import Written, dotted, printable, read_yaml
from kitlib.params.rules import is_address
from kitlib.params.schema import rule_of
from kitlib.plugins import Catalogue, Plugin

__all__ = ["DIRECTORY", "catalogue_beside", "own_plugins"]

DIRECTORY = "plugins"
"""The directory beside a parameter file."""

REMEDY = "docs/plugins.md explains every field; the README has a whole example"


def catalogue_beside(params: Path) -> Catalogue:
    """Return the kit's catalogue with the plugins that lie beside a parameter file.

    Args:
        params: The parameter file; it need not exist.

    Raises:
        ParamsError: A plugin's file is wrong; every problem of every file is named.
    """
    own, problems = own_plugins(params.parent / DIRECTORY)
    if problems:
        raise ParamsError(problems, remedy=REMEDY)
    return plugins.catalogue().and_own(own)


def own_plugins(directory: Path) -> tuple[dict[str, Plugin], list[Problem]]:
    """Return the plugins of a directory by name, and what is wrong with its files.

    Paths of manifests in them are made absolute, as seen from their file.

    Args:
        directory: The directory; none, or an empty one, has no plugins.
    """
    found: dict[str, Plugin] = {}
    problems: list[Problem] = []
    for path in sorted(directory.glob("*.yaml")):
        shown = printable(_shown(path))
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            problems.append(Problem(f"{shown}: cannot be read: {error.strerror}"))
            continue
        except UnicodeDecodeError as error:
            problems.append(Problem(f"{shown}: not a text file in UTF-8: {error.reason}"))
            continue
        plugin, wrong = _read(path, shown, text)
        problems += wrong
        if plugin is not None and not wrong:
            found[plugin.name] = plugin
    return found, problems


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _read(path: Path, shown: str, text: str) -> tuple[Plugin | None, list[Problem]]:
    document = read_yaml(text, shown)
    if document.problems:
        return None, document.problems
    data = document.data
    if not isinstance(data, dict):
        return None, [Problem(f"{shown}: not a plugin: a mapping of fields (key: value)")]
    if "apiVersion" in data:
        rule = "a Kubernetes manifest; put it into a directory below and name it in the plugin"
        return None, [Problem(f"{shown}: not a plugin but {rule}")]
    try:
        plugin = _placed(Plugin.model_validate(data), path.parent)
    except ValidationError as error:
        problems = []
        for each in error.errors(include_url=False):
            key = each["loc"]
            value = document.written.get(key, each["input"])
            if isinstance(value, (dict, list, tuple)):
                value = Written("a mapping" if isinstance(value, dict) else "a list")
            rule = _rule(dict(each))
            problems.append(Problem.of(shown, dotted(key) or "the plugin", value, rule))
        return None, problems
    return plugin, [Problem.of(shown, *finding) for finding in _findings(plugin, path)]


def _findings(plugin: Plugin, path: Path) -> Iterator[tuple[str, str, str]]:
    """Return key, value and rule of what the schema alone cannot see."""
    if plugin.name != path.stem:
        yield "name", plugin.name, f"the file's name says {path.stem!r}; they must be the same"
    if plugin.name in plugins.catalogue():
        rule = "the kit's own catalogue has that name; choose another, also for the file"
        yield "name", plugin.name, rule
    delegate = plugin.needs.delegate
    if delegate and delegate not in plugins.catalogue():
        yield "needs.delegate", delegate, "no plugin of the kit's catalogue"
    for release in plugin.releases:
        for address in plugin.addresses_of(release):
            if not is_address(address) and not os.path.isfile(address):  # noqa: PTH113 - see rules
                yield "manifest.addresses", address, "no such file"


def _placed(plugin: Plugin, here: Path) -> Plugin:
    """Return the plugin with the paths of its manifests absolute."""
    if plugin.manifest is None:
        return plugin

    def placed(addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            each if is_address(each) else os.path.normpath(here.resolve() / each)
            for each in addresses
        )

    releases = tuple(
        each.model_copy(update={"addresses": placed(each.addresses)})
        for each in plugin.manifest.versions
    )
    addresses = placed(plugin.manifest.addresses)
    manifest = plugin.manifest.model_copy(update={"addresses": addresses, "versions": releases})
    return plugin.model_copy(update={"manifest": manifest})


def _rule(error: Mapping[str, Any]) -> str:
    kind, key = error["type"], error["loc"]
    if kind == "extra_forbidden":
        close = get_close_matches(str(key[-1]), _fields(Plugin), n=1)
        return "unknown key" + (f"; did you mean {close[0]!r}?" if close else "")
    if kind == "string_pattern_mismatch":
        return f"not like {error['ctx']['pattern']}"
    if kind == "literal_error":
        return f"one of {error['ctx']['expected']}"
    if kind == "bool_type":
        return "true or false, not quoted"
    return rule_of(dict(error))


def _fields(model: type[BaseModel]) -> list[str]:
    """Return the names of all fields of a model and of the models in it."""
    found = list(model.model_fields)
    for field in model.model_fields.values():
        todo = [field.annotation]
        while todo:
            each = todo.pop()
            if isinstance(each, type) and issubclass(each, BaseModel):
                found += _fields(each)
            todo += getattr(each, "__args__", ())
    return found
