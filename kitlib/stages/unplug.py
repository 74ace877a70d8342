"""A network plugin leaves a cluster that goes on: its objects, then what it left on every host.

The hosts' part is the reset stage's, for this one plugin's traces. Pods end while the plugin still
serves them, so that what they hold is given back; others of them wait for the next network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kitlib.checks.nodes import ready_condition
from kitlib.command import Cmd
from kitlib.errors import ApiError, DeadlineError
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER, Check, Status
from kitlib.plugins.schema import matches
from kitlib.retry import Deadline
from kitlib.stages import way_back
from kitlib.stages.base import Action, Context, Hands, Plan, Stage
from kitlib.stages.configuration import KUBECONFIG
from kitlib.stages.leftovers import Whose, removals
from kitlib.stages.observe import in_the_cluster
from kitlib.stages.plugin_objects import (
    Step,
    forget_copy,
    has_copy,
    pods_of,
    remove_step,
    steps,
    there,
    title_of,
)

__all__ = ["CutOff", "Unplug", "cut_off", "traces"]

EVERY = 0.5
NOT_READY_SECONDS = 60.0
"""How long a kubelet may take to see that its network is gone."""
TAINT = "kubekit/unplugging"
"""Keeps new pods away from nodes whose network is going."""
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class CutOff:
    """The pods that lose their network.

    Attributes:
        ended: Those that something makes anew, which are ended: uid -> namespace/name.
        stay: Those that nothing makes anew: they run on without a network, as namespace/name.
    """

    ended: dict[str, str]
    stay: tuple[str, ...]


def cut_off(kube: Kube) -> CutOff:
    """Return the pods of the cluster that have an address of the pod network."""
    ended, stay = {}, []
    for pod in kube.items("/api/v1/pods"):
        meta, status = pod["metadata"], pod.get("status") or {}
        own = not pod["spec"].get("hostNetwork") and _MIRROR not in (meta.get("annotations") or {})
        if not own or not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
            continue
        name = f"{meta['namespace']}/{meta['name']}"
        if any(owner.get("controller") for owner in meta.get("ownerReferences") or []):
            ended[meta["uid"]] = name
        else:
            stay.append(name)
    return CutOff(ended, tuple(stay))


def traces(ctx: Context) -> dict[str, list[Action]]:
    """Return host -> what removes the plugin's traces, of the hosts that are in the cluster."""
    peers = frozenset(host.node_address for host in ctx.params.hosts)
    whose = Whose(ctx.plugin, ctx.params.effective_pod_cidr, peers)
    facts = ctx.facts()
    return {name: removals(name, facts[name], whose) for name in in_the_cluster(ctx)}


