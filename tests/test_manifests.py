"""The manifest engine: golden cases of small manifests, and upstream's own ones where they are."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from upstreamkit import MANIFESTS, upstream

from kitlib import errors, manifests, plugins
from kitlib.command import MASK
from kitlib.manifests import dump, is_large, parse_image, read
from kitlib.manifests.traps import NOT_READY, tolerates
from kitlib.params import load
from kitlib.plugins import Plugin

ROOT = Path(__file__).parents[1]
CASES = sorted((ROOT / "tests/data/manifests").glob("*.yaml"))
NOTHING = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n"


def plugin_of(name: str, entry: dict[str, Any] | None = None) -> Plugin:
    """Return a plugin of the catalogue, with other words in its entry, and no words on traps."""
    text = (ROOT / f"kitlib/plugins/catalogue/{name}.yaml").read_text()
    return Plugin.model_validate(
        {**yaml.safe_load(text), "hazards": {}, "traps": [], **(entry or {})}
    )


def params_of(tmp_path: Path, **changes: Any) -> Any:
    host = {"name": "cp", "address": "192.0.2.1", "role": "control_plane"}
    base = {"cluster": "x", "kubernetes_version": "1.22.3", "plugin": "flannel", "hosts": [host]}
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({**base, **changes}))
    return load(file)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = yaml.safe_load(path.read_text())
    plugin = plugin_of(case["plugin"], case.get("entry"))
    wanted = {"plugin": case["plugin"], **case.get("params", {})}
    wanted["kubernetes_version"] = case.get("version", "1.22.3")
    if case.get("own_file"):
        (tmp_path / "own.yaml").write_text(case["manifest"])
        wanted["plugin_manifest"] = "own.yaml"
    params = params_of(tmp_path, **wanted)
    if case.get("given"):
        monkeypatch.setattr(type(params), "plugin_parameters", case["given"], raising=False)
    objects = read(case["manifest"], "here")
    before = yaml.safe_dump(objects)

    def prepared() -> manifests.Prepared:
        return manifests.prepare(objects, plugin, params, where="here", control_plane="192.0.2.1")

    if "error" in case:
        kind, *words = case["error"]
        with pytest.raises(getattr(errors, kind)) as caught:
            prepared()
        for word in words:
            assert word in str(caught.value)
        return
    found = prepared()
    assert list(found.lines) == case["lines"]
    assert yaml.safe_dump(objects) == before, "what was read stays as it is"
    if "applied" in case:
        assert found.objects == read(case["applied"], "there")
    assert read(dump(found.objects), "dumped") == found.objects
    secrets = case.get("given", {}).values()
    assert found.secret == bool(secrets)
    assert not [line for line in found.lines for secret in secrets if secret in line]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {{ K8S_MASTER_IP }}: b\n", "not YAML but a template: {{ K8S_MASTER_IP }} in line 1"),
        ("# {{ x }}\na: [1\n{% if x %}\n", "not YAML but a template: {% if x %} in line 3"),
        ("a: [1\n", "not YAML: "),
        ("<html>\n", "not a Kubernetes object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "a Pod without a name"),
        ("- 1\n", "document 1: not a Kubernetes object"),
        ("kind: List\napiVersion: v1\nitems: {a: b}\n", "a List without a list of items"),
        ("---\n---\n# empty\n", "no object in it"),
        ("a: !!timestamp x\n", "not a Kubernetes object|not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_named(text: str, words: str) -> None:
    with pytest.raises(errors.ParamsError) as caught:
        read(text, "here")
    message = str(caught.value)
    assert message.startswith("plugin manifest: here: ")
    assert any(word in message for word in words.split("|"))


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("flannel/flannel:v1", "docker.io/flannel/flannel:v1"),
        ("ghcr.io/flannel-io/flannel:v1", "ghcr.io/flannel-io/flannel:v1"),
        ("r:5000/x", "r:5000/x:latest"),
        ("localhost/x:1", "localhost/x:1"),
        ("quay.io/x@sha256:" + "ab" * 32, "quay.io/x@sha256:" + "ab" * 32),
        ("quay.io/x:1@sha256:" + "ab" * 32, "quay.io/x:1@sha256:" + "ab" * 32),
    ],
)
def test_images_are_named_as_the_runtime_keeps_them(image: str, full: str) -> None:
    assert parse_image(image).full == full


@pytest.mark.parametrize("image", ["", "A/b", "a:b:c", "{{ x }}", "a/__V__", "a:<release>", "a b"])
def test_what_is_no_image(image: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_image(image)


def test_every_container_of_a_manifest_is_found() -> None:
    pod = {"initContainers": [{"image": "a"}], "containers": [{"image": "b"}, {"name": "x"}]}
    objects: list[Any] = [{"spec": {"template": {"spec": pod}}}, {"data": {"image": "no"}}, 1]
    assert manifests.images_of(objects) == ["a", "b"]


def test_words_that_kubectl_would_take_for_something_else_are_quoted() -> None:
    words = {
        "a": "1e3",
        "b": "y",
        "c": "0x10",
        "d": "on",
        "e": "1:30",
        "f": "",
        "g": "~",
        "h": "+1",
    }
    text = dump([words])
    for word in words.values():
        assert f"'{word}'" in text
    assert yaml.safe_load(text) == words


def test_an_object_is_large_by_the_annotation_that_kubectl_would_make() -> None:
    item = read(NOTHING, "x")[0]
    assert not is_large({**item, "data": {"a": "x" * 200_000}})
    assert is_large({**item, "data": {"a": "x" * 262_000}})
    assert is_large({**item, "data": {"a": "<" * 50_000}}), "Go writes \\u003c"


def test_the_parameters_judge_the_plugins_own_words(tmp_path: Path) -> None:
    with pytest.raises(errors.ParamsError) as caught:
        params_of(
            tmp_path,
            plugin_backend="vxlam",
            plugin_parameters={"nonsense": "x"},
            image_registry="https://registry.example.net",
        )
    text = str(caught.value)
    assert "plugin_backend: 'vxlam': unknown to flannel, which knows vxlan, host-gw" in text
    assert "plugin_parameters.nonsense: its value: unknown parameter" in text
    assert "image_registry: 'https://registry.example.net': a registry's name" in text
    with pytest.raises(errors.ParamsError, match="1400: kube-router finds the MTU by itself"):
        params_of(tmp_path, plugin="kube-router", pod_mtu=1400)


@pytest.fixture
def with_parameters(monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The catalogue with a flannel that wants a controller and a key."""
    places = [{"placeholder": "__X__"}]
    wanted = [
        {"name": "controller", "what": "an address", "places": places},
        {"name": "api_key", "what": "a key", "places": places, "secret": True},
    ]
    made = plugin_of("flannel", {"parameters": wanted})
    known = plugins.Catalogue({**plugins.catalogue(), "flannel": made})
    monkeypatch.setattr(plugins, "catalogue", lambda: known)
    return made


