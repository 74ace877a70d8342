"""The host's services: what systemd does with containerd and the kubelet.

The kubelet's unit restarts after ten seconds whenever its process ends, so an installed kubelet
without a configuration crash-loops until kubeadm writes one, as on a real host.
"""

from __future__ import annotations

import asyncio
import os
import stat

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node import containerd, kubelet, own_units
from kitlib.lab.node.klog import klog
from kitlib.lab.node.state import CONTAINERD_SOCKET, Service, state_of

__all__ = ["add_containerd", "add_kubelet", "place_socket", "remove_kubelet", "start", "stop"]

KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
_RESTART_SEC = 10.0
_TITLE = "kubelet.service - kubelet: The Kubernetes Node Agent"


async def add_kubelet(host: LabHost) -> None:
    """Install the kubelet's unit, enabled and started, as its package does."""
    state = state_of(host)
    unit = Service("kubelet", "kubelet: The Kubernetes Node Agent", enabled=True)
    state.services["kubelet"] = unit
    await start(host, "kubelet")


async def add_containerd(host: LabHost) -> None:
    """Install containerd's unit, enabled and started, as its package does."""
    state_of(host).services["containerd"] = Service(
        "containerd", "containerd container runtime", enabled=True
    )
    await start(host, "containerd")


async def remove_kubelet(host: LabHost) -> None:
    """Stop the kubelet and take its unit away."""
    await stop(host, "kubelet")
    state_of(host).services.pop("kubelet", None)


async def start(host: LabHost, name: str) -> None:
    """Start an installed unit; nothing happens when it is active."""
    state = state_of(host)
    unit = state.services[name]
    if unit.active == "active":
        return
    if unit.file:
        own_units.start(host, unit)
    elif name == "kubelet":
        await host.stop_task("kubelet")
        unit.turn("active")
        unit.pid = state.pid()
        host.start_task("kubelet", _kubelet(host, unit))
    else:
        state.containerd_config = containerd.effective(state)
        unit.turn("active")
        unit.pid = state.pid()
        place_socket(host)
        host.log(
            "containerd",
            "systemd[1]: Starting containerd.service - containerd container runtime...",
        )
        host.log(
            "containerd", "systemd[1]: Started containerd.service - containerd container runtime."
        )


async def stop(host: LabHost, name: str) -> None:
    """Stop an installed unit; nothing happens when it is not running."""
    unit = state_of(host).services.get(name)
    if unit is None or unit.active == "inactive":
        return
    if unit.file:
        await own_units.stop(host, unit)
        return
    if name == "kubelet":
        await host.stop_task("kubelet")
    unit.turn("inactive")
    if name == "kubelet":
        host.log("kubelet", f"systemd[1]: Stopping {_TITLE}...")
        host.log("kubelet", "systemd[1]: kubelet.service: Deactivated successfully.")
        host.log("kubelet", f"systemd[1]: Stopped {_TITLE}.")
    else:
        state_of(host).path(CONTAINERD_SOCKET).unlink(missing_ok=True)
        host.log(
            "containerd", "systemd[1]: Stopped containerd.service - containerd container runtime."
        )


def place_socket(host: LabHost) -> None:
    """Put containerd's socket where clients look for it; the emulated ones do not connect to it."""
    socket = state_of(host).path(CONTAINERD_SOCKET)
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    os.mknod(socket, stat.S_IFSOCK | 0o660)


async def _kubelet(host: LabHost, unit: Service) -> None:
    """Run the kubelet's process again and again, as its unit's Restart=always says."""
    state = state_of(host)
    restarts = 0
    while True:
        unit.turn("active")
        unit.pid = state.pid()
        host.log("kubelet", f"systemd[1]: Started {_TITLE}.")
        await _kubelet_once(host, unit)
        unit.exit_status = 1
        unit.turn("activating")
        host.log(
            "kubelet",
            "systemd[1]: kubelet.service: Main process exited, code=exited, status=1/FAILURE",
        )
        host.log("kubelet", "systemd[1]: kubelet.service: Failed with result 'exit-code'.")
        await host.sleep(_RESTART_SEC)
        restarts += 1
        host.log(
            "kubelet",
            "systemd[1]: kubelet.service: Scheduled restart job, "
            f"restart counter is at {restarts}.",
        )
        host.log("kubelet", f"systemd[1]: Stopped {_TITLE}.")


async def _kubelet_once(host: LabHost, unit: Service) -> None:
    """Run the kubelet's process once; returns when it has failed."""
    if not state_of(host).path(KUBELET_CONFIG).exists():
        reason = (
            f"failed to load Kubelet config file {KUBELET_CONFIG}, error failed to read kubelet "
            f'config file \\"{KUBELET_CONFIG}\\", error: open {KUBELET_CONFIG}: '
            "no such file or directory"
        )
        host.log(
            "kubelet",
            klog(
                "E",
                unit.pid,
                "server.go:206",
                f'"Failed to load kubelet config file" err="{reason}" path="{KUBELET_CONFIG}"',
            ),
        )
        return
    try:
        await kubelet.run_kubelet(host)
    except asyncio.CancelledError:
        raise
    except Exception as failed:  # a process that dies of anything is restarted by its unit
        host.log("kubelet", klog("E", unit.pid, "run.go:120", f'"command failed" err="{failed}"'))
