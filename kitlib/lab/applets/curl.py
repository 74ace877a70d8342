"""curl for containers, as curl 8 has it: plain HTTP, several URLs over one connection, `-w`."""

from __future__ import annotations

import os
import sys
import time

from kitlib.lab.applets import wire
from kitlib.lab.applets.exchange import Connection, NoHttp, Url, split
from kitlib.lab.applets.options import WrongUsage, parse

__all__ = ["main"]

_TAKES = {
    "-o": "output", "--output": "output", "-w": "write-out", "--write-out": "write-out",
    "-m": "max-time", "--max-time": "max-time", "--connect-timeout": "connect-timeout",
    "-H": "header", "--header": "header", "-X": "request", "--request": "request",
    "-A": "user-agent", "--user-agent": "user-agent", "--noproxy": "noproxy", "--url": "url",
}  # fmt: skip
_SWITCHES = {
    "-s": "silent", "--silent": "silent", "-S": "show-error", "--show-error": "show-error",
    "-f": "fail", "--fail": "fail", "-I": "head", "--head": "head", "-i": "include",
    "--include": "include", "-4": "ipv4", "--ipv4": "ipv4", "--http1.1": "http1.1",
    "-k": "insecure", "--insecure": "insecure", "-q": "disable", "-N": "no-buffer",
    "--no-buffer": "no-buffer", "-g": "globoff", "--globoff": "globoff", "--no-keepalive": "",
    "-v": "verbose", "--verbose": "verbose",
}  # fmt: skip
_UNRESOLVED, _REFUSED, _HTTP, _TIMEOUT, _EMPTY, _BROKEN = 6, 7, 22, 28, 52, 56


class _Transfer:
    """One URL's way: what `-w` can tell of it. Moments are seconds after `started`."""

    def __init__(self, url: str) -> None:
        self.started = time.monotonic()
        self.url = url
        self.exit = 0
        self.error = ""
        self.said: dict[str, str | int | float] = dict.fromkeys(
            ("time_namelookup", "time_connect", "time_appconnect", "time_pretransfer",
             "time_starttransfer", "time_redirect", "time_total"), 0.0
        )  # fmt: skip
        self.said |= dict.fromkeys(
            ("num_connects", "size_download", "local_port", "remote_port"), 0
        )
        self.said |= {"http_code": "000", "response_code": "000", "remote_ip": "", "local_ip": ""}
        self.said |= {"url": url, "url_effective": url, "scheme": "http", "http_version": "0"}
        self.said |= {"num_redirects": 0, "content_type": "", "speed_download": 0}

    def mark(self, name: str, moment: float | None = None) -> None:
        """Note when something was, now unless said."""
        moment = time.monotonic() if moment is None else moment
        self.said[f"time_{name}"] = max(moment - self.started, 0.0)

    def failed(self, code: int, text: str) -> None:
        """Note why it failed."""
        self.exit, self.error = code, text


def main(argv: list[str]) -> int:
    """Fetch each URL in turn and return the last one's exit status, as curl numbers them."""
    try:
        flags, urls = parse(argv, _TAKES, _SWITCHES)
    except WrongUsage as wrong:
        sys.stderr.write(f"curl: option {wrong}: is unknown\n")
        return 2
    urls += [value for name, value in flags if name == "url"]
    if not urls:
        sys.stderr.write("curl: (2) no URL specified\n")
        return 2
    given = dict(flags)
    headers = [value for name, value in flags if name == "header"]
    if not any(header.lower().startswith("user-agent:") for header in headers):
        headers.insert(0, f"User-Agent: {given.get('user-agent', 'curl/8 (the lab)')}")
    headers.append("Accept: */*")
    outputs = [value for name, value in flags if name == "output"]
    kept: dict[tuple[str, int], Connection] = {}
    status = 0
    for place, text in enumerate(urls):
        transfer = _Transfer(text)
        head, body = _fetch(transfer, given, headers, kept)
        transfer.mark("total")
        if "include" in given or "head" in given:
            body = head.encode("latin-1") + body
        _write(body, outputs[place] if place < len(outputs) else "-")
        status = transfer.exit
        if status and ("silent" not in given or "show-error" in given):
            sys.stderr.write(f"curl: ({status}) {transfer.error}\n")
        if "write-out" in given:
            sys.stdout.write(_told(given["write-out"], transfer))
        sys.stdout.flush()
    return status


