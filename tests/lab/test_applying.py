"""Prepared objects through the real kubectl into the emulated API, and recognised there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apikit
import pytest
import yaml

from kitlib import plugins
from kitlib.command import Cmd
from kitlib.errors import DeadlineError
from kitlib.kube import Kube
from kitlib.manifests import Prepared, dump, is_large, read
from kitlib.stages import applying
from kitlib.stages.configuration import KIT_DIRECTORY

pytestmark = pytest.mark.skipif(apikit.find_kubectl() is None, reason="kubectl is not installed")

TEXT = """
{apiVersion: v1, kind: Namespace, metadata: {name: n}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gizmos.example.net}
spec:
  group: example.net
  scope: Namespaced
  names: {kind: Gizmo, listKind: GizmoList, plural: gizmos, singular: gizmo}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
{apiVersion: example.net/v1, kind: Gizmo, metadata: {name: g, namespace: n}, spec: {a: 1}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: small, namespace: n}, data: {a: b}}
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apikit.Api]:
    made = apikit.launch(tmp_path_factory.mktemp("api"), "1.22.3", 0.02)
    try:
        yield made
    finally:
        made.stop()


class Bench:
    """A control plane that is this machine, and what was done on it."""

    def __init__(self, api: apikit.Api, tmp_path: Path) -> None:
        self.api, self.tmp_path = api, tmp_path
        self.plugin = plugins.get("flannel")
        self.administrator = SimpleNamespace(name="cp")
        self.modes: dict[str, int] = {}
        self.kept: dict[str, str] = {}
        self.journal = SimpleNamespace(keep=lambda name, text: self.kept.update({name: text}))
        self._kube = Kube(yaml.safe_load(api.kubeconfig().read_text()))

    def kube(self, *, wait: float = 0) -> Kube:
        return self._kube

    def put(self, host: str, text: str, path: str, *, mode: int = 0o644) -> None:
        self.modes[path] = mode
        (self.tmp_path / Path(path).name).write_text(text)

    def run(self, host: str, cmd: Cmd) -> subprocess.CompletedProcess[str] | None:
        argv = [str(word).replace(KIT_DIRECTORY, str(self.tmp_path)) for word in cmd.argv]
        if argv[0] == "mkdir":
            return None
        assert argv[0] == "kubectl", argv
        done = self.api.kubectl(*argv[1:])
        assert done.returncode == 0, done.stderr
        return done

    def apply(self, objects: list[dict[str, Any]], *, secret: bool = False) -> list[str]:
        manifest = Prepared(objects, where="here", secret=secret)
        lacking = applying.missing(self, objects)
        actions = applying.apply_actions(self, manifest, lacking)
        for action in actions:
            if action.do is not None:
                action.do(self)
            else:
                assert action.command is not None
                self.run(action.target, action.command)
        return [action.what for action in actions]


@pytest.fixture
def bench(api: apikit.Api, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(api, tmp_path)
    yield made
    made.kube().close()


def test_definitions_first_and_large_objects_on_the_servers_side(bench: Bench) -> None:
    objects = read(TEXT, "x")
    large: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "large", "namespace": "n"},
        "data": {"a": "x" * 270_000},
    }
    definition = yaml.safe_load(yaml.safe_dump(objects[1]).replace("izmo", "adget"))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["description"] = "y" * 270_000
    objects += [large]
    objects.insert(2, definition)
    assert [is_large(item) for item in objects].count(True) == 2

    whats = bench.apply(objects)
    assert whats[0].startswith(
        "write the manifest from here to /etc/kubekit/flannel-first.yaml and"
    )
    assert whats[1:] == [
        "apply Flannel: 1 Namespace, 1 CustomResourceDefinition",
        "apply Flannel: 1 CustomResourceDefinition, on the server's side: too large for kubectl's "
        "annotation",
        "apply Flannel: 1 Gizmo, 1 ConfigMap, once 1 definition(s) of theirs stand",
        "apply Flannel: 1 ConfigMap, on the server's side: too large for kubectl's annotation, "
        "once 1 definition(s) of theirs stand",
    ]
    assert applying.missing(bench, objects) == []
    assert read(bench.kept["flannel.yaml"], "kept") == objects

    # What others add to it is no difference; what the manifest changes is one.
    bench.api.ok("-n", "n", "label", "configmap", "large", "theirs=1")
    bench.api.ok("-n", "n", "patch", "configmap", "large", "-p", '{"data": {"own": "1"}}')
    assert applying.missing(bench, objects) == []
    large["data"] = {"a": "z" * 270_000}
    assert applying.missing(bench, objects) == [large]
    assert len(bench.apply(objects)) == 2, "only the file with what is missing"
    assert applying.missing(bench, objects) == []
    live = bench.kube().get("/api/v1/namespaces/n/configmaps/large")
    assert live["data"]["own"] == "1"
    assert live["data"]["a"][0] == "z"

    # Applied by somebody else in the same words, it is not what the kit applied.
    bench.api.ok("-n", "n", "delete", "configmap", "large")
    bench.api.ok("apply", "--server-side", "-f", "-", stdin=dump([large]))
    assert applying.missing(bench, objects) == [large]


def test_a_plain_manifest_is_one_file_and_one_command(bench: Bench) -> None:
    objects = read(TEXT.replace("name: n", "name: m").replace("namespace: n", "namespace: m"), "x")
    objects = [item for item in objects if item["kind"] in ("Namespace", "ConfigMap")]
    whats = bench.apply(objects, secret=True)
    assert [what.partition(" (")[0] for what in whats] == [
        "write the manifest from here to /etc/kubekit/flannel.yaml",
        "apply Flannel: 1 Namespace, 1 ConfigMap",
    ]
    assert bench.modes == {"/etc/kubekit/flannel.yaml": 0o600}
    (remove,) = applying.remove_files(bench, Prepared(objects, secret=True))
    assert str(remove.command) == "rm -f /etc/kubekit/flannel.yaml"
    assert applying.remove_files(bench, Prepared(objects)) == ()
    assert applying.missing(bench, objects) == []
    bench.api.ok("-n", "m", "label", "configmap", "small", "theirs=1")
    assert applying.missing(bench, objects) == []


def test_a_definition_that_is_never_established(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "ESTABLISHED_SECONDS", 0.2)
    kube = SimpleNamespace(find=lambda path: {"status": {"conditions": []}})
    with pytest.raises(DeadlineError, match=r"gizmos.*no condition yet"):
        applying._wait_for(kube, ["gizmos"])  # type: ignore[arg-type]
