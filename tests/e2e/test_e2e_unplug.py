"""A plugin leaves a cluster that goes on: `kit unplug`; the next one finds clean hosts."""

from __future__ import annotations

import pytest
from kit_help import Kit, by_killed_runs, stage_ends, told
from lab_help import HOSTS, until

from kitlib import unplug
from kitlib.model import Status, Verdict

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(400)]

CONTROL_PLANE = HOSTS[0]
LOOK = (
    "ip -br link | cut -d' ' -f1 | cut -d@ -f1 | grep -v ^veth; ip route; "
    "nft list tables | grep -v kube-proxy; ls -A /etc/cni/net.d /opt/cni/bin; "
    "ls -A /etc/systemd/system /etc/kubekit | grep -E 'kubekit-|kubenet|flannel'; "
    "ls -A /var/lib/cni/networks; ls -d /run/flannel 2>&1; true"
)
"""What a host has of networks; the veth end of a pod that nothing makes anew is the pod's own."""


KILLING = ("end pods", "delete DaemonSet", "delete the interfaces")
"""The changes behind which a run is killed, one after another."""


def unplugged_by_killed_runs(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take the plugin out by runs that are killed; return what they changed in the cluster."""
    done, outcome = by_killed_runs(kit, monkeypatch, KILLING, unplug.unplug)
    assert outcome.verdict is Verdict.PASS
    assert {c.id for c in outcome.checks} == {"unplug.objects", "unplug.clean", "unplug.not-ready"}
    assert all(check.status is Status.PASS for check in outcome.checks), outcome.checks
    return done


def test_a_plugin_goes_by_killed_runs_and_the_next_one_starts_from_clean_hosts(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.stand("init")
    clean = kit.everywhere(LOOK)
    kit.stand("join")
    alone = kit.kubectl("run alone --image=busybox:1.36 --command -- sleep 1000")
    assert "created" in alone
    until(lambda: "10.244." in kit.kubectl("get pod alone -o wide"), 60)

    unnamed = kit.with_params("unnamed", confirm_reset="")
    refused = unnamed.call("unplug", "{params}").failed(3, "without a word", r'--confirm "sha256:')
    assert "stays NotReady: default/alone" in refused.err
    assert told(refused.run_dir, "change") == []
    planned = kit.call("unplug", "{params}", "--dry-run").passed()
    assert told(planned.run_dir, "change") == []
    assert list(stage_ends(planned.run_dir)) == ["unplug"]

    done = unplugged_by_killed_runs(kit, monkeypatch)
    assert sum(what.startswith("delete DaemonSet") for what in done) == 1
    assert kit.everywhere(LOOK) == clean
    assert "kube-flannel" not in kit.kubectl("get all,clusterroles,namespaces -A")
    nodes = kit.kubectl("get nodes -o jsonpath='{.items[*].spec.taints[*].key}'")
    assert "kubekit" not in nodes
    assert kit.kubectl("get nodes").count("NotReady") == len(HOSTS)
    again = kit.call("unplug", "{params}").passed()
    assert told(again.run_dir, "change") == []
    assert "nothing to do: no trace of Flannel" in again.out

    with kit.session(overrides={"plugin": "kubenet"}) as session:
        for name in ("network", "join", "ready", "verify"):
            session.stage(name)
        session.finish(Verdict.PASS)
    gone = kit.call("unplug", "{params}", "--plugin", "kubenet").passed()
    assert {host for host, _ in told(gone.run_dir, "change")} == {"cluster", *HOSTS}
    assert kit.everywhere(LOOK) == clean
    kit.kubectl("delete pod alone --wait=false --ignore-not-found")


def test_a_finalizer_that_nobody_serves_is_named_and_the_same_command_goes_on(kit: Kit) -> None:
    kit.stand("network")
    hold = '{"metadata":{"finalizers":["example.org/hold"]}}'
    kit.kubectl(f"-n kube-flannel patch configmap kube-flannel-cfg -p '{hold}'")
    short = kit.with_params("short", timeouts={"unplug": 3})
    held = short.call("unplug", "{params}").failed(
        9, "kube-flannel-cfg .finalizers: example.org/hold", "take the finalizer off"
    )
    assert "taint" in told(held.run_dir, "change")[-1][1], "nodes take pods again"
    kit.kubectl(
        "-n kube-flannel patch configmap kube-flannel-cfg --type=merge "
        '-p \'{"metadata":{"finalizers":null}}\''
    )
    kit.call("unplug", "{params}").passed()


def test_hosts_have_a_way_back_while_ovn_comes_and_nothing_of_it_stays(kit: Kit) -> None:
    """In the lab OVN leaves the hosts' address where it is; the kit does not know that."""
    kit.stand("init")
    with kit.session(overrides={"plugin": "ovn"}) as session:
        outcomes = {name: session.stage(name) for name in ("reset", "packages", "init")}
        outcomes |= {name: session.stage(name) for name in ("network", "join", "ready", "verify")}
        session.finish(Verdict.PASS)
    told_of = {name: [(c.target, c.what) for c in each.changes] for name, each in outcomes.items()}
    network = [(host, what.split(" ")[0]) for host, what in told_of["network"]]
    assert network[0] == (CONTROL_PLANE, "arm")
    assert network[-1] == (CONTROL_PLANE, "call")
    armed = {host for host, what in told_of["join"] if what.startswith("arm a way back")}
    assert armed == {host for host, _ in told_of["ready"]} == {*HOSTS[1:]}
    look = "ls /etc/kubekit /etc/systemd/system | grep -E 'way-back|host-network' || true"
    assert set(kit.everywhere(look).values()) == {"host-network.sh\n"}
    with kit.session(overrides={"plugin": "ovn"}) as session:
        assert session.stage("network").changes == session.stage("ready").changes == ()
    kit.call("unplug", "{params}", "--plugin", "ovn").passed()
    assert set(kit.everywhere(look).values()) == {""}
    marks = kit.kubectl("get nodes -o jsonpath='{.items[*].metadata.labels}'")
    assert "k8s.ovn.org" not in marks
