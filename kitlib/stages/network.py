"""Stage 5: `kubectl apply` of the network plugin, from its address or from a file here.

The manifest is fetched and prepared on this machine before anything is touched; every difference to
what was fetched stands in the plan. Both are kept in the record, and the prepared one is written to
the control plane and applied there. The workers join later; this stage judges only what can run on
the nodes that exist.
"""

from __future__ import annotations

import hashlib
import json

from kitlib import checks
from kitlib.command import Cmd
from kitlib.errors import ApiError
from kitlib.kube import Kube, Obj
from kitlib.manifests import dump
from kitlib.model import CLUSTER, Check, Status, failed
from kitlib.stages import per_node
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.configuration import KIT_DIRECTORY, KUBECONFIG
from kitlib.stages.fetching import prepared
from kitlib.stages.marks import plugin_labels
from kitlib.stages.observe import Steady, wait_for_workloads, workload_objects

__all__ = ["Network", "manifest_check"]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
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
            ParamsError: The manifest cannot be fetched, is not YAML, or a parameter has no place
                in it.
            PreconditionError: It cannot work in this cluster; a person must say what is meant.
        """
        if ctx.plugin.per_node is not None:
            return Plan(reason=_NO_MANIFEST.format(ctx.plugin.title))
        ctx.manifest = None  # a file may have been mended since the last plan
        manifest = prepared(ctx)
        where = ", ".join(ctx.params.manifests)
        missing = _missing(ctx, manifest.objects)
        labels = plugin_labels(ctx)
        if not missing:
            done = f"every object of {where} is in the cluster as it is wanted"
            return Plan(tuple(labels), "" if labels else done)
        name = ctx.administrator.name
        path = f"{KIT_DIRECTORY}/{ctx.plugin.name}.yaml"
        text = dump(manifest.objects)
        digest = hashlib.sha256(text.encode()).hexdigest()
        # What holds an operator's secret is for root alone, and only while it is applied.
        secret = manifest.secret

        def write(hands: Hands) -> None:
            hands.run(name, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
            hands.put(name, text, path, mode=0o600 if secret else 0o644)
            hands.journal.keep(f"{ctx.plugin.name}.yaml", text)

        remove = Action(
            name, "remove the manifest, which holds a secret", Cmd.change("rm", "-f", path)
        )
        return Plan(
            (
                *labels,
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
            ),
            cleanup=(remove,) if secret else (),
            notices=manifest.lines,
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
    missing = _missing(ctx, prepared(ctx).objects)
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
