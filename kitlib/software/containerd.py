"""containerd's configuration: what a node needs of it, and how it is brought there.

The effective configuration (`containerd config dump`: defaults, the file, its imports) is read,
changed by structure and written back whole, so that registries, proxies and other runtimes that
somebody set stay as they are. A drop-in would be smaller, but only a file that imports it sees it,
and Debian's and Docker's do not. Format 2 (containerd 1.x) and 3 (2.x) keep things in different
sections: https://github.com/containerd/containerd/blob/main/docs/cri/config.md
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from kitlib.facts import HostFacts
from kitlib.plugins.schema import minor

__all__ = [
    "CNI_BIN",
    "CONFIG_FILE",
    "configured",
    "differences",
    "needs_containerd",
    "sandbox_image",
]

CONFIG_FILE = "/etc/containerd/config.toml"
CNI_BIN = "/opt/cni/bin"
"""Where kubernetes-cni and the plugins put their programs. Debian's containerd looks elsewhere."""

_PAUSE = {
    15: "3.1", 18: "3.2", 21: "3.4.1", 22: "3.5", 23: "3.6", 24: "3.7", 25: "3.8", 26: "3.9",
    31: "3.10", 34: "3.10.1", 36: "3.10.2",
}  # fmt: skip
"""First Kubernetes minor -> the tag of its sandbox image: PauseVersion in kubeadm's constants
(https://github.com/kubernetes/kubernetes, cmd/kubeadm/app/constants/constants.go, by release)."""

_CRI = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images",
        "io.containerd.cri.v1.runtime")  # fmt: skip
"""Names under which the CRI plugin can be disabled; Docker's package disables it."""

_V2 = ("plugins", "io.containerd.grpc.v1.cri")
_V3_RUNTIME = ("plugins", "io.containerd.cri.v1.runtime")
_V3_IMAGES = ("plugins", "io.containerd.cri.v1.images", "pinned_images")


def sandbox_image(kubernetes: str) -> str:
    """Return the sandbox image that kubeadm of a Kubernetes version expects."""
    _, number = minor(kubernetes)
    registry = "k8s.gcr.io" if number < 25 else "registry.k8s.io"
    return f"{registry}/pause:{_PAUSE[max(first for first in _PAUSE if first <= number)]}"


def needs_containerd(here: HostFacts) -> bool:
    """Return whether a host has no container runtime: then containerd is installed."""
    return not here.containerd.installed and here.runtime.ready is not True


def differences(config: Mapping[str, Any], kubernetes: str) -> tuple[str, ...]:
    """Return in what an effective configuration is not what a node needs, in words.

    Of the sandbox image only the tag counts: it may come from a registry of one's own.
    """
    found = []
    if set(config.get("disabled_plugins") or ()) & set(_CRI):
        found.append("its CRI plugin is disabled")
    new = config.get("version") == 3
    runtime = _at(config, _V3_RUNTIME if new else _V2)
    options = _at(runtime, ("containerd", "runtimes", "runc", "options"))
    if options.get("SystemdCgroup") is not True:
        found.append("SystemdCgroup is off")
    cni = _at(runtime, ("cni",))
    folders = cni.get("bin_dirs") or [cni.get("bin_dir") or CNI_BIN]
    if CNI_BIN not in folders:
        found.append(f"CNI programs are looked for in {', '.join(folders)}")
    image = _at(config, _V3_IMAGES).get("sandbox") if new else runtime.get("sandbox_image")
    wanted = sandbox_image(kubernetes)
    if str(image or "").rpartition(":")[2] != wanted.rpartition(":")[2]:
        found.append(f"the sandbox image is {image or 'not stated'}")
    return tuple(found)


def configured(
    config: Mapping[str, Any] | None, containerd: str, kubernetes: str
) -> dict[str, Any]:
    """Return the configuration with what a node needs.

    Args:
        config: The effective configuration; None where it cannot be read: a minimal one is made.
        containerd: containerd's version.
        kubernetes: The Kubernetes version.
    """
    known = config is not None and config.get("version") in (2, 3)
    data: dict[str, Any] = copy.deepcopy(dict(config)) if config is not None and known else {}
    data.setdefault("version", 3 if containerd.partition(".")[0] not in ("0", "1") else 2)
    # What was imported is in the effective configuration already, and would be laid over this.
    data.pop("imports", None)
    disabled = [name for name in data.get("disabled_plugins") or () if name not in _CRI]
    data["disabled_plugins"] = disabled
    new = data["version"] == 3
    runtime = _make(data, _V3_RUNTIME if new else _V2)
    runc = _make(runtime, ("containerd", "runtimes", "runc"))
    runc.setdefault("runtime_type", "io.containerd.runc.v2")
    _make(runc, ("options",))["SystemdCgroup"] = True
    cni = _make(runtime, ("cni",))
    if "bin_dirs" in cni:  # since containerd 2.1; the older key beside it is refused
        others = [folder for folder in cni["bin_dirs"] if folder != CNI_BIN]
        cni |= {"bin_dirs": [CNI_BIN, *others], "bin_dir": ""}
    else:
        cni["bin_dir"] = CNI_BIN
    holder, key = (_make(data, _V3_IMAGES), "sandbox") if new else (runtime, "sandbox_image")
    wanted = sandbox_image(kubernetes)
    if str(holder.get(key) or "").rpartition(":")[2] != wanted.rpartition(":")[2]:
        holder[key] = wanted
    return data


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for name in path:
        data = data.get(name) or {}
    return data


def _make(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        data = data.setdefault(name, {})
    return data
