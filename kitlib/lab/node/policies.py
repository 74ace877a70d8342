"""NetworkPolicy as nft rules of one node, for every plugin that has it. Pure.

Each of the node's pods that a policy selects has a chain for the direction: what some policy allows
returns, and its end drops. They hang on the forward hook, which pods' packets pass in a bridge too
(br_netfilter), and for what pods send to their own host on the input hook. What the host itself
sends to its pods (the kubelet's probes) passes neither, as upstream; answers always pass, and so
does what an agent has the kernel not track because it was looked at before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kitlib.lab.api.selectors import label_selector
from kitlib.lab.node.kubelet_client import Obj

__all__ = ["ruleset"]

_INGRESS, _EGRESS = "Ingress", "Egress"
_PRIORITY = 10  # after the hosts' own rules


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod with an address on the pod network."""

    address: str
    namespace: str
    node: str
    labels: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]


@dataclass(slots=True)
class _Chains:
    """Chains by their text, so that pods with the same rules share one."""

    texts: dict[str, str] = field(default_factory=dict)

    def of(self, rules: Iterable[str]) -> str:
        lines = sorted(set(rules))
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        name = f"pods_{digest[:12]}"
        body = "".join(f"    {line} return\n" for line in lines)
        self.texts[name] = f"  chain {name} {{\n{body}    drop\n  }}\n"
        return name


def ruleset(
    table: str,
    node: str,
    policies: Iterable[Obj],
    pods: Iterable[Obj],
    namespaces: Iterable[Obj],
) -> str:
    """Return the node's whole table as `nft -f` reads it, replacing what was there.

    Args:
        table: Its name, in the family inet.
        node: The node whose pods are guarded.
        policies: All NetworkPolicies.
        pods: All pods of the cluster.
        namespaces: All Namespaces.
    """
    away = f"table inet {table}\ndelete table inet {table}\n"
    everyone = [found for pod in pods if (found := _pod(pod)) is not None]
    spaces = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in namespaces}
    chains = _Chains()
    guarded: dict[str, dict[str, str]] = {_INGRESS: {}, _EGRESS: {}}
    by_space: dict[str, list[Obj]] = {}
    for policy in policies:
        by_space.setdefault(policy["metadata"]["namespace"], []).append(policy)
    for pod in everyone:
        if pod.node != node:
            continue
        mine = [
            policy
            for policy in by_space.get(pod.namespace, [])
            if label_selector(policy["spec"].get("podSelector"), pod.labels)
        ]
        for direction, chain_of in guarded.items():
            about = [policy for policy in mine if direction in _types(policy["spec"])]
            if about:
                rules = (
                    rule
                    for policy in about
                    for rule in _rules(policy, direction, pod, everyone, spaces)
                )
                chain_of[pod.address] = chains.of(rules)
    if not chains.texts:
        return away
    leaving = _jumps("ip saddr", guarded[_EGRESS])
    arriving = _jumps("ip daddr", guarded[_INGRESS])
    return (
        f"{away}table inet {table} {{\n"
        + "".join(chains.texts[name] for name in sorted(chains.texts))
        + _base("forward", leaving + arriving)
        + (_base("input", leaving) if leaving else "")
        + "}\n"
    )


def _pod(pod: Obj) -> _Pod | None:
    """Return a pod as policies see it; None when it is on its host's network or not running."""
    spec, status = pod["spec"], pod.get("status") or {}
    address = status.get("podIP")
    if spec.get("hostNetwork") or not address or status.get("phase") in ("Succeeded", "Failed"):
        return None
    named = {
        (str(port["name"]), str(port.get("protocol", "TCP"))): int(port["containerPort"])
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("name")
    }
    meta = pod["metadata"]
    labels = meta.get("labels") or {}
    return _Pod(str(address), meta["namespace"], spec.get("nodeName", ""), labels, named)


def _types(spec: Mapping[str, Any]) -> Sequence[str]:
    stated = spec.get("policyTypes")
    return stated or ([_INGRESS, _EGRESS] if "egress" in spec else [_INGRESS])


def _rules(
    policy: Obj,
    direction: str,
    pod: _Pod,
    everyone: Sequence[_Pod],
    spaces: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """Yield the matches of what a policy allows one of its pods, without the verdict."""
    peers_key, match = ("from", "ip saddr") if direction == _INGRESS else ("to", "ip daddr")
    for rule in policy["spec"].get(direction.lower()) or []:
        peers = rule.get(peers_key) or []
        ports = rule.get("ports") or []
        if not peers:
            far: list[_Pod] = list(everyone)
            places = [""]
        else:
            far = [
                other
                for other in everyone
                if any(_selects(peer, policy, other, spaces) for peer in peers)
            ]
            places = [f"{match} {_set(other.address for other in far)}"] if far else []
            places += [_block(peer["ipBlock"], match) for peer in peers if "ipBlock" in peer]
        if not ports:
            yield from (place or "meta nfproto ipv4" for place in places)
            continue
        for port in ports:
            protocol = str(port.get("protocol") or "TCP")
            number = port.get("port")
            if isinstance(number, str) and direction == _EGRESS:
                # The name is each receiver's own: only receivers that have it are meant.
                by_number: dict[int, list[str]] = {}
                for other in far:
                    if (number, protocol) in other.ports:
                        wanted = by_number.setdefault(other.ports[number, protocol], [])
                        wanted.append(other.address)
                for each, addresses in by_number.items():
                    yield f"{match} {_set(addresses)} {protocol.lower()} dport {each}"
                continue
            if isinstance(number, str):
                if (number, protocol) not in pod.ports:
                    continue
                number = pod.ports[number, protocol]
            yield from (_port(place, protocol, number, port.get("endPort")) for place in places)


def _port(place: str, protocol: str, number: int | None, end: int | None) -> str:
    word = protocol.lower()
    if number is None:
        what = f"meta l4proto {word}"
    else:
        what = f"{word} dport {number}-{end}" if end else f"{word} dport {number}"
    return f"{place} {what}".strip()


def _selects(
    peer: Mapping[str, Any], policy: Obj, other: _Pod, spaces: Mapping[str, Mapping[str, str]]
) -> bool:
    if "podSelector" not in peer and "namespaceSelector" not in peer:
        return False
    if "namespaceSelector" in peer:
        if not label_selector(peer["namespaceSelector"], spaces.get(other.namespace, {})):
            return False
    elif other.namespace != policy["metadata"]["namespace"]:
        return False
    return label_selector(peer.get("podSelector"), other.labels)


def _block(block: Mapping[str, Any], match: str) -> str:
    spared = block.get("except") or []
    return f"{match} {block['cidr']}" + (f" {match} != {_set(spared)}" if spared else "")


def _set(items: Iterable[str]) -> str:
    return f"{{ {', '.join(sorted(set(items)))} }}"


def _jumps(match: str, chain_of: Mapping[str, str]) -> str:
    if not chain_of:
        return ""
    pairs = ", ".join(f"{address} : jump {name}" for address, name in sorted(chain_of.items()))
    return f"    {match} vmap {{ {pairs} }}\n"


def _base(hook: str, jumps: str) -> str:
    return (
        f"  chain {hook} {{\n    type filter hook {hook} priority {_PRIORITY}; policy accept;\n"
        f"    ct state established,related,untracked accept\n{jumps}  }}\n"
    )
