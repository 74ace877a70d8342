"""Which clusters the hosts belong to, and whether one of them may be destroyed.

Clusters are told apart by their CA: names prove little, since kubeadm calls every cluster
`kubernetes` and a worker does not know its cluster's name at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from kitlib.facts import HostFacts
from kitlib.model import Check, Status
from kitlib.params import Params

__all__ = ["FoundCluster", "confirms", "found_clusters", "guard", "own_cluster"]


@dataclass(frozen=True, slots=True)
class FoundCluster:
    """One cluster that hosts of the inventory belong to.

    Attributes:
        ca_hash: `sha256:<hex>` of its CA's public key; empty where no host has the certificate.
        name: Its own name, where a host tells one that is not every cluster's; or empty.
        server: Its API server's address.
        hosts: The hosts of the inventory that belong to it.
        orphaned: True when its API server was a host of the inventory that has left it: nothing
            answers there any more, and nothing is lost with what remains.
    """

    ca_hash: str
    name: str
    server: str
    hosts: tuple[str, ...]
    orphaned: bool

    def __str__(self) -> str:
        """Return the cluster as messages name it."""
        name = f"{self.name!r} " if self.name else ""
        return f"cluster {name}{self.ca_hash or '(no CA certificate)'} at {self.server or '?'}"


def found_clusters(facts: Mapping[str, HostFacts], params: Params) -> tuple[FoundCluster, ...]:
    """Return the clusters that hosts belong to, in the order of the hosts.

    Args:
        facts: Host name -> facts.
        params: The wanted cluster, for the addresses of its hosts.
    """
    groups: dict[str, list[HostFacts]] = {}
    for each in facts.values():
        if each.kubeadm.joined or each.kubeadm.initialised:
            groups.setdefault(each.kubeadm.ca_hash or each.kubeadm.server, []).append(each)
    by_address = {host.node_address: host.name for host in params.hosts}
    found = []
    for members in groups.values():
        seen = [member.kubeadm for member in members]
        server = next((each.server for each in seen if each.server), "")
        home = facts.get(by_address.get(urlsplit(server).hostname or "", ""))
        found.append(
            FoundCluster(
                ca_hash=next((each.ca_hash for each in seen if each.ca_hash), ""),
                name=next((each.cluster for each in seen if each.cluster), ""),
                server=server,
                hosts=tuple(member.name for member in members),
                orphaned=home is not None and home not in members,
            )
        )
    return tuple(found)


def confirms(confirm_reset: str, cluster: FoundCluster) -> bool:
    """Return whether the parameter names this cluster, by its CA's hash or its own name."""
    return bool(confirm_reset) and confirm_reset in (cluster.ca_hash, cluster.name)


def own_cluster(facts: Mapping[str, HostFacts], params: Params) -> FoundCluster | None:
    """Return the wanted cluster, where it stands already.

    It is that of the control plane, when it carries the wanted name (or is confirmed).
    """
    home = params.control_plane.name
    own = next((each for each in found_clusters(facts, params) if home in each.hosts), None)
    if own and own.name != params.cluster and not confirms(params.confirm_reset, own):
        return None
    return own


def guard(
    facts: Mapping[str, HostFacts],
    params: Params,
    members: Mapping[str, Sequence[str]] | None = None,
) -> list[Check]:
    """Return one check a host: it may be reset, or it is in no other cluster than the wanted one.

    Args:
        facts: Host name -> facts.
        params: The wanted cluster.
        members: Host name -> the nodes of the cluster that it belongs to, where its API said so;
            they are named beside the cluster.
    """
    clusters = {name: each for each in found_clusters(facts, params) for name in each.hosts}
    own = own_cluster(facts, params)
    checks = []

    def who(cluster: FoundCluster) -> str:
        told = next(filter(None, ((members or {}).get(name) for name in cluster.hosts)), ())
        return f", nodes {', '.join(told)}" if told else f", with {', '.join(cluster.hosts)} in it"

    for name in facts:
        cluster = clusters.get(name)
        if cluster is None:
            checks.append(_check(name, Status.PASS, "in no cluster"))
        elif cluster == own:
            checks.append(_check(name, Status.PASS, f"in the wanted {cluster}{who(cluster)}"))
        elif cluster.orphaned:
            checks.append(_check(name, Status.PASS, f"left over from {cluster}, which is gone"))
        elif confirms(params.confirm_reset, cluster):
            got = f"in {cluster}{who(cluster)}; confirm_reset names it"
            checks.append(_check(name, Status.PASS, got))
        else:
            checks.append(_check(name, Status.FAIL, f"{cluster}{who(cluster)}", cluster))
    return checks


def _check(name: str, status: Status, got: str, cluster: FoundCluster | None = None) -> Check:
    remedy = ""
    if cluster:
        remedy = (
            "take the host out of the inventory; or, if everything in that cluster may be lost, "
            f'set confirm_reset: "{cluster.ca_hash or cluster.name or "<the cluster CA hash>"}"'
        )
    expected = "no other cluster than the wanted one" if cluster else ""
    summary = "belongs to no other cluster"
    return Check("preflight.cluster", name, status, summary, got, expected, remedy)
