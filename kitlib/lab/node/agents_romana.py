"""Romana's containers: its etcd and its daemon on a control plane, the agent on each node.

Nothing is wrapped: an agent keeps one route for each block of another node. Etcd and daemon are
reached at the fixed addresses of their Services, as the real ones are, through kube-proxy's rules.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from pathlib import Path

from kitlib.lab.node import agent, datapath, romana_store
from kitlib.lab.node.enforcing import policies_enforced
from kitlib.lab.node.images import Program, idle, register

__all__ = ["DAEMON", "STORE", "change_script", "foreign", "network_of", "routes"]

STORE = "http://10.96.0.88:12379"
DAEMON = ("10.96.0.99", 9600)
_POOL = "10.112.0.0/12"
_FLAG, _NETWORK = "--network-cidr-overrides=", "romana-network="
_FILE = "10-romana.conf"
_ETCD = Path("/var/lib/romana/etcd-db/ipam.json")
_CONFIG = {
    "cniVersion": "0.3.0",
    "name": "romana-k8s-network",
    "type": "romana",
    "romana_client_config": {"etcd_endpoints": STORE, "etcd_prefix": "/romana"},
    "policy": True,
}
# No packet passes this device: where the kernel has no dummy, a bridge without ports does as well.
_DEVICE = (
    "ip link show dev romana-lo >/dev/null 2>&1 || ip link add romana-lo type dummy 2>/dev/null ||"
    " ip link add romana-lo type bridge\n"
    f"ip link set romana-lo up\nip addr replace {datapath.ROMANA_GATEWAY} dev romana-lo\n"
    "echo 1 > /proc/sys/net/ipv4/ip_forward\n"
)


def network_of(argv: list[str]) -> IPv4Network:
    """Return the pods' network that the daemon's flags name, or its own."""
    for word in argv:
        if word.startswith(_FLAG):
            for pair in word.removeprefix(_FLAG).split(","):
                if pair.startswith(_NETWORK):
                    return IPv4Network(pair.removeprefix(_NETWORK))
    return IPv4Network(_POOL)


def foreign(directory: Path) -> list[str]:
    """Return the other plugins' *.conf files, with which the agent does not start."""
    return sorted(path.name for path in directory.glob("*.conf") if path.name != _FILE)


def routes(blocks: dict[str, list[str]], own: str) -> dict[str, str]:
    """Return the other nodes' blocks and addresses: block -> the address behind which it is."""
    return {cidr: underlay for cidr, (node, underlay) in blocks.items() if node != own}


def change_script(known: dict[str, str], wanted: dict[str, str]) -> str:
    """Return the script that turns the routes that are known into those that are wanted."""
    gone = {cidr: via for cidr, via in known.items() if wanted.get(cidr) != via}
    new = {cidr: via for cidr, via in wanted.items() if known.get(cidr) != via}
    return "".join(
        [
            *(datapath.forget_route(IPv4Network(c), v, agent.UNDERLAY) for c, v in gone.items()),
            *(datapath.route_via(IPv4Network(c), v, agent.UNDERLAY) for c, v in new.items()),
        ]
    )


@register("romana-etcd", images=("google_containers/etcd-amd64",))
async def etcd(program: Program) -> int:
    """Be Romana's etcd until stopped; its data stays on the host."""
    runner = await romana_store.serve(_ETCD, "0.0.0.0", 12379)
    program.log("etcdserver: ready to serve client requests")
    try:
        return await idle(program)
    finally:
        await runner.cleanup()


@register("romana-daemon", images=("romana/daemon",), agent=True)
async def daemon(program: Program) -> int:
    """Set the pods' network, and answer at the daemon's port until stopped."""
    body = {"cidr": str(network_of(program.argv))}
    while True:
        try:
            told = await romana_store.ask("PUT", f"{STORE}/network", body)
            break
        except romana_store.Unavailable as failed:
            program.log(f"ERROR: cannot reach etcd: {failed}")
            await program.host.sleep(5.0)
    program.log(f"INFO: network romana-network: {told['cidr']}")
    server = await asyncio.start_server(lambda _, w: w.close(), "0.0.0.0", DAEMON[1])
    async with server:
        return await idle(program)


@register("romana-agent", images=("romana/agent",), agent=True)
async def romana_agent(program: Program) -> int:
    """Be a node's agent until stopped."""
    host = program.host
    if others := foreign(agent.CNI_DIR):
        program.log(f"ERROR: other CNI configuration in {agent.CNI_DIR}: {', '.join(others)}")
        return 1
    await host.run("sh", "-e", input=_DEVICE)
    while not await _daemon_answers():
        program.log(f"INFO: waiting for romana-daemon at {DAEMON[0]}:{DAEMON[1]}")
        await host.sleep(5.0)
    agent.install(["romana"], "romana")
    agent.configure(_FILE, _CONFIG)
    program.log(f"INFO: installed CNI in {agent.CNI_DIR}/{_FILE}")
    async with policies_enforced(program, "romana"):
        await _follow_blocks(program)
    return 0


async def _follow_blocks(program: Program) -> None:
    """Keep the host's routes like the blocks that the store tells of, until cancelled."""
    host = program.host
    version, pool = -1, ""
    known: dict[str, str] = {}
    while True:
        try:
            told = await romana_store.ask("GET", f"{STORE}/blocks?after={version}")
        except romana_store.Unavailable as failed:
            program.log(f"WARN: etcd: {failed}")
            await host.sleep(5.0)
            continue
        if told["pool"] != pool:
            pool = told["pool"]
            table = datapath.masquerade("romana", IPv4Network(pool))
            await host.run("nft", "-f", "-", input=table)
        wanted = routes(told["blocks"], host.name)
        if script := change_script(known, wanted):
            result = await host.run("sh", "-e", check=False, input=script)
            if not result.ok:
                program.log(f"ERROR: routes: {result.tail(1)}")
        known, version = wanted, told["version"]


async def _daemon_answers() -> bool:
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(*DAEMON)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


register("romana-listener", images=("romana/listener",))(idle)
