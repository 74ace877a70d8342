"""What runs in the pods of a lab, all in one cluster: shells, tools, files, names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster_help import HOSTS, build, do
from lab_help import Lab, running_lab, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

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
metadata: {{name: agent}}
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
metadata: {{name: small}}
spec:
  nodeName: w1
  containers: [{{name: c, image: "busybox:1.36", command: [sleep, "3600"]}}]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("pods") / "lab"
    with running_lab(directory, hosts=HOSTS, time_factor=0.05) as lab:
        build(lab, "kube-router")
        do(lab, f"cat > /root/pods.yaml <<'END'\n{PODS}END\nkubectl apply -f /root/pods.yaml")
        do(lab, "kubectl wait --for=condition=Ready pod --all --timeout=30s")
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
    name = "kubernetes.default.svc.cluster.local"
    for pod in ("agent", "on-host"):
        for way in ("+notcp", "+tcp"):
            asked = f"kubectl exec {pod} -- dig {way} +time=2 +tries=1 +short {name}"
            assert do(cluster, asked) == "10.96.0.1\n"
