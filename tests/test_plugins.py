"""The catalogue follows its schema, and tells whose a file or a device is."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from upstreamkit import MANIFESTS, upstream

from kitlib import plugins
from kitlib.errors import ParamsError
from kitlib.plugins.compose import why_not
from kitlib.plugins.fit import Fits, fit
from kitlib.plugins.install import Backend, Place
from kitlib.plugins.schema import Plugin, minor
from kitlib.software.releases import NEWEST_PATCH

CATALOGUE = Path(plugins.__file__).parent / "catalogue"
ALL = sorted(path.stem for path in CATALOGUE.glob("*.yaml"))
LIVING = ("maintained", "commercial")
NOBODYS = {"veth*", "lxc*", "tap*"}
"""Prefixes of pods' devices that other software uses too: they say nothing of whose they are."""
SHARED = {"vxlan_sys_4789": {"contiv", "nuage"}}
"""Devices that several plugins have: Open vSwitch itself names this one."""


def one_of(names: tuple[str, ...]) -> list[str]:
    """Return a name for each pattern: what a host that has it would show."""
    return [name.replace("*", "12ab") for name in names]


def test_there_is_an_entry_for_each_file_and_no_other() -> None:
    assert list(plugins.catalogue()) == ALL
    assert {"calico", "flannel", "kube-router"} <= set(ALL)


def test_unknown_plugin_names_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"known are calico, .*flannel.*; did you mean 'flannel'"):
        plugins.get("flanel")


@pytest.mark.parametrize("name", ALL)
def test_entry_agrees_with_itself(name: str) -> None:
    plugin = plugins.get(name)
    pod = one_of((plugin.interfaces.pod.name,))[0]
    assert plugin.is_pod_device(pod)
    if plugin.interfaces.pod.name not in NOBODYS and not plugin.needs.delegate:
        assert plugin.owns_interface(pod)
    if plugin.interfaces.tunnel:
        assert plugin.owns_interface(plugin.interfaces.tunnel)
    for file in plugin.cni.files:
        assert plugin.owns_cni_file(file)
        assert any(path.endswith(f"/{file}") for path in plugin.leftovers.paths)
    assert all(path.startswith("/") for path in plugin.leftovers.paths)
    assert bool(plugin.encapsulation) == bool(plugin.overhead_bytes)
    if plugin.needs.delegate:
        assert plugin.needs.delegate in ALL


@pytest.mark.parametrize("name", ALL)
def test_files_and_devices_are_one_plugins_alone(name: str) -> None:
    """Whose a name is must not depend on the order in which plugins are asked."""
    plugin = plugins.get(name)
    for file in one_of((*plugin.cni.files, *plugin.cni.extra_files)):
        assert plugins.catalogue().owner_of_cni_file(file) == name
    for device in one_of(plugin.interfaces.owned):
        assert name in SHARED.get(device, {plugins.catalogue().owner_of_interface(device)})
        assert not plugins.catalogue().foreign_interfaces(plugin, [device])
    for path in plugin.leftovers.paths:
        others = [each for each in plugins.catalogue().values() if each.name != name]
        # A program in /opt/cni/bin may come with several.
        if not path.startswith("/opt/cni/bin/"):
            assert [o.name for o in others if path in o.leftovers.paths] == [], path


@pytest.mark.parametrize("name", ALL)
def test_versions_are_in_order_and_in_range(name: str) -> None:
    plugin = plugins.get(name)
    span = plugin.kubernetes
    assert minor(span.min) <= minor(span.max)
    assert list(span.breaks) == sorted(span.breaks, key=lambda each: minor(each.since))
    assert all(minor(each.since) > minor(span.max) for each in span.breaks)
    newest = [minor(each.kubernetes.max) for each in plugin.releases]
    assert newest == sorted(newest, reverse=True), "newest release first"
    for each in plugin.releases:
        assert minor(span.min) <= minor(each.kubernetes.min) <= minor(each.kubernetes.max)
        assert minor(each.kubernetes.max) <= minor(span.max)
        addresses = plugin.manifest_addresses(f"{each.kubernetes.max}.1")
        assert all(address.startswith(("https://", "/")) for address in addresses)
        assert bool(addresses) == (plugin.manifest is not None)
        assert not [address for address in addresses if "{" in address]
        if plugin.manifest:
            where = each.addresses or plugin.manifest.addresses
            assert set(each.sha256) <= {address.rpartition("/")[2] for address in where}
    for version in (span.min, span.max):
        assert fit(plugin, version, plugins.catalogue()).answer is Fits.YES, version


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_living_names_living_plugins_that_fit_newer_versions(name: str) -> None:
    plugin = plugins.get(name)
    if plugin.status.state in LIVING:
        assert not plugin.status.instead or plugin.status.state == "commercial"
        return
    assert plugin.status.instead
    for other in map(plugins.get, plugin.status.instead):
        assert other.status.state == "maintained"
        assert minor(other.kubernetes.max) >= minor(plugin.kubernetes.max)
    for newer in (f"1.{minor(plugin.kubernetes.max)[1] + 1}", f"1.{max(NEWEST_PATCH) + 1}"):
        found = fit(plugin, newer, plugins.catalogue())
        assert found.answer is Fits.NO
        assert found.reasons
    assert found.instead


