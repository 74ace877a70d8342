"""What one emulated cluster is: its version, addresses, networks and keys."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """What one emulated cluster is."""

    minor: int
    version: str
    advertise: str
    port: int
    service_cidr: ipaddress.IPv4Network
    pod_cidr: ipaddress.IPv4Network | None
    time_factor: float
    ca_pem: str
    ca_key_pem: str
    sa_key_pem: str
    sa_public_pem: str
    kubelet_port: int = 10250
