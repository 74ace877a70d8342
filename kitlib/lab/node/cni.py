"""The container network interface of an emulated node: which file is in force, and what it does.

The rule that decides everything is containerd's own: the first file by name in `/etc/cni/net.d`
that parses. A left-over file of another plugin therefore wins or loses by its name, exactly as on
a real host, and a pod is wired by whatever that file says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node import datapath, romana_store
from kitlib.lab.node.host_local import CniError, HostLocal
from kitlib.lab.node.wiring import AGENTS, Wiring

__all__ = [
    "CALICO_BLOCK",
    "CniConfig",
    "CniError",
    "HostLocal",
    "Wire",
    "called",
    "config_in_force",
    "subnet_env",
    "wire",
    "wire_remove",
]

NETWORKS = "/var/lib/cni/networks"
CALICO_NODENAME = "/var/lib/calico/nodename"
CALICO_BLOCK = "/var/lib/calico/ipam-block"
"""The block that this node holds; the emulated calico-node writes it beside `nodename`."""
_SUFFIXES = (".conf", ".conflist", ".json")


@dataclass(frozen=True, slots=True)
class CniConfig:
    """One CNI configuration: the file it came from, the network's name and its plugins."""

    path: Path
    name: str
    plugins: tuple[Mapping[str, Any], ...]

    @property
    def kind(self) -> str:
        """The type of the first plugin, which makes the interface."""
        return str(self.plugins[0].get("type", ""))


@dataclass(frozen=True, slots=True)
class Wire:
    """What a pod was given: its address, and where the address must be given back."""

    address: str
    ipam: Path = field(default=Path())
    give_back: Callable[[], Awaitable[None]] | None = None
    """Gives the address back where it is not a file in `ipam`."""


def config_in_force(directory: Path) -> CniConfig | None:
    """Return the configuration that the runtime uses: the first by name that parses."""
    if not directory.is_dir():
        return None
    return next(filter(None, map(_read, sorted(directory.iterdir()))), None)


def _read(path: Path) -> CniConfig | None:
    """Return what one file says; None where it is no configuration."""
    if path.suffix not in _SUFFIXES or not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
        plugins = tuple(data["plugins"] if path.suffix == ".conflist" else [data])
        if plugins and all(item.get("type") for item in plugins):
            return CniConfig(path, str(data.get("name", "")), plugins)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def subnet_env(path: Path) -> dict[str, str]:
    """Return the settings that flannel's agent left for its CNI plugin.

    Raises:
        CniError: The agent has not written them (yet).
    """
    try:
        text = path.read_text()
    except OSError:
        raise CniError(f"open {path}: no such file or directory") from None
    return dict(line.split("=", 1) for line in text.split() if "=" in line)


