"""The API server's command line: `python -m kitlib.lab.api`."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from kitlib.lab.api.auth import Auth
from kitlib.lab.api.controllers import Manager
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
    return parser.parse_args(argv)


def _network(text: str) -> ipaddress.IPv4Network | None:
    return ipaddress.IPv4Network(text) if text else None


def settings(args: argparse.Namespace) -> Settings:
    """Return the cluster's settings, with the keys read from the PKI directory."""
    version = args.kubernetes_version.removeprefix("v")
    pki: Path = args.pki_dir
    return Settings(
        minor=int(version.split(".")[1]),
        version=version,
        advertise=args.advertise,
        port=int(args.bind.rpartition(":")[2]),
        service_cidr=args.service_cidr,
        pod_cidr=args.pod_cidr,
        time_factor=args.time_factor,
        ca_pem=(pki / "ca.crt").read_text(),
        ca_key_pem=(pki / "ca.key").read_text(),
        sa_key_pem=(pki / "sa.key").read_text(),
        sa_public_pem=(pki / "sa.pub").read_text(),
        kubelet_port=args.kubelet_port,
    )


def tls(pki: Path) -> ssl.SSLContext:
    """Return a server context that asks for client certificates of the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def serve(args: argparse.Namespace) -> None:
    """Run the server and the controllers until SIGTERM or SIGINT."""
    store = Store(args.data_dir)
    registry = Registry(store, settings(args))
    authority = Auth(registry)
    manager = Manager(registry, authority)
    runner = web.AppRunner(
        Server(registry, authority, args.pki_dir).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.2,
    )
    await runner.setup()
    host, _, port = args.bind.rpartition(":")
    site = web.TCPSite(runner, host, int(port), ssl_context=tls(args.pki_dir), reuse_address=True)
    await site.start()
    manager.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stop.wait()
    await manager.stop()
    await runner.cleanup()
    store.close()


def main() -> None:
    """Run the command."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    asyncio.run(serve(arguments()))


if __name__ == "__main__":
    main()
