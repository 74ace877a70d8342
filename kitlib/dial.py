"""From a host of the inventory to an open SSH connection: configuration, hops, keys, refusals.

What the parameters state goes before ~/.ssh/config, and that before the defaults (root, port 22).
fabric by itself accepts every host key; here every connection, hops included, has known_hosts and a
reject policy.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import paramiko
from fabric import Config, Connection
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ConfigParseError,
    NoValidConnectionsError,
    PasswordRequiredException,
    SSHException,
)

from kitlib.errors import ConnectError, HostKeyError, HostLoginError, ParamsError

__all__ = ["Dialler", "Target", "close", "hops", "where"]

KEEPALIVE = 15.0
"""Seconds between keep-alive packets."""

_MISSED = 4
"""So many of them may stay unanswered; then the connection counts as lost."""

_IDLE = 2.0
"""Seconds between two looks at a silent connection. At paramiko's own 0.1 fifty of them cost more
than all that is done over them; `close` shuts the socket down, which wakes the reader at once."""

_HANDSHAKE = 30.0
"""Seconds that a server may take for its greeting, and for a login."""

_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class Target(Protocol):
    """What this module needs to know about a host (kitlib.inventory.Host has it)."""

    @property
    def name(self) -> str:
        """The host's name in the inventory."""

    @property
    def address(self) -> str:
        """Where its SSH server is: a name, an IP address, or a Host of the SSH configuration."""

    @property
    def port(self) -> int:
        """The SSH server's port; 0 where it is not stated."""

    @property
    def user(self) -> str:
        """The login name; empty where it is not stated."""

    @property
    def identity_file(self) -> Path | None:
        """The private key to log in with; None leaves it to SSH's configuration and the agent."""


