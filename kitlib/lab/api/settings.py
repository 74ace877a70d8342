"""What one emulated cluster is: its version, addresses, networks and keys."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field


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
    planes: list[str] = field(default_factory=list, compare=False)
    """The addresses of all API servers, where there are several; they come and go too."""
    faults: set[str] = field(default_factory=set, compare=False)
    """The lab faults that the API acts on; they come and go while it runs."""
