"""Probe pods: one on every node, in a namespace of their own that is always removed again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kitlib.command import Cmd
from kitlib.errors import ApiError, KitError
from kitlib.kube import Kube, Obj
from kitlib.model import CLUSTER, CommandResult
from kitlib.retry import Deadline, until
from kitlib.stages.base import Action, Context, Hands

__all__ = ["LABEL", "ProbeSet", "in_pod", "probe_pods", "remove_all"]

LABEL = "app.kubernetes.io/managed-by=cluster-network-kit"
_LABELS = dict([LABEL.split("=")])
GONE_SECONDS = 60
EXEC_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """A namespace with one probe pod on every node, planned.

    Attributes:
        namespace: Its name, new for every use.
        nodes: The nodes.
        image: The image; it must have ping, nslookup and sleep.
    """

    namespace: str
    nodes: tuple[str, ...]
    image: str

    @classmethod
    def of(cls, ctx: Context, nodes: Sequence[str] = ()) -> ProbeSet:
        """Return a new set for these nodes; for every host of the inventory where none is named."""
        name = f"kit-probe-{secrets.token_hex(3)}"
        names = tuple(nodes) or tuple(host.name for host in ctx.hosts)
        return cls(name, names, ctx.params.probe.image)

    @property
    def create(self) -> Action:
        """The action that makes the namespace and the pods."""
        what = f"create namespace {self.namespace} with a probe pod on each of {len(self.nodes)} "
        return Action(CLUSTER, f"{what}nodes ({self.image})", do=self._create)

    @property
    def remove(self) -> Action:
        """The action that removes them and waits until they are gone."""
        return Action(CLUSTER, f"remove namespace {self.namespace}", do=self._remove)

    def _create(self, hands: Hands) -> None:
        kube = hands.kube()
        _remove_namespaces(kube, _stale(kube))
        kube.create(
            "/api/v1/namespaces",
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": self.namespace, "labels": _LABELS},
            },
        )
        # Pods are admitted once the namespace has its default service account.
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        until(
            lambda: kube.find(path),
            Deadline(30, f"the default service account of {self.namespace}"),
            every=0.1,
        )
        for node in self.nodes:
            kube.create(f"/api/v1/namespaces/{self.namespace}/pods", self._pod(node))

    def _remove(self, hands: Hands) -> None:
        _remove_namespaces(hands.kube(), [self.namespace])

    def _pod(self, node: str) -> Obj:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"probe-{node}", "labels": {**_LABELS, "kit/node": node}},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {
                        "name": "probe",
                        "image": self.image,
                        "command": ["sleep", "86400"],
                        "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
                    }
                ],
            },
        }


def in_pod(ctx: Context, probes: ProbeSet, node: str, cmd: Cmd) -> CommandResult:
    """Return what a command in a node's probe pod did; one that the API lost is tried once more.

    Raises:
        ApiError: It could not be started, or was lost twice.
        CommandError: It did not end in time.
    """
    limit = cmd.timeout or EXEC_SECONDS
    for last in (False, True):
        try:
            return ctx.kube(wait=10).exec(probes.namespace, f"probe-{node}", cmd, timeout=limit)
        except ApiError as error:
            if last or not error.retryable:
                raise
            ctx.journal.event("note", text=f"{node}: tried once more: {error.message}")
    raise AssertionError("unreachable")


@contextmanager
def probe_pods(ctx: Context, probes: ProbeSet) -> Iterator[list[Obj]]:
    """Yield the running probe pods; they are removed whatever happens meanwhile.

    With `keep` those of a failure stay, until the next probe pods are made.

    Pods that do not run within `timeouts.verify` seconds are yielded as they are: the caller's
    checks judge them.
    """
    try:
        ctx.perform(probes.create)
        yield _running(ctx, probes)
    except BaseException:
        if ctx.keep:
            ctx.journal.event("note", text=f"kept: namespace {probes.namespace}")
        else:
            with contextlib.suppress(KitError):  # must not hide what went wrong before it
                ctx.perform(probes.remove)
        raise
    ctx.perform(probes.remove)


def remove_all(ctx: Context) -> None:
    """Remove every probe namespace, also one that an interrupted run left.

    Raises:
        ApiError: There is no API; it is not waited for, as the person wants an end.
    """
    kube = ctx.kube(wait=0)
    action = Action(
        CLUSTER,
        "remove the probe namespaces",
        do=lambda _: _remove_namespaces(kube, _stale(kube)),
    )
    ctx.read_only = False
    ctx.perform(action)


def _running(ctx: Context, probes: ProbeSet) -> list[Obj]:
    deadline = Deadline(ctx.params.timeouts.verify, "probe pods running")
    while True:
        pods = ctx.kube().items(f"/api/v1/namespaces/{probes.namespace}/pods")
        waiting = [pod for pod in pods if not _runs(pod)]
        if (not waiting and len(pods) == len(probes.nodes)) or deadline.left < 1:
            return pods
        for pod in waiting:
            ctx.waiting(pod["spec"]["nodeName"], f"probe pod: {_why(pod)}")
        deadline.sleep(0.3)


def _runs(pod: Obj) -> bool:
    status = pod.get("status", {})
    return status.get("phase") == "Running" and bool(status.get("podIP"))


def _why(pod: Obj) -> str:
    for part in pod.get("status", {}).get("containerStatuses") or []:
        waiting = part.get("state", {}).get("waiting")
        if waiting:
            return str(waiting.get("reason"))
    return str(pod.get("status", {}).get("phase", "Pending"))


def _stale(kube: Kube) -> list[str]:
    found = kube.items("/api/v1/namespaces", labelSelector=LABEL)
    return [item["metadata"]["name"] for item in found]


def _remove_namespaces(kube: Kube, names: list[str]) -> None:
    for name in names:
        kube.delete(f"/api/v1/namespaces/{name}")
    for name in names:
        deadline = Deadline(GONE_SECONDS, f"namespace {name} gone")
        while kube.find(f"/api/v1/namespaces/{name}") is not None:
            deadline.pause(
                0.3,
                remedy=f"kubectl get all -n {name}; a node that does not answer keeps its pods",
            )
