"""Parameters: what is right loads, and everything that is wrong is named at once."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitlib import plugins
from kitlib.errors import ParamsError
from kitlib.inventory import Inventory
from kitlib.params import Params, load
from kitlib.params.schema import Sheet

ROOT = Path(__file__).parents[1]
GOOD: dict[str, Any] = {
    "cluster": "lab",
    "kubernetes_version": "1.22.3",
    "plugin": "flannel",
    "hosts": [
        {"name": "cp", "address": "192.0.2.1", "role": "control_plane"},
        {"name": "w1", "address": "192.0.2.2", "role": "worker"},
    ],
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params" / "x.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def good(tmp_path: Path, **changes: Any) -> Path:
    return write(tmp_path, yaml.safe_dump({**GOOD, **changes}))


def problems(path: Path, overrides: dict[str, object] | None = None) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load(path, overrides or {})
    assert caught.value.exit_code == 2
    return [str(each) for each in caught.value.problems]


def only(path: Path, overrides: dict[str, object] | None = None) -> str:
    found = problems(path, overrides)
    assert len(found) == 1, found
    return found[0]


def test_defaults(tmp_path: Path) -> None:
    params = load(good(tmp_path))
    assert params.service_cidr == IPv4Network("10.96.0.0/12")
    assert params.effective_pod_cidr == IPv4Network("10.244.0.0/16")
    assert params.control_plane.name == "cp"
    assert [host.name for host in params.workers] == ["w1"]
    assert params.runs == tmp_path / "runs"
    assert params.ssh.known_hosts == Path.home() / ".ssh/known_hosts"
    assert (params.hosts[0].port, params.hosts[0].user) == (0, ""), "left to SSH"
    assert params.hosts[0].node_address == "192.0.2.1"
    assert params.timeouts.join == 420
    assert params.source == tmp_path / "params/x.yaml"


def test_frozen(tmp_path: Path) -> None:
    params = load(good(tmp_path))
    with pytest.raises(FrozenInstanceError):
        params.plugin = "calico"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["lab.yaml", "example.yaml"])
def test_committed_files_load(name: str) -> None:
    assert isinstance(load(ROOT / "params" / name), Params)


def test_lab_file_is_the_lab() -> None:
    params = load(ROOT / "params/lab.yaml")
    assert [(host.address, host.port, host.node_address) for host in params.hosts] == [
        ("127.0.0.1", 7721, "10.77.0.11"),
        ("127.0.0.1", 7722, "10.77.0.12"),
        ("127.0.0.1", 7723, "10.77.0.13"),
    ]
    assert params.confirm_reset == params.cluster == "lab"
    assert params.ssh.identity_file == ROOT / ".lab/id_ed25519"
    assert params.ssh.known_hosts == ROOT / ".lab/known_hosts"
    assert params.manifests == ("http://127.0.0.1:7720/flannel.yaml",)


def test_lab_file_shows_every_key() -> None:
    data = yaml.safe_load((ROOT / "params/lab.yaml").read_text())
    assert list(data) == list(Sheet.model_fields)
    for part in ("ssh", "probe", "diagnose", "timeouts", "packages", "proxy"):
        kind: Any = Sheet.model_fields[part].annotation
        assert set(data[part]) == set(kind.model_fields)


def test_how_a_cluster_is_measured(tmp_path: Path) -> None:
    usual = load(good(tmp_path)).diagnose
    assert usual.image == "docker.io/nicolaka/netshoot:v0.13"
    assert usual.resources == {"requests": {"cpu": "10m", "memory": "32Mi"}}
    assert usual.tolerations == ({"operator": "Exists"},)
    assert (usual.port, usual.rounds, usual.side_by_side, usual.most_pairs) == (18765, 3, 0, 2450)
    own = {
        "image": "registry.example.net:5000/a/netshoot@sha256:" + "0" * 64,
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "64Mi", "cpu": 0.5}},
        "tolerations": [
            {"key": "a.example/b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 9}
        ],
        "external_name": "www.example.org.",
    }
    found = load(good(tmp_path, diagnose=own))
    assert found.diagnose.image == own["image"]
    assert found.diagnose.resources["limits"] == {"memory": "64Mi", "cpu": "0.5"}
    assert found.diagnose.resources["requests"] == {"cpu": "1"}
    assert found.masked()["diagnose"]["tolerations"] == own["tolerations"]
    assert found.diagnose.external_name == "www.example.org", "as every other name: no last dot"
    assert load(good(tmp_path, diagnose={"tolerations": []})).diagnose.tolerations == ()


def test_the_pod_cidr_follows_the_plugin(tmp_path: Path) -> None:
    path = good(tmp_path, pod_cidr="")
    assert str(load(path, {"plugin": "calico"}).effective_pod_cidr) == "192.168.0.0/16"
    assert str(load(path, {"plugin": None}).effective_pod_cidr) == "10.244.0.0/16"
    stated = good(tmp_path, pod_cidr="10.200.0.0/16")
    assert str(load(stated, {"plugin": "calico"}).effective_pod_cidr) == "10.200.0.0/16"


def test_a_plugin_that_calls_another_is_applied_after_it(tmp_path: Path) -> None:
    """The other one's manifests come first, and its addresses are the pods'."""
    path = good(tmp_path, plugin="cni-genie", kubernetes_version="1.21.14", pod_cidr="")
    params = load(path)
    assert [where.rsplit("/", 1)[1] for where in params.manifests] == [
        "kube-flannel.yml",
        "genie-plugin.yaml",
    ]
    assert params.masked()["plugin_delegate"] == "flannel"
    assert params.wanted_plugin.title == "CNI-Genie over Flannel"
    other = load(path, {"plugin_delegate": "calico", "plugin_source": "http://127.0.0.1:1/"})
    assert other.manifests == (
        "http://127.0.0.1:1/calico.yaml",
        "http://127.0.0.1:1/cni-genie.yaml",
    )
    assert str(other.effective_pod_cidr) == "192.168.0.0/16"
    (tmp_path / "mine.yaml").write_text("")
    mine = load(path, {"plugin_manifest": str(tmp_path / "mine.yaml")})
    assert [Path(where).name for where in mine.manifests] == ["kube-flannel.yml", "mine.yaml"]


def test_a_plugin_that_calls_another_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params/cni-genie.yaml").write_text("")
    found = problems(good(tmp_path, plugin="cni-genie", plugin_source="."))
    assert [each for each in found if "holds no flannel.yaml" in each], found


@pytest.mark.parametrize(
    ("delegate", "part"),
    [
        ("flanel", "plugin_delegate: 'flanel': unknown plugin"),
        ("cni-genie", "plugin_delegate: 'cni-genie': calls another plugin itself"),
        ("kube-router", "and that is 10-kuberouter.conflist"),
    ],
)
def test_a_plugin_that_cannot_be_called(tmp_path: Path, delegate: str, part: str) -> None:
    found = problems(good(tmp_path, plugin="cni-genie", plugin_delegate=delegate))
    assert any(part in each for each in found), found
    assert load(good(tmp_path, plugin_delegate="kube-router")).wanted_plugin.name == "flannel"


def test_paths_start_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "manifest.yaml").write_text("")
    path = good(
        tmp_path,
        plugin_manifest="../manifest.yaml",
        runs="~/runs",
        ssh={"identity_file": "~/.ssh/key", "known_hosts": "known"},
    )
    monkeypatch.chdir(tmp_path.parent)
    params = load(path)
    assert params.manifests == (params.plugin_manifest,) == (str(tmp_path / "manifest.yaml"),)
    assert params.runs == tmp_path / "home/runs"
    assert params.hosts[0].identity_file == tmp_path / "home/.ssh/key"
    assert params.ssh.known_hosts == tmp_path / "params/known"


def test_an_options_path_starts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    params = load(good(tmp_path), {"plugin_manifest": "here.yaml"})
    assert params.manifests == (str(tmp_path / "here.yaml"),)


def test_manifest_of_a_source_and_of_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params/flannel.yaml").write_text("")
    assert load(good(tmp_path, plugin_source=".")).manifests == (
        str(tmp_path / "params/flannel.yaml"),
    )
    served = good(tmp_path, plugin_source="http://127.0.0.1:1/")
    assert load(served).manifests == ("http://127.0.0.1:1/flannel.yaml",)
    assert load(good(tmp_path)).manifests[0].startswith("https://github.com/flannel-io/flannel/")


def test_masked_is_plain_and_complete(tmp_path: Path) -> None:
    import json

    masked = load(good(tmp_path)).masked()
    assert json.loads(json.dumps(masked)) == masked
    assert set(Sheet.model_fields) <= set(masked)
    assert masked["pod_cidr"] == "10.244.0.0/16"


def test_version_as_a_number(tmp_path: Path) -> None:
    text = yaml.safe_dump(GOOD).replace("1.22.3", "1.30")
    message = only(write(tmp_path, text))
    assert "kubernetes_version: 1.30: write it quoted" in message


@pytest.mark.parametrize("version", ["v1.22.3", "1.30", "1.22.3-00", "latest", ""])
def test_version_of_another_form(tmp_path: Path, version: str) -> None:
    assert "such as" in only(good(tmp_path, kubernetes_version=version))


@pytest.mark.parametrize("word", ["no", "yes", "off", "on"])
def test_yaml_booleans_in_place_of_strings(tmp_path: Path, word: str) -> None:
    text = yaml.safe_dump({**GOOD, "cluster": "MARK"}).replace("MARK", word)
    assert f"cluster: {word}: a string; YAML reads it as true or false" in only(
        write(tmp_path, text)
    )


def test_unknown_keys_and_what_was_meant(tmp_path: Path) -> None:
    hosts = [{**GOOD["hosts"][0], "adress": "192.0.2.9"}, GOOD["hosts"][1]]
    found = problems(good(tmp_path, plugn="x", hosts=hosts, timeouts={"inti": 3}, ssh={"zz": 1}))
    assert len(found) == 4
    assert any("plugn: 'x': unknown key; did you mean 'plugin'?" in each for each in found)
    assert any("hosts[0].adress" in each and "did you mean 'address'?" in each for each in found)
    assert any("timeouts.inti" in each and "did you mean 'init'?" in each for each in found)
    assert any("ssh.zz: 1: unknown key" in each and "mean" not in each for each in found)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"plugin": "flanel"}, "did you mean 'flannel'?"),
        ({"plugin": ""}, "plugin: '': not empty"),
        ({"cluster": "My_Lab"}, "a DNS label"),
        ({"pod_cidr": "10.244.0.1/16"}, "an IPv4 network"),
        ({"service_cidr": "10.96.0.0/33"}, "an IPv4 network"),
        ({"pod_cidr": "10.96.0.0/16"}, "pod_cidr: '10.96.0.0/16': overlaps service_cidr"),
        ({"service_cidr": "10.244.128.0/17"}, "the default of flannel"),
        ({"pod_cidr": "192.0.2.0/25"}, "lies inside pod_cidr"),
        ({"service_cidr": "192.0.2.0/31"}, "hosts[0].address: '192.0.2.1': lies inside service"),
        ({"plugin_manifest": "nosuch.yaml"}, "no such file"),
        ({"plugin_source": "nosuch"}, "no such directory"),
        ({"plugin_source": "."}, "holds no flannel.yaml"),
        ({"plugin_source": "~nosuchuser/x"}, "no such directory"),
        ({"plugin_manifest": "x" * 5000}, "xxx...': no such file"),
        ({"confirm_reset": "kubernetes"}, "kubeadm's default name"),
        ({"confirm_reset": "sha256:12"}, "64 hexadecimal digits"),
        ({"hosts": []}, "at least one"),
        ({"hosts": "cp"}, "hosts: 'cp': a list"),
        ({"hosts": ["cp"]}, "hosts[0]: 'cp': a mapping"),
        ({"probe": {"samples": "20"}}, "a whole number, not quoted"),
        ({"probe": {"interval": True}}, "probe.interval"),
        ({"probe": {"samples": 0}}, "greater than or equal to 1"),
        ({"probe": {"image": "Busy Box"}}, "probe.image: 'Busy Box': an image"),
        ({"diagnose": {"imagee": "x"}}, "diagnose.imagee"),
        ({"diagnose": {"port": 65535}}, "diagnose.port"),
        ({"diagnose": {"imagee": "x"}}, "did you mean 'image'?"),
        ({"diagnose": {"image": "https://registry.example.net/x"}}, "diagnose.image"),
        ({"diagnose": {"namespace": "x" * 51}}, "at most 50"),
        ({"diagnose": {"namespace": "kube-system"}}, "Kubernetes keeps these names"),
        ({"diagnose": {"resources": "10m"}}, "a mapping with requests and limits"),
        ({"diagnose": {"resources": {"cpu": "10m"}}}, "a mapping with requests and limits"),
        ({"diagnose": {"resources": {"limits": None}}}, "requests and limits are mappings"),
        ({"diagnose": {"resources": {"limits": {"cpu": "ten"}}}}, "cpu: 'ten': not a quantity"),
        ({"diagnose": {"resources": {"limits": {"c u": "1"}}}}, "'c u': not the name of a"),
        ({"diagnose": {"tolerations": {"operator": "Exists"}}}, "diagnose.tolerations"),
        ({"diagnose": {"tolerations": ["all"]}}, "diagnose.tolerations[0]: 'all': a mapping"),
        ({"diagnose": {"tolerations": [{"efect": "NoSchedule"}]}}, "Kubernetes' toleration: key"),
        ({"diagnose": {"tolerations": [{}]}}, "without a key, operator: Exists is needed"),
        ({"diagnose": {"tolerations": [{"key": "a", "operator": "In"}]}}, "Equal or Exists"),
        ({"diagnose": {"tolerations": [{"key": "a", "value": True}]}}, "write them quoted"),
        ({"diagnose": {"tolerations": [{"key": "a/b/c"}]}}, "key: its prefix"),
        ({"diagnose": {"tolerations": [{"key": "a", "value": "-"}]}}, "value: a value of"),
        ({"diagnose": {"tolerations": [{"key": "a", "effect": "No"}]}}, "effect: NoSchedule, Pref"),
        (
            {"diagnose": {"tolerations": [{"operator": "Exists", "value": "x"}]}},
            "value: none with operator: Exists",
        ),
        (
            {"diagnose": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}},
            "only with effect: NoExecute",
        ),
        ({"diagnose": {"port": 80}}, "greater than or equal to 1024"),
        ({"diagnose": {"rounds": 0}}, "diagnose.rounds"),
        ({"diagnose": {"side_by_side": -1}}, "greater than or equal to 0"),
        ({"diagnose": {"most_pairs": "all"}}, "a whole number, not quoted"),
        ({"diagnose": {"external_name": "https://example.org"}}, "a DNS name in lower-case"),
        ({"diagnose": {"throughput": "yes"}}, "true or false, not quoted"),
        ({"timeouts": {"init": float("inf")}}, "timeouts.init"),
        ({"ssh": None}, "a mapping"),
    ],
)
def test_one_wrong_value(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    found = problems(good(tmp_path, **changes))
    assert any(part in each for each in found), found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": "cp"}, "the same name as hosts[0]"),
        ({"address": "192.0.2.1"}, "the same address and port as hosts[0]"),
        ({"role": "master"}, "control_plane or worker"),
        ({"port": "22"}, "a whole number"),
        ({"port": 70000}, "less than or equal to 65535"),
        ({"name": "W1"}, "a host name"),
        ({"address": "-oProxyCommand=x"}, "an IP address, a DNS name"),
        ({"node_address": "w1"}, "an IPv4 address"),
        ({"labels": {"disk": True}}, "hosts[1].labels.disk"),
    ],
)
def test_one_wrong_host(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    hosts = [GOOD["hosts"][0], {**GOOD["hosts"][1], **change}]
    assert part in only(good(tmp_path, hosts=hosts))


def test_the_same_address_on_another_port_is_another_host(tmp_path: Path) -> None:
    hosts = [GOOD["hosts"][0], {**GOOD["hosts"][1], "address": "192.0.2.1", "port": 2222}]
    assert len(load(good(tmp_path, hosts=hosts)).hosts) == 2


def test_several_control_planes_need_their_endpoint(tmp_path: Path) -> None:
    second = {"name": "cp2", "address": "192.0.2.9", "role": "control_plane"}
    hosts = [*GOOD["hosts"], second]
    assert "required with 2 control planes" in only(good(tmp_path, hosts=hosts))
    path = good(tmp_path, hosts=hosts, control_plane_endpoint="api.example.net:6443")
    assert load(path).control_plane_endpoint == "api.example.net:6443"
    for wrong in ("api.example.net", "api:0", "api:70000", "https://api:6443", ":6443"):
        found = only(good(tmp_path, hosts=hosts, control_plane_endpoint=wrong))
        assert "host:port" in found, wrong


def test_no_control_plane(tmp_path: Path) -> None:
    assert "must have role: control_plane" in only(good(tmp_path, hosts=[GOOD["hosts"][1]]))


def test_required_keys(tmp_path: Path) -> None:
    found = problems(write(tmp_path, "runs: x\n"))
    assert sum(each.endswith("required") for each in found) == 4


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = """\
cluster: no
kubernetes_version: 1.30
plugin: flanel
plugin: flanel
pod_cidr: 10.96.0.0/16
hosts:
  - {name: a, address: 192.0.2.1, role: worker}
  - {name: a, address: 192.0.2.1, role: worker}
