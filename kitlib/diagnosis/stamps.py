"""What an object says of its own past: the times that are written into it, one second fine.

The truth for them is a real cluster's watch beside its objects: `creationTimestamp` and the events
are what they seem; a condition has its last change only; managedFields have one time for all that
one writer set, that of its last change.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from kitlib.runs import parse_time

__all__ = ["changed", "created", "managed", "requested_by", "runs", "since", "tainted"]

NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/uninitialized")
"""Taints that keep workloads away from a node that is not Ready."""
_COMMON_NAME = b"\x06\x03\x55\x04\x03"
_NODE = "system:node:"


def created(item: Mapping[str, Any]) -> float | None:
    """Return when an object was created."""
    return parse_time((item.get("metadata") or {}).get("creationTimestamp"))


def changed(item: Mapping[str, Any], condition: str) -> float | None:
    """Return when a condition last changed; None where the object has no such condition."""
    for each in (item.get("status") or {}).get("conditions") or ():
        if each.get("type") == condition:
            return parse_time(each.get("lastTransitionTime") or each.get("lastUpdateTime"))
    return None


def managed(item: Mapping[str, Any], part: str, field: str) -> float | None:
    """Return when the writer of a field last changed something; None where nobody is known.

    Args:
        item: An object with its managedFields.
        part: `f:spec`, `f:status`.
        field: A field in it, `f:podCIDR`.
    """
    for entry in (item.get("metadata") or {}).get("managedFields") or ():
        if field in ((entry.get("fieldsV1") or {}).get(part) or {}):
            return parse_time(entry.get("time"))
    return None


def tainted(node: Mapping[str, Any]) -> bool:
    """Return whether a node keeps workloads away because it is not Ready."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return any(taint.get("key") in NOT_READY for taint in taints)


def runs(pod: Mapping[str, Any]) -> bool:
    """Return whether every container of a pod runs."""
    status = pod.get("status") or {}
    states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
    wanted = len(pod.get("spec", {}).get("containers") or states)
    running = len(states) >= max(wanted, 1) and all("running" in state for state in states)
    return status.get("phase") == "Running" and running


def since(pod: Mapping[str, Any]) -> float | None:
    """Return when the last container of a running pod was started."""
    states = [each["state"]["running"] for each in pod["status"]["containerStatuses"]]
    starts = [parse_time(state.get("startedAt")) for state in states]
    return max((start for start in starts if start is not None), default=None)


def requested_by(request: Mapping[str, Any]) -> str:
    """Return the node that a CertificateSigningRequest with a bootstrap token was for, else "".

    The name stands in the request itself (PKCS#10): the value that follows commonName's OID.
    """
    spec = request.get("spec") or {}
    if not str(spec.get("username", "")).startswith("system:bootstrap:"):
        return ""
    try:
        text = base64.b64decode(str(spec.get("request", ""))).decode("ascii")
        body = re.sub(r"-----[A-Z ]+-----", "", text)
        der = base64.b64decode(body)
    except (binascii.Error, ValueError):
        return ""
    _, found, rest = der.partition(_COMMON_NAME)
    if not found or len(rest) < 2:
        return ""
    name = rest[2 : 2 + rest[1]].decode("utf-8", errors="replace")
    return name.removeprefix(_NODE) if name.startswith(_NODE) else ""
