"""What lets a host into a cluster: kubeadm's files by version, and the check before it joins."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from factory import host_facts

from kitlib import plugins
from kitlib.command import Cmd, Secret
from kitlib.errors import CommandError, ParseError, PreconditionError
from kitlib.inventory import Host, Role, Taint
from kitlib.lab.api import pki
from kitlib.model import CommandResult, Status
from kitlib.params import load
from kitlib.stages.configuration import (
    Invitation,
    config_version,
    init_configuration,
    join_configuration,
    upload_configuration,
)
from kitlib.stages.invitation import check_invitation, create_token, new_token
from kitlib.stages.marks import missing, node_marks, plugin_label_checks, plugin_labels

FLANNEL = plugins.get("flannel")
PARAMS = load(Path(__file__).resolve().parent.parent / "params/lab.yaml")


def taints(*texts: str) -> tuple[Taint, ...]:
    return tuple(map(Taint.parse, texts))


WORKER = replace(PARAMS.hosts[1], taints=taints("dedicated=db:NoSchedule", "gpu:NoExecute"))
PLANE = replace(WORKER, role=Role.CONTROL_PLANE)
TOKEN = Secret("abcdef.0123456789abcdef")
KEY = Secret("5" * 64)
CA = pki.new_ca("kubernetes").cert_pem
ENDPOINT = "10.77.0.1:6443"
INVITATION = Invitation(ENDPOINT, TOKEN, pki.ca_hash(CA))


def facts(version: str) -> Any:
    return replace(host_facts("worker-1"), packages={"kubeadm": Installed(version)})


class Installed:
    def __init__(self, release: str) -> None:
        self.release = release


@pytest.mark.parametrize(
    ("installed", "api"),
    [("1.19.16", "v1beta2"), ("1.22.3", "v1beta3"), ("1.30.1", "v1beta3"), ("1.31.0", "v1beta4")],
)
def test_the_file_is_written_as_the_installed_kubeadm_reads_it(installed: str, api: str) -> None:
    here = facts(installed)
    assert config_version(PARAMS, here) == f"kubeadm.k8s.io/{api}"
    join = yaml.safe_load(join_configuration(PARAMS, WORKER, here, INVITATION))
    init, cluster = yaml.safe_load_all(init_configuration(PARAMS, PARAMS.hosts[0], here))
    assert {each["apiVersion"] for each in (join, init, cluster)} == {f"kubeadm.k8s.io/{api}"}
    assert cluster["kubernetesVersion"] == "v1.22.3", "what is wanted, not what is installed"
    listed = api == "v1beta4"
    own = [{"name": "node-ip", "value": "10.77.0.12"}] if listed else {"node-ip": "10.77.0.12"}
    assert join["nodeRegistration"]["kubeletExtraArgs"] == own
    assert join["nodeRegistration"]["taints"] == [
        {"key": "dedicated", "value": "db", "effect": "NoSchedule"},
        {"key": "gpu", "value": "", "effect": "NoExecute"},
    ]
    assert ("timeout" in join["discovery"]) != listed
    assert ("timeouts" in join) == listed
    assert join["discovery"]["bootstrapToken"] == {
        "apiServerEndpoint": ENDPOINT,
        "token": TOKEN.value,
        "caCertHashes": [INVITATION.ca_hash],
    }
    assert "controlPlane" not in join


def test_before_the_packages_are_there_the_wanted_version_counts() -> None:
    here = replace(host_facts("worker-1"), packages={})
    assert config_version(PARAMS, here) == "kubeadm.k8s.io/v1beta3"


def test_a_further_control_plane_gets_the_key_and_keeps_kubeadms_taints() -> None:
    here = facts("1.22.3")
    invitation = replace(INVITATION, certificate_key=KEY)
    join = yaml.safe_load(join_configuration(PARAMS, PLANE, here, invitation))
    assert join["controlPlane"] == {
        "localAPIEndpoint": {"advertiseAddress": "10.77.0.12", "bindPort": 6443},
        "certificateKey": KEY.value,
    }
    assert "taints" not in join["nodeRegistration"]
    behind = replace(PARAMS, control_plane_endpoint=ENDPOINT)
    init, cluster = yaml.safe_load_all(upload_configuration(behind, PLANE, here, KEY))
    assert init["certificateKey"] == KEY.value
    assert cluster["controlPlaneEndpoint"] == ENDPOINT


def cluster_info(ca: str = CA, token: Secret = TOKEN, *, signed: bool = True) -> str:
    entry = {"certificate-authority-data": base64.b64encode(ca.encode()).decode(), "server": "x"}
    config = yaml.safe_dump({"clusters": [{"cluster": entry, "name": ""}]})
    data = {"kubeconfig": config}
    token_id, secret = token.value.split(".")
    if signed:
        data["jws-kubeconfig-abcdef"] = pki.jws_detached(config, token_id, secret)
    return json.dumps({"kind": "ConfigMap", "data": data})


class FakeKube:
    """An API that knows these token Secrets."""

    def __init__(self, *ids: str) -> None:
        self.paths = {f"/api/v1/namespaces/kube-system/secrets/bootstrap-token-{i}" for i in ids}
        self.made: list[tuple[str, dict[str, Any]]] = []

    def find(self, path: str) -> dict[str, Any] | None:
        return {} if path in self.paths else None

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.made.append((path, body))
        return body

    def items(self, path: str, labelSelector: str) -> list[dict[str, Any]]:  # noqa: N803 - the API's
        key, _, value = labelSelector.partition("=")
        made = [body for place, body in self.made if place == path]
        return [body for body in made if body["metadata"]["labels"].get(key) == value]

    def delete(self, path: str) -> None:
        place, _, name = path.rpartition("/")
        self.made = [
            (where, body)
            for where, body in self.made
            if (where, body["metadata"]["name"]) != (place, name)
        ]


def ask(*answers: str | tuple[str, int]) -> Callable[[Cmd], CommandResult]:
    """Return a host on which kubectl answers these, the last one again and again."""
    left = list(answers)

    def run(cmd: Cmd) -> CommandResult:
        assert not cmd.mutates
        assert f"--server=https://{ENDPOINT}" in cmd.argv
        answer = left.pop(0) if len(left) > 1 else left[0]
        text, status = answer if isinstance(answer, tuple) else (answer, 0)
        return CommandResult("worker-1", str(cmd), "" if status else text, text, status)

    return run


def check(answers: Callable[[Cmd], CommandResult], kube: FakeKube | None = None, **kw: Any) -> None:
    kw = {"patience": 0.05, "every": 0.01, **kw}
    check_invitation("worker-1", INVITATION, answers, lambda: kube or FakeKube("abcdef"), **kw)  # type: ignore[arg-type,return-value]


def test_a_host_that_the_cluster_vouches_for_may_join() -> None:
    check(ask(cluster_info()))


def test_a_signature_that_is_not_there_yet_is_waited_for() -> None:
    said: list[str] = []
    answers = ask(cluster_info(signed=False), cluster_info(signed=False), cluster_info())
    check(answers, patience=60, waiting=said.append)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            "The connection to the server 10.77.0.1:6443 was refused - did you specify the right "
            "host or port?",
            "nothing listens there",
        ),
        ("Unable to connect to the server: dial tcp 10.77.0.1:6443: i/o timeout", "no answer"),
        (
            "Unable to connect to the server: dial tcp 10.77.0.1:6443: connect: no route to host",
            "no answer",
        ),
        (
            "Unable to connect to the server: net/http: request canceled while waiting for "
            "connection (Client.Timeout exceeded while awaiting headers)",
            "no answer",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup api.example on 10.77.0.1:53: no "
            "such host",
            "does not resolve",
        ),
        (
            'Error from server (Forbidden): configmaps "cluster-info" is forbidden: User '
            '"system:anonymous" cannot get resource "configmaps"',
            "does not show cluster-info",
        ),
        ('Error from server (NotFound): configmaps "cluster-info" not found', "has no ConfigMap"),
    ],
)
def test_an_api_that_does_not_answer_the_host_is_named(message: str, cause: str) -> None:
    with pytest.raises(PreconditionError, match=f"worker-1: the API at {ENDPOINT}: .*") as caught:
        check(ask((message, 1)))
    assert cause in caught.value.message
    assert message in caught.value.message, "kubectl's own words are kept"
    assert caught.value.remedy


def test_another_clusters_ca_is_named_before_anything_is_trusted() -> None:
    other = pki.new_ca("kubernetes").cert_pem
    with pytest.raises(PreconditionError, match="it is another cluster") as caught:
        check(ask(cluster_info(other)))
    assert pki.ca_hash(other) in caught.value.message
    assert INVITATION.ca_hash in caught.value.message


def test_an_expired_token_is_named_at_once() -> None:
    with pytest.raises(PreconditionError, match="the token has expired") as caught:
        check(ask(cluster_info(signed=False)), FakeKube(), patience=3600)
    assert "clocks" in caught.value.remedy


def test_a_signature_that_never_comes_is_a_failure() -> None:
    with pytest.raises(PreconditionError, match="has not signed cluster-info"):
        check(ask(cluster_info(signed=False)))


def test_a_signature_by_another_token_is_refused() -> None:
    with pytest.raises(PreconditionError, match="not by this token"):
        check(ask(cluster_info(token=Secret("abcdef.ffffffffffffffff"))))


def test_what_is_no_cluster_info_is_said() -> None:
    with pytest.raises(ParseError):
        check(ask("<html>"))
    with pytest.raises(ParseError):
        check(ask(json.dumps({"data": {"kubeconfig": "x"}})))
    with pytest.raises(CommandError, match="127"):
        check(ask(("sh: kubectl: not found in this shell", 127)))


def test_a_token_that_a_killed_run_left_goes_before_the_next_one_comes() -> None:
    kube, token = FakeKube(), new_token()
    create_token(kube, new_token(), 1_700_000_000.0)  # type: ignore[arg-type]
    create_token(kube, token, 1_700_000_000.0)  # type: ignore[arg-type]
    ((_, body),) = kube.made
    assert body["stringData"]["token-id"] == token.value.partition(".")[0]


def test_a_token_ends_by_the_control_planes_own_clock() -> None:
    kube, token = FakeKube(), new_token()
    create_token(kube, token, 1_700_000_000.0)  # type: ignore[arg-type]
    ((path, body),) = kube.made
    assert path == "/api/v1/namespaces/kube-system/secrets"
    assert body["stringData"]["expiration"] == "2023-11-14T22:43:20Z"
    assert f"{body['stringData']['token-id']}.{body['stringData']['token-secret']}" == token.value
    assert body["metadata"]["name"] == f"bootstrap-token-{body['stringData']['token-id']}"


def node(labels: dict[str, str], *taints: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "spec": {"taints": list(taints)}}


def test_only_what_a_node_lacks_is_added() -> None:
    host = Host(
        "w",
        "w",
        labels={"disk": "ssd", "zone": "a"},
        taints=taints("a=b:NoSchedule", "c:NoExecute"),
    )
    assert missing(host, None, FLANNEL) == (
        ["disk=ssd", "zone=a"],
        ["a=b:NoSchedule", "c:NoExecute"],
    )
    has = node(
        {"disk": "hdd", "zone": "a", "other": "1"},
        {"key": "a", "value": "b", "effect": "NoSchedule"},
        {"key": "c", "value": "", "effect": "NoSchedule"},
        {"key": "theirs", "effect": "NoExecute"},
    )
    assert missing(host, has, FLANNEL) == (["disk=ssd"], ["c:NoExecute"])
    (judged,) = node_marks(host, has, FLANNEL)
    assert (judged.status, judged.got) == (Status.FAIL, "without disk=ssd, c:NoExecute")
    whole = node(
        {"disk": "ssd", "zone": "a"},
        {"key": "a", "value": "b", "effect": "NoSchedule"},
        {"key": "c", "effect": "NoExecute"},
    )
    assert missing(host, whole, FLANNEL) == ([], [])
    assert [each.status for each in node_marks(host, whole, FLANNEL)] == [Status.PASS]
    assert node_marks(Host("w", "w"), whole, FLANNEL) == []


def test_a_plugins_labels_and_where_the_parameters_go_before_them() -> None:
    labels = {"zone": "{node}", "disk": "any"}
    needs = FLANNEL.needs.model_copy(
        update={"node_labels": labels, "control_plane_labels": {"monitor": "true"}}
    )
    plugin = FLANNEL.model_copy(update={"needs": needs})
    worker = Host("w-1", "w", labels={"disk": "ssd"})
    plane = Host("cp", "w", role=Role.CONTROL_PLANE)
    assert missing(worker, None, plugin)[0] == ["zone=w-1", "disk=ssd"]
    assert missing(plane, None, plugin)[0] == ["zone=cp", "disk=any", "monitor=true"]
    (judged,) = node_marks(plane, node({"zone": "cp", "disk": "any"}), plugin)
    assert (judged.status, judged.got) == (Status.FAIL, "without monitor=true")
    nodes = [
        {"metadata": {"name": "w-1", "labels": {"zone": "w-1", "disk": "ssd"}}},
        {"metadata": {"name": "cp", "labels": {"zone": "cp"}}},
    ]
    kube = SimpleNamespace(items=lambda path: nodes)
    facts = {"cp": SimpleNamespace(kubeadm=SimpleNamespace(initialised=True))}
    ctx: Any = SimpleNamespace(
        plugin=plugin, hosts=[worker, plane], administrator=plane, control_plane=plane,
        facts=lambda: facts, kube=lambda: kube,
    )  # fmt: skip
    (action,) = plugin_labels(ctx)
    assert action.what == "label the Node cp, as Flannel needs it: disk=any, monitor=true"
    assert str(action.command).endswith("label node cp disk=any monitor=true --overwrite")
    assert [each.status for each in plugin_label_checks(ctx)] == [Status.PASS, Status.FAIL]
    facts["cp"].kubeadm.initialised = False
    (action,) = plugin_labels(ctx)
    assert "zone=cp" in action.what, "a dry run before init"
    ctx.plugin = FLANNEL
    assert plugin_labels(ctx) == []
