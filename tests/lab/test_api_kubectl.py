"""The real kubectl against the emulated API: what a person types, and what they must read."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apikit
import pytest
import yaml

pytestmark = pytest.mark.skipif(apikit.find_kubectl() is None, reason="kubectl is not installed")

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: "nginx:1", ports: [{name: http, containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"""
PARTLY = """
apiVersion: v1
kind: ConfigMap
metadata: {name: before, namespace: default}
---
apiVersion: policy/v1beta9
kind: PodSecurityPolicy
metadata: {name: x}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: after, namespace: default}
"""


@pytest.fixture(scope="module")
def kubelet_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def api(kubelet_ca: Path) -> Iterator[apikit.Api]:
    """One server for the module, with one ready node and time for a node to stay ready."""
    api = apikit.launch(kubelet_ca, "1.22.3", 0.02)
    try:
        yield api
    finally:
        api.stop()
    assert "Traceback" not in api.log.read_text(), api.log.read_text()


@pytest.fixture(scope="module")
def kubelet(api: apikit.Api) -> Iterator[apikit.FakeKubelet]:
    with apikit.FakeKubelet(api.ca, api.directory) as kubelet:
        node = apikit.node("w1", port=kubelet.port)
        api.ok("create", "-f", "-", stdin=json.dumps(node))
        api.ok("wait", "--for=jsonpath={.spec.podCIDR}=10.244.0.0/24", "node/w1", "--timeout=30s")
        yield kubelet


def until(probe: Callable[[], Any], what: str) -> Any:
    """Return the first true result of `probe`, asked again until half a minute is over."""
    deadline = time.monotonic() + 30
    while not (found := probe()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)
    return found


def test_apply_says_created_configured_unchanged(api: apikit.Api) -> None:
    first = api.ok("apply", "-f", "-", stdin=WEB)
    assert first == "deployment.apps/web created\nservice/web created\n"
    again = api.ok("apply", "-f", "-", stdin=WEB)
    assert again == "deployment.apps/web unchanged\nservice/web unchanged\n"
    changed = api.ok("apply", "-f", "-", stdin=WEB.replace("nginx:1", "nginx:2"))
    assert changed == "deployment.apps/web configured\nservice/web unchanged\n"
    image = "jsonpath={.spec.template.spec.containers[*].image}"
    assert api.ok("get", "deploy", "web", "-o", image) == "nginx:2"
    assert api.ok("delete", "-f", "-", stdin=WEB).splitlines()[0].startswith("deployment.apps")


def test_apply_of_a_kind_that_is_not_served_applies_the_rest(api: apikit.Api) -> None:
    done = api.kubectl("apply", "-f", "-", stdin=PARTLY)
    assert done.returncode == 1
    assert done.stdout == "configmap/before created\nconfigmap/after created\n"
    assert 'no matches for kind "PodSecurityPolicy" in version "policy/v1beta9"' in done.stderr


def test_server_side_apply(api: apikit.Api) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {a: '1'}\n"
    assert "serverside-applied" in api.ok("apply", "--server-side", "-f", "-", stdin=config)
    other = config.replace("'1'", "'2'")
    argv = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    done = api.kubectl(*argv, stdin=other)
    assert done.returncode == 1
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in done.stderr
    api.ok(*argv, "--force-conflicts", stdin=other)
    assert api.ok("get", "cm", "ssa", "-o", "jsonpath={.data.a}") == "2"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["get", "nodes", "nosuch"], 'Error from server (NotFound): nodes "nosuch" not found'),
        (["get", "foo"], 'error: the server doesn\'t have a resource type "foo"'),
        (["exec", "nosuch", "--", "true"], 'Error from server (NotFound): pods "nosuch" not found'),
        (["create", "ns", "default"],
         'Error from server (AlreadyExists): namespaces "default" already exists'),
        (["create", "cm", "x", "-n", "nosuch"],
         'error: failed to create configmap: namespaces "nosuch" not found'),
        (["delete", "ns", "kube-system"], "this namespace may not be deleted"),
    ],
)  # fmt: skip
def test_refusals_read_as_the_real_ones(api: apikit.Api, argv: list[str], message: str) -> None:
    done = api.kubectl(*argv)
    assert done.returncode == 1
    assert message in done.stderr


def test_validation_of_a_deployment(api: apikit.Api) -> None:
    wrong = WEB.split("---")[0].replace("labels: {app: web}", "labels: {app: other}")
    done = api.kubectl("apply", "-f", "-", stdin=wrong)
    assert done.returncode == 1
    assert "`selector` does not match template `labels`" in done.stderr
    assert 'The Deployment "web" is invalid: spec.template.metadata.labels' in done.stderr


