"""Where packages come from, on the lab: its apt is emulated, files and commands are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit_help import Kit
from lab_help import HOSTS
from mirror import MIRROR, key_server

from kitlib.errors import PreconditionError
from kitlib.model import Verdict

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

FILES = "/etc/apt/*/kubekit-*"


@pytest.fixture
def clean(kit: Kit) -> Iterator[Kit]:
    """Clean hosts, which afterwards have nothing of these tests."""
    kit.clean()
    yield kit
    kit.everywhere(f"rm -f {FILES}")


def test_a_mirror_is_set_up_used_and_then_left_alone(clean: Kit, tmp_path: Path) -> None:
    with key_server(tmp_path, "v1.30") as mirror:
        packages = {"source": "mirror", "mirror": mirror, "key_fingerprint": MIRROR}
        kit = clean.with_params("mirror", kubernetes_version="1.30.1", packages=packages)
        with kit.session() as session:
            first = session.stage("packages")
            assert first.verdict is Verdict.PASS
            assert len(first.changes) >= 5 * len(HOSTS)
            again = session.stage("packages")
        assert again.changes == ()
    where = kit.everywhere("apt-cache policy kubelet; apt-mark showhold; cat /etc/apt/*/kubekit-*")
    for host, text in where.items():
        assert "Installed: 1.30.1-1.1" in text, host
        assert {"kubeadm", "kubectl", "kubelet", "kubernetes-cni"} <= set(text.split()), host
        assert f"{mirror}/core:/stable:/v1.30/deb/ /" in text, host
        assert "BEGIN PGP PUBLIC KEY BLOCK" in text, host
        assert "Pin: version 1.30.1-*" in text, host


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
