"""Cluster IPs and node ports of Services."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

from kitlib.lab.api import errors
from kitlib.lab.api.settings import Settings
from kitlib.lab.api.store import Obj, Store

SERVICES = "/services"
_NODE_PORTS = range(30000, 32768)
# The first addresses are left to those who ask for them, as recent versions do.
_RESERVED = 20


def cluster_ip(store: Store, settings: Settings, obj: Obj, *, dry_run: bool) -> None:
    """Give a new Service an address, or check the one that it asks for.

    Raises:
        ApiError: 422 for an address outside the range, or taken.
    """
    spec = obj["spec"]
    if spec["type"] == "ExternalName":
        return
    wanted = spec.get("clusterIP")
    used = {found["spec"].get("clusterIP") for found in store.all(SERVICES)}
    if wanted and wanted != "None":
        _check(settings, obj, wanted, used)
    elif not wanted:
        hosts = map(str, itertools.islice(settings.service_cidr.hosts(), _RESERVED, None))
        spec["clusterIP"] = "None" if dry_run else next(ip for ip in hosts if ip not in used)
    if settings.minor >= 20:
        spec["clusterIPs"] = [spec["clusterIP"]]


def _check(settings: Settings, obj: Obj, wanted: str, used: set[Any]) -> None:
    problem = ""
    try:
        inside = ipaddress.ip_address(wanted) in settings.service_cidr
    except ValueError:
        inside = False
    if not inside:
        cidr = settings.service_cidr
        problem = f"the provided IP is not in the valid range. The range of valid IPs is {cidr}"
    elif wanted in used:
        problem = "provided IP is already allocated"
    if problem:
        plural = settings.minor >= 20
        field = "spec.clusterIPs" if plural else "spec.clusterIP"
        shown = f'[]string{{"{wanted}"}}' if plural else f'"{wanted}"'
        text = f"Invalid value: {shown}: failed to allocate IP {wanted}: {problem}"
        name = obj["metadata"].get("name", "")
        raise errors.invalid("", "Service", name, [(field, "FieldValueInvalid", text)])


def node_ports(store: Store, spec: Obj) -> None:
    """Give the ports of a NodePort or LoadBalancer Service their node ports, in place."""
    if spec["type"] not in ("NodePort", "LoadBalancer"):
        return
    used = {
        port.get("nodePort")
        for found in store.all(SERVICES)
        for port in found["spec"].get("ports") or []
    }
    free = (number for number in _NODE_PORTS if number not in used)
    for port in spec.get("ports") or []:
        if not port.get("nodePort"):
            port["nodePort"] = next(free)
