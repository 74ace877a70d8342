"""The store (versions, history, log on disk), the PKI and the protobuf reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib.lab.api import pki, protobuf
from kitlib.lab.api.errors import ApiError
from kitlib.lab.api.store import Event, Store


def _obj(name: str, value: int = 0) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "n"}, "value": value}


def test_versions_grow_and_watchers_see_old_and_new() -> None:
    store, seen = Store(), list[Event]()
    store.subscribe("k", seen.append)
    store.put("k", _obj("a"))
    store.put("k", _obj("a", 1))
    store.put("other", _obj("b"))
    store.remove("k", "n", "a")
    assert [(event.type, event.rv) for event in seen] == [
        ("ADDED", 1), ("MODIFIED", 2), ("DELETED", 4),
    ]  # fmt: skip
    assert seen[1].old
    assert seen[1].old["value"] == 0
    assert seen[2].obj["metadata"]["resourceVersion"] == "4"


def test_history_is_replayed_until_it_is_compacted() -> None:
    store = Store(history=3)
    for value in range(5):
        store.put("k", _obj("a", value))
    assert [event.rv for event in store.since("k", 2)] == [3, 4, 5]
    with pytest.raises(ApiError, match=r"too old resource version: 1 \(2\)") as gone:
        store.since("k", 1)
    assert (gone.value.code, gone.value.reason) == (410, "Expired")


def test_objects_survive_a_kill_and_a_torn_last_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.fresh
    store.put("k", _obj("a"))
    store.put("k", _obj("b"))
    store.remove("k", "n", "a")
    with (tmp_path / "objects.log").open("a") as log:
        log.write('{"k": "k", "o": {"meta')
    again = Store(tmp_path)
    assert not again.fresh
    assert [obj["metadata"]["name"] for obj in again.items("k")] == ["b"]
    assert again.rv == 3
    with pytest.raises(ApiError):
        again.since("k", 2)
    again.put("k", _obj("c"))
    again.close()
    store.close()
    third = Store(tmp_path)
    assert third.rv == 4
    third.close()


def test_jws_is_bound_to_content_and_token() -> None:
    jws = pki.jws_detached("content", "abcdef", "0123456789abcdef")
    assert ".." in jws
    assert pki.jws_verify(jws, "content", "abcdef", "0123456789abcdef")
    assert not pki.jws_verify(jws, "content2", "abcdef", "0123456789abcdef")
    assert not pki.jws_verify(jws, "content", "abcdef", "another-secret--")
    assert not pki.jws_verify(jws, "content", "other0", "0123456789abcdef")
    assert not pki.jws_verify("nonsense", "content", "abcdef", "0123456789abcdef")


def test_certificates_requests_and_tokens() -> None:
    ca, other = pki.new_ca("kubernetes"), pki.new_ca("kubernetes")
    assert pki.ca_hash(ca.cert_pem).startswith("sha256:")
    assert len(pki.ca_hash(ca.cert_pem)) == 71
    assert pki.ca_hash(ca.cert_pem) != pki.ca_hash(other.cert_pem)
    _, request = pki.new_csr("system:node:w1", ["system:nodes"])
    assert pki.csr_subject(request) == ("system:node:w1", ("system:nodes",))
    assert "BEGIN CERTIFICATE" in pki.sign_csr(ca, request)
    token = pki.jwt_sign(ca.key_pem, {"sub": "x"})
    assert pki.jwt_claims(pki.public_pem(ca.key_pem), token) == {"sub": "x"}
    assert pki.jwt_claims(pki.public_pem(other.key_pem), token) is None
    config = pki.kubeconfig("https://10.77.0.11:6443", ca.cert_pem, "kubernetes-admin", token="t")
    assert config["current-context"] == "kubernetes-admin@kubernetes"
    assert config["users"][0]["user"] == {"token": "t"}


def test_protobuf_body_of_kubectl() -> None:
    """The bytes are those that kubectl 1.37 sent for `kubectl create token default`."""
    body = bytes.fromhex(
        "6b3873000a280a1861757468656e7469636174696f6e2e6b38732e696f2f7631120c546f6b656e5265717565"
        "7374121a0a100a0012001a0022002a0032003800420012001a040a0012001a002200"
    )
    head = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    assert protobuf.decode(body) == head
    assert protobuf.decode(body.replace(b"TokenRequest", b"TokenWhatevs")) is None
    with pytest.raises(ValueError, match="protobuf"):
        protobuf.decode(body[:20])
