"""What `kit lab` can do, as functions: each returns data, and none of them prints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import yaml

from kitlib.errors import LabError
from kitlib.lab import control, sshclient
from kitlib.lab.faults import FAULTS, Fault
from kitlib.lab.lifecycle import IDENTITY, KNOWN_HOSTS, down, read_record, status, up
from kitlib.lab.spec import HostSpec, LabSpec, LabStatus, build_spec

__all__ = [
    "Fault",
    "LabSpec",
    "LabStatus",
    "break_",
    "build_spec",
    "down",
    "faults",
    "heal",
    "kubeconfig",
    "ssh",
    "status",
    "up",
]

_ADMIN_CONF = "/etc/kubernetes/admin.conf"


def ssh(state_dir: Path, host: str, command: str | None = None) -> int:
    """Return the exit status of a login shell (or a command) run on this process's own streams."""
    spec = _hosts(state_dir, host)[0]
    return asyncio.run(
        sshclient.session(spec.ssh_port, state_dir / IDENTITY, state_dir / KNOWN_HOSTS, command)
    )


def kubeconfig(state_dir: Path) -> str:
    """Return the administrator's kubeconfig of the lab's cluster, for use outside of the lab.

    It is a control plane's /etc/kubernetes/admin.conf with the address of the lab's way in.

    Raises:
        LabError: The lab does not run, or has no cluster.
    """
    specs = _hosts(state_dir, "")
    record = read_record(state_dir)
    for spec in (each for each in specs if each.role == "control_plane"):
        text = asyncio.run(
            sshclient.read(
                spec.ssh_port, state_dir / IDENTITY, state_dir / KNOWN_HOSTS, _ADMIN_CONF
            )
        )
        if text and record is not None:
            config = yaml.safe_load(text)
            config["clusters"][0]["cluster"] |= {
                "server": f"https://127.0.0.1:{record.api_port}",
                "tls-server-name": "kubernetes",  # the certificate's, whatever the address is
            }
            return yaml.safe_dump(config, sort_keys=False)
    raise LabError("lab: there is no cluster in it", remedy="kit build params/lab.yaml")


def faults() -> Mapping[str, Fault]:
    """Return every fault of the lab by name."""
    return FAULTS


def break_(state_dir: Path, fault: str, host: str = "") -> str:
    """Switch a fault on and return the name of the host that has it.

    Args:
        state_dir: The lab.
        fault: One of `faults()`.
        host: The host's name; empty takes the first host of the role that the fault is for.
    """
    _known(fault)
    hosts = _hosts(state_dir, host)
    named = [spec for spec in hosts if host or spec.role == FAULTS[fault].role]
    target = (named or hosts)[0].name
    _ask(state_dir, "break", fault, target)
    return target


def heal(state_dir: Path, fault: str = "", host: str = "") -> list[tuple[str, str]]:
    """Switch faults off and return those that were on, as (host, fault).

    Args:
        state_dir: The lab.
        fault: One of `faults()`; empty means all.
        host: The host's name; empty means every host.
    """
    if fault:
        _known(fault)
    wanted = {spec.name for spec in _hosts(state_dir, host)}
    healed = [
        (now.spec.name, name)
        for now in status(state_dir).hosts
        for name in now.faults
        if now.spec.name in wanted and fault in ("", name)
    ]
    for target, name in healed:
        _ask(state_dir, "heal", name, target)
    return healed


def _known(fault: str) -> None:
    if fault not in FAULTS:
        raise LabError(
            f"lab: no such fault: {fault}", remedy=f"there are: {', '.join(sorted(FAULTS))}"
        )


def _hosts(state_dir: Path, host: str) -> list[HostSpec]:
    """Return the hosts of the lab that runs, or the one that is named."""
    record = read_record(state_dir)
    if record is None or not status(state_dir).running:
        raise LabError("lab: not running", remedy="kit lab up")
    hosts = [spec for spec in record.spec.hosts if host in ("", spec.name)]
    if not hosts:
        names = ", ".join(spec.name for spec in record.spec.hosts)
        raise LabError(f"lab: no such host: {host}", remedy=f"there are: {names}")
    return hosts


def _ask(state_dir: Path, op: str, fault: str, host: str) -> None:
    record = read_record(state_dir)
    if record is None:
        raise LabError("lab: not running", remedy="kit lab up")
    control.ask(record.control, {"op": op, "fault": fault, "host": host})
