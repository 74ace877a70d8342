"""NetworkPolicy as rules: which pods are guarded, and what is allowed to reach them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kitlib import plugins
from kitlib.lab import node
from kitlib.lab.node.policies import ruleset

AWAY = "table inet t\ndelete table inet t\n"


def _pod(name: str, number: int, *, space: str = "a", node: str = "n1", **more: Any) -> Any:
    ports = [{"name": "web", "containerPort": 8000 + number}]
    spec = {"nodeName": node, "containers": [{"ports": ports}], **more}
    meta = {"name": name, "namespace": space, "labels": {"app": name}}
    return {"metadata": meta, "spec": spec, "status": {"podIP": f"10.0.0.{number}"}}


PODS = [
    _pod("web", 1),
    _pod("client", 2),
    _pod("far", 3, space="b", node="n2"),
    _pod("agent", 4, hostNetwork=True),
    {**_pod("done", 5), "status": {"podIP": "10.0.0.5", "phase": "Succeeded"}},
]
TEAM_B = {"matchLabels": {"team": "b"}}
SPACES = [{"metadata": {"name": name, "labels": {"team": name}}} for name in ("a", "b")]


def rules(*specs: dict[str, Any], node: str = "n1", space: str = "a") -> str:
    policies = [{"metadata": {"namespace": space}, "spec": spec} for spec in specs]
    text = ruleset("t", node, policies, PODS, SPACES)
    assert text.startswith(AWAY)
    return text.removeprefix(AWAY)


def allowed(text: str) -> list[str]:
    """Return the rules of the only chain of pods, which must end with a drop."""
    (chain,) = text.split("chain pods_")[1:][:1]
    lines = [line.strip() for line in chain.split("}\n  chain")[0].splitlines()[1:]]
    lines = lines[: lines.index("drop") + 1]
    return [line.removesuffix(" return") for line in lines[:-1]]


def test_a_pod_that_no_policy_selects_has_no_rules() -> None:
    assert rules() == ""
    assert rules({"podSelector": {}}, space="nobody") == ""
    assert rules({"podSelector": {"matchLabels": {"app": "far"}}}) == ""
    assert rules({"podSelector": {}}, node="n3") == ""


def test_everything_is_denied_to_all_pods_of_a_namespace_that_have_addresses() -> None:
    text = rules({"podSelector": {}})
    assert allowed(text) == []
    assert text.count("chain pods_") == 1, "both pods share the chain"
    assert "ip daddr vmap { 10.0.0.1 : jump pods_" in text
    assert "10.0.0.2 : jump" in text
    assert "10.0.0.4" not in text
    assert "10.0.0.5" not in text
    assert "ct state established,related,untracked accept" in text
    assert "hook input" not in text


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, ["meta nfproto ipv4"]),
        ({"ports": [{"port": 80}]}, ["tcp dport 80"]),
        ({"ports": [{"protocol": "UDP"}]}, ["meta l4proto udp"]),
        ({"ports": [{"port": 80, "endPort": 90}]}, ["tcp dport 80-90"]),
        ({"ports": [{"port": "web"}]}, ["tcp dport 8001"]),
        ({"ports": [{"port": "nosuch"}]}, []),
        ({"from": [{"podSelector": {}}]}, ["ip saddr { 10.0.0.1, 10.0.0.2 }"]),
        ({"from": [{"podSelector": {"matchLabels": {"app": "far"}}}]}, []),
        ({"from": [{"namespaceSelector": TEAM_B}]}, ["ip saddr { 10.0.0.3 }"]),
        (
            {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "far"}}}]},
            ["ip saddr { 10.0.0.3 }"],
        ),
        (
            {"from": [{"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.2.0/24"]}}],
             "ports": [{"port": 53, "protocol": "UDP"}]},
            ["ip saddr 10.1.0.0/16 ip saddr != { 10.1.2.0/24 } udp dport 53"],
        ),
        (
            {"from": [{"podSelector": {"matchExpressions": [
                {"key": "app", "operator": "NotIn", "values": ["web"]}]}}]},
            ["ip saddr { 10.0.0.2 }"],
        ),
    ],
)  # fmt: skip
def test_what_may_come_in(rule: dict[str, Any], wanted: list[str]) -> None:
    selector = {"podSelector": {"matchLabels": {"app": "web"}}}
    assert allowed(rules({**selector, "ingress": [rule]})) == wanted


def test_policies_add_up() -> None:
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    text = rules({**web, "ingress": [{"ports": [{"port": 80}]}]}, {**web}, {
        **web, "ingress": [{"ports": [{"port": 81}, {"port": 80}]}]
    })  # fmt: skip
    assert allowed(text) == ["tcp dport 80", "tcp dport 81"]


def test_what_may_go_out_by_the_receivers_own_port_names_also_to_the_host() -> None:
    web = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}
    to = [{"namespaceSelector": {}}]
    text = rules({**web, "egress": [{"to": to, "ports": [{"port": "web"}, {"port": 53}]}]})
    assert allowed(text) == [
        "ip daddr { 10.0.0.1 } tcp dport 8001",
        "ip daddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } tcp dport 53",
        "ip daddr { 10.0.0.2 } tcp dport 8002",
        "ip daddr { 10.0.0.3 } tcp dport 8003",
    ]
    assert text.count("ip saddr vmap { 10.0.0.1 : jump pods_") == 2
    assert "hook input" in text
    assert "ip daddr vmap" not in text
    both = rules({"podSelector": {}, "egress": []})
    assert "ip daddr vmap" in both
    assert "ip saddr vmap" in both, "an egress part without types means both"


def test_the_kernel_takes_the_rules() -> None:
    enter = ["unshare", "--user", "--map-root-user", "--net", "nft", "-c", "-f", "-"]
    if shutil.which("nft") is None or subprocess.run(["unshare", "-Urn", "true"]).returncode:
        pytest.skip("no nft, or no user namespaces")
    peers = [{"podSelector": {}}, {"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.2.0/24"]}}]
    ports = [{"port": 80, "endPort": 90}, {"protocol": "UDP"}, {"port": 5, "protocol": "SCTP"}]
    text = rules({
        "podSelector": {},
        "ingress": [{"from": peers, "ports": ports}, {}],
        "egress": [{"to": peers}],
    })  # fmt: skip
    done = subprocess.run(enter, input=AWAY + text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


@pytest.mark.parametrize("plugin", sorted(plugins.catalogue()))
def test_agents_enforce_policies_where_the_catalogue_says_so(plugin: str) -> None:
    module = {"kube-router": "routed", "calico": "routed", "cni-genie": "genie"}.get(plugin, plugin)
    source = Path(node.__file__).parent / f"agents_{module}.py"
    enforces = source.exists() and "policies_enforced(" in source.read_text()
    assert enforces == plugins.get(plugin).network_policy
