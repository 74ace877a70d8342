"""CoreDNS: a small real DNS server that answers the cluster's names from the API.

Answers A, SRV and PTR for Services and pods under the cluster domain, as CoreDNS's kubernetes
plugin does. A lab has no resolver to forward to: one name outside has an address made up, from the
range for documentation, and all others get SERVFAIL.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import cast

from kitlib.lab.applets.wire import (
    ANY,
    NOERROR,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    SRV,
    A,
    pack_name,
    read_name,
)
from kitlib.lab.node import netns
from kitlib.lab.node.images import Program, register
from kitlib.lab.node.kubelet_client import Informer, Obj

__all__ = ["OUTSIDE", "Answer", "Question", "Zone", "decode", "encode"]

_TTL = 30
OUTSIDE = {"kubernetes.io": "192.0.2.80"}
"""The names outside the cluster that a lab knows, and the addresses that it makes up for them."""
_Respond = Callable[[bytes, int], bytes]


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the message's id, the name in lower case without the last dot, the type."""

    id: int
    name: str
    type: int
    recursion: bool = True
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """One record: name, type, and the value as text (`0 100 53 target` for SRV)."""

    name: str
    type: int
    value: str


@dataclass(frozen=True, slots=True)
class Zone:
    """The names of one cluster.

    Attributes:
        domain: The cluster domain.
        a: Name -> addresses.
        srv: Name -> `priority weight port target`.
        ptr: `d.c.b.a.in-addr.arpa` -> name.
        nodes: Names that exist without a record of their own (`svc.cluster.local`).
        namespaces: For pod names, `1-2-3-4.<namespace>.pod.<domain>`.
    """

    domain: str
    a: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    srv: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ptr: Mapping[str, str] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        domain: str,
        services: Iterable[Obj],
        endpoints: Mapping[str, Obj],
        namespaces: Iterable[str],
    ) -> Zone:
        """Return the zone of a cluster as its Services and Endpoints make it."""
        a: dict[str, tuple[str, ...]] = {}
        srv: dict[str, tuple[str, ...]] = {}
        ptr: dict[str, str] = {}
        for service in services:
            meta, spec = service["metadata"], service["spec"]
            base = f"{meta['name']}.{meta['namespace']}.svc.{domain}"
            address = spec.get("clusterIP", "")
            if address and address != "None":
                a[base] = (address,)
                ptr[_reverse(address)] = base
                for port in spec.get("ports") or []:
                    if port.get("name"):
                        name = f"_{port['name']}._{port.get('protocol', 'TCP').lower()}.{base}"
                        srv[name] = (f"0 100 {port['port']} {base}",)
                continue
            key = f"{meta['namespace']}/{meta['name']}"
            for subset in endpoints.get(key, {}).get("subsets") or []:
                for item in subset.get("addresses") or []:
                    host = f"{item.get('hostname') or item['ip'].replace('.', '-')}.{base}"
                    a[base] = (*a.get(base, ()), item["ip"])
                    a[host] = (item["ip"],)
                    ptr[_reverse(item["ip"])] = host
                    for port in subset.get("ports") or []:
                        if port.get("name"):
                            proto = port.get("protocol", "TCP").lower()
                            name = f"_{port['name']}._{proto}.{base}"
                            srv[name] = (*srv.get(name, ()), f"0 100 {port['port']} {host}")
        return cls(domain, a, srv, ptr, _parents([*a, *srv], domain), frozenset(namespaces))

    def look_up(self, question: Question) -> tuple[int, list[Answer]]:
        """Return the response code and the records for a question."""
        name, kind = question.name, question.type
        if name in self.ptr:
            wanted = [Answer(name, PTR, self.ptr[name])] if kind in (PTR, ANY) else []
            return NOERROR, wanted
        if name in OUTSIDE:
            return NOERROR, [Answer(name, A, OUTSIDE[name])] if kind in (A, ANY) else []
        if name != self.domain and not name.endswith(f".{self.domain}"):
            return (NXDOMAIN if name.endswith(".in-addr.arpa") else SERVFAIL), []
        addresses = self.a.get(name) or self._pod(name)
        answers = [Answer(name, A, item) for item in addresses] if kind in (A, ANY) else []
        if kind in (SRV, ANY):
            answers += [Answer(name, SRV, item) for item in self.srv.get(name, ())]
        exists = bool(addresses) or name in self.srv or name in self.nodes
        return (NOERROR if exists else NXDOMAIN), answers

    def _pod(self, name: str) -> tuple[str, ...]:
        labels = name.removesuffix(f".{self.domain}").split(".")
        if len(labels) != 3 or labels[2] != "pod" or labels[1] not in self.namespaces:
            return ()
        try:
            return (str(IPv4Address(labels[0].replace("-", "."))),)
        except ValueError:
            return ()


