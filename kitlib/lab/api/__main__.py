"""The API server's command line: `python -m kitlib.lab.api`."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from kitlib.lab.api import pki
from kitlib.lab.api.auth import Auth
from kitlib.lab.api.controllers import Manager
from kitlib.lab.api.controllers.services import publish_api
from kitlib.lab.api.members import Member
from kitlib.lab.api.registry import Registry
from kitlib.lab.api.server import Server
from kitlib.lab.api.settings import Settings
from kitlib.lab.api.store import Store

log = logging.getLogger("kitlib.lab.api")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="kitlib.lab.api", description=__doc__)
    parser.add_argument("--bind", required=True, help="ADDRESS:PORT to listen on")
    parser.add_argument("--advertise", required=True, help="address of the `kubernetes` service")
    parser.add_argument("--pki-dir", required=True, type=Path)
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--kubernetes-version", required=True, help="for example 1.22.3")
    parser.add_argument("--service-cidr", default="10.96.0.0/12", type=ipaddress.IPv4Network)
    parser.add_argument("--pod-cidr", default=None, type=_network)
    parser.add_argument("--time-factor", default=0.2, type=float)
    parser.add_argument("--kubelet-port", default=10250, type=int)
    parser.add_argument("--member", default="", help="its name in the emulated etcd")
    parser.add_argument("--initial-cluster", default="", help="NAME=ADDRESS,...: every member")
    parser.add_argument("--faults", default=None, type=Path, help="file that names lab faults")
    return parser.parse_args(argv)


def _network(text: str) -> ipaddress.IPv4Network | None:
    return ipaddress.IPv4Network(text) if text else None


def settings(args: argparse.Namespace) -> Settings:
    """Return the cluster's settings, with the keys read from the PKI directory."""
    version = args.kubernetes_version.removeprefix("v")
    folder: Path = args.pki_dir
    return Settings(
        minor=int(version.split(".")[1]),
        version=version,
        advertise=args.advertise,
        port=int(args.bind.rpartition(":")[2]),
        service_cidr=args.service_cidr,
        pod_cidr=args.pod_cidr,
        time_factor=args.time_factor,
        ca_pem=(folder / "ca.crt").read_text(),
        ca_key_pem=(folder / "ca.key").read_text(),
        sa_key_pem=(folder / "sa.key").read_text(),
        sa_public_pem=(folder / "sa.pub").read_text(),
        kubelet_port=args.kubelet_port,
    )


def tls(folder: Path) -> ssl.SSLContext:
    """Return a server context that asks for client certificates of the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def serve(args: argparse.Namespace) -> None:
    """Run the member of the emulated etcd that this is, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if not args.member:
        await lead(args, None, stop)
        return
    initial = dict(pair.partition("=")[::2] for pair in args.initial_cluster.split(","))
    port = int(args.bind.rpartition(":")[2])
    member = Member(args.member, args.advertise, initial, args.data_dir, port)
    await member.open()
    while not stop.is_set():
        leads = lambda: 3.0 if member.leader == member.name else 0.0  # noqa: E731
        await _unless(stop, _turn(args, member, stop), leads)
    await member.close()


async def _turn(args: argparse.Namespace, member: Member, stop: asyncio.Event) -> None:
    """Lead, or follow who leads, until that is over."""
    leader = await member.decide()
    log.info("%s: %s leads", member.name, leader)
    if leader == member.name:
        await lead(args, member, stop)
    else:
        await member.follow(leader)


async def _unless(
    stop: asyncio.Event, work: Coroutine[Any, Any, None], patience: Callable[[], float]
) -> None:
    """Do the work to its end, or until it is time to stop; it may take its time to end then."""
    task = asyncio.ensure_future(work)
    ended = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await asyncio.wait({task}, timeout=patience())
    for each in (task, ended):
        each.cancel()
    for result in await asyncio.gather(task, ended, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def lead(args: argparse.Namespace, member: Member | None, stop: asyncio.Event) -> None:
    """Serve the API and run the controllers, until it is time to stop or the lead is lost."""
    store = Store(args.data_dir)
    if member is not None and not await member.lead(store):
        await member.step_down()
        store.close()
        return
    if member is not None and not member.alone:
        store.leap()
    registry = Registry(store, settings(args))
    authority = Auth(registry)
    manager = Manager(registry, authority)
    context = tls(args.pki_dir)
    runner = web.AppRunner(
        Server(registry, authority, args.pki_dir).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.2,
    )
    await runner.setup()
    host, _, port = args.bind.rpartition(":")
    site = web.TCPSite(runner, host, int(port), ssl_context=context, reuse_address=True)

    def membership_changed() -> None:
        """Answer in the name of every control plane, and list them all as API servers."""
        if member is not None and not member.alone:
            _speak_for(context, args.pki_dir, member.addresses)
            registry.settings.planes[:] = sorted(member.addresses.values())
            publish_api(registry)

    manager.start()
    membership_changed()
    await site.start()
    faults = asyncio.create_task(manager.follow_faults(args.faults)) if args.faults else None
    if member is not None:
        member.changed = membership_changed
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait())]
    waits += [asyncio.ensure_future(member.lost())] if member is not None else []
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in (*waits, *((faults,) if faults is not None else ())):
        task.cancel()
    await manager.stop()
    await runner.cleanup()
    if member is not None:
        member.changed = lambda: None
        await member.step_down()
    store.close()


def _speak_for(context: ssl.SSLContext, pki_dir: Path, members: dict[str, str]) -> None:
    """Have new connections shown a certificate that is good for every member.

    The others pass connections on to this one, byte for byte, so that it answers for them.
    """
    authority = pki.KeyPair((pki_dir / "ca.crt").read_text(), (pki_dir / "ca.key").read_text())
    own = (pki_dir / "apiserver.crt").read_text()
    pair = pki.reissue(authority, own, [*members, *members.values()])
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pair.cert_pem + pair.key_pem)
        file.flush()
        context.load_cert_chain(file.name)


def main() -> None:
    """Run the command."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    asyncio.run(serve(arguments()))


if __name__ == "__main__":
    main()
