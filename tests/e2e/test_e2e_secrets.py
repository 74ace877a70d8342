"""Whatever fails: no artefact, and nothing that is shown, has a secret of the hosts in it."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from kit_help import Done, Kit, stage_ends, told
from lab_help import HOSTS

from kitlib.errors import CommandError
from kitlib.lab import verbs
from kitlib.model import Verdict
from kitlib.pipeline import run_notebooks
from kitlib.report import write_report
from kitlib.stages import STAGE_NAMES

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL_PLANE, WORKER_1, _ = HOSTS
TOKEN = re.compile(rb"(?<![a-z0-9.])[a-z0-9]{6}\.[a-z0-9]{16}(?![a-z0-9])")
KEYS = (
    "cat $(find /etc/kubernetes /var/lib/kubelet /var/lib/etcd -type f"
    r" \( -name '*.key' -o -name 'kubelet-client-*.pem' \) 2>/dev/null) /dev/null"
)
CERTIFICATE_KEY = "5c7e" * 16

BABBLER = f"""#!/bin/sh
# In place of kubeadm or apt-get: says every secret of the host in every form, and fails.
say() {{
  cat /etc/kubernetes/admin.conf /etc/kubernetes/kubelet.conf 2>/dev/null
  for key in /etc/kubernetes/pki/*.key /etc/kubernetes/pki/etcd/*.key; do
    if [ -f "$key" ]; then cat "$key"; base64 -w0 "$key"; echo; tail -n 3 "$key"; fi
  done
  echo "[upload-certs] Using certificate key:"
  echo "{CERTIFICATE_KEY}"
  echo "kubeadm join 10.77.0.11:6443 --token abcdef.0123456789abcdef --certificate-key \\
    {CERTIFICATE_KEY}"
  echo "ran: ${{0##*/}} $*"
}}
say; say >&2
exit 1
"""


def secrets_of(kit: Kit) -> set[str]:
    """Return the private keys and the tokens that are on the hosts now."""
    found: set[str] = {CERTIFICATE_KEY}
    for text in kit.everywhere(KEYS).values():
        for body in re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", text, re.S):
            found.update(body.split())
    for host in HOSTS:
        for name in ("admin.conf", "kubelet.conf"):
            text = kit.on(host, f"cat /etc/kubernetes/{name} 2>/dev/null || true")
            for user in (yaml.safe_load(text) or {}).get("users", []):
                data = user["user"].get("client-key-data")
                if data:
                    found.add(data)
                    found.update(base64.b64decode(data).decode().splitlines()[1:-1])
    return {text for text in found if len(text) >= 16}


def forms(secret: str) -> Iterator[bytes]:
    """Yield the secret as it may stand somewhere: plain, in base64 (at any offset), in a URL."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    for offset in range(3):
        whole = base64.b64encode(b"x" * offset + secret.encode())
        yield whole[4 if offset else 0 : -4]  # without what the neighbours decide


def leaks(where: str, content: bytes, secrets: set[str]) -> list[str]:
    """Return what of the secrets is in the content, as lines for a person."""
    found = [f"{where}: a token: {match[0]!r}" for match in TOKEN.finditer(content)]
    for secret in secrets:
        found += [f"{where}: {form[:20]!r}..." for form in forms(secret) if form in content]
    return found


