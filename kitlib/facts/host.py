"""Who a host is: names, identities, size, clock, and whether it is a lab host."""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.facts.clock import seconds
from kitlib.facts.sections import command, lines_of, section, split

__all__ = ["COMMAND", "SCRIPT", "HostIdentity", "parse"]

SCRIPT = "".join(
    (
        section("host.clock", "date +%s.%N"),
        section("host.uid", "id -u"),
        section("host.hostname", "hostname || cat /proc/sys/kernel/hostname"),
        section("host.kernel", "uname -rm"),
        section("host.os", "cat /etc/os-release"),
        section("host.lab", "if [ -e /etc/lab-release ]; then cat /etc/lab-release; fi"),
        section("host.machine-id", "cat /etc/machine-id"),
        # Where there is no DMI, as the kubelet looks for it.
        section(
            "host.product-uuid",
            "for f in /sys/class/dmi/id/product_uuid /proc/device-tree/system-id"
            " /proc/device-tree/vm,uuid /sys/class/dmi/id/product_uuid; do"
            ' if [ -e "$f" ]; then break; fi; done; tr -d "\\000" <"$f"',
        ),
        section("host.cpus", "nproc"),
        section("host.memory", "grep -E '^MemTotal:' /proc/meminfo"),
        section("host.disk", "df -Pk /var/lib"),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who one host is; None stands for what could not be read.

    Attributes:
        clock: Its time, seconds since 1970.
        uid: The user that commands run as.
        hostname: Its host name.
        kernel: Kernel release.
        arch: Machine architecture (`x86_64`).
        os_id: `ID` of os-release (`debian`).
        os_like: `ID_LIKE` of os-release: the systems that it descends from.
        os_version: `VERSION_ID` of os-release (`12`).
        os_name: `PRETTY_NAME` of os-release.
        lab: The text of /etc/lab-release; empty on a real host.
        machine_id: systemd's machine id.
        product_uuid: The firmware's UUID; readable by root alone.
        cpus: Usable processors.
        memory: Bytes of memory.
        disk_free: Free bytes under /var/lib.
        disk_size: Bytes of the file system that /var/lib is on.
    """

    clock: float | None
    uid: int | None
    hostname: str | None
    kernel: str | None
    arch: str | None
    os_id: str
    os_like: tuple[str, ...]
    os_version: str
    os_name: str
    lab: str
    machine_id: str | None
    product_uuid: str | None
    cpus: int | None
    memory: int | None
    disk_free: int | None
    disk_size: int | None

    @property
    def stands_in(self) -> str:
        """What stands in for what in the pods' datapath; empty where nothing does."""
        return _release(tuple(self.lab.splitlines())).get("DATAPATH", "")

    @property
    def packager(self) -> str:
        """What installs packages there: `apt`, `dnf`, or empty for neither."""
        kin = {self.os_id, *self.os_like}
        if kin & {"debian", "ubuntu"}:
            return "apt"
        return "dnf" if kin & {"rhel", "fedora", "centos"} else ""


def parse(text: str) -> HostIdentity:
    """Return who the host is, from what `COMMAND` printed."""
    sections = split(text)

    def first(name: str) -> str | None:
        lines = lines_of(sections, name)
        return lines[0].strip() if lines else None

    release = _release(lines_of(sections, "host.os") or ())
    kernel, _, arch = (first("host.kernel") or "").partition(" ")
    disk = (lines_of(sections, "host.disk") or ("",))[-1].split()
    memory = (first("host.memory") or "").split()
    free = _whole(disk[3]) if len(disk) > 3 else None
    size = _whole(disk[1]) if len(disk) > 3 else None
    kilobytes = _whole(memory[1]) if len(memory) > 1 else None
    return HostIdentity(
        clock=seconds(first("host.clock")),
        uid=_whole(first("host.uid")),
        hostname=first("host.hostname"),
        kernel=kernel or None,
        arch=arch or None,
        os_id=release.get("ID", ""),
        os_like=tuple(release.get("ID_LIKE", "").split()),
        os_version=release.get("VERSION_ID", ""),
        os_name=release.get("PRETTY_NAME", ""),
        lab="\n".join(lines_of(sections, "host.lab") or ()),
        machine_id=first("host.machine-id"),
        product_uuid=(first("host.product-uuid") or "").lower() or None,
        cpus=_whole(first("host.cpus")),
        memory=None if kilobytes is None else kilobytes * 1024,
        disk_free=None if free is None else free * 1024,
        disk_size=None if size is None else size * 1024,
    )


def _release(lines: tuple[str, ...]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
