"""Prepared objects into the cluster in the right order, and recognised there afterwards.

`kubectl apply` keeps a whole object in an annotation of it, which has room for 256 KiB. What is
larger is applied on the server's side under the kit's own name; the API knows from then on which
fields are the kit's, so that what others add to such an object is no difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from kitlib.command import Cmd
from kitlib.errors import ApiError
from kitlib.kube import Kube, Obj
from kitlib.manifests import Prepared, dump, is_large, namespaced
from kitlib.retry import Deadline
from kitlib.stages.base import Action, Context, Hands
from kitlib.stages.configuration import KIT_DIRECTORY, KUBECONFIG

__all__ = ["Paths", "apply_actions", "counted", "files_of", "missing", "remove_files"]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubekit"
"""The field manager of what the kit applies on the server's side."""
DIGEST = "kubekit/applied-sha256"
"""The annotation by which such an object is recognised: the checksum of what was applied."""
ESTABLISHED_SECONDS = 60.0
_EARLY = ("Namespace", "CustomResourceDefinition")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Objects that go into one file and are applied together."""

    file: str
    objects: tuple[Obj, ...]
    large: bool
    after: tuple[str, ...] = ()
    """Definitions that must be established before."""

    @property
    def command(self) -> Cmd:
        """The command on the control plane that applies it."""
        ways = ("--server-side", "--force-conflicts", f"--field-manager={MANAGER}")
        way = ways if self.large else ()
        return Cmd.change("kubectl", "apply", *way, "-f", self.file, env=KUBECONFIG)


def apply_actions(ctx: Context, manifest: Prepared, lacking: Sequence[Obj]) -> list[Action]:
    """Return what brings the missing objects into the cluster: the files, then their applying.

    Args:
        ctx: The stage's context.
        manifest: All that is wanted.
        lacking: Those of its objects that are missing.
    """
    name, plugin = ctx.administrator.name, ctx.plugin
    wanted = {id(item) for item in lacking}
    batches = [
        batch
        for batch in _batches(plugin.name, manifest.objects)
        if any(id(item) in wanted for item in batch.objects)
    ]
    texts = {batch.file: dump([_signed(item, large=batch.large) for item in batch.objects])
             for batch in batches}  # fmt: skip
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()

    def write(hands: Hands) -> None:
        hands.run(name, Cmd.change("mkdir", "-p", KIT_DIRECTORY))
        for file, text in texts.items():
            # What holds an operator's secret is for root alone, and only while it is applied.
            hands.put(name, text, file, mode=0o600 if manifest.secret else 0o644)
        hands.journal.keep(f"{plugin.name}.yaml", dump(manifest.objects))

    files = " and ".join(texts)
    what = f"write the manifest from {manifest.where} to {files} (sha256 {digest[:12]})"
    return [Action(name, what, do=write), *(_apply(ctx, name, each, wanted) for each in batches)]


def files_of(plugin: str) -> tuple[str, ...]:
    """Return every file on the control plane that a plugin's manifest may be written to."""
    endings = ("", "-large", "-first", "-first-large")
    return tuple(f"{KIT_DIRECTORY}/{plugin}{ending}.yaml" for ending in endings)


def remove_files(ctx: Context, manifest: Prepared) -> tuple[Action, ...]:
    """Return the removal of the files, where they hold a secret; nothing where they hold none."""
    if not manifest.secret:
        return ()
    files = [batch.file for batch in _batches(ctx.plugin.name, manifest.objects)]
    what = "remove the manifest, which holds a secret"
    return (Action(ctx.administrator.name, what, Cmd.change("rm", "-f", *files)),)


def missing(ctx: Context, objects: Sequence[Obj]) -> list[Obj]:
    """Return the objects that are not in the cluster as they are wanted.

    Raises:
        ApiError: The API refuses to be asked.
    """
    try:
        kube = ctx.kube(wait=5)
        paths = Paths(kube)
        return [item for item in objects if not _is_there(kube, paths, item)]
    except ApiError as error:
        if error.status >= 400:
            raise
        return list(objects)  # a dry run before init: nothing is there yet


