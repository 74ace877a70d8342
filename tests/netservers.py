"""What answers at the server's end of `netkit`: `python netservers.py <which> <arguments>`.

It prints `up` once it answers, and runs until it is ended.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DNS_PORT = 53
NAMES = {
    b"web": (0, ["10.9.2.2"]),
    b"two": (0, ["10.9.2.2", "10.9.2.3"]),
    b"empty": (0, []),
    b"broken": (2, []),
    b"nosuch": (3, []),
    b"refused": (5, []),
}
"""First label -> response code and addresses; `garbage` gets half an answer, others none."""


def odd(address: str, how: str) -> None:
    """Answer ICMP echo requests to an address by a rule of its own, below the kernel's IP.

    Of each four packets `duplicate` answers one twice, `reorder` answers one after the next one
    was answered, `drop` does not answer one.
    """
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    wire.bind(("eth0", 0x0800))
    _up()
    held = b""
    while True:
        frame = wire.recv(65536)
        if frame[23] != 1 or frame[30:34] != socket.inet_aton(address) or frame[34] != 8:
            continue
        echo = bytearray(frame[34 : 14 + int.from_bytes(frame[16:18], "big")])
        odd_one = int.from_bytes(echo[6:8], "big") % 4 == 2
        echo[0:4] = bytes(4)
        echo[2:4] = struct.pack("!H", _checksum(bytes(echo)))
        swapped = frame[6:12] + frame[0:6] + frame[12:26] + frame[30:34] + frame[26:30]
        reply = swapped + bytes(echo)
        if odd_one and how == "reorder":
            held = reply
        elif not (odd_one and how == "drop"):
            for each in [reply, *([reply] if odd_one and how == "duplicate" else []), held]:
                if each:
                    wire.send(each)
            held = b""


def _up() -> None:
    sys.stdout.write("up\n")
    sys.stdout.flush()


def _checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Pages(BaseHTTPRequestHandler):
    """Says who it is at `/`, and keeps connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"worker-1\n" if self.path == "/" else b"no such page\n"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def http(address: str, port: str) -> None:
    """Serve `Pages`."""
    server = ThreadingHTTPServer((address, int(port)), Pages)
    _up()
    server.serve_forever()


def silent(address: str, port: str) -> None:
    """Take connections and say nothing."""
    kept = []
    server = socket.create_server((address, int(port)))
    _up()
    while True:
        kept.append(server.accept())


def dns(address: str) -> None:
    """Answer by NAMES, over UDP and TCP."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    udp = socketserver.ThreadingUDPServer((address, DNS_PORT), OverUdp)
    tcp = socketserver.ThreadingTCPServer((address, DNS_PORT), OverTcp)
    tcp.daemon_threads = True
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    _up()
    udp.serve_forever()


class OverUdp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, back = self.request
        if said := _answer(data):
            back.sendto(said, self.client_address)


class OverTcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while size := self.rfile.read(2):
            if said := _answer(self.rfile.read(int.from_bytes(size, "big"))):
                self.wfile.write(len(said).to_bytes(2, "big") + said)


def _answer(query: bytes) -> bytes:
    end = query.index(b"\0", 12) + 5
    question, name = query[12:end], query[13 : 13 + query[12]]
    if name == b"garbage":
        return query[:2] + struct.pack("!HHHHH", 0x8580, 1, 1, 0, 0) + question + b"\xc0\xff"
    if name not in NAMES:
        return b""
    code, found = NAMES[name]
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4)
    head = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(found), 0, 0)
    return head + question + b"".join(record + socket.inet_aton(each) for each in found)


if __name__ == "__main__":
    {"odd": odd, "http": http, "silent": silent, "dns": dns}[sys.argv[1]](*sys.argv[2:])
