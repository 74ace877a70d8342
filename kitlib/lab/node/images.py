"""What a container does, by its image: the lab has no image files, only behaviour.

An image with a known role (a plugin's agent, kube-proxy, CoreDNS, a web server) runs that role's
emulation; any other runs its command with the machine's own tools in the pod's namespace.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, Obj
from kitlib.lab.node.runtime import Body, Container, Runtime, Sandbox, end_process

__all__ = [
    "MissingReference",
    "Program",
    "body",
    "environment",
    "full_name",
    "idle",
    "register",
    "role_of",
]

_NODE_KUBECONFIG = Path("/etc/kubernetes/kubelet.conf")
_TOKEN_LIFE = 365 * 86_400
_FAULTS = {
    "flannel": "plugin-crashloop",
    "calico-node": "plugin-crashloop",
    "kube-router": "plugin-crashloop",
    "kube-apiserver": "api-down",
}
"""Role -> the lab fault that ends its container again and again."""
_FAULT_CHECK = 0.2


class MissingReference(Exception):
    """A ConfigMap or Secret that a container's environment needs is not there."""


@dataclass(eq=False, slots=True)
class Program:
    """One running container as its behaviour sees it."""

    host: LabHost
    runtime: Runtime
    pod: Obj
    spec: Obj
    env: dict[str, str]
    sandbox: Sandbox
    container: Container
    _opened: list[ApiClient] = field(default_factory=list)

    def connect_as_node(self) -> ApiClient:
        """Return a client that acts as the node itself, for an agent without an account."""
        return self._as_kubelet()

    async def connect(self) -> ApiClient:
        """Return a client of the cluster's API that acts as the pod's service account.

        Raises:
            ApiRefused: There is no such account.
            ApiUnreachable: The API cannot be reached.
        """
        meta = self.pod["metadata"]
        account = self.pod["spec"].get("serviceAccountName") or "default"
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        request = {"spec": {"expirationSeconds": _TOKEN_LIFE}}
        kubelet = self._as_kubelet()
        token = await kubelet.create(path, request)
        client = kubelet.with_token(token["status"]["token"])
        self._opened.append(client)
        return client

    @property
    def argv(self) -> list[str]:
        """Return command and arguments with `$(NAME)` replaced from the environment."""
        words = [*(self.spec.get("command") or []), *(self.spec.get("args") or [])]
        return [re.sub(r"\$\((\w+)\)", self._value, word) for word in words]

    def log(self, line: str) -> None:
        """Write one line to the container's log."""
        self.container.log.write(line)

    async def volume_file(self, path: str) -> str:
        """Return a file that a ConfigMap volume would show in the container.

        Raises:
            FileNotFoundError: No such volume, or no such key in it.
        """
        for mount in self.spec.get("volumeMounts") or []:
            directory = mount["mountPath"].rstrip("/")
            if not path.startswith(directory + "/"):
                continue
            for volume in self.pod["spec"].get("volumes") or []:
                if volume["name"] == mount["name"] and volume.get("configMap"):
                    namespace = self.pod["metadata"]["namespace"]
                    name = volume["configMap"]["name"]
                    found = await self._as_kubelet().get(
                        f"/api/v1/namespaces/{namespace}/configmaps/{name}"
                    )
                    data = found.get("data") or {}
                    key = path.removeprefix(directory + "/")
                    if key in data:
                        return str(data[key])
        raise FileNotFoundError(f"open {path}: no such file or directory")

    async def close(self) -> None:
        """Close the container's API clients."""
        for client in self._opened:
            await client.close()

    def _as_kubelet(self) -> ApiClient:
        """Return a client with the node's credentials, for what the kubelet does for a pod."""
        client = ApiClient.from_kubeconfig(_NODE_KUBECONFIG)
        self._opened.append(client)
        return client

    def _value(self, match: re.Match[str]) -> str:
        return self.env.get(match[1], match[0])


Behaviour = Callable[[Program], Awaitable[int]]
_BEHAVIOURS: dict[str, Behaviour] = {}
_IMAGES: dict[str, str] = {}
"""Last part of an image's name, or the last two -> its role."""


def register(
    role: str, *, images: Sequence[str] = (), agent: bool = False
) -> Callable[[Behaviour], Behaviour]:
    """Return a decorator that makes a function the behaviour of a role.

    Args:
        role: The role.
        images: The last part, or the last two, of image names that have it: `weave-kube`,
            `contiv/stats`.
        agent: It is a plugin's agent: the lab's fault `plugin-crashloop` ends it.
    """

    def add(behaviour: Behaviour) -> Behaviour:
        _BEHAVIOURS[role] = behaviour
        _IMAGES.update(dict.fromkeys(images, role))
        if agent:
            _FAULTS[role] = "plugin-crashloop"
        return behaviour

    return add


