"""Catalogue entries against upstream's own manifests, where those are at hand.

They are other people's files and no part of the project: without them these tests are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from upstreamkit import MANIFESTS, MARKS

from kitlib import plugins
from kitlib.plugins.schema import Plugin

FILES = {
    "calico": ["calico.yaml"],
    "cilium": [
        "kubeone-v1.14.2-rendered-cilium-1.19.6.yaml",
        "kubeone-v1.14.2-cilium-config-map.yaml",
    ],
    "contrail": ["opensdn-standalone-kubernetes.yaml"],
    "flannel": ["kube-flannel.yml"],
    "kube-router": ["kubeadm-kuberouter.yaml"],
    "ovn": [
        "helm-v1.3.0-templates_ovn-setup.yaml",
        "helm-v1.3.0-charts_ovnkube-control-plane_templates_ovnkube-control-plane.yaml",
        "helm-v1.3.0-charts_ovnkube-single-node-zone_templates_ovnkube-single-node-zone.yaml",
        "helm-v1.3.0-charts_ovs-node_templates_ovs-node.yaml",
        "helm-v1.3.0-charts_ovnkube-identity_templates_ovnkube-identity.yaml",
    ],
    "weave": ["weave-daemonset-k8s-1.11.yaml"],
}
"""Plugin -> the files of the release that the entry describes."""
TEMPLATED = "TEMPLATED"

pytestmark = MARKS


def objects_of(plugin: str) -> list[dict[str, Any]]:
    """Return the objects of a plugin's manifests, Lists taken apart."""
    found: list[dict[str, Any]] = []
    for file in FILES[plugin]:
        text = (MANIFESTS / plugin / file).read_text()
        # What is left of a template without its own lines, and with a word for each value.
        text = re.sub(r"^ *\{\{.*\}\}\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"\{\{.*?\}\}", TEMPLATED, text)
        for document in yaml.safe_load_all(text):
            found += (document or {}).get("items") or [document] if document else []
    return found


def find(objects: list[dict[str, Any]], kind: str, namespace: str, name: str) -> dict[str, Any]:
    """Return the one object of that kind and name."""
    same = [
        item
        for item in objects
        if (item["kind"], item["metadata"]["name"]) == (kind, name)
        and (item["metadata"].get("namespace", "") == namespace or kind.startswith("ClusterRole"))
    ]
    assert len(same) == 1, f"{kind} {namespace}/{name}: {len(same)} in upstream's manifest"
    return same[0]


def tolerates_not_ready(pod: dict[str, Any]) -> bool:
    """Return whether a pod template may start on a node that is not Ready yet."""
    return any(
        each.get("effect", "NoSchedule") == "NoSchedule"
        and each.get("key", "node.kubernetes.io/not-ready") == "node.kubernetes.io/not-ready"
        for each in pod.get("tolerations") or []
    )


@pytest.fixture(params=sorted(FILES))
def entry(request: pytest.FixtureRequest) -> Plugin:
    return plugins.get(request.param)


def test_workloads_are_upstreams(entry: Plugin) -> None:
    objects = objects_of(entry.name)
    for load in entry.workloads:
        found = find(objects, load.kind, load.namespace, load.name)
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert load.selector.items() <= labels.items(), load.name
        selector = found["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels.items()


def test_pods_that_start_before_the_network_tolerate_its_absence(entry: Plugin) -> None:
    for load in entry.workloads:
        found = find(objects_of(entry.name), load.kind, load.namespace, load.name)
        starts = tolerates_not_ready(found["spec"]["template"]["spec"])
        if load.starts_on_not_ready != starts:
            told = " ".join(f"{trap.what} {trap.handled}" for trap in entry.traps)
            assert load.starts_on_not_ready, f"{load.name} tolerates it, the entry says otherwise"
            assert "toleration" in told, f"{load.name}: what the kit patches is not told"


def test_the_pod_cidr_stands_where_the_entry_says(entry: Plugin) -> None:
    place = entry.pod_cidr.stated_in
    if place is None or not place.kind:
        return  # it takes it from the Nodes
    found = find(objects_of(entry.name), place.kind, place.namespace, place.name)
    if place.env:
        pod = found["spec"]["template"]["spec"]
        stated = [
            variable.get("value")
            for container in pod["containers"]
            for variable in container.get("env") or []
            if variable["name"] == place.env
        ]
        assert stated in ([], [str(entry.pod_cidr.default)])  # absent: upstream's own default
    elif place.key:
        value = (found["data"] or {}).get(place.key)
        if value is None:
            return  # upstream's own default
        for part in filter(None, place.path.split(".")):
            value = (yaml.safe_load(value) if isinstance(value, str) else value)[part]
        assert value == TEMPLATED or place.read(value) == str(entry.pod_cidr.default)


def test_the_labs_manifest_has_upstreams_names_and_labels(entry: Plugin) -> None:
    lab = Path(plugins.__file__).parents[1] / "lab/manifests" / f"{entry.name}.yaml"
    documents = [each for each in yaml.safe_load_all(lab.read_text()) if each]
    ours = [item for each in documents for item in each.get("items") or [each]]
    objects = objects_of(entry.name)
    for item in ours:
        meta = item["metadata"]
        if item["kind"] not in ("DaemonSet", "Deployment", "ConfigMap"):
            continue  # the lab's accounts may do what its agents do, which is not the same
        found = find(objects, item["kind"], meta.get("namespace", ""), meta["name"])
        if item["kind"] in ("DaemonSet", "Deployment"):
            for part in ("selector", "template"):
                labels = [
                    each["spec"][part].get("matchLabels")
                    or each["spec"][part]["metadata"]["labels"]
                    for each in (item, found)
                ]
                # Flannel's release asset has a label more than the file that it is made from.
                assert labels[1].items() <= labels[0].items(), (meta["name"], part)
