"""The stages, one by one: plan, apply, check, plan again; and every plugin up to a PASS."""

from __future__ import annotations

import pytest
from kit_help import Kit, told
from lab_help import HOSTS

from kitlib.lab import verbs
from kitlib.model import Status, Verdict
from kitlib.session import Session

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

UNSET = (
    "rm -f /etc/modules-load.d/kubekit.conf /etc/sysctl.d/99-zz-kubekit.conf;"
    " echo 0 > /proc/sys/net/ipv4/ip_forward;"
    " echo '/swapfile none swap sw 0 0' >> /etc/fstab; swapon -a"
)
"""Undoes what the packages stage set."""

STEPS = ("reset", "packages", "init", "network", "join")


def what_a_change_would_change(session: Session) -> dict[str, tuple[object, ...]]:
    """Return what is true on the hosts, without clocks, counters, and pods that come up by then."""
    return {
        name: (here.packages, here.kubeadm, here.cni, here.kernel, here.leftovers.paths)
        for name, here in session.context.facts(fresh=True).items()
    }


def test_every_stage_does_its_plan_and_has_nothing_left_to_plan(kit: Kit) -> None:
    """A dry run shows what the apply then does and leaves the hosts alone; then nothing is left."""
    kit.stand("join")
    for name in STEPS:
        rebuild = name == "reset"
        if name == "packages":
            kit.everywhere("apt-get remove -y --allow-change-held-packages kubelet kubernetes-cni")
            kit.on(HOSTS[1], UNSET)
            kit.on(HOSTS[2], "apt-get purge -y containerd")
            verbs.break_(kit.state_dir, "br-netfilter-missing", HOSTS[1])
        with kit.session() as session:
            before = what_a_change_would_change(session)
        with kit.session(dry_run=True, rebuild=rebuild) as session:
            outcome = session.stage(name)
            assert outcome.verdict is Verdict.PLANNED
            assert outcome.changes, f"{name}: nothing planned"
            assert what_a_change_would_change(session) == before, f"{name}: the dry run changed it"
        dry = session.journal.path
        assert not told(dry, "change")

        with kit.session(rebuild=rebuild) as session:
            run = session.begin(name)
            run.preconditions()
            plan = run.plan()
            assert run.apply() == plan
            assert run.validate().verdict is Verdict.PASS
        assert told(dry, "planned") == told(session.journal.path, "planned")
        planned, changed = (told(session.journal.path, kind) for kind in ("planned", "change"))
        assert sorted(planned) == sorted(changed), name

        with kit.session() as session:
            outcome = session.stage(name)
            assert outcome.verdict is Verdict.PASS
            assert (name, outcome.changes) == (name, ())
            assert outcome.reason, f"{name} does not say why it does nothing"


@pytest.mark.parametrize(
    "plugin",
    [
        "calico",
        pytest.param("kube-router", marks=pytest.mark.thorough),
        pytest.param("flannel", marks=pytest.mark.thorough),
        pytest.param("kubenet", marks=pytest.mark.thorough),
    ],
)
def test_every_plugin_ends_in_pass_over_the_one_before(kit: Kit, plugin: str) -> None:
    other = "flannel" if plugin != "flannel" else "kube-router"
    kit.stand("network", overrides={"plugin": other})
    with kit.session(overrides={"plugin": plugin}) as session:
        outcomes = {name: session.stage(name) for name in (*STEPS, "ready", "verify")}
        session.finish(Verdict.PASS)
    assert outcomes["reset"].changes
    on_hosts = {change.target for change in outcomes["ready"].changes}
    assert on_hosts == (set(HOSTS) if plugin == "kubenet" else set())
    with kit.session(overrides={"plugin": plugin}) as session:
        assert session.stage("ready").changes == ()
    counters = [c for c in outcomes["verify"].checks if c.id == "reachability.device"]
    assert {c.target for c in counters} == set(HOSTS)
    assert all(c.status is Status.PASS for c in counters), counters
