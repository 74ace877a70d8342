"""From a host of the inventory to a connection: what decides, which hops, keys and words."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sshkit import Door, Server, host_line, known_hosts

from kitlib import cli, dial
from kitlib.command import Cmd
from kitlib.dial import Dialler, close, login
from kitlib.errors import ConnectError, HostKeyError, HostLoginError, ParamsError
from kitlib.hostkeys import fetch_host_key, known_keys
from kitlib.ssh import Ssh


def configured(text: str) -> None:
    """Write the user's own SSH configuration."""
    config = Path("~/.ssh/config").expanduser()
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config.write_text(text)


CONFIG = "Host near\n  HostName 192.0.2.9\n  Port 2222\n  User ops\n  ProxyJump me@jump:2200\n"


@pytest.mark.parametrize(
    ("address", "user", "port", "wanted"),
    [
        ("192.0.2.1", "", 0, "root@192.0.2.1:22"),
        ("near", "", 0, "ops@192.0.2.9:2222"),
        ("near", "ada", 0, "ada@192.0.2.9:2222"),
        ("near", "", 22, "ops@192.0.2.9:22"),
        ("fd00::7", "ada", 0, "ada@[fd00::7]:22"),
        ("fd00::7", "ada", 2222, "ada@[fd00::7]:2222"),
    ],
)
def test_what_is_stated_goes_before_the_configuration(address, user, port, wanted):
    configured(CONFIG)
    target = Door("worker-1", port, None, address=address, user=user)
    connection = Dialler(Path("/none")).connection(target)
    assert login(connection) == wanted
    if address == "near":
        assert login(connection.gateway) == "me@jump:2200"
    else:
        assert connection.gateway is None


def test_another_configuration_is_read_instead_of_the_usual(tmp_path):
    configured(CONFIG)
    other = tmp_path / "config"
    other.write_text("Host near\n  HostName 192.0.2.8\n")
    target = Door("worker-1", 0, None, address="near", user="")
    assert login(Dialler(Path("/none"), other).connection(target)) == "root@192.0.2.8:22"
    nothing = Dialler(Path("/none"), Path("/dev/null")).connection(target)
    assert login(nothing) == "root@near:22"


@pytest.mark.parametrize("text", ["Host near\n  Port many\n", "nonsense\n"])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path, text):
    config = tmp_path / "config"
    config.write_text(text)
    target = Door("worker-1", 0, None, address="near", user="")
    with pytest.raises(ParamsError, match=f"ssh.config: {config}: not usable"):
        Dialler(Path("/none"), config).connection(target)


def test_keys_of_the_configuration_count_where_none_is_stated(tmp_path):
    mine, stated = tmp_path / "mine", tmp_path / "stated"
    mine.touch()
    stated.touch()
    configured(f"Host near\n  IdentityFile {mine}\n  IdentityFile {tmp_path}/gone\n")
    free = Door("worker-1", 0, None, address="near", user="")
    assert Dialler(Path("/none")).connection(free).connect_kwargs["key_filename"] == [str(mine)]
    bound = Door("worker-1", 0, stated, address="near", user="")
    options = Dialler(Path("/none")).connection(bound).connect_kwargs
    assert options["key_filename"] == [str(stated)]
    assert (options["look_for_keys"], options["allow_agent"]) == (False, False)


def test_a_name_that_does_not_exist_is_not_tried_again():
    target = Door("worker-1", 22, None, address="no-such-host.invalid")
    with pytest.raises(ConnectError) as caught:
        Dialler(Path("/none")).open(target)
    if "Temporary failure" not in caught.value.message:  # a machine without any resolver
        assert not caught.value.transient
    assert ConnectError.transient, "of others it stays true"


def test_a_refused_connection_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        Dialler(Path("/none")).open(Door("worker-1", port, None))
    assert caught.value.transient