class Unplug(Stage):
    """The plugin's objects deleted, every host clean of it, the nodes NotReady."""

    name = "unplug"
    title = "Take the network plugin out of the cluster, and clean the hosts"
    needs_api = True

    def plan(self, ctx: Context) -> Plan:
        """Return the pods' end, the objects' deletion, each host's clean-up; none where it is gone.

        Raises:
            ParamsError: The manifest cannot be read, and the control plane has no copy of it.
            PreconditionError: A host took its way back from the plugin, and its kubelet is stopped.
        """
        kube = ctx.kube()
        way_back.stop_where_taken(ctx, in_the_cluster(ctx))
        objects = there(ctx)
        on_hosts = [action for actions in traces(ctx).values() for action in actions]
        pods = cut_off(kube).ended if objects or on_hosts else {}
        own = {f"{load.namespace}/{load.name}-" for load in ctx.plugin.workloads}
        others = [name for name in pods.values() if not name.startswith(tuple(own))]
        actions: list[Action] = []
        if others:
            actions += [
                Action(CLUSTER, "keep new pods away from the nodes meanwhile, by a taint",
                       do=lambda hands: _taint(ctx, hands)),
                Action(CLUSTER, f"end pods on its network, which are made anew on the next: "
                       f"{', '.join(sorted(others))}", do=_ender(ctx, tuple(own))),
            ]  # fmt: skip
        actions += _deletions(ctx, objects)
        noted = _marked(ctx, kube)
        if noted:
            actions.append(
                Action(
                    CLUSTER,
                    f"take its annotations and labels off {', '.join(noted)}",
                    do=lambda hands: _unmark(ctx, hands),
                )
            )
        actions += on_hosts
        if actions and has_copy(ctx):
            actions.append(forget_copy(ctx))
        free = Action(CLUSTER, "take the taint off the nodes again", do=lambda h: _untaint(ctx, h))
        if not actions:
            tainted = (free,) if _tainted(kube) else ()
            return Plan(tainted, f"nothing to do: no trace of {ctx.plugin.title}")
        return Plan(tuple(actions), cleanup=(free,) if others or _tainted(kube) else ())

    def check(self, ctx: Context) -> list[Check]:
        """Return that no object and no trace is left, and that no node is Ready."""
        objects = there(ctx)
        pods = sorted(pods_of(ctx, objects).values())
        rest = list(filter(None, [title_of(objects), ", ".join(f"pod {pod}" for pod in pods)]))
        checks = [
            Check.that(
                not rest,
                "unplug.objects",
                CLUSTER,
                f"the cluster has nothing of {ctx.plugin.title}",
                got="; ".join(rest) or "nothing",
                expected="none of its objects and pods",
                remedy="run the same command again",
            )
        ]
        for name, actions in traces(ctx).items():
            checks.append(
                Check.that(
                    not actions,
                    "unplug.clean",
                    name,
                    f"nothing of {ctx.plugin.title} is left",
                    got="; ".join(action.what for action in actions) or "clean",
                    expected="a host that the next plugin finds clean",
                    remedy="look at the record of this stage: a command did not remove it",
                )
            )
        return [*checks, *_not_ready(ctx)]


def _deletions(ctx: Context, objects: Sequence[Obj]) -> list[Action]:
    planned = steps(ctx.kube(), objects)
    actions = []
    if not any(step.makes_pods for step in planned) and pods_of(ctx, objects):
        late = Step("", (), makes_pods=True)  # a run before this one deleted what made them

        def wait(hands: Hands) -> None:
            remove_step(ctx, hands, late, objects)

        actions.append(Action(CLUSTER, "wait until its own pods are gone", do=wait))
    for step in planned:
        what = f"delete {step.what}" + ("; wait for their pods" if step.makes_pods else "")
        actions.append(Action(CLUSTER, what, do=_remover(ctx, objects, step.what)))
    return actions


def _remover(ctx: Context, objects: Sequence[Obj], what: str) -> Callable[[Hands], None]:
    def do(hands: Hands) -> None:
        # Paths are learnt anew: a deletion before this one may have taken a kind away.
        for step in steps(hands.kube(), objects):
            if step.what == what:
                remove_step(ctx, hands, step, objects)

    return do


