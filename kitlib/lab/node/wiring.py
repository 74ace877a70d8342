"""What an agent tells its CNI program of how this node's pods are wired, and the program's part.

The real programs ask their agent over a socket; here the agent leaves a file in its own directory,
and there are the addresses that were given out, too. Without the file the program fails, with the
words that the real one has for an agent that does not answer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Literal

__all__ = ["AGENTS", "Agent", "Wiring"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """How pods of a node are wired.

    Attributes:
        way: `bridge`: plugged into a bridge. `veth`: point to point, with a host route each.
        pods: The addresses that this node may give to pods.
        gateway: The pods' gateway, with the prefix length that pods see.
        device: The bridge; for `veth` unused.
        veth: The host's end of a pod's pair is named so, and so many digits of the sandbox's id.
        digits: How many digits.
        mtu: The pods' MTU.
        first: The first address of `pods` that a pod may get, counted from 0.
        bridge_has_gateway: Whether the gateway's address is the bridge's own.
        mac: For `veth`: the hardware address of the host's end.
    """

    way: Literal["bridge", "veth"]
    pods: IPv4Network
    gateway: IPv4Interface
    mtu: int
    veth: str = "veth"
    digits: int = 8
    device: str = ""
    first: int = 2
    bridge_has_gateway: bool = True
    mac: str = "ee:ee:ee:ee:ee:ee"

    def save(self, path: Path) -> None:
        """Write it where the CNI program looks for it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), default=str) + "\n")

    @classmethod
    def load(cls, path: Path) -> Wiring:
        """Return what an agent wrote.

        Raises:
            OSError: It has not written anything (yet).
        """
        data = json.loads(path.read_text())
        pods, gateway = IPv4Network(data.pop("pods")), IPv4Interface(data.pop("gateway"))
        return cls(pods=pods, gateway=gateway, **data)


@dataclass(frozen=True, slots=True)
class Agent:
    """Where a CNI program finds its agent.

    Attributes:
        file: The agent's file, absolute.
        silent: What the program says when the agent does not answer.
    """

    file: str
    silent: str

    @property
    def addresses(self) -> str:
        """The directory of the addresses that were given out."""
        return f"{self.file.rpartition('/')[0]}/addresses"


AGENTS = {
    "contivk8s": Agent(
        "/var/contiv/lab-wiring.json",
        "Post http://localhost/ContivCNI.AddPod: dial unix /run/contiv/contiv-cni.sock: connect: "
        "connection refused",
    ),
    "cilium-cni": Agent(
        "/var/run/cilium/lab-wiring.json",
        "unable to connect to Cilium agent: failed to create cilium agent client after 30.000000 "
        'seconds timeout: Get "http://localhost/v1/config": dial unix /var/run/cilium/cilium.sock:'
        " connect: no such file or directory",
    ),
    "contrail-k8s-cni": Agent(
        "/var/lib/contrail/ports/lab-wiring.json",
        'failed HTTP operation: Post "http://127.0.0.1:9091/port": dial tcp 127.0.0.1:9091: '
        "connect: connection refused",
    ),
    "ovn-k8s-cni-overlay": Agent(
        "/var/run/ovn-kubernetes/cni/lab-wiring.json",
        'failed to send CNI request: Post "http://dummy/": dial unix '
        "/var/run/ovn-kubernetes/cni//ovn-cni-server.sock: connect: no such file or directory",
    ),
    "nuage-cni-k8s": Agent(
        "/var/lib/nuage/lab-wiring.json",
        "failed to connect to VRS: dial unix /var/run/openvswitch/db.sock: connect: no such file "
        "or directory",
    ),
    "weave-net": Agent(
        "/var/lib/weave/lab-wiring.json",
        'unable to allocate IP address: Post "http://127.0.0.1:6784/ip": dial tcp '
        "127.0.0.1:6784: connect: connection refused",
    ),
}
"""CNI type -> its agent."""
