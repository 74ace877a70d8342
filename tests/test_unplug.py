"""A plugin's removal: what goes in which order, what is waited for, and who has to say so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kitlib import unplug
from kitlib.checks import FoundCluster
from kitlib.confirming import confirm
from kitlib.errors import DeadlineError, GuardError, Interrupted
from kitlib.plugins import get
from kitlib.stages import plugin_objects
from kitlib.stages.plugin_objects import remove_step, steps, there
from kitlib.stages.unplug import cut_off

GROUPS: dict[str, dict[str, tuple[str, bool]]] = {
    "/api/v1": {"Namespace": ("namespaces", False), "ConfigMap": ("configmaps", True)},
    "/apis/apps/v1": {"DaemonSet": ("daemonsets", True), "Deployment": ("deployments", True)},
    "/apis/rbac.authorization.k8s.io/v1": {"ClusterRole": ("clusterroles", False)},
    "/apis/apiextensions.k8s.io/v1": {
        "CustomResourceDefinition": ("customresourcedefinitions", False)
    },
    "/apis/admissionregistration.k8s.io/v1": {
        "ValidatingWebhookConfiguration": ("validatingwebhookconfigurations", False)
    },
}
WORDS = {kind: base for base, kinds in GROUPS.items() for kind in kinds}


class Api:
    """An API that has objects by path; deleting one takes it away, unless a finalizer holds it."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.deleted: list[tuple[str, str]] = []

    def find(self, path: str) -> dict[str, Any] | None:
        if path in GROUPS:
            kinds = GROUPS[path].items()
            return {
                "resources": [
                    {"kind": k, "name": n, "namespaced": space} for k, (n, space) in kinds
                ]
            }
        return self.objects.get(path)

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        if "customresourcedefinitions" in path:
            return [o for p, o in self.objects.items() if p.startswith(path)]
        return self.pods

    def delete(self, path: str, *, policy: str) -> None:
        self.deleted.append((path, policy))
        if not self.objects.get(path, {"metadata": {}})["metadata"].get("finalizers"):
            self.objects.pop(path, None)


def thing(kind: str, name: str, space: str = "", **more: Any) -> dict[str, Any]:
    version = WORDS.get(kind, "/apis/example.org/v1").split("/", 2)[2]
    meta = {"name": name, **({"namespace": space} if space else {})}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **more}


MANIFEST = [
    thing("Namespace", "net"),
    thing("CustomResourceDefinition", "a.example.org"),
    thing("CustomResourceDefinition", "b.example.org"),
    thing("ConfigMap", "conf", "net"),
    thing("Widget", "w", "net"),  # of a kind that is not served any more
    thing("ClusterRole", "role"),
    thing("DaemonSet", "agent", "net"),
    thing("ValidatingWebhookConfiguration", "hook"),
]


def test_what_others_need_goes_later() -> None:
    found = steps(Api(), MANIFEST)  # type: ignore[arg-type]
    assert [step.what for step in found] == [
        "ValidatingWebhookConfiguration hook",
        "DaemonSet net/agent",
        "ClusterRole role; Widget net/w; ConfigMap net/conf",
        "2 CustomResourceDefinitions and all that they define",
        "Namespace net and all in it",
    ]
    assert [step.makes_pods for step in found] == [False, True, False, False, False]
    assert found[2].paths == (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/role",
        "/api/v1/namespaces/net/configmaps/conf",
    )
    assert steps(Api(), []) == []  # type: ignore[arg-type]


def context(api: Api, name: str = "flannel", copy: str = "") -> Any:
    result = SimpleNamespace(ok=bool(copy), stdout=copy)
    return SimpleNamespace(
        plugin=get(name),
        kube=lambda: api,
        administrator=SimpleNamespace(name="cp"),
        doors=SimpleNamespace(quietly=lambda host, cmd: result),
        params=SimpleNamespace(timeouts=SimpleNamespace(unplug=0.3)),
        waiting=lambda host, text: told.append(text),
        told=(told := []),
    )


COPY = """\
apiVersion: v1
kind: Namespace
metadata: {name: kube-flannel}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gone, namespace: kube-flannel}
"""


