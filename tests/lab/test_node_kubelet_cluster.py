"""A small cluster from kubeadm to pinging pods, once for each of the lab's plugins."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from lab_help import Lab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

HOSTS = ("m1", "w1")
CIDRS = {"flannel": "10.244.0.0/16", "kube-router": "10.244.0.0/16", "calico": "192.168.0.0/16"}
MTUS = {"flannel": 1450, "kube-router": 1500, "calico": 1500}
PODS = textwrap.dedent("""\
    apiVersion: v1
    kind: Pod
    metadata: {name: p1}
    spec:
      nodeName: m1
      containers: [{name: c, image: "busybox:1.36", command: [sleep, "3600"]}]
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: p2, labels: {app: p2}}
    spec:
      nodeName: w1
      containers: [{name: c, image: "nginx:1.25"}]
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: p2}
    spec: {selector: {app: p2}, ports: [{port: 80}]}
    """)


def _do(lab: Lab, command: str, host: str = "m1", status: int = 0) -> str:
    result = lab.run(f"export KUBECONFIG=/etc/kubernetes/admin.conf; {command}", host)
    assert result.exited == status, f"{command}: {result.exited}\n{result.stdout}{result.stderr}"
    return str(result.stdout)


def _build(lab: Lab, plugin: str) -> None:
    for host in HOSTS:
        _do(lab, "echo 1 > /proc/sys/net/ipv4/ip_forward; apt-get update >/dev/null", host)
        packages = "kubelet=1.22.3-00 kubeadm=1.22.3-00 kubectl=1.22.3-00 kubernetes-cni"
        _do(lab, f"apt-get install -y {packages} >/dev/null", host)
    _do(lab, f"kubeadm init --pod-network-cidr={CIDRS[plugin]} > /root/init.log")
    nodes = _do(lab, "kubectl get node m1 -o jsonpath='{.status.conditions[-1:].message}'")
    assert "NetworkReady=false reason:NetworkPluginNotReady" in nodes
    _do(lab, f"kubectl apply -f http://10.77.0.1:7720/{plugin}.yaml")
    join = _do(lab, "tail -2 /root/init.log").replace("\\", "").replace("\n", " ")
    _do(lab, join, "w1")
    _do(lab, "kubectl wait --for=condition=Ready node --all --timeout=30s")
    _do(lab, "kubectl wait -n kube-system --for=condition=Available deployment/coredns")


@pytest.mark.parametrize("plugin", sorted(CIDRS))
def test_pods_of_different_nodes_reach_each_other(plugin: str, tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", hosts=HOSTS, time_factor=0.05) as lab:
        _build(lab, plugin)
        _do(lab, f"cat > /root/pods.yaml <<'END'\n{PODS}END\nkubectl apply -f /root/pods.yaml")
        _do(lab, "kubectl wait --for=condition=Ready pod/p1 pod/p2 --timeout=30s")
        address = _do(lab, "kubectl get pod p2 -o jsonpath='{.status.podIP}'")
        assert "0% packet loss" in _do(lab, f"kubectl exec p1 -- ping -c 2 -i 0.2 {address}")
        mtu = _do(lab, "kubectl exec p1 -- ip -o link show eth0")
        assert f"mtu {MTUS[plugin]} " in mtu
        found = _do(lab, "kubectl exec p1 -- nslookup p2.default.svc.cluster.local")
        assert "Name:\tp2.default.svc.cluster.local" in found
        assert _do(lab, "kubectl exec p1 -- wget -qO- -T 5 http://p2/hostname") == "p2\n"
        _do(lab, "kubectl exec p1 -- sh -c 'exit 7'", status=7)
        assert _do(lab, "kubectl exec p1 -- hostname") == "p1\n"
        _do(lab, "kubectl delete pod p1 p2 --timeout=20s")
        assert (
            "No resources found"
            in lab.run("KUBECONFIG=/etc/kubernetes/admin.conf kubectl get pods", "m1").stderr
        )
