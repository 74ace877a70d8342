"""Events as the kubelet and its neighbours record them: repeats raise a count."""

from __future__ import annotations

import secrets

from kitlib.lab import hostclock
from kitlib.lab.node.kubelet_client import ApiClient, ApiRefused, ApiUnreachable, Obj

__all__ = ["Recorder", "now"]


def now() -> str:
    """Return the time as Kubernetes writes it: UTC, whole seconds."""
    return hostclock.utc().strftime("%Y-%m-%dT%H:%M:%SZ")


class Recorder:
    """Writes Events for one component of one node.

    Args:
        client: Where the events go.
        host: The node's name.
        component: The reporter, `kubelet`.
    """

    def __init__(self, client: ApiClient, host: str, component: str = "kubelet") -> None:
        self._client = client
        self._host = host
        self._component = component
        self._seen: dict[tuple[str, ...], tuple[str, int]] = {}

    async def node(self, kind: str, reason: str, message: str) -> None:
        """Record an event about the node itself."""
        about = {"kind": "Node", "name": self._host, "uid": self._host}
        await self._record(about, "default", kind, reason, message)

    async def pod(
        self, pod: Obj, kind: str, reason: str, message: str, *, container: str = ""
    ) -> None:
        """Record an event about a pod, or about one container (`spec.containers{name}`)."""
        meta = pod["metadata"]
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        }
        if container:
            inits = {item["name"] for item in pod["spec"].get("initContainers") or []}
            field = "initContainers" if container in inits else "containers"
            about["fieldPath"] = f"spec.{field}{{{container}}}"
        await self._record(about, meta["namespace"], kind, reason, message)

    async def _record(
        self, about: Obj, namespace: str, kind: str, reason: str, message: str
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/events"
        key = (namespace, about["uid"], about.get("fieldPath", ""), reason, message)
        stamp = now()
        try:
            if key in self._seen:
                name, count = self._seen[key]
                self._seen[key] = (name, count + 1)
                patch = {"count": count + 1, "lastTimestamp": stamp}
                await self._client.patch(f"{path}/{name}", patch)
                return
            name = f"{about['name']}.{secrets.token_hex(8)}"
            self._seen[key] = (name, 1)
            await self._client.create(
                path,
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": name, "namespace": namespace},
                    "involvedObject": about,
                    "reason": reason,
                    "message": message,
                    "type": kind,
                    "count": 1,
                    "firstTimestamp": stamp,
                    "lastTimestamp": stamp,
                    "eventTime": None,
                    "reportingComponent": "",
                    "reportingInstance": "",
                    "source": {"component": self._component, "host": self._host},
                },
            )
        except (ApiRefused, ApiUnreachable):
            # Events are best effort for the real kubelet too: a lost one is not retried here.
            self._seen.pop(key, None)
