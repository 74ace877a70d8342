"""What networks leave on a host, each trace by name, and what removes it.

The reset stage looks for every known plugin's traces, and for kube-proxy's; the removal of one
plugin from a cluster that goes on looks for that plugin's alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from ipaddress import IPv4Network

from kitlib.command import Cmd, script
from kitlib.facts import HostFacts, Route
from kitlib.facts.leftovers import FLAVOURS
from kitlib.plugins import Catalogue, Plugin
from kitlib.plugins.schema import matches
from kitlib.software import way_back
from kitlib.software.units import remove_units, unit_name
from kitlib.stages.base import Action

__all__ = ["CNI_DIRECTORY", "Whose", "removals"]

CNI_DIRECTORY = "/etc/cni/net.d"
KUBE_IPVS = "kube-ipvs0"
"""The device on which kube-proxy keeps the Services' addresses in its IPVS mode."""
PROGRAMS = "/opt/cni/bin/"


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose traces are looked for.

    Attributes:
        plugin: The one plugin; None for every known one and kube-proxy.
        pods: The pod network, in which every route is a cluster's; None where it is not known.
        peers: The nodes' addresses; routes by way of them are what a plugin left.
    """

    plugin: Plugin | None
    pods: IPv4Network | None
    peers: frozenset[str]


def removals(name: str, here: HostFacts, whose: Whose) -> list[Action]:
    """Return what removes the traces from a host, in an order in which none comes back.

    Args:
        name: The host.
        here: What is true on it.
        whose: Whose traces.
    """
    devices = _devices(here, whose)
    parts = (
        _units(name, here, whose),
        _own_network(name, here, whose),
        _files(name, here, whose),
        _renamed(name, here, whose),
        _ipvs(name, here, whose),
        _bridges(name, here, whose),
        _delete_devices(name, devices),
        _routes(name, here, whose, devices),
        _paths(name, here, whose),
        _tables(name, here, whose),
        _chains(name, here, whose),
        _comments(name, here, whose),
        _ipsets(name, here, whose),
        _rules(name, here, whose),
    )
    return [action for action in parts if action is not None]


def _units(name: str, here: HostFacts, whose: Whose) -> Action | None:
    """Return the end of the kit's own units, which would bring back what they keep."""
    units = here.leftovers.units or ()
    if whose.plugin is not None:
        own = {f"{unit_name(whose.plugin.name)}.service"}
        own |= {way_back.UNIT} if whose.plugin.hazards.moves_host_address else set()
        units = tuple(unit for unit in units if unit in own)
    if not units:
        return None
    what = f"stop and remove the kit's units: {', '.join(units)}"
    return Action(name, what, remove_units(*units))


def _own_network(name: str, here: HostFacts, whose: Whose) -> Action | None:
    """Return the way back of the host's own address, before what a plugin moved it to goes."""
    program = here.leftovers.host_network
    moves = whose.plugin is None or whose.plugin.hazards.moves_host_address
    if not program or not moves:
        return None
    command = script(
        'sh "$1" && rm -f "$@"',
        program,
        way_back.BOOT,
        way_back.FIRED,
        mutates=True,
        label=f"sh {program}",
    )
    what = "put the host's own address and routes back where they were before the plugin came"
    return Action(name, what, command)


def _files(name: str, here: HostFacts, whose: Whose) -> Action | None:
    texts = {file.name: file.text for file in here.cni.files}
    # A plugin's credentials lie there too; they are no configuration, and so not in the list.
    names = [*texts, *(n for n in here.cni.names or () if n not in texts)]
    if whose.plugin is None:
        files = [
            n
            for n in names
            if n in texts or here.known.owner_of_cni_file(n) or _original(n, here.known)
        ]
    else:
        plugin = whose.plugin
        files = [
            n
            for n in names
            if plugin.owns_cni_file(n)
            or here.known.owner_of_cni_file(n, texts.get(n, "")) == plugin.name
        ]
    if not files:
        return None
    paths = [f"{CNI_DIRECTORY}/{file}" for file in files]
    what = f"remove the CNI configuration that was left: {', '.join(files)}"
    return Action(name, what, Cmd.change("rm", "-rf", *paths))


def _renamed(name: str, here: HostFacts, whose: Whose) -> Action | None:
    """Return the way back of files that the plugin renamed, where they are the host's own."""
    suffixes = whose.plugin.leftovers.renamed_suffixes if whose.plugin else ()
    names = {
        each: each.removesuffix(suffix)
        for suffix in suffixes
        for each in here.cni.names or ()
        if each.endswith(suffix)
    }
    if not names:
        return None
    others = [each for each, before in names.items() if here.known.owner_of_cni_file(before)]
    moved = {each: before for each, before in names.items() if each not in others}
    command = script(
        'cd "$1" && shift && while [ $# -gt 0 ]; do'
        ' if [ -n "$2" ]; then mv -- "$1" "$2" || exit 1; else rm -f -- "$1"; fi; shift 2; done',
        CNI_DIRECTORY,
        *(word for pair in moved.items() for word in pair),
        *(word for each in others for word in (each, "")),
        mutates=True,
    )
    told = [f"give their names back to {', '.join(moved.values())}"] if moved else []
    told += [f"remove {', '.join(others)} of an earlier plugin"] if others else []
    return Action(name, "; ".join(told), command)


