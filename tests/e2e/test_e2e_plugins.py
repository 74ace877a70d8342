"""Each plugin in a lab of three hosts: built by the stages, proven by packets, without trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit_help import Kit, lines
from lab_help import HOSTS

from kitlib import plugins
from kitlib.errors import PreconditionError
from kitlib.model import Status, Verdict
from kitlib.runs import load_run

pytestmark = [pytest.mark.lab, pytest.mark.thorough, pytest.mark.timeout(400)]

KUBERNETES = {
    "cilium": "1.36.2",
    "cni-genie": "1.21.14",
    "contrail": "1.28.15",
    "contiv": "1.15.12",
    "nuage": "1.18.20",
    "ovn": "1.36.2",
    "romana": "1.15.12",
    "weave": "1.36.2",
}
"""Plugin -> the newest Kubernetes that it fits and the lab has."""

STATE = (
    "ip -o link show | awk -F': ' '{print $2}' | sort; ls -A /etc/cni/net.d;"
    " nft list tables; ip route show; ip rule show"
)
"""What a host shows of networks; the same before a build and after the reset."""

REAL = frozenset({"cni-genie", "flannel", "kube-router", "kubenet", "romana"})
"""Plugins whose datapath in the lab is what upstream's manifest would make of it."""


def agents_started_anew(kit: Kit, plugin: str) -> None:
    """Delete the pods of the plugin's DaemonSets: new ones take over what is on the hosts."""
    loads = [load for load in plugins.get(plugin).workloads if load.kind == "DaemonSet"]
    for load in loads:
        labels = ",".join(f"{key}={value}" for key, value in load.selector.items())
        kit.kubectl(f"delete pod -n {load.namespace} -l {labels}")
    for load in loads:  # not by `rollout status`: Contiv's are updated on delete only
        name = f"-n {load.namespace} daemonset/{load.name}"
        wanted = kit.kubectl(f"get {name} -o jsonpath={{.status.desiredNumberScheduled}}")
        kit.kubectl(f"wait {name} --for=jsonpath={{.status.numberReady}}={wanted} --timeout=60s")


@pytest.mark.parametrize("plugin", sorted(KUBERNETES))
def test_a_plugin_builds_carries_packets_and_leaves_nothing(kit: Kit, plugin: str) -> None:
    kit.clean()
    clean = kit.everywhere(STATE)
    wanted = {"plugin": plugin, "kubernetes_version": KUBERNETES[plugin]}
    with kit.session(overrides=wanted) as session:
        for stage in ("reset", "packages", "init", "network", "join", "ready"):
            session.stage(stage)
        verified = session.stage("verify")
        session.finish(Verdict.PASS)
    assert verified.verdict is Verdict.PASS

    pairs = [check for check in verified.checks if check.id == "reachability.pair"]
    assert len(pairs) == len(HOSTS) * (len(HOSTS) - 1)
    counters = [check for check in verified.checks if check.id == "reachability.device"]
    assert {check.target for check in counters} == set(HOSTS)
    assert all(check.status is Status.PASS for check in (*pairs, *counters))
    provenance = load_run(session.journal.path).provenance
    assert bool(provenance.stands_in) == (plugin not in REAL)
    assert provenance.stands_in in str(provenance)

    agents_started_anew(kit, plugin)
    with kit.session(overrides=wanted) as session:
        assert session.stage("verify").verdict is Verdict.PASS
        session.finish(Verdict.PASS)

    with kit.session(overrides=wanted, rebuild=True) as session:
        session.stage("reset")
        session.finish(Verdict.PASS)
    assert kit.everywhere(STATE) == clean
    entry = plugins.get(plugin)
    paths = [path for path in entry.leftovers.paths if not path.startswith("/opt/cni/bin")]
    for host in HOSTS:
        assert not kit.on(host, f"ls -d {' '.join(paths)} 2>/dev/null || true")
        assert "DATAPATH" not in kit.on(host, "cat /etc/lab-release")


def test_programs_that_a_plugin_took_away_are_there_for_the_next_one(kit: Kit) -> None:
    """Nuage's installer empties /opt/cni, where kubernetes-cni had put its programs."""
    kit.clean()
    token = "nobody-may-read-this-token"
    wanted = {
        "plugin": "nuage",
        "kubernetes_version": KUBERNETES["nuage"],
        "plugin_parameters": {"token": token},
    }
    with kit.session(overrides=wanted) as session:
        for stage in ("reset", "packages", "init", "network"):
            session.stage(stage)
        session.finish(Verdict.PASS)
    first = HOSTS[0]
    assert "bridge" not in kit.on(first, "ls /opt/cni/bin")
    # The token is a secret: in the cluster's own object and nowhere else.
    assert token in kit.kubectl("-n kube-system get ds nuage-cni-ds -o yaml")
    kept = [path for path in session.journal.path.rglob("*") if path.is_file()]
    assert not [path for path in kept if token.encode() in path.read_bytes()]
    assert "nuage" not in kit.on(first, "ls /etc/kubekit")
    with kit.session(overrides={"plugin": "flannel"}) as session:
        session.stage("reset")
        again = session.stage("packages")
        session.finish(Verdict.PASS)
    assert again.verdict is Verdict.PASS
    assert {"bridge", "host-local", "portmap"} <= set(kit.on(first, "ls /opt/cni/bin").split())