@dataclass(frozen=True, slots=True)
class Dialler:
    """Makes connections.

    Attributes:
        known_hosts: The file with the accepted host keys; it need not exist.
        config: The SSH configuration to read; None reads the usual ones.
        connect_timeout: Seconds for one connection attempt.
        keepalive: Seconds between keep-alive packets.
    """

    known_hosts: Path
    config: Path | None = None
    connect_timeout: float = 10
    keepalive: float = KEEPALIVE

    def connection(self, target: Target) -> Connection:
        """Return a host's connection, not opened yet; everything about it is decided.

        Raises:
            ParamsError: The SSH configuration cannot be read.
            HostLoginError: The stated private key is not there.
        """
        key = target.identity_file
        if key is not None and not key.is_file():
            raise HostLoginError(
                f"{target.name}: no such private key: {key}",
                remedy="name an existing key as ssh.identity_file in the parameters",
            )
        timeouts = {"timeouts": {"connect": self.connect_timeout}}
        try:
            config = Config(
                overrides=timeouts, lazy=False, runtime_ssh_path=self.config and str(self.config)
            )
            stated = config.base_ssh_config.lookup(target.address)
            connection = Connection(
                target.address,
                user=target.user or stated.get("user") or "root",
                port=target.port or None,
                connect_timeout=self.connect_timeout,
                config=config,
            )
        except (ConfigParseError, OSError, UnicodeDecodeError, ValueError) as error:
            file = self.config or "~/.ssh/config"
            raise ParamsError(f"ssh.config: {file}: not usable: {error}") from error
        for hop in hops(connection):
            keys = hop.connect_kwargs.get("key_filename", ())
            options: dict[str, Any] = {"banner_timeout": _HANDSHAKE, "auth_timeout": _HANDSHAKE}
            # A configured key that is not there is passed over, as ssh does.
            options["key_filename"] = [name for name in keys if Path(name).is_file()]
            if hop is connection and key is not None:
                options |= {"key_filename": [str(key)], "look_for_keys": False}
                # The agent is asked only where the file alone does not do.
                options["allow_agent"] = _has_passphrase(key)
            hop.connect_kwargs = options
            if self.known_hosts.is_file():
                hop.client.load_host_keys(str(self.known_hosts))
            hop.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        return connection

    def open(self, target: Target) -> Connection:
        """Return an open connection to a host, by way of its hops.

        Raises:
            HostKeyError: A key, the host's or a hop's, is unknown or differs.
            HostLoginError: The login was refused.
            ConnectError: The host or a hop cannot be reached.
        """
        connection = self.connection(target)
        self.open_hops(target.name, connection)
        return connection

    def open_hops(self, name: str, connection: Connection) -> None:
        """Open a connection, the farthest hop first; raises as `open` does, nothing left open."""
        for hop in reversed([*hops(connection)]):
            try:
                hop.open()
            except Exception as error:
                close(connection)
                raise self._refusal(name, connection, hop, error) from error
            transport = hop.transport
            transport.set_keepalive(self.keepalive)
            transport.channel_timeout = self.connect_timeout  # for the next hop; else an hour
            if isinstance(transport.sock, socket.socket):
                # Without it a short command waits for Nagle's algorithm (about 4 times as long).
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # paramiko sends signs of life and waits for none; TCP alone tries for 15 minutes.
                patience = int(self.keepalive * _MISSED * 1000)
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
                # A sign of life is sent when the look at a silent connection finds it due.
                transport.sock.settimeout(min(_IDLE, self.keepalive / 2) or _IDLE)

    def _refusal(
        self, name: str, connection: Connection, hop: Connection, error: Exception
    ) -> Exception:
        place = where(name, hop)
        if hop is not connection:
            place = f"{name}: its jump host {hop.original_host} ({login(hop)})"
        if isinstance(error, BadHostKeyException):
            return HostKeyError(
                f"{place}: the host key has changed: expected "
                f"{error.expected_key.fingerprint}, got {error.key.fingerprint}",
                remedy="if the host was reinstalled, remove its line from "
                f"{self.known_hosts} and run `kit trust`; otherwise somebody is in between",
            )
        if isinstance(error, PasswordRequiredException):
            return HostLoginError(
                f"{place}: the private key has a passphrase, and no agent has the key",
                remedy="start an agent and add the key to it: eval $(ssh-agent); ssh-add KEY",
            )
        # paramiko calls it so, too, when the connection dies while it logs in.
        died = "transport shut down" in str(error)
        if isinstance(error, AuthenticationException) and not died:
            return HostLoginError(
                f"{place}: the login was refused: {error}",
                remedy="check ssh.user and ssh.identity_file in the parameters, and ~/.ssh/config",
            )
        if isinstance(error, SSHException) and "not found in known_hosts" in str(error):
            return HostKeyError(
                f"{place}: the host key is unknown",
                remedy=f"look at it and accept it with `kit trust` (kept in {self.known_hosts})",
            )
        reason = (
            "; ".join(sorted({str(e) for e in error.errors.values()}))
            if isinstance(error, NoValidConnectionsError)
            else str(error) or type(error).__name__
        )
        failed = ConnectError(
            f"{place}: cannot connect: {reason}",
            remedy="check that the host is up, the address and port are right and SSH runs",
        )
        if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME:
            failed.transient = False  # type: ignore[misc]  # of this one error
        return failed


def hops(connection: Connection) -> Iterator[Connection]:
    """Yield the connection and those that it goes through (ProxyJump), the nearest last."""
    hop: Any = connection
    while isinstance(hop, Connection):
        yield hop
        hop = hop.gateway


def close(connection: Connection) -> None:
    """Close a connection and its hops; fabric leaves the hops open."""
    for hop in hops(connection):
        twin = _twin(getattr(hop.transport, "sock", None))
        hop.close()
        if twin is not None:
            # A thread waits in the socket, which keeps it open: until it looks up, the other side
            # would not hear of the end.
            with twin, contextlib.suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)


def _twin(sock: object) -> socket.socket | None:
    """Return another handle of a socket; None where it is none, or closed."""
    with contextlib.suppress(OSError):
        return sock.dup() if isinstance(sock, socket.socket) else None
    return None


def login(connection: Connection) -> str:
    """Return `user@address:port`, an IPv6 address in brackets."""
    address = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{connection.user}@{address}:{connection.port}"


def where(name: str, connection: Connection) -> str:
    """Return a host's name with its login, for messages: `worker-1 (root@192.0.2.7:22)`."""
    return f"{name} ({login(connection)})"


def _has_passphrase(key: Path) -> bool:
    with contextlib.suppress(Exception):  # what else may be wrong with it, the login tells
        try:
            paramiko.PKey.from_path(key)
        except (PasswordRequiredException, TypeError):  # TypeError: cryptography's own word for it
            return True
    return False