@pytest.mark.usefixtures("with_parameters")
def test_required_parameters_and_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.ParamsError) as caught:
        params_of(tmp_path, plugin_parameters={"controler": "secret-in-the-wrong-key"})
    text = str(caught.value)
    assert "plugin_parameters.controller: '': required by flannel: an address" in text
    assert "plugin_parameters.api_key: '': required by flannel: a key" in text
    assert "did you mean 'controller'?" in text
    assert "secret-in-the-wrong-key" not in text
    given = {"controller": "192.0.2.9", "api_key": "env:A_KEY_OF_MINE"}
    with pytest.raises(errors.ParamsError, match="no such environment variable"):
        params_of(tmp_path, plugin_parameters=given)
    with pytest.raises(errors.ParamsError, match="the mask of a secret, not its value"):
        params_of(tmp_path, plugin_parameters={**given, "api_key": MASK})
    monkeypatch.setenv("A_KEY_OF_MINE", "hunter2hunter2")
    params = params_of(tmp_path, plugin_parameters=given)
    assert params.plugin_parameters["api_key"] == "hunter2hunter2"
    assert params.secrets() == ("hunter2hunter2",)
    assert params.masked()["plugin_parameters"] == {"controller": "192.0.2.9", "api_key": MASK}


@cache
def _read_upstream(name: str) -> str | list[dict[str, Any]]:
    try:
        return read((MANIFESTS / name).read_text(), name)
    except errors.ParamsError as error:
        return error.message