def test_what_is_there_is_what_was_applied_and_what_the_catalogue_knows() -> None:
    api = Api()
    for path in (
        "/api/v1/namespaces/kube-flannel",
        "/api/v1/namespaces/kube-system",
        "/apis/apps/v1/namespaces/kube-flannel/daemonsets/kube-flannel-ds",
    ):
        api.objects[path] = {"metadata": {}}
    found = there(context(api, copy=COPY))
    assert [(item["kind"], item["metadata"]["name"]) for item in found] == [
        ("Namespace", "kube-flannel"),
        ("DaemonSet", "kube-flannel-ds"),
    ], "never a namespace that every cluster has"


def test_definitions_that_a_plugins_pods_made_are_found_by_their_group() -> None:
    api = Api()
    base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    api.objects[base] = {"metadata": {}}
    for name, group in (("x.cilium.io", "cilium.io"), ("y.example.org", "example.org")):
        item = {"metadata": {"name": name}, "spec": {"group": group}}
        api.objects[f"{base}/{name}"] = item
    api.items = lambda path, **query: [api.objects[f"{base}/x.cilium.io"],  # type: ignore[method-assign]
                                       api.objects[f"{base}/y.example.org"]]  # fmt: skip
    found = there(context(api, "cilium", copy=COPY))
    assert [item["metadata"]["name"] for item in found] == ["x.cilium.io"]


def test_pods_are_waited_for_and_what_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_objects, "EVERY", 0.05)
    api = Api()
    (hooks, pods, *_) = steps(api, MANIFEST)  # type: ignore[arg-type]
    api.objects[pods.paths[0]] = {"metadata": {}}
    api.pods = [{"metadata": {"uid": "1", "namespace": "net", "name": "agent-x"}}]
    ctx = context(api)
    hands: Any = SimpleNamespace(kube=lambda: api)
    with pytest.raises(DeadlineError, match=r"not gone within 0.3 s: pod net/agent-x"):
        remove_step(ctx, hands, pods, MANIFEST)
    assert api.deleted == [(pods.paths[0], "Background")], "an old API would orphan the pods"
    api.pods = []
    remove_step(ctx, hands, pods, MANIFEST)

    api.objects[hooks.paths[0]] = {"metadata": {"finalizers": ["example.org/wait"]}}
    with pytest.raises(DeadlineError, match=r"hook \(finalizers: example.org/wait\)") as caught:
        remove_step(ctx, hands, hooks, MANIFEST)
    assert "take the finalizer off" in caught.value.remedy


def pod(name: str, *, address: str = "10.244.0.2", owned: bool = True, **spec: Any) -> Any:
    owner = [{"controller": True, "kind": "ReplicaSet", "name": "x"}] if owned else []
    meta = {"namespace": "d", "name": name, "uid": name, "ownerReferences": owner}
    status = {"podIP": address, "phase": "Running"} if address else {"phase": "Pending"}
    return {"metadata": meta, "spec": spec, "status": status}


def test_who_is_cut_off() -> None:
    api: Any = Api()
    api.pods = [
        pod("web"),
        pod("alone", owned=False),
        pod("proxy", hostNetwork=True),
        pod("waiting", address=""),
    ]
    found = cut_off(api)
    assert list(found.ended.values()) == ["d/web"]
    assert found.stay == ("d/alone",)


def test_somebody_has_to_say_so() -> None:
    cluster = FoundCluster("sha256:1", "c", "https://192.0.2.1:6443", ("cp",), False)
    planned = unplug.Unplugging("Flannel", cluster, ("pods: d/web",), False)
    with pytest.raises(GuardError, match="d/web") as caught:
        confirm(planned, None)
    assert '--confirm "sha256:1"' in caught.value.remedy
    with pytest.raises(Interrupted, match="nothing was changed"):
        confirm(planned, lambda what: False)
    confirm(planned, lambda what: "d/web" in what)
    confirm(unplug.Unplugging("Flannel", cluster, (), False), None)
    confirm(unplug.Unplugging("Flannel", cluster, ("x",), True), None)
