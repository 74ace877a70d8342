"""The kubelet's pure parts: conditions, static pods, the API's command line, Service rules."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kitlib.lab.node import kubeproxy
from kitlib.lab.node.images import full_name, role_of
from kitlib.lab.node.kubelet_client import _worded
from kitlib.lab.node.kubelet_node import conditions, ready_problems
from kitlib.lab.node.kubelet_server import exit_status
from kitlib.lab.node.kubelet_static import api_command, mirror_of, read_manifests
from kitlib.lab.node.pods import NETWORK_NOT_READY, PodWorker, backoff

EARLIER, LATER = "2026-11-22T18:07:43Z", "2026-11-22T18:07:54Z"


def _ready(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(item for item in found if item["type"] == "Ready")


def test_a_new_node_says_everything_that_is_not_there_yet() -> None:
    problems = ready_problems(cni=False, checked=False, pleg=False, csi=False)
    ready = _ready(conditions(problems, [], EARLIER))
    assert ready["message"] == (
        "[container runtime status check may not have completed yet, PLEG is not healthy: pleg has "
        "yet to be successful, container runtime network not ready: NetworkReady=false "
        "reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not "
        "initialized, CSINode is not yet initialized]"
    )
    assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")


def test_one_problem_has_no_brackets_and_keeps_its_transition_time() -> None:
    first = conditions(ready_problems(cni=False, csi=False), [], EARLIER)
    second = conditions(ready_problems(cni=False), first, LATER)
    ready = _ready(second)
    assert ready["message"] == NETWORK_NOT_READY
    assert (ready["lastTransitionTime"], ready["lastHeartbeatTime"]) == (EARLIER, LATER)
    third = _ready(conditions(ready_problems(cni=True), second, LATER))
    assert (third["status"], third["reason"], third["lastTransitionTime"]) == (
        "True",
        "KubeletReady",
        LATER,
    )


def test_the_pressure_conditions() -> None:
    found = {item["type"]: item for item in conditions([], [], EARLIER, disk_full=True)}
    assert list(found) == ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
    assert found["MemoryPressure"]["reason"] == "KubeletHasSufficientMemory"
    assert (found["DiskPressure"]["status"], found["DiskPressure"]["reason"]) == (
        "True",
        "KubeletHasDiskPressure",
    )


def test_back_off_doubles_up_to_five_minutes() -> None:
    assert [backoff(number) for number in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]


def _manifests(directory: Path) -> None:
    api = ["kube-apiserver", "--advertise-address=10.77.0.11", "--secure-port=6443"]
    api += [
        "--client-ca-file=/etc/kubernetes/pki/ca.crt",
        "--service-cluster-ip-range=10.96.0.0/12",
    ]
    manager = ["kube-controller-manager", "--cluster-cidr=10.244.0.0/16"]
    for name, command in (("kube-apiserver", api), ("kube-controller-manager", manager)):
        container = {"name": name, "image": f"k8s.gcr.io/{name}:v1.22.3", "command": command}
        pod = {
            "metadata": {"name": name, "namespace": "kube-system", "creationTimestamp": None},
            "spec": {"hostNetwork": True, "containers": [container]},
        }
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(pod))
    (directory / "broken.yaml").write_text("spec: [")


def test_static_pods_come_from_the_manifests(tmp_path: Path) -> None:
    _manifests(tmp_path)
    found = {pod["metadata"]["name"]: pod for pod in read_manifests(tmp_path, "m1").values()}
    assert set(found) == {"kube-apiserver-m1", "kube-controller-manager-m1"}
    command = api_command(found["kube-apiserver-m1"], found["kube-controller-manager-m1"], 0.2)
    flags = dict(zip(command[3::2], command[4::2], strict=True))
    assert flags == {
        "--bind": "0.0.0.0:6443",
        "--advertise": "10.77.0.11",
        "--pki-dir": "/etc/kubernetes/pki",
        "--data-dir": "/var/lib/etcd",
        "--kubernetes-version": "1.22.3",
        "--service-cidr": "10.96.0.0/12",
        "--time-factor": "0.2",
        "--pod-cidr": "10.244.0.0/16",
        "--faults": "/run/lab-api-faults",
    }
    assert "--pod-cidr" not in api_command(found["kube-apiserver-m1"], None, 0.2)


def test_a_changed_manifest_is_another_pod(tmp_path: Path) -> None:
    _manifests(tmp_path)
    before = set(read_manifests(tmp_path, "m1"))
    file = tmp_path / "kube-apiserver.yaml"
    file.write_text(file.read_text().replace("v1.22.3", "v1.22.4"))
    after = set(read_manifests(tmp_path, "m1"))
    assert len(before - after) == 1
    assert read_manifests(tmp_path / "missing", "m1") == {}


def test_a_mirror_pod_is_owned_by_its_node(tmp_path: Path) -> None:
    _manifests(tmp_path)
    uid, pod = next(iter(read_manifests(tmp_path, "m1").items()))
    mirror = mirror_of(pod, {"metadata": {"name": "m1", "uid": "u-1"}})
    assert "uid" not in mirror["metadata"]
    assert mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] == uid
    assert mirror["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert mirror["spec"]["nodeName"] == "m1"


@pytest.mark.parametrize(
    ("image", "role"),
    [
        ("ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3", "flannel-cni"),
        ("docker.io/rancher/mirrored-flannelcni-flannel:v0.20.2", "flannel"),
        ("docker.io/cloudnativelabs/kube-router", "kube-router"),
        ("quay.io/calico/node:v3.32.1", "calico-node"),
        ("docker.io/calico/cni:v3.28.5", "calico-cni"),
        ("docker.io/calico/kube-controllers:v3.28.5", "pause"),
        ("registry.k8s.io/coredns/coredns:v1.8.4", "coredns"),
        ("localhost:5000/nginx", "web"),
        ("docker.io/library/busybox:1.36", ""),
    ],
)
def test_roles_of_images(image: str, role: str) -> None:
    assert role_of(image) == role


def test_an_image_without_a_tag_is_latest() -> None:
    assert full_name("localhost:5000/nginx") == "localhost:5000/nginx:latest"
    assert full_name("busybox:1.36") == "busybox:1.36"


def _service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def _endpoints(*addresses: str) -> dict[str, Any]:
    found = {"addresses": [{"ip": item} for item in addresses], "ports": [{"port": 8080}]}
    return {"default/web": {"subsets": [found] if addresses else []}}


def test_service_rules() -> None:
    service = _service(clusterIP="10.97.0.9", ports=[{"port": 80, "nodePort": 30080}])
    ports = kubeproxy.service_ports([service], _endpoints("10.244.1.2", "10.244.2.2"))
    text = kubeproxy.ruleset(ports, "10.244.0.0/16")
    other = kubeproxy.ruleset(ports, "10.244.0.0/16", "another")
    assert other.startswith("table ip another\ndelete table ip another\ntable ip another {")
    assert other.replace("ip another", "ip kube-proxy") == text
    assert "ip daddr 10.97.0.9 tcp dport 80 goto svc-0" in text
    assert "numgen random mod 2 vmap { 0 : goto ep-0-0, 1 : goto ep-0-1 }" in text
    assert "meta l4proto tcp dnat to 10.244.2.2:8080" in text
    assert "ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000" in text
    assert "tcp dport 30080 meta mark set" in text
    assert text.startswith("table ip kube-proxy\ndelete table ip kube-proxy\n")


def test_a_service_without_endpoints_is_rejected() -> None:
    service = _service(clusterIP="10.97.0.9", ports=[{"port": 80}])
    text = kubeproxy.ruleset(kubeproxy.service_ports([service], {}))
    assert 'ip daddr 10.97.0.9 tcp dport 80 reject comment "default/web:"' in text
    assert "dnat" not in text.replace("priority dstnat", "")


def test_headless_services_have_no_rules() -> None:
    service = _service(clusterIP="None", ports=[{"port": 80}])
    assert kubeproxy.service_ports([service], _endpoints("10.244.1.2")) == []


def test_a_named_port_takes_its_own_endpoints() -> None:
    service = _service(
        clusterIP="10.96.0.10",
        ports=[
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "metrics", "port": 9153},
        ],
    )
    subset = {
        "addresses": [{"ip": "10.244.2.2"}],
        "ports": [{"name": "dns", "port": 53}, {"name": "metrics", "port": 9153}],
    }
    ports = kubeproxy.service_ports([service], {"default/web": {"subsets": [subset]}})
    assert [(item.protocol, item.endpoints) for item in ports] == [
        ("udp", (("10.244.2.2", 53),)),
        ("tcp", (("10.244.2.2", 9153),)),
    ]


def test_the_status_that_ends_an_exec() -> None:
    assert exit_status(0)["status"] == "Success"
    failed = exit_status(7)
    assert failed["reason"] == "NonZeroExitCode"
    assert failed["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}
    assert exit_status(-9)["details"] == {"causes": [{"reason": "ExitCode", "message": "137"}]}


def test_transport_failures_read_as_client_go_words_them() -> None:
    text = _worded("GET", "https://10.77.0.11:6443/api/v1/nodes/w1", TimeoutError())
    assert text == (
        'Get "https://10.77.0.11:6443/api/v1/nodes/w1": dial tcp 10.77.0.11:6443: i/o timeout'
    )


def test_a_pod_taken_out_of_service_with_its_node_is_reported_again() -> None:
    """The cluster takes a silent node's pods out of service; a kubelet that lives says no."""
    node = SimpleNamespace(dirty=set())
    cases = (("True", "True", 0), ("False", "False", 0), ("False", "True", 1))
    for ready, containers, again in cases:
        conditions = [
            {"type": "Ready", "status": ready},
            {"type": "ContainersReady", "status": containers},
        ]
        pod = {"metadata": {"uid": "1"}, "status": {"conditions": conditions}}
        worker = PodWorker(node, pod)  # type: ignore[arg-type]
        worker.update(pod)
        assert len(node.dirty) == again, (ready, containers)