def test_create_of_the_kinds_that_kubectl_sends_as_protobuf(api: apikit.Api) -> None:
    api.ok("create", "ns", "proto")
    until(lambda: api.kubectl("get", "sa", "default", "-n", "proto").returncode == 0, "account")
    for argv in (
        ["deployment", "d", "--image=busybox:1", "--replicas=0", "--port=80"],
        ["configmap", "c", "--from-literal=a=b"],
        ["secret", "generic", "s", "--from-literal=a=b"],
        ["serviceaccount", "sa"],
        ["service", "clusterip", "svc", "--tcp=80:8080"],
        ["job", "j", "--image=busybox:1"],
        ["role", "r", "--verb=get,list", "--resource=pods"],
        ["rolebinding", "rb", "--role=r", "--serviceaccount=proto:sa"],
    ):
        wanted = json.loads(
            api.ok("create", "-n", "proto", *argv, "--dry-run=client", "-o", "json")
        )
        api.ok("create", "-n", "proto", *argv)
        shown = api.ok("get", wanted["kind"], wanted["metadata"]["name"], "-n", "proto", "-o=json")
        assert _within(_plain(wanted), json.loads(shown)), argv
    api.ok("delete", "ns", "proto")
    assert api.kubectl("get", "ns", "proto").returncode == 1