def _original(name: str, known: Catalogue) -> str:
    """Return the name that a file had before a plugin renamed it; empty for one that none did."""
    return next((name.removesuffix(s) for s in known.renamed_suffixes if name.endswith(s)), "")


def _devices(here: HostFacts, whose: Whose) -> list[str]:
    names = [link.name for link in here.links or ()]
    plugin = whose.plugin
    if plugin is not None:
        own = (*plugin.interfaces.owned, *plugin.leftovers.interfaces)
        return [device for device in names if matches(device, own)]
    return [
        device for device in names if here.known.owner_of_interface(device) or device == KUBE_IPVS
    ]


def _delete_devices(name: str, devices: Sequence[str]) -> Action | None:
    if not devices:
        return None
    what = f"delete the interfaces that were left: {', '.join(devices)}"
    # A device may be gone with its peer or its bridge by the time its turn comes.
    command = script(
        'for d in "$@"; do if [ -e "/sys/class/net/$d" ]; then ip link delete "$d"; fi; done',
        *devices,
        mutates=True,
    )
    return Action(name, what, command)


def _bridges(name: str, here: HostFacts, whose: Whose) -> Action | None:
    known = whose.plugin.leftovers.ovs_bridges if whose.plugin else here.known.leftover_bridges
    left = [bridge for bridge in here.leftovers.ovs_bridges or () if matches(bridge, known)]
    if not left:
        return None
    command = script(
        'for b in "$@"; do ovs-vsctl --if-exists del-br "$b" || exit 1; done', *left, mutates=True
    )
    return Action(
        name, f"delete the Open vSwitch bridges that were left: {', '.join(left)}", command
    )


def _routes(name: str, here: HostFacts, whose: Whose, devices: Sequence[str]) -> Action | None:
    """Return the removal of a dead network's routes: the next plugin shares out anew.

    Routes through a plugin's own device are gone with the device.
    """
    protocols = here.known.leftover_route_protocols
    if whose.plugin is not None:
        protocols = whose.plugin.leftovers.route_protocols
    left = [r.destination for r in here.routes or () if _is_dead(r, whose, devices, protocols)]
    if not left:
        return None
    # A route may be gone with its pod by the time its turn comes.
    command = script(
        'for r in "$@"; do if [ -n "$(ip route show "$r")" ]; then ip route delete "$r" || exit 1;'
        " fi; done",
        *left,
        mutates=True,
    )
    return Action(name, f"delete the routes that were left: {', '.join(left)}", command)


def _is_dead(route: Route, whose: Whose, devices: Sequence[str], protocols: Sequence[str]) -> bool:
    if route.destination == "default" or route.device in devices:
        return False
    if route.gateway in whose.peers:
        return True
    if route.kind == "blackhole" and route.protocol in protocols:
        return True
    inside = whose.pods is not None and IPv4Network(route.destination).subnet_of(whose.pods)
    return inside and route.protocol != "kernel"


def _paths(name: str, here: HostFacts, whose: Whose) -> Action | None:
    packaged = here.leftovers.packaged

    def goes(path: str) -> bool:
        if path.startswith(f"{CNI_DIRECTORY}/"):
            return False
        if whose.plugin is not None and not _among(path, _paths_of(whose.plugin)):
            return False
        # A program may belong to the kubernetes-cni package as well: then it stays.
        return not path.startswith(PROGRAMS) or (packaged is not None and path not in packaged)

    paths = [path for path in here.leftovers.paths if goes(path)]
    if not paths:
        return None
    what = f"remove what a plugin left: {', '.join(paths)}"
    return Action(name, what, Cmd.change("rm", "-rf", *paths))


def _paths_of(plugin: Plugin) -> tuple[str, ...]:
    return (*plugin.leftovers.paths, *plugin.written_paths)


