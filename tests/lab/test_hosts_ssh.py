"""Lab hosts over SSH, as the kit drives them: fabric, strict host keys."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pty
import select
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import paramiko
import pytest
from fabric import Connection
from lab_help import Lab, environment, until
from paramiko.ssh_exception import AuthenticationException, SSHException

from kitlib.lab import lifecycle, verbs

pytestmark = pytest.mark.lab


def test_command_runs_on_the_named_host_with_separate_streams_and_status(stub_lab: Lab) -> None:
    done = stub_lab.run("hostname; echo wrong >&2; exit 7", "worker-2")
    assert (done.stdout, done.stderr, done.exited) == ("worker-2\n", "wrong\n", 7)


def test_a_foreign_host_key_is_refused(stub_lab: Lab, tmp_path: Path) -> None:
    mixed = tmp_path / "known_hosts"
    theirs, ours = stub_lab.port("worker-1"), stub_lab.port("worker-2")
    known = (stub_lab.state_dir / lifecycle.KNOWN_HOSTS).read_text().splitlines(keepends=True)
    line = next(entry for entry in known if f":{theirs} " in entry)
    mixed.write_text(line.replace(str(theirs), str(ours)))
    client = paramiko.SSHClient()
    client.load_host_keys(str(mixed))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    with pytest.raises(SSHException, match="does not match"):
        client.connect("127.0.0.1", ours, "root")
    client.close()


def test_only_root_gets_in(stub_lab: Lab) -> None:
    with pytest.raises(AuthenticationException):
        stub_lab.connect("worker-1", user="nobody")


def test_sftp_lands_on_the_host_and_nowhere_else(stub_lab: Lab) -> None:
    path = f"/var/lib/put-{os.getpid()}"
    stub_lab.connect("worker-1").put(io.BytesIO(b"inside\n"), path)
    assert stub_lab.run(f"cat {path}").stdout == "inside\n"
    assert stub_lab.run(f"test -e {path}", "worker-2").exited == 1
    assert not Path(path).exists()


def test_ten_megabytes_come_through_intact(stub_lab: Lab) -> None:
    data = os.urandom(10_000_000)
    connection = stub_lab.connect()
    connection.put(io.BytesIO(data), "/root/big")
    _, out, err = connection.client.exec_command("cat /root/big; head -c 70000 /root/big >&2")
    assert hashlib.sha256(out.read()).digest() == hashlib.sha256(data).digest()
    assert err.read() == data[:70000]


def test_standard_input_reaches_the_command_and_ends(stub_lab: Lab) -> None:
    stdin, out, _ = stub_lab.connect().client.exec_command("wc -c")
    stdin.write(b"x" * 300_000)
    stdin.channel.shutdown_write()
    assert out.read().strip() == b"300000"


def test_forwarding_reaches_addresses_as_the_host_sees_them(stub_lab: Lab) -> None:
    connection = stub_lab.connect("worker-1")
    channel = connection.transport.open_channel(
        "direct-tcpip", ("worker-2", 22), ("127.0.0.1", 0), timeout=10
    )
    assert channel.recv(8) == b"SSH-2.0-"
    channel.close()


def test_detached_command_survives_its_connection(stub_lab: Lab) -> None:
    connection = stub_lab.connect()
    connection.run(
        "setsid nohup sh -c 'while ! test -e /run/go; do sleep 0.02; done; touch /run/went'"
        " >/dev/null 2>&1 </dev/null &",
        hide=True,
        in_stream=False,
    )
    connection.close()
    stub_lab.run("touch /run/go")
    until(lambda: stub_lab.run("test -e /run/went").ok)


def test_command_dies_with_its_connection(stub_lab: Lab) -> None:
    connection = stub_lab.connect()
    connection.client.exec_command("echo $$ > /run/doomed; exec sleep 1000")
    until(lambda: stub_lab.run("test -s /run/doomed").ok)
    assert stub_lab.run("kill -0 $(cat /run/doomed)").ok
    connection.close()
    until(lambda: not stub_lab.run("kill -0 $(cat /run/doomed)").ok)


def test_terminal_has_a_name_and_a_size(stub_lab: Lab) -> None:
    done = stub_lab.connect().run(
        "tty; stty size; exit 4", pty=True, hide=True, warn=True, in_stream=False
    )
    tty, size = done.stdout.split("\r\n")[:2]
    assert tty.startswith("/dev/pts/")
    assert size != "0 0"
    assert done.exited == 4


def test_locale_alone_is_taken_from_the_client(stub_lab: Lab) -> None:
    transport = stub_lab.connect().transport
    channel = transport.open_session()
    channel.update_environment({"LC_TIME": "C", "SECRET": "x"})
    channel.exec_command("echo $LC_TIME/$SECRET/$HOME/$USER")
    assert channel.makefile().read() == b"C///root/root\n"
    channel.close()


def test_emulated_command_gets_argv_environment_directory_and_gives_its_status(
    stub_lab: Lab,
) -> None:
    done = stub_lab.run("cd /var/lib && TOKEN=a.b echo-call 'two words' --flag=1")
    assert done.stdout == "worker-1 10.77.0.12 echo-call two words --flag=1 in /var/lib\n"
    assert done.stderr == "TOKEN=a.b faults=\n"
    assert done.exited == 3


def test_emulated_command_reads_standard_input_only_when_it_asks(stub_lab: Lab) -> None:
    done = stub_lab.run("printf 'one\\ntwo\\n' | while read line; do echo-call $line; done")
    assert [line.split()[3] for line in done.stdout.splitlines()] == ["one", "two"]
    assert stub_lab.run("echo abc | upper").stdout.strip() == "ABC"


def test_emulated_command_streams_and_stops_when_nobody_reads(stub_lab: Lab) -> None:
    assert len(stub_lab.run("stream 20000 | sha256sum; stream 3").stdout.splitlines()) == 4
    assert stub_lab.run("rm -f /run/waiting; wait-for-ever | head -1").stdout == "waiting\n"
    until(lambda: "cancelled" in stub_lab.run("cat /run/waiting").stdout)


@pytest.mark.parametrize(("name", "status"), [("INT", 130), ("TERM", 143)])
def test_signal_cancels_an_emulated_command(stub_lab: Lab, name: str, status: int) -> None:
    done = stub_lab.run(
        "rm -f /run/waiting; set -m; wait-for-ever >/dev/null & "
        "until test -e /run/waiting; do sleep 0.02; done; "
        f"kill -{name} $!; wait $!; echo $?"
    )
    assert done.stdout.splitlines()[-1] == str(status)
    until(lambda: "cancelled" in stub_lab.run("cat /run/waiting").stdout)


def test_connection_loss_cancels_an_emulated_command(stub_lab: Lab) -> None:
    connection = stub_lab.connect()
    stub_lab.run("rm -f /run/waiting")
    connection.client.exec_command("wait-for-ever")
    until(lambda: stub_lab.run("test -s /run/waiting").ok)
    connection.close()
    until(lambda: "cancelled" in stub_lab.run("cat /run/waiting").stdout)


def test_defect_of_an_emulated_command_is_told_and_logged(stub_lab: Lab) -> None:
    done = stub_lab.run("fail")
    assert done.exited == 70
    assert "a defect of the lab" in done.stderr
    assert "RuntimeError: on purpose" in (stub_lab.state_dir / lifecycle.BOX_LOG).read_text()


def test_commands_come_and_go_with_their_package(stub_lab: Lab) -> None:
    assert stub_lab.run("command -v kubeadm kubectl apt-get").stdout == ""
    stub_lab.run("echo-call --install kubeadm; echo-call --install kubectl")
    assert stub_lab.run("kubeadm init").stdout.startswith("worker-1 10.77.0.12 kubeadm init")
    assert "clientVersion" in stub_lab.run("kubectl version --client -o json").stdout
    stub_lab.run("echo-call --remove kubeadm; echo-call --remove kubectl")
    assert stub_lab.run("kubeadm init").exited == 127


def test_hosts_reach_each_other_by_name(stub_lab: Lab) -> None:
    assert stub_lab.run("ping -c 1 -q control-plane-1 && ping -c 1 -q worker-2").ok


def test_manifests_are_served_outside_and_inside(stub_lab: Lab) -> None:
    outside = f"http://127.0.0.1:{stub_lab.spec.manifest_port}/../lab.json"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(outside, timeout=10)
    inside = stub_lab.run(
        "exec 3<>/dev/tcp/10.77.0.1/7720; printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3;head -1 <&3"
    )
    assert "404" in inside.stdout


def test_lab_ssh_passes_the_status_on(stub_lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    status = verbs.ssh(stub_lab.state_dir, "worker-2", "hostname; echo no >&2; exit 5")
    assert status == 5
    assert capfd.readouterr() == ("worker-2\n", "no\n")


def _read(terminal: int) -> bytes:
    """Return what a terminal shows next; nothing at its end, or when it is silent for long."""
    with contextlib.suppress(OSError):  # its end reads as EIO
        if select.select([terminal], [], [], 20)[0]:
            return os.read(terminal, 4096)
    return b""


def test_lab_ssh_gives_a_real_terminal(stub_lab: Lab) -> None:
    ours, theirs = pty.openpty()
    code = (
        "import sys; from pathlib import Path; from kitlib.lab import verbs\n"
        "sys.exit(verbs.ssh(Path(sys.argv[1]), 'worker-1'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(stub_lab.state_dir)],
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as shell:
        os.close(theirs)
        shown, typed = b"", False
        try:
            while data := _read(ours):
                shown += data
                if b"root@worker-1" in shown and not typed:
                    os.write(ours, b"echo at-$(hostname) on $(tty); exit 9\r")
                    typed = True
            assert shell.wait(10) == 9
        finally:
            shell.kill()
            os.close(ours)
    assert b"at-worker-1 on /dev/pts/" in shown


def test_a_new_connection_answers_the_plain_protocol(stub_lab: Lab) -> None:
    with socket.create_connection(("127.0.0.1", stub_lab.port("worker-1")), timeout=10) as sock:
        assert sock.recv(8) == b"SSH-2.0-"


def test_fabric_group_of_commands_on_one_connection(stub_lab: Lab) -> None:
    connection: Connection = stub_lab.connect()
    assert [
        connection.run(f"exit {n}", hide=True, warn=True, in_stream=False).exited for n in range(5)
    ] == [0, 1, 2, 3, 4]
