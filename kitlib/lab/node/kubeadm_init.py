"""kubeadm init: one control plane, phase by phase, in kubeadm's order and words."""

from __future__ import annotations

import secrets
from typing import Any

from kitlib.lab.api import pki
from kitlib.lab.node import kubeadm_addons, kubeadm_files, kubeadm_objects, kubeadm_planes
from kitlib.lab.node.flags import Flags
from kitlib.lab.node.kubeadm_config import InitOptions, init_options
from kitlib.lab.node.kubeadm_manifests import dump, manifest
from kitlib.lab.node.kubeadm_preflight import DOCKER_MISSING, init_checks, pull_images, report
from kitlib.lab.node.kubeadm_run import MANIFESTS, KubeadmError, Run
from kitlib.lab.node.kubeadm_wait import mark_cri_socket, start_kubelet, wait_for_api
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable

__all__ = ["init", "mark"]

_STABLE = "https://dl.k8s.io/release/stable-1.txt"
_SUPER_ADMIN = "/etc/kubernetes/super-admin.conf"


async def init(run: Run, flags: Flags) -> int:
    """Set up a control plane on this host; returns the exit status.

    Raises:
        KubeadmError: A phase failed; what earlier phases wrote stays.
    """
    options = await init_options(run, flags)
    await run.host.sleep(0.35)
    if flags.rest[:2] == ("phase", "upload-certs"):
        return await _upload_phase(run, options)
    if not options.asked_version:
        await _offline(run)
    await run.out(f"[init] Using Kubernetes version: {options.release.tag}")
    await _preflight(run, options)
    if flags.rest[:2] == ("phase", "preflight") or options.dry_run:
        return 0
    for line, after in kubeadm_files.certificates(run, options):
        await run.out(line, after)
    for line, after in kubeadm_files.kubeconfigs(run, options):
        await run.out(line, after)
    if options.release.minor < 29:
        await _kubelet(run, options)
        await _control_plane(run, options)
        await _etcd(run)
        _write_manifests(run, options)
    else:
        await _etcd(run)
        await _control_plane(run, options)
        _write_manifests(run, options)
        await _kubelet(run, options)
    api = ApiClient.from_kubeconfig(run.path("/etc/kubernetes/admin.conf"))
    if options.release.minor >= 29:
        api = ApiClient.from_kubeconfig(run.path(_SUPER_ADMIN))
    try:
        await wait_for_api(run, options, api)
        await _configure(run, options, api)
    except (ApiRefused, ApiUnreachable) as failed:
        raise KubeadmError(f"error execution phase {run.phase}: {failed}") from failed
    finally:
        await api.close()
    await _farewell(run, options)
    return 0


async def _upload_phase(run: Run, options: InitOptions) -> int:
    """Run `init phase upload-certs` by itself."""
    api = run.admin()
    try:
        await _upload_certs(run, options, api)
    except (ApiRefused, ApiUnreachable) as failed:
        raise KubeadmError(f"error execution phase upload-certs: {failed}") from failed
    finally:
        await api.close()
    return 0


async def _offline(run: Run) -> None:
    """Say that the newest version cannot be looked up: the lab has no internet."""
    port = 32768 + secrets.randbelow(28000)
    source = "version.go:103" if run.own.minor < 24 else "version.go:104"
    lookup = (
        f"dial tcp: lookup dl.k8s.io on 10.77.0.1:53: read udp {run.host.address}:{port}"
        "->10.77.0.1:53: read: connection refused"
    )
    await run.log(
        "W",
        source,
        "could not fetch a Kubernetes version from the internet: "
        f'unable to get URL "{_STABLE}": Get "{_STABLE}": {lookup}',
    )
    await run.log("W", "version.go:104", f"falling back to the local client version: {run.own.tag}")


