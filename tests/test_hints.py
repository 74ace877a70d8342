"""Every message that the kit must understand leads to its cause, and healthy output to none.

A golden case is what a tool said (`text`), who said it (`source`: a recording, or the version that
words it so), and the ids of the hints that it leads to, the most specific one first (`expected`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kitlib.hints import HINTS, explain

CASES = sorted((Path(__file__).parent / "data/hints").glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_message(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    assert set(case) == {"source", "text", "expected"}
    assert case["source"].startswith(("recorded, ", "not recorded here: ", "the kit itself"))
    assert [hint.id for hint in explain(case["text"])] == case["expected"]


def test_what_a_healthy_run_says_is_among_the_golden_messages() -> None:
    healthy = [path for path in CASES if path.stem.startswith("healthy-")]
    assert len(healthy) >= 20
    assert all(yaml.safe_load(path.read_text())["expected"] == [] for path in healthy)


def test_every_failure_of_a_build_leads_first_to_its_own_hint() -> None:
    first = {path.stem: yaml.safe_load(path.read_text())["expected"][:1] for path in CASES}
    assert first["join-already-joined"] == ["already-in-a-cluster"]
    assert first["init-twice"] == ["init-twice"]
    assert first["join-expired-token"] == ["token"]
    assert first["join-wrong-hash"] == ["ca-hash"]
    assert first["api-killed"] == ["api-refused"]
    assert first["join-wrong-address"] == ["cluster-info"]
    assert first["preflight-swap"] == ["swap"]
    assert first["init-runtime-down"] == ["runtime-down"]
    ports = yaml.safe_load((CASES[0].parent / "init-while-other-running.yaml").read_text())
    assert "port-in-use" in ports["expected"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
            "message:Network plugin returns error: cni plugin not initialized",
            "no-cni",
        ),
        (
            "message: No CNI configuration file in /etc/cni/net.d/. Has your network provider "
            "started?",
            "no-cni",
        ),
        ("docker: network plugin is not ready: cni config uninitialized", "no-cni"),
        (
            'plugin type="flannel" failed (add): loadFlannelSubnetEnv failed: open '
            "/run/flannel/subnet.env: no such file or directory",
            "subnet-env",
        ),
        (
            "failed (add): stat /var/lib/calico/nodename: no such file or directory: check that the"
            " calico/node container is running",
            "calico-nodename",
        ),
        (
            'failed to set bridge addr: "cni0" already has an IP address different from '
            "10.244.1.1/24",
            "old-bridge",
        ),
        ('Error registering network: node "worker-1" pod cidr not assigned', "pod-cidr"),
        ("kubenet does not have netConfig. This is most likely due to lack of PodCIDR", "pod-cidr"),
        (
            '"Unable to register node with API server" err="Unauthorized" node="worker-1"',
            "kubelet-unauthorised",
        ),
        ("[ERROR Swap]: running with swap on is not supported. Please disable swap", "swap"),
        ("[ERROR NumCPU]: the number of available CPUs 1 is less than the required 2", "cpus"),
        (
            "[ERROR FileContent--proc-sys-net-bridge-bridge-nf-call-iptables]: "
            "/proc/sys/net/bridge/bridge-nf-call-iptables does not exist",
            "bridge-netfilter",
        ),
        ("error uploading crisocket: timed out waiting for the condition", "crisocket"),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 42", "apt-lock"),
        ("E: Version '1.30.4-1.1' for 'kubelet' was not found", "apt-version"),
        ("E: Unable to locate package kubeadm", "apt-package"),
        ('Failed to pull image "x/y:1": rpc error', "image-pull"),
        ("Back-off 10s restarting failed container=node pod=calico-node-x", "crash-loop"),
        ("Kubelet stopped posting node status.", "node-gone"),
    ],
)
def test_message_in_another_wording(text: str, first: str) -> None:
    assert next(hint.id for hint in explain(text)) == first


def test_text_that_nobody_knows_has_no_hint() -> None:
    assert explain("pod/p1 created") == []


def test_ids_are_unique_and_every_hint_says_what_to_do() -> None:
    ids = [hint.id for hint in HINTS]
    assert len(ids) == len(set(ids))
    assert all(hint.cause and hint.remedy for hint in HINTS)


@pytest.mark.parametrize(
    "text",
    [
        "[init] Using Kubernetes version: v1.22.3\n[preflight] Running pre-flight checks",
        "node/worker-1 condition met",
        "Setting up kubelet (1.22.3-00) ...",
    ],
)
def test_a_good_run_is_not_explained(text: str) -> None:
    assert explain(text) == []
