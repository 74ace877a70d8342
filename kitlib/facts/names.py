"""How a host resolves names: its own, and which servers it asks."""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.facts.sections import command, lines_of, section, split

__all__ = ["COMMAND", "SCRIPT", "Names", "parse"]

SCRIPT = "".join(
    (
        section(
            "names.own",
            "name=$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname);"
            ' if command -v getent >/dev/null; then timeout 3 getent ahosts "$name"'
            ' || [ $? -eq 2 ]; else nslookup "$name"; fi',
        ),
        section("names.servers", "sed -n 's/^ *nameserver  *//p' /etc/resolv.conf"),
        section(
            "names.resolved",
            "if grep -qE '^ *nameserver +(127[.]|::1)' /etc/resolv.conf; then"
            " systemctl is-active systemd-resolved || :; else echo 'not asked'; fi",
        ),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Names:
    """Name resolution of one host; None stands for what could not be read.

    Attributes:
        own: The addresses that the host's own name resolves to, in order; empty for none.
        servers: The name servers of /etc/resolv.conf.
        resolved: Whether systemd-resolved runs, behind a server on the host itself: kubeadm then
            gives the kubelet the real servers.
    """

    own: tuple[str, ...] | None
    servers: tuple[str, ...] | None
    resolved: bool


def parse(text: str) -> Names:
    """Return how names are resolved, from what `COMMAND` printed."""
    sections = split(text)
    lines = lines_of(sections, "names.own")
    servers = lines_of(sections, "names.servers")
    state = (lines_of(sections, "names.resolved") or ("",))[0]
    return Names(
        own=None if lines is None else tuple(dict.fromkeys(_addresses(lines))),
        servers=None if servers is None else tuple(line.split()[0] for line in servers),
        resolved=state.strip() == "active",
    )


def _addresses(lines: tuple[str, ...]) -> list[str]:
    """Return the addresses of `getent ahosts`, or of the answer part of `nslookup` (BusyBox)."""
    named = next((at for at, line in enumerate(lines) if line.startswith("Name:")), None)
    if named is None:
        return [line.split()[0] for line in lines if line[0] in "0123456789abcdef:"]
    found = []
    for line in lines[named:]:
        head, _, rest = line.partition(":")
        if head.rstrip(" 0123456789") == "Address" and rest.strip():
            found.append(rest.split()[0])
    return found
