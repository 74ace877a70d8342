"""nslookup for pods: the machine may not have one, and busybox images do.

Prints what busybox prints; exit status 1 when the name has no answer.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from kitlib.lab.node.dns import NOERROR, NXDOMAIN, PTR, A, Answer, query, read_answers

__all__ = ["main"]


def main(argv: list[str], resolv: Path = Path("/etc/resolv.conf"), port: int = 53) -> int:
    """Look a name (or address) up at the first nameserver; return the exit status."""
    if not argv:
        sys.stderr.write("Usage: nslookup HOST [DNS_SERVER]\n")
        return 1
    servers, search, ndots = _settings(resolv)
    server = argv[1] if len(argv) > 1 else servers[0]
    sys.stdout.write(f"Server:\t\t{server}\nAddress:\t{server}:{port}\n\n")
    name = argv[0]
    reverse = name.count(".") == 3 and name.replace(".", "").isdigit()
    if reverse:
        candidates = [".".join(reversed(name.split("."))) + ".in-addr.arpa"]
    elif name.endswith(".") or name.count(".") >= ndots:
        candidates = [name.rstrip(".")]
    else:
        candidates = [name, *(f"{name}.{domain}" for domain in search)]
        if "." not in name:
            candidates = candidates[1:] + candidates[:1]
    code = NXDOMAIN
    for candidate in candidates:
        code, answers = _ask(server, port, candidate, PTR if reverse else A)
        if code == NOERROR and answers:
            for answer in answers:
                label = (
                    f"{answer.name}\tname = {answer.value}"
                    if reverse
                    else (f"Name:\t{answer.name}\nAddress: {answer.value}")
                )
                sys.stdout.write(f"{label}\n")
            sys.stdout.write("\n")
            return 0
    if code < 0:
        sys.stdout.write(";; connection timed out; no servers could be reached\n\n")
    else:
        word = {NXDOMAIN: "NXDOMAIN", NOERROR: "No answer"}.get(code, "SERVFAIL")
        sys.stdout.write(f"** server can't find {name}: {word}\n\n")
    return 1


def _settings(resolv: Path) -> tuple[list[str], list[str], int]:
    servers, search, ndots = [], [], 1
    for line in resolv.read_text().splitlines():
        words = line.split()
        if words[:1] == ["nameserver"]:
            servers.append(words[1])
        elif words[:1] == ["search"]:
            search = words[1:]
        elif words[:1] == ["options"]:
            dots = [word for word in words if word.startswith("ndots:")]
            ndots = int(dots[0].split(":")[1]) if dots else ndots
    return servers or ["127.0.0.1"], search, ndots


def _ask(server: str, port: int, name: str, kind: int) -> tuple[int, list[Answer]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2.5)
        for _ in range(2):
            try:
                sock.sendto(query(name, kind), (server, port))
                return read_answers(sock.recv(4096))
            except OSError:
                continue
    return -1, []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