@pytest.mark.parametrize("name", ALL)
def test_facts_have_sources(name: str) -> None:
    for source in plugins.get(name).sources:
        assert re.match(r"[\w.-]+/[\w.-]+(@[\w./-]+)?(#\d+|:.+)?$", source) or "://" in source, (
            source
        )


def upstreams(plugin: str, file: str) -> tuple[bytes, list[dict[str, Any]]]:
    data = (MANIFESTS / plugin / file).read_bytes()
    return data, [each for each in yaml.safe_load_all(data) if each]


def find(objects: list[dict[str, Any]], kind: str, namespace: str, name: str) -> dict[str, Any]:
    (found,) = [
        each
        for each in objects
        if (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        == (kind, namespace, name)
    ]
    return found


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    pod = workload["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


def stands(objects: list[dict[str, Any]], place: Place) -> object:
    """Return what stands at a place of a manifest; None where upstream leaves it to its default."""
    found: Any = find(objects, place.kind, place.namespace, place.name)
    if place.env:
        named = [env for each in containers(found) for env in each.get("env", ())]
        return next((env["value"] for env in named if env["name"] == place.env), None)
    assert place.key, "a way that the three do not have yet"
    found = found["data"][place.key]
    if place.path:
        found = yaml.safe_load(found)
        for part in place.path.split("."):
            found = found[int(part)] if isinstance(found, list) else found.get(part)
    return found


THREE = [
    ("calico", "calico.yaml", "1.36"),
    ("calico", "calico-v3.31.7.yaml", "1.33"),
    ("calico", "calico-v3.30.7.yaml", "1.31"),
    ("calico", "calico-v3.28.5.yaml", "1.30"),
    ("calico", "calico-v3.25.2.yaml", "1.22"),
    ("flannel", "kube-flannel.yml", "1.36"),
    ("kube-router", "kubeadm-kuberouter.yaml", "1.36"),
]


@upstream
@pytest.mark.parametrize(("name", "file", "version"), THREE)
def test_entry_agrees_with_upstreams_manifest(name: str, file: str, version: str) -> None:
    data, objects = upstreams(name, file)
    plugin = plugins.get(name)
    release = plugin.release_for(version)
    assert release
    assert release.sha256 or name == "flannel"  # its address serves the file in another form
    assert set(release.sha256.values()) <= {hashlib.sha256(data).hexdigest()}
    text = data.decode()
    for load in plugin.workloads:
        found = find(objects, load.kind, load.namespace, load.name)
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert load.selector.items() <= labels.items()
        tolerations = found["spec"]["template"]["spec"].get("tolerations", ())
        tolerated = any(
            each.get("operator") == "Exists" and not each.get("key") for each in tolerations
        )
        assert tolerated == load.starts_on_not_ready
        for each in containers(found):
            image, _, tag = each["image"].partition("/")[2].partition(":")
            assert tag or (name == "kube-router" and image), each["image"]
    found_default = {"calico": None, "flannel": "10.244.0.0/16"}
    if plugin.pod_cidr.stated_in:
        assert stands(objects, plugin.pod_cidr.stated_in) == found_default[name]
        assert str(plugin.pod_cidr.default) in text
    if plugin.mtu:
        assert {stands(objects, place) for place in plugin.mtu.places} <= {"0", None}
    named = [file for file in plugin.cni.files if file in text]
    assert named
    # The first type makes the interface; those that a release alone chains behind are not judged.
    assert f'"type":"{plugin.cni.types[0]}"' in re.sub(r'": +"', '":"', text)
    groups = {each["apiVersion"] for each in objects}
    assert not [each for each in groups if "beta" in each]


def test_every_field_is_documented() -> None:
    seen = set()
    todo = [Plugin]
    while todo:
        model = todo.pop()
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(kind, "model_fields") and kind not in seen:
                    seen.add(kind)
                    todo.append(kind)
    assert len(seen) >= 10


def entry(tmp_path: Path, **changes: object) -> Path:
    data = yaml.safe_load((CATALOGUE / "flannel.yaml").read_text())
    path = tmp_path / "flannel.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"titel": "x"}, "titel"),
        ({"network_policy": "no"}, "network_policy"),
        ({"kubernetes": {"min": 1.17, "max": "1.36"}}, "kubernetes.min: 1.17"),
        ({"workloads": []}, "workloads"),
        ({"name": "other"}, "the file's name says 'flannel'"),
    ],
)
def test_schema_is_strict(tmp_path: Path, changes: dict[str, object], part: str) -> None:
    with pytest.raises(ParamsError) as caught:
        plugins.read(entry(tmp_path, **changes))
    assert part in str(caught.value)


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: [")
    with pytest.raises(ParamsError, match="not YAML"):
        plugins.read(path)


@pytest.mark.parametrize(
    ("version", "release"),
    [("1.22.3", "v3.25.2"), ("1.30.0", "v3.28.5"), ("1.33.1", "v3.31.7"), ("1.36.2", "v3.32.1")],
)
def test_newest_release_that_fits(version: str, release: str) -> None:
    assert f"/{release}/" in plugins.get("calico").manifest_addresses(version)[0]


def test_release_for_versions_beyond_the_known() -> None:
    calico = plugins.get("calico")
    assert "/v3.32.1/" in calico.manifest_addresses("1.40.0")[0]
    assert calico.manifest_addresses("1.20.0") == ()
    assert not calico.kubernetes.covers("1.20.9")


def test_nearest_release_where_none_fits() -> None:
    calico = plugins.get("calico")
    assert calico.release_for("1.16.1") is None
    assert "/v3.25.2/" in calico.manifest_addresses("1.16.1", nearest=True)[0]
    assert "/v3.32.1/" in calico.manifest_addresses("1.40.1", nearest=True)[0]


@pytest.mark.parametrize(
    ("device", "owner"),
    [
        ("cilium_vxlan", "cilium"),
        ("cilium_host", "cilium"),
        ("weave", "weave"),
        ("vethwe-bridge", "weave"),
        ("cbr0", "kubenet"),
        ("genev_sys_6081", "ovn"),
        ("contivh1", "contiv"),
        ("alubr0", "nuage"),
        ("vhost0", "contrail"),
        ("romana-lo", "romana"),
        ("flannel.1", "flannel"),
        ("kube-dummy-if", "kube-router"),
        ("eth0", ""),
        ("veth311c107a", ""),
        ("tunl0", ""),
        ("docker0", ""),
        ("lxcbr0", ""),
    ],
)
def test_owner_of_a_device(device: str, owner: str) -> None:
    assert plugins.catalogue().owner_of_interface(device) == owner


def test_foreign_devices() -> None:
    names = ["lo", "eth0", "cni0", "flannel.1", "kube-bridge", "veth1"]
    found = plugins.catalogue().foreign_interfaces(plugins.get("kube-router"), names)
    assert found == {"cni0": "flannel", "flannel.1": "flannel"}


@pytest.mark.parametrize(
    ("file", "config", "owner"),
    [
        ("10-flannel.conflist", {}, "flannel"),
        ("calico-kubeconfig", {}, "calico"),
        ("05-cilium.conflist", {}, "cilium"),
        ("00-genie.conf", {}, "cni-genie"),
        ("99-mine.conflist", {"plugins": [{"type": "calico"}, {"type": "portmap"}]}, "calico"),
        ("99-mine.conf", {"type": "weave-net"}, "weave"),
        ("x.conflist", {"plugins": [{"type": "bridge", "bridge": "kube-bridge"}]}, "kube-router"),
        ("x.conflist", {"plugins": [{"type": "bridge", "bridge": "cbr0"}]}, "kubenet"),
        ("x.conflist", {"plugins": [{"type": "bridge", "bridge": "br7"}]}, ""),
        ("x.conflist", {"plugins": "no list"}, ""),
    ],
)
def test_owner_of_a_cni_file(file: str, config: dict[str, object], owner: str) -> None:
    assert plugins.catalogue().owner_of_cni_file(file, json.dumps(config)) == owner


def test_a_file_that_is_no_json_has_no_types() -> None:
    assert plugins.cni_types("{") == ()
    assert plugins.cni_types("[1]") == ()


GENIE = plugins.get("cni-genie")


def test_a_plugin_that_calls_another_is_one_with_it() -> None:
    flannel = plugins.get("flannel")
    both = plugins.catalogue().wanted("cni-genie")
    assert both.name == "cni-genie"
    assert both.title == "CNI-Genie over Flannel"
    assert both.interfaces.pod == flannel.interfaces.pod
    assert both.interfaces.tunnel == "flannel.1"
    assert both.owns_interface("cni0")
    assert not both.owns_interface("alubr0")
    assert both.cni.files == ("00-genie.conf",)
    assert both.owns_cni_file("10-flannel.conflist")
    assert both.cni.types[0] == "genie"
    assert {"genie", "flannel", "bridge"} <= set(both.cni.binaries)
    assert [load.name for load in both.workloads][:2] == ["kube-flannel-ds", "genie-plugin"]
    assert both.needs.node_pod_cidr
    assert both.pod_cidr == flannel.pod_cidr
    assert both.kubernetes.min == "1.17"
    assert both.kubernetes.max == "1.21"
    assert {"/opt/cni/bin/genie", "/run/flannel"} <= set(both.leftovers.paths)
    assert both.has_part("flannel")
    assert both.has_part("cni-genie")
    assert not both.has_part("calico")
    assert not both.has_part("")
    assert plugins.catalogue().foreign_interfaces(both, ["cni0", "flannel.1", "alubr0"]) == {
        "alubr0": "nuage"
    }


def test_another_delegate_and_none_for_a_plugin_with_a_network_of_its_own() -> None:
    calico = plugins.catalogue().wanted("cni-genie", "calico")
    assert calico.interfaces.pod.name == "cali*"
    assert calico.needs.delegate == "calico"
    assert plugins.catalogue().wanted("flannel", "calico") == plugins.get("flannel")
    with pytest.raises(ParamsError, match="unknown plugin 'calcio'"):
        plugins.catalogue().wanted("cni-genie", "calcio")


@pytest.mark.parametrize(
    ("delegate", "why"),
    [
        ("flannel", ""),
        ("calico", ""),
        ("cni-genie", "calls another plugin itself"),
        ("kube-router", "by its name in its file's, and that is 10-kuberouter.conflist"),
    ],
)
def test_who_can_be_called(delegate: str, why: str) -> None:
    found = why_not(GENIE, plugins.get(delegate))
    assert why in found
    assert bool(found) == bool(why)


def test_a_plugin_without_devices_must_call_another(tmp_path: Path) -> None:
    none = {"pod": {"kind": "bridge", "name": "cni0"}, "owned": []}
    with pytest.raises(ParamsError, match=r"interfaces\.owned: at least one, or needs\.delegate"):
        plugins.read(entry(tmp_path, interfaces=none))


def place(**extra: str) -> Place:
    return Place(kind="DaemonSet", name="x", env="CIDR", **extra)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("{}", "10.0.0.0/8"),
        ("net={}", "net=10.0.0.0/8"),
        ("{escaped}", r"10.0.0.0\/8"),
    ],
)
def test_the_form_of_a_value(form: str, text: str) -> None:
    assert place(form=form).written("10.0.0.0/8") == text
    assert place(form=form).read(text) == "10.0.0.0/8"


def test_a_form_has_one_place_for_the_value() -> None:
    assert place(form="net={}").read("other=1") == "other=1"
    with pytest.raises(ValidationError, match=r"form: \{\} or \{escaped\}, once"):
        place(form="net")


def test_a_backend_changes_what_packets_are_wrapped_in_and_where_they_leave() -> None:
    usual, routed = (
        plugins.catalogue().wanted("flannel"),
        plugins.catalogue().wanted("flannel", backend="host-gw"),
    )
    assert (usual.encapsulation, usual.interfaces.tunnel) == ("VXLAN", "flannel.1")
    assert (routed.encapsulation, routed.overhead_bytes, routed.interfaces.tunnel) == ("", 0, "")
    assert routed.interfaces.owned == usual.interfaces.owned
    assert plugins.catalogue().wanted("flannel", backend="vxlan") == usual
    assert plugins.catalogue().wanted("kube-router", backend="x") == plugins.catalogue().wanted(
        "kube-router"
    )
    with pytest.raises(ValidationError, match="not among the values: other"):
        Backend.model_validate(
            {"places": [{"placeholder": "x"}], "values": {"a": "b"}, "datapaths": {"other": {}}}
        )