"""
    found = problems(write(tmp_path, text))
    for part in (
        "cluster: no:",
        "kubernetes_version: 1.30:",
        "plugin: 'flanel': unknown plugin",
        "plugin: the key stands twice",
        "overlaps service_cidr",
        "the same name",
        "the same address",
        "control_plane",
    ):
        assert any(part in each for each in found), part
    assert len(found) == 8
    assert all(each.startswith(str(tmp_path)) for each in found)


def test_an_options_problem_names_the_option(tmp_path: Path) -> None:
    message = only(good(tmp_path), {"plugin": "calicoo"})
    assert message.startswith("option --plugin: 'calicoo': unknown plugin")
    message = only(good(tmp_path), {"kubernetes_version": 1.3})
    assert message.startswith("option --kubernetes-version: 1.3: write it quoted")


def test_an_option_replaces_what_the_file_has_wrong(tmp_path: Path) -> None:
    assert load(good(tmp_path, plugin="x"), {"plugin": "calico"}).plugin == "calico"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1", "not YAML"),
        ("- a\n- b\n", "not a mapping"),
        ("", "not a mapping"),
        ("just words\n", "not a mapping"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("&a [*a]\n", "nested too deeply"),
        ("a: !!python/object:os.system x\n", "not YAML"),
        ("cluster: 2020-13-45\n", "not a value"),
        ("\x00", "not YAML"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, part: str) -> None:
    assert any(part in each for each in problems(write(tmp_path, text)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in only(tmp_path / "none.yaml")
    assert "cannot be read" in only(tmp_path)
    path = write(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in only(path)


@pytest.mark.parametrize("name", sorted(plugins.catalogue()))
def test_every_plugin_of_the_catalogue_loads(tmp_path: Path, name: str) -> None:
    needed = {each.name: "x" for each in plugins.get(name).parameters if not each.default}
    params = load(good(tmp_path, plugin=name, plugin_parameters=needed))
    assert not params.effective_pod_cidr.overlaps(params.service_cidr)


# --- What hosts inherit ----------------------------------------------------------------------


def inheriting(tmp_path: Path, **changes: Any) -> Path:
    hosts = [
        {"name": "cp", "address": "192.0.2.1", "role": "control_plane", "group": "rack-1"},
        {"name": "w1", "address": "192.0.2.2", "group": ["gpu", "rack-1"], "port": 2200},
        {"name": "w2", "address": "192.0.2.3"},
    ]
    values = {
        "defaults": {
            "role": "worker",
            "user": "ops",
            "labels": {"site": "north", "disk": "hdd"},
            "taints": ["site=north:NoSchedule"],
        },
        "groups": {
            "rack-1": {"port": 2222, "user": "rack", "labels": {"rack": "1", "disk": "ssd"}},
            "gpu": {"user": "gpu", "taints": ["gpu=yes:NoExecute", "site=any:NoSchedule"]},
        },
        "hosts": hosts,
        "ssh": {"user": "root"},
    }
    return good(tmp_path, **{**values, **changes})


def test_a_host_goes_before_its_groups_and_those_before_defaults(tmp_path: Path) -> None:
    params = load(inheriting(tmp_path))
    cp, w1, w2 = params.hosts
    assert (cp.user, cp.port, cp.role.value) == ("rack", 2222, "control_plane")
    assert (w1.user, w1.port, w1.role.value) == ("gpu", 2200, "worker"), "its first group, itself"
    assert (w2.user, w2.port) == ("ops", 0)
    assert w1.labels == {"site": "north", "disk": "ssd", "rack": "1"}
    assert w2.labels == {"site": "north", "disk": "hdd"}
    assert [str(taint) for taint in w1.taints] == ["site=any:NoSchedule", "gpu=yes:NoExecute"]
    assert [str(taint) for taint in w2.taints] == ["site=north:NoSchedule"]
    inventory = Inventory.from_params(params)
    assert [host.name for host in inventory.group("rack-1")] == ["cp", "w1"]
    assert inventory.group("none") == ()


def test_inherited_values_are_recorded_where_they_hold(tmp_path: Path) -> None:
    import json

    masked = load(inheriting(tmp_path)).masked()
    assert json.loads(json.dumps(masked)) == masked
    assert masked["hosts"][1]["user"] == "gpu"
    assert masked["hosts"][1]["group"] == ["gpu", "rack-1"]
    assert masked["groups"]["rack-1"]["port"] == 2222


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"groups": {"rack-2": {}, "gpu": {}}}, "hosts[0].group: 'rack-1': unknown group, known"),
        ({"groups": {"rack-1": {"adress": "x"}, "gpu": {}}}, "groups.rack-1.adress: 'x': unknown"),
        ({"groups": {"rack-1": {"name": "x"}, "gpu": {}}}, "groups.rack-1.name: 'x': unknown key"),
        ({"groups": {"rack-1": {"usr": "x"}, "gpu": {}}}, "did you mean 'user'?"),
        ({"defaults": {"role": "member"}}, "defaults.role: 'member': control_plane or worker"),
        ({"defaults": {"prot": 22}}, "did you mean 'port'?"),
        ({"defaults": {"role": ""}}, "hosts[1].role: '': required: control_plane or worker, here"),
        ({"groups": ["rack-1", "gpu"]}, "groups: a list: a mapping"),
    ],
)
def test_one_wrong_inheritance(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    found = problems(inheriting(tmp_path, **changes))
    assert any(part in each for each in found), found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"group": 7}, "hosts[1].group: 7: the name of a group, or a list of names"),
        ({"group": [True]}, "the name of a group, or a list of names"),
        ({"labels": {"-x": "1"}}, "the label '-x=1': a name of letters"),
        ({"labels": {"a b": "1"}}, "a name of letters"),
        ({"labels": {"Example.com/x": "1"}}, "before the '/'"),
        ({"labels": {"/x": "1"}}, "before the '/'"),
        ({"labels": {"x": "a b"}}, "a value of letters"),
        ({"labels": {"x": "v" * 64}}, "at most 63"),
        ({"taints": ["gpu"]}, "key=value:Effect or key:Effect"),
        ({"taints": ["gpu=yes:Never"]}, "NoSchedule, PreferNoSchedule, NoExecute"),
        ({"taints": ["=yes:NoSchedule"]}, "a name of letters"),
        ({"taints": ["gpu=a b:NoSchedule"]}, "a value of letters"),
        ({"taints": "gpu:NoSchedule"}, "hosts[1].taints: 'gpu:NoSchedule': a list"),
        ({"address": "fd00::7"}, "an IPv6 address: state the host's IPv4 address"),
        ({"address": "fd00:::7", "node_address": "192.0.2.7"}, "an IP address, a DNS name"),
    ],
)
def test_one_wrong_value_of_a_host(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    hosts = [GOOD["hosts"][0], {**GOOD["hosts"][1], **change}]
    found = problems(good(tmp_path, hosts=hosts))
    assert any(part in each for each in found), found


def test_kubernetes_forms_of_labels_and_taints_load(tmp_path: Path) -> None:
    labels = {"node-role.kubernetes.io/worker": "", "example.com/A_b.c": "v1.2_X", "x": "1"}
    taints = ["node.kubernetes.io/x:NoSchedule", "a=:NoExecute", "b=c:PreferNoSchedule"]
    hosts = [GOOD["hosts"][0], {**GOOD["hosts"][1], "labels": labels, "taints": taints}]
    host = load(good(tmp_path, hosts=hosts)).hosts[1]
    assert host.labels == labels
    assert [(t.key, t.value, t.effect) for t in host.taints] == [
        ("node.kubernetes.io/x", "", "NoSchedule"),
        ("a", "", "NoExecute"),
        ("b", "c", "PreferNoSchedule"),
    ]


@pytest.mark.parametrize("address", ["fd00::7", "::1", "fe80::1%eth0", "my_alias", "n-1.example"])
def test_addresses_that_ssh_takes(tmp_path: Path, address: str) -> None:
    host = {**GOOD["hosts"][1], "address": address, "node_address": "192.0.2.7"}
    assert load(good(tmp_path, hosts=[GOOD["hosts"][0], host])).hosts[1].address == address


def test_an_ssh_configuration_must_be_there(tmp_path: Path) -> None:
    assert "ssh.config: 'nosuch': no such file" in only(good(tmp_path, ssh={"config": "nosuch"}))
    assert load(good(tmp_path, ssh={"config": "/dev/null"})).ssh.config == Path("/dev/null")
    assert load(good(tmp_path)).ssh.config is None
