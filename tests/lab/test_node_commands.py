"""Emulated host commands: packages, services, journal, swap, modules, the runtime's client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal

import pytest
from node_host import DATA, call, close, install, new_host, plain, recorded

from kitlib.lab.node import services, state


async def eventually(true) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - it is another process that makes it true
            await asyncio.sleep(0.01)


@pytest.fixture
async def host(tmp_path):
    made = new_host(tmp_path)
    yield made
    await close(made)


async def test_apt_install_of_what_is_there_says_what_was_recorded(host):
    await install(host)
    want = recorded("apt-newest")
    done = await call(host, *want["command"].split()[1:])
    assert done.lines == want["out"]
    assert done.status == 0


async def test_apt_fresh_install_places_files_commands_and_the_unit(host):
    done = await call(host, "apt-get", "install", "-y", "kubernetes-cni", "kubelet", "kubeadm")
    assert "The following additional packages will be installed:" in done.lines
    assert "Setting up kubelet (1.22.3-00) ..." in done.lines
    assert done.lines.index("Setting up kubelet (1.22.3-00) ...") < done.lines.index(
        "Setting up kubeadm (1.22.3-00) ..."
    )
    node = state.state_of(host)
    assert {"kubelet", "kubeadm", "kubectl", "crictl"} <= host.commands
    assert node.path("/opt/cni/bin/bridge").stat().st_mode & 0o111
    drop_in = node.path("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf")
    assert drop_in.read_text() == (DATA / "host-files" / "10-kubeadm.conf").read_text()


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("1.22.3-*", "1.22.3-00"),
        ("1.23.17-00", "1.23.17-00"),
        ("1.30.1-*", "1.30.1-1.1"),
        ("1.36.2-1.1", "1.36.2-1.1"),
        ("1.15.0-00", "1.15.0-00"),
    ],
)
async def test_apt_offers_every_release_in_its_archive_style(host, asked, got):
    done = await call(host, "apt-get", "install", "-y", f"kubelet={asked}")
    assert done.status == 0, done.errors
    assert state.state_of(host).packages["kubelet"] == got


async def test_apt_takes_a_newer_cni_where_the_kubelet_needs_it(host):
    await install(host, "1.22.3")
    await install(host, "1.30.1")
    assert state.state_of(host).packages["kubernetes-cni"] == "1.4.0-1.1"


async def test_apt_reads_the_minor_from_the_hosts_repository(host):
    node = state.state_of(host)
    sources = node.path("/etc/apt/sources.list.d/kubernetes.list")
    sources.parent.mkdir(parents=True)
    sources.write_text("deb https://pkgs.k8s.io/core:/stable:/v1.31/deb/ /\n")
    done = await call(host, "apt-cache", "policy", "kubelet")
    assert "  Candidate: 1.31.14-1.1" in done.lines


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nosuch",), "E: Unable to locate package nosuch"),
        (("kubelet=9.9",), "E: Version '9.9' for 'kubelet' was not found"),
    ],
)
async def test_apt_errors_are_apts_own_with_status_100(host, args, message):
    done = await call(host, "apt-get", "install", "-y", *args)
    assert (done.status, done.errors) == (100, [message])
    assert "kubelet" not in state.state_of(host).packages


async def test_apt_holds_and_downgrades_need_their_flags(host):
    await install(host, "1.22.4")
    await call(host, "apt-mark", "hold", "kubelet")
    held = await call(host, "apt-get", "install", "-y", "--allow-downgrades", "kubelet=1.22.3-*")
    assert held.status == 100
    assert "E: Held packages were changed" in held.errors[0]
    await call(host, "apt-mark", "unhold", "kubelet")
    down = await call(host, "apt-get", "install", "-y", "kubelet=1.22.3-*")
    assert down.status == 100
    assert "E: Packages were downgraded" in down.errors[0]
    done = await call(host, "apt-get", "install", "-y", "--allow-downgrades", "kubelet=1.22.3-*")
    assert done.status == 0
    assert state.state_of(host).packages["kubelet"] == "1.22.3-00"


async def test_apt_waits_for_nobody_who_holds_the_lock(host):
    first = asyncio.create_task(call(host, "apt-get", "install", "-y", "kubelet"))
    await asyncio.sleep(0)
    second = await call(host, "apt-get", "install", "-y", "kubectl")
    assert second.status == 100
    assert second.errors[0].startswith("E: Could not get lock /var/lib/dpkg/lock-frontend.")
    assert (await first).status == 0


async def test_apt_remove_takes_what_depends_along_and_dpkg_keeps_the_configuration(host):
    await install(host)
    done = await call(host, "apt-get", "remove", "-y", "kubernetes-cni")
    assert done.status == 0
    assert "  kubeadm kubelet kubernetes-cni" in done.lines
    assert not {"kubelet", "kubeadm"} & host.commands
    assert "kubelet" not in state.state_of(host).services
    status = await call(host, "dpkg-query", "-W", "-f", "${Status}\\n", "kubelet")
    assert status.lines == ["deinstall ok config-files"]


async def test_apt_install_without_yes_is_aborted(host):
    done = await call(host, "apt-get", "install", "kubectl")
    assert done.status == 1
    assert done.lines[-1] == "Do you want to continue? [Y/n] Abort."
    assert "kubectl" not in state.state_of(host).packages


async def test_dpkg_query_shows_versions_and_says_what_is_missing(host):
    await install(host)
    done = await call(host, "dpkg-query", "-W", "-f=${Package} ${Version}\\n", "kubelet", "nosuch")
    assert done.lines == ["kubelet 1.22.3-00"]
    assert done.errors == ["dpkg-query: no packages found matching nosuch"]
    assert done.status == 1
    await call(host, "apt-mark", "hold", "kubelet")
    listed = await call(host, "dpkg", "-l", "kubelet")
    assert listed.lines[-1].split()[:3] == ["hi", "kubelet", "1.22.3-00"]


async def test_kubelet_without_configuration_crash_loops(host):
    await install(host)
    for _ in range(100):
        if state.state_of(host).services["kubelet"].active == "activating":
            break
        await asyncio.sleep(0.001)
    done = await call(host, "systemctl", "is-active", "kubelet")
    assert (done.status, done.lines) == (3, ["activating"])
    page = await call(host, "systemctl", "status", "kubelet", "--no-pager")
    assert any("activating (auto-restart)" in line for line in page.lines)
    log = await call(host, "journalctl", "-u", "kubelet", "-o", "cat", "--no-pager")
    assert any("failed to load Kubelet config file" in line for line in log.lines)


async def test_kubelet_unit_runs_the_kubelet_once_it_is_configured(host, monkeypatch):
    started = asyncio.Event()

    async def run_kubelet(_host):
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(services.kubelet, "run_kubelet", run_kubelet)
    await install(host)
    config = state.state_of(host).path("/var/lib/kubelet/config.yaml")
    config.write_text("kind: KubeletConfiguration\n")
    assert (await call(host, "systemctl", "restart", "kubelet")).status == 0
    await asyncio.wait_for(started.wait(), 5)
    assert (await call(host, "systemctl", "is-active", "kubelet")).lines == ["active"]
    await call(host, "systemctl", "stop", "kubelet")
    assert (await call(host, "systemctl", "is-active", "kubelet")).lines == ["inactive"]
    assert "kubelet" not in host.tasks


async def test_a_unit_that_somebody_wrote_runs_its_program_until_it_is_stopped(host, tmp_path):
    root = state.state_of(host).root
    file = root / "etc/systemd/system/mine.service"
    file.parent.mkdir(parents=True, exist_ok=True)
    program = "while :; do echo tick; sleep 0.05; done"
    text = f"[Unit]\nDescription=Mine\n[Service]\nExecStart=/bin/sh -c '{program}'\n"
    file.write_text(text + "Restart=always\nRestartSec=5s\n[Install]\nWantedBy=x\n")
    assert (await call(host, "systemctl", "start", "mine")).status == 5
    for verb in ("daemon-reload", "enable mine.service", "restart mine.service"):
        assert (await call(host, "systemctl", *verb.split())).status == 0
    link = root / "etc/systemd/system/multi-user.target.wants/mine.service"
    assert str(link.readlink()) == "/etc/systemd/system/mine.service"
    assert (await call(host, "systemctl", "is-enabled", "mine")).lines == ["enabled"]
    await eventually(lambda: "tick" in str(host.journal("mine")))
    assert str(host.journal("mine")).count("Started mine.service") == 1
    pid = state.state_of(host).services["mine"].pid
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: state.state_of(host).services["mine"].pid not in (0, pid))
    pid = state.state_of(host).services["mine"].pid
    assert (await call(host, "systemctl", "disable", "--now", "mine")).status == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not link.is_symlink()
    assert (await call(host, "systemctl", "is-active", "mine")).lines == ["inactive"]
    file.unlink()
    await call(host, "systemctl", "daemon-reload")
    assert (await call(host, "systemctl", "status", "mine")).status == 4


async def test_systemctl_of_a_unit_that_is_not_there(host):
    start = await call(host, "systemctl", "start", "docker")
    assert start.status == 5
    assert start.errors == ["Failed to start docker.service: Unit docker.service not found."]
    assert (await call(host, "systemctl", "status", "docker")).status == 4
    active = await call(host, "systemctl", "is-active", "docker", "containerd")
    assert (active.status, active.lines) == (0, ["inactive", "active"])


async def test_systemctl_enable_and_show(host):
    await install(host)
    await call(host, "systemctl", "disable", "--now", "kubelet")
    shown = await call(host, "systemctl", "show", "-p", "ActiveState,UnitFileState", "kubelet")
    assert shown.lines == ["ActiveState=inactive", "UnitFileState=disabled"]
    enabled = await call(host, "systemctl", "is-enabled", "kubelet")
    assert (enabled.status, enabled.lines) == (1, ["disabled"])
    linked = await call(host, "systemctl", "enable", "kubelet")
    assert linked.errors[0].startswith("Created symlink /etc/systemd/system/multi-user.target")


async def test_journalctl_picks_lines_and_formats(host):
    for number in range(3):
        host.log("containerd", f"line {number}")
    last = await call(host, "journalctl", "-u", "containerd", "-n", "1", "--no-pager")
    assert last.lines[0].endswith(": line 2")
    assert f" {host.name} containerd[" in last.lines[0]
    found = await call(host, "journalctl", "-u", "containerd", "-o", "json")
    assert json.loads(found.lines[-1])["MESSAGE"] == "line 2"
    none = await call(host, "journalctl", "-u", "containerd", "--since", "2999-01-01 00:00:00")
    assert none.lines == ["-- No entries --"]


async def test_swap_and_modules(host):
    host.faults |= {"swap-on", "br-netfilter-missing"}
    assert (await call(host, "swapon", "--show")).lines[0].startswith("NAME")
    await call(host, "swapoff", "-a")
    assert (await call(host, "swapon", "--show")).lines == []
    assert not any("br_netfilter" in line for line in (await call(host, "lsmod")).lines)
    assert (await call(host, "modprobe", "br_netfilter")).status == 0
    assert any(line.startswith("br_netfilter") for line in (await call(host, "lsmod")).lines)
    missing = await call(host, "modprobe", "nosuch")
    assert missing.status == 1
    assert missing.errors[0].startswith("modprobe: FATAL: Module nosuch not found in directory")


async def test_crictl_without_a_runtime_and_without_cni(host):
    info = await call(host, "crictl", "info")
    page = json.loads("\n".join(info.lines))
    network = page["status"]["conditions"][1]
    assert network["reason"] == "NetworkPluginNotReady"
    assert network["message"] == "Network plugin returns error: cni plugin not initialized"
    assert (await call(host, "crictl", "ps", "-a")).lines == [
        "CONTAINER           IMAGE               CREATED             STATE               "
        "NAME                ATTEMPT             POD ID"
    ]
    await call(host, "systemctl", "stop", "containerd")
    down = await call(host, "crictl", "ps")
    assert down.status == 1
    assert "level=fatal" in down.errors[0]


async def test_crictl_pull_follows_the_fault(host):
    image = "k8s.gcr.io/pause:3.5"
    host.faults.add("image-pull-fails")
    assert (await call(host, "crictl", "pull", image)).status == 1
    host.faults.clear()
    assert (await call(host, "crictl", "pull", image)).status == 0
    assert any("pause" in line for line in (await call(host, "crictl", "images")).lines)


def test_noise_is_taken_out_and_nothing_else():
    assert plain(["W1122 18:06:40.791699     192 reset.go:1] x m1 10.77.0.11:6443"]) == [
        "W reset.go:1] x NODE ADDRESS:PORT"
    ]


async def test_apt_reinstall_puts_a_packages_files_back(host):
    await install(host)
    node = state.state_of(host)
    shutil.rmtree(node.path("/opt/cni"))
    done = await call(host, "apt-get", "install", "-y", "kubernetes-cni")
    assert not node.path("/opt/cni/bin/bridge").exists()
    done = await call(host, "apt-get", "install", "-y", "--reinstall", "kubernetes-cni")
    assert done.status == 0
    line = "0 upgraded, 0 newly installed, 1 reinstalled, 0 to remove and 0 not upgraded."
    assert line in done.lines
    assert node.path("/opt/cni/bin/bridge").exists()
