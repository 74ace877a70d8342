"""nslookup for containers, as BusyBox has it; exit status 1 when the name has no answer."""

from __future__ import annotations

import os
import sys

from kitlib.lab.applets import wire

__all__ = ["main"]


def main(
    argv: list[str], resolv: str | os.PathLike[str] = "/etc/resolv.conf", port: int = 53
) -> int:
    """Look a name (or address) up at the first name server, or the one named second."""
    if not argv:
        sys.stderr.write("Usage: nslookup HOST [DNS_SERVER]\n")
        return 1
    found = wire.settings(resolv)
    server = argv[1] if len(argv) > 1 else found.servers[0]
    sys.stdout.write(f"Server:\t\t{server}\nAddress:\t{server}:{port}\n\n")
    name = argv[0]
    reverse = name.count(".") == 3 and name.replace(".", "").isdigit()
    if reverse:
        names = [".".join(reversed(name.split("."))) + ".in-addr.arpa"]
    elif "." in name and not name.endswith("."):
        names = [name, *wire.candidates(name, found)]
    else:
        names = wire.candidates(name, found)
    code = wire.NXDOMAIN
    for candidate in dict.fromkeys(names):
        code, answers = _ask(server, port, candidate, wire.PTR if reverse else wire.A)
        if code == wire.NOERROR and answers:
            for owner, _, _, value in answers:
                said = (
                    f"{owner}\tname = {value}" if reverse else f"Name:\t{owner}\nAddress: {value}"
                )
                sys.stdout.write(f"{said}\n")
            sys.stdout.write("\n")
            return 0
    if code < 0:
        sys.stdout.write(";; connection timed out; no servers could be reached\n\n")
    else:
        word = {wire.NXDOMAIN: "NXDOMAIN", wire.NOERROR: "No answer"}.get(code, "SERVFAIL")
        sys.stdout.write(f"** server can't find {name}: {word}\n\n")
    return 1


def _ask(
    server: str, port: int, name: str, kind: int
) -> tuple[int, list[tuple[str, int, int, str]]]:
    for _ in range(2):
        try:
            return wire.read_answers(wire.ask(server, wire.query(name, kind), port=port)[0])
        except OSError:
            continue
    return -1, []
