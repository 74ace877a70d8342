"""What the cluster has of a network plugin, and in which order it is taken out.

Webhooks and API services come first, because what answers them goes next; then what makes pods,
until the pods are gone; then the rest, last applied first; then definitions, with what they define;
then namespaces. A deletion that a finalizer holds back is named when the time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kitlib.command import Cmd, script
from kitlib.errors import ApiError, DeadlineError
from kitlib.kube import Kube, Obj
from kitlib.manifests import read
from kitlib.model import CLUSTER
from kitlib.plugins import Plugin
from kitlib.retry import Deadline
from kitlib.stages.applying import Paths, files_of
from kitlib.stages.base import Action, Context, Hands
from kitlib.stages.fetching import prepared
from kitlib.stages.observe import plugin_pods

__all__ = [
    "Step",
    "forget_copy",
    "has_copy",
    "pods_of",
    "remove_step",
    "steps",
    "there",
    "title_of",
]

EVERY = 0.5
KEPT_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_HOOKS = ("APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_POD_MAKERS = (
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
)
_READ = 'for f in "$@"; do if [ -e "$f" ]; then cat "$f"; echo; echo ---; fi; done'
_DEFINITIONS = "/apis/apiextensions.k8s.io/{}/customresourcedefinitions"


@dataclass(frozen=True, slots=True)
class Step:
    """Objects that are deleted together, before the next ones.

    Attributes:
        what: What they are, one line.
        paths: Where the API keeps them; those of a kind that it no longer serves are not in it.
        makes_pods: Whether the plugin's pods are gone only behind this step.
    """

    what: str
    paths: tuple[str, ...]
    makes_pods: bool = False


def there(ctx: Context) -> list[Obj]:
    """Return the plugin's objects that are in the cluster, in the order of their applying.

    They are those of the manifest (the kit's own copy on the control plane, which is what was
    applied; else that of the parameters), the workloads that the catalogue knows, and definitions
    that the plugin's pods made.

    Raises:
        ParamsError: There is no copy, and the manifest of the parameters cannot be read.
    """
    kube = ctx.kube()
    paths = Paths(kube)
    found: dict[str, Obj] = {}
    for item in [*_listed(ctx), *_known(ctx.plugin), *_definitions(kube, ctx.plugin)]:
        path = paths.of(item)
        if path and path not in found and kube.find(path) is not None:
            found[path] = item
    kept = [f"/api/v1/namespaces/{name}" for name in KEPT_NAMESPACES]
    return [item for path, item in found.items() if path not in kept]


def steps(kube: Kube, objects: Sequence[Obj]) -> list[Step]:
    """Return the steps that take objects out of the cluster; none is empty."""
    paths = Paths(kube)
    groups: dict[str, list[Obj]] = {"hooks": [], "pods": [], "rest": [], "crds": [], "spaces": []}
    for item in reversed(objects):
        groups[_group(item["kind"])].append(item)
    return [
        Step(title_of(items), tuple(filter(None, map(paths.of, items))), makes_pods=group == "pods")
        for group, items in groups.items()
        if items
    ]


def title_of(items: Sequence[Obj]) -> str:
    """Return what objects are: kind by kind, with the names of those that stand for much."""
    by_kind: dict[str, list[str]] = {}
    for item in items:
        meta = item["metadata"]
        space = f"{meta['namespace']}/" if meta.get("namespace") else ""
        by_kind.setdefault(item["kind"], []).append(f"{space}{meta['name']}")
    told = []
    for kind, names in by_kind.items():
        if kind == "CustomResourceDefinition" and len(names) > 1:
            told.append(f"{len(names)} CustomResourceDefinitions and all that they define")
        elif kind == "Namespace":
            told.append(f"Namespace {', '.join(names)} and all in it")
        else:
            told.append(f"{kind} {', '.join(names)}")
    return "; ".join(told)


def pods_of(ctx: Context, objects: Sequence[Obj]) -> dict[str, str]:
    """Return uid -> namespace/name of the plugin's own pods, by the labels that its workloads set.

    Args:
        ctx: The stage's context.
        objects: The plugin's objects, whether they are in the cluster still or not.
    """
    kube = ctx.kube()
    pods = plugin_pods(kube, ctx.plugin)
    for item in objects:
        labels = _pod_labels(item)
        if labels:
            space = item["metadata"].get("namespace", "default")
            selector = ",".join(f"{key}={value}" for key, value in labels.items())
            pods += kube.items(f"/api/v1/namespaces/{space}/pods", labelSelector=selector)
    metas = [pod["metadata"] for pod in pods]
    return {meta["uid"]: f"{meta['namespace']}/{meta['name']}" for meta in metas}


def remove_step(ctx: Context, hands: Hands, step: Step, objects: Sequence[Obj]) -> None:
    """Delete the objects of a step, and wait until they (and their pods) are gone.

    Raises:
        DeadlineError: They are not gone within `timeouts.unplug`; what holds them is named.
    """
    deadline = Deadline(ctx.params.timeouts.unplug, "the plugin's objects gone")
    asked = False
    while True:
        try:
            kube = hands.kube()
            if not asked:
                for path in step.paths:
                    kube.delete(path, policy="Background")
            asked = True
            left = _left(kube, step)
            pods = sorted(pods_of(ctx, objects).values()) if step.makes_pods and not left else []
        except ApiError as error:
            if not error.retryable or deadline.left < EVERY:
                raise
            ctx.waiting(CLUSTER, f"the API does not answer: {error.message}")
        else:
            waiting = [*left, *(f"pod {pod}" for pod in pods)]
            if not waiting:
                return
            if deadline.left < EVERY:
                raise DeadlineError(
                    f"not gone within {ctx.params.timeouts.unplug:g} s: {'; '.join(waiting)}",
                    remedy="what a finalizer holds waits for a program that may be gone: look at "
                    "it (kubectl get -o yaml), take the finalizer off, and run the same command "
                    "again",
                )
            ctx.waiting(CLUSTER, f"to be gone: {', '.join(waiting[:5])}")
        deadline.sleep(EVERY)


def _left(kube: Kube, step: Step) -> list[str]:
    """Return what of a step is still there, each with what holds it."""
    told = []
    for path in step.paths:
        found = kube.find(path)
        if found is None:
            continue
        meta = found["metadata"]
        holders = [
            *(meta.get("finalizers") or []),
            *(found.get("spec") or {}).get("finalizers", []),
        ]
        held = f" (finalizers: {', '.join(holders)})" if holders else ""
        why = _reason(found)
        told.append(f"{path.rpartition('/apis/')[2] or path}{held}{why}")
    return told


def _reason(found: Obj) -> str:
    """Return what a namespace or a definition says of its own deletion."""
    for condition in (found.get("status") or {}).get("conditions") or []:
        if (
            condition.get("type")
            in (
                "NamespaceContentRemaining",
                "NamespaceFinalizersRemaining",
                "Terminating",
            )
            and condition.get("status") == "True"
        ):
            return f": {condition.get('message')}"
    return ""


def _group(kind: str) -> str:
    if kind in _HOOKS:
        return "hooks"
    if kind in _POD_MAKERS:
        return "pods"
    return {"CustomResourceDefinition": "crds", "Namespace": "spaces"}.get(kind, "rest")


def _listed(ctx: Context) -> list[Obj]:
    if ctx.plugin.per_node is not None:
        return []
    copy = ctx.doors.quietly(ctx.administrator.name, script(_READ, *files_of(ctx.plugin.name)))
    if copy.ok and copy.stdout.strip():
        return read(copy.stdout, f"the files of {ctx.plugin.name} on {ctx.administrator.name}")
    return list(prepared(ctx).objects)


def has_copy(ctx: Context) -> bool:
    """Return whether the control plane has the kit's copy of what was applied."""
    look = script(_READ, *files_of(ctx.plugin.name))
    return bool(ctx.doors.quietly(ctx.administrator.name, look).stdout.strip())


