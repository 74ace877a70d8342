"""containerd's own command and configuration on a lab host: `containerd --version`, `config`."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.state import NodeState, state_of
from kitlib.software.toml import dumps

__all__ = ["containerd", "effective", "in_force", "write_package_config", "write_prepared_config"]

_CONFIG = "/etc/containerd/config.toml"
_CRI = "io.containerd.grpc.v1.cri"

_PACKAGE_CONFIG = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
"""
_PREPARED_CONFIG = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "k8s.gcr.io/pause:3.5"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
"""
_DEFAULT: dict[str, Any] = {
    "version": 2,
    "root": "/var/lib/containerd",
    "state": "/run/containerd",
    "disabled_plugins": [],
    "grpc": {"address": "/run/containerd/containerd.sock"},
    "plugins": {
        _CRI: {
            "sandbox_image": "registry.k8s.io/pause:3.6",
            "cni": {"bin_dir": "/usr/lib/cni", "conf_dir": "/etc/cni/net.d", "max_conf_num": 1},
            "containerd": {
                "snapshotter": "overlayfs",
                "default_runtime_name": "runc",
                "runtimes": {
                    "runc": {
                        "runtime_type": "io.containerd.runc.v2",
                        "options": {"SystemdCgroup": False},
                    }
                },
            },
        }
    },
}
"""What Debian's containerd 1.6 does without a file, as far as a node notices."""


def write_package_config(host: LabHost) -> None:
    """Write the configuration that the package brings, unless there is one."""
    if not state_of(host).path(_CONFIG).exists():
        _write(host, _PACKAGE_CONFIG)


def write_prepared_config(host: LabHost) -> None:
    """Write the configuration that the recorded hosts had, and bring it into force."""
    _write(host, _PREPARED_CONFIG)
    state = state_of(host)
    state.containerd_config = effective(state)


def _write(host: LabHost, text: str) -> None:
    file = state_of(host).path(_CONFIG)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def effective(state: NodeState) -> dict[str, Any]:
    """Return the defaults with the file laid over them.

    Raises:
        tomllib.TOMLDecodeError: The file is no TOML.
    """
    config = copy.deepcopy(_DEFAULT)
    file = state.path(_CONFIG)
    if file.exists():
        _lay(config, tomllib.loads(file.read_text()))
    if {"cri", _CRI} & set(config["disabled_plugins"]):
        del config["plugins"][_CRI]
    return config


def in_force(state: NodeState) -> dict[str, Any]:
    """Return the CRI plugin's configuration that the running containerd started with."""
    config = state.containerd_config or effective(state)
    found: dict[str, Any] = config["plugins"].get(_CRI, {})
    return found


def _lay(under: dict[str, Any], over: dict[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(name), dict):
            _lay(under[name], value)
        else:
            under[name] = value


async def containerd(host: LabHost, call: Call) -> int:
    """Run `containerd --version`, `containerd config dump` or `containerd config default`."""
    state, args = state_of(host), call.argv[1:]
    if args in (("--version",), ("-v",)):
        version = state.packages["containerd"].partition("-")[0]
        await call.out(f"containerd github.com/containerd/containerd {version} ")
        return 0
    if args not in (("config", "dump"), ("config", "default")):
        await call.err("containerd: the lab knows --version, config dump and config default")
        return 1
    try:
        shown = _DEFAULT if args == ("config", "default") else effective(state)
    except tomllib.TOMLDecodeError as wrong:
        await call.err(f'containerd: failed to load TOML from "{_CONFIG}": {wrong}')
        return 1
    for line in dumps(shown).splitlines():
        await call.out(line)
    return 0
