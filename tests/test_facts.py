"""Every parser against recorded output, and the one script against this very machine."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from factory import CASES, case, host_facts

from kitlib import facts
from kitlib.command import Cmd
from kitlib.errors import CommandError, ParseError
from kitlib.facts import clock, members, reach
from kitlib.facts.certificate import ca_hash
from kitlib.facts.cni import SCRIPT as CNI_SCRIPT
from kitlib.facts.kubeadm import SCRIPT as KUBEADM_SCRIPT
from kitlib.facts.reach import Answer
from kitlib.facts.runtime import SCRIPT as RUNTIME_SCRIPT
from kitlib.facts.sections import command, needs, section, split
from kitlib.model import CommandResult
from kitlib.plugins import catalogue

PATHS = sorted(CASES.glob("*/*.yaml"))


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return {k: plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden(path: Path) -> None:
    loaded = yaml.safe_load(path.read_text())
    parser = importlib.import_module(f"kitlib.facts.{path.parent.name}")
    parse = getattr(parser, loaded.get("parser", "parse"))
    known = [catalogue()] if path.parent.name == "cni" else []
    assert plain(parse(loaded["stdout"], *known)) == loaded["expected"]


def test_every_subject_has_golden_cases() -> None:
    modules = {path.stem for path in Path(facts.__file__).parent.glob("*.py")}
    helpers = {"__init__", "sections", "certificate", "members", "reach"}
    assert {path.parent.name for path in PATHS} == modules - helpers


def sh(cmd: Cmd, **environment: str) -> CommandResult:
    done = subprocess.run(
        cmd.render(), shell=True, capture_output=True, text=True, env=environment or None
    )
    return CommandResult("here", str(cmd), done.stdout, done.stderr, done.returncode)


def test_one_round_trip_on_a_real_machine() -> None:
    found = facts.gather("here", sh, catalogue())
    assert found.name == "here"
    assert found.host.uid is not None
    assert found.host.kernel
    assert found.links is None or any(link.kind == "loopback" for link in found.links)
    assert found.clock_offset is not None
    reading = facts.command_for(catalogue())
    assert set(found.unknown) <= set(split(sh(reading).stdout))
    assert not reading.mutates


def test_a_machine_without_any_tool_has_unknown_facts_and_reasons(tmp_path: Path) -> None:
    for tool in ("sh", "cat", "ls"):
        (tmp_path / tool).symlink_to(f"/bin/{tool}")
    found = facts.gather("bare", lambda cmd: sh(cmd, PATH=str(tmp_path)), catalogue())
    assert found.links is None
    assert found.packages is None
    assert found.ports is None
    assert not found.runtime.installed
    assert found.unknown["links"] == "ip is not installed"
    assert "not found" in found.unknown["packages"]


def test_a_script_that_did_not_run_is_an_error() -> None:
    with pytest.raises(CommandError, match="worker-1: reading facts: exit status 255"):
        facts.gather(
            "worker-1", lambda cmd: CommandResult("worker-1", "", "", "lost", 255), catalogue()
        )


def test_clock_offset() -> None:
    found = host_facts(at=(1795370790.0, 1795370790.2))
    assert found.clock_offset == pytest.approx(8.953, abs=0.01)
    assert found.clock_error == pytest.approx(0.0, abs=0.01)
    assert host_facts().clock_offset is None
    assert clock.offset(None, None, 1.0, 2.0) == (None, 0.0)


@pytest.mark.parametrize(
    ("start", "end", "error"),
    [
        (100.0, 100.0, 5.0),  # the clock is read once: it may have been at either end
        (100.0, 110.0, 0.0),  # a slow answer: the time went by in the script
        (109.0, 110.0, 4.5),  # a slow connection: the time went by before it
    ],
)
def test_how_wrong_a_clock_offset_may_be(start: float, end: float, error: float) -> None:
    """The host's clock is right; the round trip took ten seconds, from 100 to 110."""
    offset, uncertain = clock.offset(start, end, 100.0, 110.0)
    assert uncertain == pytest.approx(error)
    assert offset is not None
    assert abs(offset) <= uncertain


