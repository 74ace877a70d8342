"""What the lab says before it starts anything: specs, tools, switches, manifests. No namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitlib.errors import LabError
from kitlib.lab import fileserver, machine, verbs
from kitlib.lab.spec import LabSpec


def test_spec_counts_addresses_in_order() -> None:
    spec = verbs.build_spec("lab", [("a", "control_plane", 7721), ("b", "worker", 7722)])
    assert [host.address for host in spec.hosts] == ["10.77.0.11", "10.77.0.12"]
    assert spec.manifest_port == 7720
    assert LabSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ([], "0 hosts"),
        ([("Upper", "worker", 7721)], "host name 'Upper': not a DNS label"),
        ([("a", "worker", 7721), ("a", "worker", 7722)], "host name 'a': used twice"),
        ([("a", "worker", 7720)], "port 7720: used twice"),
        ([("a", "worker", 70000)], "port 70000: not in 1..65535"),
    ],
)
def test_wrong_spec_is_refused(hosts: list[tuple[str, str, int]], said: str) -> None:
    with pytest.raises(LabError, match=said):
        verbs.build_spec("lab", hosts)


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    (tmp_path / "ip").touch(mode=0o755)
    with pytest.raises(LabError, match="nft, nsenter, ping, setsid, unshare") as error:
        machine.check_tools(str(tmp_path))
    assert error.value.remedy == "apt-get install iputils-ping nftables util-linux"


@pytest.mark.parametrize(
    ("files", "uid", "said", "remedy"),
    [
        (
            {"/proc/sys/user/max_user_namespaces": "0"},
            0,
            "user.max_user_namespaces is 0",
            "sysctl -w user.max_user_namespaces=15000",
        ),
        (
            {"/proc/sys/kernel/unprivileged_userns_clone": "0"},
            1000,
            "kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            1000,
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
                "/proc/self/status": "Name:\tpython\nSeccomp:\t2\n",
            },
            0,
            "a seccomp filter is on",
            "seccomp=unconfined",
        ),
        ({}, 1000, "no known switch is off", "unshare --user"),
    ],
)
def test_refused_namespaces_name_the_switch(
    files: dict[str, str], uid: int, said: str, remedy: str
) -> None:
    error = machine.why_refused("Operation not permitted", lambda path: files.get(path, ""), uid)
    assert said in error.message
    assert "Operation not permitted" in error.message
    assert remedy in error.remedy


def test_manifests_are_answered_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "flannel.yaml").write_text("kind: DaemonSet\n")
    (tmp_path.parent / "outside.yaml").write_text("secret\n")
    got = fileserver.respond("GET", "/flannel.yaml?x=1", tmp_path)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nkind: DaemonSet\n")
    assert fileserver.respond("HEAD", "/flannel.yaml", tmp_path).endswith(b"\r\n\r\n")
    for target in ("/../outside.yaml", "/missing.yaml", "/", "//etc/passwd"):
        answer = fileserver.respond("GET", target, tmp_path)
        assert answer.startswith(b"HTTP/1.1 404"), target
        assert b"/flannel.yaml\n" in answer
    assert fileserver.respond("PUT", "/flannel.yaml", tmp_path).startswith(b"HTTP/1.1 405")


def test_every_fault_says_what_it_breaks() -> None:
    for name, fault in verbs.faults().items():
        assert fault.summary, name
        assert fault.role in ("worker", "control_plane"), name
