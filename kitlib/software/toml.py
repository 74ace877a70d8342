"""TOML as text: what the standard library reads but does not write.

Only what containerd's configuration holds: tables, strings, numbers, truth values, lists. What
was written is read again and compared, so a value that does not survive is an error, never a
damaged file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from kitlib.errors import KitError

__all__ = ["dumps"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(data: Mapping[str, Any]) -> str:
    """Return a document that `tomllib.loads` reads as equal to `data`.

    Raises:
        KitError: A value is of a kind that cannot be written.
    """
    text = "\n".join(_table(data, ())).strip() + "\n"
    try:
        same = tomllib.loads(text) == data
    except tomllib.TOMLDecodeError as error:
        raise KitError(f"TOML: what was written cannot be read: {error}") from error
    if not same:
        raise KitError("TOML: what was written reads differently; this is a defect of the kit")
    return text


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {name: value for name, value in data.items() if not isinstance(value, Mapping)}
    if path and (plain or len(plain) == len(data)):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for name, value in plain.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _table(value, (*path, name))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # JSON's strings are TOML's basic strings, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items())
        return f"{{{inside}}}"
    raise KitError(f"TOML: {value!r} cannot be written")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
