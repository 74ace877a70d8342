"""Which pods of a node go, which stay, what is refused; evictions that a budget holds back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kitlib.errors import ApiError, DeadlineError, PreconditionError
from kitlib.kube import Kube
from kitlib.stages import drain
from kitlib.stages.agent_objects import LABEL
from kitlib.stages.drain import Drain, evict, eviction_version, load_of, sort_pods

RECORDED = (Path(__file__).parent / "data/membership/drain-w2.txt").read_text()
GUARD = "The disruption budget guard needs 2 healthy pods and has 2 currently"


def pod(name: str, owner: str = "", **more: Any) -> dict[str, Any]:
    """Return a pod `namespace/name` whose controller is of this kind."""
    namespace, _, short = name.partition("/")
    meta: dict[str, Any] = {"namespace": namespace, "name": short, "uid": f"uid-{name}"}
    if owner:
        controller = {"kind": owner, "name": short.rpartition("-")[0], "controller": True}
        meta["ownerReferences"] = [controller]
    found = {"metadata": meta, "spec": {}, "status": {"phase": "Running"}}
    for key, value in more.items():
        found[key] = {**found[key], **value}
    return found


def names(load: drain.Load) -> list[str]:
    return [drain.shown(each) for each in load.evicted]


def test_the_same_pods_go_and_stay_as_in_the_recorded_drain() -> None:
    evicted = re.findall(r"^evicting pod (\S+)", RECORDED, re.MULTILINE)
    alone = re.findall(r"not managed by [^:]*: (\S+);", RECORDED)
    (kept,) = re.findall(r"ignoring DaemonSet-managed Pods: (.*)", RECORDED)
    pods = [pod(name, "" if name in alone else "ReplicaSet") for name in evicted]
    pods += [pod(name, "DaemonSet") for name in kept.split(", ")]
    load = sort_pods(pods, lambda *_: True)
    assert names(load) == evicted == ["default/p2", "kube-system/coredns-78fcd69978-dpzdt",
                                      "kube-system/coredns-78fcd69978-6pc2q"]  # fmt: skip
    assert list(load.alone) == alone == ["default/p2"]


@pytest.mark.parametrize(
    ("each", "goes", "refused"),
    [
        (pod("a/static", metadata={"annotations": {drain._MIRROR: "x"}}), 0, ""),
        (pod("a/web-1", "ReplicaSet"), 1, ""),
        (pod("a/db-0", "StatefulSet"), 1, ""),
        (pod("a/job-1", "Job", status={"phase": "Succeeded"}), 1, ""),
        (pod("a/ended", status={"phase": "Failed"}), 1, ""),
        (pod("a/alone"), 1, "nothing makes these pods anew elsewhere: a/alone"),
        (pod("a/agent-1", "DaemonSet"), 0, ""),
        (pod("gone/agent-1", "DaemonSet"), 1, "nothing makes these pods anew"),
        (pod("gone/agent-1", "DaemonSet", status={"phase": "Succeeded"}), 1, ""),
        (pod("a/c-1", "ReplicaSet", spec={"volumes": [{"name": "v", "emptyDir": {}}]}), 1,
         r"data on the host \(emptyDir\): a/c-1"),
        (pod("a/c-1", "ReplicaSet", spec={"volumes": [{"name": "v", "configMap": {}}]}), 1, ""),
        (pod("kit-probe-1/probe", metadata={"labels": dict([LABEL.split("=")])}), 1, ""),
    ],
)  # fmt: skip
def test_what_becomes_of_a_pod(each: dict[str, Any], goes: int, refused: str) -> None:
    load = sort_pods([each], lambda namespace, name: namespace != "gone")
    assert len(load.evicted) == goes
    assert re.search(refused, load.refusal)
    assert bool(load.refusal) == bool(refused)


class FakeKube:
    """An API with pods on one node; a budget may hold them back for some tries."""

    def __init__(self, *pods: dict[str, Any], resources: Sequence[dict[str, Any]] = ()) -> None:
        self.pods = {each["metadata"]["uid"]: each for each in pods}
        self.resources = list(resources)
        self.asked: list[tuple[str, str]] = []
        self.deleted: list[str] = []
        self.refuse: Callable[[str], ApiError | None] = lambda path: None

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        if path == "/api/v1/nodes":
            return [{"metadata": {"name": "w-2"}, "spec": {}}]
        assert (path, query) == ("/api/v1/pods", {"fieldSelector": "spec.nodeName=w-2"})
        return list(self.pods.values())

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/api/v1"
        return {"resources": self.resources}

    def find(self, path: str) -> dict[str, Any] | None:
        return None if "/gone/" in path else {"spec": {}}

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((path, body["apiVersion"]))
        error = self.refuse(path)
        if error:
            raise error
        self._end(path)
        return {}

    def delete(self, path: str) -> None:
        self.deleted.append(path)
        self._end(path)

    def _end(self, path: str) -> None:
        namespace, name = re.findall(r"namespaces/([^/]+)/pods/([^/]+)", path)[0]
        self.pods.pop(f"uid-{namespace}/{name}")


@pytest.mark.parametrize(
    ("resources", "version"),
    [
        ([{"name": "pods/eviction", "group": "policy", "version": "v1"}], "policy/v1"),
        ([{"name": "pods/eviction", "group": "policy", "version": "v1beta1"}], "policy/v1beta1"),
        ([{"name": "pods/eviction"}, {"name": "pods"}], "policy/v1beta1"),
        ([], "policy/v1beta1"),
    ],
)
def test_evictions_are_asked_for_as_the_api_speaks_them(
    resources: list[dict[str, Any]], version: str
) -> None:
    web = pod("default/web-1", "ReplicaSet")
    kube: Any = FakeKube(web, resources=resources)
    assert eviction_version(kube) == version
    assert evict(kube, web, version) == ""
    path = "/api/v1/namespaces/default/pods/web-1/eviction"
    assert kube.asked == [(path, version)]


def refusal(status: int, message: str) -> Callable[[str], ApiError]:
    return lambda path: ApiError(f"POST {path}: {message}", status=status)


@pytest.mark.parametrize(
    ("status", "message", "held"),
    [
        (429, f"Cannot evict pod. {GUARD}", True),
        (500, "This pod has more than one PodDisruptionBudget", True),
        (0, "no answer", True),
        (403, "namespace x is being terminated", True),
        (404, 'pods "web-1" not found', False),
    ],
)
def test_what_time_may_cure_holds_a_pod_back(status: int, message: str, held: bool) -> None:
    web = pod("default/web-1", "ReplicaSet")
    kube: Any = FakeKube(web)
    kube.refuse = refusal(status, message)
    assert evict(kube, web, "policy/v1") == (message if held else "")


def test_another_refusal_is_an_error() -> None:
    web = pod("default/web-1", "ReplicaSet")
    kube: Any = FakeKube(web)
    kube.refuse = refusal(403, "User cannot create resource pods/eviction")
    with pytest.raises(ApiError, match="cannot create resource"):
        evict(kube, web, "policy/v1")


class FakeContext:
    """A context whose node w-2 has a kubelet of the cluster."""

    keep = False

    def __init__(self, kube: FakeKube, seconds: float = 0.2) -> None:
        self._kube: Any = kube
        self.params = SimpleNamespace(timeouts=SimpleNamespace(drain=seconds))
        self.said: list[str] = []
        self.done: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.journal = SimpleNamespace(event=lambda kind, **data: self.said.append(str(data)))
        self.doors = SimpleNamespace()

    def kube(self, **_: Any) -> Any:
        return self._kube

    def facts(self) -> dict[str, Any]:
        return {"w-2": SimpleNamespace(kubeadm=SimpleNamespace(joined=True))}

    def waiting(self, host: str, text: str) -> None:
        self.said.append(f"{host}: {text}")

    def perform(self, action: Any) -> None:
        self.done.append(action.what.partition(":")[0])
        if action.target == "w-2":
            action.do(SimpleNamespace(kube=self.kube))


def run(ctx: Any, *, force: bool = False) -> None:
    stage = Drain(["w-2"], force=force)
    stage.apply(ctx, stage.plan(ctx))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "EVERY", 0.01)
    monkeypatch.setattr(drain, "AGAIN", 0.02)
    monkeypatch.setattr(drain, "FORCED_SECONDS", 0.2)


def test_a_pod_that_a_budget_holds_back_goes_when_the_budget_allows_it() -> None:
    kube = FakeKube(pod("default/web-1", "ReplicaSet"))
    kube.refuse = lambda path: refusal(429, GUARD)(path) if len(kube.asked) < 3 else None
    ctx = FakeContext(kube, seconds=60)
    run(ctx)
    assert ctx.done == ["cordon w-2", "evict default/web-1"]
    assert len(kube.asked) == 3
    assert any(f"w-2: pod default/web-1: {GUARD}" in said for said in ctx.said)


def test_a_budget_that_never_allows_it_is_a_failure_that_names_pod_and_budget() -> None:
    kube = FakeKube(pod("default/web-1", "ReplicaSet"), pod("default/other-1", "ReplicaSet"))
    kube.refuse = lambda path: refusal(429, GUARD)(path) if "web" in path else None
    ctx = FakeContext(kube)
    with pytest.raises(DeadlineError, match="w-2: not drained within") as caught:
        run(ctx)
    assert f"pod default/web-1: {GUARD}" in str(caught.value)
    assert "other-1" not in str(caught.value)
    assert kube.deleted == []
    assert ctx.done[-1] == "uncordon w-2", "what was begun is undone"


def test_force_deletes_what_the_budget_holds_back_when_the_time_is_over() -> None:
    kube = FakeKube(pod("default/web-1", "ReplicaSet"), pod("default/alone"))
    kube.refuse = lambda path: refusal(429, GUARD)(path) if "web" in path else None
    ctx = FakeContext(kube)
    run(ctx, force=True)
    assert kube.deleted == ["/api/v1/namespaces/default/pods/web-1"]
    assert ctx.done == ["cordon w-2", "evict default/web-1, default/alone"]
    assert any("deleted after all" in said for said in ctx.said)


def test_an_api_that_does_not_answer_is_waited_for_and_is_no_empty_node() -> None:
    kube = FakeKube(pod("default/web-1", "ReplicaSet"))
    real, broken = kube.items, [3]

    def items(path: str, **query: str) -> list[dict[str, Any]]:
        if query and ctx.done and broken[0]:
            broken[0] -= 1
            raise ApiError("GET: no answer")
        return real(path, **query)

    ctx = FakeContext(kube, seconds=60)
    kube.items = items  # type: ignore[method-assign]
    run(ctx)
    assert kube.pods == {}
    kube = FakeKube(pod("default/web-1", "ReplicaSet"))
    ctx, broken = FakeContext(kube), [10**9]
    real = kube.items
    kube.items = items  # type: ignore[method-assign]
    with pytest.raises(ApiError, match="no answer"):
        run(ctx)


def test_nothing_is_cordoned_where_something_would_be_lost_for_good() -> None:
    ctx = FakeContext(FakeKube(pod("default/alone")))
    with pytest.raises(PreconditionError, match=r"w-2: not drained: .*default/alone") as caught:
        run(ctx)
    assert "--force" in caught.value.remedy
    assert ctx.done == []


def test_a_pod_that_comes_meanwhile_is_judged_like_the_others() -> None:
    kube = FakeKube(pod("default/web-1", "ReplicaSet"))
    kube.refuse = refusal(429, GUARD)
    ctx = FakeContext(kube, seconds=60)
    real = ctx.waiting

    def waiting(host: str, text: str) -> None:
        kube.pods["uid-default/late"] = pod("default/late")
        real(host, text)

    ctx.waiting = waiting  # type: ignore[method-assign]
    with pytest.raises(PreconditionError, match="default/late"):
        run(ctx)
    assert ctx.done[-1] == "uncordon w-2"


def test_the_cause_of_a_refused_eviction_is_in_the_error() -> None:
    body = (
        '{"kind":"Status","status":"Failure","reason":"TooManyRequests","code":429,'
        '"message":"Cannot evict pod as it would violate the pod\'s disruption budget.",'
        f'"details":{{"causes":[{{"reason":"DisruptionBudget","message":"{GUARD}"}}]}}}}'
    )
    error = Kube._status_error("POST /x", 429, body)
    assert error.message == (
        f"POST /x: Cannot evict pod as it would violate the pod's disruption budget. {GUARD}"
    )
    assert error.retryable


def test_the_pods_of_the_node_alone_are_asked_for() -> None:
    kube: Any = FakeKube(pod("gone/agent-1", "DaemonSet"), pod("a/agent-1", "DaemonSet"))
    assert names(load_of(kube, "w-2")) == ["gone/agent-1"]
