"""dig for containers, as BIND 9.18 has it: names at one server, over UDP or TCP, microseconds.

It takes `@SERVER -p PORT -x ADDRESS -t TYPE -r -u -4`, names and types, and the `+` options of
`_SWITCHES` and `_TAKES`.
"""

from __future__ import annotations

import os
import sys
import time

from kitlib.lab.applets import wire

__all__ = ["main"]

_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_FLAGS = ((0x8000, "qr"), (0x0400, "aa"), (0x0200, "tc"), (0x0100, "rd"), (0x0080, "ra"))
_PARTS = ("answer", "authority", "additional", "cmd", "comments", "question", "stats")
_SWITCHES = (*_PARTS, "all", "cookie", "edns", "recurse", "search", "short", "tcp", "vc", "ignore")
_TAKES = ("time", "timeout", "tries", "retry", "bufsize", "ndots", "domain")


class _Wanted:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.server = ""
        self.questions: list[list[str]] = []
        self.port = 53
        self.microseconds = False
        self.on = dict.fromkeys((*_PARTS, "recurse"), True)
        self.time = 5.0
        self.tries = 3


def main(argv: list[str], resolv: str | os.PathLike[str] = "/etc/resolv.conf") -> int:
    """Ask and print; return 0 when a server answered, 9 when none did, 1 for a wrong usage."""
    wanted = _Wanted()
    try:
        _read(argv, wanted)
    except (ValueError, OSError) as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 1
    found = wire.settings(resolv)
    if wanted.on["cmd"] and not wanted.on.get("short"):
        sys.stdout.write(
            f"\n; <<>> DiG 9.18 (the lab's) <<>> {' '.join(argv)}\n"
            + ("; (1 server found)\n" if wanted.server else "")
            + ";; global options: +cmd\n"
        )
    server = wanted.server or found.servers[0]
    return max(_look_up(name, kind, server, wanted, found) for name, kind in wanted.questions)


def _look_up(name: str, kind: str, server: str, wanted: _Wanted, found: wire.Settings) -> int:
    names = wire.candidates(name, found) if wanted.on.get("search") else [name.rstrip(".")]
    tcp = bool(wanted.on.get("tcp"))
    for asked in names:
        query = wire.query(asked, wire.TYPES[kind], os.getpid() & 0xFFFF)
        response, took, tries = b"", 0.0, wanted.tries
        while not response and tries:
            tries -= 1
            try:
                response, took = wire.ask(
                    server, query, port=wanted.port, tcp=tcp, timeout=wanted.time
                )
            except OSError as failed:
                sys.stdout.write(_why(failed, f"{server}#{wanted.port}", asked, tcp) + "\n")
                continue
            if response[2] & 0x02 and not tcp and not wanted.on.get("ignore"):
                if wanted.on["comments"] and not wanted.on.get("short"):
                    sys.stdout.write(";; Truncated, retrying in TCP mode.\n")
                tcp, response, tries = True, b"", wanted.tries
        if not response:
            sys.stdout.write(";; no servers could be reached\n")
            return 9
        code, answers = wire.read_answers(response)
        if answers or asked == names[-1]:
            break
    if wanted.on.get("short"):
        for _, each, _, value in answers:
            sys.stdout.write(f"{value}{'' if each in (wire.A, wire.AAAA) else '.'}\n")
        return 0
    sys.stdout.write(_shown(wanted, asked, kind, response, code, answers))
    if wanted.on["stats"]:
        shown = f"{int(took * 1e6)} usec" if wanted.microseconds else f"{int(took * 1e3)} msec"
        sys.stdout.write(
            f";; Query time: {shown}\n"
            f";; SERVER: {server}#{wanted.port}({server}) ({'TCP' if tcp else 'UDP'})\n"
            f";; WHEN: {time.strftime('%a %b %d %H:%M:%S %Z %Y')}\n"
            f";; MSG SIZE  rcvd: {len(response)}\n\n"
        )
    return 0


def _read(argv: list[str], wanted: _Wanted) -> None:
    kinds: list[str] = []  # types named before a name
    words = list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("@"):
            wanted.server = wire.resolve(word[1:])
        elif word.startswith("+"):
            _option(word[1:], wanted)
        elif word == "-u":
            wanted.microseconds = True
        elif word in ("-4", "-r"):
            pass
        elif word == "-p" and words:
            wanted.port = int(words.pop(0))
        elif word == "-x" and words:
            name = ".".join(reversed(words.pop(0).split("."))) + ".in-addr.arpa"
            wanted.questions.append([name, "PTR"])
        elif word in ("-t", "-q") and words:
            continue  # the next word is what it would be without them
        elif word.startswith("-"):
            raise ValueError(f"Invalid option: {word}")
        elif word.upper() in wire.TYPES:
            if wanted.questions:
                wanted.questions[-1][1] = word.upper()
            else:
                kinds.append(word.upper())
        elif word.upper() != "IN":
            wanted.questions.append([word, kinds.pop() if kinds else "A"])
    if not wanted.questions:
        raise ValueError("dig of the lab: no name to ask for")


def _option(word: str, wanted: _Wanted) -> None:
    name, equals, value = word.partition("=")
    off = name.startswith("no") and name not in _SWITCHES
    name = name[2:] if off else name
    if equals and name in _TAKES:
        if name in ("time", "timeout"):
            wanted.time = max(float(value), 1.0)
        elif name in ("tries", "retry"):
            wanted.tries = max(int(value) + (name == "retry"), 1)
    elif name == "all":
        wanted.on.update(dict.fromkeys(_PARTS, not off))
    elif name in _SWITCHES:
        wanted.on["tcp" if name == "vc" else name] = not off
    else:
        raise ValueError(f"Invalid option: +{word}")


def _why(failed: OSError, server: str, name: str, tcp: bool) -> str:
    if isinstance(failed, TimeoutError):
        if tcp:
            address = server.split("#")[0]
            return f";; Connection to {server}({address}) for {name} failed: timed out."
        return f";; communications error to {server}: timed out"
    reason = (failed.strerror or str(failed)).lower()
    if tcp:
        return f";; Connection to {server}({server.split('#')[0]}) for {name} failed: {reason}."
    return f";; communications error to {server}: {reason}"


def _shown(
    wanted: _Wanted,
    name: str,
    kind: str,
    response: bytes,
    code: int,
    answers: list[tuple[str, int, int, str]],
) -> str:
    bits = int.from_bytes(response[2:4], "big")
    flags = " ".join(text for bit, text in _FLAGS if bits & bit)
    said = ""
    if wanted.on["comments"]:
        said += (
            ";; Got answer:\n"
            f";; ->>HEADER<<- opcode: QUERY, status: {_CODES.get(code, str(code))}, "
            f"id: {int.from_bytes(response[:2], 'big')}\n"
            f";; flags: {flags}; QUERY: 1, ANSWER: {len(answers)}, AUTHORITY: 0, ADDITIONAL: 0\n\n"
        )
    if wanted.on["question"]:
        title = ";; QUESTION SECTION:\n" if wanted.on["comments"] else ""
        said += f"{title};{name}.\t\tIN\t{kind}\n\n"
    if wanted.on["answer"] and answers:
        title = ";; ANSWER SECTION:\n" if wanted.on["comments"] else ""
        kinds = {number: text for text, number in wire.TYPES.items()}
        said += title
        for owner, number, ttl, value in answers:
            dot = "" if number in (wire.A, wire.AAAA) else "."
            said += f"{owner}.\t{ttl}\tIN\t{kinds.get(number, str(number))}\t{value}{dot}\n"
        said += "\n"
    return said
