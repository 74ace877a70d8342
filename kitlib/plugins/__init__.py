"""The plugin catalogue: one YAML file a plugin, in `catalogue/`, read strictly.

`catalogue()` is the kit's part alone; what a user's own files add is in `Params.catalogue`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kitlib.errors import ParamsError, Problem
from kitlib.plugins.known import Catalogue, cni_types
from kitlib.plugins.schema import Plugin

__all__ = ["Catalogue", "Plugin", "catalogue", "cni_types", "get", "read"]

_HERE = Path(__file__).parent
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def catalogue() -> Catalogue:
    """Return the kit's own catalogue.

    Raises:
        ParamsError: An entry does not follow the schema; every problem of every file is named.
    """
    found: dict[str, Plugin] = {}
    problems: list[Problem] = []
    for path in sorted((_HERE / "catalogue").glob("*.yaml")):
        try:
            plugin = read(path)
        except ParamsError as error:
            problems += error.problems
        else:
            found[plugin.name] = plugin
    if problems:
        raise ParamsError(problems)
    return Catalogue(found)


def read(path: Path) -> Plugin:
    """Return the plugin that one catalogue file describes.

    Raises:
        ParamsError: The file is not YAML or does not follow the schema.
    """
    try:
        plugin = Plugin.model_validate(_yaml(path))
    except yaml.YAMLError as error:
        raise ParamsError([Problem(f"{path}: not YAML: {error}")]) from error
    except ValidationError as error:
        raise ParamsError(
            [
                Problem.of(str(path), ".".join(map(str, each["loc"])), each["input"], each["msg"])
                for each in error.errors()
            ]
        ) from error
    if plugin.name != path.stem:
        rule = f"the file's name says {path.stem!r}"
        raise ParamsError([Problem.of(str(path), "name", plugin.name, rule)])
    return plugin


def get(name: str) -> Plugin:
    """Return one plugin of the kit's own catalogue.

    Raises:
        ParamsError: There is none of that name; the message lists those that there are.
    """
    return catalogue().named(name)


def _yaml(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - safe loader
