"""A user's own plugin: one file beside the parameters, and everything knows it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from factory import host_facts, plugin_like

from kitlib import checks, cli, plugin_pages, plugins
from kitlib.comparison_plan import plan_comparison
from kitlib.diagnosis.readiness import plugin_pods
from kitlib.errors import ParamsError
from kitlib.params import catalogue_beside, load
from kitlib.runs import load_run
from kitlib.session import Session
from kitlib.stages import situation

ROOT = Path(__file__).resolve().parents[1]
(EXAMPLE,) = re.findall(
    r"`params/plugins/bridges\.yaml`:\n\n```yaml\n(.*?)```",
    (ROOT / "README.md").read_text(),
    re.DOTALL,
)
"""The README's whole example, as it stands there."""

BRIDGE = json.dumps(
    [{"ifname": "br-pods", "mtu": 1500, "flags": ["UP"], "linkinfo": {"info_kind": "bridge"}}]
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the lab's parameters and the README's example beside it."""
    params = tmp_path / "params"
    (params / "plugins/manifests").mkdir(parents=True)
    (params / "lab.yaml").write_text((ROOT / "params/lab.yaml").read_text())
    (params / "plugins/bridges.yaml").write_text(EXAMPLE)
    (params / "plugins/manifests/bridges.yaml").write_text("kind: List\n")
    return tmp_path


def loaded(home: Path, **changes: Any) -> Any:
    return load(home / "params/lab.yaml", {"plugin": "bridges", **changes})


def own(home: Path, **changes: Any) -> Path:
    """Return the plugin's file with these keys changed; None takes a key away."""
    path = home / "params/plugins/bridges.yaml"
    data = {**yaml.safe_load(EXAMPLE), **changes}
    path.write_text(
        yaml.safe_dump({key: value for key, value in data.items() if value is not None})
    )
    return path


def test_the_readmes_example_is_a_plugin(home: Path) -> None:
    params = loaded(home)
    assert params.wanted_plugin.title == "Bridges"
    assert str(params.effective_pod_cidr) == "10.200.0.0/16"
    # Before plugin_source, which the lab's file names.
    assert params.plugin_source
    assert params.manifests == (str(home / "params/plugins/manifests/bridges.yaml"),)
    assert loaded(home, plugin_manifest="http://127.0.0.1/x.yaml").manifests == (
        "http://127.0.0.1/x.yaml",
    )
    assert set(params.catalogue) == {*plugins.catalogue(), "bridges"}
    assert "bridges" not in plugins.catalogue(), "nothing of it outside of these parameters"


def test_a_manifest_at_an_address_comes_from_plugin_source_as_all_do(home: Path) -> None:
    manifest = yaml.safe_load(EXAMPLE)["manifest"]
    own(home, manifest={**manifest, "addresses": ["https://x.example/{version}/b.yaml"]})
    assert loaded(home).manifests == ("http://127.0.0.1:7720/bridges.yaml",)
    assert loaded(home, plugin_source="").manifests == ("https://x.example/1.0/b.yaml",)


def test_hosts_are_judged_by_it(home: Path) -> None:
    params = loaded(home)
    sections = {
        "cni.files": '## /etc/cni/net.d/10-bridges.conflist\n{"plugins":[{"type":"bridge"}]}',
        "links": BRIDGE,
    }
    here = host_facts("w", sections=sections, known=params.catalogue)
    assert [file.owner for file in here.cni.files] == ["bridges"]
    found = {each.id: each for each in checks.cni({"w": here}, params.wanted_plugin)}
    assert found["cni.config-in-force"].status == "PASS"
    assert found["cni.no-foreign-interface"].status == "PASS"
    foreign = {each.id: each for each in checks.cni({"w": here}, plugins.get("flannel"))}
    assert foreign["cni.no-foreign-interface"].got == "br-pods (bridges)"
    told = checks.preflight({"w": here}, params, params.wanted_plugin)
    assert {each.status for each in told if each.id == "preflight.plugin-version"} == {"PASS"}


def test_the_script_and_the_reset_look_for_what_it_leaves(home: Path) -> None:
    from kitlib.facts import command_for
    from kitlib.stages.leftovers import Whose, removals

    params = loaded(home)
    assert "/var/lib/bridges" in str(command_for(params.catalogue))
    assert "/var/lib/bridges" not in str(command_for(plugins.catalogue()))
    sections = {
        "leftovers.paths": "/var/lib/bridges",
        "leftovers.chains": "BRIDGES-FWD\nINPUT",
        "cni.names": "10-bridges.conflist",
        "links": BRIDGE,
    }
    here = host_facts("w", cni="clean", sections=sections, known=params.catalogue)
    text = "\n".join(
        f"{action.what} {action.command}"
        for action in removals("w", here, Whose(None, None, frozenset()))
    )
    for trace in ("/var/lib/bridges", "BRIDGES-", "br-pods", "10-bridges.conflist"):
        assert trace in text, trace


def test_a_variant_of_a_plugin_is_itself_where_it_is_wanted(home: Path) -> None:
    """It has the files, devices and workloads of the one that it varies."""
    data = plugin_like("flannel", {"name": "flannel-ours"}).model_dump(mode="json")
    data["manifest"]["addresses"] = ["manifests/bridges.yaml"]
    (home / "params/plugins/flannel-ours.yaml").write_text(yaml.safe_dump(data))
    (load,) = plugins.catalogue()["flannel"].workloads
    there = [{"metadata": {"namespace": load.namespace, "name": load.name}}]
    kube: Any = SimpleNamespace(items=lambda path: there if path.endswith("/daemonsets") else [])
    for wanted in ("flannel-ours", "flannel"):
        params = loaded(home, plugin=wanted)
        assert params.catalogue.owner_of_interface("flannel.1") == wanted
        assert params.catalogue.owner_of_cni_file("10-flannel.conflist") == wanted
        joined = host_facts("w", kubeadm="worker", known=params.catalogue)
        ctx: Any = SimpleNamespace(plugin=params.wanted_plugin, params=params)
        assert situation._other_plugin(ctx, {"w": joined}, kube) == ""
    assert loaded(home).catalogue.owner_of_interface("flannel.1") == "flannel"
    ctx = SimpleNamespace(plugin=loaded(home).wanted_plugin, params=loaded(home))
    assert "wanted is bridges" in situation._other_plugin(ctx, {}, kube)


def test_the_record_says_what_it_was(home: Path) -> None:
    overrides = {"plugin": "bridges", "runs": str(home / "runs")}
    with Session.open(home / "params/lab.yaml", overrides=overrides) as session:
        run_dir = session.journal.path
        assert session.plugin.name == "bridges"
    (home / "params/plugins/bridges.yaml").unlink()
    run = load_run(run_dir)
    assert run.catalogue["bridges"].title == "Bridges"
    assert [each.labels for each in plugin_pods(run)] == [{"app": "bridges"}]
    record = json.loads((run_dir / "run.json").read_text())
    record["own_plugins"]["bridges"]["title"] = None  # of another release of the kit
    (run_dir / "run.json").write_text(json.dumps(record))
    assert plugin_pods(load_run(run_dir)) == ()


def test_it_is_compared_with_the_others(home: Path) -> None:
    plan = plan_comparison(home / "params/lab.yaml", "bridges,flannel", rounds=1)
    assert plan.version_of("bridges") == "1.36.5"
    assert "bridges" in str(plan_comparison(home / "params/lab.yaml", rounds=1).candidates)


def test_the_verb_lists_it_and_shows_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    for args, words in (
        ((), "bridges"),
        (("bridges",), "params/plugins/manifests/bridges.yaml"),
        (("--for", "1.20"), "bridges does not fit: 1.22 is the oldest"),
    ):
        monkeypatch.setattr("sys.argv", ["kit", "plugins", *args])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        assert words in capsys.readouterr().out
    (row,) = [row for row in plugin_pages.rows(catalogue_beside(home / "params/x.yaml"))
              if row.plugin == "bridges"]  # fmt: skip
    assert row.living


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"titel": "x"}, "titel: 'x': unknown key; did you mean 'title'?"),
        ({"title": None}, "title: a mapping: required"),
        ({"network_policy": "no"}, "network_policy: 'no': true or false, not quoted"),
        ({"overhead_bytes": -1}, "overhead_bytes: -1: input should be greater than or equal to 0"),
        (
            {"kubernetes": {"min": 1.2, "max": "1.36"}},
            "kubernetes.min: 1.2: a string: write it quoted",
        ),
        ({"kubernetes": {"min": "1", "max": "1.36"}}, r"kubernetes.min: '1': not like ^1\.\d+$"),
        ({"ipv6": "maybe"}, "ipv6: 'maybe': one of 'yes', 'no' or 'not stated'"),
        ({"workloads": []}, "the plugin: a mapping: workloads: at least one"),
        ({"name": "other"}, "name: 'other': the file's name says 'bridges'; they must be the same"),
        ({"needs": {"modules": [], "node_pod_cidr": True, "delegate": "x"}}, "needs.delegate: 'x'"),
    ],
)
def test_what_is_wrong_in_it_is_told(home: Path, changes: dict[str, Any], words: str) -> None:
    own(home, **changes)
    for wanted in ("bridges", "flannel"):  # also where it is not the wanted one
        with pytest.raises(ParamsError) as caught:
            loaded(home, plugin=wanted)
        assert caught.value.exit_code == 2
        assert f"params/plugins/bridges.yaml: {words}" in str(caught.value), caught.value
    with pytest.raises(ParamsError) as caught:
        catalogue_beside(home / "params/lab.yaml")
    assert words in str(caught.value)
    assert "docs/plugins.md" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("calico", EXAMPLE.replace("name: bridges", "name: calico", 1), "kit's own catalogue has"),
        ("x", "a: [", "not YAML"),
        ("x", "a: 1\n---\nb: 2\n", "not YAML: but found another document"),
        ("x", "- a\n", "not a plugin: a mapping of fields"),
        ("x", "", "not a plugin: a mapping of fields"),
        ("x", "apiVersion: v1\nkind: List\n", "not a plugin but a Kubernetes manifest"),
        ("x", "name: x\nname: y\n", "the key stands twice"),
        ("x", "name: \x07\n", "not YAML"),
        ("x", "\udcff", "not a text file in UTF-8"),
    ],
)
def test_a_file_that_is_no_plugin(home: Path, name: str, text: str, words: str) -> None:
    path = home / f"params/plugins/{name}.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ParamsError) as caught:
        loaded(home, plugin="flannel")
    assert words in str(caught.value)
    assert f"{name}.yaml" in str(caught.value)


def test_a_manifest_that_is_not_there(home: Path) -> None:
    (home / "params/plugins/manifests/bridges.yaml").unlink()
    with pytest.raises(ParamsError, match=r"manifest\.addresses: '/.*bridges\.yaml': no such file"):
        loaded(home)


def test_an_unknown_name_is_answered_with_ones_own_too(home: Path) -> None:
    with pytest.raises(ParamsError, match=r"known are bridges, calico, .*did you mean 'bridges'"):
        loaded(home, plugin="bridge")


def test_nothing_beside_the_parameters_is_nothing_wrong(home: Path) -> None:
    for file in (home / "params/plugins").rglob("*.yaml"):
        file.unlink()
    assert dict(loaded(home, plugin="flannel").catalogue) == dict(plugins.catalogue())
    assert replace(loaded(home, plugin="flannel")).catalogue.own == frozenset()