def test_sections_keep_text_and_status() -> None:
    cmd = command(
        section("a", "printf 'x\\n\\ny'"),
        section("b", "echo no >&2; (exit 3)"),
        section("c", ":"),
        section("d", needs("surely-no-such-tool", "true")),
        section("e", "cat"),
    )
    found = split(sh(cmd).stdout)
    assert found["a"].text == "x\n\ny\n"
    assert (found["b"].text, found["b"].status, found["b"].why) == ("no\n", 3, "no")
    assert (found["c"].text, found["c"].status) == ("", 0)
    assert found["d"].why == "surely-no-such-tool is not installed"
    assert (found["e"].text, found["e"].status) == ("", 0)


def test_a_section_cut_short_is_no_answer() -> None:
    assert split("@@ a\nhalf of it") == {}


def test_json_that_is_none_names_the_fact() -> None:
    with pytest.raises(ParseError, match="facts links: not JSON"):
        facts.links.parse("@@ links\nOops\n\n@@ = 0\n")


def in_root(script: str, root: Path) -> str:
    """Return what a script prints when the host's files lie under `root`."""
    moved = script.replace("/etc/", f"{root}/etc/").replace("/opt/", f"{root}/opt/")
    return sh(command(moved.replace("/var/lib/", f"{root}/var/lib/"))).stdout


def test_credentials_in_cni_files_never_leave_the_host(tmp_path: Path) -> None:
    directory = tmp_path / "etc/cni/net.d"
    directory.mkdir(parents=True)
    (directory / "00-genie.conf").write_text(
        '{"type": "genie", "policy": {"k8s_auth_token": "tok-1", "k8s_client_key": "key-1"},\n'
        ' "kubernetes": {"password" : "pass-1", "kubeconfig": "/etc/x"}}\n'
    )
    (directory / "calico-kubeconfig").write_text("token: tok-2\n")
    printed = in_root(CNI_SCRIPT, tmp_path)
    assert not any(word in printed for word in ("tok-1", "tok-2", "key-1", "pass-1"))
    found = facts.cni.parse(printed.replace(str(tmp_path), ""), catalogue())
    assert found.names == ("00-genie.conf", "calico-kubeconfig")
    assert found.in_force is not None
    assert (found.in_force.owner, found.in_force.types) == ("cni-genie", ("genie",))
    assert '"kubeconfig": "/etc/x"' in found.in_force.text


KUBECONFIG = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0EK
    server: https://10.77.0.11:6443
  name: lab
contexts:
- context:
    cluster: lab
    user: kubernetes-admin
  name: kubernetes-admin@lab
current-context: kubernetes-admin@lab
kind: Config
users:
- name: kubernetes-admin
  user:
    client-key-data: U0VDUkVU
