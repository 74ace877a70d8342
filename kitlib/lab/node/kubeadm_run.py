"""What every kubeadm verb shares: its failure, its output and the host behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.klog import klog
from kitlib.lab.node.kubeadm_release import Release
from kitlib.lab.node.kubelet_client import ApiClient
from kitlib.lab.node.packages import DEFAULT_VERSION, upstream
from kitlib.lab.node.state import NodeState, state_of

__all__ = ["ADMIN_CONF", "MANIFESTS", "KubeadmError", "Run"]

ADMIN_CONF = "/etc/kubernetes/admin.conf"
MANIFESTS = "/etc/kubernetes/manifests"
_FLOOR = 20.0


class KubeadmError(Exception):
    """kubeadm stops; the text is what it prints before its hint at `--v=5`."""


@dataclass(slots=True)
class Run:
    """One running kubeadm.

    Attributes:
        host: The host that it runs on.
        call: Its invocation.
        state: The host's node state.
        pid: The process id in its log lines.
        own: kubeadm's own release.
        phase: The phase that runs, named in errors.
    """

    host: LabHost
    call: Call
    state: NodeState
    pid: int
    own: Release
    phase: str = "preflight"

    @classmethod
    def of(cls, host: LabHost, call: Call) -> Run:
        """Return a run with the version of the installed kubeadm package."""
        state = state_of(host)
        installed = state.packages.get("kubeadm", DEFAULT_VERSION)
        return cls(host, call, state, state.pid(), Release(upstream(installed)))

    async def out(self, line: str, after: float = 0.0) -> None:
        """Print a line `after` recorded seconds behind the one before it."""
        if after:
            await self.host.sleep(after)
        await self.call.out(line)

    async def log(self, severity: str, source: str, text: str) -> None:
        """Print a log line to standard error."""
        await self.call.err(klog(severity, self.pid, source, text))

    def path(self, absolute: str) -> Path:
        """Return where an absolute path of the host really is."""
        return self.state.path(absolute)

    def write(self, absolute: str, text: str, mode: int = 0o600) -> None:
        """Write a file of the host, with its directories."""
        file = self.path(absolute)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def patience(self, recorded_seconds: float) -> float:
        """Return how long to wait for a real thing: the scaled time, but never hastily short."""
        return max(recorded_seconds * self.host.time_factor, _FLOOR)

    async def node_name(self) -> str:
        """Return the host's name as the kernel has it now, in lower case."""
        found = await self.host.run("hostname")
        return found.stdout.strip().lower()

    def admin(self) -> ApiClient:
        """Return an API client with the administrator's credentials.

        Raises:
            KubeadmError: The host has no admin.conf.
        """
        try:
            return ApiClient.from_kubeconfig(self.path(ADMIN_CONF))
        except OSError:
            raise KubeadmError(
                f"failed to load admin kubeconfig: open {ADMIN_CONF}: no such file or directory"
            ) from None
        except ValueError as wrong:
            raise KubeadmError(f"failed to load admin kubeconfig: {wrong}") from wrong
