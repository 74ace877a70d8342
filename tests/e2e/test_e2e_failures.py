"""What goes wrong: one message naming it, the exit code of its kind, the record, no false PASS."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from kit_help import Kit, lab_kit, lines, params_for, stage_ends, told
from lab_help import HOSTS, free_spec, until

from kitlib.lab import verbs
from kitlib.model import Verdict
from kitlib.stages import observe
from kitlib.stages.fetching import fetch

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL_PLANE, WORKER_1, WORKER_2 = HOSTS
NETWORKS = "/etc/cni/net.d"
ERROR_PAGE = "<!DOCTYPE html>\n<html><head><title>404: not found</title></head></html>\n"


def private_key(path: Path) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(path))
    path.chmod(0o600)
    return str(path)


def public_key() -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return " ".join(key.export_public_key().decode().split()[:2])


@pytest.fixture
def alone(tmp_path: Path) -> Kit:
    """Parameters whose hosts are not there: nothing listens on their ports."""
    kit = Kit(tmp_path, params_for(free_spec()))
    kit.state_dir.mkdir()
    private_key(kit.state_dir / "id_ed25519")
    return kit


@pytest.fixture(scope="class")
def bare(shared_kit: Kit) -> Kit:
    """A control plane without a network."""
    shared_kit.clean()
    shared_kit.stand("init")
    return shared_kit


class TestParameters:
    """Exit code 2, before anything is touched: not even a run begins."""

    def test_unknown_parameter(self, alone: Kit) -> None:
        kit = alone.with_params("typo", pod_cdir="10.9.0.0/16")
        kit.build().failed(2, r"typo\.yaml: pod_cdir", "pod_cidr")
        assert not kit.runs()

    def test_version_that_yaml_reads_as_a_number(self, alone: Kit) -> None:
        text = alone.file.read_text().replace("'1.22.3'", "1.30").replace('"1.22.3"', "1.30")
        kit = alone.with_text("number", text.replace(" 1.22.3", " 1.30"))
        assert "kubernetes_version: 1.30\n" in kit.file.read_text()
        kit.build().failed(2, "kubernetes_version", "quote")
        assert not kit.runs()

    def test_all_problems_in_one_message(self, alone: Kit) -> None:
        kit = alone.with_params("many", cluster="Bad_Name", pod_cidr="10.96.0.0/16", nonsense=1)
        done = kit.call("build", "{params}", "--plugin", "flanel")
        done.failed(2, "cluster", "pod_cidr", "nonsense", "flanel.*flannel")
        assert not kit.runs()

    def test_unknown_plugin(self, alone: Kit) -> None:
        alone.call("build", "{params}", "--plugin", "cilum").failed(2, "cilum", "calico")
        alone.call("plugins", "cilum").failed(2, "cilum", "calico")

    def test_unknown_stage(self, alone: Kit) -> None:
        alone.stage("netwrok").failed(2, "netwrok", "'network'")
        assert not alone.runs()

    def test_no_such_file_and_no_such_option(self, alone: Kit) -> None:
        alone.call("build", "{params}.none").failed(2, r"lab\.yaml\.none")
        alone.call("build", "{params}", "--dryrun").failed(2, "--dryrun", "--dry-run")

    def test_no_run_directory(self, alone: Kit, tmp_path: Path) -> None:
        alone.call("report", str(tmp_path)).failed(2, r"no run\.json")


class TestHosts:
    """Exit code 4: nobody there, or not who they should be."""

    def test_nothing_listens(self, alone: Kit) -> None:
        """By a notebook: the error keeps its kind on its way out of the kernel."""
        done = alone.build().failed(4, CONTROL_PLANE, "refused").kept()
        assert (done.run_dir / "report.html").is_file()
        assert "FAIL" in (done.run_dir / "report.html").read_text()
        assert set(stage_ends(done.run_dir)) == {"preflight"}
        assert (done.run_dir / "notebooks" / "01_preflight.ipynb").is_file()

    def test_host_that_is_down(self, kit: Kit) -> None:
        verbs.break_(kit.state_dir, "host-down", WORKER_2)
        done = kit.stage("preflight").failed(4, WORKER_2).kept()
        assert CONTROL_PLANE not in done.err
        assert "kit lab heal takes a host back" in done.err

    def test_wrong_client_key(self, kit: Kit, tmp_path: Path) -> None:
        wrong = kit.with_params("key", ssh={"identity_file": private_key(tmp_path / "id")})
        done = wrong.stage("preflight").failed(4, CONTROL_PLANE, "login").kept()
        assert "id" in done.err

    def test_missing_client_key(self, kit: Kit, tmp_path: Path) -> None:
        wrong = kit.with_params("nokey", ssh={"identity_file": str(tmp_path / "none")})
        wrong.stage("preflight").failed(4, str(tmp_path / "none")).kept()

    def test_unknown_host_key(self, kit: Kit, tmp_path: Path) -> None:
        wrong = kit.with_params("unknown", ssh={"known_hosts": str(tmp_path / "known_hosts")})
        wrong.stage("preflight").failed(4, CONTROL_PLANE, "key", "kit trust").kept()
        assert not (tmp_path / "known_hosts").exists()

    def test_changed_host_key(self, kit: Kit, tmp_path: Path) -> None:
        known = (kit.state_dir / "known_hosts").read_text().splitlines()
        port = kit.lab.port(WORKER_1)
        changed = [
            f"[127.0.0.1]:{port} {public_key()}" if f"]:{port} " in row else row for row in known
        ]
        assert changed != known
        (tmp_path / "known_hosts").write_text("\n".join(changed) + "\n")
        wrong = kit.with_params("changed", ssh={"known_hosts": str(tmp_path / "known_hosts")})
        wrong.stage("preflight").failed(4, WORKER_1, "changed|differs").kept()


class TestManifest:
    """What `network` is given is read before the cluster is touched."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (None, "plugin_manifest.*no such file"),
            (ERROR_PAGE, "not a Kubernetes object|not YAML"),
            ("kind: ConfigMap\n  data: [1\n", "not YAML"),
            ("", "no object"),
        ],
        ids=["missing", "error-page", "broken", "empty"],
    )
    def test_unusable_file(self, bare: Kit, tmp_path: Path, text: str | None, words: str) -> None:
        file = tmp_path / "plugin.yaml"
        if text is not None:
            file.write_text(text)
        done = bare.with_params("file", plugin_manifest=str(file)).stage("network")
        done.failed(2, str(file), words)
        assert not told(done.run_dir, "change")

    def test_address_without_a_manifest(self, bare: Kit) -> None:
        source = bare.params["plugin_source"]
        kit = bare.with_params("address", plugin_manifest=f"{source}/none.yaml")
        done = kit.stage("network").failed(2, "none.yaml", "404|Not Found").kept()
        assert not told(done.run_dir, "change")

    def test_missing_file_stops_a_build_before_anything_is_changed(self, bare: Kit) -> None:
        kit = bare.with_params("early", plugin_manifest="/nonexistent/plugin.yaml")
        done = kit.build().failed(2, "/nonexistent/plugin.yaml")
        assert not told(done.run_dir, "change")

    def test_one_document_is_refused(self, bare: Kit, kit: Kit, tmp_path: Path) -> None:
        """The nodes turn Ready all the same; nothing says PASS until the whole is applied."""
        text = fetch(f"{kit.params['plugin_source']}/flannel.yaml")
        file = tmp_path / "flannel.yaml"
        gizmo = "apiVersion: networking.example.com/v1\nkind: Gizmo\nmetadata: {name: g}\n"
        file.write_text(f"{text}\n---\n{gizmo}")
        limits = {"ready": 20, "verify": 8}
        partly = kit.with_params("partly", plugin_manifest=str(file), timeouts=limits)
        done = partly.stage("network").failed(6, "kubectl apply", 'no matches for kind "Gizmo"')
        done.kept()
        partly.stand("join", first="join")
        until(lambda: kit.kubectl("get nodes --no-headers").count(" Ready") == 3, 30)
        for name in ("ready", "verify"):
            done = partly.stage(name).failed(8, "Gizmo", "every object of the plugin's manifest")
            done.kept()
            assert stage_ends(done.run_dir)[name]["verdict"] == "FAIL"
        assert not [name for name in kit.namespaces() if "kit-diagnose" in name]


