"""A kubeconfig: told apart, one context taken, paths absolute, nothing secret shown."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import apikit
import pytest
import yaml

from kitlib.errors import ApiError, ParamsError
from kitlib.kubeconfig import is_kubeconfig, read_kubeconfig
from kitlib.link import KubeconfigLink
from kitlib.masking import mask_text
from kitlib.params import load

PARAMS = Path(__file__).parent.parent / "params/lab.yaml"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apikit.Api]:
    with apikit.running(tmp_path_factory.mktemp("api")) as api:
        yield api


def config(**more: object) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [
            {"name": "a", "context": {"cluster": "arn:aws:eks:eu-1:42:cluster/Prod", "user": "me"}},
            {"name": "b", "context": {"cluster": "other", "user": "me"}},
        ],
        "clusters": [
            {"name": "arn:aws:eks:eu-1:42:cluster/Prod", "cluster": {"server": "https://a:6443"}},
            {
                "name": "other",
                "cluster": {"server": "https://b:6443", "certificate-authority": "pki/ca.crt"},
            },
        ],
        "users": [{"name": "me", "user": {"token": "abcdefgh12345678", **more}}],
    }


def written(tmp_path: Path, data: dict) -> Path:
    path = tmp_path / "kube.conf"
    path.write_text(yaml.safe_dump(data))
    return path


def test_it_is_told_from_a_parameter_file_by_what_it_says_of_itself(tmp_path):
    path = written(tmp_path, config())
    assert is_kubeconfig(path)
    assert not is_kubeconfig(PARAMS)
    assert not is_kubeconfig(tmp_path / "none")
    with pytest.raises(ParamsError, match=r"a kubeconfig .* where a parameter file is wanted"):
        load(path)


def test_one_context_is_taken_and_its_files_are_beside_the_kubeconfig(tmp_path):
    path = written(tmp_path, config(**{"client-key": "me.key", "client-certificate": "/x/me.crt"}))
    found = read_kubeconfig(path)
    assert (found.context, found.user, found.server) == ("a", "me", "https://a:6443")
    assert found.label == "arn-aws-eks-eu-1-42-cluster-prod"
    user = found.config["users"][0]["user"]
    assert user["client-key"] == str(tmp_path / "me.key")
    assert user["client-certificate"] == "/x/me.crt"
    other = read_kubeconfig(path, "b")
    assert other.server == "https://b:6443"
    ca = other.config["clusters"][0]["cluster"]["certificate-authority"]
    assert ca == str(tmp_path / "pki/ca.crt")


def test_its_secrets_are_masked_and_not_in_what_is_printed_of_it(tmp_path):
    exec_ = {"command": "x", "env": [{"name": "API_TOKEN", "value": "of-the-plugin"}]}
    found = read_kubeconfig(written(tmp_path, config(exec=exec_)))
    assert mask_text("it is abcdefgh12345678, of-the-plugin") == "it is ***, ***"
    assert "abcdefgh" not in repr(found)


@pytest.mark.parametrize(
    ("context", "change", "message"),
    [
        ("c", {}, r"--context 'c': no such context, there are a, b"),
        ("", {"current-context": ""}, r"no current-context; there are a, b"),
        ("", {"current-context": "aa"}, r"current-context 'aa': .* did you mean 'a'"),
        ("", {"users": []}, r"context 'a': user 'me' is not there"),
        ("", {"clusters": []}, r"context 'a': cluster .* has no server"),
        ("", {"contexts": None}, r"no such context, it has none"),
    ],
)
def test_what_it_lacks_is_said(tmp_path, context, change, message):
    with pytest.raises(ParamsError, match=message):
        read_kubeconfig(written(tmp_path, {**config(), **change}), context)


def test_a_certificate_beside_it_and_one_inside_it_both_work(api, tmp_path):
    inside = yaml.safe_load(api.kubeconfig().read_text())
    user = inside["users"][0]["user"]
    for name in ("client-certificate", "client-key"):
        (tmp_path / name).write_bytes(base64.b64decode(user.pop(f"{name}-data")))
        user[name] = name
    for path in (api.kubeconfig(), written(tmp_path, inside)):
        link = KubeconfigLink(read_kubeconfig(path))
        assert link.open().items("/api/v1/namespaces")
        link.close()


def plugin(tmp_path: Path, api: apikit.Api, said: str, exit_status: int = 0) -> Path:
    """Return a kubeconfig whose user comes from a credential plugin beside it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/credentials"
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{said}\nE\necho no luck >&2\nexit {exit_status}\n")
    program.chmod(stat.S_IRWXU)
    data = yaml.safe_load(api.kubeconfig().read_text())
    version = "client.authentication.k8s.io/v1"
    data["users"][0]["user"] = {"exec": {"apiVersion": version, "command": "bin/credentials"}}
    return written(tmp_path, data)


