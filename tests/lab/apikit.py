"""One emulated API server on a loopback port, and clients of it, for the tests of the API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from kitlib.lab.api import pki

REPO = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def find_kubectl() -> str | None:
    """Return the path of kubectl: the one beside the interpreter, else the one on PATH."""
    return shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")


def write_pki(directory: Path) -> pki.KeyPair:
    """Write the files that kubeadm init writes for an API on 127.0.0.1; return the CA."""
    directory.mkdir(parents=True, exist_ok=True)
    ca = pki.new_ca("kubernetes")
    serving = pki.issue(
        ca, "kube-apiserver", sans_dns=["kubernetes"], sans_ip=["127.0.0.1"], server=True
    )
    kubelet = pki.issue(ca, "kube-apiserver-kubelet-client", ["system:masters"], client=True)
    for name, pair in (("ca", ca), ("apiserver", serving), ("apiserver-kubelet-client", kubelet)):
        (directory / f"{name}.crt").write_text(pair.cert_pem)
        (directory / f"{name}.key").write_text(pair.key_pem)
    key = pki.new_key()
    (directory / "sa.key").write_text(key)
    (directory / "sa.pub").write_text(pki.public_pem(key))
    return ca


@dataclass(slots=True)
class Api:
    """A running server and what is needed to talk to it."""

    process: subprocess.Popen[str]
    port: int
    directory: Path
    ca: pki.KeyPair
    log: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(
        self, name: str = "kubernetes-admin", orgs: tuple[str, ...] = ("system:masters",), **kw: Any
    ) -> Path:
        """Write (once) and return a kubeconfig of a user with a client certificate, or a token."""
        path = self.directory / f"{name.replace(':', '-')}.conf"
        if not path.exists():
            if not kw:
                pair = pki.issue(self.ca, name, orgs, client=True)
                kw = {"cert_pem": pair.cert_pem, "key_pem": pair.key_pem}
            path.write_text(yaml.safe_dump(pki.kubeconfig(self.url, self.ca.cert_pem, name, **kw)))
        return path

    def kubectl(
        self, *argv: str, stdin: str = "", config: Path | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl; return its result whatever its exit status."""
        return subprocess.run(
            self.command(*argv, config=config),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.env(),
            check=False,
        )

    def command(self, *argv: str, config: Path | None = None) -> list[str]:
        """Return the argument list of a kubectl call."""
        kubectl = find_kubectl()
        assert kubectl
        return [kubectl, f"--kubeconfig={config or self.kubeconfig()}", *argv]

    def env(self) -> dict[str, str]:
        """Return kubectl's environment: nothing of the caller's configuration."""
        home = str(self.directory)
        return {"HOME": home, "PATH": os.environ["PATH"], "KUBECACHEDIR": f"{home}/cache"}

    def ok(self, *argv: str, stdin: str = "", config: Path | None = None) -> str:
        """Run kubectl, which must succeed; return its standard output."""
        done = self.kubectl(*argv, stdin=stdin, config=config)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def stop(self) -> int:
        """End the server with SIGTERM; return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=10)


def launch(
    directory: Path, version: str = "1.22.3", factor: float = 0.001, *extra: str, port: int = 0
) -> Api:
    """Start a server on `directory` (its PKI is made when missing) and wait until it is ready."""
    pki_dir = directory / "pki"
    if (pki_dir / "ca.crt").exists():
        ca = pki.KeyPair((pki_dir / "ca.crt").read_text(), (pki_dir / "ca.key").read_text())
    else:
        ca = write_pki(pki_dir)
    port = port or free_port()
    log = directory / "api.log"
    argv = [
        sys.executable, "-m", "kitlib.lab.api", "--bind", f"127.0.0.1:{port}",
        "--advertise", "127.0.0.1", "--pki-dir", str(pki_dir),
        "--data-dir", str(directory / "etcd"), "--kubernetes-version", version,
        "--service-cidr", "10.96.0.0/12", "--pod-cidr", "10.244.0.0/16",
        "--time-factor", str(factor), *extra,
    ]  # fmt: skip
    with log.open("a") as out:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=out, text=True, cwd=REPO)
    assert process.stdout
    line = process.stdout.readline()
    process.stdout.close()
    if line != "ready\n":
        process.kill()
        process.wait()
        raise AssertionError(f"the API did not start: {log.read_text()}")
    return Api(process, port, directory, ca, log)


@contextlib.contextmanager
def running(directory: Path, version: str = "1.22.3", *extra: str) -> Iterator[Api]:
    """Run a server for the length of a `with`; its log must hold no traceback at the end."""
    api = launch(directory, version, 0.001, *extra)
    try:
        yield api
    finally:
        if api.process.poll() is None:
            api.stop()
    assert "Traceback" not in api.log.read_text(), api.log.read_text()


def node(
    name: str, address: str = "127.0.0.1", ready: bool = True, port: int = 0
) -> dict[str, Any]:
    """Return a Node as a kubelet registers it."""
    when = "2026-11-22T18:07:16Z"
    told = {"lastHeartbeatTime": when, "lastTransitionTime": when}
    quiet = [
        {"type": type_, "status": "False", "reason": reason, "message": text, **told}
        for type_, reason, text in (
            ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
            ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        )
    ]
    state = {"type": "Ready", "status": "True" if ready else "False", **told}
    state["reason"] = "KubeletReady" if ready else "KubeletNotReady"
    state["message"] = "kubelet is posting ready status" if ready else "cni plugin not initialized"
    room = {"cpu": "2", "memory": "24581684Ki", "pods": "110", "ephemeral-storage": "243497856212"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
                                              "kubernetes.io/os": "linux"}},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": name},
            ],
            "capacity": room,
            "allocatable": room,
            "conditions": [*quiet, state],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "architecture": "amd64", "bootID": "b", "machineID": "m", "systemUUID": "s",
                "containerRuntimeVersion": "containerd://1.6.20",
                "kernelVersion": "6.18.44-fc-v669", "kubeletVersion": "v1.22.3",
                "kubeProxyVersion": "v1.22.3", "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
            },
        },
    }  # fmt: skip


class FakeKubelet:
    """A kubelet's port 10250 on loopback: logs and exec, with the channel protocol."""

    def __init__(self, ca: pki.KeyPair, directory: Path) -> None:
        pair = pki.issue(ca, "kubelet", sans_ip=["127.0.0.1"], server=True)
        self._cert, self._key = directory / "kubelet.crt", directory / "kubelet.key"
        self._cert.write_text(pair.cert_pem)
        self._key.write_text(pair.key_pem)
        (directory / "kubelet-ca.crt").write_text(ca.cert_pem)
        self._ca = directory / "kubelet-ca.crt"
        self.port = 0
        self.asked: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FakeKubelet:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._runner
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/containerLogs/{ns}/{pod}/{container}", self._log)
        app.router.add_get("/exec/{ns}/{pod}/{container}", self._exec)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._cert, self._key)
        context.load_verify_locations(self._ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _log(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return web.Response(text=f"log of {request.match_info['container']}\n")

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        """Echo standard input, print the command, end with status 0, or with `exit N`'s N."""
        self.asked.append(request.path_qs)
        socket_ = web.WebSocketResponse(protocols=["v5.channel.k8s.io", "v4.channel.k8s.io"])
        await socket_.prepare(request)
        command = request.query.getall("command")
        await socket_.send_bytes(b"\x01" + " ".join(command).encode() + b"\n")
        await socket_.send_bytes(b"\x02to stderr\n")
        if request.query["input"] == "1":
            async for message in socket_:
                if message.data[:1] != b"\x00":
                    break
                await socket_.send_bytes(b"\x01" + message.data[1:])
        status: dict[str, Any] = {"metadata": {}, "status": "Success"}
        if command[0] == "exit" and command[1] != "0":
            status = {
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": f"command terminated with non-zero exit code: {command[1]}",
                "details": {"causes": [{"reason": "ExitCode", "message": command[1]}]},
            }
        await socket_.send_bytes(b"\x03" + json.dumps(status).encode())
        await socket_.close()
        return socket_
