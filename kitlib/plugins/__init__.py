"""The plugin catalogue, and whose network a file or a device on a host belongs to.

On a real cluster nodes turn Ready although the network does not work: a CNI file or a bridge that
an earlier plugin left is enough. So the catalogue answers two questions: what must be there for
this plugin, and what must not, because it is another's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from kitlib.errors import ParamsError, Problem
from kitlib.plugins.compose import over
from kitlib.plugins.schema import Plugin, matches

__all__ = [
    "Plugin",
    "catalogue",
    "cni_types",
    "foreign_interfaces",
    "get",
    "leftover_bridges",
    "leftover_chains",
    "leftover_comments",
    "leftover_ipsets",
    "leftover_paths",
    "leftover_route_protocols",
    "leftover_route_tables",
    "owner_of_cni_file",
    "owner_of_interface",
    "renamed_suffixes",
    "wanted",
]

_HERE = Path(__file__).parent
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class _Marks:
    """The names by which one plugin is recognised on a host."""

    cni_files: tuple[str, ...]
    cni_types: tuple[str, ...]
    interfaces: tuple[str, ...]
    paths: tuple[str, ...]
    chains: tuple[str, ...]
    ipsets: tuple[str, ...]
    route_tables: tuple[str, ...]
    comments: tuple[str, ...]
    bridges: tuple[str, ...]
    route_protocols: tuple[str, ...]


@cache
def catalogue() -> Mapping[str, Plugin]:
    """Return the catalogue: plugin name -> plugin, in name order.

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
    return MappingProxyType(found)


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
    """Return one plugin of the catalogue.

    Raises:
        ParamsError: There is none of that name; the message lists those that there are.
    """
    known = catalogue()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ParamsError(f"unknown plugin {name!r}, known are {', '.join(known)}{meant}")
    return known[name]


def wanted(name: str, delegate: str = "", backend: str = "") -> Plugin:
    """Return a plugin as stages and checks see it: together with the one that it calls, if any.

    Args:
        name: Its name.
        delegate: The plugin that it calls; empty for the catalogue's own choice. Of no meaning for
            one that calls none.
        backend: How packets get to other nodes, one of its words; empty for its usual one.

    Raises:
        ParamsError: There is none of one of the names.
    """
    plugin = get(name)
    if plugin.needs.delegate:
        plugin = over(plugin, get(delegate or plugin.needs.delegate))
    return plugin.with_backend(backend)


def owner_of_interface(name: str) -> str:
    """Return the plugin that makes devices of that name; empty when no known one does."""
    return next((who for who, marks in _marks().items() if matches(name, marks.interfaces)), "")


def owner_of_cni_file(name: str, text: str = "") -> str:
    """Return whose a file in /etc/cni/net.d is, by its name or else by its content.

    Args:
        name: The file's name.
        text: Its content, where that is known.

    Returns:
        The plugin's name; empty when no known plugin fits.
    """
    marks = _marks()
    for who, mark in marks.items():
        if matches(name, mark.cni_files):
            return who
    kinds = cni_types(text)
    for who, mark in marks.items():
        if kinds and kinds[0] in mark.cni_types:
            return who
    return next(filter(None, map(owner_of_interface, _bridges(text))), "")


def foreign_interfaces(plugin: Plugin, names: Iterable[str]) -> dict[str, str]:
    """Return those devices that are another plugin's: device -> plugin name."""
    owners = {name: owner_of_interface(name) for name in names if not plugin.owns_interface(name)}
    return {name: owner for name, owner in owners.items() if owner and owner != plugin.name}


def leftover_paths() -> tuple[str, ...]:
    """Return every path outside /etc/cni/net.d that tells that some known plugin was on a host."""
    paths = {path for marks in _marks().values() for path in marks.paths}
    return tuple(sorted(path for path in paths if not path.startswith("/etc/cni/net.d/")))


def leftover_bridges() -> tuple[str, ...]:
    """Return the Open vSwitch bridges of every known plugin."""
    return tuple(sorted({name for marks in _marks().values() for name in marks.bridges}))


def leftover_route_protocols() -> tuple[str, ...]:
    """Return the protocols of every known plugin's blackhole routes."""
    return tuple(sorted({name for marks in _marks().values() for name in marks.route_protocols}))


def renamed_suffixes() -> tuple[str, ...]:
    """Return what plugins append to the names of others' files in /etc/cni/net.d."""
    known = catalogue().values()
    return tuple(sorted({text for each in known for text in each.leftovers.renamed_suffixes}))


def leftover_chains() -> tuple[str, ...]:
    """Return the iptables chains of every known plugin; a final * is a prefix."""
    return tuple(sorted({chain for marks in _marks().values() for chain in marks.chains}))


def leftover_comments() -> tuple[str, ...]:
    """Return the comments of single iptables rules of every known plugin."""
    return tuple(sorted({text for marks in _marks().values() for text in marks.comments}))


def leftover_ipsets() -> tuple[str, ...]:
    """Return the ipsets of every known plugin; a final * is a prefix."""
    return tuple(sorted({name for marks in _marks().values() for name in marks.ipsets}))


def leftover_route_tables() -> tuple[str, ...]:
    """Return the routing tables of every known plugin, by number and by name."""
    return tuple(sorted({name for marks in _marks().values() for name in marks.route_tables}))


def cni_types(text: str) -> tuple[str, ...]:
    """Return the CNI types that a configuration calls, in order; empty when it is none."""
    return tuple(str(step["type"]) for step in _steps(text) if "type" in step)


def _bridges(text: str) -> list[str]:
    return [str(step["bridge"]) for step in _steps(text) if "bridge" in step]


def _steps(text: str) -> list[dict[str, Any]]:
    """Return the plugin objects of a CNI configuration, whether it is a list or a single one."""
    try:
        document = json.loads(text)
    except ValueError:
        return []
    if not isinstance(document, dict):
        return []
    steps = document.get("plugins", [document])
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


@cache
def _marks() -> dict[str, _Marks]:
    """Return plugin name -> marks, of the catalogue's plugins.

    A CNI type counts as a mark only where the plugin brings that program itself: `bridge` and the
    other shared ones say nothing about who wrote a file.
    """
    return {
        name: _Marks(
            (*plugin.cni.files, *plugin.cni.extra_files),
            tuple(kind for kind in plugin.cni.types[:1] if kind != "bridge"),
            plugin.interfaces.owned,
            (*plugin.leftovers.paths, *plugin.written_paths),
            plugin.leftovers.iptables_chains,
            plugin.leftovers.ipsets,
            plugin.leftovers.route_tables,
            plugin.rule_comments,
            plugin.leftovers.ovs_bridges,
            plugin.leftovers.route_protocols,
        )
        for name, plugin in catalogue().items()
    }


def _yaml(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - safe loader
