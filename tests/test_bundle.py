"""A bundle on disk: read, verified, refused; and the script that says what a node needs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from factory import host_facts

from kitlib import bundling
from kitlib.errors import ParamsError
from kitlib.model import Status
from kitlib.params import load
from kitlib.software import directory
from kitlib.software.bundle import Archive, Bundle, image_file_name, read, sha256, sums, verify
from kitlib.stages.bundle_source import bundle_fits

LAB = Path(__file__).parents[1] / "params/lab.yaml"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of small files."""
    found: dict[str, list[Archive]] = {"packages": [], "images": []}
    for kind, name, version in (
        ("packages", "kubelet", "1.34.2-1.1"),
        ("packages", "kubeadm", "1.34.2-1.1"),
        ("packages", "kubectl", "1.34.2-1.1"),
        ("packages", "kubernetes-cni", "1.7.1-1.1"),
        ("packages", "containerd", "1.7.24~ds1-6"),
        ("packages", "runc", "1.1.15+ds1-2"),
        ("packages", "conntrack", "1:1.4.8-2"),
        ("images", "registry.k8s.io/pause:3.10.1", ""),
    ):
        file = f"{kind}/{name.replace('/', '_')}"
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        found[kind].append(Archive(file, name, version, sha256(path), len(name)))
    made = Bundle(
        tmp_path,
        "1.34.2",
        "flannel",
        "debian 12",
        "amd64",
        "",
        tuple(found["packages"]),
        tuple(found["images"]),
    )
    (tmp_path / "bundle.json").write_text(made.manifest())
    return made


def test_what_was_written_is_read_and_holds(bundle: Bundle) -> None:
    assert read(bundle.directory) == bundle
    verify(bundle)
    kubelet, *_, conntrack = bundle.packages
    assert (kubelet.release, conntrack.release) == ("1.34.2", "1.4.8")


def test_files_that_are_gone_or_others_are_all_named(bundle: Bundle) -> None:
    (bundle.directory / "packages/kubelet").unlink()
    (bundle.directory / "packages/runc").write_text("x")
    with pytest.raises(ParamsError) as wrong:
        verify(bundle)
    assert "packages/kubelet is missing" in str(wrong.value)
    assert "packages/runc is not the file that was bundled" in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (None, "no bundle: bundle.json: No such file"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 1}', "damaged"),
        ('{"format": 2}', "of another kit's form"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, text: str | None, rule: str) -> None:
    if text is not None:
        (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(ParamsError, match=rule):
        read(tmp_path)


def test_sums_are_in_the_form_of_sha256sum() -> None:
    assert sums({"b": "2" * 64, "a": "1" * 64}) == f"{'1' * 64}  a\n{'2' * 64}  b\n"
    assert image_file_name("r.example:5000/a/b:v1") == "r.example_5000_a_b_v1.tar"


def test_a_bare_host_gets_all_and_a_node_gets_nothing(bundle: Bundle) -> None:
    bare = host_facts(packages="no-dpkg", containerd="absent", runtime="absent")
    nothing = directory.Here(frozenset(), frozenset())
    before = directory.steps_before(bare, nothing, bundle)
    assert [each.what.split(",")[0].split(":")[0] for each in before] == [
        "copy 7 packages and 1 images",
        "verify the copies",
        "install from these files alone",
        "keep their versions from upgrades",
    ]
    install = str(before[2].command)
    assert "Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null" in install
    assert "/var/cache/kubekit/conntrack" in install
    after = directory.steps_after(nothing, bundle, copied=True)
    assert [str(step.command) for step in after][-1] == "rm -rf /var/cache/kubekit"

    node = host_facts()
    there = directory.Here.parse(
        "".join(f"{each.name}\tinstalled\n" for each in bundle.packages)
        + "image\tregistry.k8s.io/pause:3.10.1\n"
    )
    wanted = replace(bundle, kubernetes_version="1.22.3")
    assert directory.steps_before(node, there, wanted) == []
    assert directory.steps_after(there, wanted, copied=False) == []


def test_a_package_whose_programs_are_gone_is_installed_again(bundle: Bundle) -> None:
    there = directory.Here(frozenset(each.name for each in bundle.packages), frozenset())
    node = replace(bundle, kubernetes_version="1.22.3", images=())
    steps = directory.steps_before(host_facts(), there, node, ("bridge",))
    sent = [path for step in steps for _, path in step.sends]
    assert sent == ["/var/cache/kubekit/kubernetes-cni"]
    assert "--reinstall" in str(steps[2].command)
    assert directory.steps_before(host_facts(), there, node) == []


def test_another_runtime_is_not_given_a_second_one(bundle: Bundle) -> None:
    docker = host_facts(packages="no-dpkg", containerd="cri-disabled")
    steps = directory.steps_before(docker, directory.Here(frozenset(), frozenset()), bundle)
    sent = [path for step in steps for _, path in step.sends]
    assert not {"/var/cache/kubekit/runc", "/var/cache/kubekit/containerd"} & set(sent)
    assert "/var/cache/kubekit/kubelet" in sent


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({}, set()),
        ({"kubernetes_version": "1.34.1"}, {"packages.bundle"}),
        ({"plugin": "calico"}, {"packages.bundle"}),
        ({"system": "ubuntu 24.04"}, {"packages.bundle-system"}),
        ({"emulated": "made in a lab"}, {"packages.bundle-system"}),
    ],
)
def test_a_bundle_for_something_else_is_refused(
    bundle: Bundle, changes: dict[str, str], bad: set[str]
) -> None:
    params = replace(load(LAB), kubernetes_version="1.34.2")
    found = bundle_fits(replace(bundle, **changes), {"h": host_facts("h")}, params)
    assert {each.id for each in found if each.status is Status.FAIL} == bad


APT = """\
#!/bin/sh
case "$*" in
*Dir::State::status=*) ;;
*) echo "the host's own state was asked" >&2; exit 100;;
esac
case "$*" in
*kubelet*) printf 'Inst libc6 (2.36-9 Debian:12 [amd64])\\nInst kubelet (1.34.2-1.1 x [amd64])\\n'
  printf 'Inst conntrack (1:1.4.7-1+b2 Debian:12 [amd64])\\n';;
*) printf 'Inst libc6 (2.36-9 Debian:12 [amd64])\\nInst dpkg (1.21 Debian:12 [amd64])\\n';;
esac
"""
DPKG = "#!/bin/sh\nprintf 'dpkg required yes\\nvim optional no\\napt important no\\n'\n"


def test_what_a_node_needs_is_what_the_smallest_system_lacks(tmp_path: Path) -> None:
    for name, text in (("apt-get", APT), ("dpkg-query", DPKG)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", bundling._CLOSURE, "sh", "kubelet=1.34.2-*"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["kubelet=1.34.2-1.1", "conntrack=1:1.4.7-1+b2"]
