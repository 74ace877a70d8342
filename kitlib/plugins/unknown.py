"""The plugin of a cluster whose own one the catalogue does not know: nothing is claimed of it."""

from __future__ import annotations

from ipaddress import IPv4Network

from kitlib.plugins.entry import Supported
from kitlib.plugins.schema import (
    Cni,
    Interfaces,
    Leftovers,
    Needs,
    Plugin,
    PodCidr,
    PodDevice,
    Upstream,
)

__all__ = ["UNKNOWN"]

# Built past the checks of a catalogue's entry: it has no workloads, files or way to install it.
UNKNOWN = Plugin.model_construct(
    name="",
    title="a network plugin that the kit does not know",
    what="",
    datapath="",
    layer="",
    overhead_bytes=0,
    status=Upstream(state="maintained", latest="", released=""),
    kubernetes=Supported.model_construct(min="1.0", max="1.0"),
    pod_cidr=PodCidr(default=IPv4Network("0.0.0.0/0"), stated_in=None, block=""),
    cni=Cni.model_construct(files=(), types=(), binaries=()),
    interfaces=Interfaces(pod=PodDevice(kind="veth", name=""), owned=()),
    ports=(),
    leftovers=Leftovers(interfaces=(), paths=(), iptables_chains=()),
    needs=Needs(modules=(), node_pod_cidr=False),
    network_policy=False,
    sources=(),
)
"""It stands wherever a plugin is asked for; its name is empty."""