def tight(done: Done, secrets: set[str]) -> None:
    """Check that nothing of the secrets is in what a command showed and kept."""
    found = leaks("shown", done.text.encode(), secrets)
    assert done.run_dir is not None
    files = [path for path in done.run_dir.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        found += leaks(str(path.relative_to(done.run_dir)), path.read_bytes(), secrets)
    assert not found, "\n".join(sorted(set(found))[:20])


@contextlib.contextmanager
def babbling(kit: Kit, host: str, tmp_path: Path, name: str = "kubeadm") -> Iterator[None]:
    """Have a kubeadm (or another program) on the host that says all it knows and fails."""
    assert kit.lab is not None
    program = tmp_path / "babbler"
    program.write_text(BABBLER)
    kit.lab.connect(host).put(str(program), remote="/root/babbler")
    path = f"/usr/bin/{name}"
    kit.on(host, f"mv {path} {path}.kept; install -m 755 /root/babbler {path}; rm /root/babbler")
    try:
        yield
    finally:
        kit.on(host, f"mv -f {path}.kept {path}")


def test_the_search_itself_finds_what_is_there() -> None:
    secret = "MHcCAQEEIHk2+Q/2vYw6uS9vC1x2V"
    for kept in (
        secret.encode(),
        b"x=" + quote(secret, safe="").encode(),
        *(base64.b64encode(b"y" * n + secret.encode() + b"z" * n) for n in range(4)),
        b"kubeadm join --token abcdef.0123456789abcdef\n",
    ):
        assert leaks("here", kept, {secret}), kept
    assert not leaks("here", b"flannel.1 10.244.1.0 kube-flannel-ds-abcde.17a", {secret})


@pytest.mark.thorough
def test_a_stage_that_fails_gives_nothing_away(kit: Kit, tmp_path: Path) -> None:
    """Every stage, by a program that says everything, or by a failure of its own."""
    kit.clean()
    kit.stand("packages")
    quick = kit.with_params("quick", timeouts={"ready": 5, "verify": 5})
    with babbling(kit, CONTROL_PLANE, tmp_path):
        done = [kit.stage("init").failed(6, CONTROL_PLANE, "kubeadm init")]
    kit.stage("init").passed()
    known = secrets_of(kit)
    assert len(known) > 30
    broken = tmp_path / "plugin.yaml"
    broken.write_text("kind: ConfigMap\n  data: [1\n")
    done.append(kit.with_params("bare", plugin_manifest=str(broken)).stage("network").failed(2))
    kit.stand("network", first="network")
    kit.on(CONTROL_PLANE, "apt-get remove -y --allow-change-held-packages kubernetes-cni")
    with babbling(kit, CONTROL_PLANE, tmp_path, "apt-get"):
        done.append(kit.stage("packages").failed(6, CONTROL_PLANE, "apt-get update"))
    kit.stage("packages").passed()
    with babbling(kit, WORKER_1, tmp_path):
        done.append(kit.stage("join").failed(6, WORKER_1, "kubeadm join"))
    done.append(kit.stage("join").passed())
    known |= secrets_of(kit)
    stale = "/etc/cni/net.d/05-weave.conflist"
    kit.on(WORKER_1, f"echo '{{}}' > {stale}")
    done.append(quick.stage("ready").failed(8, "05-weave.conflist"))
    kit.on(WORKER_1, f"rm {stale}")
    verbs.break_(kit.state_dir, "forward-drop", WORKER_1)
    done.append(quick.stage("verify").failed(8))
    verbs.heal(kit.state_dir)
    with babbling(kit, CONTROL_PLANE, tmp_path):
        done.append(kit.stage("reset", "--rebuild").failed(6, CONTROL_PLANE, "kubeadm reset"))
        # What a reset that failed left is still there to be said.
        assert leaks("there", kit.on(CONTROL_PLANE, KEYS).encode(), known)
    verbs.break_(kit.state_dir, "host-down", WORKER_1)
    done.append(kit.stage("preflight").failed(4, WORKER_1))
    verbs.heal(kit.state_dir)
    failed = {name for each in done for name in stage_ends(each.run_dir)}
    assert failed == set(STAGE_NAMES)
    for each in done:
        tight(each, known)
    assert any(told(each.run_dir, "change") for each in done)


def test_a_notebook_that_fails_gives_nothing_away(kit: Kit, tmp_path: Path) -> None:
    """What a cell shows of it, the page on top of the notebook, and the report."""
    kit.clean()
    kit.stand("network", first="packages")
    with babbling(kit, WORKER_1, tmp_path), kit.session() as session:
        with pytest.raises(CommandError) as failed:
            run_notebooks(session, ["06_join"])
        session.finish(Verdict.FAIL, str(failed.value))
        write_report(session.journal.path)
    notebook = session.journal.path / "notebooks" / "06_join.ipynb"
    assert "kubeadm join" in notebook.read_text()
    assert "ran: kubeadm" in str(failed.value), failed.value
    tight(Done(6, "", repr(failed.value), session.journal.path), secrets_of(kit))
