"""Host keys at first contact: what each server shows, a jump host's first, against known_hosts."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import paramiko
from fabric import Connection
from paramiko.ssh_exception import SSHException

from kitlib.dial import Dialler, Target, close, hops
from kitlib.errors import ConnectError, HostKeyError

__all__ = ["Found", "HostKey", "Round", "fetch_host_key", "known_keys", "remember", "rounds"]


class HostKey:
    """A server's public key as it shows it.

    Attributes:
        line: The known_hosts line.
        blob: The key itself.
        kind: Its type, `ssh-ed25519`.
        fingerprint: `SHA256:...`, as ssh-keygen prints it.
    """

    def __init__(self, address: str, port: int, key: paramiko.PKey) -> None:
        self.line = f"{_known_name(address, port)} {key.get_name()} {key.get_base64()}"
        self.blob = key.asbytes()
        self.fingerprint = key.fingerprint
        self.kind = key.get_name()


@dataclass(frozen=True, slots=True)
class Found:
    """What one server showed.

    Attributes:
        name: The host's name, or `jump host NAME`.
        address: Address and port, as a known_hosts line has them for a port that is not 22.
        key: Its key; None where it could not be read.
        state: `known`, `new`, `CHANGED`, or why there is no key.
    """

    name: str
    address: str
    key: HostKey | None
    state: str


@dataclass(frozen=True, slots=True)
class Round:
    """The servers that can be asked as soon as the keys of the rounds before are accepted.

    Attributes:
        found: What each showed, in the order of the hosts.
        errors: What went wrong with those that could not be asked.
    """

    found: tuple[Found, ...]
    errors: tuple[ConnectError, ...]

    @property
    def fresh(self) -> tuple[HostKey, ...]:
        """The keys to be accepted or not."""
        return tuple(each.key for each in self.found if each.key and each.state == "new")


def rounds(targets: Iterable[Target], dialler: Dialler) -> Iterator[Round]:
    """Yield the servers round by round: those reached directly, then those behind them, ...

    Before it goes on to the next round, the caller writes the keys that were accepted into
    `dialler.known_hosts`: who is behind a jump host is asked through it, logged in with its key
    checked.

    Raises:
        HostKeyError: After a round with a key that differs from the remembered one.
    """
    pending = [(target, [*hops(dialler.connection(target))][::-1]) for target in targets]
    depth, failed = 0, set[str]()
    while level := [each for each in pending if depth < len(each[1])]:
        found: dict[tuple[str, int], Found] = {}
        errors = []
        for target, chain in level:
            hop = chain[depth]
            place = (hop.host, int(hop.port))
            last = depth == len(chain) - 1
            if place in found or target.name in failed:
                continue
            name = target.name if last else f"jump host {hop.original_host}"
            try:
                found[place] = _look(name, target, dialler, depth)
            except ConnectError as error:
                failed |= {other.name for other, way in level if _same(way, depth, place)}
                errors.append(error)
                found[place] = Found(name, _shown(*place), None, "out of reach")
        if found:
            yield Round(tuple(found.values()), tuple(errors))
        if changed := [each for each in found.values() if each.state == "CHANGED"]:
            raise HostKeyError(
                f"{changed[0].name} ({changed[0].address}): its key differs from the one in "
                f"{dialler.known_hosts}",
                remedy="find out why; if the host was reinstalled, remove its line there first",
            )
        depth += 1


def fetch_host_key(target: Target, *, timeout: float = 10) -> HostKey:
    """Return the key that the host's SSH server shows now, without logging in to it.

    Raises:
        ConnectError: The host, or a jump host of it, cannot be reached or does not speak SSH.
    """
    dialler = Dialler(Path("/nonexistent"), connect_timeout=timeout)
    connection = dialler.connection(target)
    return _fetch(target.name, connection, dialler)


def known_keys(file: Path, address: str, port: int = 22) -> set[bytes]:
    """Return the keys that a known_hosts file has for a server; empty without such a file."""
    if not file.is_file():
        return set()
    found = paramiko.HostKeys(str(file)).lookup(_known_name(address, port)) or {}
    return {key.asbytes() for key in found.values()}


def remember(file: Path, keys: Iterable[HostKey]) -> None:
    """Append keys to a known_hosts file, which is made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file.open("a+b") as handle:
        handle.seek(0)
        torn = handle.read()[-1:] not in (b"", b"\n")  # a last line without its end
        handle.write((b"\n" if torn else b"") + "".join(f"{key.line}\n" for key in keys).encode())


def _look(name: str, target: Target, dialler: Dialler, depth: int) -> Found:
    """Return what the hop at `depth` of a target's way shows."""
    hop = [*hops(dialler.connection(target))][::-1][depth]  # anew: it reads known_hosts as it is
    key = _fetch(name, hop, dialler)
    known = known_keys(dialler.known_hosts, hop.host, int(hop.port))
    state = "known" if key.blob in known else "CHANGED" if known else "new"
    return Found(name, _shown(hop.host, int(hop.port)), key, state)


def _fetch(name: str, hop: Connection, dialler: Dialler) -> HostKey:
    with ExitStack() as stack:
        try:
            sock = _socket(name, hop, dialler, stack)
            transport = paramiko.Transport(sock)
            stack.callback(transport.close)
            transport.start_client(timeout=dialler.connect_timeout)
            return HostKey(hop.host, int(hop.port), transport.get_remote_server_key())
        except (OSError, SSHException, EOFError) as error:
            reason = str(error) or type(error).__name__
            raise ConnectError(
                f"{name} ({_shown(hop.host, int(hop.port))}): cannot read its host key: {reason}",
                remedy="check that the host is up and SSH runs",
            ) from error


def _socket(name: str, hop: Connection, dialler: Dialler, stack: ExitStack) -> socket.socket:
    """Return a socket, or what is as good, to a hop; what carries it is closed with `stack`."""
    if not hop.gateway:
        return stack.enter_context(
            socket.create_connection((hop.host, int(hop.port)), dialler.connect_timeout)
        )
    if isinstance(hop.gateway, Connection):
        stack.callback(close, hop.gateway)
        dialler.open_hops(name, hop.gateway)
    opened: socket.socket = hop.open_gateway()
    stack.callback(opened.close)
    return opened


def _same(way: list[Connection], depth: int, place: tuple[str, int]) -> bool:
    return (way[depth].host, int(way[depth].port)) == place


def _known_name(address: str, port: int) -> str:
    return address if port == 22 else f"[{address}]:{port}"


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
