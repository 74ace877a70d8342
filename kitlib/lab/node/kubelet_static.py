"""Static pods: the manifests of the control plane, the API process, and the mirror pods.

The manifest of kube-apiserver starts the real API process; etcd, controller manager and scheduler
live inside it, so their containers only stand for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import sys
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node.images import Program, register
from kitlib.lab.node.kubelet_client import Obj
from kitlib.lab.node.kubelet_events import now
from kitlib.lab.node.runtime import end_process

__all__ = ["MANIFESTS", "api_command", "flags_of", "mirror_of", "read_manifests"]

MANIFESTS = Path("/etc/kubernetes/manifests")
_FAULTS = Path("/run/lab-api-faults")
_OF_THE_API = frozenset({"token-expired", "wrong-ca-hash"})
"""The faults that the API process itself acts on; the file tells it."""
_STOPPED, _AT_WORK = 1.0, 0.2
"""Seconds that an API server under the fault api-slow stands still and works, in turn."""


def read_manifests(directory: Path, node: str) -> dict[str, Obj]:
    """Return the static pods of a directory by uid, which changes with the file's content.

    Args:
        directory: The kubelet's staticPodPath; a file that does not parse is passed over.
        node: The node's name, which every static pod's name ends with.
    """
    found: dict[str, Obj] = {}
    if not directory.is_dir():
        return found
    for path in sorted(directory.glob("*.yaml")):
        try:
            text = path.read_text()
            pod = json.loads(_as_json(text))
            meta, spec = pod["metadata"], pod["spec"]
            uid = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
            meta["name"] = f"{meta['name']}-{node}"
        except (OSError, KeyError, TypeError, yaml.YAMLError):
            continue
        meta["namespace"] = meta.get("namespace") or "default"
        meta["uid"] = uid
        meta.pop("creationTimestamp", None)
        meta["annotations"] = {
            **(meta.get("annotations") or {}),
            "kubernetes.io/config.hash": uid,
            "kubernetes.io/config.seen": now(),
            "kubernetes.io/config.source": "file",
        }
        spec["nodeName"] = node
        spec.setdefault("restartPolicy", "Always")
        spec["tolerations"] = [{"effect": "NoExecute", "operator": "Exists"}]
        pod.pop("status", None)
        found[uid] = pod
    return found


@lru_cache(maxsize=32)
def _as_json(text: str) -> str:
    """Return a manifest as JSON; the kubelet looks often, and reading YAML is slow."""
    return json.dumps(yaml.safe_load(text), default=str)


def mirror_of(pod: Obj, node: Obj | None) -> Obj:
    """Return the mirror pod of a static pod, as the kubelet creates it.

    Args:
        pod: The static pod.
        node: The Node object, its owner; None when it is not known yet.
    """
    meta = {key: value for key, value in pod["metadata"].items() if key != "uid"}
    uid = pod["metadata"]["uid"]
    meta["annotations"] = {**meta["annotations"], "kubernetes.io/config.mirror": uid}
    if node is not None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"]}
        owner |= {"uid": node["metadata"]["uid"], "controller": True}
        meta["ownerReferences"] = [owner]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]}


def flags_of(pod: Obj) -> dict[str, str]:
    """Return the `--name=value` flags of a pod's first container."""
    words = [*(pod["spec"]["containers"][0].get("command") or [])]
    flags = [word[2:].partition("=") for word in words if word.startswith("--") and "=" in word]
    return {name: value for name, _, value in flags}


def api_command(
    pod: Obj, manager: Obj | None, time_factor: float, etcd: Obj | None = None
) -> list[str]:
    """Return the command line of the API process.

    Args:
        pod: The kube-apiserver static pod.
        manager: The kube-controller-manager static pod, which knows the pod CIDR.
        time_factor: What recorded delays are multiplied by.
        etcd: The etcd static pod, which knows the other members; None for a lone API.
    """
    flags = flags_of(pod)
    image = pod["spec"]["containers"][0]["image"]
    version = image.rsplit(":", 1)[-1].lstrip("v")
    command = [
        *(sys.executable, "-m", "kitlib.lab.api"),
        *("--bind", f"{flags.get('bind-address', '0.0.0.0')}:{flags.get('secure-port', '6443')}"),
        *("--advertise", flags["advertise-address"]),
        *("--pki-dir", str(Path(flags["client-ca-file"]).parent)),
        *("--data-dir", "/var/lib/etcd"),
        *("--kubernetes-version", version),
        *("--service-cidr", flags["service-cluster-ip-range"]),
        *("--time-factor", f"{time_factor:g}"),
        *("--faults", str(_FAULTS)),
    ]
    cidr = flags_of(manager).get("cluster-cidr", "") if manager is not None else ""
    if etcd is not None:
        peers = flags_of(etcd)["initial-cluster"].split(",")
        known = (peer.partition("=")[::2] for peer in peers)
        cluster = ",".join(f"{name}={urlsplit(url).hostname}" for name, url in known)
        command += ["--member", flags_of(etcd)["name"], "--initial-cluster", cluster]
    return [*command, *(("--pod-cidr", cidr) if cidr else ())]


@register("kube-apiserver")
async def kube_apiserver(program: Program) -> int:
    """Run the API process until it dies or is stopped."""
    host = program.host
    # A joining control plane has the API's manifest before etcd's: without etcd it cannot serve.
    while (etcd := _manifest_of(host, "etcd")) is None:  # noqa: ASYNC110 - files, no event
        await asyncio.sleep(_AT_WORK)
    manager = _manifest_of(host, "kube-controller-manager")
    command = api_command(program.pod, manager, host.time_factor, etcd)
    process = await host.spawn(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    brake = asyncio.create_task(_slow_down(host, process))
    teller = asyncio.create_task(_tell_faults(host))
    try:
        while process.stdout is not None and (line := await process.stdout.readline()):
            program.log(line.decode(errors="replace").rstrip())
        return abs(await process.wait())
    finally:
        brake.cancel()
        teller.cancel()
        await asyncio.gather(brake, teller, return_exceptions=True)
        await asyncio.shield(end_process(process, 5.0))


def _manifest_of(host: LabHost, component: str) -> Obj | None:
    for pod in read_manifests(MANIFESTS, host.name).values():
        if pod["metadata"]["name"] == f"{component}-{host.name}":
            return pod
    return None


async def _slow_down(host: LabHost, process: asyncio.subprocess.Process) -> None:
    """Stop the process for most of the time while the fault api-slow is on."""
    while process.returncode is None:
        if "api-slow" not in host.faults:
            await asyncio.sleep(_AT_WORK)
            continue
        try:
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(_STOPPED)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
        await asyncio.sleep(_AT_WORK)


async def _tell_faults(host: LabHost) -> None:
    """Keep the file current that names the faults of the API process."""
    told: set[str] | None = None
    while True:
        now = host.faults & _OF_THE_API
        if now != told:
            _FAULTS.write_text("".join(f"{name}\n" for name in sorted(now)))
            told = now
        await asyncio.sleep(_AT_WORK)