class TestTraces:
    """What another plugin left: found where it is, and named."""

    def test_before_a_build_it_is_removed(self, kit: Kit) -> None:
        kit.clean()
        kit.on(WORKER_1, f"mkdir -p {NETWORKS}; echo '{{}}' > {NETWORKS}/10-calico.conflist")
        kit.on(WORKER_2, "ip link add kube-bridge type bridge; ip link add cni0 type bridge")
        done = kit.stage("reset").passed()
        changes = dict(told(done.run_dir, "change"))
        assert "10-calico.conflist" in changes[WORKER_1]
        assert "kube-bridge" in changes[WORKER_2]
        assert "cni0" in changes[WORKER_2]
        assert kit.on(WORKER_1, f"ls {NETWORKS}") == ""
        assert "bridge" not in kit.on(WORKER_2, "ip -o link")

    def test_a_control_plane_without_kubeadm_is_reset_by_the_runtime(self, kit: Kit) -> None:
        """Its containers run on when the packages are removed, and would be in init's way."""
        kit.stand("init")
        kit.on(CONTROL_PLANE, "apt-get purge -y --allow-change-held-packages kubeadm kubelet")
        assert "etcd" in kit.on(CONTROL_PLANE, "crictl ps")
        done = kit.stage("reset", "--rebuild").passed()
        whats = [what for host, what in told(done.run_dir, "change") if host == CONTROL_PLANE]
        assert any("kubeadm itself is not installed" in what for what in whats), whats
        left = "crictl pods -q; ss -Hltn sport = :6443; ls /etc/kubernetes /var/lib/etcd 2>&1 || :"
        assert "No such file" in kit.on(CONTROL_PLANE, left)
        assert kit.on(CONTROL_PLANE, left).count("\n") <= 2, kit.on(CONTROL_PLANE, left)
        kit.stand("init")

    def test_file_of_another_plugin_in_a_cluster(self, kit: Kit) -> None:
        kit.stand("join")
        kit.stage("ready").passed()
        stale = f"{NETWORKS}/05-weave.conflist"
        kit.on(
            WORKER_1,
            f"cp {NETWORKS}/10-flannel.conflist {stale}; sed -i s/flannel/weave-net/g {stale}",
        )
        soon = kit.with_params("soon", timeouts={"ready": 8, "verify": 8})
        try:
            for name in ("ready", "verify"):
                soon.stage(name).failed(8, f"{WORKER_1}.*05-weave.conflist").kept()
        finally:
            kit.on(WORKER_1, f"rm {stale}")

    def test_interface_of_another_plugin_in_a_cluster(self, kit: Kit) -> None:
        kit.stand("join")
        kit.on(WORKER_2, "ip link add kube-bridge type bridge")
        try:
            for name in ("ready", "verify"):
                kit.stage(name).failed(8, f"{WORKER_2}.*kube-bridge").kept()
        finally:
            kit.on(WORKER_2, "ip link delete kube-bridge")
        kit.stage("ready").passed()