def _ender(ctx: Context, own: tuple[str, ...]) -> Callable[[Hands], None]:
    """Return what ends the pods on the plugin's network, and waits until they are gone."""

    def do(hands: Hands) -> None:
        pods = {u: n for u, n in cut_off(hands.kube()).ended.items() if not n.startswith(own)}
        deadline = Deadline(ctx.params.timeouts.unplug, "pods gone")
        for name in pods.values():
            namespace, _, pod = name.partition("/")
            hands.kube().delete(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        while True:
            try:
                there_now = {p["metadata"]["uid"] for p in hands.kube().items("/api/v1/pods")}
            except ApiError as error:
                if not error.retryable or deadline.left < EVERY:
                    raise
                there_now = set(pods)
            left = [name for uid, name in pods.items() if uid in there_now]
            if not left:
                return
            if deadline.left < EVERY:
                raise DeadlineError(
                    f"pods not gone within {ctx.params.timeouts.unplug:g} s: {', '.join(left)}",
                    remedy="kubectl describe says what they wait for: a finalizer, or a node that "
                    "does not answer",
                )
            ctx.waiting(CLUSTER, f"pods to end: {', '.join(left[:5])}")
            deadline.sleep(EVERY)

    return do


def _not_ready(ctx: Context) -> list[Check]:
    """Return for each node that it is NotReady again, waited for: its network is gone."""
    names, deadline = in_the_cluster(ctx), Deadline(NOT_READY_SECONDS, "nodes NotReady")
    while True:
        nodes = ctx.kube().items("/api/v1/nodes")
        ready = {n["metadata"]["name"] for n in nodes if ready_condition(n).get("status") == "True"}
        if not ready & set(names) or deadline.left < EVERY:
            break
        ctx.waiting(CLUSTER, f"NotReady: {', '.join(sorted(ready & set(names)))}")
        deadline.sleep(EVERY)
    facts = ctx.facts()
    checks = []
    for name in names:
        other = facts[name].cni.in_force
        status = Status.PASS if name not in ready else Status.WARN if other else Status.FAIL
        bad = status is not Status.PASS
        checks.append(
            Check(
                "unplug.not-ready",
                name,
                status,
                "the Node is NotReady: it has no network",
                got=f"Ready by {other.name}" if other and bad else "Ready" if bad else "NotReady",
                expected="NotReady" if bad else "",
                remedy=f"another network's file is in force there: remove {other.name}, if it is "
                "no other's that you want"
                if other and bad
                else "is its kubelet at work? journalctl -u kubelet"
                if bad
                else "",
            )
        )
    outside = [n["metadata"]["name"] for n in nodes if n["metadata"]["name"] not in names]
    checks += [
        Check("unplug.clean", name, Status.WARN, f"nothing of {ctx.plugin.title} is left",
              got="it is no host of the parameters, and was not cleaned", expected="a clean host",
              remedy="name it in the parameters, and run the same command again")
        for name in outside
    ]  # fmt: skip
    return checks


def _kubectl(ctx: Context, hands: Hands, *words: str) -> None:
    hands.run(ctx.administrator.name, Cmd.change("kubectl", *words, env=KUBECONFIG))


def _taint(ctx: Context, hands: Hands) -> None:
    _kubectl(ctx, hands, "taint", "nodes", "--all", "--overwrite", f"{TAINT}=:NoSchedule")


def _untaint(ctx: Context, hands: Hands) -> None:
    names = _tainted(hands.kube())
    if names:
        _kubectl(ctx, hands, "taint", "nodes", *names, f"{TAINT}-")


def _tainted(kube: Kube) -> list[str]:
    return [
        node["metadata"]["name"]
        for node in kube.items("/api/v1/nodes")
        if any(taint["key"] == TAINT for taint in node["spec"].get("taints") or [])
    ]


def _marked(ctx: Context, kube: Kube) -> dict[str, tuple[list[str], list[str]]]:
    """Return Node -> the annotations that the plugin wrote, and the labels that it was given."""
    patterns, needs = ctx.plugin.leftovers.node_annotations, ctx.plugin.needs
    asked = {host.name: host.labels for host in ctx.params.hosts}
    found = {}
    for node in kube.items("/api/v1/nodes"):
        meta = node["metadata"]
        notes = [key for key in meta.get("annotations") or {} if matches(key, patterns)]
        own = {*needs.node_labels, *needs.control_plane_labels} - {*asked.get(meta["name"], ())}
        labels = sorted(own & {*(meta.get("labels") or {})})
        if notes or labels:
            found[meta["name"]] = (notes, labels)
    return found


def _unmark(ctx: Context, hands: Hands) -> None:
    for name, (notes, labels) in _marked(ctx, hands.kube()).items():
        for verb, keys in (("annotate", notes), ("label", labels)):
            if keys:
                _kubectl(ctx, hands, verb, "node", name, *(f"{key}-" for key in keys))