async def _preflight(run: Run, options: InitOptions) -> None:
    await run.out("[preflight] Running pre-flight checks")
    dockerless = (
        run.own.minor < 24 and not options.cri_socket and not run.state.running("containerd")
    )
    if dockerless:
        await run.out(
            "[preflight] WARNING: Couldn't create the interface used for talking to the container "
            f"runtime: {DOCKER_MISSING}"
        )
    await run.host.sleep(0.12)
    found = await init_checks(run, options.release, options.name, options.port, options.cri_socket)
    await report(run, found, options.ignore)
    await run.out("[preflight] Pulling images required for setting up a Kubernetes cluster")
    await run.out(
        "[preflight] This might take a minute or two, depending on the speed of your internet "
        "connection"
    )
    also = "'kubeadm config images pull'"
    word = "in beforehand " if run.own.minor < 30 else "beforehand "
    await run.out(f"[preflight] You can also perform this action {word}using {also}")
    if dockerless:
        raise KubeadmError(f"error execution phase preflight: {DOCKER_MISSING}")
    images = options.release.images(options.repository)
    await report(run, await pull_images(run, images), options.ignore)


async def _kubelet(run: Run, options: InitOptions) -> None:
    await run.out(
        "[kubelet-start] Writing kubelet environment file with flags to file "
        '"/var/lib/kubelet/kubeadm-flags.env"'
    )
    release = options.release
    flags = kubeadm_files.kubelet_flags(
        run, release, options.name, options.cri_socket, options.extra
    )
    run.write("/var/lib/kubelet/kubeadm-flags.env", flags, 0o644)
    config = kubeadm_files.kubelet_config(release, options.dns_address, options.domain)
    config |= {k: v for k, v in options.kubelet.items() if k not in ("apiVersion", "kind")}
    run.write("/var/lib/kubelet/config.yaml", dump(config), 0o644)
    await run.out(
        '[kubelet-start] Writing kubelet configuration to file "/var/lib/kubelet/config.yaml"'
    )
    await run.out("[kubelet-start] Starting the kubelet")
    await start_kubelet(run)


async def _control_plane(run: Run, options: InitOptions) -> None:
    await run.out(f'[control-plane] Using manifest folder "{MANIFESTS}"')
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        run.write(f"{MANIFESTS}/{component}.yaml", manifest(component, options))
        await run.out(f'[control-plane] Creating static Pod manifest for "{component}"')


async def _etcd(run: Run) -> None:
    run.path("/var/lib/etcd").mkdir(parents=True, exist_ok=True)
    await run.out(f'[etcd] Creating static Pod manifest for local etcd in "{MANIFESTS}"')


def _write_manifests(run: Run, options: InitOptions) -> None:
    run.write(f"{MANIFESTS}/etcd.yaml", manifest("etcd", options))


async def _configure(run: Run, options: InitOptions, api: ApiClient) -> None:
    """Store the configuration, mark the node, make the token and the add-ons."""
    release = options.release
    run.phase = "upload-config/kubeadm"
    roles = kubeadm_objects.rbac(options)
    for item in roles["admins"]:
        await kubeadm_objects.ensure(api, item)
    await run.out(
        '[upload-config] Storing the configuration used in ConfigMap "kubeadm-config" '
        'in the "kube-system" Namespace'
    )
    for item in (kubeadm_objects.kubeadm_config(options), *roles["kubeadm-config"]):
        await kubeadm_objects.ensure(api, item)
    run.phase = "upload-config/kubelet"
    await run.out(
        f'[kubelet] Creating a ConfigMap "{release.kubelet_config_map}" in namespace kube-system '
        "with the configuration for the kubelets in the cluster"
    )
    if release.minor == 23:
        await run.out(
            'NOTE: The "kubelet-config-1.23" naming of the kubelet ConfigMap is deprecated. Once '
            "the UnversionedKubeletConfigMap feature gate graduates to Beta the default name will "
            'become just "kubelet-config". Kubeadm upgrade will handle this transition '
            "transparently."
        )
    for item in (kubeadm_objects.kubelet_config_map(options), *roles["kubelet-config"]):
        await kubeadm_objects.ensure(api, item)
    await mark_cri_socket(
        run, api, options.name, options.cri_socket or release.cri_socket, "upload-config/kubelet"
    )
    await _upload_certs(run, options, api)
    await mark(run, options, api)
    run.phase = "bootstrap-token"
    await run.host.sleep(0.5)
    await _bootstrap_token(run, options, api, roles)
    kubeadm_files.finalize_kubelet(run)
    await run.out(
        '[kubelet-finalize] Updating "/etc/kubernetes/kubelet.conf" to point to a rotatable '
        "kubelet client certificate and key"
    )
    for phase, title, build in (
        ("addon/coredns", "CoreDNS", kubeadm_addons.coredns),
        ("addon/kube-proxy", "kube-proxy", kubeadm_addons.kube_proxy),
    ):
        if {phase, "addon"} & options.skip:
            continue
        run.phase = phase
        for item in build(options):
            await kubeadm_objects.ensure(api, item)
        await run.out(f"[addons] Applied essential addon: {title}", 0.1)