def test_the_end_is_heard_at_once_however_rarely_a_silent_connection_is_looked_at(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(dial, "_IDLE", 3600.0)
    with Server(tmp_path / "server") as server:
        known = known_hosts(tmp_path / "known_hosts", server)
        dialler = Dialler(known, keepalive=7200)
        connection = dialler.open(Door("worker-1", server.port, server.identity))
        assert server.connections == 1
        time.sleep(0.5)  # the look that began before the connection stood must have ended
        close(connection)
        deadline = time.monotonic() + 60
        while server.connections:
            assert time.monotonic() < deadline, "the server was not told"
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ConnectError("the host is starting"), 2),
        (HostKeyError("the key has changed"), 1),
        (HostLoginError("the login was refused"), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(tmp_path, monkeypatch, error, tries):
    with Server(tmp_path / "server") as server:
        known = known_hosts(tmp_path / "known", server)
        calls = []
        real = Dialler.open

        def once(self, target):
            calls.append(target.name)
            if len(calls) == 1:
                raise error
            return real(self, target)

        monkeypatch.setattr(Dialler, "open", once)
        door = Door("worker-1", server.port, server.identity)
        with Ssh({"worker-1": door}, known_hosts=known) as ssh:
            if tries == 1:
                with pytest.raises(type(error)):
                    ssh.run("worker-1", Cmd.of("true"))
            else:
                assert ssh.run("worker-1", Cmd.of("echo", "up")).stdout == "up\n"
    assert len(calls) == tries


def test_a_key_with_a_passphrase_is_asked_of_the_agent(tmp_path):
    with Server(tmp_path / "server") as server:
        known = known_hosts(tmp_path / "known", server)
        locked = tmp_path / "locked"
        locked.write_bytes(
            server.key.export_private_key(passphrase="opensesame", rounds=1, ignore_few_rounds=True)
        )
        locked.chmod(0o600)
        target = Door("worker-1", server.port, locked)
        with pytest.raises(HostLoginError, match="has a passphrase, and no agent") as caught:
            Dialler(known).open(target)
        assert "ssh-add" in caught.value.remedy


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    place = tmp_path / "agent"
    try:
        process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip("ssh-agent is not installed (openssh-client)")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    try:
        for _ in range(1000):
            if place.exists():
                break
            assert process.poll() is None
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_the_agent_gives_a_key_with_a_passphrase(tmp_path, agent):
    with Server(tmp_path / "server") as server:
        known = known_hosts(tmp_path / "known", server)
        subprocess.run(["ssh-add", "-q", str(server.identity)], check=True)
        locked = tmp_path / "locked"
        locked.write_bytes(
            server.key.export_private_key(passphrase="opensesame", rounds=1, ignore_few_rounds=True)
        )
        locked.chmod(0o600)
        close(Dialler(known).open(Door("worker-1", server.port, locked)))


# --- IPv6 ------------------------------------------------------------------------------------


def test_an_ipv6_address_works_for_keys_and_commands(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    with Server(tmp_path / "server", address="::1") as server:
        target = Door("worker-1", server.port, server.identity, address="::1")
        key = fetch_host_key(target)
        assert key.line.startswith(f"[::1]:{server.port} ssh-ed25519 ")
        known = tmp_path / "known"
        with Ssh({"worker-1": target}, known_hosts=known) as ssh, pytest.raises(HostKeyError) as no:
            ssh.run("worker-1", Cmd.of("true"))
        assert f"worker-1 (root@[::1]:{server.port}): the host key is unknown" in no.value.message
        known.write_text(f"{key.line}\n")
        assert known_keys(known, "::1", server.port) == {key.blob}
        with Ssh({"worker-1": target}, known_hosts=known) as ssh:
            assert ssh.run("worker-1", Cmd.of("echo", "six")).stdout == "six\n"


# --- First contact through a jump host -------------------------------------------------------


@pytest.fixture
def jump(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "jump") as server:
        yield server


@pytest.fixture
def inner(tmp_path: Path, jump: Server) -> Iterator[Server]:
    """A server that ~/.ssh/config reaches through the jump host."""
    with Server(tmp_path / "inner") as server:
        configured(
            f"Host jump\n  HostName 127.0.0.1\n  Port {jump.port}\n  User root\n"
            f"  IdentityFile {jump.identity}\n"
            f"Host inner\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump jump\n"
            f"  IdentityFile {server.identity}\n"
        )
        yield server


def params(tmp_path: Path, *hosts: dict[str, object]) -> Path:
    path = tmp_path / "params.yaml"
    entries = [
        {
            "name": f"host-{n}",
            "role": "worker" if n > 1 else "control_plane",
            "node_address": f"192.0.2.{n}",
            **host,
        }
        for n, host in enumerate(hosts, 1)
    ]
    values = {"cluster": "x", "kubernetes_version": "1.22.3", "plugin": "flannel"}
    path.write_text(
        yaml.safe_dump(
            {**values, "hosts": entries, "ssh": {"known_hosts": "known", "connect_timeout": 5}}
        )
    )
    return path


def trust(monkeypatch, file: Path, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kit", "trust", str(file), *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_jump_hosts_key_comes_first_and_then_those_behind_it(
    tmp_path, jump, inner, monkeypatch, capsys
):
    file = params(tmp_path, {"address": "inner"})
    known = tmp_path / "known"
    known.write_text("# a last line without its end")
    assert trust(monkeypatch, file) == 2, "without a terminal nobody is asked"
    asked = capsys.readouterr()
    assert jump.host_key.get_fingerprint() in asked.out
    assert inner.host_key.get_fingerprint() not in asked.out
    assert jump.logins == 0
    assert trust(monkeypatch, file, "--yes") == 0
    told = capsys.readouterr().out
    assert told.index("jump host jump") < told.index("host-1")
    assert told.index(jump.host_key.get_fingerprint()) < told.index(
        inner.host_key.get_fingerprint()
    )
    assert "2 key(s) remembered" in told
    assert inner.logins == 0, "its key was read without logging in"
    assert known.read_text().splitlines()[1:] == [
        host_line(server.port, server.host_key).strip() for server in (jump, inner)
    ]
    target = Door("host-1", 0, None, address="inner", user="")
    with Ssh({"host-1": target}, known_hosts=known) as ssh:
        assert ssh.run("host-1", Cmd.of("echo", "far")).stdout == "far\n"
    assert trust(monkeypatch, file) == 0
    assert "Nothing new" in capsys.readouterr().out


def test_a_changed_key_of_a_jump_host_stops_before_what_is_behind(
    tmp_path, jump, inner, monkeypatch, capsys
):
    (tmp_path / "known").write_text(host_line(jump.port, inner.host_key))
    assert trust(monkeypatch, params(tmp_path, {"address": "inner"}), "--yes") == 4
    told = capsys.readouterr()
    assert "CHANGED" in told.out
    assert "jump host jump" in told.err
    assert inner.host_key.get_fingerprint() not in told.out
    assert (tmp_path / "known").read_text() == host_line(jump.port, inner.host_key)


def test_a_host_out_of_reach_does_not_keep_the_others_from_being_trusted(
    tmp_path, jump, monkeypatch, capsys
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = taken.getsockname()[1]
    file = params(
        tmp_path,
        {"address": "127.0.0.1", "port": gone},
        {"address": "127.0.0.1", "port": jump.port},
    )
    assert trust(monkeypatch, file, "--yes") == 4
    told = capsys.readouterr()
    assert "out of reach" in told.out
    assert "host-1" in told.err
    assert (tmp_path / "known").read_text() == host_line(jump.port, jump.host_key)


def test_a_refusal_by_a_jump_host_names_it(tmp_path, jump, inner):
    known = known_hosts(tmp_path / "known", inner)
    target = Door("host-1", 0, None, address="inner", user="")
    with pytest.raises(HostKeyError, match=r"host-1: its jump host jump .*: the host key is unk"):
        Dialler(known).open(target)
