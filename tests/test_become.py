"""Becoming root: what sudo says and what it means, where the password comes from and stays."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sshkit import Server, known_hosts, sudo_that_asks

from kitlib import notebooks
from kitlib.become import Sudo, judge, read_password
from kitlib.command import Cmd, Secret
from kitlib.errors import BecomeError, ParamsError
from kitlib.params import load
from kitlib.pipeline import run_notebooks
from kitlib.session import Session

PASSWORD = "swordfish & chips"
WHERE = "worker-1 (ada@192.0.2.7:22)"


@pytest.mark.parametrize(
    ("given", "status", "said", "part"),
    [  # as sudo 1.9.13 printed them
        (False, 1, "sudo: a password is required\n", "wants a password, and none was given"),
        (
            True,
            1,
            "Sorry, try again.\n\nsudo: no password was provided\n"
            "sudo: 1 incorrect password attempt\n",
            "refused the password",
        ),
        (True, 1, "ada is not in the sudoers file.\n", "ada may not become root with sudo: ada is"),
        (False, 1, "sudo: sorry, you must have a tty to run sudo\n", "requiretty"),
        (False, 127, "env: 'sudo': No such file or directory\n", "sudo is not installed"),
        (
            False,
            1,
            "Sorry, user ada is not allowed to execute '/usr/bin/id -u' as root on worker-1.\n",
            "may not become root",
        ),
        (False, 1, "sudo: account validation failure\n", "exit status 1: sudo: account validation"),
        # and as sudo-rs has them in its source
        (False, 1, "sudo: interactive authentication is required\n", "wants a password, and none"),
        (True, 1, "sudo: Maximum 3 incorrect authentication attempts\n", "refused the password"),
        (False, 1, "sudo: I'm sorry ada. I'm afraid I can't do that\n", "may not become root"),
    ],
)
def test_what_sudo_says_is_understood(given, status, said, part):
    sudo = Sudo(Secret(PASSWORD) if given else None, variable="KIT_BECOME_PASSWORD")
    error = judge(WHERE, sudo, status, "", said)
    assert error is not None
    assert error.message.startswith(f"{WHERE}: ")
    assert part in error.message
    assert error.remedy
    assert error.password_wanted == ("wants a password" in part)
    assert PASSWORD not in str(error)


def test_only_root_is_root():
    sudo = Sudo()
    assert judge(WHERE, sudo, 0, "0\n", "Happy lecture.\n") is None
    assert judge(WHERE, sudo, 0, "1000\n", "") is not None


@pytest.mark.parametrize("password", [PASSWORD, ""])
def test_neither_the_password_nor_the_command_is_in_the_line(password):
    sudo = Sudo(Secret(password) if password else None)
    line, feed = sudo.wrap(Cmd.of("echo", "a b", Secret("s3cret")).render())
    assert PASSWORD not in line
    assert "s3cret" not in line, "sudo writes its argument list into the host's log"
    assert PASSWORD not in repr(vars(sudo))
    mark = line.split()[-1]
    assert feed == (f"{password}\n" if password else "") + f"{mark}\necho 'a b' s3cret\n"
    assert sudo.proof()[1] == (f"{password}\n" if password else ""), "one try"


def reader(line: str, feed: str) -> subprocess.CompletedProcess[str]:
    """Run what sudo would run, with what sudo would leave of its input."""
    words = shlex.split(line)
    return subprocess.run(
        words[words.index("--") + 1 :], input=feed, capture_output=True, text=True, check=False
    )


def test_what_sudo_runs_takes_the_command_alone_from_its_input():
    line, feed = Sudo(Secret(PASSWORD)).wrap("printf '%s|' one 'two  2' \"it's\"")
    for left in (feed, feed.partition("\n")[2]):  # a password that sudo wanted, or did not want
        done = reader(line, left)
        assert (done.stdout, done.stderr, done.returncode) == ("one|two  2|it's|", "", 0)
    line, feed = Sudo().wrap("cat")
    assert reader(line, feed).stdout == ""
    lost = reader(line, "")
    assert lost.returncode == 126, "a command that did not arrive is no success"
    assert "swallowed" in lost.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\nsecond line\n")
    path.chmod(0o600)
    return path


def test_the_password_comes_from_the_environment_then_from_the_file(file):
    for environ, from_file, wanted in (
        ({"PW": "other"}, file, "other"),
        ({"PW": ""}, file, PASSWORD),
        ({}, file, PASSWORD),
        ({}, None, None),
    ):
        found = read_password("PW", from_file, environ)
        assert (found and found.value) == wanted


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_a_file_that_others_may_use_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(ParamsError, match=f"mode {mode:04o}") as caught:
        read_password("PW", file, {})
    assert caught.value.remedy == f"chmod 600 {file}"
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\n"])
def test_a_file_without_a_password_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ParamsError, match=str(file)):
        read_password("PW", file, {})
    with pytest.raises(ParamsError, match="No such file"):
        read_password("PW", file.with_name("none"), {})


# --- A session with a password ---------------------------------------------------------------


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """Parameters of a host whose login has to give sudo a password."""
    with Server(tmp_path / "server") as server:
        sudo_that_asks(server, PASSWORD)
        known_hosts(tmp_path / "known", server)
        path = tmp_path / "params.yaml"
        host = {"name": "cp", "address": "127.0.0.1", "node_address": "192.0.2.1"}
        path.write_text(
            yaml.safe_dump(
                {
                    "cluster": "asked",
                    "kubernetes_version": "1.22.3",
                    "plugin": "flannel",
                    "hosts": [{**host, "port": server.port, "role": "control_plane"}],
                    "ssh": {
                        "user": "ada",
                        "become": "sudo",
                        "identity_file": str(server.identity),
                        "known_hosts": str(tmp_path / "known"),
                    },
                    "runs": str(tmp_path / "runs"),
                }
            )
        )
        yield path


def test_headless_a_missing_password_stops_with_the_remedy(params):
    with Session.open(params) as session, pytest.raises(BecomeError) as caught:
        session.doors.run("cp", Cmd.of("true"))
    assert "wants a password" in caught.value.message
    assert "KIT_BECOME_PASSWORD" in caught.value.remedy
    assert "become_password_file" in caught.value.remedy


def test_a_person_is_asked_once_and_a_wrong_answer_is_told(params):
    asked: list[str] = []

    def answer(word: str) -> str:
        asked.append(word)
        return word

    with Session.open(params) as session, pytest.raises(BecomeError, match="refused the password"):
        session.unlock(lambda: answer("wrong"))
    with Session.open(params) as session:
        session.unlock(lambda: answer(PASSWORD))
        session.unlock(lambda: answer("again"))
        assert session.doors.run("cp", Cmd.of("echo", PASSWORD)).ok
    assert asked == ["wrong", PASSWORD]


def test_nobody_is_asked_where_the_password_is_given(params, monkeypatch):
    monkeypatch.setenv("KIT_BECOME_PASSWORD", PASSWORD)
    with Session.open(params) as session:
        session.unlock(lambda: pytest.fail("asked"))
        assert session.doors.run("cp", Cmd.of("true")).ok


def artefacts(root: Path, word: str) -> list[str]:
    """Return the files below `root` in which a word stands, in any form that JSON gives it."""
    forms = {word.encode(), json.dumps(word)[1:-1].encode()}
    return [
        str(path)
        for path in root.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]


def test_the_password_reaches_a_kernel_and_no_artefact(params, tmp_path, monkeypatch):
    """The preflight notebook's kernel becomes root too; the lab's own word is not needed for it."""
    book = notebooks.find("preflight")
    probe = tmp_path / "10_probe.ipynb"
    cells = json.loads(book.path.read_text())
    wanted = [cell for cell in cells["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    code = {**wanted[0], "id": "probe", "metadata": {}}
    code["source"] = (
        "import os\nfrom kitlib.command import Cmd\nfrom kitlib.session import Session\n"
        "opened = Session.open(params, run_dir=run_dir)\n"
        "print(opened.doors.run('cp', Cmd.of('echo', 'root', 'in', 'the', 'kernel')).stdout)\n"
        "print(opened.doors.run('cp', Cmd.of('echo', os.environ['KIT_BECOME_PASSWORD'])).ok)\n"
        "opened.close()\n"
        "print(open('/proc/self/cmdline').read().replace(chr(0), ' '))"
    )
    cells["cells"] = [*wanted, code]
    probe.write_text(json.dumps(cells))
    found = notebooks.Notebook(probe, book.declared)
    monkeypatch.setattr(notebooks, "find", lambda name: found)
    with Session.open(params, dry_run=True) as session:  # without a lock: the host is this machine
        session.unlock(lambda: PASSWORD)
        run_notebooks(session, ["probe"])
        run_dir = session.journal.path
    assert "KIT_BECOME_PASSWORD" not in os.environ, "in this process's environment it never was"
    text = (run_dir / "notebooks/10_probe.ipynb").read_text()
    assert "root in the kernel" in text
    assert "ipykernel_launcher" in text, "the kernel's command line was printed"
    assert list((run_dir / "raw").iterdir()), "there are artefacts"
    assert artefacts(tmp_path / "runs", PASSWORD) == []
    assert artefacts(tmp_path / "runs", "KIT_BECOME_PASSWORD"), "the search finds what is there"


def test_on_a_terminal_the_command_asks_and_shows_nothing_of_the_answer(params):
    """`kit hosts` on a terminal of its own, answered as a person would."""
    near, far = pty.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "kitlib.cli", "hosts"]
    process = subprocess.Popen(
        [*command, str(params)], stdin=far, stdout=far, stderr=far, cwd=Path(__file__).parents[1]
    )
    os.close(far)
    said, asked = b"", 0
    try:
        with contextlib.suppress(OSError):  # its end, once all that wrote there have ended
            while data := os.read(near, 65536):
                said += data
                if not asked and b"password on the hosts: " in said:
                    asked = os.write(near, f"{PASSWORD}\n".encode())
    finally:
        code = process.wait(120)
        os.close(near)
    assert code == 0, said.decode()
    assert "reachable" in said.decode()
    assert PASSWORD not in said.decode()


def test_the_password_is_no_parameter(params):
    text = params.read_text()
    for line, part in (
        ("become_password: x", r"ssh.become_password: \*\*\*: unknown key"),
        ("become_password_env: pass word", "never a password itself"),
    ):
        params.write_text(text.replace("become: sudo", f"become: sudo\n  {line}"))
        with pytest.raises(ParamsError, match=part):
            load(params)
