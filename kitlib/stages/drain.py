"""A node is emptied: no new pod goes there, and its pods are evicted as `kubectl drain` does it.

An eviction asks the API, which counts what the pod's disruption budget allows; a deletion asks
nobody. What would be lost for good (a pod that nothing makes anew, data of a pod on the host) is
named before anything is changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kitlib.command import Cmd
from kitlib.errors import ApiError, DeadlineError, KitError, PreconditionError
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER, Check
from kitlib.retry import Deadline
from kitlib.stages.agent_objects import LABEL
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.configuration import KUBECONFIG

__all__ = ["Drain", "Load", "load_of", "sort_pods"]

EVERY = 1.0
"""Seconds between two looks at a node's pods."""
AGAIN = 5.0
"""Seconds until an eviction that was refused is tried again."""
FORCED_SECONDS = 60.0
"""How long pods that are deleted after all may take; what is there then goes with the reset."""

_MIRROR = "kubernetes.io/config.mirror"
_EVICTION = "pods/eviction"


@dataclass(frozen=True, slots=True)
class Load:
    """The pods of a node, by what a drain does with them.

    Attributes:
        evicted: The pods that have to go, those of the two lists below too.
        alone: Those of them that nothing makes anew elsewhere, as namespace/name.
        local: Those of them with data in an emptyDir, which goes with them.
    """

    evicted: tuple[Obj, ...] = ()
    alone: tuple[str, ...] = ()
    local: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        """Why the node is not drained without `--force`; empty when it is."""
        parts = []
        if self.alone:
            parts.append(f"nothing makes these pods anew elsewhere: {', '.join(self.alone)}")
        if self.local:
            parts.append(f"these pods have data on the host (emptyDir): {', '.join(self.local)}")
        return "; ".join(parts)


def sort_pods(pods: Iterable[Obj], has_daemon_set: Callable[[str, str], bool]) -> Load:
    """Return what a drain does with the pods of a node.

    Static pods and those of a DaemonSet stay: the kubelet and the DaemonSet would make them anew.

    Args:
        pods: The pods, as plain mappings.
        has_daemon_set: Whether there is a DaemonSet of this namespace and name.
    """
    evicted, alone, local = [], [], []
    for pod in pods:
        meta = pod["metadata"]
        if _MIRROR in (meta.get("annotations") or {}):
            continue
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        owner = next((o for o in meta.get("ownerReferences") or [] if o.get("controller")), None)
        kept = owner is not None and owner["kind"] == "DaemonSet" and not ended
        if owner is not None and kept and has_daemon_set(meta["namespace"], owner["name"]):
            continue
        evicted.append(pod)
        if ended or _is_probe(pod):
            continue
        if owner is None or kept:
            alone.append(shown(pod))
        if any("emptyDir" in volume for volume in pod["spec"].get("volumes") or []):
            local.append(shown(pod))
    return Load(tuple(evicted), tuple(alone), tuple(local))


def load_of(kube: Kube, node: str) -> Load:
    """Return what a drain does with the pods that are on a node now."""

    def has_daemon_set(namespace: str, name: str) -> bool:
        return kube.find(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}") is not None

    pods = kube.items("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")
    return sort_pods(pods, has_daemon_set)


