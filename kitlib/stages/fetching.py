"""The plugin's manifest onto this machine, and into the objects that a run applies.

It is fetched here and not on the hosts, which may have no way to it. An address is fetched once in
a run: what one stage judged is what the next one applies. A file is read each time.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from kitlib import plugins
from kitlib.errors import ParamsError, PreconditionError
from kitlib.manifests import Prepared, prepare, read
from kitlib.params import Params
from kitlib.stages.base import Context
from kitlib.stages.configuration import api_address

__all__ = ["fetch", "fetch_all", "fetched_name", "prepared"]

FETCH_SECONDS = 30
MAX_BYTES = 20_000_000


def prepared(ctx: Context) -> Prepared:
    """Return the objects of the wanted plugin as they are applied, in the order of applying.

    Raises:
        ParamsError: There is no manifest, it cannot be read, or a parameter does not fit it.
        PreconditionError: It is not the file that the catalogue knows, or cannot work.
    """
    if ctx.manifest is None:
        where, text, known = _of_this_run(ctx)
        main, facts = ctx.control_plane, ctx.facts()
        ctx.manifest = prepare(
            read(text, where),
            ctx.plugin,
            ctx.params,
            where=where,
            control_plane=api_address(main, facts[main.name]) if main.name in facts else "",
        )
        if not known:
            ctx.journal.keep(fetched_name(ctx.params.plugin), text)
            source = {"from": list(ctx.params.manifests), "sha256": _digest(text)}
            ctx.journal.update(manifest=source)
    return ctx.manifest


def fetched_name(plugin: str) -> str:
    """Return the name under which a run's record keeps the manifest as it was fetched."""
    return f"{plugin}-fetched.yaml"


def _of_this_run(ctx: Context) -> tuple[str, str, bool]:
    """Return where the manifest is from, its text, and whether the run's record has it already."""
    places = ctx.params.manifests
    known = ctx.journal.record().get("manifest", {})
    kept = ctx.journal.path / "raw" / fetched_name(ctx.params.plugin)
    if places and all(map(_is_address, places)) and known.get("from") == list(places):
        text = kept.read_text() if kept.is_file() else ""
        # Where something in it was masked, what is kept is not what was fetched.
        if known.get("sha256") == _digest(text):
            return ", ".join(places), text, True
    return *fetch_all(ctx.params), False


def fetch_all(params: Params) -> tuple[str, str]:
    """Return where the plugin's manifest is, in words, and its text; several files are joined.

    Raises:
        ParamsError: There is none, or it cannot be read.
        PreconditionError: A file is not the one that the catalogue knows.
    """
    if not params.manifests:
        raise ParamsError(
            f"plugin: {params.plugin}: no known release fits Kubernetes "
            f"{params.kubernetes_version}",
            remedy="choose another version or plugin, or name a manifest as plugin_manifest",
        )
    texts = [fetch(each, _checksum(each, params)) for each in params.manifests]
    return ", ".join(params.manifests), "\n---\n".join(texts)


def fetch(where: str, sha256: str = "") -> str:
    """Return a manifest's text, from an address or a file on this machine.

    Args:
        where: The address or the file.
        sha256: What its checksum must be; empty where none is known.

    Raises:
        ParamsError: It cannot be read.
        PreconditionError: It has another checksum.
    """
    try:
        if _is_address(where):
            request = Request(where, headers={"User-Agent": "kit"})  # noqa: S310 - http(s) only
            with urlopen(request, timeout=FETCH_SECONDS) as answer:  # noqa: S310
                data = answer.read(MAX_BYTES)
        else:
            data = Path(where).read_bytes()
        text = str(data.decode())
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ParamsError(
            f"plugin manifest: {where}: cannot be read: {reason}",
            remedy="check plugin_manifest and plugin_source; the address must be reachable from "
            "this machine",
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256:
        raise PreconditionError(
            f"plugin manifest: {where}: its checksum is {found}, the catalogue knows {sha256}",
            remedy="it is not the file that was released: fetch it in another way, compare, and "
            "name what you trust as plugin_manifest",
        )
    return text


def _is_address(where: str) -> bool:
    return re.match(r"https?://", where) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(where: str, params: Params) -> str:
    """Return the checksum that the catalogue knows for one of its own addresses; empty for none."""
    version = params.kubernetes_version
    for plugin in plugins.catalogue().values():
        release = plugin.release_for(version)
        if release and where in plugin.manifest_addresses(version):
            return release.sha256.get(where.rpartition("/")[2], "")
    return ""
