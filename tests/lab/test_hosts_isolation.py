"""What a lab host may see and change of the machine: to see, what it needs; to change, nothing."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import asyncssh
import pytest
from lab_help import Lab, Someone, free_spec

from kitlib.lab import lifecycle

pytestmark = pytest.mark.lab


@pytest.fixture
def guest(someone: Someone) -> Lab:
    """A host of a lab that this user, or an ordinary one, started."""
    return someone.up(free_spec(("worker-1",)))


def test_files_of_the_machine_are_out_of_sight_or_read_only(guest: Lab) -> None:
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as secret:
        assert not guest.run(f"test -e {secret.name}").ok
    for path in (__file__, "/etc/shadow", "/etc/ssh/sshd_config", str(guest.state_dir)):
        assert not guest.run(f"test -e {path}").ok, path
    package = Path(lifecycle.__file__).parents[1]
    for path in ("/usr/lib/lab-test", f"{package}/lab-test", asyncssh.__file__):
        done = guest.run(f"touch {path}")
        assert "Read-only" in done.stderr or "Permission denied" in done.stderr, path
    ways = (package, sys.prefix, sys.base_prefix)  # what leads to the kit and to Python is there
    needed = {part for way in ways for part in Path(way).resolve().parts}
    assert set(guest.run("ls /home /opt /mnt | grep -v -e : -e cni").stdout.split()) <= needed
    guest.close()


def test_root_on_the_host_cannot_undo_its_walls(guest: Lab) -> None:
    package = Path(lifecycle.__file__).parents[1]
    for target in ("/usr", str(package)):
        assert not guest.run(f"mount -o remount,bind,rw {target}").ok
        assert not guest.run(f"umount {target}").ok
    for command in (
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo h > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/panic",
        "mknod /root/disk b 254 0 && cat /root/disk",
    ):
        assert not guest.run(command).ok, command
    guest.close()


def test_network_settings_of_the_host_are_its_own(guest: Lab) -> None:
    setting = Path("/proc/sys/net/ipv4/conf/all/log_martians")
    before = setting.read_text()
    other = "0" if before.strip() == "1" else "1"
    assert guest.run(f"echo {other} > {setting}; cat {setting}").stdout.strip() == other
    assert setting.read_text() == before
    guest.close()


def test_host_can_make_namespaces_bridges_and_tunnels(guest: Lab) -> None:
    done = guest.run(
        "set -e; ip netns add pod; ip link add v0 type veth peer name eth0 netns pod;"
        "ip link add cni0 type bridge; ip link set v0 master cni0;"
        "ip link add flannel.1 type vxlan id 1 dstport 8472 nolearning dev eth0;"
        "ip -n pod address add 10.244.0.2/24 dev eth0; ip -n pod link set eth0 up;"
        "ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up; ip link set v0 up;"
        "ip netns exec pod ping -c 1 -q 10.244.0.1; nft list ruleset"
    )
    assert done.ok, done.stderr
    guest.close()


def test_only_the_hosts_own_processes_and_names_are_there(guest: Lab) -> None:
    commands = guest.run("ps -e -o args=").stdout.splitlines()
    assert all("hostd" in line or "ps -e" in line for line in commands), commands
    assert guest.run("hostname; cat /etc/hostname").stdout == "worker-1\nworker-1\n"
    identity = guest.run("cat /etc/machine-id").stdout
    assert len(identity.strip()) == 32
    assert Path("/etc/hostname").read_text() != "worker-1\n"
    guest.close()