def shown(pod: Obj) -> str:
    """Return a pod's namespace and name."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


class Drain(Stage):
    """Hosts that are to be removed hold no pod any more but those that belong to every node.

    Args:
        names: The hosts; those without a Node, or without a kubelet of the cluster, have no pods.
        force: Let pods go that nothing makes anew, and data on the host; and when
            `timeouts.drain` is over, delete what budgets still hold back.
    """

    name = "drain"
    title = "Move the pods to other nodes"
    needs_api = True

    def __init__(self, names: Sequence[str], *, force: bool = False) -> None:
        self._names = tuple(names)
        self._force = force

    def plan(self, ctx: Context) -> Plan:
        """Return the cordons, then the evictions node by node; none where no pod has to go.

        Raises:
            PreconditionError: Something would be lost for good, and nobody said that it may.
        """
        kube = ctx.kube()
        nodes = {node["metadata"]["name"]: node for node in kube.items("/api/v1/nodes")}
        loads = {name: load_of(kube, name) for name in self._live(ctx) if name in nodes}
        if not self._force:
            _refuse(loads)
        actions = [
            _kubectl(ctx, "cordon", name, "no new pod goes there")
            for name in loads
            if not nodes[name]["spec"].get("unschedulable")
        ]
        for name, load in loads.items():
            if load.evicted:
                pods = ", ".join(map(shown, load.evicted))
                actions.append(Action(name, f"evict {pods}", do=self._evictor(ctx, name)))
        return Plan(tuple(actions), "" if actions else "no pods to move")

    def apply(self, ctx: Context, plan: Plan) -> None:
        """Do the plan; where it fails, nodes that were cordoned for it take pods again."""
        try:
            super().apply(ctx, plan)
        except BaseException:
            cordons = [a.command for a in plan.actions if a.target == CLUSTER and a.command]
            for name in [str(command.argv[-1]) for command in cordons]:
                if ctx.keep:
                    ctx.journal.event("note", host=name, text="kept: it stays cordoned")
                    continue
                with contextlib.suppress(KitError):  # must not hide what went wrong before it
                    ctx.perform(_kubectl(ctx, "uncordon", name, "the drain failed"))
            raise

    def check(self, ctx: Context) -> list[Check]:
        """Return for each node whether it takes no pods and has none but those that stay."""
        kube = ctx.kube()
        checks = []
        for name in self._live(ctx):
            node = kube.find(f"/api/v1/nodes/{name}")
            if node is None:
                continue
            left = [shown(pod) for pod in load_of(kube, name).evicted]
            cordoned = bool(node["spec"].get("unschedulable"))
            checks.append(
                Check.that(
                    cordoned and (not left or self._force),
                    "drain.empty",
                    name,
                    "takes no pods, and has none but static and DaemonSets' ones",
                    got=", ".join(left) or ("drained" if cordoned else "it takes pods"),
                    expected="cordoned and empty",
                    remedy=f"kubectl get pods -A --field-selector spec.nodeName={name}",
                )
            )
        return checks

    def _live(self, ctx: Context) -> list[str]:
        """Return the hosts whose kubelet can end pods."""
        facts = ctx.facts()
        return [name for name in self._names if name in facts and facts[name].kubeadm.joined]

    def _evictor(self, ctx: Context, name: str) -> Callable[[Hands], None]:
        def do(hands: Hands) -> None:
            seconds = ctx.params.timeouts.drain
            work = _Evictions(ctx, name, force=self._force)
            left = work.until_gone(hands, Deadline(seconds, f"{name}: its pods gone"))
            if not left:
                return
            if not self._force:
                raise DeadlineError(
                    f"{name}: not drained within {seconds:g} s: {work.why(left)}",
                    remedy="kubectl get pdb -A shows what the budgets allow; make room for the "
                    "pods elsewhere, or --force, which deletes them",
                )
            ctx.journal.event("note", host=name, text=f"deleted after all: {work.why(left)}")
            for pod in left:
                meta = pod["metadata"]
                hands.kube().delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}")
            work.until_gone(hands, Deadline(FORCED_SECONDS, f"{name}: its pods gone"))

        return do


@dataclass
class _Evictions:
    """The evictions of one node's pods, tried until they are gone.

    Attributes:
        ctx: The stage's context.
        name: The node.
        force: Whether pods may go that nothing makes anew.
        tried: Pod UID -> when its eviction was tried last, on the monotonic clock.
        held: Pod UID -> why it is not evicted yet, in the API's words.
    """

    ctx: Context
    name: str
    force: bool
    tried: dict[str, float] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)

    def until_gone(self, hands: Hands, deadline: Deadline) -> list[Obj]:
        """Return the pods that are still there when the deadline is over; none when all are gone.

        Raises:
            PreconditionError: A pod came meanwhile that nothing makes anew.
            ApiError: The API refused for another reason than a budget.
        """
        while True:
            try:
                left = self._round(hands.kube())
            except ApiError as error:
                if not error.retryable or deadline.left < EVERY:
                    raise
                self.ctx.waiting(self.name, f"the API does not answer: {error.message}")
            else:
                if not left or deadline.left < EVERY:
                    return left
                self.ctx.waiting(self.name, self.why(left))
            deadline.sleep(EVERY)

    def why(self, pods: Sequence[Obj]) -> str:
        """Return what each pod waits for."""
        return "; ".join(
            f"pod {shown(pod)}: {self.held.get(pod['metadata']['uid']) or 'it has not ended yet'}"
            for pod in pods
        )

    def _round(self, kube: Kube) -> list[Obj]:
        """Ask for the evictions that are due, and return the pods that were there before."""
        load = load_of(kube, self.name)
        if not self.force:
            _refuse({self.name: load})
        version = ""
        for pod in load.evicted:
            meta = pod["metadata"]
            uid = meta["uid"]
            last = self.tried.get(uid)
            if meta.get("deletionTimestamp"):
                self.held.pop(uid, None)
            elif last is None or time.monotonic() - last >= AGAIN:
                self.tried[uid] = time.monotonic()
                version = version or eviction_version(kube)
                self.held[uid] = evict(kube, pod, version)
        return list(load.evicted)


def eviction_version(kube: Kube) -> str:
    """Return the API version of evictions: policy/v1 from Kubernetes 1.22 on."""
    for entry in kube.get("/api/v1").get("resources") or []:
        if entry.get("name") == _EVICTION and entry.get("version"):
            return f"{entry.get('group') or 'policy'}/{entry['version']}"
    return "policy/v1beta1"


def evict(kube: Kube, pod: Obj, version: str) -> str:
    """Ask for a pod's eviction, and return why it is held back; empty when it goes.

    Raises:
        ApiError: It was refused for another reason than one that time may cure.
    """
    meta = {key: pod["metadata"][key] for key in ("namespace", "name")}
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
    try:
        kube.create(path, {"apiVersion": version, "kind": "Eviction", "metadata": meta})
    except ApiError as error:
        if error.status == 404:
            return ""
        ending = error.status == 403 and "terminat" in error.message  # with its namespace
        if error.retryable or ending:
            return error.message.removeprefix(f"POST {path}: ")
        raise
    return ""


def _refuse(loads: dict[str, Load]) -> None:
    refused = [f"{name}: not drained: {load.refusal}" for name, load in loads.items()
               if load.refusal]  # fmt: skip
    if refused:
        raise PreconditionError(
            "\n".join(refused),
            remedy="save what is worth it; then --force lets these pods go, and their data with "
            "them",
        )


def _kubectl(ctx: Context, verb: str, name: str, why: str) -> Action:
    command = Cmd.change("kubectl", verb, name, env=KUBECONFIG)
    return Action(
        CLUSTER,
        f"{verb} {name}: {why}",
        command,
        do=lambda hands: _on_administrator(ctx, hands, command),
    )


def _on_administrator(ctx: Context, hands: Hands, command: Cmd) -> None:
    hands.run(ctx.administrator.name, command)


def _is_probe(pod: Obj) -> bool:
    """Return whether a pod is the kit's own, left by a run that was killed."""
    key, _, value = LABEL.partition("=")
    return (pod["metadata"].get("labels") or {}).get(key) == value