TWO_NETWORKS = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, annotations: {{cni: "{cni}"}}}}
spec:
  nodeName: worker-1
  terminationGracePeriodSeconds: 0
  containers: [{{name: one, image: "busybox:1.36", command: [sleep, "600"]}}]
"""


def test_genie_gives_a_pod_the_networks_that_it_names(kit: Kit) -> None:
    kit.clean()
    wanted = {"plugin": "cni-genie", "kubernetes_version": KUBERNETES["cni-genie"]}
    with kit.session(overrides=wanted) as session:
        for stage in ("reset", "packages", "init", "network", "join", "ready"):
            session.stage(stage)
        session.finish(Verdict.PASS)
    plane, kubectl = HOSTS[0], "export KUBECONFIG=/etc/kubernetes/admin.conf; kubectl"
    for name, cni in (("two", "flannel,flannel"), ("none", "weave")):
        text = TWO_NETWORKS.format(name=name, cni=cni)
        kit.on(plane, f"{kubectl} apply -f - <<'END'\n{text}END")
    kit.on(plane, f"{kubectl} wait --for=condition=Ready pod/two --timeout=60s")
    shown = kit.on(plane, f"{kubectl} exec two -- ip -4 -o addr")
    devices = {line.split()[1]: line.split()[3].split("/")[0] for line in shown.splitlines()}
    assert {"eth0", "eth1"} <= set(devices)
    assert devices["eth0"] != devices["eth1"]
    status = kit.on(plane, f"{kubectl} get pod two -o jsonpath={{.status.podIP}}")
    assert status == devices["eth0"]
    for device in ("eth0", "eth1"):
        assert "1 received" in kit.on("worker-1", f"ping -c 1 -W 2 {devices[device]}")
    events = kit.on(plane, f"{kubectl} get events --field-selector involvedObject.name=none")
    assert "no configuration of plugin 'weave'" in events


def test_settings_of_the_parameters_reach_the_pods(kit: Kit) -> None:
    kit.clean()
    wanted = {
        "plugin": "flannel",
        "pod_cidr": "10.20.0.0/16",
        "plugin_backend": "host-gw",
        "pod_mtu": 1400,
        "image_registry": "registry.example.net:5000/mirror",
    }
    with kit.session(overrides=wanted) as session:
        for stage in ("reset", "packages", "init", "network", "join", "ready"):
            session.stage(stage)
        assert session.stage("verify").verdict is Verdict.PASS
        again = session.stage("network")
        session.finish(Verdict.PASS)
    assert again.changes == (), "what was set is what is compared"
    said = [text for _, text in notices(session.journal.path)]
    assert [text.rpartition(" (")[2] for text in said] == [
        "pod_cidr)", "pod_mtu)", "plugin_backend)", "image_registry)", "image_registry)"
    ]  # fmt: skip
    for host in HOSTS:
        assert "mtu 1400" in kit.on(host, "ip -o link show cni0")
        assert "flannel.1" not in kit.on(host, "ip -o link show")
    images = "jsonpath={.spec.template.spec.containers[*].image}"
    found = kit.kubectl(f"-n kube-flannel get ds kube-flannel-ds -o {images}")
    assert found.startswith("registry.example.net:5000/mirror/flannel-io/flannel:")


def test_an_old_manifest_is_refused_and_goes_on_where_that_is_allowed(kit: Kit) -> None:
    kit.clean()
    wanted = {"plugin": "contiv", "kubernetes_version": "1.22.3"}
    with kit.session(overrides=wanted) as session:
        for stage in ("reset", "packages", "init"):
            session.stage(stage)
        with pytest.raises(
            PreconditionError, match=r"extensions/v1beta1 \(gone since 1.16\)"
        ) as caught:
            session.stage("network")
        session.finish(Verdict.FAIL)
    assert "the newest Kubernetes that serves all of it is 1.15" in caught.value.remedy
    assert kit.kubectl("-n kube-system get ds -o name").split() == ["daemonset.apps/kube-proxy"]
    with kit.session(overrides={**wanted, "allow_unsupported": True}) as session:
        session.stage("network")
        session.finish(Verdict.PASS)
    said = " ".join(text for _, text in notices(session.journal.path))
    assert "unsupported, and allowed by allow_unsupported: Contiv" in said
    assert "DaemonSet kube-system/contiv-netplugin: extensions/v1beta1 -> apps/v1" in said


def notices(run_dir: Path) -> list[tuple[str, str]]:
    """Return (stage, text) of what was said before changes were made."""
    found = [line for line in lines(run_dir) if line["kind"] == "notice"]
    return [(line["stage"], line["data"]["text"]) for line in found]