def _among(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _tables(name: str, here: HostFacts, whose: Whose) -> Action | None:
    plugins = [whose.plugin] if whose.plugin else list(here.known.values())
    known = {table for plugin in plugins for table in plugin.leftovers.nft_tables}
    known |= {unit_name(plugin.name) for plugin in plugins if plugin.per_node}
    known |= set() if whose.plugin else {"kube-proxy"}
    tables = sorted(known & set(here.leftovers.nft_tables or ()))
    if not tables:
        return None
    command = script(
        'nft list tables | while read -r _ family table; do for t in "$@"; do'
        ' if [ "$t" = "$table" ]; then nft delete table "$family" "$t" || exit 1; fi;'
        " done; done",
        *tables,
        mutates=True,
    )
    return Action(name, f"delete nftables tables: {', '.join(tables)}", command)


_DELETE_CHAINS = r"""
/^\*/ { print; n = 0; next }
/^:/ { c = substr($1, 2); if (c ~ own) { print ":" c " - [0:0]"; chains[n++] = c } next }
/^-A / {
  if ($2 ~ own) next
  for (i = 3; i < NF; i++) if (($i == "-j" || $i == "-g") && $(i + 1) ~ own) {
    sub(/^-A/, "-D"); print; next
  }
  next
}
/^COMMIT/ { for (i = 0; i < n; i++) print "-X " chains[i]; print }
"""
"""Of what iptables-save prints, what takes away chains (emptied first) and the rules that lead to
them. Everything else is not named in it, and so stays as it is, whoever changes it meanwhile."""

_DELETE_BY_COMMENT = r"""
/^(\*|COMMIT)/ { print }
/^-A / && index($0, comment) { sub(/^-A/, "-D"); print }
"""


def _chains(name: str, here: HostFacts, whose: Whose) -> Action | None:
    patterns = ("KUBE-*", "CNI-*", *here.known.leftover_chains)
    if whose.plugin is not None:
        patterns = whose.plugin.leftovers.iptables_chains
    chains = [chain for chain in here.leftovers.chains or () if matches(chain, patterns)]
    if not chains:
        return None
    own = "|".join(each.replace(".", "[.]").replace("*", ".*") for each in patterns)
    command = script(
        f"for s in {FLAVOURS}; do if command -v $s-save >/dev/null; then"
        ' r=$($s-save 2>/dev/null); if printf "%s\\n" "$r" | cut -d" " -f1 | grep -qE ":$1$"; then'
        ' printf "%s\\n" "$r" | awk -v own="^$1\\$" "$2" | $s-restore --noflush || exit 1;'
        " fi; fi; done",
        f"({own})",
        _DELETE_CHAINS,
        mutates=True,
        label=f"remove {len(chains)} iptables chains",
    )
    return Action(name, f"remove {len(chains)} iptables chains of earlier networks", command)


def _comments(name: str, here: HostFacts, whose: Whose) -> Action | None:
    """Return the removal of single rules in chains that others use too, by their comment."""
    left = here.leftovers.comments or ()
    if whose.plugin is not None:
        left = tuple(comment for comment in left if comment in whose.plugin.rule_comments)
    if not left:
        return None
    command = script(
        f"for s in {FLAVOURS}; do if command -v $s-save >/dev/null; then a=$1; shift;"
        ' for c in "$@"; do r=$($s-save 2>/dev/null);'
        ' if printf "%s\\n" "$r" | grep -qF -e "$c"; then'
        ' printf "%s\\n" "$r" | awk -v comment="$c" "$a" | $s-restore --noflush || exit 1;'
        ' fi; done; set -- "$a" "$@"; fi; done',
        _DELETE_BY_COMMENT,
        *left,
        mutates=True,
        label="delete iptables rules by their comments",
    )
    return Action(name, f"delete the iptables rules that were left: {', '.join(left)}", command)


def _ipsets(name: str, here: HostFacts, whose: Whose) -> Action | None:
    """Return the removal of ipsets; it comes after the chains, whose rules use them."""
    patterns = (
        whose.plugin.leftovers.ipsets if whose.plugin else ("KUBE-*", *here.known.leftover_ipsets)
    )
    left = [each for each in here.leftovers.ipsets or () if matches(each, patterns)]
    if not left:
        return None
    # A set of sets holds its members, so all are emptied before any goes.
    command = script(
        'for s in "$@"; do ipset flush "$s" || exit 1; done;'
        ' for s in "$@"; do ipset destroy "$s" || exit 1; done',
        *left,
        mutates=True,
    )
    return Action(name, f"destroy the ipsets that were left: {', '.join(left)}", command)


def _rules(name: str, here: HostFacts, whose: Whose) -> Action | None:
    known = (
        whose.plugin.leftovers.route_tables if whose.plugin else here.known.leftover_route_tables
    )
    left = [table for table in here.leftovers.route_tables or () if table in known]
    if not left:
        return None
    command = script(
        'for t in "$@"; do for f in -4 -6; do'
        ' while ip $f rule delete lookup "$t" 2>/dev/null; do :; done;'
        ' ip $f route flush table "$t" 2>/dev/null; done; done; true',
        *left,
        mutates=True,
    )
    return Action(name, f"delete the routing tables that were left: {', '.join(left)}", command)


def _ipvs(name: str, here: HostFacts, whose: Whose) -> Action | None:
    """Return the removal of virtual services, where a device says that they are a cluster's.

    They have no names, and other software balances load with IPVS too; kube-proxy, for one, which
    stays where a plugin alone goes.
    """
    devices = {link.name for link in here.links or ()} & {KUBE_IPVS, "kube-dummy-if"}
    if not here.leftovers.ipvs or not devices or whose.plugin is not None:
        return None
    what = f"clear {len(here.leftovers.ipvs)} IPVS services that were left"
    return Action(name, what, Cmd.change("ipvsadm", "--clear"))
