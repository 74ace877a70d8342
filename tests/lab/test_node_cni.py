"""The CNI of an emulated node: which file is in force, addresses, and the programs it runs."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kitlib.lab.node import agents_flannel, agents_routed, cni, datapath
from kitlib.model import CommandResult

NETCONF = agents_flannel.NetConf(IPv4Network("10.244.0.0/16"), "vxlan")
FLANNEL = {"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}]}
ROUTER = {"name": "mynet", "plugins": [{"type": "bridge", "bridge": "kube-bridge", "ipam": {}}]}


def _write(directory: Path, **files: Any) -> None:
    for name, data in files.items():
        text = data if isinstance(data, str) else json.dumps(data)
        (directory / name.replace("__", ".").replace("_", "-")).write_text(text)


def test_the_first_file_by_name_is_in_force(tmp_path: Path) -> None:
    _write(tmp_path, **{"10_kuberouter__conflist": ROUTER, "10_flannel__conflist": FLANNEL})
    found = cni.config_in_force(tmp_path)
    assert found is not None
    assert (found.path.name, found.kind, found.name) == ("10-flannel.conflist", "flannel", "cbr0")


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"plugins": []}', '{"plugins": [{"bridge": "x"}]}', ""]
)
def test_a_file_that_does_not_parse_is_passed_over(tmp_path: Path, broken: str) -> None:
    _write(tmp_path, **{"00_broken__conflist": broken, "10_kuberouter__conflist": ROUTER})
    found = cni.config_in_force(tmp_path)
    assert found is not None
    assert found.kind == "bridge"


def test_other_suffixes_are_no_configuration(tmp_path: Path) -> None:
    _write(tmp_path, **{"calico_kubeconfig": "{}", "05_x__conf__bak": {"type": "bridge"}})
    assert cni.config_in_force(tmp_path) is None
    assert cni.config_in_force(tmp_path / "missing") is None
    _write(tmp_path, **{"20_single__conf": {"name": "one", "type": "bridge"}})
    found = cni.config_in_force(tmp_path)
    assert found is not None
    assert found.kind == "bridge"


def test_addresses_go_round_and_survive_a_restart(tmp_path: Path) -> None:
    subnet = IPv4Network("10.244.1.0/29")
    local = cni.HostLocal(tmp_path, subnet)
    assert str(local.gateway) == "10.244.1.1/29"
    given = [str(local.reserve(f"id{number}")) for number in range(3)]
    assert given == ["10.244.1.2", "10.244.1.3", "10.244.1.4"]
    (tmp_path / "10.244.1.2").unlink()
    again = cni.HostLocal(tmp_path, subnet)
    assert str(again.reserve("id3")) == "10.244.1.5"
    assert (tmp_path / "10.244.1.5").read_bytes() == b"id3\r\neth0"
    again.reserve("id4")
    assert str(again.reserve("id5")) == "10.244.1.2"
    with pytest.raises(cni.CniError, match=r"no IP addresses available in range set: 10.244.1.1-"):
        again.reserve("id6")


def test_a_calico_block_has_no_gateway_to_spare(tmp_path: Path) -> None:
    local = cni.HostLocal(tmp_path, IPv4Network("192.168.7.64/30"))
    given = {local.reserve(str(number), first=0) for number in range(4)}
    assert given == {IPv4Address("192.168.7.64") + number for number in range(4)}


class _NoHost:
    """A host on which nothing may run: these cases must fail before that."""


def _wire(root: Path, data: dict[str, Any]) -> None:
    config = cni.CniConfig(root / "x", data["name"], tuple(data["plugins"]))
    asyncio.run(cni.wire(_NoHost(), config, "cni-x", "id", "default/p1", root))  # type: ignore[arg-type]


def _plugin(root: Path, name: str) -> None:
    (root / "opt/cni/bin").mkdir(parents=True, exist_ok=True)
    (root / "opt/cni/bin" / name).touch()


def test_what_a_sandbox_says_when_it_cannot_get_a_network(tmp_path: Path) -> None:
    with pytest.raises(cni.CniError, match=r'failed to find plugin "flannel" in path'):
        _wire(tmp_path, FLANNEL)
    _plugin(tmp_path, "flannel")
    with pytest.raises(cni.CniError) as missing:
        _wire(tmp_path, FLANNEL)
    text = str(missing.value)
    assert text.startswith('plugin type="flannel" failed (add): open ')
    assert text.endswith("/run/flannel/subnet.env: no such file or directory")
    _plugin(tmp_path, "bridge")
    with pytest.raises(cni.CniError, match="no IP ranges specified"):
        _wire(tmp_path, ROUTER)
    _plugin(tmp_path, "calico")
    with pytest.raises(cni.CniError, match="stat /var/lib/calico/nodename: no such file"):
        _wire(tmp_path, {"name": "k8s-pod-network", "plugins": [{"type": "calico"}]})


def test_flannels_delegate_may_have_an_mtu_of_its_own(tmp_path: Path) -> None:
    asked: list[str] = []

    class Host:
        async def run(self, *argv: str, check: bool = True, input: str = "") -> Any:
            asked.append(input)
            return SimpleNamespace(ok=True, stdout="", stderr="", exit_status=0)

    env = tmp_path / "run/flannel/subnet.env"
    env.parent.mkdir(parents=True)
    env.write_text(agents_flannel.subnet_file(NETCONF, IPv4Network("10.244.1.0/24")))
    for delegate, mtu in (({}, 1450), ({"mtu": 1400}, 1400)):
        steps = ({"type": "flannel", "delegate": delegate},)
        config = cni.CniConfig(tmp_path / "10-flannel.conflist", "cbr0", steps)
        asyncio.run(cni._flannel(Host(), config, "cni-1", "one", "pod", tmp_path))  # type: ignore[arg-type]
        assert f" mtu {mtu} " in asked[-1]


def test_the_bridge_program() -> None:
    port = datapath.BridgePort(
        "cni0",
        IPv4Interface("10.244.1.1/24"),
        IPv4Interface("10.244.1.2/24"),
        "veth311c107a",
        1450,
        True,
        (IPv4Network("10.244.0.0/16"),),
    )
    text = datapath.bridge_attach("cni-1", port)
    assert "ip link add veth311c107a mtu 1450 type veth peer name eth0 mtu 1450 netns cni-1" in text
    assert "ip link set veth311c107a master cni0 up" in text
    assert "bridge_slave hairpin on" in text
    assert "route add default via 10.244.1.1" in text
    assert "route add 10.244.0.0/16 via 10.244.1.1" in text
    assert text.count("ip -n cni-1 -batch") == 1


def test_the_vxlan_programs_undo_each_other() -> None:
    peer = datapath.VxlanPeer(IPv4Network("10.244.2.0/24"), "c6:fe:41:ef:00:94", "10.77.0.13")
    assert datapath.vxlan_peer("flannel.1", peer).splitlines() == [
        "bridge fdb replace c6:fe:41:ef:00:94 dev flannel.1 dst 10.77.0.13 self permanent",
        "ip neigh replace 10.244.2.0 lladdr c6:fe:41:ef:00:94 dev flannel.1 nud permanent",
        "ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
    ]
    forget = datapath.vxlan_forget("flannel.1", peer)
    assert all(line.endswith("|| true") for line in forget.splitlines())
    device = datapath.vxlan_device(
        "flannel.1",
        vni=1,
        local="10.77.0.12",
        underlay="eth0",
        port=8472,
        mtu=1450,
        address="10.244.1.0",
    )
    assert "type vxlan id 1 local 10.77.0.12 dev eth0 dstport 8472 nolearning" in device


def _node(name: str, cidr: str, address: str, **notes: str) -> dict[str, Any]:
    prefix = "flannel.alpha.coreos.com/"
    return {
        "metadata": {"name": name, "annotations": {prefix + k: v for k, v in notes.items()}},
        "spec": {"podCIDR": cidr} if cidr else {},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def test_flannel_knows_the_nodes_that_announced_themselves() -> None:
    mac = "3e:c7:2a:8c:18:d7"
    vxlan = {
        "backend-type": "vxlan",
        "backend-data": json.dumps({"VNI": 1, "VtepMAC": mac}),
        "public-ip": "10.77.0.12",
    }
    nodes = [
        _node("m1", "10.244.0.0/24", "10.77.0.11", **vxlan),
        _node("w1", "10.244.1.0/24", "10.77.0.12", **vxlan),
        _node("w2", "10.244.2.0/24", "10.77.0.13"),
        _node("w3", "", "10.77.0.14", **vxlan),
    ]
    found = agents_flannel.peers(nodes, "m1", "vxlan")
    assert found == {"w1": datapath.VxlanPeer(IPv4Network("10.244.1.0/24"), mac, "10.77.0.12")}


def test_flannels_files() -> None:
    text = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'
    conf = agents_flannel.net_conf(text)
    assert (conf.device, conf.mtu, conf.port) == ("flannel.1", 1450, 8472)
    assert agents_flannel.subnet_file(conf, IPv4Network("10.244.1.0/24")) == (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    with pytest.raises(ValueError, match="unknown backend"):
        agents_flannel.net_conf('{"Network": "10.244.0.0/16", "Backend": {"Type": "gre"}}')


def test_a_pod_cidr_outside_flannels_network_is_refused() -> None:
    conf = agents_flannel.net_conf('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}')
    node = _node("w1", "10.100.1.0/24", "10.77.0.12")
    with pytest.raises(Exception, match=r'contain "10\.100\.1\.0/24" PodCIDR of the "w1" node'):
        agents_flannel._checked_cidr(node, conf, "w1")
    with pytest.raises(Exception, match='node "w1" pod cidr not assigned'):
        agents_flannel._checked_cidr(_node("w1", "", "10.77.0.12"), conf, "w1")


def test_routed_plugins_know_the_other_nodes() -> None:
    nodes = [_node("m1", "10.244.0.0/24", "10.77.0.11"), _node("w1", "10.244.1.0/24", "10.77.0.12")]
    assert agents_routed.pod_cidr_routes(nodes, "m1") == {
        "w1": (IPv4Network("10.244.1.0/24"), "10.77.0.12")
    }
    blocks = [
        {"spec": {"cidr": "192.168.0.0/26", "affinity": "host:m1"}},
        {"spec": {"cidr": "192.168.0.64/26", "affinity": "host:w1"}},
        {"spec": {"cidr": "192.168.0.128/26", "affinity": "host:gone"}},
    ]
    assert agents_routed.block_routes(blocks, nodes, "m1") == {
        "w1": (IPv4Network("192.168.0.64/26"), "10.77.0.12")
    }


def test_kube_router_fills_in_its_configuration() -> None:
    text = agents_routed.with_subnet(json.dumps(ROUTER), "10.244.1.0/24", 1500)
    plugin = json.loads(text)["plugins"][0]
    assert (plugin["ipam"]["subnet"], plugin["mtu"]) == ("10.244.1.0/24", 1500)


def test_every_node_tries_calicos_blocks_from_a_place_of_its_own() -> None:
    pool = IPv4Network("192.168.0.0/24")
    orders = [agents_routed.block_order(pool, name) for name in ("m1", "w1", "w2", "w3", "w4")]
    assert all(set(order) == set(pool.subnets(new_prefix=26)) for order in orders)
    assert len({order[0] for order in orders}) > 1
    assert agents_routed.block_order(pool, "m1") == orders[0]


GENIE = {"name": "k8s-pod-network", "type": "genie", "default_plugin": "flannel"}


@pytest.mark.parametrize(
    ("annotations", "config", "names"),
    [
        ({}, GENIE, ("flannel",)),
        ({"cni": " "}, GENIE, ("flannel",)),
        ({"cni": "calico"}, GENIE, ("calico",)),
        ({"cni": "flannel, calico,"}, GENIE, ("flannel", "calico")),
        ({}, {"type": "genie"}, ("weave",)),
        ({}, {"type": "genie", "default_plugin": "a,b"}, ("a", "b")),
    ],
)
def test_whom_genie_calls(
    annotations: dict[str, str], config: dict[str, Any], names: tuple[str, ...]
) -> None:
    found = cni.CniConfig(Path("00-genie.conf"), "", (config,))
    assert cni.called(found, annotations) == names


class _Scripts:
    """A host that takes scripts and runs none; the second one of a bridge fails where told to."""

    name, address = "worker-1", "10.77.0.12"

    def __init__(self, fails_at: int = 99) -> None:
        self.scripts: list[str] = []
        self._fails_at = fails_at

    async def run(self, *_: str, check: bool = True, input: str = "") -> CommandResult:
        del check
        self.scripts.append(input)
        bad = len(self.scripts) == self._fails_at
        return CommandResult("worker-1", "sh", "", "no such device", 1 if bad else 0)


def _two_networks(root: Path, host: _Scripts, cni_names: str) -> cni.Wire:
    directory = root / "etc/cni/net.d"
    directory.mkdir(parents=True)
    _write(directory, **{"00_genie__conf": GENIE, "10_flannel__conflist": FLANNEL})
    (directory / "10-flannel.conflist").write_text(
        json.dumps({"name": "cbr0", "plugins": [BRIDGE]})
    )
    _plugin(root, "genie")
    _plugin(root, "bridge")
    config = cni.config_in_force(directory)
    assert config is not None
    assert config.kind == "genie"
    notes = {"cni": cni_names}
    return asyncio.run(cni.wire(host, config, "cni-x", "id", "default/p1", root, notes))  # type: ignore[arg-type]


BRIDGE = {"type": "bridge", "bridge": "cni0", "ipam": {"subnet": "10.244.1.0/24"}}


def test_genie_makes_the_first_plugins_device_last_and_calls_it_eth0(tmp_path: Path) -> None:
    host = _Scripts()
    given = _two_networks(tmp_path, host, "flannel,flannel")
    kinds = ["rename" if "name eth1" in text else "attach" for text in host.scripts]
    assert kinds == ["attach", "rename", "attach"]
    held = tmp_path / "var/lib/cni/networks/cbr0"
    assert given.address == "10.244.1.3"
    assert {path.name for path in held.glob("10.*")} == {"10.244.1.2", "10.244.1.3"}
    asyncio.run(cni.wire_remove(host, "cni-x", given))  # type: ignore[arg-type]
    assert not list(held.glob("10.*"))


def test_genie_gives_back_what_it_has_when_a_plugin_fails(tmp_path: Path) -> None:
    with pytest.raises(cni.CniError, match="no such device"):
        _two_networks(tmp_path, _Scripts(fails_at=3), "flannel,flannel")
    assert not list((tmp_path / "var/lib/cni/networks/cbr0").glob("10.*"))


def test_genie_says_which_plugin_has_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(cni.CniError, match="no configuration of plugin 'weave'"):
        _two_networks(tmp_path, _Scripts(), "weave")