def full_name(image: str) -> str:
    """Return an image's name with its tag, `latest` where none is given."""
    return image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"


def role_of(image: str) -> str:
    """Return the role of an image, or an empty string for one that just runs its command."""
    repository = full_name(image).split("@")[0].rsplit(":", 1)[0]
    base = repository.rsplit("/", 1)[-1]
    if "calico/" in repository:
        return {"node": "calico-node", "cni": "calico-cni"}.get(base, "pause")
    for known in ("/".join(repository.split("/")[-2:]), base):
        if known in _IMAGES:
            return _IMAGES[known]
    for part, role in _BY_NAME:
        if part in base:
            return role
    return ""


_BY_NAME = (
    ("flannel-cni-plugin", "flannel-cni"),
    ("flannel", "flannel"),
    ("kube-router", "kube-router"),
    ("kube-apiserver", "kube-apiserver"),
    ("kube-proxy", "kube-proxy"),
    ("coredns", "coredns"),
    ("etcd", "pause"),
    ("kube-controller-manager", "pause"),
    ("kube-scheduler", "pause"),
    ("pause", "pause"),
    ("nginx", "web"),
    ("httpd", "web"),
    ("agnhost", "web"),
    ("echoserver", "web"),
)


def body(host: LabHost, runtime: Runtime, pod: Obj, spec: Obj, env: dict[str, str]) -> Body:
    """Return what a container of a pod does."""
    role = role_of(spec["image"])
    behaviour = _BEHAVIOURS.get(role, _process)
    if role == "web" and spec.get("command"):
        behaviour = _process
    fault = _FAULTS.get(role, "") if spec in pod["spec"]["containers"] else ""

    async def run(sandbox: Sandbox, container: Container) -> int:
        container.env = env
        program = Program(host, runtime, pod, spec, env, sandbox, container)
        try:
            return await _unless(fault, behaviour, program)
        finally:
            await program.close()

    return run


async def environment(client: ApiClient, pod: Obj, spec: Obj, sandbox: Sandbox) -> dict[str, str]:
    """Return a container's environment.

    Raises:
        MissingReference: A ConfigMap, a Secret or a key that it names is missing.
    """
    meta, found = pod["metadata"], {}
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": sandbox.address,
        "status.hostIP": sandbox.address if pod["spec"].get("hostNetwork") else "",
    }
    for item in spec.get("env") or []:
        source = item.get("valueFrom") or {}
        value = item.get("value", "")
        if "fieldRef" in source:
            value = fields.get(source["fieldRef"]["fieldPath"], "")
        for kind, name in (("configmap", "configMapKeyRef"), ("secret", "secretKeyRef")):
            if name in source:
                value = await _key(client, meta["namespace"], kind, source[name])
        found[item["name"]] = value
    return found


async def _key(client: ApiClient, namespace: str, kind: str, reference: Obj) -> str:
    name, key = reference["name"], reference["key"]
    try:
        data = (await client.get(f"/api/v1/namespaces/{namespace}/{kind}s/{name}")).get(
            "data"
        ) or {}
    except ApiRefused as refused:
        if reference.get("optional"):
            return ""
        if refused.status == 404:
            raise MissingReference(f'{kind} "{name}" not found') from None
        raise
    if key not in data:
        if reference.get("optional"):
            return ""
        raise MissingReference(f"couldn't find key {key} in {kind} {namespace}/{name}")
    value = str(data[key])
    return base64.b64decode(value).decode() if kind == "secret" else value


@register("pause")
async def idle(program: Program) -> int:
    """Run until stopped, doing nothing."""
    del program
    await asyncio.Event().wait()
    return 0


async def _unless(fault: str, behaviour: Behaviour, program: Program) -> int:
    """Run a behaviour, but exit with 1 when its fault is on or comes on."""
    if not fault:
        return await behaviour(program)
    if fault in program.host.faults:
        program.log(f"the lab's fault {fault} is on: exiting")
        await program.host.sleep(1.0)
        return 1
    running = asyncio.ensure_future(behaviour(program))
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=_FAULT_CHECK)
            if fault in program.host.faults:
                program.log(f"the lab's fault {fault} came on: exiting")
                return 1
        return running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _process(program: Program) -> int:
    """Run the container's command as a real process; an image without one just stays."""
    if not program.argv:
        return await idle(program)
    process = await program.runtime.process(program.sandbox, program.container, program.argv)

    async def pump(stream: asyncio.StreamReader | None) -> None:
        rest = b""
        while stream is not None and (data := await stream.read(32_768)):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                program.log(line.decode(errors="replace"))
        if rest:
            program.log(rest.decode(errors="replace"))

    try:
        await asyncio.gather(pump(process.stdout), pump(process.stderr))
        code = await process.wait()
        return 128 - code if code < 0 else code
    finally:
        await asyncio.shield(end_process(process))
