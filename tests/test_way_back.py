"""The way back from a plugin that moves a host's address: who gets one, when, and when it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from factory import host_facts

from kitlib.errors import ConnectError, DeadlineError, PreconditionError
from kitlib.facts import Route
from kitlib.model import CLUSTER
from kitlib.plugins import get
from kitlib.software.way_back import NETWORK, UNIT, network_script, own_network, timer_script
from kitlib.stages import get_stage, way_back
from kitlib.stages.leftovers import Whose, removals

OVN, FLANNEL = get("ovn"), get("flannel")


class Context:
    """One host with OVN to come; what lies on it, and what its pods say."""

    def __init__(self, plugin: Any = OVN, *, kept: str = "", taken: bool = False) -> None:
        self.plugin = plugin
        here = host_facts("w-1")
        address = next(
            a for link in here.links or () if link.name == "eth0" for a in link.addresses
        )
        address = address.partition("/")[0]
        self.hosts = [SimpleNamespace(name="w-1", node_address=address, address=address)]
        self.here = here
        timeouts = SimpleNamespace(revert=600.0, ready=1.0)
        self.params = SimpleNamespace(timeouts=timeouts)
        self.kept, self.taken = kept, taken
        self.pods: list[Any] = []
        self.reached: list[str] = []
        self.cut = False
        self.doors = SimpleNamespace(reach_anew=self._reach)
        self.read_only = False

    def facts(self) -> Any:
        return {"w-1": self.here}

    def read(self, host: str, cmd: Any) -> Any:
        words = [str(word) for word in cmd.argv]
        ok = self.taken if words[0] == "test" else bool(self.kept)
        return SimpleNamespace(ok=ok, stdout=self.kept if words[0] == "cat" else "")

    def kube(self, *, wait: float) -> Any:
        return SimpleNamespace(items=lambda path, **query: self.pods)

    def waiting(self, host: str, text: str) -> None:
        pass

    def _reach(self, host: str) -> None:
        self.reached.append(host)
        if self.cut:
            raise ConnectError(f"{host}: cannot connect")


class Hands:
    def __init__(self) -> None:
        self.ran: list[str] = []
        self.put_there: dict[str, str] = {}

    def run(self, host: str, cmd: Any) -> None:
        self.ran.append(cmd.label or str(cmd))

    def put(self, host: str, content: str, path: str) -> None:
        self.put_there[path] = content


def test_only_for_a_plugin_that_moves_the_address() -> None:
    ctx: Any = Context(FLANNEL)
    assert way_back.arms(ctx, ["w-1"]) == way_back.call_offs(ctx, ["w-1"]) == []
    assert get_stage("ready").only_looks(ctx)
    ctx.plugin = OVN
    (action,) = way_back.arms(ctx, ["w-1"])
    assert "after 600 s, or at the next start" in action.what
    assert "on eth0" in action.what
    assert not get_stage("ready").only_looks(ctx)


def test_what_is_kept_holds_while_the_address_is_where_the_plugin_put_it() -> None:
    hands: Any = Hands()
    kept = "dev=ens3\naddress 192.0.2.7/24\n"
    ctx: Any = Context(kept=kept)
    way_back.arms(ctx, ["w-1"])[0].do(hands)  # type: ignore[misc]
    assert hands.put_there[NETWORK] == kept
    assert any(UNIT in line for line in hands.ran)
    fresh: Any = Context(kept="dev=eth0\naddress 198.51.100.9/24\n")
    way_back.arms(fresh, ["w-1"])[0].do(hands)  # type: ignore[misc]
    assert "198.51.100.9" not in hands.put_there[NETWORK], "the host's address is another one now"
    none: Any = Context()
    none.hosts[0].node_address = "203.0.113.1"
    with pytest.raises(PreconditionError, match=r"no device carries 203\.0\.113\.1"):
        way_back.arms(none, ["w-1"])


def test_an_address_is_put_back_with_its_routes() -> None:
    here = host_facts("w-1")
    eth0 = next(link for link in here.links or () if link.name == "eth0")
    address = eth0.addresses[0].partition("/")[0]
    found = [
        Route("default", "192.0.2.254", "eth0", "static", "", "unicast"),
        Route("198.51.100.0/24", "192.0.2.253", "eth0", "static", "", "unicast"),
        Route("10.244.1.0/24", "", "cni0", "kernel", "", "unicast"),
    ]
    own = own_network(address, here.links, found)
    assert own is not None
    text = network_script(own)
    assert "way default 192.0.2.254" in text
    assert "way 198.51.100.0/24 192.0.2.253" in text
    assert "cni0" not in text
    assert own_network("203.0.113.1", here.links, found) is None
    timer = timer_script(OVN, 600)
    assert "sleep 600" in timer
    assert all(load.namespace in timer for load in OVN.workloads)


def pod(ready: str) -> Any:
    conditions = [{"type": "Ready", "status": ready}]
    meta = {"name": "ovnkube-node-x", "namespace": "ovn-kubernetes", "uid": "1"}
    return {"metadata": meta, "spec": {"nodeName": "w-1"}, "status": {"conditions": conditions}}


def test_it_is_called_off_when_the_pods_run_and_a_new_connection_works(monkeypatch: Any) -> None:
    monkeypatch.setattr(way_back, "SETTLED_SECONDS", 0.01)
    monkeypatch.setattr(way_back, "EVERY", 0.05)
    ctx: Any = Context()
    ctx.params.timeouts.ready = 0.2
    (action,) = way_back.call_offs(ctx, ["w-1"])
    hands: Any = Hands()
    with pytest.raises(DeadlineError, match="no pod of it is there"):
        action.do(hands)  # type: ignore[misc]
    ctx.pods = [pod("False")]
    with pytest.raises(DeadlineError, match="ovnkube-node-x is not Ready"):
        action.do(hands)  # type: ignore[misc]
    ctx.pods, ctx.cut = [pod("True")], True
    with pytest.raises(ConnectError, match="puts the address back within 600 s"):
        action.do(hands)  # type: ignore[misc]
    assert hands.ran == [], "it stays armed"
    ctx.cut, ctx.reached = False, []
    action.do(hands)  # type: ignore[misc]
    assert ctx.reached == ["w-1", "w-1"], "at once, and when the address has settled"
    assert hands.ran == [f"stop and remove {UNIT}"]


def test_a_host_that_took_its_way_back_is_named() -> None:
    ctx: Any = Context(taken=True)
    left = type(ctx.here.leftovers)
    fields = {f: getattr(ctx.here.leftovers, f) for f in left.__dataclass_fields__}
    leftovers = left(**{**fields, "units": (UNIT,)})
    ctx.here = SimpleNamespace(leftovers=leftovers)
    assert way_back.armed(ctx) == ["w-1"]
    with pytest.raises(PreconditionError, match="w-1: its way back from"):
        way_back.stop_where_taken(ctx, ["w-1"])
    way_back.stop_where_taken(ctx, ["w-2"])


def test_every_host_is_armed_before_the_plugin_is_applied() -> None:
    assert way_back.turns([CLUSTER, "cp", "w-1"], "cp") == [["w-1"], [CLUSTER], ["cp"]]


def test_the_address_goes_home_before_the_plugins_devices_go() -> None:
    here = host_facts(
        sections={
            "leftovers.network": f"{NETWORK}\n",
            "leftovers.units": f"{UNIT}\nkubekit-kubenet.service\n",
        }
    )
    whats = [action.what for action in removals("w-1", here, Whose(OVN, None, frozenset()))]
    assert whats[0].endswith(UNIT), "kubenet's unit is none of OVN's"
    assert whats[1].startswith("put the host's own address")
    assert not removals("w-1", here, Whose(get("calico"), None, frozenset()))
    every = [action.what for action in removals("w-1", here, Whose(None, None, frozenset()))]
    assert every[1].startswith("put the host's own address")
