"""wget for containers, as BusyBox has it: plain HTTP, `-q -S -O FILE -T SECONDS --spider`."""

from __future__ import annotations

import os
import sys
import time

from kitlib.lab.applets import wire
from kitlib.lab.applets.exchange import Connection, NoHttp, split
from kitlib.lab.applets.options import WrongUsage, parse

__all__ = ["main"]

_TAKES = {"-O": "output", "-T": "timeout", "--timeout": "timeout", "-t": "tries", "-U": "agent"}
_TAKES |= {"--tries": "tries", "--output-document": "output", "--header": "header"}
_SWITCHES = {"-q": "quiet", "--quiet": "quiet", "-S": "server-response", "--spider": "spider"}


def main(argv: list[str]) -> int:
    """Fetch one URL; return 0 when it came, 1 when not."""
    try:
        flags, urls = parse(argv, _TAKES, _SWITCHES)
        if len(urls) != 1:
            raise WrongUsage("URL")
    except WrongUsage as wrong:
        sys.stderr.write(f"wget: unrecognized option: {str(wrong).lstrip('-')}\n")
        return 1
    given = dict(flags)
    try:
        url = split(urls[0])
    except ValueError:
        sys.stderr.write(f"wget: not an http or ftp url: {urls[0]}\n")
        return 1
    try:
        address = wire.resolve(url.host)
    except OSError:
        sys.stderr.write(f"wget: bad address '{url.host}'\n")
        return 1
    if "quiet" not in given:
        sys.stderr.write(f"Connecting to {url.host}:{url.port} ({address}:{url.port})\n")
    limit = float(given.get("timeout", 900))
    deadline = time.monotonic() + limit
    try:
        connection = Connection(address, url.port, limit)
        headers = ["User-Agent: Wget", "Connection: close"]
        status, head, body = connection.request("GET", url, headers, deadline)
    except TimeoutError:
        sys.stderr.write("wget: download timed out\n")
        return 1
    except NoHttp:
        sys.stderr.write("wget: error getting response\n")
        return 1
    except OSError as failed:
        sys.stderr.write(f"wget: can't connect to remote host ({address}): {failed.strerror}\n")
        return 1
    if "server-response" in given:
        sys.stderr.write("".join(f"  {line}\n" for line in head.split("\r\n")))
    if status >= 400:
        sys.stderr.write(f"wget: server returned error: {head.splitlines()[0]}\n")
        return 1
    if "spider" not in given:
        _write(body, given.get("output") or url.path.split("?")[0].rpartition("/")[2])
    return 0


def _write(body: bytes, target: str) -> None:
    if target == "-":
        view = memoryview(body)
        while view:
            view = view[os.write(1, view) :]
    else:
        with open(target or "index.html", "wb") as file:  # noqa: PTH123 - pathlib is slow to import
            file.write(body)