async def _upload_certs(run: Run, options: InitOptions, api: ApiClient) -> None:
    if not options.upload_certs:
        await run.out("[upload-certs] Skipping phase. Please see --upload-certs")
        return
    await kubeadm_planes.upload(run, options, api)


async def mark(run: Run, options: InitOptions, api: ApiClient) -> None:
    """Give the Node the labels and taints of a control plane."""
    release = options.release
    await run.out(
        f"[mark-control-plane] Marking the node {options.name} as control-plane by adding the "
        f"{release.labels_shown}"
    )
    shown = " ".join(f"{taint['key']}:{taint['effect']}" for taint in release.taints)
    await run.out(
        f"[mark-control-plane] Marking the node {options.name} as control-plane by adding the "
        f"taints [{shown}]"
    )
    run.phase = "mark-control-plane"
    await _mark_node(api, options)


async def _mark_node(api: ApiClient, options: InitOptions) -> None:
    path = f"/api/v1/nodes/{options.name}"
    node = await api.get(path)
    wanted = options.release.taints
    keys = {taint["key"] for taint in wanted}
    others = [t for t in node["spec"].get("taints") or [] if t["key"] not in keys]
    body: dict[str, Any] = {
        "metadata": {"labels": options.release.labels},
        "spec": {"taints": [*others, *wanted]},
    }
    await api.patch(path, body)


async def _bootstrap_token(run: Run, options: InitOptions, api: ApiClient, roles: Any) -> None:
    await run.out(f"[bootstrap-token] Using token: {options.token}")
    await run.out(
        "[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles"
    )
    secret = kubeadm_objects.token_secret(
        options.token, options.ttl, "The default bootstrap token generated by 'kubeadm init'."
    )
    await kubeadm_objects.ensure(api, secret)
    for step, line in (
        ("get-nodes", "configured RBAC rules to allow Node Bootstrap tokens to get nodes"),
        (
            "post-csrs",
            "configured RBAC rules to allow Node Bootstrap tokens to post CSRs in order for nodes "
            "to get long term certificate credentials",
        ),
        (
            "approve",
            "configured RBAC rules to allow the csrapprover controller automatically approve CSRs "
            "from a Node Bootstrap Token",
        ),
        (
            "rotate",
            "configured RBAC rules to allow certificate rotation for all node client certificates "
            "in the cluster",
        ),
    ):
        for item in roles[step]:
            await kubeadm_objects.ensure(api, item)
        capital = line[0].upper() + line[1:] if options.release.minor >= 24 else line
        await run.out(f"[bootstrap-token] {capital}")
    await run.out(
        '[bootstrap-token] Creating the "cluster-info" ConfigMap in the "kube-public" namespace'
    )
    ca = run.path(kubeadm_files.CA_CERT).read_text()
    for item in (kubeadm_objects.cluster_info(options.server, ca), *roles["cluster-info"]):
        await kubeadm_objects.ensure(api, item)


async def _farewell(run: Run, options: InitOptions) -> None:
    ca_hash = pki.ca_hash(run.path(kubeadm_files.CA_CERT).read_text())
    for line in (
        "",
        "Your Kubernetes control-plane has initialized successfully!",
        "",
        "To start using your cluster, you need to run the following as a regular user:",
        "",
        "  mkdir -p $HOME/.kube",
        "  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config",
        "  sudo chown $(id -u):$(id -g) $HOME/.kube/config",
        "",
        "Alternatively, if you are the root user, you can run:",
        "",
        "  export KUBECONFIG=/etc/kubernetes/admin.conf",
        "",
        "You should now deploy a pod network to the cluster.",
        'Run "kubectl apply -f [podnetwork].yaml" with one of the options listed at:',
        "  https://kubernetes.io/docs/concepts/cluster-administration/addons/",
        "",
        "Then you can join any number of worker nodes by running the following on each as root:",
        "",
        f"kubeadm join {options.join_address} --token {options.token} \\",
        f"\t--discovery-token-ca-cert-hash {ca_hash} ",
    ):
        await run.out(line)
