"""Package sources: files and commands as golden lists, keys, offers, clusters that stand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factory import host_facts
from mirror import MIRROR, key_server

from kitlib import checks
from kitlib.command import Cmd
from kitlib.errors import ParamsError, PreconditionError
from kitlib.facts import HostFacts, repository
from kitlib.facts.sections import command
from kitlib.model import CommandResult, Status
from kitlib.params import Packages, Params, load
from kitlib.software import apt
from kitlib.software.openpgp import fingerprint
from kitlib.software.repository import FINGERPRINT, address, key_address
from kitlib.stages.package_sources import fetch_key, offers, standing

DATA = Path(__file__).parent / "data/software"
LAB = Path(__file__).parents[1] / "params/lab.yaml"


def wanted(version: str = "1.34.2", **packages: Any) -> Params:
    return replace(load(LAB), kubernetes_version=version, packages=Packages(**packages))


def shown(here: HostFacts, params: Params, key: str = "KEY") -> list[str]:
    """Return the steps as a person would type them: commands, and files with their content."""
    found = []
    for step in apt.steps(here, params, key):
        found.append(str(step.command) if step.command else f"{step.path}\n{step.content}")
    return found


# keys


def test_fingerprints_are_those_that_gpg_shows() -> None:
    assert fingerprint((DATA / "mirror.asc").read_text()) == MIRROR
    other = (DATA / "other.asc").read_text().replace("\n", "\r\n")
    assert fingerprint(other) == "1A98577F2DA4E7530F3DB5196E06F4580B2F77B2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>404</html>",
        (DATA / "two.asc").read_text(),
        (DATA / "mirror.asc").read_text() + (DATA / "other.asc").read_text(),
        (DATA / "mirror.asc").read_text().replace("mQEN", "mQE!"),
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\n-----END PGP PUBLIC KEY BLOCK-----\n",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENBGk=\n-----END PGP PUBLIC KEY BLOCK-----\n",
    ],
    ids=["empty", "page", "two", "two-files", "not-base64", "no-packet", "cut-short"],
)
def test_what_is_not_one_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"key|OpenPGP|packet"):
        fingerprint(text)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A mirror that has nothing but its key; yields its address."""
    with key_server(tmp_path, "v1.34") as where:
        yield where


def test_a_mirrors_own_key_is_taken_when_it_is_named(mirror: str) -> None:
    params = wanted(source="mirror", mirror=mirror, key_fingerprint=MIRROR)
    assert fetch_key(params, "deb") == (DATA / "mirror.asc").read_text()


def test_another_key_than_the_communitys_is_refused(mirror: str) -> None:
    with pytest.raises(PreconditionError, match=f"{MIRROR}, wanted is {FINGERPRINT}"):
        fetch_key(wanted(source="mirror", mirror=mirror), "deb")


def test_a_key_that_cannot_be_had_names_the_address(mirror: str) -> None:
    params = wanted("1.35.0", source="mirror", mirror=mirror)
    with pytest.raises(ParamsError, match=r"/core:/stable:/v1\.35/deb/Release\.key: .*not found"):
        fetch_key(params, "deb")


# repository files and commands


def test_addresses() -> None:
    community = wanted(source="community")
    assert address(community, "deb") == "https://pkgs.k8s.io/core:/stable:/v1.34/deb/"
    assert key_address(community, "rpm").endswith("/v1.34/rpm/repodata/repomd.xml.key")
    own = wanted("1.30.1", source="mirror", mirror="http://m.example/k8s/")
    assert address(own, "deb") == "http://m.example/k8s/core:/stable:/v1.30/deb/"


FRESH = {"packages": "partly", "containerd": "absent", "runtime": "absent"}


APT = "env DEBIAN_FRONTEND=noninteractive apt-get"
INSTALL = (
    f"{APT} install -y --allow-downgrades --allow-change-held-packages "
    "-o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold"
)


