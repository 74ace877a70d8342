"""The plugin's manifest onto this machine, and into the objects that a run applies.

It is fetched here and not on the hosts, which may have no way to it. An address is fetched once in
a run: what one stage judged is what the next one applies. A file is read each time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import yaml

from kitlib.errors import ParamsError, PreconditionError
from kitlib.manifests import Prepared, dump, namespaced, prepare, read
from kitlib.params import Params
from kitlib.plugins import Plugin
from kitlib.plugins.install import Chart, Release
from kitlib.stages.base import Context

__all__ = ["chart_values", "fetch", "fetch_all", "fetch_release", "fetched_name", "prepared"]

FETCH_SECONDS = 30
HELM_SECONDS = 300
MAX_BYTES = 20_000_000


def prepared(ctx: Context) -> Prepared:
    """Return the objects of the wanted plugin as they are applied, in the order of applying.

    Raises:
        ParamsError: There is no manifest, it cannot be read, or a parameter does not fit it.
        PreconditionError: It is not the file that the catalogue knows, or cannot work.
    """
    if ctx.manifest is None:
        where, text, known = _of_this_run(ctx)
        ctx.manifest = prepare(
            read(text, where),
            ctx.plugin,
            ctx.params,
            where=where,
            control_plane=ctx.control_plane.node_address,
        )
        if not known:
            ctx.journal.keep(fetched_name(ctx.params.plugin), text)
            source = {"where": where, "from": _sources(ctx.params), "sha256": _digest(text)}
            ctx.journal.update(manifest=source)
    return ctx.manifest


def fetched_name(plugin: str) -> str:
    """Return the name under which a run's record keeps the manifest as it was fetched."""
    return f"{plugin}-fetched.yaml"


def _of_this_run(ctx: Context) -> tuple[str, str, bool]:
    """Return where the manifest is from, its text, and whether the run's record has it already."""
    sources = _sources(ctx.params)
    known = ctx.journal.record().get("manifest", {})
    kept = ctx.journal.path / "raw" / fetched_name(ctx.params.plugin)
    read_anew = not all(map(_is_address, ctx.params.manifests))  # a file may have been mended
    if not read_anew and known.get("from") == sources and kept.is_file():
        text = kept.read_text()
        # Where something in it was masked, what is kept is not what was fetched.
        if known.get("sha256") == _digest(text):
            return known["where"], text, True
    return *fetch_all(ctx.params), False


def _sources(params: Params) -> list[str]:
    """Return what a manifest comes from: its addresses, or the chart with all that goes into it."""
    if params.manifests:
        return list(params.manifests)
    found = _chart(params)
    if found is None:
        return []
    chart, release = found
    values = json.dumps(chart_values(chart, params), sort_keys=True)
    return [chart.repository, chart.name, release.version, params.kubernetes_version, values]


def _chart(params: Params) -> tuple[Chart, Release] | None:
    """Return the plugin's chart and the release that fits; None where it has none."""
    plugin = params.catalogue.named(params.plugin)
    nearest = params.allow_unsupported
    release = plugin.release_for(params.kubernetes_version, nearest=nearest)
    return (plugin.chart, release) if plugin.chart is not None and release is not None else None


def fetch_all(params: Params) -> tuple[str, str]:
    """Return where the plugin's manifest is, in words, and its text; several files are joined.

    Raises:
        ParamsError: There is none, or it cannot be read.
        PreconditionError: A file is not the one that the catalogue knows.
    """
    if not params.manifests:
        if found := _chart(params):
            return _rendered(*found, params)
        raise ParamsError(
            f"plugin: {params.plugin}: no known release fits Kubernetes "
            f"{params.kubernetes_version}",
            remedy="choose another version or plugin, or name a manifest as plugin_manifest",
        )
    texts = [fetch(each, _checksum(each, params)) for each in params.manifests]
    return ", ".join(params.manifests), "\n---\n".join(texts)


