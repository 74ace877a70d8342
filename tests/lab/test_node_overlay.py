"""What agents of several plugins are made of: tunnels, shares of the pod network, wiring."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from kitlib.lab.hostroot import state_datapath
from kitlib.lab.node import (
    agents_cilium,
    agents_contrail,
    agents_ovn,
    agents_weave,
    cni,
    datapath,
    images,
    leader,
    overlay,
    ranges,
    wiring,
)
from kitlib.lab.node.kubelet_client import ApiRefused

POOL = IPv4Network("10.32.0.0/12")
FAR = overlay.Far("10.77.0.12", IPv4Network("10.244.2.0/24"))
TUNNEL = overlay.Tunnel("cilium_vxlan", vni=2, port=8472, mtu=1450)


def test_a_routed_tunnel_takes_its_far_end_from_the_route() -> None:
    device = overlay.routed_device(TUNNEL, "10.77.0.11")
    assert "address 02:4c:0a:4d:00:0b type vxlan external dstport 8472" in device
    learn = overlay.routed_peer(TUNNEL, FAR, source="10.244.1.1")
    assert "lladdr 02:4c:0a:4d:00:0c dev cilium_vxlan nud permanent" in learn
    assert "replace 10.244.2.0/24 encap ip id 2 dst 10.77.0.12 via 10.244.2.0" in learn
    assert learn.endswith("onlink src 10.244.1.1\n")
    forget = overlay.routed_forget(TUNNEL, FAR)
    assert all(line.endswith("|| true") for line in forget.splitlines())
    with pytest.raises(ValueError, match="needs its pods' network"):
        overlay.routed_peer(TUNNEL, overlay.Far("10.77.0.12"))


def test_a_bridged_tunnel_floods_to_every_node() -> None:
    far = overlay.Far("10.77.0.12")
    learn = overlay.bridged_peer(TUNNEL, far)
    assert learn.startswith("bridge fdb append 00:00:00:00:00:00 dev cilium_vxlan dst 10.77.0.12")
    assert "fdb del 00:00:00:00:00:00" in overlay.bridged_forget(TUNNEL, far)


def test_every_node_gets_a_share_of_its_own_and_keeps_it() -> None:
    pool = IPv4Network("10.0.0.0/22")
    held = IPv4Network("10.0.1.0/24")
    new = ranges.share_out({"a": None, "b": held, "c": None}, pool, 24)
    assert new == {"a": IPv4Network("10.0.0.0/24"), "c": IPv4Network("10.0.2.0/24")}
    with pytest.raises(ValueError, match=r"no address range of /24 is left in 10.0.0.0/22"):
        ranges.share_out(dict.fromkeys("vwxyz"), pool, 24)


class _Api:
    """One ConfigMap, kept as the API keeps it: an update of something else than it is, is refused.

    It gives other clients their turn before each answer.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.refused = 0

    async def get(self, path: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.stored is None:
            raise ApiRefused(404, "NotFound", path)
        return dict(json.loads(json.dumps(self.stored)))

    async def create(self, path: str, body: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if self.stored is not None:
            self._refuse()
        self.stored = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}

    async def update(self, path: str, body: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        assert self.stored is not None
        version = self.stored["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            self._refuse()
        meta = {**body["metadata"], "resourceVersion": str(int(version) + 1)}
        self.stored = {**body, "metadata": meta}

    def _refuse(self) -> None:
        self.refused += 1
        raise ApiRefused(409, "Conflict", "the object has been modified")


@pytest.mark.parametrize(
    "register",
    [ranges.Register("x", "y", "z"), agents_weave.peers_register(POOL, 20)],
    ids=["plain", "weave"],
)
def test_nodes_that_claim_at_once_get_different_shares(register: ranges.Register) -> None:
    api = _Api()
    names = [f"worker-{number}" for number in range(9)]

    async def all_at_once() -> list[IPv4Network]:
        claims = (ranges.claim(api, register, name, POOL, 20) for name in names)  # type: ignore[arg-type]
        return await asyncio.gather(*claims)

    shares = asyncio.run(all_at_once())
    assert api.refused, "nobody was in the way of another: nothing was tried"
    assert sorted(shares) == list(POOL.subnets(new_prefix=20))[: len(names)]
    assert asyncio.run(all_at_once()) == shares


def test_one_replica_leads_and_the_next_one_takes_over() -> None:
    api: Any = _Api()
    led: list[str] = []

    async def lead(name: str) -> None:
        async with leader.leading(api, "kube-system", "lock", name):
            led.append(f"{name} starts")
            await asyncio.sleep(0.05)
            led.append(f"{name} ends")

    async def both() -> None:
        await asyncio.gather(lead("a"), lead("b"))

    asyncio.run(both())
    first, second = led[0][0], led[2][0]
    assert {first, second} == {"a", "b"}
    assert led == [f"{first} starts", f"{first} ends", f"{second} starts", f"{second} ends"]
    assert api.stored["spec"]["holderIdentity"] == ""


def _cilium_node(name: str, part: str, age: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": age},
        "spec": {
            "addresses": [{"ip": f"10.77.0.{name[-1]}", "type": "InternalIP"}],
            "ipam": {"podCIDRs": [part] if part else []},
        },
    }


def test_ciliums_operator_serves_the_oldest_node_first() -> None:
    nodes = [
        _cilium_node("worker-2", "", "2026-01-01T00:00:02Z"),
        _cilium_node("worker-1", "", "2026-01-01T00:00:01Z"),
        _cilium_node("plane-3", "10.244.0.0/24", "2026-01-01T00:00:00Z"),
    ]
    held = agents_cilium.nodes_ranges(nodes)
    assert list(held) == ["plane-3", "worker-1", "worker-2"]
    new = ranges.share_out(held, IPv4Network("10.244.0.0/16"), 24)
    assert {name: str(part) for name, part in new.items()} == {
        "worker-1": "10.244.1.0/24",
        "worker-2": "10.244.2.0/24",
    }
    assert agents_cilium.peers(nodes, "worker-1") == {
        "plane-3": overlay.Far("10.77.0.3", IPv4Network("10.244.0.0/24"))
    }


def test_ovns_nodes_have_their_part_in_an_annotation() -> None:
    assert agents_ovn.pool_of("10.244.0.0/16/23") == (IPv4Network("10.244.0.0/16"), 23)
    assert agents_ovn.pool_of("10.244.0.0/16") == (IPv4Network("10.244.0.0/16"), 24)
    part = {"k8s.ovn.org/node-subnets": '{"default":["10.244.2.0/24"]}'}
    address = {"addresses": [{"type": "InternalIP", "address": "10.77.0.12"}]}
    nodes = [
        {"metadata": {"name": "w1", "annotations": part}, "status": address},
        {"metadata": {"name": "w2"}, "status": address},
    ]
    assert agents_ovn.node_part(nodes[1]) is None
    assert agents_ovn.peers(nodes, "m1") == {"w1": FAR}
    script = agents_ovn.host_script(IPv4Network("10.244.2.0/24"), TUNNEL, "10.77.0.12")
    assert "ip addr replace 10.244.2.2/24 dev ovn-k8s-mp0" in script
    assert "ip link set ovn-k8s-mp0_0 master br-int up" in script
    assert "address 0a:58:0a:f4:02:02 type veth" in script
    rules = agents_ovn.bridge_rules(IPv4Network("10.244.2.0/24"))
    assert 'iifname "br-int" ether saddr 0a:58:0a:f4:02:02 notrack' in rules


def test_contrails_nodes_hear_of_each_others_parts() -> None:
    assert agents_contrail.gateway_of(POOL) == IPv4Interface("10.47.255.254/12")
    notes = {"lab.opensdn/addresses": '{"m1":"10.32.0.0/20","w1":"10.32.16.0/20"}'}
    maps = [
        {"metadata": {"name": "env"}},
        {"metadata": {"name": "kube-manager-config", "annotations": notes}},
    ]
    nodes = [
        {"metadata": {"name": name}, "status": {"addresses": [
            {"type": "InternalIP", "address": f"10.77.0.1{number}"}]}}
        for number, name in enumerate(("m1", "w1", "w2"), start=1)
    ]  # fmt: skip
    assert agents_contrail.peers(maps, nodes, "m1") == {
        "w1": overlay.Far("10.77.0.12", IPv4Network("10.32.16.0/20"))
    }
    assert agents_contrail.peers([], nodes, "m1") == {}


def test_a_pod_may_have_a_gateway_that_nobody_is() -> None:
    gateway = agents_contrail.gateway_of(POOL)
    mac = "00:00:5e:00:01:00"
    script = datapath.routed_attach("ns", "tapeth0-0a1b2c", "10.32.0.1", 1450, gateway, mac)
    assert "address 00:00:5e:00:01:00 type veth peer name eth0 mtu 1450 netns ns" in script
    assert "addr add 10.32.0.1/12 dev eth0" in script
    assert "route add default via 10.47.255.254 dev eth0" in script
    calico = datapath.routed_attach("ns", "cali1", "192.168.1.4", 1500)
    assert "addr add 192.168.1.4/32 dev eth0" in calico
    assert "route replace 169.254.1.1 dev eth0 scope link" in calico


def test_a_pod_is_wired_as_the_agent_says(tmp_path: Path) -> None:
    (tmp_path / "opt/cni/bin").mkdir(parents=True)
    (tmp_path / "opt/cni/bin/weave-net").touch()
    config = cni.CniConfig(tmp_path / "x", "weave", ({"type": "weave-net"},))
    ran: list[str] = []

    class Host:
        async def run(self, *argv: str, input: str, check: bool) -> Any:
            ran.append(input)
            return type("Result", (), {"ok": True})()

    def wire() -> cni.Wire:
        host: Any = Host()
        return asyncio.run(cni.wire(host, config, "cni-1", "0a1b2c3d4e", "default/p1", tmp_path))

    with pytest.raises(cni.CniError, match=r'type="weave-net" failed \(add\): .*127.0.0.1:6784'):
        wire()
    agent = wiring.AGENTS["weave-net"]
    share, gateway = IPv4Network("10.32.16.0/20"), IPv4Interface("10.32.16.1/12")
    wired = wiring.Wiring("bridge", share, gateway, 1376, "vethwepl", 7, "weave")
    wired.save(tmp_path / agent.file.lstrip("/"))
    assert wiring.Wiring.load(tmp_path / agent.file.lstrip("/")) == wired
    given = wire()
    assert given.address == "10.32.16.2"
    assert given.ipam == tmp_path / "var/lib/weave/addresses"
    assert "addr add 10.32.16.2/12 brd + dev eth0" in ran[0]
    assert "ip link set vethwepl0a1b2c3 master weave up" in ran[0]


def test_an_image_has_the_role_that_its_behaviour_registered() -> None:
    assert images.role_of("weaveworks/weave-kube:latest") == "weave"
    assert images.role_of("example.org:5000/mirror/weave-npc") == "weave-npc"
    assert images.role_of("busybox:1.36") == ""


def test_what_stands_in_is_one_line_of_the_hosts_release(tmp_path: Path) -> None:
    release = tmp_path / "lab-release"
    release.write_text('LAB="1"\nLAB_CLUSTER="x"\n')
    state_datapath(release, "this stands in for that")
    state_datapath(release, "VXLAN stands in for geneve")
    said = release.read_text()
    assert said == 'LAB="1"\nLAB_CLUSTER="x"\nDATAPATH="VXLAN stands in for geneve"\n'
    state_datapath(release, "")
    assert release.read_text() == 'LAB="1"\nLAB_CLUSTER="x"\n'
