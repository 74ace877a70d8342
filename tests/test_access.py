"""How the API is reached: which way is taken, and that the certificate counts on both."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apikit
import pytest
import yaml

from kitlib import access
from kitlib.access import Access
from kitlib.errors import ApiError


class Ways:
    """Which ways work, and which were tried."""

    def __init__(self, *working: str) -> None:
        self.working = set(working)
        self.tried: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.open_tunnels = 0

    def access(self, mode: str, **options: Any) -> Access:
        return Access(mode, note=lambda way, why: self.notes.append((way, why)), **options)

    @contextlib.contextmanager
    def forward(self, host: str, port: int) -> Iterator[int]:
        assert (host, port) == ("192.0.2.1", 6443)
        self.open_tunnels += 1
        try:
            yield 4711
        finally:
            self.open_tunnels -= 1

    def open(self, opener: Access) -> str:
        """Return the way that it took."""
        config = {"clusters": [{"cluster": {"server": "https://192.0.2.1:6443"}}]}
        kube, stack = opener.open(config, self.forward)
        with stack:
            return str(kube)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    made = Ways()

    class Fake:
        def __init__(self, config: dict, *, port: int, connect_timeout: float) -> None:
            self.way = "tunnel" if port else "direct"
            made.tried.append(self.way)

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __str__(self) -> str:
            return self.way

        def text(self, path: str) -> str:
            if self.way not in made.working:
                raise ApiError(f"no answer ({self.way})", remedy="look")
            return "ok"

    monkeypatch.setattr(access, "Kube", Fake)
    return made


def test_auto_takes_the_direct_way_where_it_works_and_keeps_to_it(ways):
    ways.working = {"direct", "tunnel"}
    opener = ways.access("auto", ssh_address="192.0.2.1")
    assert [ways.open(opener) for _ in range(3)] == ["direct"] * 3
    assert ways.tried == ["tunnel", "direct", "direct", "direct"]
    assert ways.notes == [("direct", "192.0.2.1:6443 answers")]
    assert ways.open_tunnels == 0


def test_auto_takes_the_tunnel_where_the_direct_way_fails_and_tries_that_once(ways):
    ways.working = {"tunnel"}
    opener = ways.access("auto", ssh_address="192.0.2.1")
    assert [ways.open(opener) for _ in range(3)] == ["tunnel"] * 3
    assert ways.tried == ["tunnel", "direct", "tunnel", "tunnel"]
    assert ways.notes == [("tunnel", "no answer (direct)")]
    assert ways.open_tunnels == 0


def test_auto_decides_nothing_while_the_api_is_down(ways):
    opener = ways.access("auto", ssh_address="192.0.2.1")
    for _ in range(2):
        with pytest.raises(ApiError, match="tunnel"):
            ways.open(opener)
    assert ways.notes == []
    assert ways.open_tunnels == 0
    ways.working = {"direct", "tunnel"}
    assert ways.open(opener) == "direct"


@pytest.mark.parametrize("known", ["direct", "tunnel"])
def test_what_the_run_found_before_is_tried_first(ways, known):
    ways.working = {"direct", "tunnel"}
    opener = ways.access("auto", ssh_address="192.0.2.1", known=known)
    assert ways.open(opener) == known
    assert ways.tried == [known]
    assert ways.notes == []
    ways.working = {"tunnel"}
    assert ways.open(opener) == "tunnel", "a way that broke is left"


def test_hosts_on_loopback_have_no_addresses_of_their_own_here(ways):
    ways.working = {"direct", "tunnel"}
    for address in ("127.0.0.1", "::1", "localhost"):
        ways.tried.clear()
        assert ways.open(ways.access("auto", ssh_address=address)) == "tunnel"
        assert ways.tried == ["tunnel"], "nobody else's address was tried"


def test_direct_and_tunnel_insist(ways):
    ways.working = {"tunnel"}
    with pytest.raises(ApiError) as caught:
        ways.open(ways.access("direct"))
    assert caught.value.remedy == "api_access: tunnel reaches it through SSH; look"
    assert ways.tried == ["direct"]
    ways.working, ways.tried = {"direct"}, []
    with pytest.raises(ApiError):
        ways.open(ways.access("tunnel"))
    assert ways.tried == ["tunnel"]


# --- With a real API and real certificates -----------------------------------------------------


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apikit.Api]:
    with apikit.running(tmp_path_factory.mktemp("api")) as api:
        yield api


@contextlib.contextmanager
def impostor(directory: Path) -> Iterator[int]:
    """Yield the port of a TLS server on loopback whose certificate is another CA's."""
    apikit.write_pki(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "apiserver.crt", directory / "apiserver.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_the_certificate_is_checked_on_both_ways(api, tmp_path):
    config = yaml.safe_load(api.kubeconfig().read_text())
    notes: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def forward(host: str, port: int) -> Iterator[int]:
        yield to

    def opened(mode: str) -> bool:
        opener = Access(mode, note=lambda way, why: notes.append((way, why)))
        kube, stack = opener.open(config, forward)
        with stack:
            return bool(kube.items("/api/v1/namespaces"))

    to = api.port
    assert opened("auto")
    assert notes.pop()[0] == "direct"
    with impostor(tmp_path / "pki") as false:
        server = config["clusters"][0]["cluster"]
        server["server"] = f"https://127.0.0.1:{false}"
        assert opened("auto"), "the impostor at the direct address is passed over"
        way, why = notes.pop()
        assert way == "tunnel"
        assert "certificate verify failed" in why
        with pytest.raises(ApiError, match="certificate verify failed"):
            opened("direct")
        to = false
        with pytest.raises(ApiError, match="certificate verify failed"):
            opened("tunnel")