def fetch_release(plugin: Plugin, kubernetes_version: str, source: str = "") -> tuple[str, str]:
    """Return where a plugin's own manifest is, and its text, without a cluster's parameters.

    Args:
        plugin: The plugin.
        kubernetes_version: The release that fits it is taken, or else the nearest one.
        source: An address or a file that is taken instead.

    Raises:
        ParamsError: The plugin has no manifest, or it cannot be read.
        PreconditionError: A file is not the one that the catalogue knows.
    """
    release = plugin.release_for(kubernetes_version, nearest=True)
    usual = plugin.manifest_addresses(kubernetes_version, nearest=True)
    places = (source,) if source else usual
    if not places:
        how = "is a chart, which the parameters render" if plugin.chart else "is written on hosts"
        raise ParamsError(
            f"{plugin.name}: has no manifest of its own: it {how}",
            remedy="name a rendered one with --from" if plugin.chart else "",
        )
    known = release.sha256 if release and not source else {}
    texts = [fetch(each, known.get(each.rpartition("/")[2], "")) for each in places]
    return ", ".join(places), "\n---\n".join(texts)


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
                data = answer.read(MAX_BYTES + 1)
                if answer.length and len(data) <= MAX_BYTES:
                    raise ValueError(f"it broke off, {answer.length} bytes before its end")
        else:
            data = Path(where).read_bytes()
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES // 10**6} MB")
        text = str(data.decode())
    except (URLError, HTTPException, OSError, ValueError) as error:
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


def _rendered(chart: Chart, release: Release, params: Params) -> tuple[str, str]:
    """Return what a chart makes of the parameters, rendered by helm on this machine.

    Raises:
        PreconditionError: helm is not here.
        ParamsError: helm could not render it.
    """
    where = f"the chart {chart.name} {release.version} of {chart.repository}"
    values = yaml.safe_dump(chart_values(chart, params), sort_keys=False)
    argv = [
        *("helm", "template", params.plugin, chart.name, "--repo", chart.repository),
        *("--version", release.version, "--namespace", chart.namespace, "--include-crds"),
        *("--no-hooks", "--kube-version", params.kubernetes_version, "--values", "-"),
    ]
    elsewhere = (
        f"on a machine that has helm: {shlex.join(argv[:-1])} VALUES > {params.plugin}.yaml, with "
        f"these values: {json.dumps(chart_values(chart, params))}; then name that file as "
        "plugin_manifest, or its directory as plugin_source"
    )
    program = shutil.which("helm")
    if program is None:
        raise PreconditionError(
            f"plugin manifest: {where}: rendering it needs helm, which is not on this machine",
            remedy=f"install helm, or render it {elsewhere}",
        )
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=values,
            capture_output=True,
            text=True,
            timeout=HELM_SECONDS,
            check=False,
        )
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ParamsError(f"plugin manifest: {where}: helm: {error}", remedy=elsewhere) from error
    if done.returncode:
        raise ParamsError(
            f"plugin manifest: {where}: helm could not render it: {said[0]}",
            remedy="the repository must be reachable from this machine; or " + elsewhere,
        )
    return where, _in_namespace(done.stdout, chart.namespace, where)


def chart_values(chart: Chart, params: Params) -> dict[str, Any]:
    """Return a chart's values as helm reads them: paths taken apart, parameters filled in."""
    values: dict[str, Any] = {}
    for path, value in chart.values.items():
        *way, last = path.split(".")
        at = values
        for step in way:
            at = at.setdefault(step, {})
        at[last] = (
            value.format(
                pod_cidr=params.effective_pod_cidr,
                service_cidr=params.service_cidr,
                control_plane=params.control_plane.node_address,
            )
            if isinstance(value, str)
            else value
        )
    return values


def _in_namespace(text: str, namespace: str, where: str) -> str:
    """Return a rendered chart with what `helm install` adds: the namespace, and its name."""
    objects = read(text, where)
    clusterwide = {
        str(item["spec"]["names"]["kind"])
        for item in objects
        if item["kind"] == "CustomResourceDefinition" and item["spec"].get("scope") == "Cluster"
    }
    for item in objects:
        if namespaced(item) and item["kind"] not in clusterwide:
            item["metadata"].setdefault("namespace", namespace)
    there = {item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"}
    if namespace not in {*there, "default", "kube-system", "kube-public"}:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        objects.insert(0, made)
    return dump(objects)


def _is_address(where: str) -> bool:
    return re.match(r"https?://", where) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(where: str, params: Params) -> str:
    """Return the checksum that the catalogue knows for one of its own addresses; empty for none."""
    version, nearest = params.kubernetes_version, params.allow_unsupported
    for plugin in params.catalogue.values():
        release = plugin.release_for(version, nearest=nearest)
        if release and where in plugin.manifest_addresses(version, nearest=nearest):
            return release.sha256.get(where.rpartition("/")[2], "")
    return ""