def test_a_fresh_host_from_the_community() -> None:
    assert shown(host_facts(**FRESH), wanted(source="community")) == [
        f"{APT} update -q",
        f"{INSTALL} ca-certificates",
        "/etc/apt/keyrings/kubekit-kubernetes.asc\nKEY",
        "/etc/apt/preferences.d/kubekit-kubernetes\n"
        "# Written by the cluster network kit (kit stage packages).\n"
        "Package: kubelet kubeadm kubectl\nPin: version 1.34.2-*\nPin-Priority: 900\n",
        "/etc/apt/sources.list.d/kubekit-kubernetes.list\n"
        "# Written by the cluster network kit (kit stage packages).\n"
        "deb [signed-by=/etc/apt/keyrings/kubekit-kubernetes.asc] "
        "https://pkgs.k8s.io/core:/stable:/v1.34/deb/ /\n",
        f"{APT} update -q",
        f"{INSTALL} containerd",
        f"{INSTALL} kubernetes-cni 'kubelet=1.34.2-*' 'kubeadm=1.34.2-*' 'kubectl=1.34.2-*'",
        "apt-mark hold kubernetes-cni kubelet kubeadm kubectl",
    ]


def test_the_hosts_own_source_writes_no_file() -> None:
    steps = apt.steps(host_facts(**FRESH), wanted("1.22.3"), "")
    assert not [step.path for step in steps if step.path]
    assert apt.steps(host_facts(), wanted("1.22.3"), "") == []
    # All there but one hold: nothing is read or installed for that.
    loose = host_facts(sections={"packages": LOOSE})
    assert shown(loose, wanted("1.22.3")) == [
        "apt-mark hold kubernetes-cni kubelet kubeadm kubectl"
    ]
    found = checks.packages({"h": loose}, wanted("1.22.3"))
    bad = [each for each in found if each.status is Status.FAIL]
    assert [(each.id, each.got) for each in bad] == [("packages.held", "not held: kubelet")]


LOOSE = "".join(
    f"{name}\t1.22.3-00\t{state} ok installed\n"
    for name, state in (
        ("kubelet", "install"),
        ("kubeadm", "hold"),
        ("kubectl", "hold"),
        ("kubernetes-cni", "hold"),
    )
)


def test_a_host_that_names_the_repository_already_keeps_its_file() -> None:
    paths = [
        step.path
        for step in apt.repository_steps(
            host_facts(repository="community"), wanted(source="community"), ""
        )
    ]
    assert paths == ["/etc/apt/preferences.d/kubekit-kubernetes"]
    # Another minor is another repository: that one is not there yet, but the key is.
    paths = [
        step.path
        for step in apt.repository_steps(
            host_facts(repository="community"), wanted("1.35.1", source="community"), ""
        )
    ]
    assert [Path(path).name for path in paths] == [
        "kubekit-kubernetes",
        "kubekit-kubernetes.list",
    ]


def test_a_newer_patch_of_the_same_minor_is_an_upgrade_that_the_plan_shows() -> None:
    whats = [step.what for step in apt.steps(host_facts(), wanted("1.22.5"), "")]
    assert any("1.22.5: kubelet 1.22.3, kubeadm 1.22.3, kubectl 1.22.3" in what for what in whats)


def without(*programs: str) -> HostFacts:
    """Return a node from whose /opt/cni/bin a plugin took programs away."""
    here = host_facts()
    left = tuple(each for each in here.cni.binaries or () if each not in programs)
    return replace(here, cni=replace(here.cni, binaries=left))


def test_programs_that_a_plugin_took_away_come_back() -> None:
    steps = apt.steps(without("host-local", "portmap"), wanted("1.22.3"), "")
    assert [step.what for step in steps] == [
        "read the package lists anew",
        "install kubernetes-cni again: a plugin took host-local, portmap away",
    ]
    assert str(steps[1].command).endswith("--reinstall kubernetes-cni")
    needs_none = replace(wanted("1.22.3"), plugin="nuage")
    assert apt.steps(without("host-local", "portmap"), needs_none, "") == []
    assert apt.steps(without("loopback"), needs_none, "")
    assert apt.steps(without("dhcp"), wanted("1.22.3"), "") == []


def test_passwords_of_repositories_do_not_leave_the_host(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    source = tmp_path / "etc/apt/sources.list.d/k.list"
    source.write_text(
        "# deb https://x/core:/stable:/v1.1/deb/ /\n"
        "deb https://me:hunter2@m.example/core:/stable:/v1.34/deb/ /\n"
    )
    text = str(command(repository.SCRIPT).argv[2]).replace("/etc/apt", f"{tmp_path}/etc/apt")
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True)
    assert "hunter2" not in done.stdout
    (line,) = repository.parse(done.stdout).others
    assert line.endswith("deb https://***@m.example/core:/stable:/v1.34/deb/ /")


