"""Patches, server-side apply and selectors: pure functions over objects."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib.lab.api import apply, merge, selectors
from kitlib.lab.api.errors import ApiError

POD = {
    "metadata": {"name": "p", "finalizers": ["a"]},
    "spec": {
        "containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]},
                       {"name": "b", "image": "y:1"}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
    },
}  # fmt: skip


def test_strategic_merge_uses_the_merge_keys_that_matter() -> None:
    patch = {
        "metadata": {"finalizers": ["b"]},
        "spec": {
            "containers": [{"name": "b", "image": "y:2"}, {"$patch": "delete", "name": "a"},
                           {"name": "c", "image": "z:1"}],
            "tolerations": [{"key": "other", "operator": "Exists"}],
        },
    }  # fmt: skip
    merged = merge.strategic(POD, patch)
    images = [entry["image"] for entry in merged["spec"]["containers"]]
    assert images == ["y:2", "z:1"]
    assert merged["metadata"]["finalizers"] == ["a", "b"]
    assert merged["spec"]["tolerations"] == [{"key": "other", "operator": "Exists"}]
    assert POD["spec"]["containers"][1]["image"] == "y:1"


def test_strategic_merge_directives() -> None:
    target = {"conditions": [{"type": "A", "x": 1}], "strategy": {"type": "RU", "rollingUpdate": 1}}
    patch: dict[str, Any] = {
        "$setElementOrder/conditions": [{"type": "B"}, {"type": "A"}],
        "conditions": [{"type": "B"}],
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
    }
    merged = merge.strategic(target, patch)
    assert merged["conditions"] == [{"type": "B"}, {"type": "A", "x": 1}]
    assert merged["strategy"] == {"type": "Recreate"}
    replaced = merge.strategic({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}})
    assert replaced == {"a": {"c": 2}}


def test_service_and_container_ports_merge_by_different_keys() -> None:
    service = {"ports": [{"port": 80, "nodePort": 30001}]}
    assert merge.strategic(service, {"ports": [{"port": 80, "name": "http"}]}) == {
        "ports": [{"port": 80, "nodePort": 30001, "name": "http"}]
    }


def test_json_merge_patch_replaces_lists_and_removes_nulls() -> None:
    assert merge.json_merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"c": None}}) == {
        "a": [3],
        "b": {},
    }


def test_json_patch_operations() -> None:
    result = merge.json_patch(
        {"a": {"x/y": 1}, "l": [1, 2]},
        [
            {"op": "test", "path": "/a/x~1y", "value": 1},
            {"op": "replace", "path": "/a/x~1y", "value": 2},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "remove", "path": "/l/0"},
            {"op": "move", "from": "/l/0", "path": "/first"},
        ],
    )
    assert result == {"a": {"x/y": 2}, "l": [3], "first": 2}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nosuch"},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "replace", "path": "/l/7", "value": 2},
    ],
)
def test_json_patch_refuses_what_is_not_there(operation: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        merge.json_patch({"a": 1, "l": []}, [operation])
    assert refused.value.code == 422


def _config(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def test_server_side_apply_removes_what_its_manager_no_longer_wants() -> None:
    first = apply.apply(None, _config(a="1", b="2"), "me", False, "t")
    first["data"]["other"] = "kept"
    second = apply.apply(first, _config(a="1"), "me", False, "t")
    assert second["data"] == {"a": "1", "other": "kept"}


def test_server_side_apply_conflicts_and_force() -> None:
    live = apply.apply(None, _config(a="1"), "me", False, "t")
    with pytest.raises(ApiError, match=r'Apply failed with 1 conflict: conflict with "me": \.data'):
        apply.apply(live, _config(a="2"), "you", False, "t")
    same = apply.apply(live, _config(a="1"), "you", False, "t")
    assert {entry["manager"] for entry in same["metadata"]["managedFields"]} == {"me", "you"}
    forced = apply.apply(live, _config(a="2"), "you", True, "t")
    assert forced["data"] == {"a": "2"}
    assert [entry["manager"] for entry in forced["metadata"]["managedFields"]] == ["you"]


def test_server_side_apply_merges_lists_by_key() -> None:
    live = {**POD, "apiVersion": "v1", "kind": "Pod"}
    config = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "b", "image": "y:9"}]},
    }  # fmt: skip
    result = apply.apply(live, config, "me", False, "t")
    images = [entry["image"] for entry in result["spec"]["containers"]]
    assert images == ["x:1", "y:9"]
    emptied = apply.apply(result, {**config, "spec": {}}, "me", False, "t")
    assert [entry["name"] for entry in emptied["spec"]["containers"]] == ["a"]


LABELLED = {"metadata": {"labels": {"app": "web", "tier": "front"}}}


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("", True), ("app=web", True), ("app==db", False), ("app!=db", True), ("app", True),
        ("!app", False), ("!old", True), ("app in (web, db),tier=front", True),
        ("app notin (web)", False), ("other notin (x)", True), ("tier in (back)", False),
    ],
)  # fmt: skip
def test_label_selectors(query: str, fits: bool) -> None:
    assert selectors.labels(query)(LABELLED) is fits


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "w1"}, "status": {"phase": "Running"}}
    assert selectors.fields("spec.nodeName=w1,status.phase!=Failed", "/pods")(pod)
    assert not selectors.fields("spec.nodeName=", "/pods")(pod)
    with pytest.raises(ApiError) as refused:
        selectors.fields("spec.color=red", "/pods")
    assert refused.value.code == 400
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Node"}, "type": "Normal"}
    assert selectors.fields("involvedObject.kind=Node,type=Normal", "/events")(event)
