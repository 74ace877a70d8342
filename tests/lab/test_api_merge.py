"""Patches and selectors: pure functions over objects."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib.lab.api import merge, selectors
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
