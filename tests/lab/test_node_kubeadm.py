"""kubeadm without an API: preflight, reset, versions, configuration, against what was recorded."""

from __future__ import annotations

import pytest
import yaml
from node_host import call, close, install, new_host, plain, recorded

from kitlib.lab.node import kubeadm_preflight, state
from kitlib.lab.node.kubeadm_release import Release

INIT = ("kubeadm", "init", "--pod-network-cidr=10.244.0.0/16")
TOKEN = "abcdef.0123456789abcdef"
JOIN = ("kubeadm", "join", "127.0.0.9:1", "--token", TOKEN)
UNSAFE = "--discovery-token-unsafe-skip-ca-verification"


@pytest.fixture
def ports(monkeypatch):
    """Ports that are in use on the host."""
    used: set[int] = set()
    monkeypatch.setattr(kubeadm_preflight, "port_in_use", used.__contains__)
    return used


@pytest.fixture
async def host(tmp_path, ports):
    made = new_host(tmp_path)
    await install(made)
    yield made
    await close(made)


def write(host, path: str, text: str = "") -> None:
    file = state.state_of(host).path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def same(done, name: str) -> None:
    """Assert that a call printed what was recorded, each stream in its order."""
    want = recorded(name)
    assert plain(done.lines) == plain(want["out"])
    assert plain(done.errors) == plain(want["err"])


MANIFESTS = [
    f"/etc/kubernetes/manifests/{name}.yaml"
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
]


async def test_init_twice_names_every_port_and_file(host, ports):
    ports |= {6443, 10259, 10257, 2379, 2380}
    for path in (*MANIFESTS, "/var/lib/etcd/member"):
        write(host, path)
    done = await call(host, *INIT)
    same(done, "init-twice")
    assert done.status == recorded("init-twice")["exit_status"]


async def test_init_after_a_killed_init(host):
    for path in MANIFESTS:
        write(host, path)
    done = await call(host, *INIT)
    same(done, "init-after-killed-init")
    assert done.status == 1


async def test_ignored_preflight_errors_are_warnings(host):
    write(host, MANIFESTS[0])
    wanted = "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml"
    done = await call(
        host, "kubeadm", "init", "phase", "preflight", f"--ignore-preflight-errors={wanted}"
    )
    assert done.status == 0
    assert f"\t[WARNING {wanted}]: {MANIFESTS[0]} already exists" in done.errors


async def test_init_with_sysctls_off(host):
    write(host, "/proc/sys/net/ipv4/ip_forward", "0\n")
    write(host, "/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n")
    done = await call(host, "kubeadm", "init")
    want = recorded("init-sysctls-off")
    assert plain(done.lines) == plain(want["out"])
    assert plain(done.errors)[2:] == plain(want["err"])[2:]
    assert done.status == 1


async def test_br_netfilter_missing_is_a_file_that_does_not_exist(host):
    host.faults.add("br-netfilter-missing")
    done = await call(host, "kubeadm", "init")
    setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    assert any(line.endswith(f"{setting} does not exist") for line in done.errors)


async def test_init_without_a_runtime(host):
    await call(host, "systemctl", "stop", "containerd")
    done = await call(host, "kubeadm", "init")
    same(done, "init-containerd-down")
    assert done.status == 1


async def test_init_without_a_runtime_at_a_named_socket(host):
    await call(host, "systemctl", "stop", "containerd")
    socket = "/run/containerd/containerd.sock"
    done = await call(host, "kubeadm", "init", "--cri-socket", socket)
    want = recorded("init-containerd-down-socket")
    assert plain(done.errors)[2:] == plain(want["err"])[2:]


async def test_init_of_a_newer_version_warns_and_cannot_pull(host):
    done = await call(host, *INIT, "--kubernetes-version", "v1.30.0")
    want = recorded("init-newer-version")
    assert plain(done.lines) == plain(want["out"])
    assert done.errors[0] == want["err"][0]
    assert any(line.startswith("\t[ERROR ImagePull]: failed to pull image") for line in done.errors)
    assert done.status == 1


async def test_init_when_images_cannot_be_pulled_fails_after_a_long_while(host):
    host.faults.add("image-pull-fails")
    before = host.slept
    done = await call(host, "kubeadm", "init")
    assert done.status == 1
    assert sum("[ERROR ImagePull]" in line for line in done.errors) == 7
    assert host.slept - before > 60


