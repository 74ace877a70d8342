"""The manifest onto this machine: once in a run, checked, or rendered from a chart."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kitlib import plugins
from kitlib.errors import ParamsError, PreconditionError
from kitlib.journal import Journal
from kitlib.manifests import read
from kitlib.params import Params, load
from kitlib.plugins import Plugin
from kitlib.stages import fetching
from kitlib.stages.fetching import chart_values, fetch, fetch_all, prepared

TEXT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\n"


class Server:
    """Files of one directory by HTTP, and how often each was asked for."""

    def __init__(self, directory: Path) -> None:
        asked = self.asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(directory))

            def do_GET(self) -> None:
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *_: Any) -> None:
                return

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "flannel.yaml").write_text(TEXT)
    made = Server(folder)
    yield made
    made.http.shutdown()
    made.http.server_close()


def params_of(tmp_path: Path, **changes: Any) -> Params:
    host = {"name": "cp", "address": "192.0.2.1", "role": "control_plane"}
    base = {"cluster": "x", "kubernetes_version": "1.31.0", "plugin": "flannel", "hosts": [host]}
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({**base, **changes}))
    return load(file)


def context(params: Params, journal: Journal) -> Any:
    return SimpleNamespace(
        params=params, plugin=plugins.get(params.plugin), journal=journal, manifest=None,
        control_plane=params.control_plane,
    )  # fmt: skip


def test_an_address_is_fetched_once_in_a_run_and_a_file_each_time(
    server: Server, tmp_path: Path
) -> None:
    journal = Journal.create(tmp_path / "runs", "x", {})
    params = params_of(tmp_path, plugin_source=server.url)
    first = prepared(context(params, journal))
    assert [item["metadata"]["name"] for item in first.objects] == ["x"]
    assert first.where == f"{server.url}/flannel.yaml"
    again = prepared(context(params, Journal.open(journal.path)))
    assert again.objects == first.objects
    assert server.asked == ["/flannel.yaml"]
    assert (journal.path / "raw/flannel-fetched.yaml").read_text() == TEXT
    assert journal.record()["manifest"] == {
        "where": f"{server.url}/flannel.yaml",
        "from": [f"{server.url}/flannel.yaml"],
        "sha256": hashlib.sha256(TEXT.encode()).hexdigest(),
    }
    prepared(context(params, Journal.create(tmp_path / "runs", "x", {})))
    assert len(server.asked) == 2, "another run asks anew"

    file = tmp_path / "own.yaml"
    file.write_text(TEXT)
    params = params_of(tmp_path, plugin_manifest=str(file))
    assert prepared(context(params, journal)).objects[0]["data"] == {"a": "b"}
    file.write_text(TEXT.replace("a: b", "a: c"))
    assert prepared(context(params, journal)).objects[0]["data"] == {"a": "c"}


def test_what_is_masked_in_the_record_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "served/flannel.yaml").write_text(TEXT.replace("a: b", "password: hunter2hunter2"))
    journal = Journal.create(tmp_path / "runs", "x", {})
    params = params_of(tmp_path, plugin_source=server.url)
    for _ in range(2):
        found = prepared(context(params, journal))
        assert found.objects[0]["data"] == {"password": "hunter2hunter2"}
    assert len(server.asked) == 2
    assert "hunter2" not in (journal.path / "raw/flannel-fetched.yaml").read_text()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\napi",
            "cannot be read: it broke off, 97 bytes before",
        ),
        (b"SSH-2.0-nothing\r\n", "cannot be read: "),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", "cannot be read: "),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 2000, "more than 0 MB"),
    ],
)
def test_an_answer_that_is_none_is_told(
    answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ParamsError) as caught:
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/x.yaml")
        thread.join()
    assert words in str(caught.value)


def test_a_wrong_checksum_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = hashlib.sha256(TEXT.encode()).hexdigest()
    where = f"{server.url}/flannel.yaml"
    assert fetch(where, good) == TEXT
    with pytest.raises(PreconditionError, match=f"its checksum is {good}, the catalogue knows 00"):
        fetch(where, "0" * 64)
    release = {"version": "v1", "kubernetes": {"min": "1.17", "max": "1.36"}}
    release["sha256"] = {"upstream.yml": "1" * 64}
    (tmp_path / "served/upstream.yml").write_text(TEXT)
    data = plugins.get("flannel").model_dump(mode="json", exclude_none=True)
    data["manifest"] = {"addresses": [f"{server.url}/upstream.yml"], "versions": [release]}
    data["pod_cidr"]["stated_in"] = None
    known = plugins.catalogue().and_own({"flannel": Plugin.model_validate(data)})
    monkeypatch.setattr(plugins, "catalogue", lambda: known)
    with pytest.raises(PreconditionError, match="the catalogue knows 1111"):
        fetch_all(params_of(tmp_path))
    # The same file from elsewhere is a person's choice.
    assert fetch_all(params_of(tmp_path, plugin_source=server.url))[1] == TEXT


HELM = """\
#!/bin/sh
printf '%s\\n' "$@" > "$0.argv"
cat > "$0.values"
if [ -e "$0.fail" ]; then echo "Error: chart not found" >&2; exit 1; fi
cat <<'EOF'
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config}
data: {cluster-pool-ipv4-cidr: 10.0.0.0/8}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cilium}
EOF
"""


def test_a_chart_is_rendered_by_helm_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    params = params_of(tmp_path, plugin="cilium", pod_cidr="10.20.0.0/16")
    with pytest.raises(PreconditionError) as caught:
        fetch_all(params)
    text = str(caught.value)
    assert "rendering it needs helm, which is not on this machine" in text
    assert "helm template cilium cilium --repo https://helm.cilium.io --version" in text
    assert '"clusterPoolIPv4PodCIDRList": "10.20.0.0/16"' in text
    assert "name that file as plugin_manifest" in text

    helm = folder / "helm"
    helm.write_text(HELM)
    helm.chmod(0o755)
    where, text = fetch_all(params)
    assert where.startswith("the chart cilium 1.")
    assert where.endswith(" of https://helm.cilium.io")
    config, role = read(text, where)
    assert config["metadata"]["namespace"] == "kube-system"
    assert "namespace" not in role["metadata"]
    argv = (folder / "helm.argv").read_text().split()
    assert argv[:5] == ["template", "cilium", "cilium", "--repo", "https://helm.cilium.io"]
    assert argv[argv.index("--kube-version") + 1] == "1.31.0"
    assert {"--include-crds", "--no-hooks"} <= set(argv)
    values = yaml.safe_load((folder / "helm.values").read_text())
    assert values["ipam"]["operator"]["clusterPoolIPv4PodCIDRList"] == "10.20.0.0/16"
    journal = Journal.create(tmp_path / "runs", "x", {})
    found = prepared(context(params, journal))
    assert found.objects[0]["data"]["cluster-pool-ipv4-cidr"] == "10.20.0.0/16"

    (folder / "helm.argv").unlink()
    assert prepared(context(params, journal)).objects == found.objects
    assert not (folder / "helm.argv").exists(), "once in a run"
    other = params_of(tmp_path, plugin="cilium", pod_cidr="10.21.0.0/16")
    prepared(context(other, journal))
    assert (folder / "helm.argv").exists(), "other values are another manifest"

    (folder / "helm.fail").touch()
    with pytest.raises(ParamsError, match="helm could not render it: Error: chart not found"):
        fetch_all(params)


def test_a_charts_own_namespace_is_made(tmp_path: Path) -> None:
    cilium = plugins.get("cilium")
    assert cilium.chart is not None
    text = fetching._in_namespace(TEXT, "ovn-kubernetes", "x")
    made, item = read(text, "x")
    assert (made["kind"], made["metadata"]) == ("Namespace", {"name": "ovn-kubernetes"})
    assert item["metadata"]["namespace"] == "ovn-kubernetes"
    chart = cilium.chart.model_copy(update={"values": {"a.b": "{service_cidr}", "a.c.d": 1}})
    assert chart_values(chart, params_of(tmp_path)) == {"a": {"b": "10.96.0.0/12", "c": {"d": 1}}}
