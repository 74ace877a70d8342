"""Which objects a version of Kubernetes serves: an API that is gone is named before it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, StrictStr

from kitlib.manifests.objects import Obj, title
from kitlib.plugins.entry import Entry, Minor, minor

__all__ = ["Api", "api_of", "in_words", "newest_fitting", "served_as", "unserved"]

_OLDEST, _NEWEST = (1, 0), (1, 10_000)


class Api(Entry):
    """One API version of some kinds, and the Kubernetes versions that serve it."""

    api: StrictStr
    """Its apiVersion."""
    kinds: tuple[StrictStr, ...] = Field(min_length=1)
    """The kinds."""
    since: Minor | None = None
    """The first minor version that serves it; null for every old one."""
    until: Minor | None = None
    """The first that no longer does; null where none is known."""

    def serves(self, kubernetes_version: str) -> bool:
        """Return whether a Kubernetes version serves it."""
        first = minor(self.since) if self.since else _OLDEST
        gone = minor(self.until) if self.until else _NEWEST
        return first <= minor(kubernetes_version) < gone


@cache
def _table() -> dict[tuple[str, str], Api]:
    rows: list[Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    apis = [Api.model_validate(row) for row in rows]
    return {(each.api, kind): each for each in apis for kind in each.kinds}


def api_of(item: Obj) -> Api | None:
    """Return what is known of an object's API; None where it is taken for served."""
    return _table().get((item["apiVersion"], item["kind"]))


def unserved(objects: Iterable[Obj], kubernetes_version: str) -> list[Obj]:
    """Return the objects that a Kubernetes version does not serve, no longer or not yet."""
    known = ((item, api_of(item)) for item in objects)
    return [item for item, api in known if api is not None and not api.serves(kubernetes_version)]


def served_as(kind: str, kubernetes_version: str) -> str:
    """Return the newest API version in which a Kubernetes version serves a kind; empty for none."""
    fitting = [
        api for (_, each), api in _table().items()
        if each == kind and api.serves(kubernetes_version)
    ]  # fmt: skip
    newest = max(fitting, key=lambda api: minor(api.since) if api.since else _OLDEST, default=None)
    return newest.api if newest else ""


def newest_fitting(objects: Iterable[Obj]) -> str:
    """Return the newest minor version that serves all of the objects; empty where none is bound.

    Also where none at all does: some of them are gone before others came.
    """
    apis = [api for item in objects if (api := api_of(item)) is not None]
    gone = [minor(api.until) for api in apis if api.until]
    if not gone:
        return ""
    newest = (min(gone)[0], min(gone)[1] - 1)
    first = max((minor(api.since) for api in apis if api.since), default=_OLDEST)
    return f"{newest[0]}.{newest[1]}" if first <= newest else ""


def in_words(objects: Iterable[Obj], kubernetes_version: str) -> str:
    """Return which objects a version does not serve, by API, with when that went or came."""
    groups: dict[str, list[str]] = {}
    for item in unserved(objects, kubernetes_version):
        api = api_of(item)
        assert api is not None  # noqa: S101 - unserved are known ones
        gone = api.until and minor(kubernetes_version) >= minor(api.until)
        when = f"gone since {api.until}" if gone else f"served from {api.since} on"
        groups.setdefault(f"{api.api} ({when})", []).append(title(item))
    return "; ".join(f"{api}: {_few(names)}" for api, names in groups.items())


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
