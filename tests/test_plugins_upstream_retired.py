"""Catalogue entries against upstream's own manifests, kept beside the project; skipped without."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from upstreamkit import MANIFESTS, MARKS

from kitlib import plugins
from kitlib.errors import ParamsError
from kitlib.manifests import prepare
from kitlib.params import load as load_params
from kitlib.plugins import Plugin
from kitlib.plugins.entry import minor
from kitlib.plugins.install import Place

FILES = {
    ("contiv", "1.15"): ["etcd.yaml", "contiv.yaml"],
    ("romana", "1.15"): ["romana-kubeadm.yml"],
    ("romana", "1.11"): ["romana-kubeadm-v2.0.2.yml"],
    ("nuage", "1.18"): [
        "k8s-1-18-nuage-node-config-daemonset.yaml",
        "k8s-1-18-nuage-master-config-daemonset.yaml",
        "k8s-1-18-nuage-infra-pod-config-daemonset.yaml",
    ],
    ("nuage", "1.14"): [
        "k8s-1-14-nuage-node-config-daemonset.yaml",
        "k8s-1-14-nuage-master-config-daemonset.yaml",
        "k8s-1-14-nuage-infra-pod-config-daemonset.yaml",
    ],
    ("cni-genie", "1.21"): ["genie-plugin.yaml"],
}
"""Plugin and Kubernetes version -> the files that are applied there, in their order."""
CASES = [pytest.param(*key, id="-".join(key)) for key in FILES]
CONTROL_PLANE = "node-role.kubernetes.io/master"
NOT_READY = "node.kubernetes.io/not-ready"

pytestmark = MARKS


def objects(name: str, version: str) -> list[dict[str, Any]]:
    found = []
    for file in FILES[name, version]:
        found += yaml.safe_load_all((MANIFESTS / name / file).read_text())
    return [item for item in found if item]


def one(items: list[dict[str, Any]], kind: str, namespace: str, name: str) -> dict[str, Any]:
    (found,) = (
        item
        for item in items
        if item["kind"] == kind
        and item["metadata"]["name"] == name
        and item["metadata"].get("namespace", "") == namespace
    )
    return found


def pod(item: dict[str, Any]) -> dict[str, Any]:
    return dict(item["spec"]["template"]["spec"])


def tolerates(spec: dict[str, Any], key: str) -> bool:
    return any(
        each.get("effect") in (None, "NoSchedule") and each.get("key") in (None, key)
        for each in spec.get("tolerations") or ()
    )


def patched(plugin: Plugin) -> set[str]:
    """Return the workloads that the catalogue says the kit gives a toleration to."""
    return {load.name for load in plugin.workloads if load.starts_on_not_ready}


@pytest.mark.parametrize(("name", "version"), CASES)
def test_files_and_checksums(name: str, version: str) -> None:
    plugin = plugins.get(name)
    release = plugin.release_for(f"{version}.0")
    assert release is not None
    ends = [address.rsplit("/", 1)[1] for address in plugin.manifest_addresses(f"{version}.0")]
    assert len(ends) == len(FILES[name, version])
    for end, file in zip(ends, FILES[name, version], strict=True):
        digest = hashlib.sha256((MANIFESTS / name / file).read_bytes()).hexdigest()
        assert release.sha256[end] == digest


@pytest.mark.parametrize(("name", "version"), CASES)
def test_workloads(name: str, version: str) -> None:
    items, plugin = objects(name, version), plugins.get(name)
    for load in plugin.workloads:
        found = one(items, load.kind, load.namespace, load.name)
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert load.selector.items() <= labels.items()
        selector = pod(found).get("nodeSelector") or {}
        planes = CONTROL_PLANE in selector or selector.keys() & plugin.needs.control_plane_labels
        if load.kind == "DaemonSet":
            assert (load.nodes == "control_plane") == bool(planes)
            if load.nodes == "workers":
                assert not tolerates(pod(found), CONTROL_PLANE)
    named = {(load.kind, load.name) for load in plugin.workloads}
    kinds = ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")
    there = {(each["kind"], each["metadata"]["name"]) for each in items if each["kind"] in kinds}
    assert named == there


@pytest.mark.parametrize(("name", "version"), CASES)
def test_what_never_starts_is_a_trap_of_the_catalogue(name: str, version: str) -> None:
    items, plugin = objects(name, version), plugins.get(name)
    stuck = {
        load.name
        for load in plugin.workloads
        if load.starts_on_not_ready
        and not tolerates(pod(one(items, load.kind, load.namespace, load.name)), NOT_READY)
    }
    told = any(NOT_READY in trap.what for trap in plugin.traps)
    assert stuck <= patched(plugin)
    assert told or not stuck
    assert bool(stuck) == ((name, version) in {("contiv", "1.15"), ("romana", "1.11")})


@pytest.mark.parametrize(("name", "version"), CASES)
def test_breaks_are_those_of_the_api_groups(name: str, version: str) -> None:
    gone = {"extensions/v1beta1": "1.16", "rbac.authorization.k8s.io/v1beta1": "1.22"}
    groups = {item["apiVersion"] for item in objects(name, version)}
    expected = {since for group, since in gone.items() if group in groups}
    plugin = plugins.get(name)
    release = plugin.release_for(f"{version}.0")
    assert release is not None
    told = {each.since for each in plugin.kubernetes.breaks}
    for since in expected:
        assert not release.kubernetes.covers(f"{since}.0")
        assert since in told or plugin.release_for(f"{since}.0") is not None


def values(items: list[dict[str, Any]], place: Place) -> Iterator[str]:
    """Yield what stands at a place, as the person who wrote the catalogue says it."""
    for item in items:
        if place.placeholder:
            yield from re.findall(re.escape(place.placeholder), json.dumps(item))
            continue
        meta = item["metadata"]
        if (item["kind"], meta["name"]) != (place.kind, place.name):
            continue
        if place.key:
            value: Any = item["data"][place.key]
            for step in filter(None, place.path.split(".")):
                value = yaml.safe_load(value) if isinstance(value, str) else value
                value = value[int(step)] if isinstance(value, list) else value.get(step)
            if value is not None:
                yield place.read(str(value))
        for container in pod(item)["containers"] if place.env or place.argument else ():
            for variable in container.get("env") or ():
                if place.env and variable["name"] == place.env:
                    yield place.read(str(variable["value"]))
            for word in container.get("args") or ():
                if place.argument and word.startswith(f"{place.argument}="):
                    yield place.read(word.partition("=")[2])


ABSENT = {"default_plugin"}
"""Parameters that upstream's manifest leaves to its programs' own default."""


@pytest.mark.parametrize(("name", "version"), CASES)
def test_every_parameter_has_its_place(name: str, version: str) -> None:
    items, plugin = objects(name, version), plugins.get(name)
    for parameter in plugin.parameters:
        for place in parameter.places:
            found = list(values(items, place))
            assert bool(found) == (parameter.name not in ABSENT), f"{parameter.name}: {place}"
            if parameter.dummy:
                assert set(found) == {parameter.dummy}, parameter.name
        if not parameter.default:
            assert parameter.dummy, f"{parameter.name} is required, and nobody would notice"
    for setting in filter(None, (plugin.mtu, plugin.backend)):
        for place in setting.places:
            assert list(values(items, place))


@pytest.mark.parametrize(("name", "version"), CASES)
def test_pod_cidr(name: str, version: str) -> None:
    items, plugin = objects(name, version), plugins.get(name)
    cidr = str(plugin.pod_cidr.default)
    stated = set(values(items, plugin.pod_cidr.stated_in)) if plugin.pod_cidr.stated_in else set()
    assert stated == ({cidr} if name == "nuage" else set())
    others = [
        place
        for parameter in plugin.parameters
        if parameter.default == "{pod_cidr}"
        for place in parameter.places
    ]
    for place in others:
        assert set(values(items, place)) == {cidr}
    # Nothing states it behind the catalogue's back.
    told = len(others) + bool(stated)
    text = json.dumps(items).replace("\\\\/", "/")
    assert text.count(cidr) == told


def test_romanas_services_have_the_addresses_that_the_catalogue_wants_a_range_for() -> None:
    plugin = plugins.get("romana")
    services = [item for item in objects("romana", "1.15") if item["kind"] == "Service"]
    fixed = {item["spec"]["clusterIP"] for item in services}
    assert fixed == {"10.96.0.88", "10.96.0.99"}
    told = " ".join(trap.what for trap in plugin.traps)
    assert all(address in told for address in fixed)
    assert plugin.needs.service_cidr is not None


def test_genie_gives_everybody_a_right_and_says_so() -> None:
    bindings = [
        item for item in objects("cni-genie", "1.21") if item["kind"] == "ClusterRoleBinding"
    ]
    groups = {each["name"] for item in bindings for each in item["subjects"]}
    assert "system:authenticated" in groups
    assert any("system:authenticated" in trap.what for trap in plugins.get("cni-genie").traps)


GIVEN = {
    "nuage": {
        "vsd_url": "https://192.0.2.7:7443",
        "vsc": "192.0.2.8",
        "vsc_standby": "192.0.2.9",
        "token": "a.b.c",
        "release": "20.10.6",
    }
}


@pytest.mark.parametrize(("name", "version"), CASES)
def test_the_engine_fills_in_what_upstream_left_open(
    name: str, version: str, tmp_path: Path
) -> None:
    host = {"name": "cp", "address": "192.0.2.1", "role": "control_plane"}
    wanted: dict[str, Any] = {
        "cluster": "x",
        "kubernetes_version": f"{version}.1",
        "plugin": name,
        "hosts": [host],
        "plugin_parameters": GIVEN.get(name, {}),
    }
    if plugins.get(name).pod_cidr.stated_in:
        wanted["pod_cidr"] = "10.160.0.0/12"
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(wanted))
    params = load_params(file)
    plugin = params.wanted_plugin
    items = objects(name, version)
    if plugin.needs.delegate == "flannel":
        text = (MANIFESTS / "flannel/kube-flannel.yml").read_text()
        items = [*yaml.safe_load_all(text), *items]
    made = prepare(items, plugin, params, where=name, control_plane="192.0.2.1")
    text = json.dumps(made.objects)
    for parameter in plugin.parameters:
        words = [parameter.dummy, *(place.placeholder for place in parameter.places)]
        assert not [word for word in words if word and word in text]
    if "pod_cidr" in wanted:
        assert str(plugin.pod_cidr.default) not in text.replace("\\\\/", "/")
        assert "10.160.0.0/12" in text.replace("\\\\/", "/")
    for load in plugin.workloads:
        spec = pod(one(made.objects, load.kind, load.namespace, load.name))
        if load.starts_on_not_ready and minor(version) >= (1, 12):
            assert tolerates(spec, NOT_READY), load.name
        if load.nodes != "workers" and load.starts_on_not_ready:
            assert tolerates(spec, CONTROL_PLANE), load.name
    assert made.secret == (name == "nuage")
    assert not [line for line in made.lines if "a.b.c" in line]


def test_a_template_that_nobody_filled_in_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    host = {"name": "cp", "address": "192.0.2.1", "role": "control_plane"}
    wanted = {"cluster": "x", "kubernetes_version": "1.18.20", "plugin": "nuage", "hosts": [host]}
    file.write_text(yaml.safe_dump(wanted))
    params = load_params(file)
    with pytest.raises(ParamsError) as caught:
        prepare(objects("nuage", "1.18"), params.wanted_plugin, params, control_plane="192.0.2.1")
    for name in GIVEN["nuage"]:
        assert f"plugin_parameters: {name}: required" in str(caught.value)


@pytest.mark.parametrize("name", sorted({name for name, _ in FILES}))
def test_the_labs_manifest_has_upstreams_names_and_labels(name: str) -> None:
    (version,) = [newest for plugin, newest in list(FILES) if plugin == name][:1]
    lab = Path(plugins.__file__).parents[1] / "lab/manifests" / f"{name}.yaml"
    upstreams = objects(name, version)
    ours = [item for item in yaml.safe_load_all(lab.read_text()) if item]
    for item in ours:
        meta = item["metadata"]
        if (name, item["kind"]) in OWN:
            continue
        space = "kube-system" if meta.get("namespace") else ""
        if item["kind"].startswith("ClusterRole"):
            found = one_of_kind(upstreams, item["kind"], meta["name"])
        else:
            found = one(upstreams, item["kind"], space, meta["name"])
        assert item["apiVersion"] == found["apiVersion"], meta["name"]
        if "template" not in item.get("spec", {}):
            continue
        labels = [each["spec"]["template"]["metadata"]["labels"] for each in (item, found)]
        assert labels[0] == labels[1]
        assert item["spec"].get("selector") == found["spec"].get("selector")
        for key in ("tolerations", "nodeSelector", "hostNetwork"):
            assert same(pod(item).get(key)) == same(pod(found).get(key)), (meta["name"], key)
    kinds = ("DaemonSet", "Deployment", "ReplicaSet", "Service")
    named = [
        {(each["kind"], each["metadata"]["name"]) for each in items if each["kind"] in kinds}
        for items in (ours, upstreams)
    ]
    assert named[0] == named[1]


OWN = {("nuage", kind) for kind in ("ServiceAccount", "ClusterRoleBinding")}
"""What upstream's guide makes by hand and the lab's manifest brings along."""


def one_of_kind(items: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)
    return found


def same(value: Any) -> Any:
    """Return a value in an order of its own: of tolerations the order does not matter."""
    if isinstance(value, list):
        return sorted(json.dumps(each, sort_keys=True) for each in value)
    return value
