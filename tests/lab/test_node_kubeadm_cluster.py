"""kubeadm init, join, token and reset over a real API process, against what was recorded."""

from __future__ import annotations

import asyncio

import pytest
import yaml
from node_cluster import appears, free_port, run_kubelet
from node_host import DATA, Done, call, close, install, new_host, plain, recorded

from kitlib.lab.node import COMMANDS, kubeadm_preflight, services, state
from kitlib.lab.node.kubelet_client import ApiClient


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch):
    monkeypatch.setattr(kubeadm_preflight, "port_in_use", lambda port: False)
    monkeypatch.setattr(services.kubelet, "run_kubelet", run_kubelet)


@pytest.fixture
async def control(tmp_path):
    """A control plane host with kubeadm installed; its API port is a free one."""
    host = new_host(tmp_path / "control")
    host.port = free_port()
    await install(host)
    yield host
    await close(host)


@pytest.fixture
async def worker(tmp_path):
    host = new_host(tmp_path / "worker", name="worker-1")
    await install(host)
    yield host
    await close(host)


async def init(host, *more: str):
    return await call(
        host,
        "kubeadm",
        "init",
        "--pod-network-cidr=10.244.0.0/16",
        f"--apiserver-bind-port={host.port}",
        *more,
    )


def api_of(host) -> ApiClient:
    return ApiClient.from_kubeconfig(state.state_of(host).path("/etc/kubernetes/admin.conf"))


async def test_init_prints_writes_and_creates_what_was_recorded(control):
    done = await init(control)
    want = recorded("init")
    assert plain(done.lines) == plain(want["out"])
    assert plain(done.errors) == plain(want["err"])
    assert done.status == 0
    node = state.state_of(control)
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        written = node.path(f"/etc/kubernetes/manifests/{name}.yaml").read_text()
        real = (DATA / "host-files" / f"{name}.yaml").read_text()
        real = real.replace("10.77.0.11", "127.0.0.9").replace("m1", "control-plane-1")
        assert yaml.safe_load(written.replace(str(control.port), "6443")) == yaml.safe_load(real)
    for name in ("config.yaml", "kubeadm-flags.env"):
        written = node.path(f"/var/lib/kubelet/{name}").read_text()
        assert written == (DATA / "host-files" / name).read_text()
    api = api_of(control)
    try:
        found = await api.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
        cluster = yaml.safe_load(found["data"]["ClusterConfiguration"])
        assert cluster["networking"]["podSubnet"] == "10.244.0.0/16"
        assert cluster["clusterName"] == "kubernetes"
        service = await api.get("/api/v1/namespaces/kube-system/services/kube-dns")
        assert service["spec"]["clusterIP"] == "10.96.0.10"
        made = await api.get("/api/v1/nodes/control-plane-1")
        assert "node-role.kubernetes.io/control-plane" in made["metadata"]["labels"]
        assert {taint["key"] for taint in made["spec"]["taints"]} >= {
            "node-role.kubernetes.io/master"
        }
        sets = await api.get("/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy")
        assert {e["manager"] for e in sets["metadata"]["managedFields"]} == {"kubeadm"}
        assert sets["spec"]["template"]["spec"]["hostNetwork"] is True
    finally:
        await api.close()


async def test_token_verbs_join_and_reset(control, worker):
    assert (await init(control)).status == 0
    printed = await call(control, "kubeadm", "token", "create", "--print-join-command")
    assert plain(printed.lines) == plain(recorded("token-create-print")["out"])
    joined = await call(worker, *printed.lines[0].split())
    want = recorded("join")
    assert plain(joined.lines) == plain(want["out"])
    assert (joined.status, joined.errors) == (0, [])
    files = state.state_of(worker)
    assert not files.path("/etc/kubernetes/bootstrap-kubelet.conf").exists()
    api = api_of(control)
    try:
        node = await api.get("/api/v1/nodes/worker-1")
        notes = node["metadata"]["annotations"]
        socket = "/run/containerd/containerd.sock"
        assert notes["kubeadm.alpha.kubernetes.io/cri-socket"] == socket
    finally:
        await api.close()

    listed = await call(control, "kubeadm", "token", "list")
    assert listed.lines[0].split() == recorded("token-list")["out"][0].split()
    assert len(listed.lines) == 3
    short = await call(control, "kubeadm", "token", "create", "--ttl", "1m")
    gone = await call(control, "kubeadm", "token", "delete", short.lines[0])
    assert gone.lines == [f'bootstrap token "{short.lines[0][:6]}" deleted']

    assert (await call(worker, "kubeadm", "reset", "-f")).status == 0
    reset = await call(control, "kubeadm", "reset", "-f")
    want = recorded("reset-control-plane")
    assert plain(reset.lines) == plain(want["out"])
    assert (reset.status, reset.errors) == (0, [])
    assert list(state.state_of(control).path("/var/lib/etcd").iterdir()) == []
    again = await init(control)
    assert again.status == 0, again.errors


