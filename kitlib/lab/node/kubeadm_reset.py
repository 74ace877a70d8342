"""kubeadm reset: what it takes away, and what it says that it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from kitlib.lab.node import kubeadm_planes, services
from kitlib.lab.node.flags import Flags
from kitlib.lab.node.kubeadm_preflight import DOCKER_MISSING
from kitlib.lab.node.kubeadm_run import ADMIN_CONF, KubeadmError, Run
from kitlib.lab.node.kubelet import stop_all_pods
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable

__all__ = ["reset"]

_ETCD_MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
_CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
_WARNING = (
    "[reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' "
    "will be reverted."
)
_QUESTION = "[reset] Are you sure you want to proceed? [y/N]: "


async def reset(run: Run, flags: Flags) -> int:
    """Undo what init or join did on this host; returns the exit status.

    Raises:
        KubeadmError: It was not confirmed.
    """
    await run.host.sleep(0.3)
    configured = False
    if run.path(ADMIN_CONF).exists():
        configured = await _read_configuration(run)
    elif run.own.minor >= 31:
        await run.log(
            "W",
            "preflight.go:63",
            "[reset] Unable to fetch the kubeadm-config ConfigMap from cluster: failed to load "
            f"admin kubeconfig: open {ADMIN_CONF}: no such file or directory",
        )
    prompt = await _confirm(run, flags)
    await run.out(f"{prompt}[preflight] Running pre-flight checks")
    etcd = await _etcd(run, configured)
    if etcd and configured:
        await _leave_etcd(run)
    await run.out("[reset] Stopping the kubelet service")
    await services.stop(run.host, "kubelet")
    await run.out('[reset] Unmounting mounted directories in "/var/lib/kubelet"', 0.03)
    await _remove_containers(run, flags)
    await _delete(run, etcd)
    for line in _leftovers(run.own.minor):
        await run.out(line)
    return 0


async def _leave_etcd(run: Run) -> None:
    """Take the host's member out of etcd where there are others, and say so if that fails."""
    api = ApiClient.from_kubeconfig(run.path(ADMIN_CONF))
    try:
        why = await kubeadm_planes.leave(run, api)
    finally:
        await api.close()
    if why:
        await run.log(
            "W",
            "removeetcdmember.go:106",
            f"[reset] Failed to remove etcd member: {why}, please manually remove this etcd member "
            "using etcdctl",
        )


async def _read_configuration(run: Run) -> bool:
    """Say that the cluster is asked for its configuration; returns whether it answered."""
    if run.own.minor < 32:
        await run.out("[reset] Reading configuration from the cluster...")
        await run.out(
            "[reset] FYI: You can look at this config file with "
            "'kubectl -n kube-system get cm kubeadm-config -o yaml'"
        )
    else:
        await run.out(
            '[reset] Reading configuration from the "kubeadm-config" ConfigMap '
            'in namespace "kube-system"...'
        )
        await run.out(
            "[reset] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' "
            "to re-upload it."
        )
    try:
        api = ApiClient.from_kubeconfig(run.path(ADMIN_CONF))
    except ValueError as wrong:
        await _unreadable(run, str(wrong))
        return False
    try:
        await api.get(_CONFIG_MAP, timeout="10s")
    except (ApiRefused, ApiUnreachable) as failed:
        await _unreadable(run, f"failed to get config map: {failed}")
        return False
    finally:
        await api.close()
    return True


async def _unreadable(run: Run, why: str) -> None:
    await run.log(
        "W",
        "reset.go:101",
        f"[reset] Unable to fetch the kubeadm-config ConfigMap from cluster: {why}",
    )


async def _confirm(run: Run, flags: Flags) -> str:
    """Ask unless forced; returns what stands on the line before the next output.

    Raises:
        KubeadmError: The answer is not yes.
    """
    if flags.on("force"):
        return ""
    if run.own.minor < 28:
        await run.out(_WARNING)
        question = _QUESTION
    else:
        await run.log("W", "preflight.go:56", _WARNING)
        question = "[reset] Are you sure you want to proceed? [y/N]: "
    answer = (await run.call.read_stdin()).partition("\n")[0].strip().lower()
    if answer not in ("y", "yes"):
        await run.call.out(question)
        raise KubeadmError("error execution phase preflight: aborted reset operation")
    return question