def counted(objects: Sequence[Obj]) -> str:
    """Return how many objects of each kind there are, in words."""
    kinds: dict[str, int] = {}
    for item in objects:
        kinds[item["kind"]] = kinds.get(item["kind"], 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


class Paths:
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
        plural, in_namespace = self._resources[version].get(item["kind"], ("", False))
        if not plural:
            return ""
        metadata = item["metadata"]
        space = f"/namespaces/{metadata.get('namespace', 'default')}" if in_namespace else ""
        return f"{base}{space}/{plural}/{metadata['name']}"


def _batches(plugin: str, objects: Sequence[Obj]) -> list[_Batch]:
    """Return the objects in files, in the order of applying; one file where that is enough."""
    own = {
        (str(item["spec"].get("group")), str((item["spec"].get("names") or {}).get("kind"))):
            str(item["metadata"]["name"])
        for item in objects
        if item["kind"] == "CustomResourceDefinition" and isinstance(item.get("spec"), dict)
    }  # fmt: skip
    used = [own.get((item["apiVersion"].partition("/")[0], item["kind"]), "") for item in objects]
    after = tuple(dict.fromkeys(filter(None, used)))
    early = [item for item in objects if item["kind"] in _EARLY]
    late = [item for item in objects if item["kind"] not in _EARLY]
    large = any(map(is_large, objects))
    base = f"{KIT_DIRECTORY}/{plugin}"
    if not after and not large:
        return [_Batch(f"{base}.yaml", tuple(objects), large=False)]
    found = []
    for file, part, needs in (("-first", early, ()), ("", late, after)):
        small = tuple(item for item in part if not is_large(item))
        big = tuple(item for item in part if is_large(item))
        found.append(_Batch(f"{base}{file}.yaml", small, large=False, after=needs))
        found.append(_Batch(f"{base}{file}-large.yaml", big, large=True, after=needs))
    return [batch for batch in found if batch.objects]


def _apply(ctx: Context, name: str, batch: _Batch, wanted: set[int]) -> Action:
    command, definitions = batch.command, batch.after

    def wait_and_apply(hands: Hands) -> None:
        _wait_for(hands.kube(), definitions)
        hands.run(name, command)

    lacking = [item for item in batch.objects if id(item) in wanted]
    what = f"apply {ctx.plugin.title}: {counted(lacking)}"
    what += ", on the server's side: too large for kubectl's annotation" if batch.large else ""
    what += f", once {len(definitions)} definition(s) of theirs stand" if definitions else ""
    return Action(name, what, command, do=wait_and_apply if definitions else None)


def _wait_for(kube: Kube, definitions: Sequence[str]) -> None:
    """Return when the API serves what some definitions define.

    Raises:
        DeadlineError: It does not within a minute.
    """
    deadline = Deadline(ESTABLISHED_SECONDS, "the definitions established")
    group = "/apis/apiextensions.k8s.io"
    version = "v1" if kube.find(f"{group}/v1") else "v1beta1"
    for name in definitions:
        while True:
            path = f"{group}/{version}/customresourcedefinitions/{name}"
            status = (kube.find(path) or {}).get("status") or {}
            met = {each["type"]: each["status"] for each in status.get("conditions") or []}
            if met.get("Established") == "True":
                break
            deadline.pause(0.5, got=f"{name}: {met or 'no condition yet'}")


def _signed(item: Obj, *, large: bool) -> Obj:
    """Return an object as it goes into its file: a large one with its own checksum."""
    if not large:
        return item
    notes = {**(item["metadata"].get("annotations") or {}), DIGEST: _digest(item)}
    return {**item, "metadata": {**item["metadata"], "annotations": notes}}


def _digest(item: Obj) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()


def _is_there(kube: Kube, paths: Paths, item: Obj) -> bool:
    """Return whether the object is in the cluster as the manifest last applied has it."""
    path = paths.of(item)
    found = kube.find(path) if path else None
    if found is None:
        return False
    notes = found["metadata"].get("annotations") or {}
    if is_large(item):
        owners = found["metadata"].get("managedFields") or []
        ours = any((e.get("manager"), e.get("operation")) == (MANAGER, "Apply") for e in owners)
        return ours and notes.get(DIGEST) == _digest(item)
    last = notes.get(LAST_APPLIED)
    return last is not None and _plain(json.loads(last)) == _plain(item)


def _plain(item: Obj) -> Obj:
    """Return an object without what kubectl adds to the manifest's own words."""
    copy: Obj = json.loads(json.dumps(item))
    metadata = copy["metadata"]
    if not metadata.get("annotations"):
        metadata.pop("annotations", None)
    if metadata.get("namespace") == "default" or not namespaced(item):
        metadata.pop("namespace", None)
    metadata.pop("creationTimestamp", None)
    return copy
