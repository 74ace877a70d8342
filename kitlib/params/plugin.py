"""Rules for what the parameters say about the network plugin: each says what is wrong.

Like the other rules they read raw values, and pass over what is malformed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from kitlib.command import MASK
from kitlib.params.reading import Written
from kitlib.params.rules import Finding, wanted_of
from kitlib.plugins import Catalogue, Plugin

__all__ = ["from_environment", "plugin_findings", "secret_parameters"]

_ENVIRONMENT = "env:"
_HIDDEN = Written("its value")
"""Shown in place of a parameter's value, which may be a secret one under a misspelled name."""


def from_environment(value: str) -> str | None:
    """Return a parameter's value, `env:NAME` filled in; None where that variable is not set."""
    if not value.startswith(_ENVIRONMENT):
        return value
    return os.environ.get(value.removeprefix(_ENVIRONMENT))


def secret_parameters(known: Catalogue) -> frozenset[str]:
    """Return the names of plugin parameters that must not be shown, of every plugin."""
    every = known.values()
    return frozenset(each.name for plugin in every for each in plugin.parameters if each.secret)


def plugin_findings(data: Mapping[str, Any], known: Catalogue) -> Iterator[Finding]:
    """Return what is wrong with the plugin's own settings.

    Args:
        data: The file's values with the options laid over them.
        known: The plugins that there are.
    """
    plugin = wanted_of(data, known)
    if plugin is None:
        return
    yield from _backend(plugin, data.get("plugin_backend"))
    if data.get("pod_mtu") and plugin.mtu is None:
        rule = f"{plugin.name} finds the MTU by itself; leave it out"
        yield ("pod_mtu",), data["pod_mtu"], rule
    yield from _parameters(plugin, data, known)


def _backend(plugin: Plugin, backend: object) -> Iterator[Finding]:
    if not isinstance(backend, str) or not backend:
        return
    if plugin.backend is None:
        yield ("plugin_backend",), backend, f"{plugin.name} has one way only; leave it out"
    elif plugin.backend.values and backend not in plugin.backend.values:
        known = ", ".join(plugin.backend.values)
        yield ("plugin_backend",), backend, f"unknown to {plugin.name}, which knows {known}"


def _parameters(plugin: Plugin, data: Mapping[str, Any], known: Catalogue) -> Iterator[Finding]:
    given = data.get("plugin_parameters") or {}
    if not isinstance(given, Mapping):
        return
    every = {each.name for other in known.values() for each in other.parameters}
    own = [each.name for each in plugin.parameters]
    for name, value in given.items():
        if name not in every:
            close = get_close_matches(str(name), own or every, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            knows = f"{plugin.name} knows {', '.join(own) or 'none'}"
            yield ("plugin_parameters", name), _HIDDEN, f"unknown parameter, {knows}{meant}"
        elif value == MASK:
            rule = "the mask of a secret, not its value: state it in the file, or as env:VARIABLE"
            yield ("plugin_parameters", name), value, rule
        elif isinstance(value, str) and from_environment(value) is None:
            yield ("plugin_parameters", name), value, "no such environment variable"
    if data.get("plugin_manifest"):
        return  # a person's own manifest has them in it
    for each in plugin.parameters:
        if each.dummy:
            continue  # the manifest tells whether somebody has filled it in already
        if not each.default and given.get(each.name) in (None, ""):
            yield ("plugin_parameters", each.name), "", f"required by {plugin.name}: {each.what}"
