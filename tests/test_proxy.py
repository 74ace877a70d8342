"""The proxy's settings reach apt, containerd and kubeadm; its password reaches nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factory import host_facts

from kitlib.command import Cmd
from kitlib.errors import ParamsError
from kitlib.params import Params, Proxy, load
from kitlib.software import proxy

LAB = Path(__file__).parents[1] / "params/lab.yaml"
PLAIN = "http://proxy.example.net:3128"
SECRET = "http://me:hunt%40r2@proxy.example.net:3128"


def wanted(http: str = PLAIN, https: str = PLAIN, no_proxy: str = "") -> Params:
    return replace(load(LAB), proxy=Proxy(http=http, https=https, no_proxy=no_proxy))


def test_without_a_proxy_there_is_nothing() -> None:
    params = load(LAB)
    assert not params.proxy
    assert proxy.files(host_facts(), params) == {}
    assert proxy.environment(params) == {}
    assert proxy.steps(host_facts(), params) == []


def test_the_inside_of_the_cluster_is_always_without_the_proxy() -> None:
    found = proxy.no_proxy(wanted(no_proxy="mirror.example.net, 10.77.0.11")).split(",")
    assert found[:2] == ["mirror.example.net", "10.77.0.11"]
    assert {"localhost", "127.0.0.1", ".svc", ".cluster.local"} <= set(found)
    assert {"worker-1", "10.77.0.12", "10.244.0.0/16", "10.96.0.0/12"} <= set(found)
    assert len(found) == len(set(found))


def test_apt_and_containerd_get_a_file_each() -> None:
    files = proxy.files(host_facts(), wanted(https="", no_proxy="mirror.example.net"))
    apt = files["/etc/apt/apt.conf.d/95kubekit-proxy"].splitlines()
    assert f'Acquire::http::Proxy "{PLAIN}";' in apt
    assert 'Acquire::http::Proxy::mirror.example.net "DIRECT";' in apt
    assert not [line for line in apt if "https" in line or "10.96" in line or "::.svc" in line]
    unit = files["/etc/systemd/system/containerd.service.d/kubekit-proxy.conf"].splitlines()
    assert unit[1] == "[Service]"
    assert f'Environment="HTTP_PROXY={PLAIN}"' in unit
    assert not [line for line in unit if "HTTPS_PROXY" in line]
    assert [line for line in unit if line.startswith('Environment="NO_PROXY=mirror.example.net,')]


def test_on_other_systems_there_is_no_file_for_apt() -> None:
    files = proxy.files(host_facts(repository="fedora-like"), wanted())
    assert list(files) == [proxy.CONTAINERD_FILE]


def test_a_password_is_for_root_alone_and_systemd_reads_it_as_it_is() -> None:
    found = proxy.steps(host_facts(), wanted(SECRET, SECRET))
    assert {step.mode for step in found} == {0o600}
    unit = next(step.content for step in found if step.path == proxy.CONTAINERD_FILE)
    assert "hunt%%40r2" in unit
    assert {step.mode for step in proxy.steps(host_facts(), wanted())} == {0o644}


def test_a_password_shows_in_no_command_record_or_repr() -> None:
    params = wanted(SECRET, SECRET)
    command = Cmd.change("kubeadm", "init", env=proxy.environment(params))
    assert "hunt" not in f"{command} {command!r} {params.masked()} {params.proxy!r}"
    assert "hunt" not in command.render(), "it would stand in the process list"
    assert "no_proxy=" in command.render()
    assert params.masked()["proxy"]["http"] == "http://***@proxy.example.net:3128"
    assert {SECRET, "hunt%40r2", "hunt@r2"} <= set(params.proxy.secrets())
    plain = Cmd.change("kubeadm", "init", env=proxy.environment(wanted()))
    assert f"https_proxy={PLAIN}" in str(plain)


def test_what_is_there_is_left_and_what_is_no_longer_wanted_goes() -> None:
    sums = f"{'0' * 64}  {proxy.APT_FILE}\n{'0' * 64}  {proxy.CONTAINERD_FILE}\n"
    here = host_facts(sections={"repository.files": sums})
    assert [step.path for step in proxy.steps(here, wanted())] == [
        proxy.CONTAINERD_FILE,
        proxy.APT_FILE,
    ]
    assert [str(step.command) for step in proxy.steps(here, load(LAB))] == [
        f"rm -f {proxy.APT_FILE}",
        f"rm -f {proxy.CONTAINERD_FILE}",
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{http: proxy.example.net}", "proxy.http"),
        ("{http: 'http://me:hunter2@'}", "proxy.http"),
        ("{https: 'socks5://x:1'}", "an http:// or https:// address"),
        ('{no_proxy: "a b"}', "separated by commas"),
        ("{htp: x}", "did you mean 'http'"),
    ],
)
def test_wrong_parameters_are_named_without_their_password(
    tmp_path: Path, text: str, rule: str
) -> None:
    lines = LAB.read_text().split("\nproxy:")[0]
    path = tmp_path / "x.yaml"
    path.write_text(f"{lines}\nproxy: {text}\n")
    with pytest.raises(ParamsError) as wrong:
        load(path)
    assert rule in str(wrong.value)
    assert "hunter2" not in str(wrong.value)
