"""What an API version fills in, warns of, shows and refuses; definitions and their objects."""

from __future__ import annotations

from typing import Any

import pytest
from controlkit import Cluster, cluster, workload

from kitlib.lab.api import admission, defaults, lifecycle, schema, validate_pods
from kitlib.lab.api.errors import ApiError
from kitlib.lab.api.schema import CRDS
from kitlib.lab.api.store import Obj, copy
from kitlib.lab.api.watch import present


def filled(version: str, kind: str, minor: int = 15, **spec: Any) -> Obj:
    obj = {"apiVersion": version, "metadata": {"name": "x"}, "spec": {**workload(), **spec}}
    obj["spec"].pop("selector", None)
    defaults.apply_defaults(kind, obj, minor)
    return obj


@pytest.mark.parametrize(
    ("version", "selector", "strategy", "history", "deadline"),
    [
        ("extensions/v1beta1", True, 1, 2147483647, 2147483647),
        ("apps/v1beta1", True, "25%", 2, 600),
        ("apps/v1beta2", False, "25%", 10, 600),
        ("apps/v1", False, "25%", 10, 600),
    ],
)
def test_each_version_has_its_own_defaults_of_deployments(
    version: str, selector: bool, strategy: Any, history: int, deadline: int
) -> None:
    obj = filled(version, "apps/deployments")
    spec = obj["spec"]
    labels = {"app": "web"}
    assert spec.get("selector") == ({"matchLabels": labels} if selector else None)
    assert obj["metadata"].get("labels") == (labels if selector else None)
    rolling = {"maxUnavailable": strategy, "maxSurge": strategy}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (history, deadline)


