"""httpd for containers, as BusyBox has it: `httpd -f -p [ADDRESS:]PORT -h DIR`.

Unlike BusyBox it keeps a connection for further requests, so that these can be measured alone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

from kitlib.lab.applets.options import WrongUsage, parse

__all__ = ["main", "serve"]

_TYPES = {"html": "text/html", "htm": "text/html", "txt": "text/plain", "json": "application/json"}
_LARGEST_HEAD = 16_384


def main(argv: list[str]) -> int:
    """Serve a directory's files until ended; return 1 for a wrong usage or a taken port."""
    try:
        flags, _ = parse(argv, {"-p": "port", "-h": "home"}, {"-f": "foreground", "-v": "verbose"})
        given = dict(flags)
        address, _, port = given.get("port", "80").rpartition(":")
        sock = socket.create_server((address, int(port)), backlog=128)
        home = os.path.realpath(given.get("home", "."))
    except WrongUsage as wrong:
        sys.stderr.write(f"httpd: invalid option -- '{str(wrong).lstrip('-')}'\n")
        return 1
    except ValueError:
        sys.stderr.write(f"httpd: invalid number '{given['port']}'\n")
        return 1
    except OSError as failed:
        sys.stderr.write(f"httpd: bind: {os.strerror(failed.errno or 0)}\n")
        return 1
    if "foreground" not in given and os.fork():
        return 0
    serve(sock, home)
    return 0


def serve(sock: socket.socket, home: str) -> None:
    """Answer every connection of a listening socket, each in a thread, until it is closed."""
    while True:
        try:
            stream, _ = sock.accept()
        except OSError:
            return
        threading.Thread(target=_connection, args=(stream, home), daemon=True).start()


def _connection(stream: socket.socket, home: str) -> None:
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(60.0)
        got = b""
        while True:
            while b"\r\n\r\n" not in got:
                data = stream.recv(65_536)
                if not data or len(got) > _LARGEST_HEAD:
                    return
                got += data
            head, _, got = got.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            words = lines[0].split()
            wishes = [line.lower().replace(" ", "") for line in lines[1:]]
            old = len(words) < 3 or words[2] == "HTTP/1.0"
            close = "connection:close" in wishes or (old and "connection:keep-alive" not in wishes)
            stream.sendall(_answer(words, home, close))
            if close:
                return
    except OSError:
        pass  # the caller went away
    finally:
        stream.close()


def _answer(words: list[str], home: str, close: bool) -> bytes:
    status, kind, body = "200 OK", "text/html", b""
    if not words or words[0] not in ("GET", "HEAD"):
        status, body = "501 Not Implemented", b"The requested method is not recognized\n"
    else:
        path = words[1].split("?")[0] if len(words) > 1 else "/"
        file = os.path.realpath(f"{home}/{path}")
        file = f"{file}/index.html" if os.path.isdir(file) else file  # noqa: PTH112 - as below
        kind = _TYPES.get(file.rpartition(".")[2], "application/octet-stream")
        try:
            if not f"{file}/".startswith(f"{home}/"):
                raise FileNotFoundError
            with open(file, "rb") as opened:  # noqa: PTH123 - pathlib is too slow to import here
                body = opened.read()
        except OSError:
            status, kind, body = "404 Not Found", "text/html", b"The requested URL was not found\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
    ).encode()
    return head if words[:1] == ["HEAD"] else head + body