def credential(**status: str) -> str:
    version = "client.authentication.k8s.io/v1"
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})


def test_a_credential_plugins_certificate_is_taken_and_stays_in_memory(api, tmp_path):
    user = yaml.safe_load(api.kubeconfig().read_text())["users"][0]["user"]
    cert, key = (
        base64.b64decode(user[f"client-{name}-data"]).decode() for name in ("certificate", "key")
    )
    said = credential(clientCertificateData=cert, clientKeyData=key)
    link = KubeconfigLink(read_kubeconfig(plugin(tmp_path, api, said)))
    kube = link.open()
    assert kube.items("/api/v1/namespaces")
    assert kube._settings.key_file.startswith("/proc/")
    link.close()


def test_a_credential_plugins_token_is_taken_and_masked(api, tmp_path):
    api.ok("create", "serviceaccount", "robot")
    token = api.ok("create", "token", "robot").strip()
    link = KubeconfigLink(read_kubeconfig(plugin(tmp_path, api, credential(token=token))))
    kube = link.open()
    with pytest.raises(ApiError, match="serviceaccount:default:robot") as caught:
        kube.items("/api/v1/nodes")  # known, and not allowed to
    assert caught.value.status == 403
    assert mask_text(f"it is {token}") == "it is ***"
    link.close()


def test_a_credential_plugin_that_fails_is_said_with_its_own_words(api, tmp_path):
    link = KubeconfigLink(read_kubeconfig(plugin(tmp_path, api, "", exit_status=3)))
    with pytest.raises(ParamsError, match=r"no credentials: exec: process returned 3. no luck"):
        link.open()


def test_a_file_that_it_names_and_that_is_not_there_is_said(api, tmp_path):
    data = yaml.safe_load(api.kubeconfig().read_text())
    data["users"][0]["user"] = {"client-certificate": "gone.crt", "client-key": "gone.key"}
    link = KubeconfigLink(read_kubeconfig(written(tmp_path, data)))
    with pytest.raises(ParamsError, match=r"not usable: .*gone\.crt"):
        link.open()


def test_credentials_that_the_api_does_not_know_are_said(api, tmp_path):
    data = yaml.safe_load(api.kubeconfig().read_text())
    data["users"][0]["user"] = {"token": "no-such-token-at-all"}
    link = KubeconfigLink(read_kubeconfig(written(tmp_path, data)))
    with pytest.raises(ApiError, match="does not accept the credentials of user") as caught:
        link.open()
    assert "expired" in caught.value.remedy
    assert "no-such-token" not in str(caught.value)


def test_an_api_out_of_reach_is_said_with_what_to_try(api, tmp_path):
    data = yaml.safe_load(api.kubeconfig().read_text())
    data["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{apikit.free_port()}"
    link = KubeconfigLink(read_kubeconfig(written(tmp_path, data)))
    with pytest.raises(ApiError, match="no answer from") as caught:
        link.open()
    assert "get --raw /readyz" in caught.value.remedy