async def wire(
    host: LabHost,
    config: CniConfig,
    netns: str,
    owner: str,
    pod: str,
    root: Path = Path("/"),
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> Wire:
    """Give a pod's namespace its interface and address by the configuration in force.

    Args:
        host: The node.
        config: The configuration in force.
        netns: The pod's network namespace, which exists.
        owner: The sandbox's id.
        pod: `namespace/name`.
        root: The directory that stands for `/`.
        annotations: The pod's, where they are known; CNI-Genie reads them.

    Raises:
        CniError: The plugin could not do it; the text names the plugin.
    """
    kind = config.kind
    wired_by = _PLUGINS.get(kind) or (_by_agent if kind in AGENTS else None)
    if kind == "genie":
        wired_by = partial(_genie, names=called(config, annotations))
    if wired_by is None or not (root / "opt/cni/bin" / kind).exists():
        raise CniError(f'failed to find plugin "{kind}" in path [/opt/cni/bin]')
    try:
        return await wired_by(host, config, netns, owner, pod, root)
    except CniError as failed:
        raise CniError(f'plugin type="{kind}" failed (add): {failed}') from None


async def wire_remove(host: LabHost, netns: str, given: Wire | None) -> None:
    """Remove a pod's namespace and give its address back."""
    await host.run("sh", "-e", check=False, input=datapath.detach(netns))
    if given is not None:
        await _give_back(given)


async def _give_back(given: Wire) -> None:
    if given.give_back is not None:
        await given.give_back()
    elif given.address:
        (given.ipam / given.address).unlink(missing_ok=True)


def called(config: CniConfig, annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the plugins that CNI-Genie calls for a pod: those that it names, or the default."""
    for text in (annotations.get("cni", ""), str(config.plugins[0].get("default_plugin") or "")):
        if names := tuple(filter(None, (name.strip() for name in text.split(",")))):
            return names
    return ("weave",)


async def _genie(
    host: LabHost,
    config: CniConfig,
    netns: str,
    owner: str,
    pod: str,
    root: Path,
    *,
    names: Sequence[str],
) -> Wire:
    """Have one or several plugins wire a pod: the first one's device is eth0, then eth1 and on.

    The others come first, each one's eth0 takes another name, and the last is the first's.
    """
    given: list[Wire] = []
    try:
        for place, name in reversed(list(enumerate(names))):
            delegate = _config_for(name, config)
            # A device more of the same plugin must not look like the same pod to it.
            other = hashlib.sha256(f"{owner}.{place}".encode()).hexdigest() if place else owner
            whose = f"{pod}.{place}" if place else pod
            given.append(await wire(host, delegate, netns, other, whose, root))
            if place:
                script = datapath.rename_device(netns, f"eth{place}")
                await host.run("sh", "-e", input=script)
    except CniError:
        for each in given:
            await _give_back(each)
        raise

    async def give_back() -> None:
        for each in given:
            await _give_back(each)

    return Wire(given[-1].address, give_back=give_back)


def _config_for(name: str, genie: CniConfig) -> CniConfig:
    """Return the configuration of a plugin that Genie calls: the first with its name in its own."""
    for path in sorted(genie.path.parent.glob(f"*{name}*")):
        found = _read(path) if path != genie.path else None
        if found is not None:
            return found
    raise CniError(f"CNI-Genie: no configuration of plugin {name!r} in {genie.path.parent}")


async def _flannel(
    host: LabHost, config: CniConfig, netns: str, owner: str, pod: str, root: Path
) -> Wire:
    env = subnet_env(root / "run/flannel/subnet.env")
    delegate = config.plugins[0].get("delegate") or {}
    network = IPv4Network(env["FLANNEL_NETWORK"])
    plugin = {
        "bridge": delegate.get("bridge", "cni0"),
        "isGateway": True,
        "hairpinMode": delegate.get("hairpinMode", False),
        "mtu": int(delegate.get("mtu") or env["FLANNEL_MTU"]),
        "ipam": {
            "subnet": str(IPv4Interface(env["FLANNEL_SUBNET"]).network),
            "routes": [{"dst": str(network)}],
        },
    }
    delegated = CniConfig(config.path, config.name, (plugin,))
    return await _bridge(host, delegated, netns, owner, pod, root)


async def _bridge(
    host: LabHost, config: CniConfig, netns: str, owner: str, pod: str, root: Path
) -> Wire:
    del pod
    plugin = config.plugins[0]
    ipam = plugin.get("ipam") or {}
    ranges = ipam.get("ranges") or [[{}]]
    subnet = ipam.get("subnet") or ranges[0][0].get("subnet")
    if not subnet:
        raise CniError("no IP ranges specified")
    directory = root / NETWORKS.lstrip("/") / config.name
    local = HostLocal(directory, IPv4Network(subnet))
    address = local.reserve(owner)
    routes = tuple(IPv4Network(item["dst"]) for item in ipam.get("routes") or ())
    port = datapath.BridgePort(
        bridge=str(plugin.get("bridge", "cni0")),
        gateway=local.gateway,
        address=IPv4Interface((address, local.gateway.network.prefixlen)),
        veth=f"veth{secrets.token_hex(4)}",
        mtu=int(plugin.get("mtu") or 0),
        hairpin=bool(plugin.get("hairpinMode")),
        routes=tuple(route for route in routes if route.prefixlen),
    )
    result = await host.run("sh", "-e", check=False, input=datapath.bridge_attach(netns, port))
    if not result.ok:
        (directory / str(address)).unlink(missing_ok=True)
    if result.exit_status == datapath.BRIDGE_CONFLICT:
        raise CniError(
            f'failed to set bridge addr: "{port.bridge}" already has an IP address '
            f"different from {port.gateway}"
        )
    if not result.ok:
        raise CniError(result.tail(1))
    return Wire(str(address), directory)


async def _calico(
    host: LabHost, config: CniConfig, netns: str, owner: str, pod: str, root: Path
) -> Wire:
    if not (root / CALICO_NODENAME.lstrip("/")).exists():
        raise CniError(
            f"stat {CALICO_NODENAME}: no such file or directory: check that the calico/node "
            "container is running and has mounted /var/lib/calico/"
        )
    block = root / CALICO_BLOCK.lstrip("/")
    if not block.exists():
        raise CniError("failed to request IPv4 addresses: no configured Calico pools")
    directory = root / NETWORKS.lstrip("/") / config.name
    address = HostLocal(directory, IPv4Network(block.read_text().strip())).reserve(owner, first=0)

    digest = hashlib.sha1(pod.replace("/", ".").encode(), usedforsecurity=False).hexdigest()
    mtu = int(config.plugins[0].get("mtu") or 1500)
    script = datapath.routed_attach(netns, f"cali{digest[:11]}", str(address), mtu)
    result = await host.run("sh", "-e", check=False, input=script)
    if not result.ok:
        (directory / str(address)).unlink(missing_ok=True)
        raise CniError(result.tail(1))
    return Wire(str(address), directory)


async def _romana(
    host: LabHost, config: CniConfig, netns: str, owner: str, pod: str, root: Path
) -> Wire:
    """Wire a pod with an address that Romana's etcd hands out, behind its Service's address."""
    del pod, root
    plugin = config.plugins[0]
    store = str((plugin.get("romana_client_config") or {}).get("etcd_endpoints", ""))

    async def give_back() -> None:
        with contextlib.suppress(romana_store.Unavailable):  # it may be gone with the cluster
            await romana_store.ask("DELETE", f"{store}/address", {"owner": owner})

    told = {"node": host.name, "underlay": host.address, "owner": owner}
    try:
        address = str((await romana_store.ask("POST", f"{store}/address", told))["address"])
    except romana_store.Unavailable as failed:
        raise CniError(f"failed to allocate IP, err=({failed})") from None
    script = datapath.routed_attach(
        netns,
        f"romana-{owner[:8]}",
        address,
        int(plugin.get("mtu") or 1500),
        datapath.ROMANA_GATEWAY,
    )
    result = await host.run("sh", "-e", check=False, input=script)
    if not result.ok:
        await give_back()
        raise CniError(result.tail(1))
    return Wire(address, give_back=give_back)


async def _by_agent(
    host: LabHost, config: CniConfig, netns: str, owner: str, pod: str, root: Path
) -> Wire:
    """Wire a pod as the plugin's agent on this node says."""
    del pod
    agent = AGENTS[config.kind]
    try:
        wiring = Wiring.load(root / agent.file.lstrip("/"))
    except OSError:
        raise CniError(agent.silent) from None
    directory = root / agent.addresses.lstrip("/")
    address = HostLocal(directory, wiring.pods).reserve(owner, wiring.first)
    veth = f"{wiring.veth}{owner[: wiring.digits]}"
    if wiring.way == "bridge":
        port = datapath.BridgePort(
            bridge=wiring.device,
            gateway=wiring.gateway,
            address=IPv4Interface((address, wiring.gateway.network.prefixlen)),
            veth=veth,
            mtu=wiring.mtu,
            hairpin=True,
            owns_gateway=wiring.bridge_has_gateway,
        )
        script = datapath.bridge_attach(netns, port)
    else:
        script = datapath.routed_attach(
            netns, veth, str(address), wiring.mtu, wiring.gateway, wiring.mac
        )
    result = await host.run("sh", "-e", check=False, input=script)
    if not result.ok:
        (directory / str(address)).unlink(missing_ok=True)
        raise CniError(result.tail(1))
    return Wire(str(address), directory)


_PLUGINS = {"flannel": _flannel, "bridge": _bridge, "calico": _calico, "romana": _romana}