def decode(message: bytes) -> Question:
    """Return the question of a DNS query.

    Raises:
        ValueError: The message is not one query with one question.
    """
    try:
        ident, flags, count = struct.unpack_from("!HHH", message)
        name, position = read_name(message, 12)
        kind, _ = struct.unpack_from("!HH", message, position)
    except (struct.error, IndexError, UnicodeDecodeError) as wrong:
        raise ValueError(f"not a DNS query: {wrong}") from wrong
    if flags & 0x8000 or count != 1:
        raise ValueError("not a DNS query with one question")
    raw = message[12 : position + 4]
    return Question(ident, name.lower(), kind, bool(flags & 0x0100), raw)


def encode(question: Question, code: int, answers: Iterable[Answer], limit: int = 65_535) -> bytes:
    """Return the response to a question; longer than `limit` it is cut and marked truncated."""
    records = [_record(item) for item in answers]
    flags = 0x8400 | (0x0100 if question.recursion else 0) | 0x0080 | code
    body = b"".join(records)
    if 12 + len(question.raw) + len(body) > limit:
        flags, records, body = flags | 0x0200, [], b""
    head = struct.pack("!HHHHHH", question.id, flags, 1, len(records), 0, 0)
    return head + question.raw + body


@register("coredns")
async def run(program: Program) -> int:
    """Answer the cluster's names on port 53 (UDP and TCP) of the pod until stopped."""
    client = await program.connect()
    informers = [
        Informer(client, f"/api/v1/{kind}") for kind in ("services", "endpoints", "namespaces")
    ]
    watches = [asyncio.create_task(item.run()) for item in informers]
    services, endpoints, namespaces = informers
    domain = "cluster.local"

    def respond(message: bytes, limit: int) -> bytes:
        try:
            question = decode(message)
        except ValueError:
            return message[:2] + b"\x84\x01" + bytes(8)
        zone = Zone.of(domain, services.objects.values(), endpoints.objects, namespaces.objects)
        code, answers = zone.look_up(question)
        if "dns-broken" in program.host.faults:
            code, answers = SERVFAIL, []
        return encode(question, code, answers, limit)

    try:
        for item in informers:
            await item.synced.wait()
        loop = asyncio.get_running_loop()
        name = program.sandbox.netns
        udp = netns.listen(name, socket.SOCK_DGRAM, 53)
        tcp = netns.listen(name, socket.SOCK_STREAM, 53)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(respond), sock=udp)
        server = await asyncio.start_server(lambda r, w: _tcp(respond, r, w), sock=tcp)
        program.log(".:53")
        program.log(f"CoreDNS-{program.spec['image'].rsplit(':', 1)[-1].lstrip('v')}")
        try:
            await asyncio.Event().wait()
        finally:
            transport.close()
            server.close()
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    return 0


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, respond: _Respond) -> None:
        self._respond = respond
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and len(data) >= 12:
            self._transport.sendto(self._respond(data, 512), addr)


async def _tcp(
    respond: _Respond, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            response = respond(await reader.readexactly(length), 65_535)
            writer.write(struct.pack("!H", len(response)) + response)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass  # the asker has what it wanted, or went away
    finally:
        writer.close()


def _record(answer: Answer) -> bytes:
    if answer.type == A:
        data = IPv4Address(answer.value).packed
    elif answer.type == SRV:
        priority, weight, port, target = answer.value.split()
        data = struct.pack("!HHH", int(priority), int(weight), int(port)) + pack_name(target)
    else:
        data = pack_name(answer.value)
    return pack_name(answer.name) + struct.pack("!HHIH", answer.type, 1, _TTL, len(data)) + data


def _reverse(address: str) -> str:
    return IPv4Address(address).reverse_pointer


def _parents(names: Iterable[str], domain: str) -> frozenset[str]:
    found = {domain, f"svc.{domain}", f"pod.{domain}"}
    for name in names:
        parent = name
        while parent.endswith(f".{domain}"):
            parent = parent.split(".", 1)[1]
            found.add(parent)
    return frozenset(found)
