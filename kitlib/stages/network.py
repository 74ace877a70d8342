"""Stage 5: `kubectl apply -f` of the network plugin, from its address or from a file here.

The manifest is fetched on this machine, read as YAML before anything is touched, kept in the
record, written to the control plane and applied there. The workers join later; this stage judges
only what can run on the nodes that exist.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import yaml

from kitlib import checks
from kitlib.command import Cmd
from kitlib.errors import ApiError, ParamsError, PreconditionError
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER, Check, Status, failed
from kitlib.params import Params
from kitlib.plugins import Plugin
from kitlib.stages import per_node
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.configuration import KIT_DIRECTORY, KUBECONFIG
from kitlib.stages.observe import Steady, wait_for_workloads, workload_objects

__all__ = ["Network", "fetch_all", "manifest_check", "read_manifest"]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
FETCH_SECONDS = 30
MAX_BYTES = 20_000_000
_NO_MANIFEST = (
    "{} has no manifest: the ready stage writes it on each host, which then has a podCIDR"
)


class Network(Stage):
    """The plugin's objects in the cluster."""

    name = "network"
    title = "Apply the network plugin"
    needs_api = True

    def plan(self, ctx: Context) -> Plan:
        """Return the apply; nothing where every object is there as the manifest has it.

        Raises:
            ParamsError: The manifest cannot be fetched or is not YAML.
            PreconditionError: It states another pod CIDR than the cluster has.
        """
        if ctx.plugin.per_node is not None:
            return Plan(reason=_NO_MANIFEST.format(ctx.plugin.title))
        where, text = fetch_all(ctx.params)
        objects = read_manifest(text, where)
        _same_pod_cidr(ctx, objects, where)
        missing = _missing(ctx, objects)
        if not missing:
            return Plan(reason=f"every object of {where} is in the cluster as it is there")
        name = ctx.administrator.name
        path = f"{KIT_DIRECTORY}/{ctx.plugin.name}.yaml"
        digest = hashlib.sha256(text.encode()).hexdigest()

        def write(hands: Hands) -> None:
            hands.run(name, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
            hands.put(name, text, path)
            hands.journal.keep(f"{ctx.plugin.name}.yaml", text)

        return Plan(
            (
                Action(
                    name,
                    f"write the manifest from {where} to {path} (sha256 {digest[:12]})",
                    do=write,
                ),
                Action(
                    name,
                    f"apply {ctx.plugin.title}: {_count(missing)}",
                    Cmd.change("kubectl", "apply", "-f", path, env=KUBECONFIG),
                ),
            )
        )

    def check(self, ctx: Context) -> list[Check]:
        """Return whether every object is there and what can run on the nodes that exist runs."""
        if ctx.plugin.per_node is not None:
            why = _NO_MANIFEST.format(ctx.plugin.title)
            return [Check("network.applied", CLUSTER, Status.SKIP, "the plugin is applied", why)]
        early = [load for load in ctx.plugin.workloads if load.starts_on_not_ready]
        plugin = ctx.plugin.model_copy(update={"workloads": tuple(early)})
        applied = manifest_check(ctx)
        seconds = ctx.params.timeouts.ready if applied.status is Status.PASS else 0
        judged = checks.workloads(wait_for_workloads(ctx, early, seconds=seconds), plugin)
        if not failed(judged):
            # Available may be a moment between two crashes: judged again when it has lasted.
            steady = Steady(ctx).end()
            judged = [*checks.workloads(workload_objects(ctx.kube(), early), plugin), *steady]
        return [applied, *judged]


def manifest_check(ctx: Context) -> Check:
    """Return whether every object of the plugin's manifest is in the cluster as it stands there.

    A manifest of which only a part was accepted leaves nodes Ready and pods without addresses.
    """
    if ctx.plugin.per_node is not None:
        return per_node.check(ctx)
    where, text = fetch_all(ctx.params)
    missing = _missing(ctx, read_manifest(text, where))
    return Check.that(
        not missing,
        "network.applied",
        CLUSTER,
        "every object of the plugin's manifest is in the cluster",
        got=f"not there, or not as in the manifest: {_names(missing)}" if missing else "all",
        expected="all of them",
        remedy="run the network stage; its record has kubectl's own message. A kind that this "
        "Kubernetes no longer serves needs a newer manifest",
    )


def _missing(ctx: Context, objects: list[Obj]) -> list[Obj]:
    """Return the objects that are not in the cluster as the manifest has them."""
    try:
        kube = ctx.kube(wait=5)
        paths = _Paths(kube)
        return [item for item in objects if not _is_there(kube, paths, item)]
    except ApiError as error:
        if error.status >= 400:
            raise
        return objects  # a dry run before init: nothing is there yet


def fetch_all(params: Params) -> tuple[str, str]:
    """Return where the plugin's manifest is, in words, and its text; several files are joined.

    Raises:
        ParamsError: There is none, or it cannot be read.
    """
    if not params.manifests:
        raise ParamsError(
            f"plugin: {params.plugin}: no known release fits Kubernetes "
            f"{params.kubernetes_version}",
            remedy="choose another version or plugin, or name a manifest as plugin_manifest",
        )
    return ", ".join(params.manifests), "\n---\n".join(map(fetch, params.manifests))


def fetch(where: str) -> str:
    """Return a manifest's text, from an address or a file on this machine.

    Raises:
        ParamsError: It cannot be read.
    """
    try:
        if re.match(r"https?://", where):
            request = Request(where, headers={"User-Agent": "kit"})  # noqa: S310 - http(s) only
            with urlopen(request, timeout=FETCH_SECONDS) as answer:  # noqa: S310
                data = answer.read(MAX_BYTES)
        else:
            data = Path(where).read_bytes()
        return str(data.decode())
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ParamsError(
            f"plugin manifest: {where}: cannot be read: {reason}",
            remedy="check plugin_manifest and plugin_source; the address must be reachable from "
            "this machine",
        ) from error


def read_manifest(text: str, where: str) -> list[Obj]:
    """Return a manifest's objects, Lists taken apart.

    Raises:
        ParamsError: It is not YAML, holds no object, or one without apiVersion, kind and name.
    """
    try:
        documents = [item for item in yaml.safe_load_all(text) if item is not None]
    except yaml.YAMLError as error:
        raise ParamsError(
            f"plugin manifest: {where}: not YAML: {' '.join(str(error).split())}",
            remedy="look at the file; an error page saved as a manifest is the usual cause",
        ) from error
    objects: list[Obj] = []
    for number, item in enumerate(documents, start=1):
        parts = item.get("items") if isinstance(item, dict) and item.get("kind") == "List" else None
        for part in parts if isinstance(parts, list) else [item]:
            objects.append(_object(part, f"{where}: document {number}"))
    if not objects:
        raise ParamsError(f"plugin manifest: {where}: no object in it")
    return objects


def _object(item: Any, where: str) -> Obj:
    named = isinstance(item, dict) and isinstance(item.get("metadata"), dict)
    if not named or not all(item.get(k) for k in ("apiVersion", "kind")):
        raise ParamsError(
            f"plugin manifest: {where}: not a Kubernetes object (apiVersion, kind, metadata)",
            remedy="look at the file; an error page saved as a manifest is the usual cause",
        )
    found: Obj = item
    return found


def _same_pod_cidr(ctx: Context, objects: list[Obj], where: str) -> None:
    stated = _stated_pod_cidr(ctx.plugin, objects)
    wanted = str(ctx.params.effective_pod_cidr)
    if stated and stated != wanted:
        raise PreconditionError(
            f"plugin manifest: {where}: it states the pod CIDR {stated}, the cluster's is {wanted}",
            remedy=f'set pod_cidr: "{stated}", or change it in a copy of the manifest and name '
            "that as plugin_manifest",
        )


def _stated_pod_cidr(plugin: Plugin, objects: list[Obj]) -> str:
    """Return the pod CIDR that a manifest states; empty where it states none."""
    place = plugin.pod_cidr.stated_in
    if place is None:
        return ""
    for item in objects:
        meta = item["metadata"]
        if (item["kind"], meta["name"]) != (place.kind, place.name):
            continue
        if place.key:
            value = item.get("data", {}).get(place.key, "")
            return str(json.loads(value or "{}").get(place.path, "") if place.path else value)
        for container in item["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env") or []:
                if variable["name"] == place.env:
                    return str(variable.get("value", ""))
    return ""


def _names(objects: list[Obj]) -> str:
    shown = [f"{item['kind']} {item['metadata']['name']}" for item in objects]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _count(objects: list[Obj]) -> str:
    kinds: dict[str, int] = {}
    for item in objects:
        kinds[item["kind"]] = kinds.get(item["kind"], 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


class _Paths:
    """Where the API keeps an object, learnt from the API itself."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def of(self, item: Obj) -> str:
        """Return the object's path; empty when the API does not serve its kind."""
        version = item["apiVersion"]
        base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        if version not in self._resources:
            listing = self._kube.find(base) or {}
            self._resources[version] = {
                each["kind"]: (each["name"], each["namespaced"])
                for each in listing.get("resources", [])
                if "/" not in each["name"]
            }
        plural, namespaced = self._resources[version].get(item["kind"], ("", False))
        if not plural:
            return ""
        metadata = item["metadata"]
        space = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{base}{space}/{plural}/{metadata['name']}"


def _is_there(kube: Kube, paths: _Paths, item: Obj) -> bool:
    """Return whether the object is in the cluster as the manifest last applied has it."""
    path = paths.of(item)
    found = kube.find(path) if path else None
    if found is None:
        return False
    last = found["metadata"].get("annotations", {}).get(LAST_APPLIED)
    return last is not None and _plain(json.loads(last)) == _plain(item)


def _plain(item: Obj) -> Obj:
    """Return an object without what kubectl adds to the manifest's own words."""
    copy: Obj = json.loads(json.dumps(item))
    metadata = copy["metadata"]
    if not metadata.get("annotations"):
        metadata.pop("annotations", None)
    if metadata.get("namespace") == "default":
        del metadata["namespace"]
    metadata.pop("creationTimestamp", None)
    return copy
