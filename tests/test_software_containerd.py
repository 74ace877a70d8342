"""containerd's configuration in both formats: judged, changed by structure, written, read again."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from factory import host_facts

from kitlib.errors import KitError
from kitlib.facts import containerd as facts
from kitlib.facts.sections import command
from kitlib.software import toml
from kitlib.software.containerd import (
    configured,
    differences,
    needs_containerd,
    sandbox_image,
)
from kitlib.stages.node_setup import configure_containerd

RECORDED = Path(__file__).parent / "data/kubeadm/host-files/config.toml"


def config(name: str) -> Any:
    found = host_facts(containerd=name).containerd.config
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kubernetes", "image"),
    [
        ("1.15.0", "k8s.gcr.io/pause:3.1"),
        ("1.20.9", "k8s.gcr.io/pause:3.2"),
        ("1.22.3", "k8s.gcr.io/pause:3.5"),
        ("1.24.17", "k8s.gcr.io/pause:3.7"),
        ("1.25.0", "registry.k8s.io/pause:3.8"),
        ("1.30.14", "registry.k8s.io/pause:3.9"),
        ("1.34.2", "registry.k8s.io/pause:3.10.1"),
        ("1.99.0", "registry.k8s.io/pause:3.10.2"),
    ],
)
def test_the_sandbox_image_follows_the_version(kubernetes: str, image: str) -> None:
    assert sandbox_image(kubernetes) == image


def test_a_recorded_host_needs_nothing_and_its_mirror_survives_a_change() -> None:
    assert differences(config("debian-12"), "1.22.3") == ()
    wrong = differences(config("debian-12"), "1.34.2")
    assert wrong == ("the sandbox image is k8s.gcr.io/pause:3.5",)
    changed = configured(config("debian-12"), "1.6.20", "1.34.2")
    assert differences(changed, "1.34.2") == ()
    cri = changed["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["registry"]["mirrors"]["*"]["endpoint"] == ["http://10.77.0.1:5000"]
    assert cri["sandbox_image"] == "registry.k8s.io/pause:3.10.1"
    assert config("debian-12") == tomllib.loads(RECORDED.read_text()), "the original was changed"


def test_an_image_from_a_registry_of_ones_own_is_left() -> None:
    mine = configured(config("debian-12"), "1.6.20", "1.22.3")
    mine["plugins"]["io.containerd.grpc.v1.cri"]["sandbox_image"] = "r.example:5000/k/pause:3.5"
    assert differences(mine, "1.22.3") == ()
    again = configured(mine, "1.6.20", "1.22.3")["plugins"]["io.containerd.grpc.v1.cri"]
    assert again["sandbox_image"] == "r.example:5000/k/pause:3.5"


def test_format_3_keeps_things_elsewhere() -> None:
    assert differences(config("version-3"), "1.33.0") == ("SystemdCgroup is off",)
    changed = configured(config("version-3"), "2.1.4", "1.34.2")
    plugins = changed["plugins"]
    runtime = plugins["io.containerd.cri.v1.runtime"]
    assert runtime["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": True}
    assert runtime["cni"]["bin_dirs"] == ["/opt/cni/bin"]
    assert runtime["cni"]["bin_dir"] == "", "both keys at once are refused"
    image = plugins["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"]
    assert image == "registry.k8s.io/pause:3.10.1"
    assert "io.containerd.grpc.v1.cri" not in plugins
    assert differences(changed, "1.34.2") == ()


def test_debians_directory_for_programs_is_changed() -> None:
    debian = configured(config("debian-12"), "1.6.20", "1.22.3")
    debian["plugins"]["io.containerd.grpc.v1.cri"]["cni"]["bin_dir"] = "/usr/lib/cni"
    assert differences(debian, "1.22.3") == ("CNI programs are looked for in /usr/lib/cni",)
    assert differences(configured(debian, "1.6.20", "1.22.3"), "1.22.3") == ()


def test_dockers_package_gets_its_cri_plugin_and_loses_no_import_of_its_own_file() -> None:
    assert "its CRI plugin is disabled" in differences(config("cri-disabled"), "1.34.2")
    changed = configured(config("cri-disabled"), "1.7.27", "1.34.2")
    assert differences(changed, "1.34.2") == ()
    assert "imports" not in changed
    assert changed["plugins"]["io.containerd.internal.v1.opt"] == {"path": "/opt/containerd"}


@pytest.mark.parametrize(("installed", "format"), [("1.7.24", 2), ("2.0.5", 3), ("2.2.1", 3)])
def test_without_a_readable_file_a_minimal_one_is_made(installed: str, format: int) -> None:
    made = configured(None, installed, "1.34.2")
    assert made["version"] == format
    assert differences(made, "1.34.2") == ()
    assert tomllib.loads(toml.dumps(made)) == made


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"a": {}, "b": {"c": {}}},
        {"x": 1, "t": {"y": True, "z": 1.5, "s": 'a "quoted" \\ back\tslash\n\x7fé'}},
        {"plugins": {"io.a.v1": {"l": ["a", "b"], "n": [], "d": [{"k": "v"}], "*": {"e": [1, 2]}}}},
        {"": {"": ""}},
    ],
)
def test_toml_round_trip(data: dict[str, Any]) -> None:
    assert tomllib.loads(toml.dumps(data)) == data


def test_toml_refuses_what_it_cannot_write() -> None:
    with pytest.raises(KitError, match="cannot be written"):
        toml.dumps({"a": None})


def test_passwords_of_registries_do_not_leave_the_host(tmp_path: Path) -> None:
    dump = RECORDED.read_text() + (
        '[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example".auth]\n'
        '  username = "me"\n  password = "hunter2"\n  auth = "aHVudGVyMg=="\n'
        "  identitytoken = 'hunter3'\n"
    )
    (tmp_path / "dump").write_text(dump)
    program = tmp_path / "containerd"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "containerd x v1.7.2" || cat {tmp_path}/dump\n'
    )
    program.chmod(0o755)
    done = subprocess.run(
        command(facts.SCRIPT).render(),
        shell=True,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert not {"hunter2", "aHVudGVyMg==", "hunter3"} & set(done.stdout.replace('"', " ").split())
    found = facts.parse(done.stdout)
    assert found.version == "1.7.2"
    auth = found.config["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["configs"]["r.example"]
    assert auth == {
        "auth": {"username": "me", "password": "***", "auth": "***", "identitytoken": "***"}
    }


def test_the_plan_installs_configures_and_restarts_only_where_needed() -> None:
    assert configure_containerd("h", host_facts(), "1.22.3") == []
    bare = host_facts(containerd="absent", runtime="absent")
    assert needs_containerd(bare)
    assert [each.command is None for each in configure_containerd("h", bare, "1.22.3")] == [
        True,
        False,
    ]
    other = host_facts(containerd="absent")  # crictl answers: another runtime runs
    assert not needs_containerd(other)
    assert configure_containerd("h", other, "1.22.3") == []
    wrong = configure_containerd("h", host_facts(containerd="version-3"), "1.33.0")
    assert "SystemdCgroup is off" in wrong[0].what
    broken = configure_containerd("h", host_facts(containerd="broken-file"), "1.33.0")
    assert "cannot be read" in broken[0].what
    stopped = configure_containerd("h", host_facts(runtime="down"), "1.22.3")
    assert [str(each.command) for each in stopped] != []
    assert len(stopped) == 1