"""


def test_kubeconfig_gives_away_its_server_and_name_alone(tmp_path: Path) -> None:
    etc = tmp_path / "etc/kubernetes"
    (etc / "pki").mkdir(parents=True)
    (etc / "manifests").mkdir()
    (etc / "admin.conf").write_text(KUBECONFIG)
    (etc / "kubelet.conf").write_text(KUBECONFIG.replace(": lab", ": kubernetes"))
    (etc / "manifests/etcd.yaml").write_text("")
    (tmp_path / "var/lib/etcd/member").mkdir(parents=True)
    printed = in_root(KUBEADM_SCRIPT, tmp_path)
    assert "U0VDUkVU" not in printed
    found = facts.kubeadm.parse(printed.replace(str(tmp_path), ""))
    assert (found.server, found.cluster) == ("https://10.77.0.11:6443", "lab")
    assert found.joined
    assert found.initialised
    assert found.etcd
    assert found.manifests == ("/etc/kubernetes/manifests/etcd.yaml",)
    assert not found.clean


def test_ca_hash_of_what_is_no_certificate() -> None:
    with pytest.raises(ParseError, match="not a PEM certificate"):
        ca_hash("hello")
    with pytest.raises(ParseError, match="damaged"):
        ca_hash("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    pem = split(case("kubeadm", "worker")["stdout"])["kubeadm.ca"].text
    lines = pem.splitlines()
    with pytest.raises(ParseError, match="damaged"):
        ca_hash("\n".join([*lines[:4], lines[-1]]))


def test_reach() -> None:
    cmd = reach.command(["127.0.0.1", "192.0.2.1; echo x"])
    assert "'192.0.2.1; echo x'" in str(cmd)
    printed = "192.0.2.1 ping\n192.0.2.2 none\n192.0.2.3 tcp\n192.0.2.4 untried\nsh: what\n"
    assert list(reach.parse(printed).values()) == [
        Answer.PING,
        Answer.NONE,
        Answer.TCP,
        Answer.UNTRIED,
    ]
    assert not cmd.mutates


PINGLESS = "#!/bin/sh\nexit 1\n"


def test_reach_where_ping_is_held_back(tmp_path: Path) -> None:
    """A port that is open, and one that refuses, are both an answer; silence is none."""
    for tool in ("sh", "bash", "timeout"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    (tmp_path / "ping").write_text(PINGLESS)
    (tmp_path / "ping").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = sh(reach.command(["127.0.0.1", "127.0.0.2"], port=port), PATH=str(tmp_path))
    assert reach.parse(found.stdout) == {"127.0.0.1": Answer.TCP, "127.0.0.2": Answer.TCP}
    silent = sh(reach.command(["no-such-host.invalid"]), PATH=str(tmp_path))
    assert reach.parse(silent.stdout) == {"no-such-host.invalid": Answer.NONE}


def test_reach_without_any_means(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    found = sh(reach.command(["127.0.0.1"]), PATH=str(tmp_path))
    assert reach.parse(found.stdout) == {"127.0.0.1": Answer.UNTRIED}


def test_members() -> None:
    assert members.parse("node/m1\nnode/w1\nThe connection was refused\n") == ("m1", "w1")
    assert not members.command().mutates


CONTAINERD_2 = """\
version = 3
disabled_plugins = []
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]
  SystemdCgroup = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = ''
  SystemdCgroup = false
"""


@pytest.mark.parametrize(
    ("config", "systemd", "disabled"),
    [
        ((CASES.parent / "kubeadm/host-files/config.toml").read_text(), True, False),
        (CONTAINERD_2, False, False),
        ('disabled_plugins = ["cri"]\n', None, True),
        ("version = 2\n", None, False),
    ],
    ids=["recorded", "version 3", "of Docker", "short"],
)
def test_configuration_of_containerd(
    tmp_path: Path, config: str, systemd: bool | None, disabled: bool
) -> None:
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / "etc/containerd/config.toml").write_text(config)
    found = facts.runtime.parse(in_root(RUNTIME_SCRIPT, tmp_path))
    assert (found.systemd_cgroup, found.cri_disabled) == (systemd, disabled)


@pytest.mark.parametrize(
    ("version", "release"),
    [("1.22.3-00", "1.22.3"), ("1.30.4-1.1", "1.30.4"), ("1:1.6.20~ds1-1+b1", "1.6.20")],
)
def test_release_of_a_package(version: str, release: str) -> None:
    assert facts.Package("kubelet", version, False).release == release


def test_lookups() -> None:
    found = host_facts()
    assert found.version("kubelet") == "1.22.3"
    assert found.version("docker") == ""
    link = found.link("cni0")
    assert link is not None
    assert link.kind == "bridge"
    assert found.link("nosuch") is None
    assert not found.is_lab
    assert host_facts(host="lab-not-root").is_lab