def _fetch(
    transfer: _Transfer,
    given: dict[str, str],
    headers: list[str],
    kept: dict[tuple[str, int], Connection],
) -> tuple[str, bytes]:
    """Return the head and the body of the answer, both empty when there is none."""
    most = float(given["max-time"]) if "max-time" in given else None
    deadline = None if most is None else transfer.started + most
    try:
        url = split(transfer.url)
    except ValueError as wrong:
        transfer.failed(1, f'Protocol "{wrong}" not supported or disabled in libcurl')
        return "", b""
    try:
        connection = _connect(transfer, url, given, deadline, kept)
        if connection is None:
            return "", b""
        transfer.mark("pretransfer")
        method = given.get("request", "HEAD" if "head" in given else "GET")
        status, head, body = connection.request(method, url, headers, deadline)
    except NoHttp as wrong:
        transfer.failed(_EMPTY, str(wrong))
        kept.clear()
        return "", b""
    except TimeoutError:
        took = int((time.monotonic() - transfer.started) * 1000)
        transfer.failed(
            _TIMEOUT, f"Operation timed out after {took} milliseconds with 0 bytes received"
        )
        kept.clear()
        return "", b""
    except OSError as broken:
        transfer.failed(_BROKEN, f"Recv failure: {broken.strerror}")
        kept.clear()
        return "", b""
    transfer.mark("starttransfer", connection.first_byte)
    transfer.said |= {
        "http_code": f"{status:03}",
        "response_code": f"{status:03}",
        "http_version": "1.1",
        "size_download": len(body),
    }
    if not connection.open:
        kept.clear()
    if "fail" in given and status >= 400:
        transfer.failed(_HTTP, f"The requested URL returned error: {status}")
        return "", b""
    return f"{head}\r\n\r\n", body


def _connect(
    transfer: _Transfer,
    url: Url,
    given: dict[str, str],
    deadline: float | None,
    kept: dict[tuple[str, int], Connection],
) -> Connection | None:
    """Return the connection that is kept to the URL's host, or a new one; None when there is none.

    Raises:
        OSError: The kept one broke.
    """
    connection = kept.get((url.host, url.port))
    if connection is not None:
        transfer.mark("namelookup")
        transfer.mark("connect")
    else:
        try:
            address = wire.resolve(url.host)
        except OSError:
            transfer.failed(_UNRESOLVED, f"Could not resolve host: {url.host}")
            return None
        transfer.mark("namelookup")
        limit = float(given["connect-timeout"]) if "connect-timeout" in given else 300.0
        if deadline is not None:
            limit = max(min(limit, deadline - time.monotonic()), 0.001)
        try:
            connection = Connection(address, url.port, limit)
        except OSError as failed:
            took = int((time.monotonic() - transfer.started) * 1000)
            late = isinstance(failed, TimeoutError)
            if "verbose" in given and not late:
                said = f"connect to {address} port {url.port} failed: {failed.strerror}"
                sys.stderr.write(f"* {said}\n")
            why = "Timeout was reached" if late else "Couldn't connect to server"
            transfer.failed(
                _TIMEOUT if late else _REFUSED,
                f"Failed to connect to {url.host} port {url.port} after {took} ms: {why}",
            )
            return None
        transfer.mark("connect", connection.connected)
        transfer.said["num_connects"] = 1
        kept[(url.host, url.port)] = connection
    local, remote = connection.sock.getsockname(), connection.sock.getpeername()
    transfer.said |= {"local_ip": local[0], "local_port": local[1]}
    transfer.said |= {"remote_ip": remote[0], "remote_port": remote[1]}
    return connection


def _write(body: bytes, target: str) -> None:
    if target == "-":
        sys.stdout.flush()
        view = memoryview(body)
        while view:
            view = view[os.write(1, view) :]
    else:
        with open(target, "wb") as file:  # noqa: PTH123 - pathlib is too slow to import here
            file.write(body)


def _told(form: str, transfer: _Transfer) -> str:
    """Return `-w`'s text with its variables and escapes replaced."""
    for escape, character in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
        form = form.replace(escape, character)
    values = {**transfer.said, "exitcode": transfer.exit, "errormsg": transfer.error}
    first, *parts = form.split("%{")
    told = first
    for part in parts:
        name, _, rest = part.partition("}")
        value = values.get(name, "")
        told += (f"{value:.6f}" if isinstance(value, float) else str(value)) + rest
    return told.replace("%%", "%")
