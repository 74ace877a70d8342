"""The container runtime of a host: whether it runs, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kitlib.facts.sections import ABSENT, Section, command, json_of, lines_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "SOCKETS", "Runtime", "parse"]

SOCKETS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock")
"""Where container runtimes listen; kubeadm looks at the same places."""

# Of the whole configuration only what is judged: header lines say which runtime an option is of.
_CONTAINERD = (
    "awk '/^[ \\t]*\\[/ {head = $0}"
    " /^[ \\t]*SystemdCgroup/ && head ~ /runtimes\\..?runc.?\\.options/"
    ' {print "SystemdCgroup", $NF}'
    ' /^[ \\t]*disabled_plugins/ && /cri"|cri\\047/ {print "disabled cri"}\''
)

SCRIPT = "".join(
    (
        section("runtime.unit", "systemctl is-active containerd crio || :"),
        section("runtime.info", needs("crictl", "timeout 10 crictl info")),
        section(
            "runtime.sockets",
            f'for s in {" ".join(SOCKETS)}; do if [ -S "$s" ]; then echo "$s"; fi; done',
        ),
        section(
            "runtime.containerd",
            "{ timeout 5 containerd config dump 2>/dev/null"
            f" || cat /etc/containerd/config.toml 2>/dev/null; }} | {_CONTAINERD}",
        ),
        section(
            "runtime.crio-driver",
            "cat /etc/crio/crio.conf /etc/crio/crio.conf.d/*.conf 2>/dev/null"
            " | sed -n 's/^ *cgroup_manager *= *//p' | tail -n 1",
        ),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The container runtime.

    Attributes:
        unit: What systemd says of containerd: `active`, `inactive`, `failed`; empty when unknown.
        crio: The same of CRI-O.
        installed: Whether crictl is there to ask.
        ready: Whether the runtime says that it is ready; None when it did not answer.
        network_ready: Whether it has a network for pods; None when it did not answer.
        network_message: What it says about that.
        systemd_cgroup: Whether it leaves cgroups to systemd, by its own word or else by its
            configuration; None when neither says.
        cri_disabled: True when containerd's configuration switches its Kubernetes side off, as
            Docker's package does.
        sockets: The CRI sockets that there are; None when they could not be looked for.
        why: Why it did not answer; empty when it did.
    """

    unit: str
    crio: str
    installed: bool
    ready: bool | None
    network_ready: bool | None
    network_message: str
    systemd_cgroup: bool | None
    cri_disabled: bool
    sockets: tuple[str, ...] | None
    why: str

    @property
    def running(self) -> str:
        """The runtime that systemd says is running: `containerd`, `crio`; empty for none."""
        states = {"containerd": self.unit, "crio": self.crio}
        return next((name for name, state in states.items() if state == "active"), "")


def parse(text: str) -> Runtime:
    """Return the runtime's state, from what `COMMAND` printed.

    Raises:
        ParseError: crictl succeeded and printed something that is not JSON.
    """
    sections = split(text)
    answer = sections.get("runtime.info", ABSENT)
    info: dict[str, Any] = json_of(sections, "runtime.info") or {}
    conditions = {
        each.get("type"): each for each in info.get("status", {}).get("conditions", ()) or ()
    }
    ready, network = conditions.get("RuntimeReady", {}), conditions.get("NetworkReady", {})
    runtimes = info.get("config", {}).get("containerd", {}).get("runtimes") or {}
    options = (runtimes.get("runc") or {}).get("options") or {}
    written = lines_of(sections, "runtime.containerd") or ()
    # One word a unit, in the order asked for; where there is no systemd, a sentence.
    words = [line.split() for line in lines_of(sections, "runtime.unit") or ()]
    unit, crio, *_ = [*(each[0] for each in words if len(each) == 1), "", ""]
    return Runtime(
        unit=unit,
        crio=crio,
        installed=answer.status != 127,
        ready=ready.get("status"),
        network_ready=network.get("status"),
        network_message=network.get("message", ""),
        systemd_cgroup=options.get("SystemdCgroup", _driver(sections, written, crio)),
        cri_disabled="disabled cri" in written,
        sockets=lines_of(sections, "runtime.sockets"),
        why=answer.why,
    )


def _driver(sections: Mapping[str, Section], containerd: tuple[str, ...], crio: str) -> bool | None:
    """Return whether the configuration on disk leaves cgroups to systemd; None when unknown."""
    if crio == "active":
        # What CRI-O's files do not name is systemd.
        named = (lines_of(sections, "runtime.crio-driver") or ("systemd",))[0]
        return named.strip("\"'") == "systemd"
    said = [line.split()[1] for line in containerd if line.startswith("SystemdCgroup ")]
    return said[-1] == "true" if said else None
