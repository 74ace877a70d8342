"""The objects that measuring agents are made of: a namespace, DaemonSets, a Service. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kitlib.kube import Obj

__all__ = [
    "EXPIRES",
    "LABEL",
    "LABELS",
    "OWNER",
    "SERVICE",
    "daemon_set",
    "namespace",
    "node_of",
    "path_of",
    "runs",
    "service",
    "why_not",
]

LABEL = "app.kubernetes.io/managed-by=cluster-network-kit"
LABELS = dict([LABEL.split("=")])
OWNER, EXPIRES = "cluster-network-kit/owner", "cluster-network-kit/expires"
"""A namespace's annotations: whose it is (a run lock's owner), and until when (UTC) at least."""
SERVICE = "agents"

# BusyBox's httpd or Python's: whichever the image has answers with the node's name. The port may
# still be another run's that is about to end, so it is tried again.
_SERVE = """dir=$(mktemp -d) && printf '%s\\n' "$NODE_NAME" >"$dir/index.html"
has() { command -v "$1" >/dev/null; }
while has httpd || has python3; do
  httpd -f -p "$1" -h "$dir" || python3 -m http.server "$1" --directory "$dir"
  sleep 1
done 2>/dev/null
exec sleep 86400
"""
_STAY = "exec sleep 86400"


def namespace(name: str, annotations: Mapping[str, str]) -> Obj:
    """Return the namespace: its agents send raw packets, and may be on the hosts' own network."""
    modes = ("enforce", "audit", "warn")
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                **LABELS,
                **{f"pod-security.kubernetes.io/{mode}": "privileged" for mode in modes},
            },
            "annotations": dict(annotations),
        },
    }


def daemon_set(
    path: str,
    nodes: Sequence[str],
    image: str,
    *,
    port: int,
    resources: Mapping[str, Any],
    tolerations: Sequence[Mapping[str, Any]],
) -> Obj:
    """Return the DaemonSet of one path's agents.

    Args:
        path: `pod`, or `host` for agents on the hosts' own network.
        nodes: The nodes that get one.
        image: The image.
        port: The port of the HTTP server; 0 for none.
        resources: Requests and limits.
        tolerations: The tolerations.
    """
    labels = {**LABELS, "kit/path": path}
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        for node in nodes
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    container = {
        "name": "agent",
        "image": image,
        "command": ["sh", "-c", _SERVE if port else _STAY, "sh", str(port)],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": dict(resources),
        "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"agent-{path}", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": path == "host",
                    "affinity": {"nodeAffinity": required},
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [dict(each) for each in tolerations],
                    "containers": [container],
                },
            },
        },
    }


def service(port: int) -> Obj:
    """Return the Service in front of the agents on the pod network."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "labels": LABELS},
        "spec": {
            "selector": {**LABELS, "kit/path": "pod"},
            "ports": [{"port": 80, "targetPort": port, "protocol": "TCP"}],
        },
    }


def node_of(pod: Obj) -> str:
    """Return the node that an agent is on, or is made for; empty when nothing says it."""
    if node := pod["spec"].get("nodeName"):
        return str(node)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    named = [
        str(value)
        for term in required.get("nodeSelectorTerms") or []
        for field in term.get("matchFields") or []
        for value in field.get("values") or []
    ]
    return named[0] if len(named) == 1 else ""


def path_of(pod: Obj) -> str:
    """Return the path that an agent is on: `pod` or `host`."""
    return "host" if pod["spec"].get("hostNetwork") else "pod"


def runs(pod: Obj | None) -> bool:
    """Return whether an agent's pod runs, has an address and is not on its way out."""
    status = (pod or {}).get("status", {})
    going = pod is not None and "deletionTimestamp" in pod["metadata"]
    return status.get("phase") == "Running" and bool(status.get("podIP")) and not going


def why_not(pod: Obj | None) -> str:
    """Return why a pod does not run, in the cluster's words."""
    if pod is None:
        return "no pod yet"
    status = pod.get("status", {})
    for part in status.get("containerStatuses") or []:
        waiting = part.get("state", {}).get("waiting")
        if waiting:
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"not scheduled: {condition.get('message') or condition.get('reason')}"
    return str(status.get("phase", "Pending"))
