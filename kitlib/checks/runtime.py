"""Whether a host's container runtime is fit for a kubelet: it answers, alone, and uses systemd."""

from __future__ import annotations

from kitlib.checks.judging import judged, skipped
from kitlib.facts import HostFacts
from kitlib.model import Check, Status

__all__ = ["runtime"]

_CONFIG = "/etc/containerd/config.toml"
_ANEW = f"mkdir -p /etc/containerd && containerd config default > {_CONFIG}"
_SYSTEMD = f"sed -i 's/SystemdCgroup = false/SystemdCgroup = true/' {_CONFIG}"
_RESTART = "systemctl restart containerd"


def runtime(name: str, facts: HostFacts) -> list[Check]:
    """Return the checks of one host's container runtime.

    Args:
        name: The host's name.
        facts: Its facts.
    """
    found = facts.runtime
    if not found.running and not found.installed and not found.unit.startswith("activ"):
        none = "none yet; the packages stage installs it"
        return [skipped("preflight.runtime", name, "the container runtime answers", none)]
    return [_answers(name, facts), _socket(name, facts), _driver(name, facts)]


def _answers(name: str, facts: HostFacts) -> Check:
    found, summary = facts.runtime, "the container runtime answers"
    if found.cri_disabled and found.ready is not True:
        return judged(
            Status.FAIL,
            "preflight.runtime",
            name,
            summary,
            got=f'disabled_plugins = ["cri"] in {_CONFIG}: it runs containers for Docker alone',
            expected="the cri plugin on",
            remedy=f"{_ANEW} && {_SYSTEMD} && {_RESTART}",
        )
    # Without crictl nobody was asked: that systemd runs it must do until there is one.
    ok = found.ready is True or bool(found.running and not found.installed)
    unit = found.running or ("crio" if found.crio == "failed" else "containerd")
    shown = found.crio if unit == "crio" else found.unit
    return judged(
        Status.PASS if ok else Status.FAIL,
        "preflight.runtime",
        name,
        summary,
        got=f"{unit} is ready" if ok else f"{unit} {shown or 'unknown'}: {_why(facts)}",
        expected="ready",
        remedy=f"systemctl restart {unit}; if it does not help: journalctl -u {unit} -n 50",
    )


def _why(facts: HostFacts) -> str:
    return facts.runtime.why or "not ready"


def _socket(name: str, facts: HostFacts) -> Check:
    which, summary = "preflight.cri-socket", "kubeadm finds one CRI socket"
    found = facts.runtime
    if found.sockets is None:
        return skipped(which, name, summary, "unknown")
    if not found.sockets and not found.running:
        return skipped(which, name, summary, "none while the runtime is down")
    return judged(
        Status.PASS if len(found.sockets) == 1 else Status.FAIL,
        which,
        name,
        summary,
        got=", ".join(found.sockets) or f"none, although {found.running} runs",
        expected="one; with several kubeadm does not choose",
        remedy="stop and disable the runtime that is not to be used, then remove its socket: "
        + "; ".join(f"systemctl disable --now {_unit(each)}" for each in found.sockets[1:])
        if found.sockets
        else f"systemctl restart {found.running}",
    )


def _unit(socket: str) -> str:
    units = {"containerd": "containerd", "crio": "crio", "cri-dockerd": "cri-docker.socket"}
    return next(unit for word, unit in units.items() if f"{word}.sock" in socket)


def _driver(name: str, facts: HostFacts) -> Check:
    which, summary = "preflight.cgroup-driver", "the runtime leaves control groups to systemd"
    systemd = facts.runtime.systemd_cgroup
    if systemd is None:
        return skipped(which, name, summary, "it does not say")
    crio = facts.runtime.running == "crio"
    set_it = (
        'printf \'[crio.runtime]\\ncgroup_manager = "systemd"\\nconmon_cgroup = "pod"\\n\''
        " > /etc/crio/crio.conf.d/02-cgroup-manager.conf && systemctl restart crio"
    )
    return judged(
        Status.PASS if systemd else Status.FAIL,
        which,
        name,
        summary,
        got="systemd" if systemd else "cgroupfs",
        expected="systemd, as kubeadm sets the kubelet: two managers of one tree kill pods",
        remedy=set_it
        if crio
        else f"grep -q 'SystemdCgroup = false' {_CONFIG} || {{ {_ANEW}; }}; "
        f"{_SYSTEMD} && {_RESTART}",
    )
