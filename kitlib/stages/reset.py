"""Stage 2: hosts that hold something else than the wanted cluster become clean hosts.

`kubeadm reset` keeps the CNI configuration, the plugin's interfaces and its rules; a cluster built
over them turns Ready and does not work. So this stage removes those too, each one by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from kitlib.command import Cmd, script
from kitlib.errors import PreconditionError
from kitlib.facts import HostFacts
from kitlib.facts.leftovers import FLAVOURS
from kitlib.model import Check, Status
from kitlib.plugins import (
    catalogue,
    leftover_chains,
    leftover_ipsets,
    leftover_route_tables,
    owner_of_cni_file,
    owner_of_interface,
)
from kitlib.plugins.schema import matches
from kitlib.software.units import remove_units, unit_name
from kitlib.stages import without_kubeadm
from kitlib.stages.base import Action, Context, Plan, Stage
from kitlib.stages.etcd import first_loss, members
from kitlib.stages.situation import Situation, guard, judge

__all__ = ["Reset", "host_actions", "kubeconfig_check", "leftovers"]

CNI_DIRECTORY = "/etc/cni/net.d"
KUBE_IPVS = "kube-ipvs0"
"""The device on which kube-proxy keeps the Services' addresses in its IPVS mode."""


class Reset(Stage):
    """`kubeadm reset` and what it leaves, on every host that holds something to reset."""

    name = "reset"
    title = "Reset hosts that hold anything but the wanted cluster"

    def plan(self, ctx: Context) -> Plan:
        """Return the resets and clean-ups; none where the wanted cluster stands or hosts are clean.

        Raises:
            GuardError: A living cluster would be destroyed that the parameters do not name.
            PreconditionError: A control plane of the wanted cluster has to be reset, and etcd
                would lose its majority by it.
        """
        situation = judge(ctx)
        guard(ctx, situation)
        _keep_quorum(ctx, situation)
        actions: list[Action] = []
        peers = {host.node_address for host in ctx.hosts}
        for host in ctx.hosts:
            actions += host_actions(host.name, situation, peers)
        kept = "the wanted cluster stands" if situation.wanted else "the hosts are clean"
        return Plan(tuple(actions), "" if actions else f"nothing to reset: {kept}")

    def turns(self, ctx: Context, targets: Sequence[str]) -> list[list[str]]:
        """Return the workers side by side, then each control plane by itself, the last one first.

        Each takes its own member out of etcd, which one at a time can follow.
        """
        planes = [host.name for host in ctx.control_planes if host.name in targets]
        workers = [name for name in targets if name not in planes]
        return [workers, *([name] for name in reversed(planes))]

    def check(self, ctx: Context) -> list[Check]:
        """Return for each host that nothing is left that does not belong to the wanted cluster."""
        situation = judge(ctx)
        peers = {host.node_address for host in ctx.hosts}
        checks = []
        for host in ctx.hosts:
            here = situation.facts[host.name]
            rest = [situation.reset[host.name]] if host.name in situation.reset else []
            rest += [action.what for action in leftovers(host.name, here, situation, peers)]
            checks.append(
                Check.that(
                    not rest,
                    "reset.clean",
                    host.name,
                    "holds nothing but the wanted cluster",
                    got="; ".join(rest) or ("in the cluster" if here.kubeadm.joined else "clean"),
                    expected="nothing of another cluster or plugin",
                    remedy="look at the record of this stage: a command did not remove it",
                )
            )
            if here.leftovers.kubeconfig and not here.kubeadm.joined:
                checks.append(kubeconfig_check(host.name, here.leftovers.kubeconfig))
        return checks


def kubeconfig_check(name: str, path: str) -> Check:
    """Return the warning that root keeps a kubeconfig on a host that was reset."""
    return Check(
        "reset.kubeconfig",
        name,
        Status.WARN,
        "root has no kubeconfig of a cluster that is gone",
        got=path,
        expected="none, or one of a cluster that lives",
        remedy=f"it is a person's file, so it stays: remove {path} if its cluster was reset",
    )


def _keep_quorum(ctx: Context, situation: Situation) -> None:
    """Refuse to reset control planes of a cluster that is kept, where its etcd would not stand it.

    They go one after another.
    """
    doomed = [host.name for host in ctx.control_planes if host.name in situation.reset]
    if not situation.wanted or not doomed:
        return
    lost = first_loss(members(ctx.kube()), doomed)
    if lost:
        name, why = lost
        raise PreconditionError(
            f"{name}: not reset ({situation.reset[name]}): {why}",
            remedy="bring the other control planes back first",
        )


def host_actions(name: str, situation: Situation, peers: set[str]) -> list[Action]:
    """Return what resets one host: kubeadm's part where it has to go, and what plugins left.

    Args:
        name: The host.
        situation: What stands on the hosts, and which have to go.
        peers: The nodes' addresses; routes by way of them are what a plugin left.
    """
    here = situation.facts[name]
    actions = []
    if name in situation.reset:
        why = situation.reset[name]
        if here.version("kubeadm"):
            actions.append(
                Action(
                    name,
                    f"reset kubeadm: {why}",
                    Cmd.change("kubeadm", "reset", "-f"),
                    changes_cluster=True,
                )
            )
        else:
            actions += without_kubeadm.actions(name, here, why)
    return actions + leftovers(name, here, situation, peers)