async def test_join_refuses_a_wrong_hash_and_an_unknown_token(control, worker):
    done = await init(control)
    token = done.lines[-2].split()[-2]
    server = f"127.0.0.9:{control.port}"
    wrong = ("--discovery-token-ca-cert-hash", "sha256:" + "0" * 64)
    refused = await call(worker, "kubeadm", "join", server, "--token", token, *wrong)
    want = recorded("join-wrong-hash")
    assert plain(refused.errors) == plain(want["err"][:-1])[-2:]
    assert refused.status == 1

    good = done.lines[-1].split()
    unsigned = await call(
        worker, "kubeadm", "join", server, "--token", "o80q2a.7xph8wwt5e2feirl", *good
    )
    want = recorded("join-expired-token")
    assert plain(unsigned.lines) == plain(want["out"])
    assert plain(unsigned.errors) == plain(want["err"])
    assert unsigned.status == 1
    node = state.state_of(worker)
    assert not node.path("/etc/kubernetes/bootstrap-kubelet.conf").exists()


async def test_join_refuses_the_name_of_a_node_that_is_ready(control, worker):
    done = await init(control)
    api = api_of(control)
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    try:
        await api.create("/api/v1/nodes", body)
        await api.patch("/api/v1/nodes/worker-1/status", ready)
    finally:
        await api.close()
    command = " ".join(line.rstrip("\\") for line in done.lines[-2:]).split()
    refused = await call(worker, *command)
    assert refused.status == 1
    assert refused.errors[0].startswith(
        'error execution phase kubelet-start: a Node with name "worker-1" and status "Ready" '
        "already exists in the cluster."
    )


async def test_join_without_a_runtime_complains_about_the_kubelet(control, worker):
    done = await init(control)
    await call(worker, "systemctl", "stop", "containerd")
    command = " ".join(line.rstrip("\\") for line in done.lines[-2:]).split()
    seen = recorded("join-without-containerd")["out"]
    join = Done(command)
    joining = asyncio.create_task(COMMANDS["kubeadm"](worker, join))
    await asyncio.wait_for(join.has(len(seen)), 30)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert plain(join.lines)[: len(seen)] == plain(seen)


async def test_a_killed_init_leaves_what_it_wrote(control):
    task = asyncio.create_task(init(control))
    manifest = state.state_of(control).path("/etc/kubernetes/manifests/kube-apiserver.yaml")
    await appears(manifest)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state.state_of(control).path("/etc/kubernetes/admin.conf").exists()
    again = await init(control)
    assert again.status == 1
    assert any("FileAvailable--etc-kubernetes-manifests-kube" in line for line in again.errors)
    reset = await call(control, "kubeadm", "reset", "-f")
    assert reset.status == 0
    assert (await init(control)).status == 0


@pytest.mark.parametrize("version", ["1.19.16", "1.30.1", "1.36.2"])
async def test_other_releases_initialise_and_take_workers(control, worker, version):
    for host in (control, worker):
        await install(host, version)
    done = await init(control)
    assert done.status == 0, done.errors
    command = " ".join(line.rstrip("\\") for line in done.lines[-2:]).split()
    joined = await call(worker, *command)
    assert joined.status == 0, joined.errors
    assert (await call(control, "kubeadm", "reset", "-f")).status == 0


async def test_init_from_a_configuration_file(control):
    file = state.state_of(control).path("/root/kubeadm.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    documents = [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta3",
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": "abcdef.0123456789abcdef", "ttl": "1h0m0s"}],
            "localAPIEndpoint": {"bindPort": control.port},
            "skipPhases": ["addon/kube-proxy"],
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta3",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": "v1.22.3",
            "clusterName": "lab",
            "networking": {"podSubnet": "192.168.0.0/16", "serviceSubnet": "10.100.0.0/16"},
        },
    ]
    file.write_text(yaml.safe_dump_all(documents))
    done = await call(control, "kubeadm", "init", "--config", "kubeadm.yaml")
    assert done.status == 0, done.errors
    assert done.errors == []
    assert "[bootstrap-token] Using token: abcdef.0123456789abcdef" in done.lines
    assert "[addons] Applied essential addon: kube-proxy" not in done.lines
    api = api_of(control)
    try:
        service = await api.get("/api/v1/namespaces/kube-system/services/kube-dns")
        assert service["spec"]["clusterIP"] == "10.100.0.10"
    finally:
        await api.close()
