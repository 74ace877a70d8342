"""A small cluster from kubeadm to pinging pods, once for each of the lab's plugins."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from cluster_help import CIDRS, HOSTS, build, do
from lab_help import running_lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

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


@pytest.mark.parametrize("plugin", sorted(CIDRS))
def test_pods_of_different_nodes_reach_each_other(plugin: str, tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", hosts=HOSTS, time_factor=0.05) as lab:
        build(lab, plugin)
        do(lab, f"cat > /root/pods.yaml <<'END'\n{PODS}END\nkubectl apply -f /root/pods.yaml")
        do(lab, "kubectl wait --for=condition=Ready pod/p1 pod/p2 --timeout=30s")
        address = do(lab, "kubectl get pod p2 -o jsonpath='{.status.podIP}'")
        assert "0% packet loss" in do(lab, f"kubectl exec p1 -- ping -c 2 -i 0.2 {address}")
        mtu = do(lab, "kubectl exec p1 -- ip -o link show eth0")
        assert f"mtu {MTUS[plugin]} " in mtu
        found = do(lab, "kubectl exec p1 -- nslookup p2.default.svc.cluster.local")
        assert "Name:\tp2.default.svc.cluster.local" in found
        assert do(lab, "kubectl exec p1 -- wget -qO- -T 5 http://p2/hostname") == "p2\n"
        do(lab, "kubectl exec p1 -- sh -c 'exit 7'", status=7)
        assert do(lab, "kubectl exec p1 -- hostname") == "p1\n"
        do(lab, "kubectl delete pod p1 p2 --timeout=20s")
        assert (
            "No resources found"
            in lab.run("KUBECONFIG=/etc/kubernetes/admin.conf kubectl get pods", "m1").stderr
        )
