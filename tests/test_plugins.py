"""The catalogue follows its schema, and tells whose a file or a device is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kitlib import plugins
from kitlib.errors import ParamsError
from kitlib.plugins.schema import Plugin

CATALOGUE = Path(plugins.__file__).parent / "catalogue"
KIND_DEVICE = {"flannel": "cni0", "calico": "cali12ab", "kube-router": "kube-bridge"}


def test_three_plugins() -> None:
    assert list(plugins.catalogue()) == ["calico", "flannel", "kube-router"]


def test_unknown_plugin_names_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"known are calico, flannel, kube-router; did you mean"):
        plugins.get("flanel")


@pytest.mark.parametrize("name", sorted(KIND_DEVICE))
def test_entry_agrees_with_itself(name: str) -> None:
    plugin = plugins.get(name)
    assert plugin.is_pod_device(KIND_DEVICE[name])
    assert plugin.owns_interface(KIND_DEVICE[name])
    assert plugins.owner_of_interface(KIND_DEVICE[name]) == name
    if plugin.interfaces.tunnel:
        assert plugin.owns_interface(plugin.interfaces.tunnel)
    for file in plugin.cni.files:
        assert plugin.owns_cni_file(file)
        assert plugins.owner_of_cni_file(file) == name
        assert any(path.endswith(f"/{file}") for path in plugin.leftovers.paths)
    assert all(path.startswith("/") for path in plugin.leftovers.paths)
    assert plugin.manifest_addresses("1.22.3")[0].startswith("https://")


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
    assert plugins.owner_of_interface(device) == owner


def test_foreign_devices() -> None:
    names = ["lo", "eth0", "cni0", "flannel.1", "kube-bridge", "veth1"]
    found = plugins.foreign_interfaces(plugins.get("kube-router"), names)
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
    assert plugins.owner_of_cni_file(file, json.dumps(config)) == owner


def test_a_file_that_is_no_json_has_no_types() -> None:
    assert plugins.cni_types("{") == ()
    assert plugins.cni_types("[1]") == ()
