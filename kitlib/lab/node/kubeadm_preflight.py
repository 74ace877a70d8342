"""kubeadm's preflight checks: what is read from the host, in kubeadm's order and words."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubeadm_run import KubeadmError, Run
from kitlib.lab.node.packages import minor_of, upstream
from kitlib.lab.node.runtime import runtime_of
from kitlib.lab.node.state import CONTAINERD_SOCKET
from kitlib.lab.node.system import swap_is_on

__all__ = [
    "CONTAINERD_SOCKET",
    "DOCKER_MISSING",
    "init_checks",
    "join_checks",
    "pull_images",
    "report",
]

DOCKER_MISSING = (
    'docker is required for container runtime: exec: "docker": executable file not found in $PATH'
)
_MANIFESTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
_EMULATED_PORTS = {
    10259: "kube-scheduler",
    10257: "kube-controller-manager",
    2379: "etcd",
    2380: "etcd",
}
"""Ports of components that run inside the emulated API process -> their container's name."""
_HOSTNAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_PROC = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: its name in brackets, its text, and whether it stops kubeadm."""

    name: str
    text: str
    fatal: bool = True


async def report(run: Run, findings: Iterable[Finding], ignore: frozenset[str]) -> None:
    """Print the warnings and stop at the errors.

    Raises:
        KubeadmError: At least one finding is fatal and not ignored; the text is the whole list.
    """
    errors = []
    for found in findings:
        if found.fatal and not ({"all", found.name.lower()} & ignore):
            errors.append(f"\t[ERROR {found.name}]: {found.text}")
        else:
            await run.call.err(f"\t[WARNING {found.name}]: {found.text}")
    if errors:
        raise KubeadmError(
            "\n".join(
                [
                    "error execution phase preflight: [preflight] Some fatal errors occurred:",
                    *errors,
                    "[preflight] If you know what you are doing, you can make a check non-fatal "
                    "with `--ignore-preflight-errors=...`",
                ]
            )
        )


async def init_checks(
    run: Run, release: Release, name: str, port: int, cri_socket: str
) -> list[Finding]:
    """Return what init's checks find on this host."""
    found = []
    if release.minor > run.own.minor:
        found.append(
            Finding(
                "KubernetesVersion",
                "Kubernetes version is greater than kubeadm version. Please consider to upgrade "
                f"kubeadm. Kubernetes version: {release.version}. "
                f"Kubeadm version: 1.{run.own.minor}.x",
                fatal=False,
            )
        )
    found += _ports(run, (port, 10259, 10257))
    for component in _MANIFESTS:
        found += _absent(run, f"/etc/kubernetes/manifests/{component}.yaml")
    found += await _node_checks(run, name, cri_socket)
    found += _kubelet_version(run, release)
    found += _service(run)
    found += _ports(run, (10250, 2379, 2380))
    etcd = run.path("/var/lib/etcd")
    if etcd.is_dir() and any(etcd.iterdir()):
        found.append(Finding("DirAvailable--var-lib-etcd", "/var/lib/etcd is not empty"))
    return found


async def join_checks(run: Run, name: str, cri_socket: str) -> list[Finding]:
    """Return what a worker's checks find on this host."""
    found = []
    manifests = run.path("/etc/kubernetes/manifests")
    if manifests.is_dir() and any(manifests.iterdir()):
        found.append(
            Finding(
                "DirAvailable--etc-kubernetes-manifests", "/etc/kubernetes/manifests is not empty"
            )
        )
    found += _absent(run, "/etc/kubernetes/kubelet.conf")
    found += _absent(run, "/etc/kubernetes/bootstrap-kubelet.conf")
    found += await _node_checks(run, name, cri_socket)
    found += _kubelet_version(run, None)
    found += _service(run)
    found += _ports(run, (10250,))
    found += _absent(run, "/etc/kubernetes/pki/ca.crt")
    return found


