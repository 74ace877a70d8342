"""The server as the official client sees it: verbs, watches, credentials, restarts."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apikit
import kubernetes
import pytest
from kubernetes.client import ApiException
from kubernetes.stream import stream

from kitlib.lab.api import pki


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apikit.Api]:
    with apikit.running(tmp_path_factory.mktemp("cluster")) as api:
        with client(api) as opened:
            core = kubernetes.client.CoreV1Api(opened)
            core.create_namespaced_config_map("kube-public", config_map("cluster-info"))
        yield api


@contextlib.contextmanager
def client(api: apikit.Api, config: Path | None = None) -> Iterator[kubernetes.client.ApiClient]:
    """Open a client; its connections are closed at the end, which the client itself omits."""
    path = str(config or api.kubeconfig())
    with kubernetes.config.new_client_from_config(path) as opened:
        yield opened
        opened.rest_client.pool_manager.clear()


@pytest.fixture
def core(api: apikit.Api) -> Iterator[kubernetes.client.CoreV1Api]:
    with client(api) as opened:
        yield kubernetes.client.CoreV1Api(opened)


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def get(api: apikit.Api, path: str, token: str = "", **headers: str) -> tuple[int, Any]:
    """Return status and decoded body of a GET without a client certificate."""
    context = ssl.create_default_context(cadata=api.ca.cert_pem)
    request = urllib.request.Request(api.url + path, headers=headers)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            text, code = answer.read().decode(), answer.status
    except urllib.error.HTTPError as failure:
        with failure:
            text, code = failure.read().decode(), failure.code
    return code, json.loads(text) if text.startswith("{") else text


def bootstrap_token(token_id: str, secret: str, life: float = 3600, **extra: str) -> dict[str, Any]:
    """Return the Secret of a bootstrap token, as kubeadm makes it."""
    when = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=life)
    data = {
        "token-id": token_id, "token-secret": secret, "usage-bootstrap-signing": "true",
        "usage-bootstrap-authentication": "true", "expiration": when.isoformat(),
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token", **extra,
    }  # fmt: skip
    return {
        "metadata": {"name": f"bootstrap-token-{token_id}"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
    }


def test_create_read_patch_replace_delete(core: kubernetes.client.CoreV1Api) -> None:
    made = core.create_namespaced_config_map("default", config_map("c1"))
    assert made.metadata.uid
    patched = core.patch_namespaced_config_map("c1", "default", {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}
    made.data = {"c": "3"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("c1", "default", made)
    assert stale.value.status == 409
    assert "the object has been modified" in json.loads(stale.value.body)["message"]
    with pytest.raises(ApiException) as taken:
        core.create_namespaced_config_map("default", config_map("c1"))
    assert json.loads(taken.value.body)["reason"] == "AlreadyExists"
    dry = core.create_namespaced_config_map("default", config_map("dry"), dry_run="All")
    assert dry.metadata.name == "dry"
    core.delete_namespaced_config_map("c1", "default")
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("c1", "default")
    assert json.loads(gone.value.body)["message"] == 'configmaps "c1" not found'
    with pytest.raises(ApiException):
        core.read_namespaced_config_map("dry", "default")


def test_an_update_that_changes_nothing_keeps_the_version(
    core: kubernetes.client.CoreV1Api,
) -> None:
    made = core.create_namespaced_config_map("default", config_map("same"))
    again = core.patch_namespaced_config_map("same", "default", {"data": {"a": "1"}})
    assert again.metadata.resource_version == made.metadata.resource_version


def test_lists_select_page_and_delete_collections(core: kubernetes.client.CoreV1Api) -> None:
    for number in range(5):
        core.create_namespaced_config_map("kube-public", config_map(f"page{number}", app="page"))
    page = core.list_namespaced_config_map("kube-public", label_selector="app=page", limit=2)
    names = [item.metadata.name for item in page.items]
    assert page.metadata.remaining_item_count == 3
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            "kube-public", label_selector="app=page", limit=2, _continue=page.metadata._continue
        )
        names += [item.metadata.name for item in page.items]
    assert names == [f"page{number}" for number in range(5)]
    one = core.list_config_map_for_all_namespaces(field_selector="metadata.name=page3")
    assert [item.metadata.name for item in one.items] == ["page3"]
    core.delete_collection_namespaced_config_map("kube-public", label_selector="app=page")
    left = core.list_namespaced_config_map("kube-public", label_selector="app=page")
    assert left.items == []


def test_watch_follows_a_selector_and_resumes(core: kubernetes.client.CoreV1Api) -> None:
    start = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("w", app="watched"))
    core.patch_namespaced_config_map("w", "default", {"data": {"b": "2"}})
    core.patch_namespaced_config_map("w", "default", {"metadata": {"labels": {"app": "not"}}})
    core.patch_namespaced_config_map("w", "default", {"metadata": {"labels": {"app": "watched"}}})
    core.delete_namespaced_config_map("w", "default")
    watch = kubernetes.watch.Watch()
    seen = [
        (event["type"], event["object"].metadata.resource_version)
        for event in watch.stream(
            core.list_namespaced_config_map, "default", resource_version=start,
            label_selector="app=watched", timeout_seconds=1,
        )
    ]  # fmt: skip
    types = [type_ for type_, _ in seen]
    assert types == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert [int(version) for _, version in seen] == sorted(int(version) for _, version in seen)


def test_watch_from_a_compacted_version_says_410(
    api: apikit.Api, core: kubernetes.client.CoreV1Api
) -> None:
    for number in range(2100):
        core.patch_namespace("kube-public", {"metadata": {"annotations": {"n": str(number)}}})
    watch = kubernetes.watch.Watch()
    with pytest.raises(ApiException) as gone:
        list(watch.stream(core.list_namespace, resource_version="1", timeout_seconds=5))
    assert gone.value.status == 410
    assert "too old resource version: 1 (" in str(gone.value.reason)


def test_watch_with_initial_state_and_bookmark(api: apikit.Api) -> None:
    context = ssl.create_default_context(cadata=api.ca.cert_pem)
    pair = pki.issue(api.ca, "me", ["system:masters"], client=True)
    for name, text in (("c", pair.cert_pem), ("k", pair.key_pem)):
        (api.directory / name).write_text(text)
    context.load_cert_chain(api.directory / "c", api.directory / "k")
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1"
    url = f"{api.url}/api/v1/namespaces?{query}&resourceVersionMatch=NotOlderThan"
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        events = [json.loads(line) for line in answer]
    assert [event["type"] for event in events] == ["ADDED"] * 4 + ["BOOKMARK"]
    last = events[-1]["object"]
    assert last["kind"] == "Namespace"
    assert last["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_anonymous_sees_versions_health_and_cluster_info_only(api: apikit.Api) -> None:
    assert get(api, "/version")[1]["gitVersion"] == "v1.22.3"
    assert get(api, "/readyz") == (200, "ok")
    path = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
    assert get(api, path)[0] == 200
    code, refusal = get(api, "/api/v1/nodes")
    assert (code, refusal["message"]) == (
        403,
        'nodes is forbidden: User "system:anonymous" cannot list resource "nodes" in API group ""'
        " at the cluster scope",
    )
    assert get(api, "/api/v1/nodes", token="abcdef.0123456789abcdef")[0] == 401


def test_bootstrap_tokens_authenticate_sign_and_expire(
    api: apikit.Api, core: kubernetes.client.CoreV1Api
) -> None:
    secret = "0123456789abcdef"
    good = bootstrap_token("goodid", secret)
    core.create_namespaced_secret("kube-system", good)
    late = bootstrap_token("lateid", secret, life=-1)
    core.create_namespaced_secret("kube-system", late)
    watch = kubernetes.watch.Watch()
    info = None
    for event in watch.stream(
        core.list_namespaced_config_map, "kube-public", timeout_seconds=20,
        field_selector="metadata.name=cluster-info",
    ):  # fmt: skip
        info = event["object"].data
        if "jws-kubeconfig-goodid" in info:
            watch.stop()
    assert info
    jws = info["jws-kubeconfig-goodid"]
    assert pki.jws_verify(jws, info.get("kubeconfig", ""), "goodid", secret)
    assert "jws-kubeconfig-lateid" not in info
    path = "/api/v1/namespaces/kube-system/configmaps/"
    assert get(api, f"{path}kubeadm-config", token=f"goodid.{secret}")[0] == 404
    assert get(api, f"{path}other", token=f"goodid.{secret}")[0] == 403
    assert get(api, f"{path}kubeadm-config", token="goodid.wrongwrongwrongw")[0] == 401
    assert get(api, f"{path}kubeadm-config", token=f"lateid.{secret}")[0] == 401


def test_a_joining_kubelet_gets_its_certificate(
    api: apikit.Api, core: kubernetes.client.CoreV1Api
) -> None:
    core.create_namespaced_secret("kube-system", bootstrap_token("joinid", "0123456789abcdef"))
    config = api.kubeconfig("joiner", token="joinid.0123456789abcdef")
    key, request = pki.new_csr("system:node:w9", ["system:nodes"])
    body = {
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": base64.b64encode(request.encode()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "key encipherment", "client auth"],
        },
    }
    with client(api, config) as joining:
        certificates = kubernetes.client.CertificatesV1Api(joining)
        name = certificates.create_certificate_signing_request(body).metadata.name
        certificate = ""
        watch = kubernetes.watch.Watch()
        for event in watch.stream(
            certificates.list_certificate_signing_request, timeout_seconds=20,
            field_selector=f"metadata.name={name}",
        ):  # fmt: skip
            status = event["object"].status
            if status and status.certificate:
                certificate = base64.b64decode(status.certificate).decode()
                assert status.conditions[0].reason == "AutoApproved"
                watch.stop()
    node = api.kubeconfig("system:node:w9", cert_pem=certificate, key_pem=key)
    with client(api, node) as kubelet:
        own = kubernetes.client.CoreV1Api(kubelet)
        own.create_node(apikit.node("w9"))
        own.patch_node_status("w9", {"status": {"phase": "x"}})
        core.create_node(apikit.node("w8"))
        with pytest.raises(ApiException) as foreign:
            own.patch_node("w8", {"metadata": {"labels": {"a": "b"}}})
        message = json.loads(foreign.value.body)["message"]
        assert 'node "w9" is not allowed to modify node "w8"' in message


def test_exec_with_the_official_client(api: apikit.Api, core: kubernetes.client.CoreV1Api) -> None:
    with apikit.FakeKubelet(api.ca, api.directory) as kubelet:
        core.create_node(apikit.node("w5", port=kubelet.port))
        spec = {
            "nodeName": "w5",
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "busybox:1"}],
        }
        core.create_namespaced_service_account("default", {"metadata": {"name": "exec"}})
        pod = {"metadata": {"name": "px"}, "spec": {**spec, "serviceAccountName": "exec"}}
        core.create_namespaced_pod("default", pod)
        out = stream(
            core.connect_get_namespaced_pod_exec, "px", "default", command=["echo", "hi"],
            stdout=True, stderr=False, stdin=False, tty=False, _preload_content=False,
        )  # fmt: skip
        out.run_forever(timeout=10)
        assert out.read_stdout() == "echo hi\n"
        assert out.returncode == 0
        out.close()
        out.sock.shutdown()  # the client leaves the socket open when the server closed first


def test_a_restarted_server_has_its_objects(tmp_path: Path) -> None:
    api = apikit.launch(tmp_path)
    try:
        with client(api) as opened:
            made = kubernetes.client.CoreV1Api(opened).create_namespaced_config_map(
                "default", config_map("kept")
            )
        api.process.kill()
        api.process.wait()
        again = apikit.launch(tmp_path, port=api.port)
    finally:
        if api.process.poll() is None:
            api.stop()
    try:
        with client(again) as opened:
            core = kubernetes.client.CoreV1Api(opened)
            kept = core.read_namespaced_config_map("kept", "default")
            assert kept.metadata.uid == made.metadata.uid
            assert kept.metadata.resource_version == made.metadata.resource_version
            watch = kubernetes.watch.Watch()
            with pytest.raises(ApiException) as gone:
                list(watch.stream(core.list_namespace, resource_version="1", timeout_seconds=5))
            assert gone.value.status == 410
    finally:
        assert again.stop() == 0


@pytest.mark.parametrize("version", ["1.15.12", "1.36.0"])
def test_oldest_and_newest_version(tmp_path: Path, version: str) -> None:
    with apikit.running(tmp_path, version) as api:
        assert get(api, "/version")[1]["minor"] == version.split(".")[1]
        with client(api) as opened:
            apis = kubernetes.client.ApisApi(opened).get_api_versions()
        groups = {group.name for group in apis.groups}
        assert ("extensions" in groups) is version.startswith("1.15")
        with client(api) as opened:
            core = kubernetes.client.CoreV1Api(opened)
            core.create_node(apikit.node("w1"))
            assert [node.metadata.name for node in core.list_node().items] == ["w1"]
