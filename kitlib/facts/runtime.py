"""The container runtime of a host: whether it runs, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kitlib.facts.sections import ABSENT, command, json_of, lines_of, needs, section, split

__all__ = ["COMMAND", "SCRIPT", "Runtime", "parse"]

SCRIPT = "".join(
    (
        section("runtime.unit", "systemctl is-active containerd || :"),
        section("runtime.info", needs("crictl", "timeout 10 crictl info")),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The container runtime.

    Attributes:
        unit: What systemd says of containerd: `active`, `inactive`, `failed`; empty when unknown.
        installed: Whether crictl is there to ask.
        ready: Whether the runtime says that it is ready; None when it did not answer.
        network_ready: Whether it has a network for pods; None when it did not answer.
        network_message: What it says about that.
        systemd_cgroup: Whether it leaves cgroups to systemd; None when it did not say.
        why: Why it did not answer; empty when it did.
    """

    unit: str
    installed: bool
    ready: bool | None
    network_ready: bool | None
    network_message: str
    systemd_cgroup: bool | None
    why: str


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
    words = (lines_of(sections, "runtime.unit") or ("",))[0].split()
    return Runtime(
        unit=words[0] if len(words) == 1 else "",
        installed=answer.status != 127,
        ready=ready.get("status"),
        network_ready=network.get("status"),
        network_message=network.get("message", ""),
        systemd_cgroup=options.get("SystemdCgroup"),
        why=answer.why,
    )
