"""nc for containers, as OpenBSD's: `-z` knocks at a port, `-l` takes a caller, else a pipe."""

from __future__ import annotations

import os
import select
import socket
import sys

from kitlib.lab.applets import wire
from kitlib.lab.applets.options import WrongUsage, parse

__all__ = ["main"]

_TAKES = {"-w": "wait", "-p": "port", "-q": "quit", "-s": "source"}
_SWITCHES = {"-z": "zero", "-v": "verbose", "-n": "numeric", "-u": "udp", "-l": "listen"}
_SWITCHES |= {"-k": "keep", "-N": "shutdown", "-4": "ipv4"}


def main(argv: list[str]) -> int:
    """Connect or listen; return 0 when there was a connection, 1 when not."""
    try:
        flags, words = parse(argv, _TAKES, _SWITCHES)
    except WrongUsage as wrong:
        sys.stderr.write(f"nc: invalid option -- '{str(wrong).lstrip('-')}'\n")
        return 1
    given = dict(flags)
    try:
        port = int(words.pop() if words else given["port"])
        host = words.pop() if words else ""
    except (KeyError, ValueError):
        sys.stderr.write("usage: nc [-klNnuvz] [-p port] [-w seconds] [host] [port]\n")
        return 1
    kind = socket.SOCK_DGRAM if "udp" in given else socket.SOCK_STREAM
    if "listen" in given:
        return _listen(host, port, kind, given)
    proto = "udp" if "udp" in given else "tcp"
    try:
        address = wire.resolve(host)
        sock = socket.socket(socket.AF_INET, kind)
        sock.settimeout(float(given["wait"]) if "wait" in given else None)
        sock.connect((address, port))
    except socket.gaierror as failed:
        sys.stderr.write(f'nc: getaddrinfo for host "{host}" port {port}: {failed.strerror}\n')
        return 1
    except OSError as failed:
        if "verbose" in given:
            late = isinstance(failed, TimeoutError)
            why = "Operation now in progress" if late else failed.strerror
            said = "timed out" if late else "failed"
            sys.stderr.write(f"nc: connect to {host} port {port} ({proto}) {said}: {why}\n")
        return 1
    if "verbose" in given:
        sys.stderr.write(f"Connection to {host} {port} port [{proto}/*] succeeded!\n")
    if "zero" not in given:
        _pipe(sock, given)
    return 0


def _listen(host: str, port: int, kind: socket.SocketKind, given: dict[str, str]) -> int:
    server = socket.socket(socket.AF_INET, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        if kind == socket.SOCK_DGRAM:
            first, caller = server.recvfrom(65_536)
            server.connect(caller)
            os.write(1, first)
            _pipe(server, given)
            return 0
        server.listen(8)
        while True:
            stream, _ = server.accept()
            _pipe(stream, given)
            if "keep" not in given:
                return 0
    except OSError as failed:
        sys.stderr.write(f"nc: {failed.strerror}\n")
        return 1


def _pipe(sock: socket.socket, given: dict[str, str]) -> None:
    """Carry standard input to the socket and the socket to standard output until it is closed."""
    idle = float(given["wait"]) if "wait" in given else None
    sock.settimeout(None)
    ends: list[int] = [sock.fileno(), 0]
    while True:
        ready, _, _ = select.select(ends, [], [], idle)
        if not ready:
            return
        if 0 in ready:
            data = os.read(0, 65_536)
            if data:
                sock.sendall(data)
            else:
                ends.remove(0)
                if "shutdown" in given:
                    sock.shutdown(socket.SHUT_WR)
        if sock.fileno() in ready:
            try:
                data = sock.recv(65_536)
            except OSError:
                return
            if not data:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
