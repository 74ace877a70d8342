"""Readiness from a living cluster's objects alone, against the watch of the same real cluster."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kitlib.diagnosis import readiness, stamps
from kitlib.runs import load_run

DATA = Path(__file__).parent / "data"
NOW = 1795371000.0


def objects() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "readiness" / "real-objects.json").read_text())
    return found


def csr(node: str, *, at: str, username: str = "system:bootstrap:abcdef") -> dict[str, Any]:
    """Return a granted request as the kubelet of a node makes it."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    text = base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()
    approved = {"type": "Approved", "lastTransitionTime": at, "lastUpdateTime": at}
    return {
        "metadata": {"name": f"csr-{node}", "uid": f"csr-{node}-{at}"},
        "spec": {"request": text, "username": username},
        "status": {"conditions": [approved], "certificate": "LS0t"},
    }


def moments(table: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (row["node"], row["phase"]): row for row in table.dropna(subset=["t"]).to_dict("records")
    }


def test_objects_alone_tell_the_same_as_the_watch_to_their_resolution() -> None:
    told = moments(readiness.living(objects(), NOW))
    seen = moments(readiness.node_phases(load_run(DATA / "recorded-run")))
    both = set(told) & set(seen)
    assert len(both) >= 24
    for key in both:
        late = (seen[key]["t"] - told[key]["t"]).total_seconds()
        assert told[key]["resolution_s"] == 1.0
        assert told[key]["source"].startswith("object time stamp (")
        # cut off to whole seconds there, and here on its way (a kubelet reports once a second)
        assert late < 2.1, (key, late)
        assert late >= -1.0 or told[key]["source"].endswith("at the latest"), (key, late)


def test_what_objects_do_not_tell_is_missing() -> None:
    told = moments(readiness.living(objects(), NOW))
    assert ("w1", "kubeadm_started") not in told
    assert ("w1", "taint_lifted") not in told, "its writer's fields are older than Ready"
    assert told["w1", "pod_cidr"]["source"].endswith("at the latest")
    assert told["m1", "ready"]["role"] == "control_plane"


def test_the_tls_bootstrap_is_the_node_s_own_last_request_before_it_registered() -> None:
    known = objects()
    known["csrs"] = [
        csr("w1", at="2026-11-22T17:00:00Z"),
        csr("w1", at="2026-11-22T18:07:40Z"),
        csr("w1", at="2026-11-22T18:30:00Z"),
        csr("w2", at="2026-11-22T18:07:48Z", username="system:node:w2"),
    ]
    told = moments(readiness.living(known, NOW + 9999))
    at = told["w1", "tls_bootstrap"]
    assert at["t"] == pd.Timestamp("2026-11-22T18:07:40Z")
    assert at["source"] == "object time stamp (approval of the CSR)"
    assert ("w2", "tls_bootstrap") not in told, "a renewal is no bootstrap"


def test_a_request_that_cannot_be_read_is_nobody_s() -> None:
    broken = csr("w1", at="2026-11-22T18:07:40Z")
    for text in ("", "%%%", "AAAA", base64.b64encode(b"\x06\x03U\x04\x03").decode()):
        broken["spec"]["request"] = text
        assert stamps.requested_by(broken) == ""


def test_a_node_that_lost_ready_later_has_its_first_ready_from_the_event() -> None:
    known = objects()
    for node in known["nodes"]:
        (condition,) = node["status"]["conditions"]
        condition["lastTransitionTime"] = "2026-11-22T18:09:30Z"
    told = moments(readiness.living(known, NOW))
    assert told["w1", "ready"]["t"] == pd.Timestamp("2026-11-22T18:08:14Z")
    assert told["w1", "ready"]["source"] == "object time stamp (event NodeReady)"


def test_a_restarted_container_says_only_when_it_ran_at_the_latest() -> None:
    known = objects()
    for pod in known["pods"]:
        for status in pod["status"]["containerStatuses"]:
            status["restartCount"] = 2
    told = moments(readiness.living(known, NOW))
    assert told["w1", "plugin_running"]["source"].endswith("at the latest")


def test_an_empty_cluster_gives_an_empty_table() -> None:
    table = readiness.living({}, NOW)
    assert list(table.columns) == list(readiness.COLUMNS)
    assert table.empty
