"""Where packages come from, on the lab: its apt is emulated, files and commands are not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit_help import Kit
from lab_help import HOSTS
from mirror import MIRROR, key_server

from kitlib.errors import CommandError, ParamsError, PreconditionError
from kitlib.lab import verbs
from kitlib.model import Verdict

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

FILES = "/etc/apt/*/*kubekit* /etc/systemd/system/containerd.service.d/kubekit-*"


@pytest.fixture
def clean(kit: Kit) -> Iterator[Kit]:
    """Clean hosts, which afterwards have nothing of these tests."""
    kit.clean()
    yield kit
    kit.everywhere(f"rm -f {FILES}")


def test_a_mirror_behind_a_proxy_is_set_up_used_and_then_left_alone(
    clean: Kit, tmp_path: Path
) -> None:
    proxy = {"http": "http://me:hunter2@10.77.0.1:3128"}
    with key_server(tmp_path, "v1.30") as mirror:
        packages = {"source": "mirror", "mirror": mirror, "key_fingerprint": MIRROR}
        kit = clean.with_params(
            "mirror", kubernetes_version="1.30.1", packages=packages, proxy=proxy
        )
        with kit.session() as session:
            first = session.stage("packages")
            assert first.verdict is Verdict.PASS
            assert len(first.changes) >= 7 * len(HOSTS)
            again = session.stage("packages")
        assert again.changes == ()
    record = [path for path in session.journal.path.rglob("*") if path.is_file()]
    assert len(record) > 10
    assert not [path for path in record if b"hunter2" in path.read_bytes()]
    where = kit.everywhere(f"apt-cache policy kubelet; apt-mark showhold; cat {FILES}")
    for host, text in where.items():
        assert "Installed: 1.30.1-1.1" in text, host
        assert {"kubeadm", "kubectl", "kubelet", "kubernetes-cni"} <= set(text.split()), host
        assert f"{mirror}/core:/stable:/v1.30/deb/ /" in text, host
        assert "BEGIN PGP PUBLIC KEY BLOCK" in text, host
        assert "Pin: version 1.30.1-*" in text, host
        assert 'Acquire::http::Proxy "http://me:hunter2@10.77.0.1:3128";' in text, host
        assert 'Environment="HTTP_PROXY=http://me:hunter2@10.77.0.1:3128"' in text, host
    modes = kit.everywhere("stat -c %a /etc/apt/apt.conf.d/95kubekit-proxy")
    assert set(modes.values()) == {"600\n"}
    # Without the proxy in the parameters its files go, and nothing else.
    with clean.with_params("no-proxy", kubernetes_version="1.30.1").session() as session:
        changes = session.stage("packages").changes
    assert {str(each.command) for each in changes if each.what.startswith("no proxy")} == {
        "rm -f /etc/apt/apt.conf.d/95kubekit-proxy",
        "rm -f /etc/systemd/system/containerd.service.d/kubekit-proxy.conf",
    }
    assert len(changes) == 3 * len(HOSTS), "besides, containerd is restarted"


def test_a_version_that_is_not_offered_stops_before_anything_is_touched(clean: Kit) -> None:
    kit = clean.with_params("absent", kubernetes_version="1.22.99")
    with (
        kit.session() as session,
        pytest.raises(PreconditionError, match=r"got 1\.\d+.*source: community") as stopped,
    ):
        session.stage("packages")
    assert all(host in str(stopped.value) for host in HOSTS)
    assert all(
        f'"kind":"{kind}"' not in (session.journal.path / "journal.jsonl").read_text()
        for kind in ("change", "planned")
    )


BARE = (
    "for i in $(ctr -n k8s.io images ls -q); do ctr -n k8s.io images rm $i; done;"
    " apt-get purge -y --allow-change-held-packages kubelet kubeadm kubectl kubernetes-cni"
    " cri-tools containerd runc conntrack ebtables ethtool socat"
)
"""Leaves a host with less than the smallest Debian."""


@pytest.mark.parametrize("upto", ["init", pytest.param("verify", marks=pytest.mark.thorough)])
def test_a_bundle_and_then_a_build_whose_hosts_have_no_route_out(
    clean: Kit, tmp_path: Path, upto: str
) -> None:
    clean.stand("packages", first="packages")
    target = tmp_path / "bundle"
    made = clean.call("bundle", "{params}", str(target)).passed()
    assert "emulated" in made.out, "a bundle of the lab must say what it is"
    check = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=target, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr
    data = json.loads((target / "bundle.json").read_text())
    packages = {each["name"]: each["version"] for each in data["packages"]}
    assert {"kubelet", "kubeadm", "kubectl", "kubernetes-cni", "cri-tools", "containerd", "runc",
            "conntrack", "socat"} <= set(packages)  # fmt: skip
    assert packages["kubelet"] == "1.22.3-00"
    images = {each["name"] for each in data["images"]}
    assert {"k8s.gcr.io/pause:3.5", "k8s.gcr.io/kube-apiserver:v1.22.3"} <= images
    assert any("flannel" in image for image in images)
    assert {"docker.io/library/busybox:1.36", "docker.io/nicolaka/netshoot:v0.13"} <= images
    clean.call("bundle", "{params}", str(target)).failed(2, "not an empty directory")

    clean.everywhere(BARE)
    for host in HOSTS:
        verbs.break_(clean.state_dir, "no-route-out", host)
    with clean.session() as session, pytest.raises(CommandError, match="no route to host"):
        session.stage("packages")

    given = {"source": "directory", "directory": str(target)}
    kit = clean.with_params("bundled", packages=given, plugin_source="")
    kit.stand(upto, first="preflight")
    with kit.session() as session:
        assert session.stage("packages").changes == ()
    left = kit.everywhere("ls -d /var/cache/kubekit* 2>/dev/null || echo nothing")
    assert set(left.values()) == {"nothing\n"}

    archive = target / data["images"][0]["file"]
    archive.write_text("damaged")
    with kit.session() as session, pytest.raises(ParamsError, match=archive.name):
        session.stage("packages")
    other = clean.with_params("other", packages=given, plugin_source="", plugin="calico")
    with other.session() as session, pytest.raises(PreconditionError, match=r"1\.22\.3, calico"):
        session.stage("packages")