# offers and standing clusters


class Ctx:
    """What `offers` needs of a context: parameters and reads."""

    def __init__(self, params: Params, printed: str, status: int = 0) -> None:
        self.params = params
        self.asked: list[str] = []
        self._result = CommandResult("h", "", printed, "", status)

    def read(self, host: str, cmd: Cmd) -> CommandResult:
        assert not cmd.mutates
        self.asked.append(host)
        return self._result


MADISON = "kubeadm | 1.34.2-1.1 | http://x Packages\nkubeadm | 1.34.1-1.1 | http://x Packages\n"


@pytest.mark.parametrize(
    ("version", "printed", "status", "asked", "result", "got"),
    [
        ("1.22.4", "", 0, False, Status.PASS, "1.22.4"),
        ("1.34.2", MADISON, 0, True, Status.PASS, "1.34.2"),
        ("1.34.3", MADISON, 0, True, Status.FAIL, "1.34.2-1.1, 1.34.1-1.1"),
        ("1.34.3", "", 0, True, Status.FAIL, "none"),
        ("1.34.3", "", 100, True, Status.FAIL, "1.22.4-00, 1.22.3-00"),
    ],
    ids=["known", "asked-anew", "not-offered", "nothing-offered", "repositories-down"],
)
def test_what_the_hosts_repositories_offer(
    version: str, printed: str, status: int, asked: bool, result: Status, got: str
) -> None:
    ctx = Ctx(wanted(version), printed, status)
    found = offers(ctx, {"h": host_facts("h")})  # type: ignore[arg-type]
    assert [(each.status, each.got) for each in found] == [(result, got)]
    assert bool(ctx.asked) is asked
    if result is Status.FAIL:
        assert "source: community" in found[0].remedy


def test_who_has_the_packages_or_another_source_is_not_asked() -> None:
    ctx = Ctx(wanted("1.22.3"), "")
    assert offers(ctx, {"h": host_facts("h")}) == []  # type: ignore[arg-type]
    ctx = Ctx(wanted("1.34.3", source="community"), "")
    assert offers(ctx, {"h": host_facts("h")}) == []  # type: ignore[arg-type]
    assert not ctx.asked


def test_packages_are_not_changed_under_a_cluster_that_stands() -> None:
    node = {"h": host_facts("h", kubeadm="worker")}
    assert standing(node, wanted("1.22.3")) == []
    found = standing(node, wanted("1.22.5"))
    assert [(each.id, each.status) for each in found] == [("packages.upgrade", Status.FAIL)]
    assert "kubeadm upgrade" in found[0].remedy
    assert standing({"h": host_facts("h")}, wanted("1.22.5")) == []
    none = host_facts("h", kubeadm="worker", packages="no-dpkg")
    assert standing({"h": none}, wanted("1.22.5")) == []


# parameters


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{source: hosts}", "packages.source: 'hosts': one of host, community"),
        ("{source: community}", "begin with Kubernetes 1.24"),
        ("{source: mirror}", "source: mirror needs the mirror's address"),
        ("{source: directory}", "source: directory needs the directory"),
        ("{source: directory, directory: nowhere}", "no such directory"),
        ("{source: mirror, mirror: ftp://x}", "an http:// or https:// address"),
        ("{source: mirror, mirror: 'https://me:pw@x/'}", "without a password"),
        ("{key_fingerprint: '1234'}", "40 hexadecimal digits"),
        ("{sourec: host}", "did you mean 'source'"),
    ],
)
def test_wrong_parameters_are_named(tmp_path: Path, text: str, rule: str) -> None:
    lines = LAB.read_text().split("\npackages:")[0]
    path = tmp_path / "x.yaml"
    path.write_text(f"{lines}\npackages: {text}\n")
    with pytest.raises(ParamsError) as wrong:
        load(path)
    assert rule in str(wrong.value)


def test_swap_off_is_understood_quoted_or_not(tmp_path: Path) -> None:
    lines = LAB.read_text().split("\nswap:")[0]
    path = tmp_path / "x.yaml"
    for written, meant in (("off", "off"), ('"off"', "off"), ("keep", "keep")):
        path.write_text(f"{lines}\nswap: {written}\n")
        assert load(path).swap == meant
    path.write_text(f"{lines}\nswap: on\n")
    with pytest.raises(ParamsError, match="swap: on: off or keep"):
        load(path)
