"""Catalogue entries against upstream's own manifests, kept beside the project; skipped without."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
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


@dataclass(frozen=True)
class Case:
    """An entry and the manifests that it describes.

    Attributes:
        name: The plugin.
        files: What is applied, in order.
        version: The Kubernetes version that they are for, where the entry has several releases.
        exact: The files are the release's own, and whole; else what its templates and operators
            make of them is missing, or there is more in them than the entry's part.
    """

    name: str
    files: tuple[str, ...]
    version: str = ""
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.version}".rstrip("-")

    @property
    def plugin(self) -> Plugin:
        return plugins.get(self.name)

    @property
    def items(self) -> list[dict[str, Any]]:
        """The objects, Lists taken apart; nobody changes them."""
        return _objects(self)


CASES = [
    Case("calico", ("calico.yaml",)),
    Case(
        "cilium",
        (
            "kubeone-v1.14.2-rendered-cilium-1.19.6.yaml",
            "kubeone-v1.14.2-cilium-config-map.yaml",
        ),
    ),
    Case("cni-genie", ("genie-plugin.yaml",), "1.21", exact=True),
    Case("contiv", ("etcd.yaml", "contiv.yaml"), "1.15", exact=True),
    Case("contrail", ("opensdn-standalone-kubernetes.yaml",)),
    Case("flannel", ("kube-flannel.yml",)),
    Case("kube-router", ("kubeadm-kuberouter.yaml",)),
    *(
        Case(
            "nuage",
            tuple(
                f"k8s-{version.replace('.', '-')}-nuage-{part}-config-daemonset.yaml"
                for part in ("node", "master", "infra-pod")
            ),
            version,
            exact=True,
        )
        for version in ("1.18", "1.14")
    ),
    Case(
        "ovn",
        (
            "helm-v1.3.0-templates_ovn-setup.yaml",
            "helm-v1.3.0-charts_ovnkube-control-plane_templates_ovnkube-control-plane.yaml",
            "helm-v1.3.0-charts_ovnkube-single-node-zone_templates_ovnkube-single-node-zone.yaml",
            "helm-v1.3.0-charts_ovs-node_templates_ovs-node.yaml",
            "helm-v1.3.0-charts_ovnkube-identity_templates_ovnkube-identity.yaml",
        ),
    ),
    Case("romana", ("romana-kubeadm.yml",), "1.15", exact=True),
    Case("romana", ("romana-kubeadm-v2.0.2.yml",), "1.11", exact=True),
    Case("weave", ("weave-daemonset-k8s-1.11.yaml",)),
]
EXACT = [case for case in CASES if case.exact]
NEWEST = list({case.name: case for case in reversed(CASES)}.values())[::-1]
"""One case for each plugin: the lab has one manifest of each."""

TEMPLATED = "TEMPLATED"
CONTROL_PLANE = "node-role.kubernetes.io/master"
NOT_READY = "node.kubernetes.io/not-ready"
KINDS = ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")

pytestmark = MARKS


@cache
def _objects(case: Case) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in case.files:
        text = (MANIFESTS / case.name / file).read_text()
        if not case.exact:  # what is left of a template without its own lines, a word for a value
            text = re.sub(r"^ *\{\{.*\}\}\n", "", text, flags=re.MULTILINE)
            text = re.sub(r"\{\{.*?\}\}", TEMPLATED, text)
        for document in yaml.safe_load_all(text):
            found += (document or {}).get("items") or [document] if document else []
    return found


def one(items: list[dict[str, Any]], kind: str, namespace: str, name: str) -> dict[str, Any]:
    """Return the one object of that kind and name."""
    same = [
        item
        for item in items
        if (item["kind"], item["metadata"]["name"]) == (kind, name)
        and (item["metadata"].get("namespace", "") == namespace or kind.startswith("ClusterRole"))
    ]
    assert len(same) == 1, f"{kind} {namespace}/{name}: {len(same)} in upstream's manifest"
    return same[0]


def pod(item: dict[str, Any]) -> dict[str, Any]:
    return dict(item["spec"]["template"]["spec"])


def labels_of(item: dict[str, Any]) -> dict[str, str]:
    """Return the labels that the pods of a workload carry."""
    return dict(item["spec"]["template"]["metadata"]["labels"])


def tolerates(spec: dict[str, Any], key: str) -> bool:
    """Return whether a pod may start on a node that has this taint."""
    return any(
        each.get("effect") in (None, "NoSchedule") and each.get("key") in (None, key)
        for each in spec.get("tolerations") or ()
    )


def values(items: list[dict[str, Any]], place: Place) -> Iterator[str]:
    """Yield what stands at a place, as the person who wrote the catalogue says it."""
    for item in items:
        if place.placeholder:
            yield from re.findall(re.escape(place.placeholder), json.dumps(item))
            continue
        if (item["kind"], item["metadata"]["name"]) != (place.kind, place.name):
            continue
        if place.key:
            value: Any = (item["data"] or {}).get(place.key)
            for step in filter(None, place.path.split(".")) if value is not None else ():
                value = yaml.safe_load(value) if isinstance(value, str) else value
                value = value[int(step)] if isinstance(value, list) else value.get(step)
            if value is not None:
                yield TEMPLATED if value == TEMPLATED else place.read(str(value))
        for container in pod(item)["containers"] if place.env or place.argument else ():
            for variable in container.get("env") or ():
                if place.env and variable["name"] == place.env:
                    yield place.read(str(variable["value"]))
            for word in container.get("args") or ():
                if place.argument and word.startswith(f"{place.argument}="):
                    yield place.read(word.partition("=")[2])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_workloads_are_upstreams(case: Case) -> None:
    plugin = case.plugin
    for load in plugin.workloads:
        found = one(case.items, load.kind, load.namespace, load.name)
        labels = labels_of(found)
        assert load.selector.items() <= labels.items(), load.name
        matched = (found["spec"].get("selector") or {}).get("matchLabels") or {}
        assert matched.items() <= labels.items()
        if not case.exact or load.kind != "DaemonSet":
            continue
        selector = pod(found).get("nodeSelector") or {}
        planes = CONTROL_PLANE in selector or selector.keys() & plugin.needs.control_plane_labels
        assert (load.nodes == "control_plane") == bool(planes)
        if load.nodes == "workers":
            assert not tolerates(pod(found), CONTROL_PLANE)
    if case.exact:
        named = {(load.kind, load.name) for load in plugin.workloads}
        there = {(item["kind"], item["metadata"]["name"]) for item in case.items}
        assert named == {each for each in there if each[0] in KINDS}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pods_that_start_before_the_network_tolerate_its_absence_or_it_is_a_trap(
    case: Case,
) -> None:
    told = " ".join(f"{trap.what} {trap.handled}" for trap in case.plugin.traps)
    stuck = []
    for load in case.plugin.workloads:
        starts = tolerates(pod(one(case.items, load.kind, load.namespace, load.name)), NOT_READY)
        assert load.starts_on_not_ready or not starts or case.exact, (
            f"{load.name} tolerates it, the entry says otherwise"
        )
        if load.starts_on_not_ready and not starts:
            stuck.append(load.name)
            assert "toleration" in told or NOT_READY in told, f"{load.name}: not told"
    if case.exact:
        assert bool(stuck) == (str(case) in {"contiv-1.15", "romana-1.11"})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_pod_cidr_stands_where_the_entry_says(case: Case) -> None:
    plugin = case.plugin
    cidr = str(plugin.pod_cidr.default)
    place = plugin.pod_cidr.stated_in
    stated = set(values(case.items, place)) if place else set()
    # Without a value there upstream's program has its own default, or takes it from the Nodes.
    assert stated <= {cidr, TEMPLATED}
    if not case.exact:
        return
    assert stated == ({cidr} if case.name == "nuage" else set())
    others = [
        place
        for parameter in plugin.parameters
        if parameter.default == "{pod_cidr}"
        for place in parameter.places
    ]
    for place in others:
        assert set(values(case.items, place)) == {cidr}
    # Nothing states it behind the catalogue's back.
    text = json.dumps(case.items).replace("\\\\/", "/")
    assert text.count(cidr) == len(others) + bool(stated)


@pytest.mark.parametrize("case", NEWEST, ids=str)
def test_the_labs_manifest_has_upstreams_names_and_labels(case: Case) -> None:
    lab = Path(plugins.__file__).parents[1] / "lab/manifests" / f"{case.name}.yaml"
    documents = [each for each in yaml.safe_load_all(lab.read_text()) if each]
    ours = [item for each in documents for item in each.get("items") or [each]]
    for item in ours:
        meta, kind = item["metadata"], item["kind"]
        if (case.name, kind) in OWN:
            continue
        if not case.exact and kind not in ("DaemonSet", "Deployment", "ConfigMap"):
            continue  # the lab's accounts may do what its agents do, which is not the same
        found = one(case.items, kind, meta.get("namespace", ""), meta["name"])
        if case.exact:
            assert item["apiVersion"] == found["apiVersion"], meta["name"]
        if "template" not in item.get("spec", {}):
            continue
        # Flannel's release asset has a label more than the file that it is made from.
        assert labels_of(found).items() <= labels_of(item).items(), meta["name"]
        wanted, ours_is = (each["spec"].get("selector") for each in (found, item))
        if not case.exact:
            assert wanted["matchLabels"].items() <= ours_is["matchLabels"].items(), meta["name"]
            continue
        assert labels_of(found) == labels_of(item)
        assert wanted == ours_is
        for key in ("tolerations", "nodeSelector", "hostNetwork"):
            assert ordered(pod(item).get(key)) == ordered(pod(found).get(key)), (meta["name"], key)
    if case.exact:
        kinds = ("DaemonSet", "Deployment", "ReplicaSet", "Service")
        named = [
            {(each["kind"], each["metadata"]["name"]) for each in items if each["kind"] in kinds}
            for items in (ours, case.items)
        ]
        assert named[0] == named[1]


OWN = {("nuage", kind) for kind in ("ServiceAccount", "ClusterRoleBinding")}
"""What upstream's guide makes by hand and the lab's manifest brings along."""


def ordered(value: Any) -> Any:
    """Return a value in an order of its own: of tolerations the order does not matter."""
    if isinstance(value, list):
        return sorted(json.dumps(each, sort_keys=True) for each in value)
    return value


# --- releases whose files are at hand as they were made ----------------------------------------


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_files_and_checksums(case: Case) -> None:
    release = case.plugin.release_for(f"{case.version}.0")
    assert release is not None
    addresses = case.plugin.manifest_addresses(f"{case.version}.0")
    ends = [address.rsplit("/", 1)[1] for address in addresses]
    assert len(ends) == len(case.files)
    for end, file in zip(ends, case.files, strict=True):
        digest = hashlib.sha256((MANIFESTS / case.name / file).read_bytes()).hexdigest()
        assert release.sha256[end] == digest


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_breaks_are_those_of_the_api_groups(case: Case) -> None:
    gone = {"extensions/v1beta1": "1.16", "rbac.authorization.k8s.io/v1beta1": "1.22"}
    groups = {item["apiVersion"] for item in case.items}
    expected = {since for group, since in gone.items() if group in groups}
    release = case.plugin.release_for(f"{case.version}.0")
    assert release is not None
    told = {each.since for each in case.plugin.kubernetes.breaks}
    for since in expected:
        assert not release.kubernetes.covers(f"{since}.0")
        assert since in told or case.plugin.release_for(f"{since}.0") is not None


ABSENT = {"default_plugin"}
"""Parameters that upstream's manifest leaves to its programs' own default."""


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_every_parameter_has_its_place(case: Case) -> None:
    plugin = case.plugin
    for parameter in plugin.parameters:
        for place in parameter.places:
            found = list(values(case.items, place))
            assert bool(found) == (parameter.name not in ABSENT), f"{parameter.name}: {place}"
            if parameter.dummy:
                assert set(found) == {parameter.dummy}, parameter.name
        if not parameter.default:
            assert parameter.dummy, f"{parameter.name} is required, and nobody would notice"
    for setting in filter(None, (plugin.mtu, plugin.backend)):
        for place in setting.places:
            assert list(values(case.items, place))


def test_romanas_services_have_the_addresses_that_the_catalogue_wants_a_range_for() -> None:
    (case,) = (each for each in NEWEST if each.name == "romana")
    fixed = {item["spec"]["clusterIP"] for item in case.items if item["kind"] == "Service"}
    assert fixed == {"10.96.0.88", "10.96.0.99"}
    told = " ".join(trap.what for trap in case.plugin.traps)
    assert all(address in told for address in fixed)
    assert case.plugin.needs.service_cidr is not None


def test_genie_gives_everybody_a_right_and_says_so() -> None:
    (case,) = (each for each in NEWEST if each.name == "cni-genie")
    bindings = [item for item in case.items if item["kind"] == "ClusterRoleBinding"]
    groups = {each["name"] for item in bindings for each in item["subjects"]}
    assert "system:authenticated" in groups
    assert any("system:authenticated" in trap.what for trap in case.plugin.traps)


GIVEN = {
    "nuage": {
        "vsd_url": "https://192.0.2.7:7443",
        "vsc": "192.0.2.8",
        "vsc_standby": "192.0.2.9",
        "token": "a.b.c",
        "release": "20.10.6",
    }
}


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_the_engine_fills_in_what_upstream_left_open(case: Case, tmp_path: Path) -> None:
    host = {"name": "cp", "address": "192.0.2.1", "role": "control_plane"}
    wanted: dict[str, Any] = {
        "cluster": "x",
        "kubernetes_version": f"{case.version}.1",
        "plugin": case.name,
        "hosts": [host],
        "plugin_parameters": GIVEN.get(case.name, {}),
    }
    if case.plugin.pod_cidr.stated_in:
        wanted["pod_cidr"] = "10.160.0.0/12"
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(wanted))
    params = load_params(file)
    plugin = params.wanted_plugin
    items = deepcopy(case.items)
    if plugin.needs.delegate == "flannel":
        text = (MANIFESTS / "flannel/kube-flannel.yml").read_text()
        items = [*yaml.safe_load_all(text), *items]
    made = prepare(items, plugin, params, where=case.name, control_plane="192.0.2.1")
    text = json.dumps(made.objects)
    for parameter in plugin.parameters:
        words = [parameter.dummy, *(place.placeholder for place in parameter.places)]
        assert not [word for word in words if word and word in text]
    if "pod_cidr" in wanted:
        assert str(plugin.pod_cidr.default) not in text.replace("\\\\/", "/")
        assert "10.160.0.0/12" in text.replace("\\\\/", "/")
    for load in plugin.workloads:
        spec = pod(one(made.objects, load.kind, load.namespace, load.name))
        if load.starts_on_not_ready and minor(case.version) >= (1, 12):
            assert tolerates(spec, NOT_READY), load.name
        if load.nodes != "workers" and load.starts_on_not_ready:
            assert tolerates(spec, CONTROL_PLANE), load.name
    assert made.secret == (case.name == "nuage")
    assert not [line for line in made.lines if "a.b.c" in line]


def test_a_template_that_nobody_filled_in_is_refused(tmp_path: Path) -> None:
    (case,) = (each for each in NEWEST if each.name == "nuage")
    file = tmp_path / "x.yaml"
    host = {"name": "cp", "address": "192.0.2.1", "role": "control_plane"}
    wanted = {"cluster": "x", "kubernetes_version": "1.18.20", "plugin": "nuage", "hosts": [host]}
    file.write_text(yaml.safe_dump(wanted))
    params = load_params(file)
    with pytest.raises(ParamsError) as caught:
        prepare(deepcopy(case.items), params.wanted_plugin, params, control_plane="192.0.2.1")
    for name in GIVEN["nuage"]:
        assert f"plugin_parameters: {name}: required" in str(caught.value)
