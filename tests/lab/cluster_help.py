"""A small cluster in a lab, built by hand with kubeadm and the lab's manifests."""

from __future__ import annotations

from lab_help import Lab

HOSTS = ("m1", "w1")
CIDRS = {"flannel": "10.244.0.0/16", "kube-router": "10.244.0.0/16", "calico": "192.168.0.0/16"}


def do(lab: Lab, command: str, host: str = HOSTS[0], status: int = 0) -> str:
    """Return what a command printed on a host, kubectl's among them; its exit status is checked."""
    result = lab.run(f"export KUBECONFIG=/etc/kubernetes/admin.conf; {command}", host)
    assert result.exited == status, f"{command}: {result.exited}\n{result.stdout}{result.stderr}"
    return str(result.stdout)


def build(lab: Lab, plugin: str) -> None:
    """Build the cluster on a lab's hosts (the first is the control plane) with a plugin."""
    first, *others = (host.name for host in lab.spec.hosts)
    for host in (first, *others):
        do(lab, "echo 1 > /proc/sys/net/ipv4/ip_forward; apt-get update >/dev/null", host)
        packages = "kubelet=1.22.3-00 kubeadm=1.22.3-00 kubectl=1.22.3-00 kubernetes-cni"
        do(lab, f"apt-get install -y {packages} >/dev/null", host)
    do(lab, f"kubeadm init --pod-network-cidr={CIDRS[plugin]} > /root/init.log", first)
    nodes = do(lab, f"kubectl get node {first} -o jsonpath='{{.status.conditions[-1:].message}}'")
    assert "NetworkReady=false reason:NetworkPluginNotReady" in nodes
    do(lab, f"kubectl apply -f http://10.77.0.1:7720/{plugin}.yaml")
    join = do(lab, "tail -2 /root/init.log").replace("\\", "").replace("\n", " ")
    for host in others:
        do(lab, join, host)
    do(lab, "kubectl wait --for=condition=Ready node --all --timeout=30s")
    do(lab, "kubectl wait -n kube-system --for=condition=Available deployment/coredns")
