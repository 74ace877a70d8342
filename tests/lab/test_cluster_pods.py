"""What runs in the pods of a lab, all in one cluster: shells, tools, files, names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_help import HOSTS, build, do
from lab_help import Lab, running_lab, until

from kitlib.lab import verbs

pytestmark = [pytest.mark.lab, pytest.mark.slow]

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec: {spec}
"""

AGENT = "docker.io/nicolaka/netshoot:v0.13"
SERVE = "mkdir /tmp/www; echo $NODE > /tmp/www/index.html; exec httpd -f -p 18765 -h /tmp/www"
AGENT_SPEC = f"""\
  nodeName: m1
  containers:
  - name: c
    image: {AGENT}
    env: [{{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}]
    command: [sh, -c, "{SERVE}"]
"""
PODS = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: agent, labels: {{app: agent}}}}
spec:
{AGENT_SPEC}---
apiVersion: v1
kind: Pod
metadata: {{name: on-host}}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
{AGENT_SPEC}---
apiVersion: v1
kind: Pod
metadata: {{name: small, labels: {{app: small}}}}
spec:
  nodeName: w1
  containers: [{{name: c, image: "busybox:1.36", command: [sleep, "3600"]}}]
"""


@contextlib.contextmanager
def running_cluster(directory: Path, plugin: str) -> Iterator[Lab]:
    """A lab with a cluster and the pods."""
    with running_lab(directory, hosts=HOSTS, time_factor=0.05) as lab:
        build(lab, plugin)
        do(lab, f"cat > /root/pods.yaml <<'END'\n{PODS}END\nkubectl apply -f /root/pods.yaml")
        do(lab, "kubectl wait --for=condition=Ready pod --all --timeout=30s")
        yield lab


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_cluster(tmp_path_factory.mktemp("pods") / "lab", "kube-router") as lab:
        yield lab


def test_a_shell_takes_commands_until_its_input_ends(cluster: Lab) -> None:
    """Both streams apart, the container's environment, large output, the last exit status."""
    script = "echo out; echo err >&2; echo $NODE; seq 1 400000; exit 7"
    told = do(cluster, f"echo '{script}' | kubectl exec -i agent -- sh 2>/root/err", status=7)
    first, node, *numbers = told.split()
    assert (first, node) == ("out", "m1")
    assert numbers == [str(number) for number in range(1, 400_001)]
    assert do(cluster, "head -1 /root/err") == "err\n"
    there_and_back = "seq 1 400000 | kubectl exec -i agent -- cat | md5sum; seq 1 400000 | md5sum"
    assert len(set(do(cluster, there_and_back).splitlines())) == 1


def test_a_shell_ends_with_all_that_it_started_when_its_caller_goes(cluster: Lab) -> None:
    """Also what does not heed TERM, and when it is the pod that goes."""
    script = r"trap \"\" TERM; sleep 98765 & sleep 98766"
    caller = f"(echo '{script}'; sleep 1000) | kubectl exec -i small -- sh"

    def running() -> list[str]:
        return do(cluster, "pgrep -f '[s]leep 9876' || true", "w1").split()

    do(cluster, f"({caller}) >/dev/null 2>&1 & true")
    until(lambda: len(running()) == 2)
    do(cluster, "pkill -9 -f '[k]ubectl exec -i small'")
    until(lambda: not running())


def test_each_pod_has_its_own_tmp_and_an_image_its_own_tools(cluster: Lab) -> None:
    address = do(cluster, "kubectl get pod agent -o jsonpath='{.status.podIP}'")
    small = "kubectl exec small -- sh -c"
    assert do(cluster, f"{small} 'wget -qO- -T 5 http://{address}:18765/'") == "m1\n"
    assert do(cluster, f"{small} 'ls /tmp'") == ""
    do(cluster, f"{small} 'command -v curl dig iperf3'", status=127)
    assert do(cluster, f"{small} 'ping -c 1 -q {address} >/dev/null && which sh'").endswith("/sh\n")
    agent = "kubectl exec agent -- sh -c"
    said = do(cluster, f"{agent} 'cat /etc/lab-release; ls /tmp'")
    assert 'LAB="1"\n' in said
    assert said.endswith("www\n")
    times = r"%{time_connect} %{num_connects}\n"
    url = "http://10.77.0.11:18765/"
    curl = f'curl -s -o /dev/null -o /dev/null -w "{times}" {url} {url}'
    connects = do(cluster, f"kubectl exec agent -- {curl}").split()[1::2]
    assert connects == ["1", "0"], "the second request went over the first one's connection"


