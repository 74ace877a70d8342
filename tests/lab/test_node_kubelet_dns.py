"""The lab's CoreDNS: its messages, its zone, and nslookup against it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from kitlib.lab.applets import nslookup, wire
from kitlib.lab.node import dns

DOMAIN = "cluster.local"


def _service(name: str, address: str, *ports: dict[str, Any]) -> dict[str, Any]:
    spec = {"clusterIP": address, "ports": list(ports)}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


ZONE = dns.Zone.of(
    DOMAIN,
    [
        _service("p2", "10.97.135.198", {"name": "http", "port": 80, "protocol": "TCP"}),
        _service("db", "None", {"name": "sql", "port": 5432}),
    ],
    {
        "default/db": {
            "subsets": [
                {
                    "addresses": [{"ip": "10.244.1.5"}, {"ip": "10.244.2.6", "hostname": "db-1"}],
                    "ports": [{"name": "sql", "port": 5432}],
                }
            ]
        }
    },
    ["default", "kube-system"],
)


def _ask(name: str, kind: int) -> tuple[int, list[str]]:
    question = dns.decode(wire.query(name, kind, 77))
    code, answers = ZONE.look_up(question)
    message = dns.encode(question, code, answers)
    assert message[:2] == b"\0M"
    again, read = wire.read_answers(message)
    assert again == code
    return code, [value for *_, value in read]


@pytest.mark.parametrize(
    ("name", "kind", "code", "values"),
    [
        ("p2.default.svc.cluster.local", wire.A, wire.NOERROR, ["10.97.135.198"]),
        ("P2.Default.svc.cluster.local.", wire.A, wire.NOERROR, ["10.97.135.198"]),
        ("p2.default.svc.cluster.local", wire.AAAA, wire.NOERROR, []),
        ("db.default.svc.cluster.local", wire.A, wire.NOERROR, ["10.244.1.5", "10.244.2.6"]),
        ("db-1.db.default.svc.cluster.local", wire.A, wire.NOERROR, ["10.244.2.6"]),
        ("10-244-1-5.db.default.svc.cluster.local", wire.A, wire.NOERROR, ["10.244.1.5"]),
        ("10-244-9-9.default.pod.cluster.local", wire.A, wire.NOERROR, ["10.244.9.9"]),
        ("10-244-9-9.nowhere.pod.cluster.local", wire.A, wire.NXDOMAIN, []),
        ("nosuch.default.svc.cluster.local", wire.A, wire.NXDOMAIN, []),
        ("svc.cluster.local", wire.A, wire.NOERROR, []),
        ("default.svc.cluster.local", wire.A, wire.NOERROR, []),
        (
            "_http._tcp.p2.default.svc.cluster.local",
            wire.SRV,
            wire.NOERROR,
            ["0 100 80 p2.default.svc.cluster.local"],
        ),
        ("198.135.97.10.in-addr.arpa", wire.PTR, wire.NOERROR, ["p2.default.svc.cluster.local"]),
        ("9.9.9.9.in-addr.arpa", wire.PTR, wire.NXDOMAIN, []),
        ("example.org", wire.A, wire.SERVFAIL, []),
        ("kubernetes.io", wire.A, wire.NOERROR, ["192.0.2.80"]),
        ("kubernetes.io", wire.AAAA, wire.NOERROR, []),
    ],
)
def test_answers(name: str, kind: int, code: int, values: list[str]) -> None:
    assert _ask(name, kind) == (code, values)


def test_a_long_answer_over_udp_is_truncated() -> None:
    question = dns.decode(wire.query("many.default.svc.cluster.local", wire.A))
    answers = [dns.Answer(question.name, wire.A, f"10.244.0.{n}") for n in range(60)]
    message = dns.encode(question, wire.NOERROR, answers, 512)
    assert message[2] & 0x02
    assert len(message) <= 512
    assert len(wire.read_answers(dns.encode(question, wire.NOERROR, answers))[1]) == 60


@pytest.mark.parametrize("junk", [b"", b"\0" * 11, b"\0" * 12, b"\0\1\x80\0\0\1" + b"\0" * 12])
def test_junk_is_no_question(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not a DNS query"):
        dns.decode(junk)


def test_nslookup_prints_what_busybox_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(
        "search default.svc.cluster.local svc.cluster.local cluster.local\n"
        "nameserver 127.0.0.1\noptions ndots:5\n"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

        def answer() -> None:
            while True:
                message, sender = server.recvfrom(4096)
                if message == b"stop":
                    return
                question = dns.decode(message)
                code, answers = ZONE.look_up(question)
                server.sendto(dns.encode(question, code, answers), sender)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert nslookup.main(["p2"], resolv, port) == 0
            assert nslookup.main(["nosuch.default"], resolv, port) == 1
        finally:
            server.sendto(b"stop", ("127.0.0.1", port))
            thread.join()
    out = capsys.readouterr().out
    assert "Name:\tp2.default.svc.cluster.local\nAddress: 10.97.135.198\n" in out
    assert "** server can't find nosuch.default: NXDOMAIN" in out
