"""The lab's agents of plugins that nobody maintains: their parts, without a host."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

import pytest

from kitlib.lab.node import agents_contiv, images, overlay


@pytest.mark.parametrize(
    ("image", "role"),
    [
        ("contiv/netplugin:1.2.0", "contiv"),
        ("registry.example.net/mirror/contiv/netplugin:1.2.0", "contiv"),
        ("contiv/stats", "contiv-helper"),
        ("contiv/auth_proxy:1.2.0", "contiv-helper"),
        ("ferest/etcd-initer:latest", "contiv-etcd-init"),
        ("quay.io/coreos/etcd:v2.3.8", "pause"),
        ("example.net/stats", ""),
    ],
)
def test_images(image: str, role: str) -> None:
    assert images.role_of(image) == role


@pytest.mark.parametrize(
    ("network", "prefix"), [("10.244.0.0/16", 24), ("20.1.1.0/24", 28), ("10.0.0.0/20", 24)]
)
def test_a_node_of_contiv_takes_a_part_of_the_network(network: str, prefix: int) -> None:
    pool = IPv4Network(network)
    assert agents_contiv.node_prefix(pool) == prefix
    assert prefix > pool.prefixlen


def test_contivs_bridge_has_the_tunnel_as_a_port() -> None:
    tunnel = overlay.Tunnel("vxlan_sys_4789", vni=1, port=4789, mtu=1450)
    gateway = IPv4Interface("10.244.1.1/16")
    script = agents_contiv.device_script(tunnel, gateway, "10.77.0.12")
    assert len(agents_contiv.BRIDGE) <= 15
    assert "contivVxlanBridge".startswith(agents_contiv.BRIDGE)
    assert f"ip addr add {gateway} brd + dev {agents_contiv.BRIDGE}" in script
    assert "dstport 4789 learning" in script
    assert f"ip link set vxlan_sys_4789 master {agents_contiv.BRIDGE} mtu 1450 up" in script