def forget_copy(ctx: Context) -> Action:
    """Return the removal of that copy, which is the last of the plugin's traces."""
    name, files = ctx.administrator.name, files_of(ctx.plugin.name)
    return Action(
        name, f"remove the copy of its manifest: {files[0]}", Cmd.change("rm", "-f", *files)
    )


def _known(plugin: Plugin) -> list[Obj]:
    return [
        {
            "apiVersion": "apps/v1",
            "kind": load.kind,
            "metadata": {"name": load.name, "namespace": load.namespace},
        }
        for load in plugin.workloads
    ]


def _definitions(kube: Kube, plugin: Plugin) -> list[Obj]:
    """Return the definitions that the plugin's pods made, by their API groups."""
    groups = plugin.leftovers.api_groups
    for version in ("v1", "v1beta1") if groups else ():
        path = _DEFINITIONS.format(version)
        if kube.find(path) is None:
            continue
        return [
            {**item, "apiVersion": f"apiextensions.k8s.io/{version}",
             "kind": "CustomResourceDefinition"}
            for item in kube.items(path)
            if item["spec"]["group"] in groups
        ]  # fmt: skip
    return []


def _pod_labels(item: Obj) -> dict[str, str]:
    if item["kind"] not in _POD_MAKERS or item["kind"] == "Pod":
        return {}
    template = (item.get("spec") or {}).get("template") or {}
    labels: dict[str, str] = (template.get("metadata") or {}).get("labels") or {}
    return labels