def test_daemon_sets_of_the_oldest_version_are_updated_on_delete_only() -> None:
    old = filled("extensions/v1beta1", "apps/daemonsets")
    assert old["spec"]["updateStrategy"] == {"type": "OnDelete"}
    new = filled("apps/v1", "apps/daemonsets", 22)
    rolling = {"maxUnavailable": 1, "maxSurge": 0}
    assert new["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}


async def test_what_one_version_stored_another_one_shows() -> None:
    async with cluster(15) as c:
        resources = c.registry.catalogue.resources
        old = resources["extensions", "v1beta1", "daemonsets"]
        new = resources["apps", "v1", "daemonsets"]
        given = {"metadata": {"name": "net"}, "spec": {**workload(), "templateGeneration": 3}}
        del given["spec"]["selector"]
        c.registry.create(old, "default", {**given, "apiVersion": "extensions/v1beta1",
                                           "kind": "DaemonSet"})  # fmt: skip
        shown = present(c.registry.get(new, "default", "net"), new)
        assert shown["apiVersion"] == "apps/v1"
        assert shown["spec"]["selector"] == {"matchLabels": {"app": "web"}}
        assert "templateGeneration" not in shown["spec"]
        assert shown["metadata"]["annotations"][defaults.TEMPLATE_GENERATION] == "3"
        back = present(c.registry.get(old, "default", "net"), old)
        assert (back["apiVersion"], back["spec"]["templateGeneration"]) == ("extensions/v1beta1", 3)
        shown = copy(shown)
        shown["spec"]["template"]["spec"]["hostNetwork"] = True
        c.registry.update(new, "default", "net", shown)
        back = present(c.registry.get(old, "default", "net"), old)
        assert back["spec"]["template"]["spec"]["hostNetwork"] is True
        refused = {**workload(), "selector": None}
        with pytest.raises(ApiError, match=r"`selector` does not match template `labels`"):
            c.registry.create(new, "default", {"metadata": {"name": "b"}, "spec": refused})


@pytest.mark.parametrize(
    ("minor", "version", "plural", "text"),
    [
        (18, "rbac.authorization.k8s.io/v1beta1", "clusterroles", ""),
        (19, "rbac.authorization.k8s.io/v1beta1", "clusterroles",
         "rbac.authorization.k8s.io/v1beta1 ClusterRole is deprecated in v1.17+, unavailable in "
         "v1.22+; use rbac.authorization.k8s.io/v1 ClusterRole"),
        (20, "policy/v1beta1", "podsecuritypolicies", ""),
        (21, "policy/v1beta1", "podsecuritypolicies",
         "policy/v1beta1 PodSecurityPolicy is deprecated in v1.21+, unavailable in v1.25+"),
        (24, "policy/v1beta1", "poddisruptionbudgets",
         "policy/v1beta1 PodDisruptionBudget is deprecated in v1.21+, unavailable in v1.25+; "
         "use policy/v1 PodDisruptionBudget"),
        (24, "apps/v1", "daemonsets", ""),
    ],
)  # fmt: skip
def test_versions_on_their_way_out_are_warned_of(
    minor: int, version: str, plural: str, text: str
) -> None:
    resources = schema.catalogue(minor).resources
    assert lifecycle.warning(resources[(*version.split("/"), plural)], minor) == text  # type: ignore[index]


def test_every_version_that_is_said_to_be_gone_is() -> None:
    for line in lifecycle._TABLE.strip().splitlines():
        version, _, gone, replacement, *kinds = line.split()
        for minor, there in ((int(gone) - 1, True), (int(gone), False)):
            served = {
                (each.api_version, each.kind) for each in schema.catalogue(minor).resources.values()
            }
            named = {kind for at, kind in served if at == version and (not kinds or kind in kinds)}
            assert bool(named) is there, (version, minor, named)
            for kind in named if replacement != "-" else ():
                assert (replacement, kind) in served, (replacement, kind, minor)


def test_what_is_stored_and_never_called_is_told() -> None:
    resources = schema.catalogue(30).resources
    hooks = resources["admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"]
    assert "stores a MutatingWebhookConfiguration and never calls it" in admission.notice(hooks)
    assert admission.notice(resources["", "v1", "pods"]) == ""


C = {"name": "c", "image": "x:1"}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({}, "spec.containers: Required value"),
        ({"containers": [C, C]}, 'spec.containers[1].name: Duplicate value: "c"'),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image: Required value"),
        ({"containers": [{**C, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
         'spec.containers[0].volumeMounts[0].name: Not found: "v"'),
        ({"containers": [{**C, "volumeMounts": [{"name": "v", "mountPath": "/v"}] * 2}],
          "volumes": [{"name": "v"}]},
         'spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique'),
        ({"containers": [C], "volumes": [{"name": "v"}, {"name": "v"}]},
         'spec.volumes[1].name: Duplicate value: "v"'),
        ({"containers": [{**C, "ports": [{"containerPort": 80, "hostPort": 81}]}],
          "hostNetwork": True},
         "spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when "
         "`hostNetwork` is true"),
        ({"containers": [{**C, "livenessProbe": {"periodSeconds": 1}}]},
         "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        ({"containers": [C], "tolerations": [{"effect": "NoSchedule"}]},
         'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is '
         'empty, which means "match all values and all keys"'),
        ({"containers": [C], "tolerations": [{"key": "k", "operator": "Exist"}]},
         'spec.tolerations[0].operator: Unsupported value: "Exist": supported values: "Equal", '
         '"Exists"'),
        ({"containers": [C], "dnsPolicy": "Host"},
         'spec.dnsPolicy: Unsupported value: "Host": supported values: '
         '"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"'),
    ],
)  # fmt: skip
def test_pods_are_refused_with_the_real_texts(spec: Obj, problem: str) -> None:
    ((field, _, text),) = validate_pods.pod_spec("spec", spec)
    assert f"{field}: {text}" == problem


def _define(c: Cluster) -> None:
    version = {"name": "v1", "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": "nets", "kind": "Net"}
    spec = {"group": "lab.example", "scope": "Cluster", "names": names, "versions": [version]}
    c.registry.make(CRDS, {"metadata": {"name": "nets.lab.example"}, "spec": spec})


async def test_a_definition_stays_until_its_objects_are_gone_with_their_finalizers() -> None:
    async with cluster(30) as c:
        _define(c)
        for name, held in (("free", []), ("held", ["lab.example/cleanup"])):
            meta = {"name": name, "finalizers": held}
            c.registry.make("lab.example/nets", {"metadata": meta})
        c.registry.remove(CRDS, "", "nets.lab.example")
        await c.until(lambda: len(c.store.items("lab.example/nets")) == 1, "the free one goes")
        await c.settle()
        (left,) = c.store.items("lab.example/nets")
        assert left["metadata"]["deletionTimestamp"]
        conditions = c.get(CRDS, "nets.lab.example", "")["status"]["conditions"]
        assert conditions[-1]["reason"] == "InstanceDeletionInProgress"
        with pytest.raises(ApiError, match="create not allowed while custom resource definition"):
            c.registry.make("lab.example/nets", {"metadata": {"name": "new"}})

        def release(obj: Obj) -> None:
            obj["metadata"]["finalizers"] = []

        c.registry.patch("lab.example/nets", "", "held", release)
        await c.until(lambda: not c.store.items(CRDS), "the definition goes after it")
