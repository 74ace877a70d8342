"""The catalogue as a person reads it: a table that fits, and pages that leave nothing out."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from factory import plugin_like
from rich.console import Console, RenderableType

from kitlib import cli, plugin_pages, plugins
from kitlib.errors import ParamsError
from kitlib.plugins import Plugin

ALL = sorted(plugins.catalogue())
OLD = plugin_like(
    "kube-router",
    {
        "name": "old-router",
        "encapsulation": "MPLS over UDP",
        "overhead_bytes": 128,
        "encryption": ["WireGuard", "IPsec"],
        "ipv6": "not stated",
        "status": {"state": "retired", "instead": ["flannel", "calico"]},
        "kubernetes": {
            "min": "1.4",
            "max": "1.15",
            "breaks": [{"since": "1.16", "why": "extensions/v1beta1 is not served any more"}],
        },
        "manifest": {
            "versions": [{"version": "v0.9", "kubernetes": {"min": "1.4", "max": "1.15"}}]
        },
        "hazards": {"moves_host_address": True, "private_images": True},
        "needs": {
            "kube_proxy": "absent",
            "service_cidr": "10.96.0.0/16",
            "kernel": "5.10",
            "node_labels": {"example.org/zone": "{node}"},
        },
        "pod_cidr": {"prefix": 16},
        "backend": {
            "places": [
                {"kind": "ConfigMap", "name": "a", "key": "b.json", "path": "c.0"},
                {"kind": "DaemonSet", "name": "d", "argument": "--mode"},
                {"kind": "Installation", "name": "e", "field": "spec.mode"},
            ],
            "values": {"vxlan": "VXLAN", "none": "Never"},
        },
        "parameters": [
            {
                "name": "vsd_address",
                "what": "the controller's address",
                "places": [{"placeholder": "__VSD__"}],
                "secret": True,
            },
            {
                "name": "vsc_port",
                "what": "its port",
                "default": "7443",
                "places": [{"kind": "DaemonSet", "namespace": "f", "name": "g", "env": "PORT"}],
            },
        ],
    },
)
KNOWN = {**plugins.catalogue(), OLD.name: OLD}


def shown(what: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(what, soft_wrap=not hasattr(what, "renderables"))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("version", ["", "1.31", "1.31.14"])
@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_cuts_nothing(width: int, version: str) -> None:
    found = plugin_pages.rows(KNOWN, version)
    lines = shown(plugin_pages.overview(found, width, version), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "\u2026" not in text
    for row in found:
        (line,) = [line for line in lines if line.split()[:1] == [row.plugin] and "/" in line[-9:]]
        assert row.status in line
        assert row.pod_cidr in line
        assert row.policy in line
        assert (row.release or row.fits if version else row.kubernetes) in line


def test_what_is_looked_after_comes_first() -> None:
    states = [row.status for row in plugin_pages.rows(KNOWN)]
    order = ["maintained", "commercial", "archived", "retired"]
    assert states == sorted(states, key=order.index)
    assert states[-1] == "retired"


def test_a_version_says_what_fits_and_why_not() -> None:
    found = {row.plugin: row for row in plugin_pages.rows(KNOWN, "1.20")}
    assert (found["flannel"].fits, found["flannel"].release) == ("yes", "v0.28.9")
    assert (found["calico"].fits, found["calico"].release) == ("no", "")
    assert next(iter(found.values())).fits == "yes"
    text = " ".join(shown(plugin_pages.overview(list(found.values()), 80, "1.20"), 80))
    text = re.sub(r"\s+", " ", text)
    assert (
        "old-router does not fit: since 1.16: extensions/v1beta1 is not served any more; the "
        "newest that fits is 1.15.12; living instead: flannel." in text
    )
    assert "calico does not fit: 1.21 is the oldest version" in text


def test_a_version_beyond_the_known_may_fit() -> None:
    found = plugin_pages.rows(KNOWN, "1.99")
    text = " ".join(shown(plugin_pages.overview(found, 120, "1.99"), 120))
    assert "flannel may fit: 1.36 is the newest version that the catalogue knows of" in text
    (flannel,) = [row for row in found if row.plugin == "flannel"]
    assert flannel.release == "v0.28.9"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if path.endswith(("sysctls", "sha256", "_labels", "values", "selector")):
                yield f"{path}.key", str(key)
            yield from leaves(each, f"{path}.{key}")
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, path)
    elif isinstance(value, (str, int)) and not isinstance(value, bool) and value not in ("", "{}"):
        yield path, str(value)


SAID_OTHERWISE = (
    ".addresses",  # with the release filled in: see below
    ".nodes",  # in words
    ".sha256.key",
    ".per_node.network",
    ".per_node.comment",
    ".state",
)


@pytest.mark.parametrize("name", [*ALL, OLD.name])
@pytest.mark.parametrize("width", [80, 120])
def test_a_page_leaves_nothing_out(name: str, width: int) -> None:
    plugin = KNOWN[name]
    lines = shown(plugin_pages.page(plugin, KNOWN, width), width)
    too_long = [line for line in lines if len(line) > width]
    assert not [line for line in too_long if len(line.split()) > 1], "only one word may be too long"
    text = " ".join(" ".join(lines).split())
    missing = [
        (path, value)
        for path, value in leaves(plugin.model_dump(mode="json"))
        if " ".join(value.split()) not in text and not path.endswith(SAID_OTHERWISE)
    ]
    assert missing == []
    if plugin.manifest:
        for release in plugin.releases:
            for address in plugin.addresses_of(release):
                assert any(line.endswith(address) for line in lines)


def test_a_page_says_what_the_kit_makes_of_the_facts() -> None:
    text = " ".join(" ".join(shown(plugin_pages.page(OLD, KNOWN, 80, "1.20"), 80)).split())
    for words in (
        "for 1.20 does not fit: since 1.16",
        "--pod-network-cidr=10.244.0.0/16 --service-cidr=10.96.0.0/16 "
        "--skip-phases=addon/kube-proxy",
        "it takes a /16 alone",
        "5.10 or newer",
        "vsd_address the controller's address (required; never shown or recorded)",
        "its port (default 7443)",
        "DaemonSet f/g, variable PORT",
        "the words __VSD__",
        "ConfigMap a, key b.json, c.0 in it",
        "DaemonSet d, argument --mode",
        "Installation e, field spec.mode",
        "one of vxlan (VXLAN), none (Never)",
        "can cut SSH off",
        "in no public registry",
        "broken since 1.16",
    ):
        assert words in text, words


def kit(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["kit", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(str(end.value.code or 0))


def test_the_verb_for_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(monkeypatch, "plugins", "--for", "1.31", "--format", "json") == 0
    found = {each["plugin"]: each for each in json.loads(capsys.readouterr().out)}
    assert sorted(found) == ALL
    assert found["calico"]["release"] == "v3.30.7"
    assert kit(monkeypatch, "plugins", "calico", "--format", "json") == 0
    entry = json.loads(capsys.readouterr().out)
    assert Plugin.model_validate(entry) == plugins.get("calico")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("--for", "new"), "--for new: not a Kubernetes version"),
        (("--for", "new", "calico"), "not a Kubernetes version"),
        (("calicoo",), "did you mean 'calico'"),
        (("--manifest",), "--manifest shows the one of a plugin that is named"),
        (("romana", "--from", "x.yaml"), "--manifest shows the one of a plugin that is named"),
        (("romana", "--manifest", "--for", "new"), "not a Kubernetes version"),
        (("romana", "--manifest", "--from", "/nonexistent.yaml"), "cannot be read"),
        (("kubenet", "--manifest"), "kubenet: has no manifest of its own: it is written on hosts"),
        (("cilium", "--manifest"), "cilium: has no manifest of its own: it is a chart"),
    ],
)
def test_the_verb_refuses_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    part: str,
) -> None:
    assert kit(monkeypatch, "plugins", *args) == ParamsError.exit_code
    assert part in capsys.readouterr().err


def test_a_manifest_as_another_kubernetes_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "romana.yaml"
    file.write_text(
        "apiVersion: extensions/v1beta1\nkind: DaemonSet\n"
        "metadata: {name: romana-agent, namespace: kube-system}\n"
        "spec: {template: {metadata: {labels: {romana-app: agent}}, spec: {containers: []}}}\n"
    )
    args = ("plugins", "romana", "--manifest", "--for", "1.31", "--from", str(file))
    assert kit(monkeypatch, *args) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# Romana for Kubernetes 1.31, from {file}\n# DaemonSet kube-system/")
    assert "\n# why it was not meant for 1.16 and newer: " in text
    (shown,) = yaml.safe_load_all(text)
    assert shown["apiVersion"] == "apps/v1"
    assert shown["spec"]["selector"] == {"matchLabels": {"romana-app": "agent"}}
    keys = {each["key"] for each in shown["spec"]["template"]["spec"]["tolerations"]}
    assert "node.kubernetes.io/not-ready" in keys
    assert kit(monkeypatch, "plugins", "romana", "--manifest", "--from", str(file)) == 0
    text = capsys.readouterr().out
    assert "for Kubernetes 1.15, from" in text
    assert "apiVersion: extensions/v1beta1" in text, "as it is where that is served"
