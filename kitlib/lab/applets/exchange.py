"""One HTTP request and its answer over a socket, with the moments that curl tells of."""

from __future__ import annotations

import socket
import time

__all__ = ["Connection", "NoHttp", "Url", "split"]


class NoHttp(Exception):
    """The answer is none: empty, cut off, or not HTTP."""


class Url:
    """Host, port, path and user-visible text of an http URL."""

    def __init__(self, text: str, host: str, port: int, path: str) -> None:
        self.text, self.host, self.port, self.path = text, host, port, path


def split(text: str) -> Url:
    """Return the parts of an http URL; without a scheme it is http.

    Raises:
        ValueError: Another scheme, or a port that is no number.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme.lower() != "http":
        raise ValueError(scheme.lower())
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.partition(":")
    return Url(text, host, int(port) if colon else 80, slash + path or "/")


class Connection:
    """A TCP connection to a web server.

    Attributes:
        connected: When it stood, by the monotonic clock.
        first_byte: When the first byte of the last answer came.
    """

    def __init__(self, address: str, port: int, timeout: float | None) -> None:
        """Connect.

        Raises:
            OSError: Refused, no route, or not in time.
        """
        self.sock = socket.create_connection((address, port), timeout)
        self.connected = time.monotonic()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.first_byte = 0.0
        self.open = True
        self._rest = b""

    def close(self) -> None:
        """Close it."""
        self.open = False
        self.sock.close()

    def request(
        self, method: str, url: Url, headers: list[str], deadline: float | None
    ) -> tuple[int, str, bytes]:
        """Return the status, the head as it came, and the body of the answer to a request.

        Raises:
            NoHttp: There was no answer, or none of HTTP.
            OSError: The connection broke, or the deadline (monotonic clock) passed.
        """
        port = "" if url.port == 80 else f":{url.port}"
        lines = [f"{method} {url.path} HTTP/1.1", f"Host: {url.host}{port}", *headers]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.first_byte = 0.0
        head = self._until(b"\r\n\r\n", deadline)
        first, *fields = head.decode("latin-1").split("\r\n")
        words = first.split(None, 2)
        if not words[:1] or not words[0].startswith("HTTP/") or not words[1:2]:
            raise NoHttp("Received HTTP/0.9 when not allowed")
        said = {}
        for line in fields:
            name, _, value = line.partition(":")
            said[name.strip().lower()] = value.strip()
        status = int(words[1])
        asked = any(header.lower() == "connection: close" for header in headers)
        keep = said.get("connection", "").lower() != "close" and words[0] != "HTTP/1.0"
        keep = keep and not asked
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif said.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks(deadline)
        elif "content-length" in said:
            body = self._exactly(int(said["content-length"]), deadline)
        else:
            body, keep = self._all(deadline), False
        if not keep:
            self.close()
        return status, head.decode("latin-1"), body

    def _more(self, deadline: float | None) -> bool:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
        data = self.sock.recv(65_536)
        if data and not self.first_byte:
            self.first_byte = time.monotonic()
        self._rest += data
        return bool(data)

    def _until(self, end: bytes, deadline: float | None) -> bytes:
        while end not in self._rest:
            if not self._more(deadline):
                raise NoHttp("Empty reply from server")
        found, _, self._rest = self._rest.partition(end)
        return found

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        while len(self._rest) < count:
            if not self._more(deadline):
                raise NoHttp("transfer closed with outstanding read data remaining")
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def _all(self, deadline: float | None) -> bytes:
        while self._more(deadline):
            pass
        found, self._rest = self._rest, b""
        return found

    def _chunks(self, deadline: float | None) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n", deadline).split(b";")[0], 16):
            body += self._exactly(size, deadline)
            self._until(b"\r\n", deadline)
        while self._until(b"\r\n", deadline):
            pass
        return body
