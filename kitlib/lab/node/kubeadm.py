"""The kubeadm command: its verbs, their flags, and how it says that something is wrong."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.flags import FlagError, Flags, parse
from kitlib.lab.node.kubeadm_init import init
from kitlib.lab.node.kubeadm_join import join
from kitlib.lab.node.kubeadm_manifests import dump
from kitlib.lab.node.kubeadm_preflight import image_problem
from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubeadm_reset import reset
from kitlib.lab.node.kubeadm_run import KubeadmError, Run
from kitlib.lab.node.kubeadm_token import token

__all__ = ["kubeadm"]

_HINT = "To see the stack trace of this error execute with --v=5 or higher"
_COMMIT = "e3b00d872257cbff77e0f7657d6f8829a18f2162"
_TAKES = {
    "init": (
        "apiserver-advertise-address apiserver-bind-port apiserver-cert-extra-sans cert-dir "
        "certificate-key config control-plane-endpoint cri-socket feature-gates "
        "ignore-preflight-errors image-repository kubernetes-version node-name patches "
        "pod-network-cidr service-cidr service-dns-domain skip-phases token token-ttl"
    ),
    "join": (
        "apiserver-advertise-address apiserver-bind-port certificate-key config cri-socket "
        "discovery-file discovery-token discovery-token-ca-cert-hash ignore-preflight-errors "
        "node-name patches skip-phases tls-bootstrap-token token"
    ),
    "reset": "cert-dir config cri-socket ignore-preflight-errors kubeconfig skip-phases",
    "token": "certificate-key config description groups kubeconfig ttl usages output",
    "config": "config cri-socket feature-gates image-repository kubernetes-version kubeconfig",
    "version": "output",
}
_SWITCHES = {
    "init": "dry-run skip-certificate-key-print skip-token-print upload-certs",
    "join": "control-plane discovery-token-unsafe-skip-ca-verification dry-run",
    "reset": "force cleanup-tmp-dir dry-run",
    "token": "print-join-command dry-run",
    "config": "",
    "version": "",
}
_SHORT = {"f": "force", "o": "output", "v": "v", "h": "help"}


async def kubeadm(host: LabHost, call: Call) -> int:
    """Run kubeadm; returns its exit status, 1 for any failure."""
    run = Run.of(host, call)
    verb = next((arg for arg in call.argv[1:] if not arg.startswith("-")), "")
    if verb not in _VERBS:
        await call.err(f'unknown command "{verb}" for "kubeadm"' if verb else "missing command")
        await call.err(_HINT)
        return 1
    args = list(call.argv[1:])
    args.remove(verb)
    short = {k: v for k, v in _SHORT.items() if v in ("v", "help") or v in _known(verb)}
    try:
        flags = parse(
            args,
            takes=[*_TAKES[verb].split(), "v", "rootfs"],
            switches=[*_SWITCHES[verb].split(), "help"],
            short=short,
        )
        return await _VERBS[verb](run, flags)
    except (FlagError, KubeadmError) as failed:
        for line in str(failed).split("\n"):
            await call.err(line)
        await call.err(_HINT)
        return 1


def _known(verb: str) -> list[str]:
    return f"{_TAKES[verb]} {_SWITCHES[verb]}".split()


async def _token(run: Run, flags: Flags) -> int:
    return await token(run, Flags(flags.values, ("token", *flags.rest)))


async def _version(run: Run, flags: Flags) -> int:
    own, style = run.own, flags.get("output")
    info = {
        "major": "1",
        "minor": str(own.minor),
        "gitVersion": own.tag,
        "gitCommit": _COMMIT,
        "gitTreeState": "clean",
        "buildDate": "2026-11-22T00:00:00Z",
        "goVersion": "go1.21.13",
        "compiler": "gc",
        "platform": "linux/amd64",
    }
    if style == "short":
        await run.out(own.tag)
    elif style == "json":
        for line in json.dumps({"clientVersion": info}, indent=2).splitlines():
            await run.out(line)
    elif style == "yaml":
        for line in dump({"clientVersion": info}).splitlines():
            await run.out(line)
    elif style:
        raise KubeadmError(f"invalid output format: {style}")
    else:
        shown = {key[0].upper() + key[1:]: value for key, value in info.items()}
        text = ", ".join(f'{key}:"{value}"' for key, value in shown.items())
        await run.out(f"kubeadm version: &version.Info{{{text}}}")
    return 0


async def _config(run: Run, flags: Flags) -> int:
    """Run `config images list|pull` and `config print init-defaults`."""
    wanted = flags.get("kubernetes-version")
    try:
        release = Release.parse(wanted) if wanted else run.own
    except ValueError as wrong:
        raise KubeadmError(str(wrong)) from wrong
    repository = flags.get("image-repository")
    if flags.rest[:2] == ("images", "list"):
        for image in release.images(repository):
            await run.out(image)
        return 0
    if flags.rest[:2] == ("images", "pull"):
        for image in release.images(repository):
            problem = image_problem(run, image)
            if problem:
                await run.host.sleep(30)
                raise KubeadmError(
                    f'failed to pull image "{image}": output: {problem}\n, error: exit status 1'
                )
            await run.host.sleep(1.0)
            run.state.images.add(image)
            await run.out(f"[config/images] Pulled {image}")
        return 0
    if flags.rest[:2] == ("print", "init-defaults"):
        for line in _init_defaults(run).splitlines():
            await run.out(line)
        return 0
    raise KubeadmError(f'unknown command "{" ".join(flags.rest)}" for "kubeadm config"')


def _init_defaults(run: Run) -> str:
    own = run.own
    api = f"kubeadm.k8s.io/{own.config_api}"
    node = {
        "criSocket": own.cri_socket,
        "imagePullPolicy": "IfNotPresent",
        "name": "node",
        "taints": None,
    }
    token_defaults = {
        "groups": ["system:bootstrappers:kubeadm:default-node-token"],
        "token": "abcdef.0123456789abcdef",
        "ttl": "24h0m0s",
        "usages": ["signing", "authentication"],
    }
    first = {
        "apiVersion": api,
        "bootstrapTokens": [token_defaults],
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": "1.2.3.4", "bindPort": 6443},
        "nodeRegistration": node,
    }
    second = {
        "apiServer": {},
        "apiVersion": api,
        "certificatesDir": "/etc/kubernetes/pki",
        "clusterName": "kubernetes",
        "controllerManager": {},
        "dns": {},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
        "imageRepository": own.repository,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": f"1.{own.minor}.0",
        "networking": {"dnsDomain": "cluster.local", "serviceSubnet": "10.96.0.0/12"},
        "scheduler": {},
    }
    return f"{dump(first)}---\n{dump(second)}"


_VERBS: dict[str, Callable[[Run, Flags], Awaitable[int]]] = {
    "init": init,
    "join": join,
    "reset": reset,
    "token": _token,
    "config": _config,
    "version": _version,
}
