"""Root rights by real sudo, over real SSH: every way to get them, and every way to be refused.

The users, their passwords and sudoers exist in the server's own mount namespace only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opensshkit import NEEDS_SUDO, Sshd, start_sshd
from sshkit import Door

from kitlib.become import Sudo
from kitlib.command import Cmd, Secret, script
from kitlib.errors import BecomeError, CommandError, ConnectError
from kitlib.ssh import Ssh

pytestmark = NEEDS_SUDO

PASSWORD = """correct horse; $(battery) "st'aple"""
HASHED = (
    "$6$kitkitkit$YRnJgUHELIZ40PSSqQtQoXkCaOiBJgQChbG7YzhkhLkd0FG"
    "8/mqMgSFTjpySdTMQLA58T7Wiu.CPeeCNgk/jn/"
)
USERS = ("kit-asked", "kit-free", "kit-barred", "kit-tty")

SUDOERS = """\
Defaults env_reset, use_pty, passwd_tries=3, !lecture, !syslog, logfile=@LOG@
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults:kit-tty requiretty
kit-asked ALL=(ALL:ALL) ALL
kit-free ALL=(ALL:ALL) NOPASSWD: ALL
kit-tty ALL=(ALL:ALL) NOPASSWD: ALL
"""
PREPARE = (
    "mount --make-rprivate /\n"
    + "".join(f'cp /etc/{name} "$1/{name}"\n' for name in ("passwd", "shadow", "sudoers"))
    + "".join(
        f"echo '{user}:x:{64001 + number}:{64001 + number}::/:/bin/sh' >>\"$1/passwd\"\n"
        f"echo '{user}:{HASHED}:19000:0:99999:7:::' >>\"$1/shadow\"\n"
        for number, user in enumerate(USERS)
    )
    + f'sed "s|@LOG@|$1/sudo.log|" >"$1/sudoers" <<\'END\'\n{SUDOERS}END\n'
    + "".join(f'mount --bind "$1/{name}" /etc/{name}\n' for name in ("passwd", "shadow", "sudoers"))
)


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with start_sshd(prepare=PREPARE) as running:
        yield running


@pytest.fixture
def door(sshd: Sshd, tmp_path: Path) -> Iterator[Callable[..., Ssh]]:
    """Return what opens a door to `worker-1` as a user, with a password or without."""
    known = tmp_path / "known_hosts"
    known.write_text(sshd.line)
    opened = []

    def make(user: str, password: str = "") -> Ssh:
        target = Door("worker-1", sshd.port, sshd.identity, user=user)
        sudo = Sudo(Secret(password) if password else None, variable="KIT_BECOME_PASSWORD")
        opened.append(Ssh({"worker-1": target}, known_hosts=known, sudo=sudo))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


WAYS = [("kit-asked", PASSWORD), ("kit-free", ""), ("kit-free", PASSWORD), ("root", "")]


@pytest.mark.parametrize(("user", "password"), WAYS)
def test_commands_are_roots_whoever_logs_in(door, user, password):
    ssh = door(user, password)
    told = script('id -u; echo "$HOME|$1"; echo err >&2; exit 7', Secret("s3 'cret"))
    result = ssh.run("worker-1", told)
    assert result.stdout == "0\n/root|s3 'cret\n"
    assert (result.stderr, result.exit_status) == ("err\n", 7)
    assert "sudo" not in result.command
    assert "cret" not in result.command
    changed = Cmd.change("printenv", "KUBECONFIG", env={"KUBECONFIG": "/x y"})
    assert ssh.run("worker-1", changed).stdout == "/x y\n"


@pytest.mark.parametrize(("user", "password"), WAYS)
def test_what_reads_its_input_gets_its_end_and_no_password(door, user, password):
    result = door(user, password).run("worker-1", Cmd.of("cat", timeout=60))
    assert (result.stdout, result.stderr, result.exit_status) == ("", "", 0)


def test_the_password_is_in_no_argument_list_and_no_environment(door):
    look = script(
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'", "marked-word"
    )
    seen = door("kit-asked", PASSWORD).run("worker-1", look).stdout
    assert "marked-word" in seen, "the lists were read"
    assert "battery" not in seen


