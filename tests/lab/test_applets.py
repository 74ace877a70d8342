"""The lab's own network tools: what they print, and that they really ask, as separate programs."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitlib.lab.applets import httpd
from kitlib.lab.node import dns, image_tools

REPOSITORY = Path(__file__).parents[2]
NAME = "p2.default.svc.cluster.local"
TIMES = "%{time_connect} %{time_starttransfer} %{time_total} %{num_connects} %{http_code}"


def tool(name: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Return what one of the lab's tools did, started as in a container."""
    start = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r});"
    start += f"from kitlib.lab.applets.{name} import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-SE", "-c", start, *argv],
        capture_output=True,
        text=True,
        check=False,
        input=stdin,
        timeout=60,
    )


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running httpd of the lab's, as address:port, with one page."""
    home = tmp_path_factory.mktemp("www")
    (home / "index.html").write_text("worker-1\n")
    (home.parent / "secret").write_text("no page")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        threading.Thread(target=httpd.serve, args=(sock, str(home)), daemon=True).start()
        yield f"127.0.0.1:{sock.getsockname()[1]}"
        sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def closed() -> str:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The port of a DNS server over UDP and TCP that knows one name, with many addresses."""
    zone = dns.Zone("cluster.local", a={NAME: tuple(f"10.96.1.{n}" for n in range(40))})

    def respond(message: bytes, limit: int) -> bytes:
        question = dns.decode(message)
        return dns.encode(question, *zone.look_up(question), limit)

    def over_udp() -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                message, sender = udp.recvfrom(4096)
                udp.sendto(respond(message, 512), sender)

    def over_tcp() -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = tcp.accept()
                with stream:
                    answer = respond(stream.recv(4096)[2:], 65_535)
                    stream.sendall(struct.pack("!H", len(answer)) + answer)

    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        for serve in (over_udp, over_tcp):
            threading.Thread(target=serve, daemon=True).start()
        yield str(port)
        for sock in (tcp, udp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def test_curl_keeps_its_connection_for_the_next_url(web: str) -> None:
    url = f"http://{web}/"
    got = tool("curl", "-sS", "-o", "/dev/null", "-w", TIMES + "\\n", "-o", "/dev/null", url, url)
    assert (got.returncode, got.stderr) == (0, "")
    first, second = ([float(word) for word in line.split()] for line in got.stdout.splitlines())
    connect, first_byte, total, connections, status = first
    assert 0 < connect < first_byte <= total
    assert (connections, status) == (1, 200)
    assert second[3:] == [0, 200]
    assert second[2] > 0


def test_curl_gives_the_page_and_its_reasons(web: str, closed: str) -> None:
    assert tool("curl", "-s", web).stdout == "worker-1\n"
    assert "Content-Length: 9" in tool("curl", "-sI", web).stdout
    missing = tool("curl", "-sS", "-f", f"{web}/nosuch")
    assert (missing.returncode, missing.stdout) == (22, "")
    assert missing.stderr == "curl: (22) The requested URL returned error: 404\n"
    refused = tool("curl", "-sS", "-w", "%{exitcode} %{http_code}", f"127.0.0.1:{closed}")
    assert (refused.returncode, refused.stdout) == (7, "7 000")
    assert re.fullmatch(
        rf"curl: \(7\) Failed to connect to 127.0.0.1 port {closed} after \d+ ms: "
        "Couldn't connect to server\n",
        refused.stderr,
    )
    chatty = tool("curl", "-q", "-g", "-s", "--noproxy", "*", "-v", f"127.0.0.1:{closed}").stderr
    assert chatty == f"* connect to 127.0.0.1 port {closed} failed: Connection refused\n"
    unknown = tool("curl", "--nonsense", web)
    assert (unknown.returncode, unknown.stderr.split("\n")[0]) == (
        2,
        "curl: option --nonsense: is unknown",
    )


def test_curl_does_not_wait_longer_than_it_may() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        late = tool("curl", "-sS", "-m", "0.2", f"127.0.0.1:{port}")
    assert late.returncode == 28
    assert late.stderr.startswith("curl: (28) Operation timed out after 2")


def test_httpd_shows_its_own_directory_alone(web: str) -> None:
    host, port = web.split(":")
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall(b"GET /../secret HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = stream.recv(4096)
        assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"Connection: keep-alive\r\n" in answer
        stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert stream.makefile("rb").read().endswith(b"\r\n\r\nworker-1\n")
    taken = tool("httpd", "-f", "-p", web, "-h", "/")
    assert (taken.returncode, taken.stderr) == (1, "httpd: bind: Address already in use\n")


def test_wget_and_nc(web: str, closed: str) -> None:
    assert tool("wget", "-q", "-O", "-", "-T", "5", f"http://{web}/").stdout == "worker-1\n"
    refused = tool("wget", "-q", "-O", "-", f"http://127.0.0.1:{closed}/")
    assert refused.returncode == 1
    assert refused.stderr == (
        "wget: can't connect to remote host (127.0.0.1): Connection refused\n"
    )
    host, port = web.split(":")
    open_ = tool("nc", "-z", "-v", "-w", "1", host, port)
    assert (open_.returncode, open_.stderr) == (
        0,
        f"Connection to {host} {port} port [tcp/*] succeeded!\n",
    )
    shut = tool("nc", "-zv", "-w1", host, closed)
    assert (shut.returncode, shut.stderr) == (
        1,
        f"nc: connect to {host} port {closed} (tcp) failed: Connection refused\n",
    )
    request = "GET / HTTP/1.0\r\n\r\n"
    assert tool("nc", host, port, stdin=request).stdout.endswith("worker-1\n")


def test_dig_over_udp_and_tcp(server: str, closed: str) -> None:
    to = ("@127.0.0.1", "-p", server)
    asked = tool("dig", *to, "-u", "+tcp", "+time=2", "+tries=1", NAME, "A")
    assert asked.returncode == 0
    assert "status: NOERROR" in asked.stdout
    assert f"{NAME}.\t30\tIN\tA\t10.96.1.0\n" in asked.stdout
    assert re.search(r"^;; Query time: \d+ usec$", asked.stdout, re.M)
    assert f";; SERVER: 127.0.0.1#{server}(127.0.0.1) (TCP)\n" in asked.stdout
    cut = tool("dig", *to, "+noall", "+comments", "+stats", NAME)
    assert ";; Truncated, retrying in TCP mode.\n" in cut.stdout
    assert "(TCP)" in cut.stdout
    over_udp = tool("dig", *to, "+noall", "+comments", "+stats", f"nosuch.{NAME}")
    assert "status: NXDOMAIN" in over_udp.stdout
    assert "(UDP)" in over_udp.stdout
    assert len(tool("dig", *to, "+short", NAME).stdout.split()) == 40
    flags = ("-r", "-u", "+noall", "+comments", "+answer", "+stats", "+noedns", "+ignore")
    twice = tool("dig", *to, *flags, "+tries=1", "+time=2", f"{NAME}.", "A", f"x.{NAME}.", "A")
    assert re.findall(r"status: (\w+)", twice.stdout) == ["NOERROR", "NXDOMAIN"]
    assert twice.stdout.count(" usec\n") == 2
    nobody = tool("dig", "@127.0.0.1", "-p", closed, "+time=1", "+tries=1", "+tcp", NAME)
    assert nobody.returncode == 9
    assert nobody.stdout.endswith(
        f";; Connection to 127.0.0.1#{closed}(127.0.0.1) for {NAME} failed: connection refused.\n"
        ";; no servers could be reached\n"
    )


def test_an_images_tools_are_busyboxs_or_the_machines(tmp_path: Path) -> None:
    image_tools.prepare(tmp_path)
    busybox = {path.name for path in (tmp_path / "busybox").iterdir()}
    assert {"sh", "ping", "wget", "nslookup", "httpd", "cat"} <= busybox
    assert not {"curl", "dig", "iperf3", "fping", "python3"} & busybox
    launcher = (tmp_path / "any" / "httpd").readlink()
    assert launcher == tmp_path / "own" / "httpd"
    assert "which stands in" in launcher.read_text()
    ours = str(Path(image_tools.__file__).parents[3])  # it may lie where a pod does not look
    assert ours not in launcher.read_text()
    assert image_tools.search_path("docker.io/nicolaka/netshoot:v0.13").endswith(":/sbin:/bin")