async def pull_images(run: Run, images: Iterable[str]) -> list[Finding]:
    """Pull the images that the node lacks; returns a finding for each that cannot be had."""
    found = []
    for image in images:
        if image in run.state.images:
            continue
        problem = image_problem(run, image)
        if problem:
            # The runtime tries for a while before it gives up.
            await run.host.sleep(30)
            text = (
                f"failed to pull image {image}: output: {problem}\n, error: exit status 1"
                if run.own.minor < 31
                else f"failed to pull image {image}: failed to pull image {image}: {problem}"
            )
            found.append(Finding("ImagePull", text))
        else:
            await run.host.sleep(0.02)
            run.state.images.add(image)
    return found


def image_problem(run: Run, image: str) -> str:
    """Return why an image cannot be pulled on this host, as crictl says it; empty when it can."""
    registry, _, rest = image.partition("/")
    path, _, tag = rest.rpartition(":")
    known = registry in ("k8s.gcr.io", "registry.k8s.io", "docker.io", "quay.io", "ghcr.io")
    reach = f'failed to resolve reference "{image}": failed to do request: '
    head = f'Head "https://{registry}/v2/{path}/manifests/{tag}": '
    if "no-route-out" in run.host.faults:
        why, code = f"{reach}{head}dial tcp: lookup {registry}: no such host", "Unknown"
    elif "image-pull-fails" in run.host.faults:
        address = "10.77.0.1"
        why = f"{reach}{head}dial tcp {address}:443: connect: connection refused"
        code = "Unknown"
    elif not known:
        why = f"{reach}{head}dial tcp: lookup {registry} on 10.77.0.1:53: no such host"
        code = "Unknown"
    elif (
        re.match(r"v1\.\d+\.\d+$", tag)
        and path.startswith("kube-")
        and minor_of(tag) > run.own.minor
    ):
        why, code = f'failed to resolve reference "{image}": {image}: not found', "NotFound"
    else:
        return ""
    cause = f'rpc error: code = {code} desc = failed to pull and unpack image "{image}": {why}'
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    escaped = f"pulling image: {cause}".replace('"', '\\"')
    return f'time="{stamp}" level=fatal msg="{escaped}"' if run.own.minor < 31 else cause


def port_in_use(port: int) -> bool:
    """Return whether something on this host listens on a TCP port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False


def _ports(run: Run, ports: Iterable[int]) -> list[Finding]:
    running = {
        container.name
        for sandbox in runtime_of(run.host).sandboxes.values()
        for container in sandbox.containers.values()
        if container.running
    }
    return [
        Finding(f"Port-{port}", f"Port {port} is in use")
        for port in ports
        if port_in_use(port) or _EMULATED_PORTS.get(port) in running
    ]


def _absent(run: Run, path: str) -> list[Finding]:
    if not run.path(path).exists():
        return []
    return [Finding("FileAvailable-" + path.replace("/", "-"), f"{path} already exists")]


async def _node_checks(run: Run, name: str, cri_socket: str) -> list[Finding]:
    """Return what the checks common to every node find: runtime, kernel, swap, name."""
    found = []
    minor = run.own.minor
    if not run.state.running("containerd") and (cri_socket or minor >= 24):
        await run.host.sleep(2.5)
        found.append(Finding("CRI", _runtime_down(run, cri_socket)))
    if minor < 30:
        loaded = "br_netfilter" in run.state.modules
        loaded = loaded and "br-netfilter-missing" not in run.host.faults
        found += _set_to_one(run, "bridge/bridge-nf-call-iptables", present=loaded)
    found += _set_to_one(run, "ipv4/ip_forward", present=True)
    if swap_is_on(run.host):
        found.append(_swap(minor))
    for tool in ("conntrack", "ip", "iptables", "mount", "nsenter"):
        if tool == "conntrack" and tool not in run.state.packages and minor >= 18:
            found.append(Finding(f"FileExisting-{tool}", f"{tool} not found in system path"))
    found += _hostname(run, name)
    return found


def _set_to_one(run: Run, setting: str, *, present: bool) -> list[Finding]:
    file = _sysctl_root(run) / setting
    name = f"FileContent--proc-sys-net-{setting.replace('/', '-')}"
    path = f"/proc/sys/net/{setting}"
    if not present or not file.exists():
        return [Finding(name, f"{path} does not exist")]
    if file.read_text().strip() != "1":
        return [Finding(name, f"{path} contents are not set to 1")]
    return []


def _sysctl_root(run: Run) -> Path:
    """Return where the host's network sysctls are (a node with a root of its own has a copy)."""
    return _PROC if run.state.root == Path("/") else run.path(str(_PROC))