def upstream_objects(name: str) -> list[dict[str, Any]]:
    found = _read_upstream(name)
    assert isinstance(found, list), found
    return copy.deepcopy(found)


def every_upstream_file() -> list[str]:
    found = sorted(MANIFESTS.glob("*/*.y*ml"))
    return [f"{path.parent.name}/{path.name}" for path in found]


@upstream
def test_every_upstream_manifest_is_read_or_named() -> None:
    found = {name: _read_upstream(name) for name in every_upstream_file()}
    read_well = {name: each for name, each in found.items() if isinstance(each, list)}
    refused = {name: each for name, each in found.items() if isinstance(each, str)}
    assert len(read_well) >= 60
    for name, objects in read_well.items():
        manifests.reading.unique(objects, name)
        if (MANIFESTS / name).stat().st_size < 100_000 or name == "calico/calico.yaml":
            assert read(dump(objects), name) == objects
    templates = [name for name, why in refused.items() if "template" in why]
    assert len(templates) >= 15
    others = {name.rpartition("/")[2] for name in refused} - {
        name.rpartition("/")[2] for name in templates
    }
    assert all("values" in each or "kustomization" in each or "Chart" in each for each in others)


@upstream
def test_what_is_too_large_for_the_annotation() -> None:
    large = [
        item["metadata"]["name"]
        for item in upstream_objects("calico/operator-crds.yaml")
        if is_large(item)
    ]
    assert "installations.operator.tigera.io" in large
    assert not [item for item in upstream_objects("flannel/kube-flannel.yml") if is_large(item)]


@upstream
@pytest.mark.parametrize(
    ("plugin", "name", "version", "lines"),
    [
        ("flannel", "flannel/kube-flannel.yml", "1.36.0", []),
        ("calico", "calico/calico.yaml", "1.36.0", []),
        (
            "kube-router",
            "kube-router/kubeadm-kuberouter.yaml",
            "1.36.0",
            ["cloudnativelabs/kube-router:v2.11.1"],
        ),
    ],
)
def test_upstreams_own_manifest_needs_no_more_than_this(
    plugin: str, name: str, version: str, lines: list[str], tmp_path: Path
) -> None:
    params = params_of(tmp_path, plugin=plugin, kubernetes_version=version)
    found = manifests.prepare(upstream_objects(name), plugin_of(plugin), params)
    assert len(found.lines) == len(lines)
    assert all(word in line for word, line in zip(lines, found.lines, strict=True))


