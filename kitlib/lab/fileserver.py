"""A small HTTP server for the lab's plugin manifests: GET and HEAD of `/<plugin>.yaml`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from pathlib import Path

__all__ = ["MANIFESTS", "respond", "serve_connection"]

MANIFESTS = Path(__file__).with_name("manifests")
"""The directory of the lab's manifests, one `<plugin>.yaml` a plugin."""

_TARGET = re.compile(r"/([a-z0-9][-a-z0-9]*\.yaml)")
_log = logging.getLogger(__name__)


def respond(method: str, target: str, directory: Path = MANIFESTS) -> bytes:
    """Return the whole HTTP/1.1 answer to one request."""
    matched = _TARGET.fullmatch(target.partition("?")[0])
    file = directory / matched[1] if matched else None
    if method not in ("GET", "HEAD"):
        status, kind, body = "405 Method Not Allowed", "text/plain", b"only GET and HEAD\n"
    elif file is not None and file.is_file():
        status, kind, body = "200 OK", "application/yaml", file.read_bytes()
    else:
        there = "".join(f"/{entry.name}\n" for entry in sorted(directory.glob("*.yaml")))
        status, kind, body = "404 Not Found", "text/plain", f"not here; here are:\n{there}".encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request on one connection."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode(errors="replace").split()
        if len(words) == 3:
            _log.info("manifests: %s %s", words[0], words[1])
            writer.write(respond(words[0], words[1]))
            await writer.drain()
    writer.close()
