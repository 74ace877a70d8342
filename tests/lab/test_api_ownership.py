"""Server-side apply and managedFields: who owns what, conflicts, and what an applier gives up."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib.lab.api import apply, managed, schema
from kitlib.lab.api.errors import ApiError
from kitlib.lab.api.managed import UPDATE, Owner
from kitlib.lab.api.shapes import Described, Shape
from kitlib.lab.api.store import copy

Obj = dict[str, Any]
EDIT = Owner("kubectl-edit", UPDATE, "apps/v1")


def config_map(**data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def daemons(containers: list[Obj], **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": containers, **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template},
    }


def owners(obj: Obj) -> dict[str, Obj]:
    return {e["manager"]: e["fieldsV1"] for e in obj["metadata"].get("managedFields") or []}


def edited(live: Obj, owner: Owner = EDIT, **data: Any) -> Obj:
    """Return a live object after an update of its specification's template (or data) by `owner`."""
    new = copy(live)
    if "data" in new:
        new["data"].update(data)
    else:
        new["spec"]["template"]["spec"].update(data)
    managed.track(live, new, owner, Shape(), "later")
    return new


def test_what_its_manager_no_longer_wants_goes_and_what_others_own_stays() -> None:
    first = apply.apply(None, config_map(a="1", b="2"), "me", False, "t")
    first = edited(first, other="kept")
    second = apply.apply(first, config_map(a="1"), "me", False, "t")
    assert second["data"] == {"a": "1", "other": "kept"}
    both = apply.apply(second, config_map(a="1"), "you", False, "t")
    nothing = config_map()
    del nothing["data"]
    third = apply.apply(both, nothing, "me", False, "t")
    assert third["data"] == {"a": "1", "other": "kept"}
    assert set(owners(third)) == {"you", "kubectl-edit"}
    fourth = apply.apply(third, nothing, "you", False, "t")
    assert fourth["data"] == {"other": "kept"}


def test_conflicts_with_appliers_and_force() -> None:
    live = apply.apply(None, config_map(a="1"), "me", False, "t")
    with pytest.raises(ApiError) as refused:
        apply.apply(live, config_map(a="2"), "you", False, "t")
    told = refused.value.status()
    assert told["message"] == 'Apply failed with 1 conflict: conflict with "me": .data.a'
    assert told["code"] == 409
    assert told["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "me"', "field": ".data.a"}
    ]
    same = apply.apply(live, config_map(a="1"), "you", False, "t")
    assert set(owners(same)) == {"me", "you"}
    forced = apply.apply(live, config_map(a="2"), "you", True, "t")
    assert forced["data"] == {"a": "2"}
    assert set(owners(forced)) == {"you"}


def test_conflicts_with_updates_name_the_version_and_every_field() -> None:
    one = [{"name": "c", "image": "x:1"}]
    live = apply.apply(None, daemons(one, hostNetwork=True), "kit", False, "t")
    live = edited(live, containers=[{"name": "c", "image": "x:2"}], hostNetwork=False)
    with pytest.raises(ApiError) as refused:
        apply.apply(live, daemons(one, hostNetwork=True), "kit", False, "t")
    assert refused.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-edit" using apps/v1:\n'
        '- .spec.template.spec.containers[name="c"].image\n'
        "- .spec.template.spec.hostNetwork"
    )


def test_what_is_applied_again_is_the_same_object() -> None:
    wanted = daemons([{"name": "c", "image": "x:1", "ports": [{"containerPort": 80}]}])
    live = apply.apply(None, wanted, "kit", False, "t")
    assert apply.apply(live, wanted, "kit", False, "later") == live
    changed = apply.apply(live, daemons([{"name": "c", "image": "x:2"}]), "kit", False, "later")
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "c", "image": "x:2"}
    assert changed["metadata"]["managedFields"][0]["time"] == "later"


def test_owned_fields_are_written_as_the_real_server_writes_them() -> None:
    spec = {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
    }
    container = {
        "name": "c", "image": "x:1", "args": ["-v"], "env": [{"name": "A", "value": "1"}],
        "ports": [{"containerPort": 80}],
        "volumeMounts": [{"name": "run", "mountPath": "/run"}],
    }  # fmt: skip
    live = apply.apply(None, daemons([container], **spec), "kit", False, "t")
    assert owners(live)["kit"] == {
        "f:spec": {
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {
                            ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                            "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}},
                            "f:ports": {
                                'k:{"containerPort":80,"protocol":"TCP"}': {
                                    ".": {}, "f:containerPort": {},
                                },
                            },
                            "f:volumeMounts": {
                                'k:{"mountPath":"/run"}': {
                                    ".": {}, "f:mountPath": {}, "f:name": {},
                                },
                            },
                        },
                    },
                    "f:nodeSelector": {},
                    "f:tolerations": {},
                },
            },
        }
    }  # fmt: skip
    made = config_map(a="1")
    managed.track(None, made, Owner("kubectl-create", UPDATE, "v1"), Shape(), "t")
    (entry,) = made["metadata"]["managedFields"]
    assert entry == {
        "manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": "t",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:a": {}}},
    }  # fmt: skip


