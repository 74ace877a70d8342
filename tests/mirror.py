"""A mirror of the package repositories for tests: it has nothing but a key of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["MIRROR", "key_server"]

MIRROR = "AB47E5ED9150E2EBF54EAA424A7325485C862BCE"
"""The fingerprint of its key, as gpg shows it."""
KEY = Path(__file__).parent / "data/software/mirror.asc"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def key_server(folder: Path, line: str) -> Iterator[str]:
    """Serve the key of one repository (`v1.34`) on loopback, and yield the mirror's address."""
    where = folder / f"core:/stable:/{line}/deb"
    where.mkdir(parents=True)
    (where / "Release.key").write_bytes(KEY.read_bytes())
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
