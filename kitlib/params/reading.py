"""YAML as people mean it: read with what the standard loader drops.

The standard loader turns an unquoted 1.30 into 1.3, `no` into False and the second of two equal
keys into the only one, in silence. Here the first two are kept as they were written, so that a
message can show them, and the third is a problem.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from kitlib.errors import Problem

__all__ = ["Document", "Key", "Written", "dotted", "printable", "read_yaml"]

Key = tuple[str | int, ...]
"""Where a value stands: ("hosts", 0, "name")."""

_MAX_DEPTH = 20


class Written(str):
    """A value as it was written, shown without quotes in a message."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the text itself, on one line and without what a terminal would obey."""
        return printable(self)


@dataclass(slots=True)
class Document:
    """One YAML file, read.

    Attributes:
        data: The values; None when the file is empty or could not be read as YAML.
        written: The text of every value that YAML took for something else than a string.
        problems: What was wrong with the file itself.
    """

    data: Any = None
    written: dict[Key, Written] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def dotted(key: Key) -> str:
    """Return a key as people write it: `hosts[0].name`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return printable(text)


def printable(text: str) -> str:
    """Return a text for one line of a terminal, its control characters escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def read_yaml(text: str, file: str) -> Document:
    """Return the document in `text`; what is wrong with it is in its `problems`.

    Args:
        text: The YAML text.
        file: The file's name, for the problems.
    """
    document = Document()
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.data = _value(loader, node, (), file, document)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        document.problems.append(Problem(f"{file}: not YAML: {_one_line(error)}"))
    except RecursionError:
        document.problems.append(Problem(f"{file}: nested too deeply"))
    return document


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    what = getattr(error, "problem", None) or str(error)
    return printable(" ".join(what.split())) + where


def _value(loader: Any, node: Any, key: Key, file: str, document: Document) -> Any:
    if len(key) > _MAX_DEPTH:
        raise RecursionError
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, item, (*key, number), file, document)
            for number, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, key, file, document)
    try:
        value = loader.construct_object(node)
    except (ValueError, AttributeError) as error:  # PyYAML's own, of `!!timestamp` without a time
        shown = Written(node.value[:80])
        why = str(error) if isinstance(error, ValueError) else f"nothing that {node.tag} could be"
        document.problems.append(Problem.of(file, dotted(key), shown, f"not a value: {why}"))
        return None
    if not isinstance(value, str):
        document.written[key] = Written(node.value)
    return value


def _mapping(loader: Any, node: Any, key: Key, file: str, document: Document) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
        here = (*key, name)
        if name in found:
            line = name_node.start_mark.line + 1
            rule = f"the key stands twice (again in line {line}); YAML would keep only the last"
            document.problems.append(Problem(f"{file}: {dotted(here)}: {rule}"))
        found[name] = _value(loader, value_node, here, file, document)
    return found
