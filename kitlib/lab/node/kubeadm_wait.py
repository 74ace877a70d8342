"""What kubeadm waits for: the kubelet, the API, and the Node that the kubelet registers."""

from __future__ import annotations

import asyncio
import time

from kitlib.lab.node import services
from kitlib.lab.node.kubeadm_config import InitOptions
from kitlib.lab.node.kubeadm_run import MANIFESTS, KubeadmError, Run
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable

__all__ = ["complain", "kubelet_trouble", "mark_cri_socket", "start_kubelet", "wait_for_api"]


async def start_kubelet(run: Run) -> None:
    """Restart the kubelet's unit, as kubeadm does once its configuration is written."""
    if "kubelet" in run.state.services:
        await services.stop(run.host, "kubelet")
        await services.start(run.host, "kubelet")
    await run.host.sleep(0.13)


async def wait_for_api(run: Run, options: InitOptions, api: ApiClient) -> None:
    """Wait until the API says that it is healthy.

    Raises:
        KubeadmError: It did not, within four recorded minutes.
    """
    minor = options.release.minor
    start = "Waiting for the kubelet to boot up the control plane as static Pods from directory"
    if minor < 30:
        await run.out(f'[wait-control-plane] {start} "{MANIFESTS}". This can take up to 4m0s')
    else:
        await run.out(f'[wait-control-plane] {start} "{MANIFESTS}"')
        where = " at http://127.0.0.1:10248/healthz" if minor >= 31 else ""
        await run.out(
            f"[kubelet-check] Waiting for a healthy kubelet{where}. This can take up to 4m0s"
        )
    began = time.monotonic()
    limit = run.patience(240)
    healthy = kubelet_seen = False
    complaint = 40.0
    while time.monotonic() - began < limit:
        if minor >= 30 and not kubelet_seen and run.state.running("kubelet"):
            kubelet_seen = True
            await run.host.sleep(0.5)
            await run.out(f"[kubelet-check] The kubelet is healthy after {_go(began)}")
            await _waiting_line(run, options)
        healthy = await is_healthy(api)
        if healthy:
            break
        if minor < 30 and time.monotonic() - began > complaint * run.host.time_factor:
            await complain(run, first=complaint == 40.0)
            complaint += 20.0
        await asyncio.sleep(0.1)
    if not healthy:
        await _not_healthy(run)
    elif minor < 30:
        took = time.monotonic() - began
        await run.out(
            f"[apiclient] All control plane components are healthy after {took:.6f} seconds"
        )
    elif minor < 34:
        await run.out(f"[api-check] The API server is healthy after {_go(began)}")
    else:
        for component in ("kube-controller-manager", "kube-scheduler", "kube-apiserver"):
            await run.out(f"[control-plane-check] {component} is healthy after {_go(began)}")


async def _waiting_line(run: Run, options: InitOptions) -> None:
    if options.release.minor < 34:
        await run.out("[api-check] Waiting for a healthy API server. This can take up to 4m0s")
        return
    await run.out(
        "[control-plane-check] Waiting for healthy control plane components. "
        "This can take up to 4m0s"
    )
    checks = (
        ("kube-apiserver", f"https://{options.address}:{options.port}/livez"),
        ("kube-controller-manager", "https://127.0.0.1:10257/healthz"),
        ("kube-scheduler", "https://127.0.0.1:10259/livez"),
    )
    for component, address in checks:
        await run.out(f"[control-plane-check] Checking {component} at {address}")


async def is_healthy(api: ApiClient) -> bool:
    """Return whether the API answers."""
    try:
        await api.get("/version")
    except (ApiRefused, ApiUnreachable):
        return False
    return True


async def complain(run: Run, *, first: bool) -> None:
    """Print the kubelet check's lines where the kubelet does not run well."""
    healthy = run.state.running("kubelet") and run.state.running("containerd")
    if first and not healthy:
        await run.out("[kubelet-check] Initial timeout of 40s passed.")
    if healthy:
        return
    url = "http://localhost:10248/healthz"
    await run.out("[kubelet-check] It seems like the kubelet isn't running or healthy.")
    await run.out(
        f"[kubelet-check] The HTTP call equal to 'curl -sSL {url}' failed with error: "
        f'Get "{url}": dial tcp 127.0.0.1:10248: connect: connection refused.'
    )


_TROUBLE = (
    "",
    "Unfortunately, an error has occurred:",
    "\ttimed out waiting for the condition",
    "",
    "This error is likely caused by:",
    "\t- The kubelet is not running",
    "\t- The kubelet is unhealthy due to a misconfiguration of the node in some way "
    "(required cgroups disabled)",
    "",
    "If you are on a systemd-powered system, you can try to troubleshoot the error with the "
    "following commands:",
    "\t- 'systemctl status kubelet'",
    "\t- 'journalctl -xeu kubelet'",
)


async def kubelet_trouble(run: Run) -> None:
    """Print kubeadm's advice for a kubelet that does not do its part in time."""
    for line in _TROUBLE:
        await run.out(line)


async def _not_healthy(run: Run) -> None:
    socket = run.own.cri_socket
    await kubelet_trouble(run)
    for line in (
        "",
        "Additionally, a control plane component may have crashed or exited when started by the "
        "container runtime.",
        "To troubleshoot, list all containers using your preferred container runtimes CLI.",
        "",
        "Here is one example how you may list all Kubernetes containers running in "
        "cri-o/containerd using crictl:",
        f"\t- 'crictl --runtime-endpoint {socket} ps -a | grep kube | grep -v pause'",
        "\tOnce you have found the failing container, you can inspect its logs with:",
        f"\t- 'crictl --runtime-endpoint {socket} logs CONTAINERID'",
        "",
    ):
        await run.out(line)
    raise KubeadmError(
        "error execution phase wait-control-plane: couldn't initialize a Kubernetes cluster"
    )


async def mark_cri_socket(run: Run, api: ApiClient, name: str, socket: str, phase: str) -> None:
    """Write the runtime socket to the Node's annotation, once the kubelet has registered it.

    Raises:
        KubeadmError: There was no Node within two recorded minutes.
    """
    note = {"metadata": {"annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": socket}}}
    until = time.monotonic() + run.patience(125)
    while time.monotonic() < until:
        try:
            await api.patch(f"/api/v1/nodes/{name}", note)
        except (ApiRefused, ApiUnreachable):
            await asyncio.sleep(0.1)
        else:
            return
    where = f"error execution phase {phase}: " if phase == "kubelet-start" else ""
    text = "error uploading crisocket: timed out waiting for the condition"
    raise KubeadmError(
        f"{where}{text}"
        if where
        else f"error execution phase {phase}: Error writing Crisocket information for the "
        "control-plane node: timed out waiting for the condition"
    )


def _go(began: float) -> str:
    """Return the time since `began` the way Go prints a duration."""
    seconds = time.monotonic() - began
    return f"{seconds * 1000:.6f}ms" if seconds < 1 else f"{seconds:.9f}s"