def _swap(minor: int) -> Finding:
    if minor < 23:
        return Finding("Swap", "running with swap on is not supported. Please disable swap")
    if minor < 28:
        return Finding(
            "Swap",
            "swap is enabled; production deployments should disable swap unless testing the "
            "NodeSwap feature gate of the kubelet",
            fatal=False,
        )
    return Finding(
        "Swap",
        "swap is supported for cgroup v2 only. The kubelet must be properly configured to use "
        "swap. Please refer to "
        "https://kubernetes.io/docs/concepts/architecture/nodes/#swap-memory, "
        "or disable swap on the node",
        fatal=False,
    )


def _hostname(run: Run, name: str) -> list[Finding]:
    if not _HOSTNAME.match(name):
        return [
            Finding(
                "Hostname",
                f'invalid node name format "{name}": a lowercase RFC 1123 subdomain must consist '
                "of lower case alphanumeric characters, '-' or '.', and must start and end with an "
                "alphanumeric character",
            )
        ]
    if name in run.host.peers:
        return []
    return [
        Finding("Hostname", f'hostname "{name}" could not be reached', fatal=False),
        Finding(
            "Hostname",
            f'hostname "{name}": lookup {name} on 10.77.0.1:53: no such host',
            fatal=False,
        ),
    ]


def _kubelet_version(run: Run, release: Release | None) -> list[Finding]:
    installed = run.state.packages.get("kubelet")
    if installed is None:
        return [
            Finding(
                "KubeletVersion",
                "couldn't get kubelet version: cannot execute 'kubelet --version': "
                "executable file not found in $PATH",
            )
        ]
    if release is not None and minor_of(installed) > release.minor:
        return [
            Finding(
                "KubeletVersion",
                "the kubelet version is higher than the control plane version. This is not a "
                "supported version skew and may lead to a malfunctional cluster. Kubelet version: "
                f'"{upstream(installed)}" Control plane version: "{release.version}"',
            )
        ]
    return []


def _service(run: Run) -> list[Finding]:
    unit = run.state.services.get("kubelet")
    if unit is None:
        return [Finding("Service-Kubelet", "kubelet service does not exist", fatal=False)]
    if unit.enabled:
        return []
    return [
        Finding(
            "Service-Kubelet",
            "kubelet service is not enabled, please run 'systemctl enable kubelet.service'",
            fatal=False,
        )
    ]


def _runtime_down(run: Run, cri_socket: str) -> str:
    """Return how kubeadm says that the container runtime does not answer."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = (cri_socket or run.own.cri_socket).removeprefix("unix://")
    refused = f"dial unix {path}: connect: connection refused"
    if run.own.minor < 24:
        message = (
            f"connect: connect endpoint 'unix://{path}', make sure you are running as root and the "
            "endpoint has been started: context deadline exceeded"
        )
    elif run.own.minor < 31:
        message = (
            "unable to determine runtime API version: rpc error: code = Unavailable desc = "
            f'connection error: desc = \\"transport: Error while dialing {refused}\\"'
        )
    else:
        return (
            "could not connect to the container runtime: failed to create new CRI runtime service: "
            "validate service connection: validate CRI v1 runtime API for endpoint "
            f'"unix://{path}": '
            "rpc error: code = Unavailable desc = connection error: desc = "
            f'"transport: Error while dialing: {refused}"'
        )
    return (
        f'container runtime is not running: output: time="{stamp}" level=fatal msg="{message}"\n'
        ", error: exit status 1"
    )