@upstream
@pytest.mark.parametrize(
    ("name", "unable"),
    [
        ("contiv/contiv.yaml", 2),
        ("contiv/etcd.yaml", 2),
        ("romana/romana-kubeadm-v2.0.2.yml", 4),
        ("romana/romana-kubeadm.yml", 0),
        ("cni-genie/genie-plugin.yaml", 0),
        ("nuage/k8s-1-18-nuage-node-config-daemonset.yaml", 0),
        ("weave/weave-daemonset-k8s-1.11.yaml", 0),
        ("cilium/kubeone-v1.14.2-rendered-cilium-1.19.6.yaml", 0),
    ],
)
def test_which_upstream_workloads_would_never_start(name: str, unable: int) -> None:
    from kitlib.manifests.traps import not_ready_tolerations

    objects = upstream_objects(name)
    patches = not_ready_tolerations(objects, plugins.get("flannel"), "1.15.0")
    assert len(patches) == unable
    for item in objects:
        spec = manifests.pod_spec(item)
        if spec and spec.get("hostNetwork"):
            assert tolerates(spec, NOT_READY)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/data/manifests/upgrade").glob("*.yaml")), ids=lambda p: p.stem
)
def test_upgrade(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    objects = read(case["manifest"], "old")
    before = yaml.safe_dump(objects)
    found, notes = manifests.upgrade(objects, case["to"])
    assert notes == case["notes"]
    assert found == read(case["upgraded"], "new")
    assert yaml.safe_dump(objects) == before
    assert manifests.upgrade(found, case["to"])[0] == found, "once is enough"


@upstream
def test_every_upstream_manifest_has_a_version_that_serves_it_and_can_be_upgraded() -> None:
    fits = {}
    for name in every_upstream_file():
        objects = _read_upstream(name)
        if isinstance(objects, str):
            continue
        fits[name] = newest = manifests.newest_fitting(objects)
        assert manifests.unserved(objects, newest or "1.36") == [], name
        upgraded, _ = manifests.upgrade(objects, "1.36")
        assert manifests.unserved(upgraded, "1.36") == [], name
    assert fits["romana/romana-kubeadm.yml"] == fits["contiv/contiv.yaml"] == "1.15"
    assert fits["cni-genie/genie-plugin.yaml"] == "1.21"
    assert fits["flannel/kube-flannel-v0.18.1.yml"] == "1.24"
    assert fits["flannel/kube-flannel.yml"] == fits["calico/calico.yaml"] == ""


@upstream
def test_a_retired_plugins_manifest_is_shown_as_a_new_kubernetes_wants_it() -> None:
    text = (MANIFESTS / "romana/romana-kubeadm-v2.0.2.yml").read_text()
    shown, notes = manifests.shown_manifest(plugin_of("flannel"), "1.31", text)
    objects = read(shown, "shown")
    daemon = next(item for item in objects if item["kind"] == "DaemonSet")
    assert daemon["spec"]["selector"] == {"matchLabels": {"romana-app": "agent"}}
    assert manifests.unserved(objects, "1.31") == []
    assert sum("extensions/v1beta1 -> apps/v1" in note for note in notes) == 4
    assert sum("not-ready:NoSchedule" in note for note in notes) == 4


NUAGE = {
    "vsd_url": "https://vsd.example.net:7443",
    "vsc": "192.0.2.9",
    "vsc_standby": "192.0.2.10",
    "token": "hunter2hunter2",
    "release": "20.10.6",
}
NUAGE_FILES = tuple(
    f"nuage/k8s-1-18-nuage-{each}-daemonset.yaml"
    for each in ("node-config", "master-config", "infra-pod-config")
)


@upstream
@pytest.mark.parametrize(
    ("plugin", "files", "version", "changes"),
    [
        ("flannel", ("flannel/kube-flannel.yml",), "1.36.0", {}),
        ("calico", ("calico/calico.yaml",), "1.36.0", {}),
        ("weave", ("weave/weave-daemonset-k8s-1.11.yaml",), "1.36.0", {}),
        ("kube-router", ("kube-router/kubeadm-kuberouter.yaml",), "1.36.0", {"image": 2}),
        (
            "contiv",
            ("contiv/etcd.yaml", "contiv/contiv.yaml"),
            "1.15.12",
            {"not-ready": 4, "__NETMASTER_IP__": 4, "_VERSION__": 5},
        ),
        ("romana", ("romana/romana-kubeadm-v2.0.2.yml",), "1.15.12", {"not-ready": 4}),
        ("romana", ("romana/romana-kubeadm.yml",), "1.15.12", {}),
        (
            "cni-genie",
            ("cni-genie/genie-plugin.yaml",),
            "1.21.14",
            {"default_plugin": 1, "role.kubernetes.io/master:NoSchedule": 1},
        ),
        ("nuage", NUAGE_FILES, "1.18.20", {"<nuage-release>": 4, "env": 5, "config": 4}),
    ],
)
def test_every_plugins_own_manifest_gets_the_patches_that_it_needs(
    plugin: str, files: tuple[str, ...], version: str, changes: dict[str, int], tmp_path: Path
) -> None:
    given = NUAGE if plugin == "nuage" else {}
    params = params_of(tmp_path, plugin=plugin, kubernetes_version=version, plugin_parameters=given)
    objects = [item for name in files for item in upstream_objects(name)]
    found = manifests.prepare(
        objects, params.wanted_plugin, params, where=plugin, control_plane="192.0.2.1"
    )
    lines = [str(each) for each in found.patches]
    counts = {word: sum(word in line for line in lines) for word in changes}
    assert counts == changes
    assert len(lines) == sum(changes.values()), lines
    assert found.secret == (plugin == "nuage")
    assert not [line for line in found.lines if "hunter2" in line]