def test_the_clusters_dns_is_asked_over_udp_and_tcp_by_every_pod(cluster: Lab) -> None:
    """Through its Service, and each server itself; with the fault it answers neither way."""
    pods = "kubectl get pods -n kube-system -l k8s-app=kube-dns -o jsonpath='{..podIP}'"
    servers = ["10.96.0.10", *do(cluster, pods).split()]
    assert len(servers) == 3

    def ask(pod: str, server: str, way: str, name: str, shown: str = "+short") -> str:
        dig = f"dig @{server} {way} +time=2 +tries=1 {shown} {name}"
        return do(cluster, f"kubectl exec {pod} -- {dig}")

    name = "kubernetes.default.svc.cluster.local"
    for server in servers:
        for way in ("+notcp", "+tcp"):
            assert ask("agent", server, way, name) == "10.96.0.1\n"
    assert ask("on-host", servers[0], "+tcp", name) == "10.96.0.1\n"
    assert ask("agent", servers[0], "+tcp", "kubernetes.io") == "192.0.2.80\n"
    for host in HOSTS:
        verbs.break_(cluster.state_dir, "dns-broken", host)
    for way in ("+notcp", "+tcp"):
        assert "status: SERVFAIL" in ask("agent", servers[0], way, name, "+noall +comments")
    verbs.heal(cluster.state_dir)
    assert ask("agent", servers[0], "+tcp", name) == "10.96.0.1\n"


def _policy(lab: Lab, name: str, spec: str) -> None:
    text = POLICY.format(name=name, spec=spec)
    do(lab, f"kubectl apply -f - <<'END'\n{text}END")


def _reaches(lab: Lab, source: str, address: str) -> bool:
    knock = f"kubectl exec {source} -- nc -z -w 1 {address} 18765"
    return lab.run(f"export KUBECONFIG=/etc/kubernetes/admin.conf; {knock}", HOSTS[0]).ok


def check_policies(lab: Lab) -> None:
    """Deny, allow by label and by port, deny the way out; the node itself always gets through."""
    agent, small = (
        do(lab, f"kubectl get pod {pod} -o jsonpath='{{.status.podIP}}'")
        for pod in ("agent", "small")
    )
    assert _reaches(lab, "small", agent)
    _policy(lab, "deny", "{podSelector: {matchLabels: {app: agent}}}")
    until(lambda: not _reaches(lab, "small", agent))
    assert do(lab, f"curl -s -m 2 http://{agent}:18765/") == "m1\n", "the pod's own node"
    assert lab.run(f"ping -c 1 -W 1 {small}", "w1").ok
    assert lab.run(f"curl -s -m 1 http://{agent}:18765/", "w1").exited != 0, "another node"
    from_small = "from: [{podSelector: {matchLabels: {app: small}}}]"
    agents = "podSelector: {matchLabels: {app: agent}}"
    _policy(lab, "allow", f"{{{agents}, ingress: [{{{from_small}, ports: [{{port: 18765}}]}}]}}")
    until(lambda: _reaches(lab, "small", agent))
    assert not lab.run(
        f"KUBECONFIG=/etc/kubernetes/admin.conf kubectl exec small -- ping -c 1 -W 1 {agent}", "m1"
    ).ok
    assert "0% packet loss" in do(lab, f"kubectl exec agent -- ping -c 2 -i 0.2 {small}")
    _policy(lab, "no-way-out", "{podSelector: {matchLabels: {app: small}}, policyTypes: [Egress]}")
    until(lambda: not _reaches(lab, "small", agent))
    assert not _reaches(lab, "small", "10.77.0.11")
    assert "0% packet loss" in do(lab, f"kubectl exec agent -- ping -c 2 -i 0.2 {small}")
    do(lab, "kubectl delete networkpolicy --all")
    until(lambda: _reaches(lab, "small", agent))
    tables = "nft list tables"
    until(lambda: "table inet" not in do(lab, tables) + do(lab, tables, "w1"))


def test_network_policies_are_rules_on_pods_that_hang_on_a_bridge(cluster: Lab) -> None:
    check_policies(cluster)


@pytest.mark.thorough
def test_network_policies_are_rules_on_pods_that_are_routed(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "lab", "calico") as lab:
        check_policies(lab)


@pytest.mark.thorough
def test_a_plugin_without_policies_ignores_them(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "lab", "flannel") as lab:
        _policy(lab, "deny", "{podSelector: {}}")
        address = do(lab, "kubectl get pod agent -o jsonpath='{.status.podIP}'")
        do(lab, "kubectl get networkpolicy deny")
        assert _reaches(lab, "small", address)
