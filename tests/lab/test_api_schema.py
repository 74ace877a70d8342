"""Which groups each Kubernetes version serves, and what custom resources add."""

from __future__ import annotations

import pytest

from kitlib.lab.api import discovery, schema


def _serves(minor: int, group: str, version: str, plural: str) -> bool:
    return (group, version, plural) in schema.catalogue(minor).resources


@pytest.mark.parametrize(
    ("group", "version", "plural", "first", "last"),
    [
        ("extensions", "v1beta1", "daemonsets", 15, 15),
        ("extensions", "v1beta1", "ingresses", 15, 21),
        ("apps", "v1beta2", "deployments", 15, 15),
        ("apps", "v1", "deployments", 15, 36),
        ("rbac.authorization.k8s.io", "v1beta1", "clusterroles", 15, 21),
        ("apiextensions.k8s.io", "v1beta1", "customresourcedefinitions", 15, 21),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions", 16, 36),
        ("admissionregistration.k8s.io", "v1beta1", "mutatingwebhookconfigurations", 15, 21),
        ("certificates.k8s.io", "v1beta1", "certificatesigningrequests", 15, 21),
        ("certificates.k8s.io", "v1", "certificatesigningrequests", 19, 36),
        ("networking.k8s.io", "v1beta1", "ingresses", 15, 21),
        ("policy", "v1beta1", "podsecuritypolicies", 15, 24),
        ("policy", "v1", "poddisruptionbudgets", 21, 36),
        ("batch", "v1beta1", "cronjobs", 15, 24),
        ("discovery.k8s.io", "v1", "endpointslices", 21, 36),
        ("flowcontrol.apiserver.k8s.io", "v1beta3", "flowschemas", 26, 31),
        ("autoscaling", "v2beta2", "horizontalpodautoscalers", 15, 25),
    ],
)
def test_each_version_serves_exactly_its_groups(
    group: str, version: str, plural: str, first: int, last: int
) -> None:
    served = [minor for minor in range(15, 37) if _serves(minor, group, version, plural)]
    assert served == list(range(first, last + 1))


@pytest.mark.parametrize("minor", [14, 37])
def test_other_versions_are_refused(minor: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.{minor}"):
        schema.catalogue(minor)


def test_extensions_objects_are_the_same_as_those_of_apps() -> None:
    resources = schema.catalogue(15).resources
    old, new = (resources[("extensions", "v1beta1", "daemonsets")],
                resources[("apps", "v1", "daemonsets")])  # fmt: skip
    assert old.store == new.store == "apps/daemonsets"


def test_discovery_names_subresources_with_their_own_groups() -> None:
    found = discovery.resources(schema.catalogue(22), "", "v1", 22)
    entries = {entry["name"]: entry for entry in found["resources"]}
    assert found["groupVersion"] == "v1"
    assert entries["pods/eviction"]["group"] == "policy"
    assert entries["pods/eviction"]["version"] == "v1"
    assert entries["nodes"]["shortNames"] == ["no"]
    groups = discovery.groups(schema.catalogue(22))["groups"]
    preferred = {group["name"]: group["preferredVersion"]["version"] for group in groups}
    assert preferred["policy"] == "v1"
    assert preferred["apps"] == "v1"
    assert "" not in preferred


def test_every_group_version_has_an_openapi_document() -> None:
    catalogue = schema.catalogue(30)
    for path in discovery.openapi_index(catalogue)["paths"]:
        parts = path.split("/")
        group, version = (parts[1], parts[2]) if len(parts) == 3 else ("", parts[1])
        assert discovery.openapi(catalogue, group, version)["paths"], path


@pytest.mark.parametrize(("minor", "form"), [(26, ""), (27, "v2beta1"), (30, "v2"), (36, "v2")])
def test_aggregated_discovery_says_the_same_as_the_documents_of_each_group(
    minor: int, form: str
) -> None:
    served = schema.catalogue(minor)
    asked = ",".join(
        f"application/json;g=apidiscovery.k8s.io;v={each};as=APIGroupDiscoveryList"
        for each in ("v2", "v2beta1")
    )
    found, media = discovery.aggregated(served, minor, f"{asked},application/json", core=False)
    assert media == (asked.split(",")[form != "v2"] if form else "")
    if not form:
        assert found == {}
        return
    assert found["apiVersion"] == f"apidiscovery.k8s.io/{form}"
    told = {
        (group["metadata"]["name"], version["version"], resource["resource"])
        for group in found["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }
    assert told == {key for key in served.resources if key[0]}
    core, _ = discovery.aggregated(served, minor, asked, core=True)
    (only,) = core["items"]
    pods = next(r for r in only["versions"][0]["resources"] if r["resource"] == "pods")
    assert (pods["scope"], pods["singularResource"], pods["shortNames"]) == (
        "Namespaced", "pod", ["po"],
    )  # fmt: skip
    (eviction,) = [sub for sub in pods["subresources"] if sub["subresource"] == "eviction"]
    assert eviction["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