def _plain(value: Any) -> Any:
    """Return an object without what stands for nothing (nulls, empty objects and texts)."""
    if isinstance(value, dict):
        found = {key: _plain(item) for key, item in value.items() if key != "status"}
        return {key: item for key, item in found.items() if item not in (None, {}, "")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _within(part: Any, whole: Any) -> bool:
    """Return whether everything in `part` is in `whole` too."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            _within(item, whole.get(key)) for key, item in part.items()
        )
    if isinstance(part, list):
        pairs = zip(part, whole or [], strict=False)
        return len(part) == len(whole or []) and all(_within(a, b) for a, b in pairs)
    return bool(part == whole)


def test_version_cluster_info_and_api_resources(api: apikit.Api) -> None:
    version = json.loads(api.ok("version", "-o", "json"))["serverVersion"]
    assert (version["gitVersion"], version["minor"]) == ("v1.22.3", "22")
    assert f"Kubernetes control plane is running at {api.url}" in _uncoloured(
        api.ok("cluster-info")
    )
    names = api.ok("api-resources", "-o", "name").split()
    assert {"pods", "daemonsets.apps", "podsecuritypolicies.policy"} <= set(names)
    assert "daemonsets.extensions" not in names


def _uncoloured(text: str) -> str:
    return text.replace("\x1b[0;32m", "").replace("\x1b[0;33m", "").replace("\x1b[0m", "")


def test_node_commands(api: apikit.Api, kubelet: apikit.FakeKubelet) -> None:
    api.ok("label", "node", "w1", "zone=a")
    api.ok("annotate", "node", "w1", "note=b")
    api.ok("taint", "node", "w1", "k=v:NoSchedule")
    shown = yaml.safe_load(api.ok("get", "node", "w1", "-o", "yaml"))
    assert shown["metadata"]["labels"]["zone"] == "a"
    assert shown["metadata"]["annotations"]["note"] == "b"
    assert {"key": "k", "value": "v", "effect": "NoSchedule"} in shown["spec"]["taints"]
    api.ok("taint", "node", "w1", "k-")
    api.ok("cordon", "w1")
    assert "SchedulingDisabled" in api.ok("get", "nodes", "--no-headers")
    api.ok("uncordon", "w1")
    described = api.ok("describe", "node", "w1")
    assert "Non-terminated Pods:" in described
    assert "Node w1 event: Registered Node w1 in Controller" in described
    wide = api.ok("get", "nodes", "-o", "wide", "-l", "zone in (a,b)").splitlines()
    assert wide[0].split() == [
        "NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE",
        "KERNEL-VERSION", "CONTAINER-RUNTIME",
    ]  # fmt: skip
    assert "containerd://1.6.20" in wide[1]


@pytest.fixture
def pod(api: apikit.Api, kubelet: apikit.FakeKubelet) -> Iterator[str]:
    """A pod that is bound to w1, whatever state the lifecycle controller sees the node in."""
    until(lambda: api.kubectl("get", "sa", "default").returncode == 0, "default service account")
    spec = {
        "nodeName": "w1",
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "image": "busybox:1"}],
    }
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1"}, "spec": spec}
    api.ok("apply", "-f", "-", stdin=json.dumps(manifest))
    yield "p1"
    api.ok("delete", "pod", "p1", "--grace-period=0", "--force")


def test_logs_and_exec_go_to_the_kubelet(
    api: apikit.Api, kubelet: apikit.FakeKubelet, pod: str
) -> None:
    assert api.ok("logs", pod, "--tail=5") == "log of c\n"
    assert kubelet.asked[-1] == f"/containerLogs/default/{pod}/c?tailLines=5"
    done = api.kubectl("exec", pod, "--", "echo", "a b")
    assert (done.stdout, done.stderr) == ("echo a b\n", "to stderr\n")
    assert kubelet.asked[-1].startswith(f"/exec/default/{pod}/c?input=0&output=1&error=1&tty=0")
    assert kubelet.asked[-1].endswith("&command=echo&command=a+b")
    failed = api.kubectl("exec", pod, "--", "exit", "7")
    assert failed.returncode == 7
    assert "command terminated with exit code 7" in failed.stderr
    echoed = api.kubectl("exec", "-i", pod, "--", "cat", stdin="hello\n")
    assert echoed.stdout == "cat\nhello\n"


def test_describe_pod_lists_its_events(api: apikit.Api, pod: str) -> None:
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": "default",
                           "uid": api.ok("get", "pod", pod, "-o", "jsonpath={.metadata.uid}")},
        "reason": "Pulled", "message": "already present", "type": "Normal", "count": 2,
        "source": {"component": "kubelet", "host": "w1"},
        "firstTimestamp": "2026-11-22T18:07:16Z", "lastTimestamp": "2026-11-22T18:07:16Z",
    }  # fmt: skip
    api.ok("create", "-f", "-", stdin=json.dumps(event))
    described = api.ok("describe", "pod", pod)
    assert "kube-api-access-" in described
    assert "Pulled" in described
    assert "already present" in api.ok("get", "events", "--field-selector", "reason=Pulled")


def test_wait_and_watch_see_a_condition_come(api: apikit.Api, pod: str) -> None:
    waiting = subprocess.Popen(
        api.command("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=30s"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=api.env(),
    )  # fmt: skip
    watching = subprocess.Popen(
        api.command("get", "pods", "-w", "--no-headers"),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=api.env(),
    )  # fmt: skip
    try:
        assert watching.stdout
        first = watching.stdout.readline().split()
        assert first[:3] == [pod, "0/1", "Pending"]
        running = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}
        status = {
            "phase": "Running", "podIP": "10.244.0.2", "containerStatuses": [running],
            "conditions": [{"type": "Ready", "status": "True"}],
        }  # fmt: skip
        patch = json.dumps({"status": status})
        api.ok("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)
        assert watching.stdout.readline().split()[:3] == [pod, "1/1", "Running"]
        assert waiting.communicate(timeout=30)[0] == f"pod/{pod} condition met\n"
    finally:
        for process in (waiting, watching):
            process.kill()
            process.communicate()


def test_drain_evicts_pods(api: apikit.Api, pod: str) -> None:
    draining = subprocess.Popen(
        api.command("drain", "w1", "--force", "--ignore-daemonsets", "--timeout=30s"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=api.env(),
    )  # fmt: skip
    path = "jsonpath={.metadata.deletionTimestamp}"
    until(lambda: api.ok("get", "pod", pod, "-o", path), "eviction sets deletionTimestamp")
    api.ok("delete", "pod", pod, "--grace-period=0", "--force")
    out = draining.communicate(timeout=30)[0]
    assert draining.returncode == 0
    assert "evicting pod default/p1" in out
    api.ok("uncordon", "w1")
    api.ok("run", pod, "--image=busybox:1")


def test_drain_waits_for_a_disruption_budget(api: apikit.Api, pod: str) -> None:
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    patch = json.dumps({"status": running})
    api.ok("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)
    api.ok("label", "pod", pod, "app=guarded")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}
    wanted = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": spec}
    api.ok("apply", "-f", "-", stdin=json.dumps({**wanted, "metadata": {"name": "guard"}}))
    path = "jsonpath={.status.currentHealthy}"
    until(lambda: api.ok("get", "pdb", "guard", "-o", path) == "1", "the budget counts the pod")
    shown = api.ok("get", "pdb", "guard", "--no-headers").split()
    assert shown[:4] == ["guard", "1", "N/A", "0"]
    done = api.kubectl("drain", "w1", "--force", "--ignore-daemonsets", "--timeout=1s")
    assert done.returncode == 1
    assert (
        f'error when evicting pods/"{pod}" -n "default" (will retry after 5s): '
        "Cannot evict pod as it would violate the pod's disruption budget."
    ) in done.stderr
    api.ok("delete", "pdb", "guard")
    api.ok("uncordon", "w1")


def test_evictions_before_1_22_are_those_of_policy_v1beta1(tmp_path: Path) -> None:
    with apikit.running(tmp_path, "1.21.14") as old:
        until(lambda: old.kubectl("get", "sa", "default").returncode == 0, "service account")
        spec = {"containers": [{"name": "c", "image": "busybox:1"}]}
        wanted = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        old.ok("apply", "-f", "-", stdin=json.dumps(wanted))
        path = "/api/v1/namespaces/default/pods/p/eviction"

        def evict(version: str) -> subprocess.CompletedProcess[str]:
            body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p"}}
            return old.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

        refused = evict("policy/v1")
        assert 'no kind "Eviction" is registered for version "policy/v1"' in refused.stderr
        assert evict("policy/v1beta1").returncode == 0


def test_tokens_and_rights(api: apikit.Api) -> None:
    until(lambda: api.kubectl("get", "sa", "default").returncode == 0, "default service account")
    token = api.ok("create", "token", "default").strip()
    assert token.count(".") == 2
    config = api.kubeconfig("account", token=token)
    done = api.kubectl("get", "nodes", config=config)
    assert done.returncode == 1
    assert (
        'nodes is forbidden: User "system:serviceaccount:default:default" cannot list resource '
        '"nodes" in API group "" at the cluster scope'
    ) in done.stderr
    api.ok("create", "clusterrole", "look", "--verb=get,list", "--resource=nodes")
    api.ok("create", "clusterrolebinding", "look", "--clusterrole=look",
           "--serviceaccount=default:default")  # fmt: skip
    api.ok("get", "nodes", config=config)
    assert api.ok("auth", "can-i", "list", "nodes", config=config) == "yes\n"
    assert api.kubectl("auth", "can-i", "delete", "nodes", config=config).stdout == "no\n"


def test_custom_resources_are_served_once_defined(api: apikit.Api) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "pools.lab.example"},
        "spec": {
            "group": "lab.example", "scope": "Cluster",
            "names": {"plural": "pools", "kind": "Pool", "shortNames": ["pl"]},
            "versions": [{"name": "v1", "served": True, "storage": True,
                          "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }  # fmt: skip
    pool = {"apiVersion": "lab.example/v1", "kind": "Pool", "metadata": {"name": "a"}, "spec": {}}
    api.ok("apply", "-f", "-", stdin=json.dumps(crd))
    api.ok("wait", "--for=condition=Established", "crd/pools.lab.example", "--timeout=10s")
    assert api.ok("apply", "-f", "-", stdin=json.dumps(pool)) == "pool.lab.example/a created\n"
    pool["spec"] = {"size": 1}
    assert api.ok("apply", "-f", "-", stdin=json.dumps(pool)) == "pool.lab.example/a configured\n"
    assert api.ok("get", "pl", "-o", "jsonpath={.items[0].spec.size}") == "1"
    api.ok("delete", "crd", "pools.lab.example")
    assert api.kubectl("get", "pools").returncode == 1


def test_rollout_status_follows_a_deployment(api: apikit.Api) -> None:
    api.ok("apply", "-f", "-", stdin=WEB.replace("replicas: 2", "replicas: 0"))
    out = api.ok("rollout", "status", "deploy/web", "--timeout=30s")
    assert out == 'deployment "web" successfully rolled out\n'
    api.ok("scale", "deploy/web", "--replicas=1")
    until(lambda: api.ok("get", "pods", "-l", "app=web", "-o", "name"), "a pod of web")
    assert "0/1" in api.ok("get", "deploy", "web", "--no-headers")
    api.ok("delete", "deploy", "web")
    until(lambda: not api.ok("get", "rs", "-l", "app=web", "-o", "name"), "garbage collection")


def test_an_object_too_long_for_the_annotation_of_apply_needs_server_side(api: apikit.Api) -> None:
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "long"}}
    config = json.dumps({**given, "data": {"text": "x" * 300_000}})
    done = api.kubectl("apply", "-f", "-", stdin=config)
    assert done.returncode == 1
    assert "metadata.annotations: Too long: must have at most 262144 bytes" in done.stderr
    api.ok("apply", "--server-side", "-f", "-", stdin=config)
    api.ok("delete", "cm", "long")


def test_server_side_apply_takes_over_from_client_side_apply(api: apikit.Api) -> None:
    def shown(path: str) -> str:
        return api.ok("get", "deploy", "moved", "-o", f"jsonpath={{{path}}}")

    first = WEB.split("---")[0].replace("name: web,", "name: moved,")
    api.ok("apply", "-f", "-", stdin=first)
    kit = ("apply", "--server-side", "--field-manager=kit", "-f", "-")
    newer = first.replace("nginx:1", "nginx:2").replace(
        ", ports: [{name: http, containerPort: 80}]", ""
    )
    done = api.kubectl(*kit, stdin=newer)
    assert done.returncode == 1
    assert (
        'conflict with "kubectl-client-side-apply" using apps/v1: '
        '.spec.template.spec.containers[name="c"].image'
    ) in done.stderr
    api.ok(*kit, "--force-conflicts", stdin=newer)
    assert shown(".spec.template.spec.containers[0].image") == "nginx:2"
    assert shown(".spec.template.spec.containers[0].ports") == ""  # kubectl moved what it owned
    managers = shown(".metadata.managedFields[*].manager").split()
    assert (managers.count("kit"), "kubectl-client-side-apply" in managers) == (1, False)
    assert "moved serverside-applied" in api.ok(*kit, stdin=newer)
    version = shown(".metadata.resourceVersion")
    api.ok("scale", "deploy/moved", "--replicas=0")
    assert shown(".metadata.resourceVersion") != version
    refused = api.kubectl(*kit, stdin=newer)
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1' in refused.stderr
    difference = api.kubectl("diff", "-f", "-", stdin=newer)
    assert difference.returncode == 1
    assert "-  replicas: 0\n+  replicas: 2" in difference.stdout
    api.ok("delete", "deploy", "moved")


def test_server_side_apply_is_not_there_before_1_16(tmp_path: Path) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    with apikit.running(tmp_path, "1.15.12") as old:
        done = old.kubectl("apply", "--server-side", "-f", "-", stdin=config)
        assert done.returncode == 1
        assert "the body of the request was in an unknown format" in done.stderr
        old.ok("apply", "-f", "-", stdin=config)
        assert "managedFields" not in old.ok("get", "cm", "c", "-o=yaml", "--show-managed-fields")


def test_what_is_never_called_or_on_its_way_out_is_warned_of(api: apikit.Api) -> None:
    hooks = {"apiVersion": "admissionregistration.k8s.io/v1", "webhooks": []}
    hooks = {**hooks, "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "w"}}
    done = api.kubectl("apply", "-f", "-", stdin=json.dumps(hooks))
    assert done.returncode == 0
    assert "Warning: the lab's API is emulated: it stores a Validating" in done.stderr
    policy = {"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy", "spec": {}}
    done = api.kubectl("apply", "-f", "-", stdin=json.dumps({**policy, "metadata": {"name": "p"}}))
    assert "Warning: policy/v1beta1 PodSecurityPolicy is deprecated in v1.21+" in done.stderr
    spec = {"group": "x.y", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}
    spec["service"] = {"name": "a", "namespace": "b"}
    served = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec}
    api.ok("apply", "-f", "-", stdin=json.dumps({**served, "metadata": {"name": "v1.x.y"}}))
    shown = api.ok("get", "apiservices", "--no-headers").split()
    assert shown[:4] == ["v1.x.y", "b/a", "False", "(EmulatedByTheLab)"]
    api.ok("delete", "apiservice/v1.x.y", "psp/p", "validatingwebhookconfiguration/w")


def test_a_daemons_history_is_told_and_undone(api: apikit.Api) -> None:
    daemons = WEB.split("---")[0].replace("Deployment", "DaemonSet").replace("  replicas: 2\n", "")
    nowhere = daemons.replace("    spec:\n", "    spec:\n      nodeSelector: {no: such}\n", 1)
    api.ok("apply", "-f", "-", stdin=nowhere)
    assert "successfully rolled out" in api.ok("rollout", "status", "ds/web", "--timeout=30s")
    api.ok("annotate", "ds/web", "kubernetes.io/change-cause=second")
    api.ok("set", "image", "ds/web", "c=nginx:2")

    def revisions() -> list[list[str]]:
        lines = api.ok("rollout", "history", "ds/web").splitlines()[2:]
        return [line.split() for line in lines if line]

    until(lambda: revisions() == [["1", "<none>"], ["2", "second"]], "two revisions")
    assert "nginx:1" in api.ok("rollout", "history", "ds/web", "--revision=1")
    api.ok("rollout", "undo", "ds/web")
    until(lambda: [row[0] for row in revisions()] == ["2", "3"], "the first one again")
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert api.ok("get", "ds", "web", "-o", image) == "nginx:1"
    api.ok("rollout", "restart", "ds/web")
    until(lambda: [row[0] for row in revisions()] == ["2", "3", "4"], "restarted")
    api.ok("delete", "ds", "web")
