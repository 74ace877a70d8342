"""Modules, sysctls and swap: the scripts really run, on files of the tests' own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from factory import host_facts

from kitlib.facts import setup
from kitlib.facts.kernel import SYSCTLS as READ
from kitlib.facts.sections import command
from kitlib.software.settings import (
    APPLY_SYSCTLS,
    MODULES_TEXT,
    SWAP_MARK,
    SWAP_OFF,
    SYSCTLS,
    SYSCTLS_TEXT,
    wanting,
)

FSTAB = """\
# /etc/fstab: static file system information.
UUID=2a1e / ext4 errors=remount-ro 0 1
#/dev/sdb1 none swap sw 0 0
/swapfile none swap sw 0 0
UUID=7cc0\tnone\tswap\tsw 0 0
tmpfs /swap tmpfs size=1g 0 0
"""


def sh(text: str, root: Path, *args: str) -> str:
    """Return what a script prints when the host's files lie under `root`."""
    moved = text.replace("/proc/sys", f"{root}/proc/sys").replace("/etc/", f"{root}/etc/")
    moved = moved.replace("/usr/lib/", f"{root}/usr/lib/").replace("/run/", f"{root}/run/")
    done = subprocess.run(
        ["sh", "-c", moved, "sh", *args], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("modules-load.d", "sysctl.d"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/swapoff").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin/swapoff").chmod(0o755)
    return tmp_path


def kept(root: Path) -> setup.Setup:
    return setup.parse(sh(command(setup.SCRIPT).argv[2], root))  # type: ignore[arg-type]


def test_the_facts_read_every_setting_that_is_set() -> None:
    assert set(SYSCTLS) == set(READ)


def test_swap_off_comments_the_lines_once_and_keeps_the_hosts_own_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{root}/bin:/usr/bin:/bin")
    fstab, copy = root / "etc/fstab", root / "etc/fstab.before-kubekit"
    fstab.write_text(FSTAB)
    assert kept(root).swap_lines == ("/swapfile none swap sw 0 0", "UUID=7cc0\tnone\tswap\tsw 0 0")
    for _ in range(2):
        sh(SWAP_OFF, root)
        lines = fstab.read_text().splitlines()
        assert lines[3:5] == [f"{SWAP_MARK}{line}" for line in FSTAB.splitlines()[3:5]]
        assert [*lines[:3], lines[5]] == [*FSTAB.splitlines()[:3], FSTAB.splitlines()[5]]
        assert copy.read_text() == FSTAB
    assert kept(root).swap_lines == ()


def test_swap_off_leaves_a_file_without_swap_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{root}/bin:/usr/bin:/bin")
    sh(SWAP_OFF, root)  # no fstab at all
    (root / "etc/fstab").write_text("tmpfs /swap tmpfs size=1g 0 0\n")
    sh(SWAP_OFF, root)
    assert not (root / "etc/fstab.before-kubekit").exists()


def test_the_files_that_are_written_are_read_back_as_kept(root: Path) -> None:
    assert kept(root).modules == ()
    (root / "etc/modules-load.d/kubekit.conf").write_text(MODULES_TEXT)
    (root / "etc/sysctl.d/99-zz-kubekit.conf").write_text(SYSCTLS_TEXT)
    (root / "etc/sysctl.d/99-sysctl.conf").write_text("net.ipv4.ip_forward = 0\n")
    (root / "usr/lib/sysctl.d").mkdir(parents=True)
    (root / "usr/lib/sysctl.d/zz-last.conf").write_text("kernel.x=1\n")  # no line end at the end
    found = kept(root)
    assert found.modules == ("br_netfilter", "overlay")
    assert found.sysctls == SYSCTLS


def test_a_file_that_comes_later_and_says_otherwise_is_seen(root: Path) -> None:
    (root / "etc/sysctl.d/99-zz-kubekit.conf").write_text(SYSCTLS_TEXT)
    (root / "etc/sysctl.d/99-zzz.conf").write_text("-net/ipv4/ip_forward=0")
    assert (kept(root).sysctls or {})["net.ipv4.ip_forward"] == "0"


def test_sysctls_are_set_where_they_are_there(root: Path) -> None:
    forward = root / "proc/sys/net/ipv4/ip_forward"
    forward.parent.mkdir(parents=True)
    forward.write_text("0\n")
    sh(APPLY_SYSCTLS, root, *(f"{name}={value}" for name, value in SYSCTLS.items()))
    assert forward.read_text() == "1\n"
    assert not (root / "proc/sys/net/bridge").exists()


def test_what_is_wanting() -> None:
    nothing = ((),) * 6
    good = wanting(host_facts(), "off")
    assert tuple(getattr(good, name) for name in good.__slots__) == nothing
    fresh = wanting(host_facts(kernel="fresh", setup="fresh"), "off")
    assert fresh.load == fresh.keep_modules == ("overlay", "br_netfilter")
    assert fresh.set == fresh.keep_sysctls == tuple(SYSCTLS)
    assert fresh.swaps == ("/dev/sda2", "/swapfile")
    assert len(fresh.swap_lines) == 2
    left = wanting(host_facts(kernel="fresh", setup="fresh"), "keep")
    assert (left.swaps, left.swap_lines) == ((), ())
