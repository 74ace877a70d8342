"""A kubeconfig, read: one of its contexts, with every path in it absolute.

It is told apart from a parameter file by what it says of itself (`kind: Config`). Its keys and
tokens stay in memory, and are masked wherever something is shown or kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from kitlib.errors import ApiError, ParamsError
from kitlib.masking import remember
from kitlib.params.reading import read_yaml
from kitlib.params.rules import absolute

__all__ = ["Kubeconfig", "is_kubeconfig", "read_kubeconfig"]

UNAUTHORIZED = 401
_IN_CLUSTER = ("certificate-authority",)
_IN_USER = ("client-certificate", "client-key", "tokenFile")
_SECRET = ("token", "password", "client-key-data")
_SECRET_NAME = re.compile(r"(?i)token|secret|passw|key$")


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """One context of a kubeconfig.

    Attributes:
        source: The file, absolute.
        context: The context's name.
        cluster: The cluster's name in it.
        user: The user's name in it; empty for none.
        server: The API's address.
        config: The parsed kubeconfig with this context alone, its paths absolute. It holds keys.
    """

    source: Path
    context: str
    cluster: str
    user: str
    server: str
    config: Mapping[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        """The cluster's name as a DNS label, which runs are filed under."""
        words = re.sub(r"[^a-z0-9]+", "-", self.cluster.lower()).strip("-")
        return words[-63:].strip("-") or "cluster"

    def refused(self, error: ApiError) -> ApiError:
        """Return an error of the API's with what helps a person who has but this file."""
        command = f"kubectl --kubeconfig {self.source} --context {self.context} get --raw /readyz"
        if error.status == UNAUTHORIZED:
            error.message = (
                f"{self.server}: the API does not accept the credentials of user {self.user!r} "
                f"(context {self.context!r} of {self.source}): {error.message}"
            )
            error.remedy = f"they may have expired: renew them until this works: {command}"
        elif not error.status:
            error.message = f"context {self.context!r} of {self.source}: {error.message}"
            error.remedy = (
                f"is {self.server} reachable from this machine (VPN, proxy-url, firewall)? "
                f"This must work first: {command}"
            )
        return error


def is_kubeconfig(path: Path) -> bool:
    """Return whether a file says of itself that it is a kubeconfig; False where it is not read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if "Config" not in text:
        return False
    data = read_yaml(text, str(path)).data
    return isinstance(data, dict) and data.get("kind") == "Config" and "cluster" not in data


def read_kubeconfig(path: Path, context: str = "") -> Kubeconfig:
    """Return one context of a kubeconfig.

    Args:
        path: The file.
        context: The context; empty is its current one.

    Raises:
        ParamsError: The file cannot be read, has no such context, or it lacks something.
    """
    source = absolute(str(path), Path.cwd())
    try:
        data = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from error
    contexts = _named(data, "contexts", "context")
    wanted = context or str(data.get("current-context") or "")
    if wanted not in contexts:
        raise _no_context(path, context, wanted, list(contexts))
    chosen = contexts[wanted]
    cluster, user = str(chosen.get("cluster") or ""), str(chosen.get("user") or "")
    clusters, users = _named(data, "clusters", "cluster"), _named(data, "users", "user")
    if not isinstance(clusters.get(cluster, {}).get("server"), str):
        raise ParamsError(f"{path}: context {wanted!r}: cluster {cluster!r} has no server there")
    if user and user not in users:
        raise ParamsError(f"{path}: context {wanted!r}: user {user!r} is not there")
    here = source.parent
    at, who = _absolute(clusters[cluster], _IN_CLUSTER, here), {}
    if user:
        who = _absolute(users[user], _IN_USER, here)
        _check_command(who, here)
        remember(*(str(who[name]) for name in _SECRET if who.get(name)))
        remember(*_of_plugins(who))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": wanted,
        "contexts": [{"name": wanted, "context": {**chosen, "cluster": cluster, "user": user}}],
        "clusters": [{"name": cluster, "cluster": at}],
        "users": [{"name": user, "user": who}] if user else [],
    }
    return Kubeconfig(source, wanted, cluster, user, str(at["server"]), config)


def _named(data: Any, many: str, one: str) -> dict[str, dict[str, Any]]:
    entries = data.get(many) if isinstance(data, dict) else None
    return {
        str(each["name"]): each[one]
        for each in entries or []
        if isinstance(each, dict) and "name" in each and isinstance(each.get(one), dict)
    }


def _no_context(path: Path, asked: str, wanted: str, known: list[str]) -> ParamsError:
    there = f"there are {', '.join(known)}" if known else "it has none"
    if not wanted:
        return ParamsError(
            f"{path}: no current-context; {there}", remedy="say which one with --context NAME"
        )
    close = get_close_matches(wanted, known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    what = "--context" if asked else "current-context"
    return ParamsError(f"{path}: {what} {wanted!r}: no such context, {there}{meant}")


def _absolute(part: Mapping[str, Any], names: tuple[str, ...], here: Path) -> dict[str, Any]:
    """Return a part of a kubeconfig, its files as seen from the kubeconfig's own directory."""
    paths = {name: str(here / part[name]) for name in names if isinstance(part.get(name), str)}
    return {**part, **paths}


def _check_command(user: dict[str, Any], here: Path) -> None:
    """Make a credential plugin's command absolute, where it is one beside the kubeconfig."""
    plugin = user.get("exec")
    if isinstance(plugin, dict) and "/" in str(plugin.get("command", "")):
        user["exec"] = {**plugin, "command": str(here / str(plugin["command"]))}


def _of_plugins(user: Mapping[str, Any]) -> list[str]:
    """Return the secrets that an old auth-provider, or a plugin's environment, is given."""
    given = dict((user.get("auth-provider") or {}).get("config") or {})
    for each in (user.get("exec") or {}).get("env") or []:
        given[str(each.get("name", ""))] = each.get("value")
    return [str(value) for name, value in given.items() if value and _SECRET_NAME.search(name)]
