"""Writes docs/plugins.md and the README's table of plugins from the catalogue and its schema.

`make docs` runs it; a test runs it with --check. What it writes depends on nothing but those.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kitlib.plugin_pages import Row, rows
from kitlib.plugins import catalogue
from kitlib.plugins.schema import Plugin

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/plugins.md"
README = ROOT / "README.md"
BEGIN = "<!-- The catalogue's plugins; `make docs` writes this table. -->\n"
END = "<!-- End of the table. -->\n"

_HEAD = """\
# Network plugins

`make docs` writes this page from the catalogue (`kitlib/plugins/catalogue/`) and its schema.
`kit plugins NAME` shows all that is known of one, `kit plugins --for 1.31` what fits a version.

## All of them

"""
_SCHEMA = """
## A plugin's file, field by field

A plugin is one YAML file, named as the plugin is. It is read strictly: an unknown key is an error.
Names that end in `*` are prefixes. Kubernetes versions are quoted: `"1.22"`.
"""
_WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    bool: "true or false",
    IPv4Network: "IPv4 network",
    type(None): "null",
}


def settle(pages: Mapping[Path, str], about: str | None) -> int:
    """Write the pages, or with --check say whether they are as they should be; the exit code."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in pages.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not check:
                path.write_text(text, encoding="utf-8")
    verb = "is not up to date: run `make docs`" if check else "written"
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)} {verb}\n")
    return 1 if check and stale else 0


def wanted() -> dict[Path, str]:
    """Return path -> what stands in it when it is up to date."""
    found = rows(catalogue())
    return {PAGE: page(found), README: readme(README.read_text(encoding="utf-8"), found)}


def page(found: list[Row]) -> str:
    """Return docs/plugins.md."""
    return _HEAD + longtable(found) + _about() + _SCHEMA + "".join(_models())


def readme(text: str, found: list[Row]) -> str:
    """Return the README with its table between the two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"README.md: the marks of the table are gone: {BEGIN}{END}")
    return f"{before}{BEGIN}\n{shorttable(found)}\n{END}{after}"


def longtable(found: list[Row]) -> str:
    """Return the table with everything that a choice rests on."""
    head = (
        "plugin", "project", "last release", "Kubernetes", "installed by", "between nodes",
        "NetworkPolicy", "encryption", "IPv6", "pod CIDR",
    )  # fmt: skip
    known = catalogue()
    return table(
        head,
        (
            (
                f"[{row.plugin}](#{row.plugin})",
                row.status,
                f"{known[row.plugin].status.latest}, {row.released}",
                row.kubernetes,
                row.install,
                row.network,
                row.policy,
                row.encryption or "no",
                row.ipv6 or "not stated",
                row.pod_cidr,
            )
            for row in found
        ),
    )


def shorttable(found: list[Row]) -> str:
    """Return the table of the README."""
    head = ("plugin", "project", "Kubernetes", "installed by", "between nodes", "NetworkPolicy")
    return table(
        head,
        (
            (row.plugin, row.status, row.kubernetes, row.install, row.network, row.policy)
            for row in found
        ),
    )


def _about() -> str:
    parts = []
    for name, plugin in catalogue().items():
        instead = plugin.status.instead
        lives = f" Living instead: {', '.join(instead)}." if instead else ""
        parts.append(f"\n### {name}\n\n{plugin.title}. {plugin.what} {plugin.datapath}{lives}\n")
    return "".join(parts)


def _models() -> Iterator[str]:
    """Return the table of every part of the schema, in the order in which they are met."""
    todo: list[type[BaseModel]] = [Plugin]
    seen = set(todo)
    while todo:
        model = todo.pop(0)
        yield f"\n### {model.__name__}\n\n{_line(model.__doc__)}\n\n"
        yield table(
            ("field", "what may stand there", "left out", "meaning"),
            (
                (f"`{name}`", _kind(field), _default(field), _line(field.description))
                for name, field in model.model_fields.items()
            ),
        )
        for part in _parts(model):
            if part not in seen:
                seen.add(part)
                todo.append(part)


def _parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        yield from _inside(field.annotation)


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _inside(each)


def _kind(field: FieldInfo) -> str:
    words = _words(field.annotation)
    pattern = _pattern(field.metadata)
    return f"{words} like `{pattern}`" if pattern else words


def _words(annotation: Any) -> str:
    """Return in words what a field's type takes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        pattern = _pattern(inner[1:])
        return _words(inner[0]) + (f" like `{pattern}`" if pattern else "")
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_words(each) for each in inner))
    if origin is tuple:
        return f"list: {_words(inner[0])}"
    if origin is dict:
        return f"mapping: {_words(inner[0])} to {_words(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _WORDS[annotation]


def _pattern(metadata: Any) -> str:
    for each in metadata:
        found = getattr(each, "pattern", None)
        if found:
            return str(found).replace("|", "\\|")
        if isinstance(each, FieldInfo):
            return _pattern(each.metadata)
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "all of its defaults"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value in (None, "", (), {}) else f"`{value}`"


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    """Return a table of Markdown."""
    rules = tuple("---" for _ in head)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rules, *lines))


if __name__ == "__main__":
    sys.exit(settle(wanted(), __doc__))