async def _etcd(run: Run, configured: bool) -> list[str]:
    """Say what becomes of etcd; returns the data directories to empty."""
    if configured and run.own.minor == 22:
        await run.out(
            "The 'update-cluster-status' phase is deprecated and will be removed in a future "
            "release. Currently it performs no operation"
        )
    if not configured:
        source = "removeetcdmember.go:80" if run.own.minor < 24 else "removeetcdmember.go:106"
        await run.log(
            "W", source, "[reset] No kubeadm config, using etcd pod spec to get data directory"
        )
    try:
        pod = yaml.safe_load(run.path(_ETCD_MANIFEST).read_text())
    except OSError:
        if run.own.minor < 28:
            await run.out("[reset] No etcd config found. Assuming external etcd")
            await run.out("[reset] Please, manually reset etcd to prevent further issues")
        return []
    command = pod["spec"]["containers"][0]["command"]
    found = [flag.partition("=")[2] for flag in command if flag.startswith("--data-dir=")]
    if run.own.minor >= 28:
        await run.out(f"[reset] Deleted contents of the etcd data directory: {found[0]}")
    return found


async def _remove_containers(run: Run, flags: Flags) -> None:
    if not run.state.running("containerd"):
        if run.own.minor < 24 and "cri-socket" not in flags:
            await run.log(
                "W", "cleanupnode.go:84", f"[reset] Failed to remove containers: {DOCKER_MISSING}"
            )
        else:
            socket = flags.get("cri-socket") or run.own.cri_socket
            path = socket.removeprefix("unix://")
            await run.log(
                "W",
                "cleanupnode.go:99",
                "[reset] Failed to remove containers: failed to list pods: rpc error: code = "
                'Unavailable desc = connection error: desc = "transport: Error while dialing: '
                f'dial unix {path}: connect: connection refused"',
            )
        return
    await stop_all_pods(run.host)


async def _delete(run: Run, etcd: list[str]) -> None:
    files = [
        "admin.conf",
        "kubelet.conf",
        "bootstrap-kubelet.conf",
        "controller-manager.conf",
        "scheduler.conf",
    ]
    if run.own.minor >= 29:
        files.insert(1, "super-admin.conf")
    shown = " ".join(f"/etc/kubernetes/{file}" for file in files)
    config = ["/etc/kubernetes/manifests", "/etc/kubernetes/pki"]
    if run.own.minor < 28:
        stateful = [*etcd, *run.own.reset_directories]
        await run.out(f"[reset] Deleting contents of config directories: [{' '.join(config)}]")
        _empty(run, config)
        await run.out(f"[reset] Deleting files: [{shown}]")
        _unlink(run, files)
        await run.out(f"[reset] Deleting contents of stateful directories: [{' '.join(stateful)}]")
        _empty(run, stateful)
        return
    folders = ["/etc/kubernetes/manifests", *run.own.reset_directories]
    await run.out(f"[reset] Deleting contents of directories: [{' '.join(folders)}]")
    _empty(run, [*folders, *etcd])
    await run.out(f"[reset] Deleting files: [{shown}]")
    _unlink(run, files)


def _empty(run: Run, folders: list[str]) -> None:
    """Delete what is in directories; manifests' directory goes too where kubeadm removes it."""
    for folder in folders:
        place = run.path(folder)
        if not place.is_dir():
            continue
        for item in place.iterdir():
            _remove(item)
    manifests = run.path("/etc/kubernetes/manifests")
    if "/etc/kubernetes/manifests" in folders and manifests.is_dir():
        manifests.rmdir()


def _remove(item: Path) -> None:
    if item.is_dir() and not item.is_symlink():
        shutil.rmtree(item, ignore_errors=True)
    else:
        item.unlink(missing_ok=True)


def _unlink(run: Run, files: list[str]) -> None:
    for file in files:
        run.path(f"/etc/kubernetes/{file}").unlink(missing_ok=True)


def _leftovers(minor: int) -> tuple[str, ...]:
    """Return what kubeadm says that it does not clean."""
    if minor >= 33:
        return (
            "",
            "The reset process does not perform cleanup of CNI plugin configuration,",
            "network filtering rules and kubeconfig files.",
            "",
            "For information on how to perform this cleanup manually, please see:",
            "    https://k8s.io/docs/reference/setup-tools/kubeadm/kubeadm-reset/",
            "",
        )
    return (
        "",
        "The reset process does not clean CNI configuration. "
        "To do so, you must remove /etc/cni/net.d",
        "",
        "The reset process does not reset or clean up iptables rules or IPVS tables.",
        'If you wish to reset iptables, you must do so manually by using the "iptables" command.',
        "",
        "If your cluster was setup to utilize IPVS, run ipvsadm --clear (or similar)",
        "to reset your system's IPVS tables.",
        "",
        "The reset process does not clean your kubeconfig files and you must remove them manually.",
        "Please, check the contents of the $HOME/.kube/config file.",
    )