def test_items_of_lists_with_keys_merge_and_go_one_by_one() -> None:
    ours = [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]
    live = apply.apply(None, daemons(ours), "kit", False, "t")
    live = edited(live, containers=[*ours, {"name": "sidecar", "image": "z:1"}])
    result = apply.apply(live, daemons([{"name": "b", "image": "y:2"}]), "kit", False, "t")
    containers = result["spec"]["template"]["spec"]["containers"]
    assert containers == [{"name": "b", "image": "y:2"}, {"name": "sidecar", "image": "z:1"}]


def test_an_item_of_which_others_own_a_part_keeps_its_key() -> None:
    live = apply.apply(None, daemons([{"name": "a", "image": "x:1"}]), "kit", False, "t")
    limits = {"limits": {"cpu": "1"}}
    live = edited(live, containers=[{"name": "a", "image": "x:1", "resources": limits}])
    result = apply.apply(live, daemons([]), "kit", True, "t")
    containers = result["spec"]["template"]["spec"]["containers"]
    assert containers == [{"name": "a", "resources": limits}]


def test_an_item_twice_is_refused_by_the_key_that_it_has_twice() -> None:
    ports = [{"containerPort": 80, "name": "a"}, {"containerPort": 80, "name": "b"}]
    with pytest.raises(ApiError) as refused:
        apply.apply(None, daemons([{"name": "c", "image": "x", "ports": ports}]), "kit", False, "t")
    assert refused.value.message == (
        "failed to create typed patch object (n/d; apps/v1, Kind=DaemonSet): "
        '.spec.template.spec.containers[name="c"].ports: duplicate entries for key '
        '[containerPort=80,protocol="TCP"]'
    )


def test_what_was_there_before_the_first_apply_has_an_owner_too() -> None:
    with pytest.raises(ApiError, match=r'conflict with "before-first-apply" using v1: \.data\.a'):
        apply.apply(config_map(a="1"), config_map(a="2"), "kit", False, "t")
    same = apply.apply(config_map(a="1", b="2"), config_map(a="1"), "kit", False, "t")
    assert owners(same)["before-first-apply"] == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}


def test_kubectl_takes_over_from_its_own_client_side_apply() -> None:
    given = daemons([{"name": "c", "image": "x:1"}])
    live = copy(given)
    live["metadata"]["annotations"] = {apply.LAST_APPLIED: managed.dumps(given)}
    client_side = Owner("kubectl-client-side-apply", UPDATE, "apps/v1")
    managed.track(None, live, client_side, Shape(), "t")
    newer = daemons([{"name": "c", "image": "x:2"}])
    with pytest.raises(ApiError, match='conflict with "kubectl-client-side-apply" using apps/v1'):
        apply.apply(live, newer, "kit", False, "t")
    taken = apply.apply(live, newer, "kubectl", False, "t")
    assert '"image":"x:2"' in taken["metadata"]["annotations"][apply.LAST_APPLIED]
    by_hand = edited(live, client_side, containers=[{"name": "c", "image": "x:3"}])
    with pytest.raises(ApiError, match="conflict with"):
        apply.apply(by_hand, newer, "kubectl", False, "t")


def test_an_update_may_write_managed_fields_and_one_empty_entry_takes_them_away() -> None:
    live = apply.apply(None, config_map(a="1"), "me", False, "t")
    moved = copy(live)
    moved["metadata"]["managedFields"][0]["manager"] = "you"
    managed.track(live, moved, EDIT, Shape(), "t")
    assert set(owners(moved)) == {"you"}
    dropped = copy(live)
    dropped["metadata"]["managedFields"] = []
    managed.track(live, dropped, EDIT, Shape(), "t")
    assert set(owners(dropped)) == {"me"}
    dropped["metadata"]["managedFields"] = [{}]
    managed.track(live, dropped, EDIT, Shape(), "t")
    assert "managedFields" not in dropped["metadata"]


def test_custom_resources_merge_as_their_schema_says() -> None:
    schema_of = {
        "properties": {
            "spec": {
                "properties": {
                    "pools": {
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["cidr"],
                        "items": {"properties": {"size": {"type": "integer"}}},
                    },
                    "containers": {"type": "array"},
                }
            }
        }
    }
    head = {"apiVersion": "lab.example/v1", "kind": "Net", "metadata": {"name": "a"}}

    def net(**spec: Any) -> Obj:
        return {**head, "spec": spec}

    shape = Described(schema=schema_of)
    pools = [{"cidr": "10.0.0.0/8", "size": 1}]
    live = apply.apply(None, net(pools=pools, containers=[{"name": "a"}]), "me", False, "t", shape)
    other = net(pools=[{"cidr": "11.0.0.0/8"}])
    both = apply.apply(live, other, "you", False, "t", shape)
    assert [pool["cidr"] for pool in both["spec"]["pools"]] == ["10.0.0.0/8", "11.0.0.0/8"]
    with pytest.raises(ApiError, match=r'conflict with "me": \.spec\.containers'):
        apply.apply(live, net(containers=[{"name": "b"}]), "you", False, "t", shape)


def test_a_definitions_schema_reaches_its_resources() -> None:
    version = {"name": "v1", "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": "nets", "kind": "Net"}
    crd = {"spec": {"group": "lab.example", "names": names, "versions": [version]}}
    (resource,) = schema.custom(crd)
    assert resource.shape == Described(schema={"type": "object"})
