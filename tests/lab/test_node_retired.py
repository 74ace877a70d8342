"""The lab's agents of plugins that nobody maintains: their parts, without a host."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from kitlib.lab.node import (
    agents_contiv,
    agents_genie,
    agents_nuage,
    agents_romana,
    datapath,
    images,
    overlay,
    romana_store,
)


@pytest.mark.parametrize(
    ("image", "role"),
    [
        ("contiv/netplugin:1.2.0", "contiv"),
        ("registry.example.net/mirror/contiv/netplugin:1.2.0", "contiv"),
        ("contiv/stats", "contiv-helper"),
        ("contiv/auth_proxy:1.2.0", "contiv-helper"),
        ("ferest/etcd-initer:latest", "contiv-etcd-init"),
        ("quay.io/coreos/etcd:v2.3.8", "pause"),
        ("quay.io/huawei-cni-genie/genie-plugin:latest", "genie-plugin"),
        ("nuage/cni:20.10.6", "nuage-cni"),
        ("nuage/vrs:20.10.6", "nuage-vrs"),
        ("nuage/master:20.10.6", "nuage-helper"),
        ("gcr.io/google_containers/etcd-amd64:3.0.17", "romana-etcd"),
        ("quay.io/romana/agent:v2.0.2", "romana-agent"),
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


ONE, TWO = (romana_store.Block(f"worker-{n}", f"10.77.0.1{n}") for n in (1, 2))


def test_a_node_of_romana_gets_blocks_as_it_needs_them() -> None:
    store = romana_store.Store(IPv4Network("10.112.0.0/28"))
    given = [store.allocate(ONE, f"pod{number}") for number in range(8)]
    assert given == list(IPv4Network("10.112.0.0/29"))
    assert store.allocate(ONE, "pod3") == given[3], "asked again: the same"
    assert store.allocate(TWO, "other") == IPv4Address("10.112.0.8")
    with pytest.raises(ValueError, match=r"no block is left in 10\.112\.0\.0/28"):
        store.allocate(ONE, "ninth")
    store.release("other")
    assert set(store.blocks.values()) == {ONE}, "an empty block goes back"
    assert store.allocate(ONE, "ninth") == IPv4Address("10.112.0.8")
    again = romana_store.Store.load(store.dump())
    assert (again.pool, again.blocks, again.given) == (store.pool, store.blocks, store.given)
    with pytest.raises(ValueError, match="no network"):
        romana_store.Store.load("").allocate(ONE, "x")


async def test_romanas_store_answers_keeps_and_tells_news(tmp_path: Path) -> None:
    file = tmp_path / "db/ipam.json"
    runner = await romana_store.serve(file, "127.0.0.1", 0)
    port = runner.addresses[0][1]
    url = f"http://127.0.0.1:{port}"
    told = {"node": "worker-1", "underlay": "10.77.0.11", "owner": "a"}
    try:
        with pytest.raises(romana_store.Unavailable, match="no network"):
            await romana_store.ask("POST", f"{url}/address", told)
        for cidr in ("10.112.0.0/12", "10.0.0.0/8"):
            found = await romana_store.ask("PUT", f"{url}/network", {"cidr": cidr})
            assert found == {"cidr": "10.112.0.0/12"}
        known = (await romana_store.ask("GET", f"{url}/blocks?after=-1"))["version"]
        news = asyncio.create_task(romana_store.ask("GET", f"{url}/blocks?after={known}"))
        assert (await romana_store.ask("POST", f"{url}/address", told))["address"] == "10.112.0.0"
        blocks = (await news)["blocks"]
        assert blocks == {"10.112.0.0/29": ["worker-1", "10.77.0.11"]}
        assert romana_store.Store.load(file.read_text()).given
        await romana_store.ask("DELETE", f"{url}/address", {"owner": "a"})
        assert not romana_store.Store.load(file.read_text()).given
    finally:
        await runner.cleanup()
    with pytest.raises(romana_store.Unavailable, match="Cannot connect"):
        await romana_store.ask("GET", f"{url}/blocks")


def test_romanas_routes_follow_the_blocks() -> None:
    blocks = {"10.112.0.0/29": ["a", "10.77.0.11"], "10.112.0.8/29": ["b", "10.77.0.12"]}
    wanted = agents_romana.routes(blocks, "a")
    assert wanted == {"10.112.0.8/29": "10.77.0.12"}
    assert agents_romana.change_script({}, wanted) == (
        "ip route replace 10.112.0.8/29 via 10.77.0.12 dev eth0 proto static\n"
    )
    assert agents_romana.change_script(wanted, wanted) == ""
    moved = agents_romana.change_script(wanted, {"10.112.0.8/29": "10.77.0.13"})
    assert moved.splitlines()[0].startswith("ip route del 10.112.0.8/29 via 10.77.0.12")
    assert "replace 10.112.0.8/29 via 10.77.0.13" in moved


@pytest.mark.parametrize(
    ("argv", "network"),
    [
        ([], "10.112.0.0/12"),
        (["--network-cidr-overrides=romana-network=10.160.0.0/12"], "10.160.0.0/12"),
        (["--network-cidr-overrides=x=10.1.0.0/16,romana-network=10.2.0.0/16"], "10.2.0.0/16"),
    ],
)
def test_romanas_network(argv: list[str], network: str) -> None:
    assert agents_romana.network_of(argv) == IPv4Network(network)


def test_romanas_agent_stands_no_other_configuration(tmp_path: Path) -> None:
    for name in ("10-romana.conf", "10-flannel.conflist", "99-loopback.conf"):
        (tmp_path / name).touch()
    assert agents_romana.foreign(tmp_path) == ["99-loopback.conf"]


def test_genies_file_has_no_token_in_the_lab() -> None:
    text = '{"hostname": "__KUBERNETES_NODE_NAME__", "k8s_auth_token": "__SERVICEACCOUNT_TOKEN__"}'
    assert agents_genie.config_of(text, "a") == '{"hostname": "a", "k8s_auth_token": ""}'
