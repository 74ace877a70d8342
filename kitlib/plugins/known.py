"""The plugins that are known, and whose network a file or a device on a host belongs to.

On a real cluster nodes turn Ready although the network does not work: a CNI file or a bridge that
an earlier plugin left is enough. So the catalogue answers two questions: what must be there for
this plugin, and what must not, because it is another's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from kitlib.errors import ParamsError
from kitlib.plugins.compose import over
from kitlib.plugins.schema import Plugin, matches
from kitlib.plugins.unknown import UNKNOWN

__all__ = ["Catalogue", "cni_types"]


@dataclass(frozen=True, slots=True)
class _Marks:
    """The names by which one plugin is recognised on a host; those that end in * are prefixes."""

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

    @classmethod
    def of(cls, plugin: Plugin) -> _Marks:
        """Return the marks of a plugin.

        A CNI type counts as a mark only where the plugin brings that program itself: `bridge` and
        the other shared ones say nothing about who wrote a file.
        """
        return cls(
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


class Catalogue(Mapping[str, Plugin]):
    """Plugin name -> plugin, in name order, and what they all are recognised by.

    Args:
        plugins: The plugins.
        own: The names of the plugins that a user's own files describe.
        first: The plugin that is asked first whose a name is: a user's variant of a plugin has
            the same files and devices as the plugin itself.
    """

    def __init__(
        self,
        plugins: Mapping[str, Plugin],
        *,
        own: Iterable[str] = (),
        first: str = "",
    ) -> None:
        self._plugins = {name: plugins[name] for name in sorted(plugins)}
        self.own = frozenset(own)
        order = sorted(self._plugins, key=lambda name: (name != first, name in self.own, name))
        self._marks = {name: _Marks.of(self._plugins[name]) for name in order}

    def __getitem__(self, name: str) -> Plugin:
        return self._plugins[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)

    def and_own(self, plugins: Mapping[str, Plugin]) -> Catalogue:
        """Return the catalogue with a user's own plugins in it."""
        return Catalogue({**self, **plugins}, own={*self.own, *plugins})

    def asking_first(self, name: str) -> Catalogue:
        """Return the catalogue that gives a name to this plugin, where several have it."""
        return Catalogue(self, own=self.own, first=name)

    def named(self, name: str) -> Plugin:
        """Return one plugin.

        Raises:
            ParamsError: There is none of that name; the message lists those that there are.
        """
        if name not in self:
            close = get_close_matches(name, self, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ParamsError(f"unknown plugin {name!r}, known are {', '.join(self)}{meant}")
        return self[name]

    def wanted(self, name: str, delegate: str = "", backend: str = "") -> Plugin:
        """Return a plugin as stages and checks see it: together with the one that it calls, if any.

        Args:
            name: Its name; empty for one that the kit does not know.
            delegate: The plugin that it calls; empty for its entry's own choice. Of no meaning for
                one that calls none.
            backend: How packets get to other nodes, one of its words; empty for its usual one.

        Raises:
            ParamsError: There is none of one of the names.
        """
        if not name:
            return UNKNOWN
        plugin = self.named(name)
        if plugin.needs.delegate:
            plugin = over(plugin, self.named(delegate or plugin.needs.delegate))
        return plugin.with_backend(backend)

    def brings_manifest(self, name: str) -> bool:
        """Return whether a plugin is a user's own whose manifest is a file on this machine."""
        if name not in self.own:
            return False
        addresses = (self[name].addresses_of(release) for release in self[name].releases)
        return any(
            not where.startswith(("http://", "https://")) for each in addresses for where in each
        )

    def owner_of_interface(self, name: str) -> str:
        """Return the plugin that makes devices of that name; empty when no known one does."""
        marks = self._marks.items()
        return next((who for who, mark in marks if matches(name, mark.interfaces)), "")

    def owner_of_cni_file(self, name: str, text: str = "") -> str:
        """Return whose a file in /etc/cni/net.d is, by its name or else by its content.

        Args:
            name: The file's name.
            text: Its content, where that is known.

        Returns:
            The plugin's name; empty when no known plugin fits.
        """
        for who, mark in self._marks.items():
            if matches(name, mark.cni_files):
                return who
        kinds = cni_types(text)
        for who, mark in self._marks.items():
            if kinds and kinds[0] in mark.cni_types:
                return who
        return next(filter(None, map(self.owner_of_interface, _bridges(text))), "")

    def foreign_interfaces(self, plugin: Plugin, names: Iterable[str]) -> dict[str, str]:
        """Return those devices that are another plugin's: device -> plugin name."""
        owners = {
            name: self.owner_of_interface(name) for name in names if not plugin.owns_interface(name)
        }
        return {name: owner for name, owner in owners.items() if owner and owner != plugin.name}

    @property
    def leftover_paths(self) -> tuple[str, ...]:
        """Every path outside /etc/cni/net.d that tells that some known plugin was on a host."""
        return tuple(path for path in self._all("paths") if not path.startswith("/etc/cni/net.d/"))

    @property
    def leftover_chains(self) -> tuple[str, ...]:
        """The iptables chains of every known plugin; a final * is a prefix."""
        return self._all("chains")

    @property
    def leftover_comments(self) -> tuple[str, ...]:
        """The comments of single iptables rules of every known plugin."""
        return self._all("comments")

    @property
    def leftover_ipsets(self) -> tuple[str, ...]:
        """The ipsets of every known plugin; a final * is a prefix."""
        return self._all("ipsets")

    @property
    def leftover_route_tables(self) -> tuple[str, ...]:
        """The routing tables of every known plugin, by number and by name."""
        return self._all("route_tables")

    @property
    def leftover_bridges(self) -> tuple[str, ...]:
        """The Open vSwitch bridges of every known plugin."""
        return self._all("bridges")

    @property
    def leftover_route_protocols(self) -> tuple[str, ...]:
        """The protocols of every known plugin's blackhole routes."""
        return self._all("route_protocols")

    @property
    def renamed_suffixes(self) -> tuple[str, ...]:
        """What plugins append to the names of others' files in /etc/cni/net.d."""
        suffixes = (plugin.leftovers.renamed_suffixes for plugin in self.values())
        return tuple(sorted({text for each in suffixes for text in each}))

    def _all(self, what: str) -> tuple[str, ...]:
        return tuple(
            sorted({name for mark in self._marks.values() for name in getattr(mark, what)})
        )


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
