"""DNS messages and the resolver's settings, for the tools that ask and for the lab's CoreDNS."""

from __future__ import annotations

import os
import socket
import struct
import time

__all__ = [
    "AAAA",
    "ANY",
    "NOERROR",
    "NOTIMP",
    "NXDOMAIN",
    "PTR",
    "SERVFAIL",
    "SOA",
    "SRV",
    "TYPES",
    "A",
    "Settings",
    "ask",
    "candidates",
    "pack_name",
    "query",
    "read_answers",
    "read_name",
    "resolve",
    "settings",
]

A, PTR, AAAA, SRV, SOA, ANY = 1, 12, 28, 33, 6, 255
NOERROR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 2, 3, 4
TYPES = {"A": A, "PTR": PTR, "AAAA": AAAA, "SRV": SRV, "SOA": SOA, "ANY": ANY}
"""The record types by name."""


class Settings:
    """A resolv.conf: name servers, search domains, and the dots that make a name absolute."""

    def __init__(self) -> None:
        self.servers: list[str] = []
        self.search: list[str] = []
        self.ndots = 1


def settings(path: str | os.PathLike[str]) -> Settings:
    """Return what a resolv.conf says; this machine is asked where it names no server."""
    found = Settings()
    with open(path) as lines:  # noqa: PTH123 - pathlib is too slow to import here
        for line in lines:
            words = line.split()
            if words[:1] == ["nameserver"]:
                found.servers.append(words[1])
            elif words[:1] == ["search"]:
                found.search = words[1:]
            elif words[:1] == ["options"]:
                for word in words:
                    if word.startswith("ndots:"):
                        found.ndots = int(word[6:])
    found.servers = found.servers or ["127.0.0.1"]
    return found


def candidates(name: str, found: Settings) -> list[str]:
    """Return the names that are asked for, in order, as the C library tries them."""
    if name.endswith("."):
        return [name.rstrip(".")]
    longer = [f"{name}.{domain}" for domain in found.search]
    return [name, *longer] if name.count(".") >= found.ndots else [*longer, name]


def pack_name(name: str) -> bytes:
    """Return a name as it stands in messages."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def read_name(message: bytes, position: int) -> tuple[str, int]:
    """Return a name and the position behind it, following compression pointers."""
    labels: list[str] = []
    end = 0
    for _ in range(128):
        length = message[position]
        if length & 0xC0:
            end = end or position + 2
            position = ((length & 0x3F) << 8) | message[position + 1]
            continue
        position += 1
        if length == 0:
            return ".".join(labels), end or position
        labels.append(message[position : position + length].decode("ascii"))
        position += length
    raise ValueError("a name that does not end")


def query(name: str, kind: int, ident: int = 1) -> bytes:
    """Return a DNS query for a name."""
    head = struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0)
    return head + pack_name(name) + struct.pack("!HH", kind, 1)


def read_answers(message: bytes) -> tuple[int, list[tuple[str, int, int, str]]]:
    """Return the response code and the answers: name, type, time to live, value as text."""
    _, flags, _, count = struct.unpack_from("!HHHH", message)
    _, position = read_name(message, 12)
    position += 4
    answers = []
    for _ in range(count):
        name, position = read_name(message, position)
        kind, _, ttl, length = struct.unpack_from("!HHIH", message, position)
        position += 10
        if kind == A:
            value = socket.inet_ntop(socket.AF_INET, message[position : position + 4])
        elif kind == AAAA:
            value = socket.inet_ntop(socket.AF_INET6, message[position : position + 16])
        elif kind == SRV:
            priority, weight, port = struct.unpack_from("!HHH", message, position)
            value = f"{priority} {weight} {port} {read_name(message, position + 6)[0]}"
        else:
            value = read_name(message, position)[0]
        answers.append((name, kind, ttl, value))
        position += length
    return flags & 0xF, answers


def ask(
    server: str, message: bytes, *, port: int = 53, tcp: bool = False, timeout: float = 2.5
) -> tuple[bytes, float]:
    """Return a server's response to a query, sent once, and how many seconds after that it came.

    Raises:
        OSError: It is out of reach, refused, or did not answer in time (TimeoutError).
    """
    if tcp:
        with socket.create_connection((server, port), timeout) as stream:
            sent = time.monotonic()
            stream.sendall(struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", _exactly(stream, 2))
            return _exactly(stream, length), time.monotonic() - sent
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((server, port))
        sent = time.monotonic()
        sock.send(message)
        while (response := sock.recv(65_535))[:2] != message[:2]:
            pass
        return response, time.monotonic() - sent


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionResetError(104, "end of file")
        data += more
    return data


def resolve(host: str) -> str:
    """Return the IPv4 address of a host name or address, by hosts file and resolver.

    Raises:
        OSError: There is none.
    """
    return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