@pytest.mark.parametrize(
    ("version", "fatal"), [("1.22.3", True), ("1.24.0", False), ("1.30.1", False)]
)
async def test_swap_stops_old_releases_and_warns_on_new_ones(tmp_path, ports, version, fatal):
    host = new_host(tmp_path)
    await install(host, version)
    host.faults.add("swap-on")
    done = await call(host, "kubeadm", "init", "phase", "preflight")
    found = [line for line in done.errors if "Swap]" in line]
    assert found[0].startswith("\t[ERROR" if fatal else "\t[WARNING")
    assert done.status == (1 if fatal else 0)
    await close(host)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("init", "--nosuch"), "unknown flag: --nosuch"),
        (("init", "-z"), "unknown shorthand flag: 'z' in -z"),
        (("nosuch",), 'unknown command "nosuch" for "kubeadm"'),
        (("join", "x:1", "--token"), "flag needs an argument: --token"),
        (("init", "--kubernetes-version", "nonsense"), "could not parse"),
        (("init", "--pod-network-cidr", "10.244.0.0/99"), "networking.podSubnet: Invalid value"),
        (("init", "--config", "/nosuch.yaml"), 'unable to read config from "/nosuch.yaml"'),
        (("join", "x:1", "--token", "short", UNSAFE), "the bootstrap token is invalid"),
        (("join", "x:1", "--token", TOKEN), "can be unsafe"),
        (("token", "list"), "failed to load admin kubeconfig: open /etc/kubernetes/admin.conf"),
    ],
)
async def test_wrong_calls_end_with_status_1_and_the_hint(host, args, message):
    done = await call(host, "kubeadm", *args)
    assert done.status == 1
    assert message in done.errors[0]
    assert done.errors[-1] == ("To see the stack trace of this error execute with --v=5 or higher")


async def test_join_of_a_joined_host(host, ports):
    ports.add(10250)
    write(host, "/etc/kubernetes/kubelet.conf")
    write(host, "/etc/kubernetes/pki/ca.crt")
    done = await call(host, *JOIN, UNSAFE)
    same(done, "join-already-joined")
    assert done.status == 1


async def test_join_of_an_unreachable_api_is_silent_until_its_time_is_up(host):
    done = await call(host, *JOIN, UNSAFE)
    assert done.lines == ["[preflight] Running pre-flight checks"]
    assert len(done.errors) == 2
    assert done.errors[0].startswith(
        "error execution phase preflight: couldn't validate the identity of the API Server: "
    )
    assert done.status == 1


async def test_reset_of_a_clean_host(host):
    done = await call(host, "kubeadm", "reset", "-f")
    same(done, "reset-clean")
    assert done.status == 0


@pytest.mark.parametrize(("answer", "name"), [("", "reset-no-input"), ("n\n", "reset-no")])
async def test_reset_that_is_not_confirmed_changes_nothing(host, answer, name):
    write(host, "/etc/kubernetes/kubelet.conf")
    done = await call(host, "kubeadm", "reset", stdin=answer)
    same(done, name)
    assert done.status == 1
    assert state.state_of(host).path("/etc/kubernetes/kubelet.conf").exists()


async def test_reset_confirmed_deletes_what_it_names_and_leaves_the_rest(host):
    gone = ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/x")
    left = ("/etc/cni/net.d/10-flannel.conflist", "/run/flannel/subnet.env")
    for path in (*gone, *left):
        write(host, path)
    done = await call(host, "kubeadm", "reset", stdin="y\n")
    same(done, "reset-yes")
    node = state.state_of(host)
    assert [node.path(path).exists() for path in (*gone, *left)] == [False] * 3 + [True] * 2
    assert node.path("/etc/kubernetes/pki").is_dir()
    assert node.services["kubelet"].active == "inactive"
    assert node.services["kubelet"].enabled


async def test_reset_without_a_runtime_warns_and_goes_on(host):
    await call(host, "systemctl", "stop", "containerd")
    done = await call(host, "kubeadm", "reset", "-f")
    same(done, "reset-without-containerd")
    assert done.status == 0


async def test_versions_and_images(host):
    assert (await call(host, "kubeadm", "version", "-o", "short")).lines == ["v1.22.3"]
    listed = await call(host, "kubeadm", "config", "images", "list")
    assert listed.lines == [
        "k8s.gcr.io/kube-apiserver:v1.22.3",
        "k8s.gcr.io/kube-controller-manager:v1.22.3",
        "k8s.gcr.io/kube-scheduler:v1.22.3",
        "k8s.gcr.io/kube-proxy:v1.22.3",
        "k8s.gcr.io/pause:3.5",
        "k8s.gcr.io/etcd:3.5.0-0",
        "k8s.gcr.io/coredns/coredns:v1.8.4",
    ]
    pulled = await call(host, "kubeadm", "config", "images", "pull")
    assert pulled.lines[0] == "[config/images] Pulled k8s.gcr.io/kube-apiserver:v1.22.3"
    printed = await call(host, "kubeadm", "config", "print", "init-defaults")
    kinds = [item["kind"] for item in yaml.safe_load_all("\n".join(printed.lines))]
    assert kinds == ["InitConfiguration", "ClusterConfiguration"]


@pytest.mark.parametrize(
    ("version", "labels", "taints", "config_map"),
    [
        ("1.19.1", {"master"}, ["master"], "kubelet-config-1.19"),
        ("1.22.3", {"master", "control-plane"}, ["master"], "kubelet-config-1.22"),
        ("1.24.0", {"control-plane"}, ["master", "control-plane"], "kubelet-config"),
        ("1.30.1", {"control-plane"}, ["control-plane"], "kubelet-config"),
    ],
)
def test_labels_taints_and_names_by_release(version, labels, taints, config_map):
    release = Release(version)
    head = "node-role.kubernetes.io/"
    assert {key.removeprefix(head) for key in release.labels if key.startswith(head)} == labels
    assert [taint["key"].removeprefix(head) for taint in release.taints] == taints
    assert release.kubelet_config_map == config_map
