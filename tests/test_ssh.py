"""The door to the hosts, against an SSH server in this process: what works, and every refusal."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
from sshkit import Door, Server, echo_server, known_hosts, ssh_to, write_key

from kitlib import ssh as module
from kitlib.command import Cmd, Secret, script
from kitlib.errors import CommandError, ConnectError, HostKeyError, HostLoginError
from kitlib.hostkeys import fetch_host_key, known_keys
from kitlib.ssh import Ssh, _Remote


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def known(server: Server, tmp_path: Path) -> Path:
    return known_hosts(tmp_path / "known_hosts", server)


@pytest.fixture
def ssh(server: Server, known: Path) -> Iterator[Ssh]:
    with ssh_to(server, known) as door:
        yield door


def wait_until(true: Callable[[], object]) -> None:
    for _ in range(1000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true")


def test_a_command_comes_back_whole(ssh):
    result = ssh.run("worker-1", script("echo out; echo err >&2; printf 'no newline'; exit 7"))
    assert result.host == "worker-1"
    assert (result.stdout, result.stderr, result.exit_status) == ("out\nno newline", "err\n", 7)
    assert not result.ok
    assert result.seconds > 0


def test_arguments_arrive_quoted_and_secrets_come_back_masked(ssh, server):
    result = ssh.run("worker-1", Cmd.of("printf", "%s|%s", "a  b'c", Secret("s3 cret")))
    assert result.stdout == "a  b'c|s3 cret"
    assert "s3 cret" not in result.command
    assert "'s3 cret'" in server.commands[0]


def test_large_output_of_both_kinds_does_not_block(ssh):
    result = ssh.run("worker-1", script("seq 1 60000; seq 1 60000 >&2"))
    assert len(result.stdout.splitlines()) == len(result.stderr.splitlines()) == 60000


def test_output_that_is_not_text_is_no_error(ssh):
    assert "ok" in ssh.run("worker-1", script(r"printf '\377\376 ok'")).stdout


def test_one_connection_carries_many_commands_at_a_time(ssh, server, tmp_path):
    go, count = tmp_path / "go", 5
    wait = script('until [ -e "$1" ]; do sleep 0.02; done; echo done', str(go))
    with ThreadPoolExecutor(count) as pool:
        under_way = [pool.submit(ssh.run, "worker-1", wait) for _ in range(count)]
        wait_until(lambda: len(server.commands) == count)
        go.touch()
        assert [each.result().stdout for each in under_way] == ["done\n"] * count
    assert server.logins == 1


def test_an_unknown_host_key_is_refused_and_nothing_is_remembered(server, tmp_path):
    missing = tmp_path / "none"
    with ssh_to(server, missing) as ssh, pytest.raises(HostKeyError) as caught:
        ssh.run("worker-1", Cmd.of("true"))
    assert "the host key is unknown" in caught.value.message
    assert f"127.0.0.1:{server.port}" in caught.value.message
    assert "kit trust" in caught.value.remedy
    assert str(missing) in caught.value.remedy
    assert not missing.exists()
    assert server.commands == []


def test_a_changed_host_key_is_refused_with_both_fingerprints(server, tmp_path):
    impostor = write_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {impostor.export_public_key().decode()}")
    with ssh_to(server, known) as ssh, pytest.raises(HostKeyError) as caught:
        ssh.run("worker-1", Cmd.of("true"))
    assert "has changed" in caught.value.message
    assert impostor.get_fingerprint() in caught.value.message
    assert server.host_key.get_fingerprint() in caught.value.message
    assert str(known) in caught.value.remedy
    assert server.commands == []


def test_a_refused_login_is_told_once_and_not_tried_again(server, known, tmp_path):
    write_key(tmp_path / "foreign")
    with (
        ssh_to(server, known, identity=tmp_path / "foreign") as ssh,
        pytest.raises(HostLoginError) as caught,
    ):
        ssh.run("worker-1", Cmd.of("true"))
    assert "the login was refused" in caught.value.message
    assert "ssh.identity_file" in caught.value.remedy
    assert caught.value.exit_code == 4
    assert server.logins == 1


def test_a_missing_private_key_is_named(server, known, tmp_path):
    gone = tmp_path / "gone"
    with (
        ssh_to(server, known, identity=gone) as ssh,
        pytest.raises(HostLoginError, match="no such private key") as caught,
    ):
        ssh.run("worker-1", Cmd.of("true"))
    assert str(gone) in caught.value.message


def test_a_host_that_does_not_answer_is_named_with_its_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    door = Door("worker-1", port, None)
    with (
        Ssh({"worker-1": door}, known_hosts=tmp_path / "none") as ssh,
        pytest.raises(ConnectError) as caught,
    ):
        ssh.run("worker-1", Cmd.of("true"))
    assert not isinstance(caught.value, HostKeyError)
    assert caught.value.message.startswith(f"worker-1 (root@127.0.0.1:{port}): cannot connect: ")
    assert "refused" in caught.value.message
    assert "SSH runs" in caught.value.remedy


def test_a_command_without_an_end_is_a_failure_and_the_host_stays_usable(ssh):
    with pytest.raises(CommandError) as caught:
        ssh.run("worker-1", Cmd.of("sleep", "60", timeout=0.3))
    assert caught.value.exit_status is None
    assert str(caught.value).startswith("worker-1: sleep 60: did not end\n  | no end within 0.3 s")
    assert ssh.run("worker-1", Cmd.of("echo", "again")).stdout == "again\n"


def test_a_commands_timer_may_find_the_connection_closed(ssh):
    """It runs in a thread of its own, where an error would reach nobody but standard error."""
    runner = _Remote(ssh._connection("worker-1"))
    runner.channel = Mock(**{"close.side_effect": EOFError})  # paramiko's answer when both close
    runner.kill()
    runner.channel.close.assert_called_once()


def test_the_doors_own_timeout_holds_where_the_command_has_none(server, known):
    with ssh_to(server, known, command_timeout=0.3) as ssh, pytest.raises(CommandError):
        ssh.run("worker-1", Cmd.of("sleep", "60"))


def blocked(ssh: Ssh, server: Server) -> tuple[threading.Thread, list[BaseException]]:
    """Start a command that does not end; return its thread and where its error will be."""
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ssh.run("worker-1", script("exec sleep 60", Secret("hidden-word"), mutates=True))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: server.commands)
    return thread, caught


@pytest.mark.parametrize("who", ["the host dies", "the kit closes"])
def test_a_connection_lost_during_a_command_is_an_error_of_its_own(ssh, server, who):
    thread, caught = blocked(ssh, server)
    if who == "the host dies":
        server.drop()
    else:
        ssh.close()
    thread.join(20)
    assert not thread.is_alive()
    (error,) = caught
    assert isinstance(error, ConnectError)
    assert "the connection was lost during: sh -c" in str(error)
    assert "hidden-word" not in str(error)
    if who == "the host dies":
        assert ssh.run("worker-1", Cmd.of("echo", "back")).stdout == "back\n"


def test_put_replaces_the_file_whole_with_its_mode(ssh, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("old")
    inode = path.stat().st_ino
    with path.open() as reader:
        ssh.put("worker-1", "new ü\n" * 10_000, str(path), mode=0o600)
        assert reader.read() == "old", "who has the old file open keeps it"
    assert path.read_text() == "new ü\n" * 10_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_ino != inode
    assert [each.name for each in tmp_path.glob("config*")] == ["config.yaml"]


def test_put_that_fails_names_the_host_and_the_file(ssh):
    with pytest.raises(CommandError) as caught:
        ssh.put("worker-1", "x", "/nonexistent/dir/file")
    assert str(caught.value).startswith("worker-1: write /nonexistent/dir/file: did not end")


def test_a_forward_carries_data_both_ways(ssh):
    big = b"abc" * 100_000
    with echo_server() as port, ssh.forward("worker-1", "127.0.0.1", port) as here:
        for _ in range(2):  # one after another
            with socket.create_connection(("127.0.0.1", here), timeout=10) as client:
                client.sendall(b"hello")
                assert client.recv(100) == b"HELLO"
        with (
            socket.create_connection(("127.0.0.1", here), timeout=10) as one,
            socket.create_connection(("127.0.0.1", here), timeout=10) as two,
        ):
            one.sendall(b"kept open")
            assert one.recv(100) == b"KEPT OPEN"
            del two
        with socket.create_connection(("127.0.0.1", here), timeout=10) as client:
            sender = threading.Thread(target=client.sendall, args=(big,))
            sender.start()
            got = b""
            while len(got) < len(big):
                got += client.recv(65536)
            sender.join()
            assert got == big.upper()


def test_a_forward_keeps_no_small_answer_back(ssh, monkeypatch):
    """Else an answer in two pieces takes as long as a delayed acknowledgement."""
    splice, seen = module._splice, []

    def noting(sock, channel):
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        splice(sock, channel)

    monkeypatch.setattr(module, "_splice", noting)
    with (
        echo_server() as port,
        ssh.forward("worker-1", "127.0.0.1", port) as here,
        socket.create_connection(("127.0.0.1", here), timeout=10) as client,
    ):
        client.sendall(b"x")
        assert client.recv(10) == b"X"
    assert all(seen)
    assert seen


def test_a_forward_ends_with_its_block(ssh):
    with echo_server() as port:
        with ssh.forward("worker-1", "127.0.0.1", port) as here:
            client = socket.create_connection(("127.0.0.1", here), timeout=10)
            client.sendall(b"x")
            assert client.recv(10) == b"X"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", here), timeout=10)
        client.close()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("forward-")])


def test_a_forward_to_nowhere_closes_what_asks_it(ssh):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        ssh.forward("worker-1", "127.0.0.1", port) as here,
        socket.create_connection(("127.0.0.1", here), timeout=10) as client,
    ):
        assert client.recv(10) == b""


def test_a_forward_whose_host_dies_closes_what_uses_it(ssh, server):
    with (
        echo_server() as port,
        ssh.forward("worker-1", "127.0.0.1", port) as here,
        socket.create_connection(("127.0.0.1", here), timeout=10) as client,
    ):
        client.sendall(b"x")
        assert client.recv(10) == b"X"
        server.drop()
        assert client.recv(10) == b""


def test_leaving_the_door_closes_every_connection(server, known):
    with ssh_to(server, known) as ssh:
        ssh.run("worker-1", Cmd.of("true"))
        assert server.connections == 1
    wait_until(lambda: server.connections == 0)


@pytest.fixture
def behind(server: Server, tmp_path: Path) -> Iterator[Server]:
    """A second server, which ~/.ssh/config says is reached through the first."""
    with Server(tmp_path / "behind") as inner:
        config = Path("~/.ssh/config").expanduser()
        config.parent.mkdir(mode=0o700)
        config.write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n"
            f"  IdentityFile {server.identity}\n"
            f"Host inner\n  HostName 127.0.0.1\n  ProxyJump jump\n"
        )
        yield inner


def through(inner: Server, known: Path) -> Ssh:
    door = Door("worker-1", inner.port, inner.identity, address="inner")
    return Ssh({"worker-1": door}, known_hosts=known)


def test_a_jump_host_is_held_to_the_same_known_hosts(server, behind, tmp_path):
    known = known_hosts(tmp_path / "known_hosts", behind)  # not the jump host
    with through(behind, known) as ssh, pytest.raises(HostKeyError):
        ssh.run("worker-1", Cmd.of("true"))
    assert server.jumps == []
    assert behind.commands == []


def test_a_host_behind_a_jump_host_needs_its_own_key_known(server, behind, tmp_path):
    known = known_hosts(tmp_path / "known_hosts", server)  # not the host behind
    with through(behind, known) as ssh, pytest.raises(HostKeyError):
        ssh.run("worker-1", Cmd.of("true"))
    assert behind.commands == []
    wait_until(lambda: server.connections == 0)


def test_a_host_behind_a_jump_host_is_reached_and_the_jump_is_closed(server, behind, tmp_path):
    known = known_hosts(tmp_path / "known_hosts", server, behind)
    with through(behind, known) as ssh:
        assert ssh.run("worker-1", Cmd.of("echo", "far")).stdout == "far\n"
        assert server.jumps == [("127.0.0.1", behind.port)]
    wait_until(lambda: server.connections == 0 and behind.connections == 0)


def test_a_host_key_is_read_without_logging_in_and_compared(server, known, tmp_path):
    door = Door("worker-1", server.port, None)
    key = fetch_host_key(door)
    assert key.fingerprint == server.host_key.get_fingerprint()
    assert key.kind == "ssh-ed25519"
    assert key.blob in known_keys(known, door.address, door.port)
    assert server.logins == 0
    fresh = tmp_path / "fresh"
    assert known_keys(fresh, door.address, door.port) == set()
    fresh.write_text(f"{key.line}\n")
    with ssh_to(server, fresh) as ssh:
        assert ssh.run("worker-1", Cmd.of("true")).ok, "the line is what known_hosts wants"


def test_a_host_key_cannot_be_read_where_nothing_speaks_ssh():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        door = Door("worker-1", silent.getsockname()[1], None)
        with pytest.raises(ConnectError, match=r"worker-1.*cannot read its host key"):
            fetch_host_key(door, timeout=0.3)


def test_a_connection_that_dies_while_it_logs_in_is_no_refused_login(ssh, server, monkeypatch):
    """It may work a moment later, and the one who waits for a host must not give up."""

    def cut(connection, _user: str) -> bool:
        connection._mine.abort()
        return True

    monkeypatch.setattr("sshkit._Connection.begin_auth", cut)
    with pytest.raises(ConnectError) as failure:
        ssh.run("worker-1", Cmd.of("true"))
    assert not isinstance(failure.value, HostLoginError)
    assert failure.value.transient
    assert "cannot connect" in failure.value.message