class TestGuard:
    def test_another_plugin_needs_confirmation(self, kit: Kit) -> None:
        """Exit code 3, with the CA's hash to confirm by; nothing is changed."""
        kit.stand("join")
        state = "get pods,nodes,ds -A -o jsonpath='{.items[*].metadata.uid}'"
        before = kit.kubectl(state)
        strict = kit.with_params("strict", confirm_reset="")
        done = strict.stage("reset", "--plugin", "kube-router")
        done.failed(3, "flannel", "kube-router", "3 nodes")
        done.kept()
        assert not told(done.run_dir, "change")
        with kit.session() as session:
            ca_hash = session.context.facts()[CONTROL_PLANE].kubeadm.ca_hash
            session.finish(Verdict.PASS)
        assert ca_hash.startswith("sha256:")
        assert f'confirm_reset: "{ca_hash}"' in done.err
        assert kit.kubectl(state) == before
        by_hash = kit.with_params("by-hash", confirm_reset=ca_hash)
        by_hash.stage("reset", "--plugin", "calico", "--dry-run").passed()
        wrong = kit.with_params("wrong-hash", confirm_reset="sha256:" + "0" * 64)
        wrong.stage("reset", "--rebuild").failed(3, ca_hash)


class TestCommands:
    def test_plugin_that_crash_loops(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also seen between two crashes, when its pod is Running and available."""
        monkeypatch.setattr(observe, "STEADY_SECONDS", 3)
        kit.clean()
        kit.stand("init")
        verbs.break_(kit.state_dir, "plugin-crashloop", CONTROL_PLANE)
        done = kit.stage("network").failed(8, "kube-flannel-ds").kept()
        assert re.search("CrashLoopBackOff|restarts, then", f"{done.text}{lines(done.run_dir)}")
        verbs.heal(kit.state_dir)
        kit.stand("join")
        verbs.break_(kit.state_dir, "plugin-crashloop", WORKER_1)
        done = kit.stage("ready").failed(8, "kube-flannel-ds").kept()

    def test_init_that_did_not_end(self, kit: Kit) -> None:
        """The API answers and the files are there, but not what init makes last."""
        kit.stand("init")
        kit.kubectl("-n kube-system delete daemonset kube-proxy")
        done = kit.stage("init").failed(8, "no DaemonSet kube-proxy", "run the reset stage").kept()
        assert not told(done.run_dir, "change")
        done = kit.stage("reset").passed()
        whys = [line["data"]["what"] for line in lines(done.run_dir) if line["kind"] == "change"]
        assert any("did not end: no DaemonSet kube-proxy" in why for why in whys), whys

    def test_init_without_images(self, tmp_path: Path) -> None:
        """On a host of its own: images that are there already need no pulling."""
        with lab_kit(tmp_path, hosts=HOSTS[:1]) as kit:
            kit.stand("packages")
            verbs.break_(kit.state_dir, "image-pull-fails", CONTROL_PLANE)
            done = kit.stage("init").failed(6, f"{CONTROL_PLANE}: kubeadm init", "ImagePull")
            assert "what to do:" in done.kept().err
            verbs.heal(kit.state_dir)
            kit.stage("reset").passed()
            kit.stage("init").passed()


@pytest.fixture
def taken(alone: Kit) -> Iterator[int]:
    port = alone.params["hosts"][1]["port"]
    with socket.create_server(("127.0.0.1", port)):
        yield port


class TestLab:
    def test_port_is_taken(self, alone: Kit, taken: int) -> None:
        alone.call("lab", "up", "--params", "{params}").failed(10, str(taken), "in use|taken")
        alone.call("lab", "status", "--params", "{params}").passed()

    def test_user_namespaces_are_refused(self, alone: Kit) -> None:
        """Really: a user namespace in which no further ones may be made."""
        inside = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
        wrap = ("unshare", "--user", "--map-root-user", "sh", "-c", inside, "sh")
        done = alone.start("lab", "up", "--params", "{params}", wrap=wrap).wait()
        done.failed(10, "user namespaces?|max_user_namespaces", "sysctl")
