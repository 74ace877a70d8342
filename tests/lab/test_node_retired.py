"""The lab's agents of plugins that nobody maintains: their parts, without a host."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from kitlib.lab.node import agents_contiv, agents_nuage, datapath, images, overlay


@pytest.mark.parametrize(
    ("image", "role"),
    [
        ("contiv/netplugin:1.2.0", "contiv"),
        ("registry.example.net/mirror/contiv/netplugin:1.2.0", "contiv"),
        ("contiv/stats", "contiv-helper"),
        ("contiv/auth_proxy:1.2.0", "contiv-helper"),
        ("ferest/etcd-initer:latest", "contiv-etcd-init"),
        ("quay.io/coreos/etcd:v2.3.8", "pause"),
        ("nuage/cni:20.10.6", "nuage-cni"),
        ("nuage/vrs:20.10.6", "nuage-vrs"),
        ("nuage/master:20.10.6", "nuage-helper"),
        ("docker.io/calico/cni:v3.28.5", "calico-cni"),
        ("example.net/cni", ""),
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


def test_nuage_removes_every_plugins_files(tmp_path: Path) -> None:
    for name in ("etc/cni/net.d/10-flannel.conflist", "opt/cni/bin/bridge", "etc/hosts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    agents_nuage.wipe(tmp_path / "etc", tmp_path / "opt")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"hosts"}
    agents_nuage.wipe(tmp_path / "etc", tmp_path / "opt")


def test_nuages_devices_have_the_very_form_of_flannels() -> None:
    """The comparison's control: between the two there must be no difference to find."""
    gateway = IPv4Interface("70.70.1.1/24")
    nuage = agents_nuage.device_script(gateway, "10.77.0.12", 1450)
    flannel = datapath.bridge("cni0", gateway, 1450) + datapath.vxlan_device(
        "flannel.1",
        vni=1,
        local="10.77.0.12",
        underlay="eth0",
        port=8472,
        mtu=1450,
        address="70.70.1.0",
    )
    names = {"alubr0": "cni0", "vxlan_sys_4789": "flannel.1", "dstport 4789": "dstport 8472"}
    names[f" address {overlay.mac('10.77.0.12')}"] = ""
    for one, other in names.items():
        nuage = nuage.replace(one, other)
    assert nuage == flannel


def node(name: str, address: str) -> dict[str, object]:
    told = {"addresses": [{"type": "InternalIP", "address": address}]}
    return {"metadata": {"name": name}, "spec": {}, "status": told}


def test_nuages_nodes_find_each_others_subnets_in_its_config_map() -> None:
    taken = {"a": IPv4Network("70.70.0.0/24"), "b": IPv4Network("70.70.1.0/24")}
    register = agents_nuage.REGISTER
    notes = {register.annotation: register.write(taken)}
    meta = {"namespace": register.namespace, "name": register.name, "annotations": notes}
    maps = [{"metadata": {"namespace": "default", "name": "x"}}, {"metadata": meta}]
    nodes = [node("a", "10.77.0.11"), node("b", "10.77.0.12"), node("c", "10.77.0.13")]
    found = agents_nuage.subnets(nodes, maps, "a")
    mac = overlay.mac("10.77.0.12")
    assert found == {"b": datapath.VxlanPeer(taken["b"], mac, "10.77.0.12")}
    assert agents_nuage.subnets(nodes, maps[:1], "a") == {}


def test_nuages_network_is_told_as_sed_takes_it() -> None:
    env = {"NUAGE_K8S_POD_NETWORK_CIDR": r"10.160.0.0\/16"}
    assert agents_nuage.pod_network(env) == IPv4Network("10.160.0.0/16")