def leftovers(name: str, here: HostFacts, situation: Situation, peers: set[str]) -> list[Action]:
    """Return the removal of what plugins left, where no part of the wanted cluster uses it."""
    if situation.wanted and name not in situation.reset and here.kubeadm.joined:
        return []  # another plugin's traces here would have made the cluster an unwanted one
    actions = []
    if here.leftovers.units:  # first: what they keep would come back
        units = here.leftovers.units
        what = f"stop and remove the kit's units: {', '.join(units)}"
        actions.append(Action(name, what, remove_units(*units)))
    files = [file.name for file in here.cni.files]
    # A plugin's credentials lie there too; they are no configuration, and so not in the list.
    files += [n for n in here.cni.names or () if n not in files and owner_of_cni_file(n)]
    if files:
        paths = [f"{CNI_DIRECTORY}/{file}" for file in files]
        what = f"remove the CNI configuration that was left: {', '.join(files)}"
        actions.append(Action(name, what, Cmd.change("rm", "-rf", *paths)))
    owners = {link.name: owner_of_interface(link.name) for link in here.links or ()}
    devices = [device for device, owner in owners.items() if owner or device == KUBE_IPVS]
    services = _ipvs(name, here)
    if services is not None:
        actions.append(services)
    if devices:
        what = f"delete the interfaces that were left: {', '.join(devices)}"
        # A device may be gone with its peer or its bridge by the time its turn comes.
        command = script(
            'for d in "$@"; do if [ -e "/sys/class/net/$d" ]; then ip link delete "$d"; fi; done',
            *devices,
            mutates=True,
        )
        actions.append(Action(name, what, command))
    for action in (
        _routes(name, here, peers),
        _paths(name, here),
        _tables(name, here),
        _chains(name, here),
        _comments(name, here),
        _ipsets(name, here),
        _rules(name, here),
    ):
        if action is not None:
            actions.append(action)
    return actions


def _routes(name: str, here: HostFacts, peers: set[str]) -> Action | None:
    """Return the removal of routes by way of another node: the next plugin shares out anew.

    Routes through a plugin's own device are gone with the device.
    """
    left = [
        route.destination
        for route in here.routes or ()
        if route.gateway in peers and route.destination != "default"
    ]
    if not left:
        return None
    command = script('for r in "$@"; do ip route delete "$r" || exit 1; done', *left, mutates=True)
    return Action(name, f"delete the routes that were left: {', '.join(left)}", command)


def _paths(name: str, here: HostFacts) -> Action | None:
    # Programs in /opt/cni/bin belong to the kubernetes-cni package as well: they stay.
    kept = (CNI_DIRECTORY, "/opt/cni/bin")
    paths = [path for path in here.leftovers.paths if not path.startswith(kept)]
    if not paths:
        return None
    what = f"remove what a plugin left: {', '.join(paths)}"
    return Action(name, what, Cmd.change("rm", "-rf", *paths))


def _tables(name: str, here: HostFacts) -> Action | None:
    known = {table for plugin in catalogue().values() for table in plugin.leftovers.nft_tables}
    written = {unit_name(each.name) for each in catalogue().values() if each.per_node}
    tables = sorted({"kube-proxy", *known, *written} & set(here.leftovers.nft_tables or ()))
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


def _chains(name: str, here: HostFacts) -> Action | None:
    prefixes = ("KUBE-", "CNI-", *(chain.rstrip("*") for chain in leftover_chains()))
    chains = [chain for chain in here.leftovers.chains or () if chain.startswith(prefixes)]
    if not chains:
        return None
    command = script(
        f"for s in {FLAVOURS}; do if command -v $s-save >/dev/null; then"
        ' r=$($s-save 2>/dev/null); if printf "%s\\n" "$r" | grep -qE "^:($1)"; then'
        ' printf "%s\\n" "$r" | grep -vE "(^:|^-A | -[jg] )($1)" | $s-restore || exit 1;'
        " fi; fi; done",
        "|".join(prefixes),
        mutates=True,
    )
    return Action(name, f"remove {len(chains)} iptables chains of earlier networks", command)


def _comments(name: str, here: HostFacts) -> Action | None:
    """Return the removal of single rules in chains that others use too, by their comment."""
    if not here.leftovers.comments:
        return None
    command = script(
        f'for s in {FLAVOURS}; do if command -v $s-save >/dev/null; then for c in "$@"; do'
        ' r=$($s-save 2>/dev/null); if printf "%s\\n" "$r" | grep -qF -e "$c"; then'
        ' printf "%s\\n" "$r" | awk -v c="$c" \'/^(\\*|COMMIT)/ { print }'
        ' /^-A / && index($0, c) { sub(/^-A/, "-D"); print }\' | $s-restore --noflush || exit 1;'
        " fi; done; fi; done",
        *here.leftovers.comments,
        mutates=True,
    )
    what = f"delete the iptables rules that were left: {', '.join(here.leftovers.comments)}"
    return Action(name, what, command)


def _ipsets(name: str, here: HostFacts) -> Action | None:
    """Return the removal of ipsets; it comes after the chains, whose rules use them."""
    patterns = ("KUBE-*", *leftover_ipsets())
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


def _rules(name: str, here: HostFacts) -> Action | None:
    known = leftover_route_tables()
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


def _ipvs(name: str, here: HostFacts) -> Action | None:
    """Return the removal of virtual services, where a device says that they are a cluster's.

    They have no names, and other software balances load with IPVS too.
    """
    devices = {link.name for link in here.links or ()} & {KUBE_IPVS, "kube-dummy-if"}
    if not here.leftovers.ipvs or not devices:
        return None
    what = f"clear {len(here.leftovers.ipvs)} IPVS services that were left"
    return Action(name, what, Cmd.change("ipvsadm", "--clear"))
