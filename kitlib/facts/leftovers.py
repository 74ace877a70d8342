"""What network plugins and kube-proxy left on a host besides devices and CNI files."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from kitlib.facts.sections import lines_of, needs, section, split
from kitlib.plugins import Catalogue

__all__ = ["FLAVOURS", "HOST_NETWORK", "Leftovers", "parse", "script"]

FLAVOURS = "iptables ip6tables iptables-legacy ip6tables-legacy iptables-nft ip6tables-nft"
"""Every name that iptables may have: what a cluster left can be in either of its flavours."""
_SAVED = (
    f"for s in {FLAVOURS}; do if command -v $s-save >/dev/null; then $s-save; fi; done 2>/dev/null"
)
_UNITS = "/etc/systemd/system"
HOST_NETWORK = "/etc/kubekit/host-network.sh"
"""Puts a host's own address back where a plugin moved it; kept as long as the plugin is there."""


def script(known: Catalogue) -> str:
    """Return the script that looks for what these plugins leave."""
    paths = " ".join(known.leftover_paths)
    programs = " ".join(p for p in known.leftover_paths if p.startswith("/opt/cni/bin/"))
    comments = " ".join(f"-e {quote(text)}" for text in known.leftover_comments)
    return "".join(
        (
            section(
                "leftovers.paths",
                f'for f in {paths}; do if [ -e "$f" ]; then echo "$f"; fi; done',
            ),
            section(
                "leftovers.chains",
                needs(
                    "iptables-save",
                    f"{_SAVED} | sed -n -E 's/^:([^ ]+) .*/\\1/p' | sort -u",
                ),
            ),
            section(
                "leftovers.packaged",
                f'for f in {programs}; do if [ -e "$f" ] && '
                '{ dpkg -S "$f" || rpm -qf "$f"; } >/dev/null 2>&1; then echo "$f"; fi; done',
            ),
            section("leftovers.bridges", needs("ovs-vsctl", "ovs-vsctl --timeout=5 list-br")),
            section(
                "leftovers.comments",
                needs(
                    "iptables-save",
                    f"{_SAVED} | grep -oF {comments} | sort -u",
                ),
            ),
            section(
                "leftovers.units",
                f"if [ -d {_UNITS} ]; then ls -1 {_UNITS} | sed -n '/^kubekit-.*\\.service$/p'; fi",
            ),
            section("leftovers.network", f"ls -1 {HOST_NETWORK} 2>/dev/null || true"),
            section("leftovers.nft", needs("nft", "nft list tables")),
            section("leftovers.ipsets", needs("ipset", "ipset list -n")),
            section(
                "leftovers.rules",
                needs(
                    "ip",
                    "for f in -4 -6; do ip $f rule show; done 2>/dev/null"
                    " | sed -n 's/.* lookup \\([^ ]*\\).*/\\1/p' | sort -u",
                ),
            ),
            section("leftovers.ipvs", needs("ipvsadm", "ipvsadm -Sn | sed -n 's/^-A/-A/p'")),
            section("leftovers.kubeconfig", "ls -1 /root/.kube/config 2>/dev/null || true"),
        )
    )


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Traces of network plugins; None stands for what could not be read.

    Attributes:
        paths: Known plugins' files and directories that exist.
        chains: iptables chains of every table, of IPv4 and IPv6, in both of iptables' flavours.
        nft_tables: nftables tables, by name.
        ipsets: ipsets, by name.
        route_tables: Routing tables that a rule leads to, by number or name.
        ipvs: The kernel's virtual services, as ipvsadm writes them.
        kubeconfig: root's own kubeconfig, where there is one.
        comments: Known plugins' comments that iptables rules carry, in any table and flavour.
        units: The kit's own systemd units.
        packaged: Known plugins' programs that a package of the system brought.
        ovs_bridges: Open vSwitch bridges, by name.
        host_network: The program that puts the host's own address back, where the kit wrote it.
    """

    paths: tuple[str, ...]
    chains: tuple[str, ...] | None
    nft_tables: tuple[str, ...] | None
    ipsets: tuple[str, ...] | None = None
    route_tables: tuple[str, ...] | None = None
    ipvs: tuple[str, ...] | None = None
    kubeconfig: str = ""
    comments: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    packaged: tuple[str, ...] | None = None
    ovs_bridges: tuple[str, ...] | None = None
    host_network: str = ""


def parse(text: str) -> Leftovers:
    """Return the traces, from what the script printed."""
    sections = split(text)
    tables = lines_of(sections, "leftovers.nft")
    return Leftovers(
        paths=lines_of(sections, "leftovers.paths") or (),
        chains=lines_of(sections, "leftovers.chains"),
        nft_tables=None if tables is None else tuple(line.split()[-1] for line in tables),
        ipsets=lines_of(sections, "leftovers.ipsets"),
        route_tables=lines_of(sections, "leftovers.rules"),
        ipvs=lines_of(sections, "leftovers.ipvs"),
        kubeconfig=next(iter(lines_of(sections, "leftovers.kubeconfig") or ()), ""),
        comments=lines_of(sections, "leftovers.comments"),
        units=lines_of(sections, "leftovers.units"),
        packaged=lines_of(sections, "leftovers.packaged"),
        ovs_bridges=lines_of(sections, "leftovers.bridges"),
        host_network=next(iter(lines_of(sections, "leftovers.network") or ()), ""),
    )