def test_sudos_own_log_has_neither_the_password_nor_what_a_command_holds(door, sshd):
    ssh = door("kit-asked", PASSWORD)
    token = Secret("abcdef.0123456789abcdef")
    assert ssh.run("worker-1", Cmd.of("echo", token)).stdout == f"{token.value}\n"
    text = sshd.log.with_name("sudo.log").read_text()
    assert "kit-asked" in text, "it logs"
    assert "battery" not in text
    assert token.value not in text


def strays() -> list[Path]:
    return list(Path("/tmp").glob("kit.*"))


@pytest.mark.parametrize(("user", "password"), WAYS)
def test_put_writes_roots_files_and_leaves_nothing(door, tmp_path, user, password):
    roots = tmp_path / "roots"
    roots.mkdir(mode=0o700)
    path = roots / "a config.yaml"
    path.write_text("old")
    with path.open() as reader:
        door(user, password).put("worker-1", "new ü\n" * 10_000, str(path), mode=0o640)
        assert reader.read() == "old", "who has the old file open keeps it"
    assert path.read_text() == "new ü\n" * 10_000
    assert path.stat().st_mode & 0o7777 == 0o640
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    assert [each.name for each in roots.iterdir()] == [path.name]
    assert strays() == []


@pytest.mark.parametrize(("user", "password"), WAYS)
def test_large_files_go_both_ways_as_roots(door, tmp_path, user, password):
    roots = tmp_path / "roots"
    roots.mkdir(mode=0o700)
    here, there, back = tmp_path / "here", roots / "there", tmp_path / "back"
    here.write_bytes(bytes(range(256)) * 4_000)
    ssh = door(user, password)
    ssh.send("worker-1", here, str(there))
    assert there.read_bytes() == here.read_bytes()
    assert (there.stat().st_uid, there.stat().st_mode & 0o777) == (0, 0o644)
    there.chmod(0o600)
    ssh.fetch("worker-1", str(there), back)
    assert back.read_bytes() == here.read_bytes()
    assert strays() == []


def test_put_that_fails_leaves_nothing(door, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    ssh = door("kit-asked", PASSWORD)
    for path in ("/nonexistent/dir/file", str(tmp_path / "full")):
        with pytest.raises(CommandError, match=f"worker-1: write {path}") as caught:
            ssh.put("worker-1", "x", path)
        assert "battery" not in str(caught.value)
        assert strays() == []


KILL_SSHD = """\
p=$$
while [ "$(cat /proc/$p/comm)" != sshd ]; do p=$(awk '{print $4}' /proc/$p/stat); done
kill -KILL "$p"
"""
"""Ends the connection that it came through."""


def test_put_whose_connection_is_lost_is_swept_at_the_next(door, tmp_path, monkeypatch):
    ssh = door("kit-asked", PASSWORD)
    with monkeypatch.context() as patched:
        patched.setattr("kitlib.ssh._INSTALL", KILL_SSHD)
        with pytest.raises((ConnectError, CommandError)):
            ssh.put("worker-1", "x", str(tmp_path / "file"))
    assert len(strays()) == 1
    assert ssh.run("worker-1", Cmd.of("true")).ok
    assert strays() == []


@pytest.mark.parametrize(
    ("user", "password", "message", "remedy"),
    [
        ("kit-asked", "wrong", "sudo refused the password", "sudo -k -v"),
        ("kit-asked", "", "sudo wants a password, and none was given", "KIT_BECOME_PASSWORD"),
        ("kit-barred", PASSWORD, "kit-barred may not become root with sudo", "every command"),
        ("kit-tty", "", "wants a terminal (requiretty)", "Defaults:kit-tty !requiretty"),
    ],
)
def test_a_refusal_is_one_message_with_the_way_out(door, user, password, message, remedy):
    with pytest.raises(BecomeError) as caught:
        door(user, password).run("worker-1", Cmd.of("touch", "/never"))
    assert message in caught.value.message
    assert f"worker-1 ({user}@127.0.0.1:" in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 4
    assert caught.value.password_wanted == (message.startswith("sudo wants a password"))
